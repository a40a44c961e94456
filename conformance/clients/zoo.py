"""The program that every Python client of the zoo runs: its phases, its checks
and the canonical records. Each client brings an object with its own calls.

The calls of a client (those that it lacks are simply not there):

    produce(topic, codec, records)  writes to partition 0 and waits for the answers
    idempotent(topic, records)      the same with an idempotent producer
    read(topic)                     the records of partition 0, from the first to the last
    group(topic, group, count, commit=None)
                                    joins, reads count records, commits that offset, leaves
    offset_at(topic, ms)            of the first record at or after a time, None when there is none
    bounds(topic)                   first and next offset of partition 0
    topics()                        names of all topics
    admin(names)                    pairs of name and call, in order; names gives a topic and
                                    a group without members to work on
"""
import json
import os
import signal
import sys
import time
import traceback
from collections import namedtuple

Record = namedtuple("Record", "key value timestamp headers")

BOOTSTRAP = os.environ["ZOO_BOOTSTRAP"]
ROW = os.environ["ZOO_ROW"]
VERSION = tuple(int(n) for n in os.environ.get("ZOO_VERSION", "").split(".") if n)
CODECS = os.environ["ZOO_CODECS"].split(",")
CARRIES = os.environ["ZOO_CARRIES"].split(",")

CHECK_SECONDS = 20
FIRST_TIMESTAMP_MS = 1600000000000
COUNT = 30


def canonical():
    """The records that every client writes, as far as it can carry them."""
    return [Record(key(i), value(i), timestamp(i), headers(i)) for i in range(COUNT)]


def key(i):
    return None if i % 7 == 3 else b"k%d" % i


def value(i):
    if i % 11 == 5:
        return None
    if i % 13 == 8:
        return b""
    if i % 10 == 6:
        return bytes(range(256))
    return (b"v%d-" % i * 100)[:100]


def timestamp(i):
    return FIRST_TIMESTAMP_MS + 1000 * i if "timestamps" in CARRIES else None


def headers(i):
    if "headers" not in CARRIES:
        return None
    return [("h", b"x%d" % i), ("n", b"")] if i % 3 == 0 else []


def comparable(records):
    """What the client promises to carry, in one form."""
    def bytes_of(b):
        return b if b is None and "nulls" in CARRIES else bytes(b or b"")

    return [(bytes_of(r.key), bytes_of(r.value),
             r.timestamp if "timestamps" in CARRIES else None,
             [(name, bytes(v or b"")) for name, v in r.headers or []] if "headers" in CARRIES else None)
            for r in records]


def same(got, want):
    got, want = comparable(got), comparable(want)
    if got != want:
        first = next((i for i, pair in enumerate(zip(got, want)) if pair[0] != pair[1]), min(len(got), len(want)))
        raise AssertionError("%d records, want %d; record %d is %r, want %r"
                             % (len(got), len(want), first, got[first:first + 1], want[first:first + 1]))


def equal(got, want):
    if got != want:
        raise AssertionError("got %r, want %r" % (got, want))


def soon(call, want):
    """Like equal, but a broker may take a moment to show what it has acknowledged."""
    for _ in range(50):
        if call() == want:
            return
        time.sleep(0.05)
    equal(call(), want)


def expired(*_):
    raise TimeoutError("not done after %d s" % CHECK_SECONDS)


def check(name, call):
    """Runs one check and prints its line."""
    line = {"check": name, "ok": True}
    signal.alarm(CHECK_SECONDS)
    try:
        call()
    except Exception as e:
        traceback.print_exc()
        line.update(ok=False, error=("%s: %s" % (type(e).__name__, e))[:500])
    finally:
        signal.alarm(0)
    print(json.dumps(line), flush=True)


def own(client):
    """Everything the client can do, on topics of its own."""
    records = canonical()
    prefix = "zoo-%s-" % ROW
    for codec in CODECS:
        topic = prefix + codec
        check("produce-" + codec, lambda: client.produce(topic, codec, records))
        check("consume-" + codec, lambda: same(client.read(topic), records))
    topic = prefix + CODECS[0]

    def tombstone():
        written = [Record(b"gone", None, timestamp(0), headers(1))]
        client.produce(prefix + "tombstone", "none", written)
        same(client.read(prefix + "tombstone"), written)

    def large():
        written = [Record(b"large", os.urandom(1000) * 500, timestamp(0), headers(1))]
        client.produce(prefix + "large", "none", written)
        same(client.read(prefix + "large"), written)

    def idempotent():
        client.idempotent(prefix + "idempotent", records)
        same(client.read(prefix + "idempotent"), records)

    def commit():
        same(client.group(topic, prefix + "commit", 10, commit=10), records[:10])
        same(client.group(topic, prefix + "commit", COUNT - 10), records[10:])

    def seek_time():
        equal(client.offset_at(topic, FIRST_TIMESTAMP_MS + 1000 * 9 + 1), 10)
        equal(client.offset_at(topic, FIRST_TIMESTAMP_MS + 1000 * COUNT), None)

    if "nulls" in CARRIES:
        check("tombstone", tombstone)
    check("large", large)
    if hasattr(client, "idempotent"):
        check("idempotent", idempotent)
    if hasattr(client, "topics"):
        check("metadata", lambda: equal(topic in client.topics(), True))
    if hasattr(client, "bounds"):
        check("offsets", lambda: equal(tuple(client.bounds(topic)), (0, COUNT)))
    if hasattr(client, "offset_at") and "timestamps" in CARRIES:
        check("seek-time", seek_time)
    if hasattr(client, "group"):
        check("group", lambda: same(client.group(topic, prefix + "group", COUNT), records))
        check("commit", commit)
    if hasattr(client, "admin"):
        for name, call in client.admin(Names(prefix + "admin", topic, prefix + "commit")):
            check(name, call)


# What the admin calls work on: a topic to make, change and delete, one with
# COUNT records, and a group that has committed an offset of the latter.
Names = namedtuple("Names", "new filled group")


def produce(client, topics):
    for topic in topics:
        codec = topic.rsplit("-", 1)[1]
        check("produce-" + codec, lambda: client.produce(topic, codec, canonical()))


def consume(client, topics):
    def hexed(b):
        return None if b is None else bytes(b).hex()

    def print_records(topic):
        print(topic, file=sys.stderr)
        for r in client.read(topic):
            shown = None if r.headers is None else [[name, hexed(v)] for name, v in r.headers]
            # A client that shows a record without timestamp as having none means Kafka's -1.
            time_ms = -1 if r.timestamp is None and "timestamps" in CARRIES else r.timestamp
            print(json.dumps({"topic": topic, "k": hexed(r.key), "v": hexed(r.value), "t": time_ms, "h": shown}), flush=True)

    for topic in topics:
        check("consume-" + topic.rsplit("-", 1)[1], lambda: print_records(topic))


def main(client):
    signal.signal(signal.SIGALRM, expired)
    topics = [t for t in os.environ.get("ZOO_TOPICS", "").split(",") if t]
    phase = os.environ["ZOO_PHASE"]
    if phase == "own":
        own(client)
    elif phase == "produce":
        produce(client, topics)
    elif phase == "consume":
        consume(client, topics)
    else:
        sys.exit("ZOO_PHASE=%s: want own, produce or consume" % phase)
    # A client's threads may still hang after a check that failed.
    sys.stdout.flush()
    os._exit(0)
