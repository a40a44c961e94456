# A member of a group with kafka-python that says what happens to it, one JSON
# object a line, as Apache Kafka's VerifiableConsumer does; SIGTERM ends it.
import json
import logging
import signal
import sys
import threading

from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

ASSIGNORS = {
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
    "sticky": StickyPartitionAssignor,
    "cooperative-sticky": CooperativeStickyAssignor,
}

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
address, group, topic, instance, assignor, heartbeat_ms, session_ms = sys.argv[1:]
lock = threading.Lock()


def say(name, **fields):
    with lock:
        print(json.dumps({"name": name, **fields}), flush=True)


def listed(partitions):
    return [{"topic": p.topic, "partition": p.partition} for p in partitions]


class Listener(ConsumerRebalanceListener):
    def on_partitions_assigned(self, assigned):
        say("partitions_assigned", partitions=listed(assigned))

    def on_partitions_revoked(self, revoked):
        say("partitions_revoked", partitions=listed(revoked))


ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
consumer = KafkaConsumer(
    bootstrap_servers=address,
    group_id=group,
    group_instance_id=instance or None,
    auto_offset_reset="earliest",
    enable_auto_commit=False,
    fetch_max_wait_ms=250,
    heartbeat_interval_ms=int(heartbeat_ms),
    session_timeout_ms=int(session_ms),
    partition_assignment_strategy=[ASSIGNORS[assignor]],
)
consumer.subscribe([topic], listener=Listener())
while not ended.is_set():
    # A poll that ends in the middle of a join can leave the join undone for
    # good at this version: wait longer than a join takes.
    records = consumer.poll(timeout_ms=2000)
    for batch in records.values():
        for r in batch:
            say("record_data", topic=r.topic, partition=r.partition, offset=r.offset)
    if records:
        consumer.commit()
consumer.close()
say("shutdown_complete")
