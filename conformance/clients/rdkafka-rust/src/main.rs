//! rust-rdkafka: librdkafka from Rust.

#[path = "../../zoo.rs"]
mod zoo;

use std::collections::HashMap;
use std::time::Duration;

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::sync::mpsc;
use zoo::{Record, Res};

const TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Clone, Copy)]
struct Client;

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

fn config() -> ClientConfig {
    let mut c = ClientConfig::new();
    c.set("bootstrap.servers", zoo::bootstrap()).set("socket.timeout.ms", "15000");
    c
}

/// Sends on what became of each record.
struct Reports(mpsc::Sender<Res<i64>>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        let outcome = result.as_ref().map(|m| m.offset()).map_err(|(e, _)| text(e));
        // The receiver is gone when the check has ended.
        self.0.send(outcome).ok();
    }
}

fn consumer(group: &str) -> Res<BaseConsumer> {
    config()
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "50")
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "1000")
        .create()
        .map_err(text)
}

fn record(m: &BorrowedMessage) -> Record {
    let headers = m.headers().map_or(Vec::new(), |all| {
        all.iter().map(|h| (h.key.to_string(), h.value.map(Vec::from))).collect()
    });
    Record {
        key: m.key().map(Vec::from),
        value: m.payload().map(Vec::from),
        timestamp: m.timestamp().to_millis(),
        headers: Some(headers),
    }
}

fn take(consumer: &BaseConsumer, count: usize) -> Res<Vec<Record>> {
    let mut records = Vec::new();
    while records.len() < count {
        if let Some(m) = consumer.poll(Duration::from_millis(100)) {
            records.push(record(&m.map_err(text)?));
        }
    }
    Ok(records)
}

fn partition(topic: &str, offset: Offset) -> Res<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, offset).map_err(text)?;
    Ok(list)
}

/// Fails when one of an admin call's answers is an error.
fn done<T>(answers: Result<Vec<Result<T, (String, rdkafka::types::RDKafkaErrorCode)>>, rdkafka::error::KafkaError>) -> Res<()> {
    for answer in answers.map_err(text)? {
        answer.map_err(|(name, code)| format!("{name}: {code}"))?;
    }
    Ok(())
}

