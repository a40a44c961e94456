"""confluent-kafka-python: librdkafka from Python."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import zoo

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

SETTINGS = {"bootstrap.servers": zoo.BOOTSTRAP, "socket.timeout.ms": 15000}
SECONDS = 15


def produce(topic, codec, records, **more):
    p = Producer(dict(SETTINGS, **{"compression.type": codec, "linger.ms": 50, "message.timeout.ms": 15000}, **more))
    answers = []
    for r in records:
        p.produce(topic, partition=0, key=r.key, value=r.value, headers=r.headers or None,
                  callback=lambda error, m: answers.append(error or m.offset()),
                  **({"timestamp": r.timestamp} if r.timestamp else {}))
    p.flush(SECONDS)
    zoo.equal(answers, list(range(len(records))))


def consumer(group="zoo-without-a-group"):
    return Consumer(dict(SETTINGS, **{
        "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False, "fetch.wait.max.ms": 100,
        "session.timeout.ms": 10000, "heartbeat.interval.ms": 1000}))


def record(m):
    if m.error():
        raise KafkaException(m.error())
    return zoo.Record(m.key(), m.value(), m.timestamp()[1], (m.headers() or []) if "headers" in zoo.CARRIES else None)


class Client:
    reader = None

    def produce(self, topic, codec, records):
        produce(topic, codec, records)

    def idempotent(self, topic, records):
        produce(topic, "none", records, **{"enable.idempotence": True})

    def read(self, topic):
        # One consumer for all topics: to start one takes longer than to read one.
        self.reader = c = self.reader or consumer()
        end = c.get_watermark_offsets(TopicPartition(topic, 0), timeout=SECONDS)[1]
        c.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        records, next_offset = [], 0
        while next_offset < end:
            for m in c.consume(end - next_offset, timeout=0.05):
                records.append(record(m))
                next_offset = m.offset() + 1
        c.unassign()
        return records

    def group(self, topic, group, count, commit=None):
        c = consumer(group)
        try:
            records = []
            c.subscribe([topic])
            while len(records) < count:
                records += [record(m) for m in c.consume(count - len(records), timeout=0.2)]
            zoo.equal([(p.topic, p.partition) for p in c.assignment()], [(topic, 0)])
            if commit is not None:
                c.commit(offsets=[TopicPartition(topic, 0, commit)], asynchronous=False)
                zoo.equal(c.committed([TopicPartition(topic, 0)], timeout=SECONDS)[0].offset, commit)
            return records
        finally:
            c.close()

    def offset_at(self, topic, ms):
        c = consumer()
        try:
            offset = c.offsets_for_times([TopicPartition(topic, 0, ms)], timeout=SECONDS)[0].offset
            return offset if offset >= 0 else None
        finally:
            c.close()

    def bounds(self, topic):
        c = consumer()
        try:
            return c.get_watermark_offsets(TopicPartition(topic, 0), timeout=SECONDS)
        finally:
            c.close()

    def topics(self):
        return AdminClient(SETTINGS).list_topics(timeout=SECONDS).topics

    def admin(self, names):
        c = AdminClient(SETTINGS)
        filled = TopicPartition(names.filled, 0)

        def one(futures):
            """The answer of a call about one thing."""
            future = list(futures.values())[0] if isinstance(futures, dict) else futures
            return future.result(timeout=SECONDS)

        def resource(**config):
            return ConfigResource(ConfigResource.Type.TOPIC, names.new, **config)

        def retention():
            return one(c.describe_configs([resource()]))["retention.ms"].value

        def alter_configs():
            one(c.alter_configs([resource(set_config={"retention.ms": "654321000"})]))
            zoo.soon(retention, "654321000")

        def partitions():
            return len(c.list_topics(names.new, timeout=SECONDS).topics[names.new].partitions)

        def create_partitions():
            one(c.create_partitions([NewPartitions(names.new, 3)]))
            zoo.soon(partitions, 3)

        yield "admin-create-topic", lambda: one(c.create_topics([NewTopic(names.new, 2, 1, config={"retention.ms": "123456000"})]))
        yield "admin-list-topics", lambda: zoo.soon(partitions, 2)
        yield "admin-describe-configs", lambda: zoo.soon(retention, "123456000")
        yield "admin-alter-configs", alter_configs
        yield "admin-create-partitions", create_partitions
        yield "admin-list-groups", lambda: zoo.equal(
            names.group in [g.group_id for g in one(c.list_consumer_groups()).valid], True)
        yield "admin-describe-group", lambda: zoo.equal(
            one(c.describe_consumer_groups([names.group])).state.name, "EMPTY")

        def group_offset():
            of = confluent_kafka.ConsumerGroupTopicPartitions(names.group, [filled])
            return one(c.list_consumer_group_offsets([of])).topic_partitions[0].offset

        def alter_group_offsets():
            one(c.alter_consumer_group_offsets([confluent_kafka.ConsumerGroupTopicPartitions(
                names.group, [TopicPartition(names.filled, 0, 7)])]))
            zoo.soon(group_offset, 7)

        yield "admin-list-group-offsets", lambda: zoo.soon(group_offset, 10)
        yield "admin-alter-group-offsets", alter_group_offsets
        yield from later(c, one, names, resource, retention)
        yield "admin-delete-group", lambda: one(c.delete_consumer_groups([names.group]))
        yield "admin-delete-topic", lambda: one(c.delete_topics([names.new]))


def later(c, one, names, resource, retention):
    """What came after 2.0."""
    filled = TopicPartition(names.filled, 0)
    if hasattr(c, "incremental_alter_configs"):
        from confluent_kafka.admin import AlterConfigOpType, ConfigEntry

        def incremental():
            one(c.incremental_alter_configs([resource(incremental_configs=[
                ConfigEntry("retention.ms", "777000", incremental_operation=AlterConfigOpType.SET)])]))
            zoo.soon(retention, "777000")
        yield "admin-incremental-alter-configs", incremental
    if hasattr(c, "describe_topics"):
        yield "admin-describe-topic", lambda: zoo.equal(
            len(one(c.describe_topics(confluent_kafka.TopicCollection([names.new]))).partitions), 3)
        yield "admin-describe-cluster", lambda: zoo.equal(len(one(c.describe_cluster()).nodes), 1)
    if hasattr(c, "list_offsets"):
        from confluent_kafka.admin import OffsetSpec
        yield "admin-list-offsets", lambda: zoo.equal(
            (one(c.list_offsets({filled: OffsetSpec.earliest()})).offset,
             one(c.list_offsets({filled: OffsetSpec.latest()})).offset,
             one(c.list_offsets({filled: OffsetSpec.max_timestamp()})).offset), (0, zoo.COUNT, zoo.COUNT - 1))
    if hasattr(c, "describe_user_scram_credentials"):
        yield "admin-describe-users", lambda: one(c.describe_user_scram_credentials())
    if hasattr(c, "delete_records"):
        yield "admin-delete-records", lambda: zoo.equal(
            one(c.delete_records([TopicPartition(names.filled, 0, 5)])).low_watermark, 5)
    if hasattr(c, "elect_leaders"):
        from confluent_kafka import ElectionType

        def elect():
            answers = c.elect_leaders(ElectionType.PREFERRED, [TopicPartition(names.new, 0)]).result(timeout=SECONDS)
            # The leader is the preferred one already.
            zoo.equal([e.name() for e in answers.values() if e], ["ELECTION_NOT_NEEDED"])
        yield "admin-elect-leaders", elect


zoo.main(Client())
