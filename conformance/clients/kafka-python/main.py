"""kafka-python, from 1.4.7 to the newest, by its own api_version."""
import os
import sys
from contextlib import contextmanager

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import zoo

import kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

import admin

SETTINGS = {
    "bootstrap_servers": zoo.BOOTSTRAP,
    "api_version": zoo.VERSION or None,
    "request_timeout_ms": 15000,
}
NEWEST = int(kafka.__version__.split(".")[0]) >= 3


@contextmanager
def closing(client):
    try:
        yield client
    finally:
        client.close()


def new_consumer(group=None):
    return KafkaConsumer(group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                         fetch_max_wait_ms=100, max_partition_fetch_bytes=2 << 20,
                         session_timeout_ms=10000, heartbeat_interval_ms=1000, **SETTINGS)


def consumer(group=None):
    return closing(new_consumer(group))


def record(r):
    return zoo.Record(r.key, r.value, r.timestamp, r.headers if "headers" in zoo.CARRIES else None)


class Client:
    reader = None

    def produce(self, topic, codec, records, **more):
        settings = dict(SETTINGS, acks="all", linger_ms=50, max_block_ms=10000, retries=3, **more)
        if codec != "none":
            settings["compression_type"] = codec
        with closing(KafkaProducer(**settings)) as p:
            sent = [p.send(topic, partition=0, key=r.key, value=r.value, timestamp_ms=r.timestamp,
                           **({"headers": r.headers} if r.headers else {}))
                    for r in records]
            for i, future in enumerate(sent):
                zoo.equal(future.get(timeout=15).offset, i)

    def read(self, topic):
        p = TopicPartition(topic, 0)
        # One consumer for all topics: to start one takes longer than to read one.
        self.reader = c = self.reader or new_consumer()
        records = []
        c.assign([p])
        c.seek_to_beginning(p)
        end = c.end_offsets([p])[p]
        while c.position(p) < end:
            for r in c.poll(timeout_ms=500).get(p, []):
                records.append(record(r))
        return records

    def group(self, topic, group, count, commit=None):
        p = TopicPartition(topic, 0)
        records = []
        with consumer(group) as c:
            c.subscribe([topic])
            while len(records) < count:
                for r in c.poll(timeout_ms=500, max_records=count - len(records)).get(p, []):
                    records.append(record(r))
            zoo.equal(c.assignment(), {p})
            if commit is not None:
                # A leader epoch came to the fields in 2.1.
                c.commit({p: OffsetAndMetadata(commit, "note", *[-1] * (len(OffsetAndMetadata._fields) - 2))})
                zoo.equal(c.committed(p), commit)
        return records

    def bounds(self, topic):
        p = TopicPartition(topic, 0)
        with consumer() as c:
            return c.beginning_offsets([p])[p], c.end_offsets([p])[p]

    def topics(self):
        with consumer() as c:
            return c.topics()


class Times:
    def offset_at(self, topic, ms):
        p = TopicPartition(topic, 0)
        with consumer() as c:
            found = c.offsets_for_times({p: ms})[p]
        return found and found.offset


class Admin:

    def admin(self, names):
        c = kafka.KafkaAdminClient(**SETTINGS)
        return (admin.newest if NEWEST else admin.first)(c, names)


class Idempotent:
    def idempotent(self, topic, records):
        self.produce(topic, "none", records, enable_idempotence=True)


parts = [Client]
if not zoo.VERSION:
    parts.append(Admin)
if not zoo.VERSION or zoo.VERSION >= (0, 10, 1):
    parts.append(Times)
if NEWEST and (not zoo.VERSION or zoo.VERSION >= (0, 11)):
    parts.append(Idempotent)
zoo.main(type("KafkaPython", tuple(parts), {})())
