"""aiokafka, by its own api_version where it still has that setting."""
import asyncio
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import zoo

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

try:
    from aiokafka.admin import NewPartitions, NewTopic
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
except ImportError:  # up to 0.8 the types were those of kafka-python
    from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic

SETTINGS = {"bootstrap_servers": zoo.BOOTSTRAP, "request_timeout_ms": 15000}
run = asyncio.new_event_loop().run_until_complete
if zoo.VERSION:
    SETTINGS["api_version"] = ".".join(map(str, zoo.VERSION))


def record(r):
    return zoo.Record(r.key, r.value, r.timestamp, r.headers if "headers" in zoo.CARRIES else None)


def consumer(group=None):
    return AIOKafkaConsumer(group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                            fetch_max_wait_ms=100, max_partition_fetch_bytes=2 << 20,
                            session_timeout_ms=10000, heartbeat_interval_ms=1000, **SETTINGS)


async def produce(topic, codec, records, **more):
    p = AIOKafkaProducer(acks="all", linger_ms=50, compression_type=None if codec == "none" else codec, **SETTINGS, **more)
    await p.start()
    try:
        sent = [await p.send(topic, partition=0, key=r.key, value=r.value, timestamp_ms=r.timestamp,
                             **({"headers": r.headers} if r.headers else {})) for r in records]
        for i, answer in enumerate(await asyncio.gather(*sent)):
            zoo.equal(answer.offset, i)
    finally:
        await p.stop()


async def end_of(c, p):
    """end_offsets needs ListOffsets v1; to seek does not."""
    await c.seek_to_end(p)
    return await c.position(p)


async def read(topic, c):
    p = TopicPartition(topic, 0)
    records = []
    c.assign([p])
    end = await end_of(c, p)
    await c.seek_to_beginning(p)
    while await c.position(p) < end:
        for r in (await c.getmany(p, timeout_ms=500)).get(p, []):
            records.append(record(r))
    return records


async def started():
    c = consumer()
    await c.start()
    return c


async def group(topic, group_id, count, commit):
    p = TopicPartition(topic, 0)
    records = []
    c = consumer(group_id)
    c.subscribe([topic])
    await c.start()
    try:
        while len(records) < count:
            for r in (await c.getmany(timeout_ms=500, max_records=count - len(records))).get(p, []):
                records.append(record(r))
        zoo.equal(c.assignment(), {p})
        if commit is not None:
            await c.commit({p: commit})
            zoo.equal(await c.committed(p), commit)
    finally:
        await c.stop()
    return records


async def with_consumer(call):
    c = consumer()
    await c.start()
    try:
        return await call(c)
    finally:
        await c.stop()


async def with_admin(call):
    c = AIOKafkaAdminClient(**SETTINGS)
    await c.start()
    try:
        return await call(c)
    finally:
        await c.close()


class Client:
    reader = None

    def produce(self, topic, codec, records):
        run(produce(topic, codec, records))

    def read(self, topic):
        # One consumer for all topics: to start one takes longer than to read one.
        self.reader = self.reader or run(started())
        return run(read(topic, self.reader))

    def group(self, topic, group_id, count, commit=None):
        return run(group(topic, group_id, count, commit))

    def bounds(self, topic):
        p = TopicPartition(topic, 0)

        async def ask(c):
            c.assign([p])
            await c.seek_to_beginning(p)
            return await c.position(p), await end_of(c, p)
        return run(with_consumer(ask))

    def topics(self):
        return run(with_consumer(lambda c: c.topics()))


class Times:
    def offset_at(self, topic, ms):
        p = TopicPartition(topic, 0)
        found = run(with_consumer(lambda c: c.offsets_for_times({p: ms})))[p]
        return found and found.offset


class Idempotent:
    def idempotent(self, topic, records):
        run(produce(topic, "none", records, enable_idempotence=True))


class Admin:
    def admin(self, names):
        """Answers are structs of the protocol, errors are codes in them."""
        def ask(call):
            return run(with_admin(call))

        def done(call):
            answer = ask(call)
            errors = answer.topic_errors if hasattr(answer, "topic_errors") else answer.topic_error_codes
            zoo.equal([e[1] for e in errors], [0])

        def retention():
            answers = ask(lambda c: c.describe_configs([ConfigResource(ConfigResourceType.TOPIC, names.new)]))
            error, _, _, _, entries = answers[0].resources[0]
            zoo.equal(error, 0)
            return {e[0]: e[1] for e in entries}["retention.ms"]

        def alter_configs():
            answers = ask(lambda c: c.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, names.new, {"retention.ms": "654321000"})]))
            zoo.equal(answers[0].resources[0][0], 0)
            zoo.soon(retention, "654321000")

        def describe_group():
            g = ask(lambda c: c.describe_consumer_groups([names.group]))[0].groups[0]
            zoo.equal((g[0], g[1], g[2]), (0, names.group, "Empty"))

        def group_offset():
            offsets = ask(lambda c: c.list_consumer_group_offsets(names.group))
            return offsets[TopicPartition(names.filled, 0)].offset

        yield "admin-create-topic", lambda: done(lambda c: c.create_topics(
            [NewTopic(names.new, 2, 1, topic_configs={"retention.ms": "123456000"})]))
        yield "admin-list-topics", lambda: zoo.equal(names.new in ask(lambda c: c.list_topics()), True)
        yield "admin-describe-topic", lambda: zoo.equal(
            len(ask(lambda c: c.describe_topics([names.new]))[0]["partitions"]), 2)
        yield "admin-describe-cluster", lambda: zoo.equal(len(ask(lambda c: c.describe_cluster())["brokers"]), 1)
        yield "admin-describe-configs", lambda: zoo.equal(retention(), "123456000")
        yield "admin-alter-configs", alter_configs
        yield "admin-create-partitions", lambda: done(lambda c: c.create_partitions({names.new: NewPartitions(3)}))
        yield "admin-list-groups", lambda: zoo.equal(
            names.group in [g[0] for g in ask(lambda c: c.list_consumer_groups())], True)
        yield "admin-describe-group", describe_group
        yield "admin-list-group-offsets", lambda: zoo.equal(group_offset(), 10)
        if hasattr(AIOKafkaAdminClient, "delete_records"):
            from aiokafka.admin.records_to_delete import RecordsToDelete
            p = TopicPartition(names.filled, 0)

            def delete_records():
                ask(lambda c: c.delete_records({p: RecordsToDelete(5)}))
                zoo.equal(self.bounds(names.filled)[0], 5)
            yield "admin-delete-records", delete_records
        yield "admin-delete-topic", lambda: done(lambda c: c.delete_topics([names.new]))


parts = [Client]
if not zoo.VERSION or zoo.VERSION >= (0, 10, 1):
    parts.append(Times)
if not zoo.VERSION or zoo.VERSION >= (0, 11):
    parts.append(Idempotent)
if not zoo.VERSION:
    parts.append(Admin)
zoo.main(type("AIOKafka", tuple(parts), {})())
