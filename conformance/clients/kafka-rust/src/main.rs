//! kafka-rust: Produce v0 and Fetch v0, offsets of groups without members.

#[path = "../../zoo.rs"]
mod zoo;

use std::time::Duration;

use kafka::client::{Compression, FetchOffset, GroupOffsetStorage, KafkaClient, RequiredAcks};
use kafka::consumer::Consumer;
use kafka::producer::{Producer, Record as Sent};
use zoo::{Record, Res};

#[derive(Clone, Copy)]
struct Client;

fn text(e: impl std::fmt::Debug) -> String {
    format!("{e:?}")
}

fn hosts() -> Vec<String> {
    vec![zoo::bootstrap()]
}

/// Asks until the topic, which asking creates, has a leader.
fn client(topic: &str) -> Res<KafkaClient> {
    let mut client = KafkaClient::new(hosts());
    client.set_group_offset_storage(Some(GroupOffsetStorage::Kafka));
    client.set_fetch_max_bytes_per_partition(1 << 20);
    client.set_fetch_max_wait_time(Duration::from_millis(50)).map_err(text)?;
    loop {
        client.load_metadata(&[topic]).map_err(text)?;
        if client.topics().partitions(topic).is_some_and(|p| p.partition(0).is_some_and(|p| p.leader().is_some())) {
            return Ok(client);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The library shows null as empty.
fn record(key: &[u8], value: &[u8]) -> Record {
    Record { key: Some(key.into()), value: Some(value.into()), timestamp: None, headers: None }
}

impl zoo::Client for Client {
    fn produce(self, topic: &str, codec: &str, records: &[Record], _: bool) -> Res<()> {
        let compression = match codec {
            "gzip" => Compression::GZIP,
            "snappy" => Compression::SNAPPY,
            _ => Compression::NONE,
        };
        let mut producer = Producer::from_client(client(topic)?)
            .with_compression(compression)
            .with_required_acks(RequiredAcks::All)
            .with_ack_timeout(Duration::from_secs(10))
            .create()
            .map_err(text)?;
        let empty: &[u8] = &[];
        let sent: Vec<_> = records
            .iter()
            .map(|r| Sent {
                topic,
                partition: 0,
                key: r.key.as_deref().unwrap_or(empty),
                value: r.value.as_deref().unwrap_or(empty),
            })
            .collect();
        for confirm in producer.send_all(&sent).map_err(text)? {
            for partition in confirm.partition_confirms {
                partition.offset.map_err(text)?;
            }
        }
        Ok(())
    }

    fn read(self, topic: &str) -> Res<Vec<Record>> {
        let (_, end) = self.bounds(topic)?;
        let mut consumer = Consumer::from_client(client(topic)?)
            .with_topic_partitions(topic.into(), &[0])
            .with_fallback_offset(FetchOffset::Earliest)
            .with_fetch_max_bytes_per_partition(1 << 20)
            .create()
            .map_err(text)?;
        let (mut records, mut next) = (Vec::new(), 0);
        while next < end {
            for set in consumer.poll().map_err(text)?.iter() {
                for m in set.messages() {
                    records.push(record(m.key, m.value));
                    next = m.offset + 1;
                }
            }
        }
        Ok(records)
    }

    fn bounds(self, topic: &str) -> Res<(i64, i64)> {
        let mut client = client(topic)?;
        let mut at = |time| {
            let offsets = client.fetch_offsets(&[topic], time).map_err(text)?;
            offsets.get(topic).and_then(|o| o.first()).map(|o| o.offset).ok_or_else(|| "no offset".to_string())
        };
        Ok((at(FetchOffset::Earliest)?, at(FetchOffset::Latest)?))
    }

    fn group(self, topic: &str, group: &str, count: usize, commit: Option<i64>) -> Res<Vec<Record>> {
        let mut consumer = Consumer::from_client(client(topic)?)
            .with_topic_partitions(topic.into(), &[0])
            .with_group(group.into())
            .with_offset_storage(Some(GroupOffsetStorage::Kafka))
            .with_fallback_offset(FetchOffset::Earliest)
            .create()
            .map_err(text)?;
        let mut records = Vec::new();
        while records.len() < count {
            for set in consumer.poll().map_err(text)?.iter() {
                records.extend(set.messages().iter().map(|m| record(m.key, m.value)));
            }
        }
        records.truncate(count);
        if let Some(offset) = commit {
            consumer.consume_message(topic, 0, offset - 1).map_err(text)?;
            consumer.commit_consumed().map_err(text)?;
        }
        Ok(records)
    }

    fn topics(self) -> Res<Vec<String>> {
        let mut client = KafkaClient::new(hosts());
        client.load_metadata_all().map_err(text)?;
        Ok(client.topics().names().map(String::from).collect())
    }
}

fn main() {
    zoo::run(Client);
}
