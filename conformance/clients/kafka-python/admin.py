"""The admin calls of kafka-python: as it first had them, and as 3.x has them."""
import zoo

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.structs import OffsetAndMetadata


def contains(items, item):
    if item not in items:
        raise AssertionError("%r is not among %r" % (item, items))


def first(c, names):
    """1.4 and 2.0: answers are structs of the protocol, errors are codes in them."""
    def codes(answers):
        zoo.equal([a[1] for a in answers], [0])

    def describe_configs(name):
        answers = c.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        # 1.4 gives one answer, 2.0 one for each broker that was asked.
        answer = answers[0] if isinstance(answers, list) else answers
        zoo.equal(answer.resources[0][0], 0)
        return {e[0]: e[1] for e in answer.resources[0][4]}

    def alter_configs():
        answer = c.alter_configs([ConfigResource(ConfigResourceType.TOPIC, names.new, {"retention.ms": "654321000"})])
        zoo.equal(answer.resources[0][0], 0)
        zoo.soon(lambda: describe_configs(names.new)["retention.ms"], "654321000")

    def describe_group():
        g = c.describe_consumer_groups([names.group])[0]
        zoo.equal((g[0], g[1], g[2]), (0, names.group, "Empty"))

    yield "admin-create-topic", lambda: codes(c.create_topics(
        [NewTopic(names.new, 2, 1, topic_configs={"retention.ms": "123456000"})]).topic_errors)
    yield "admin-describe-configs", lambda: zoo.soon(lambda: describe_configs(names.new)["retention.ms"], "123456000")
    yield "admin-alter-configs", alter_configs
    yield "admin-create-partitions", lambda: codes(c.create_partitions({names.new: NewPartitions(3)}).topic_errors)
    yield "admin-list-groups", lambda: contains([g[0] for g in c.list_consumer_groups()], names.group)
    yield "admin-describe-group", describe_group
    yield "admin-list-group-offsets", lambda: zoo.equal(
        c.list_consumer_group_offsets(names.group)[TopicPartition(names.filled, 0)].offset, 10)
    if hasattr(c, "list_topics"):
        yield "admin-list-topics", lambda: contains(c.list_topics(), names.new)
        yield "admin-describe-topic", lambda: zoo.equal(len(c.describe_topics([names.new])[0]["partitions"]), 3)
        yield "admin-describe-cluster", lambda: zoo.equal(len(c.describe_cluster()["brokers"]), 1)
    if hasattr(c, "delete_consumer_groups"):
        yield "admin-delete-group", lambda: zoo.equal(
            [(g, e.errno) for g, e in c.delete_consumer_groups([names.group])], [(names.group, 0)])
    yield "admin-delete-topic", lambda: codes(c.delete_topics([names.new]).topic_error_codes)


def newest(c, names):
    """3.x: errors are raised, answers are plain dictionaries."""
    filled, new = TopicPartition(names.filled, 0), TopicPartition(names.new, 0)

    def retention():
        return c.describe_configs([ConfigResource(ConfigResourceType.TOPIC, names.new)])

    def configs(want):
        zoo.soon(lambda: want in repr(retention()), True)

    def alter_configs(value):
        c.alter_configs([ConfigResource(ConfigResourceType.TOPIC, names.new, {"retention.ms": value})])
        configs(value)

    def reset_configs():
        c.reset_configs([ConfigResource(ConfigResourceType.TOPIC, names.new, ["retention.ms"])])
        zoo.soon(lambda: "654321000" in repr(retention()), False)

    def create_partitions():
        c.create_partitions({names.new: 3})
        zoo.soon(lambda: len(c.describe_topics([names.new])[0]["partitions"]), 3)

    def group_offset():
        return c.list_group_offsets(names.group)[names.group][filled].offset

    def alter_group_offsets():
        answer = c.alter_group_offsets(names.group, {filled: OffsetAndMetadata(7, "", -1)})
        zoo.equal([e.errno for e in answer.values()], [0])
        zoo.equal(group_offset(), 7)

    def delete_group_offsets():
        answer = c.delete_group_offsets(names.group, [filled])
        zoo.equal([e.errno for e in answer.values()], [0])

    def delete_records():
        c.delete_records({filled: 5})
        zoo.equal(c.list_partition_offsets({filled: -2})[filled].offset, 5)

    def no_error(answer):
        if any("error_code': %d" % code in repr(answer) for code in range(-1, 130) if code):
            raise AssertionError(repr(answer))

    yield "admin-create-topic", lambda: c.create_topics(
        {names.new: {"num_partitions": 2, "replication_factor": 1, "configs": {"retention.ms": "123456000"}}})
    yield "admin-list-topics", lambda: contains(c.list_topics(), names.new)
    yield "admin-describe-topic", lambda: zoo.equal(len(c.describe_topics([names.new])[0]["partitions"]), 2)
    yield "admin-describe-topic-partitions", lambda: zoo.equal(
        len(c.describe_topic_partitions([names.new])["topics"][0]["partitions"]), 2)
    yield "admin-describe-configs", lambda: configs("123456000")
    yield "admin-alter-configs", lambda: alter_configs("654321000")
    yield "admin-reset-configs", reset_configs
    yield "admin-list-config-resources", lambda: contains(repr(c.list_config_resources()), names.new)
    yield "admin-create-partitions", create_partitions
    yield "admin-list-offsets", lambda: zoo.equal(c.list_partition_offsets({filled: -1})[filled].offset, zoo.COUNT)
    yield "admin-delete-records", delete_records
    yield "admin-elect-leaders", lambda: c.elect_leaders(0, {names.new: [0]}, raise_errors=False)
    yield "admin-list-reassignments", lambda: zoo.equal(c.list_partition_reassignments(), {})
    yield "admin-describe-cluster", lambda: zoo.equal(len(c.describe_cluster()["brokers"]), 1)
    yield "admin-describe-log-dirs", lambda: no_error(c.describe_log_dirs())
    yield "admin-describe-quorum", lambda: no_error(c.describe_metadata_quorum())
    yield "admin-api-versions", lambda: contains(repr(c.api_versions()), "Produce")
    yield "admin-describe-features", lambda: c.describe_features()
    yield "admin-describe-producers", lambda: no_error(c.describe_producers([filled]))
    yield "admin-list-transactions", lambda: no_error(c.list_transactions())
    yield "admin-describe-users", lambda: c.describe_user_scram_credentials()
    yield "admin-list-groups", lambda: contains([g["group_id"] for g in c.list_groups()], names.group)
    yield "admin-describe-group", lambda: contains(repr(c.describe_groups([names.group])), "Empty")
    yield "admin-list-group-offsets", lambda: zoo.equal(group_offset(), 10)
    yield "admin-delete-group-offsets", delete_group_offsets
    yield "admin-alter-group-offsets", alter_group_offsets
    yield "admin-delete-group", lambda: no_error(c.delete_groups([names.group]))
    yield "admin-delete-topic", lambda: c.delete_topics([names.new])