impl zoo::Client for Client {
    fn produce(self, topic: &str, codec: &str, records: &[Record], idempotent: bool) -> Res<()> {
        let (report, reports) = mpsc::channel();
        let producer: BaseProducer<Reports> = config()
            .set("compression.type", codec)
            .set("linger.ms", "50")
            .set("message.timeout.ms", "15000")
            .set("enable.idempotence", idempotent.to_string())
            .create_with_context(Reports(report))
            .map_err(text)?;
        for r in records {
            let mut sent = BaseRecord::<[u8], [u8]>::to(topic).partition(0);
            if let Some(key) = &r.key {
                sent = sent.key(key);
            }
            if let Some(value) = &r.value {
                sent = sent.payload(value);
            }
            if let Some(ms) = r.timestamp {
                sent = sent.timestamp(ms);
            }
            let headers = r.headers.iter().flatten().fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header { key, value: value.as_ref() })
            });
            producer.send(sent.headers(headers)).map_err(|(e, _)| text(e))?;
        }
        producer.flush(TIMEOUT).map_err(text)?;
        for want in 0..records.len() as i64 {
            zoo::equal(reports.try_recv().map_err(text)??, want)?;
        }
        Ok(())
    }

    fn has_idempotence(self) -> bool {
        true
    }

    fn read(self, topic: &str) -> Res<Vec<Record>> {
        let consumer = consumer("zoo-without-a-group")?;
        let (_, end) = consumer.fetch_watermarks(topic, 0, TIMEOUT).map_err(text)?;
        consumer.assign(&partition(topic, Offset::Beginning)?).map_err(text)?;
        take(&consumer, end as usize)
    }

    fn bounds(self, topic: &str) -> Res<(i64, i64)> {
        consumer("zoo-without-a-group")?.fetch_watermarks(topic, 0, TIMEOUT).map_err(text)
    }

    fn offset_at(self, topic: &str, ms: i64) -> Option<Res<Option<i64>>> {
        let ask = || {
            let found = consumer("zoo-without-a-group")?
                .offsets_for_times(partition(topic, Offset::Offset(ms))?, TIMEOUT)
                .map_err(text)?;
            match found.elements()[0].offset() {
                Offset::Offset(offset) => Ok(Some(offset)),
                _ => Ok(None),
            }
        };
        Some(ask())
    }

    fn group(self, topic: &str, group: &str, count: usize, commit: Option<i64>) -> Res<Vec<Record>> {
        let consumer = consumer(group)?;
        consumer.subscribe(&[topic]).map_err(text)?;
        let records = take(&consumer, count)?;
        zoo::equal(consumer.assignment().map_err(text)?.count(), 1)?;
        if let Some(offset) = commit {
            consumer.commit(&partition(topic, Offset::Offset(offset))?, CommitMode::Sync).map_err(text)?;
            let committed = consumer.committed(TIMEOUT).map_err(text)?;
            zoo::equal(committed.elements()[0].offset(), Offset::Offset(offset))?;
        }
        Ok(records)
    }

    fn topics(self) -> Res<Vec<String>> {
        let metadata = consumer("zoo-without-a-group")?.fetch_metadata(None, TIMEOUT).map_err(text)?;
        Ok(metadata.topics().iter().map(|t| t.name().to_string()).collect())
    }

    fn admin(self, created: String, _: String, group: String) -> zoo::Checks {
        fn client() -> Res<AdminClient<DefaultClientContext>> {
            config().create().map_err(text)
        }
        let options = || AdminOptions::new().operation_timeout(Some(TIMEOUT));
        let topic = created.clone();
        let retention = move |topic: &str| {
            let answer = block_on(client()?.describe_configs(&[ResourceSpecifier::Topic(topic)], &options())).map_err(text)?;
            let resource = answer.into_iter().next().ok_or("no answer")?.map_err(text)?;
            Ok::<_, String>(resource.get("retention.ms").and_then(|e| e.value.clone()))
        };
        let (a, b, c, d, e, g) = (topic.clone(), topic.clone(), topic.clone(), topic.clone(), topic.clone(), group.clone());
        vec![
            ("admin-create-topic", Box::new(move || {
                let new = NewTopic::new(&a, 2, TopicReplication::Fixed(1)).set("retention.ms", "123456000");
                done(block_on(client()?.create_topics(&[new], &options())))
            })),
            ("admin-describe-configs", Box::new(move || zoo::equal(retention(&b)?, Some("123456000".into())))),
            ("admin-alter-configs", Box::new(move || {
                let entries = HashMap::from([("retention.ms", "654321000")]);
                let change = AlterConfig { specifier: ResourceSpecifier::Topic(&c), entries };
                for answer in block_on(client()?.alter_configs(&[change], &options())).map_err(text)? {
                    answer.map_err(|(_, code)| text(code))?;
                }
                Ok(())
            })),
            ("admin-create-partitions", Box::new(move || {
                done(block_on(client()?.create_partitions(&[NewPartitions::new(&d, 3)], &options())))
            })),
            ("admin-list-groups", Box::new(move || {
                let list = consumer("zoo-without-a-group")?.fetch_group_list(Some(&g), TIMEOUT).map_err(text)?;
                zoo::equal(list.groups().iter().map(|g| g.state().to_string()).collect::<Vec<_>>(), vec!["Empty".to_string()])
            })),
            ("admin-delete-group", Box::new(move || done(block_on(client()?.delete_groups(&[&group], &options()))))),
            ("admin-delete-topic", Box::new(move || done(block_on(client()?.delete_topics(&[&e], &options()))))),
        ]
    }
}

fn main() {
    zoo::run(Client);
}
