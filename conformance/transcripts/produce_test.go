package transcripts

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// part is one partition of a Produce request.
type part struct {
	topic     string
	partition int32
	records   []byte
}

// produceTo builds a request that writes to partitions, with acks of all.
func (s *script) produceTo(parts ...part) *kmsg.ProduceRequest {
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = -1, 30_000
	for _, p := range parts {
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = p.partition, p.records
		if n := len(r.Topics); n > 0 && r.Topics[n-1].Topic == p.topic {
			r.Topics[n-1].Partitions = append(r.Topics[n-1].Partitions, rp)
			continue
		}
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.TopicID, t.Partitions = p.topic, s.idOrUnknown(p.topic), []kmsg.ProduceRequestTopicPartition{rp}
		r.Topics = append(r.Topics, t)
	}
	return r
}

var unknownID = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

func (s *script) idOrUnknown(topic string) [16]byte {
	for id, name := range s.ids {
		if name == topic {
			return id
		}
	}
	return unknownID
}

// Every version writes to the partition of its number, so that offsets do not
// depend on which other versions a server has.
const produceVersions = 14

func (s *script) produce() {
	s.create(
		topicSpec{"produce", produceVersions, nil},
		topicSpec{"compact", produceVersions, []string{"cleanup.policy", "compact"}},
		topicSpec{"small", produceVersions, []string{"max.message.bytes", "1000"}},
		topicSpec{"recent", produceVersions, []string{"message.timestamp.before.max.ms", "86400000", "message.timestamp.after.max.ms", "86400000"}},
		topicSpec{"append", produceVersions, []string{"message.timestamp.type", "LogAppendTime"}},
		topicSpec{"gzip", produceVersions, []string{"compression.type", "gzip"}},
		topicSpec{"uncompressed", produceVersions, []string{"compression.type", "uncompressed"}},
	)
	const first, last = 3, produceVersions - 1
	// one asks for one batch to a topic, at versions that may carry it.
	one := func(situation, topic string, raw []byte) {
		s.t.Helper()
		s.all(situation, func(v int16) kmsg.Request { return s.produceTo(part{topic, int32(v), raw}) }, first, last)
	}
	good := plain(sample(3)...)
	one("a batch", "produce", good.bytes())
	for _, c := range []codec{gzipped, snappyXerial, snappyRaw, lz4Framed, zstdFramed, lz4Broken} {
		one("a batch in "+c.name, "produce", good.packed(c).bytes())
	}
	for _, acks := range []int16{0, 1, 2, -2} {
		s.all("acks "+itoa(int64(acks)), func(v int16) kmsg.Request {
			r := s.produceTo(part{"produce", int32(v), good.bytes()})
			r.Acks = acks
			return r
		}, first, last)
	}
	withAcks := func(acks int16, p part) *kmsg.ProduceRequest {
		r := s.produceTo(p)
		r.Acks = acks
		return r
	}
	s.all("acks 0, unknown topic", same(withAcks(0, part{"nothing", 0, good.bytes()})), first, last)
	s.all("acks 0, corrupt", same(withAcks(0, part{"produce", 0, flip(good.bytes())})), first, last)
	s.all("acks 1, unknown topic", same(withAcks(1, part{"nothing", 0, good.bytes()})), first, last)
	s.all("unknown topic", same(s.produceTo(part{"nothing", 0, good.bytes()})), first, last)
	s.all("unknown partition", same(s.produceTo(part{"produce", 99, good.bytes()})), first, last)
	s.all("negative partition", same(s.produceTo(part{"produce", -1, good.bytes()})), first, last)
	s.all("topic without name", same(s.produceTo(part{"", 0, good.bytes()})), first, 12)
	s.all("impossible topic name", same(s.produceTo(part{"a/b", 0, good.bytes()})), first, 12)
	s.all("internal topic", same(s.produceTo(part{"__transaction_state", 0, good.bytes()})), first, 12)
	s.all("no topics", same(s.produceTo()), first, last)
	s.all("no partitions", func(int16) kmsg.Request {
		r := s.produceTo(part{"produce", 0, nil})
		r.Topics[0].Partitions = nil
		return r
	}, first, last)
	s.all("good and bad partitions", func(v int16) kmsg.Request {
		return s.produceTo(part{"produce", int32(v), good.bytes()}, part{"produce", 99, good.bytes()},
			part{"nothing", 0, good.bytes()}, part{"compact", int32(v), good.bytes()}, part{"small", int32(v), flip(good.bytes())})
	}, first, last)
	s.all("a partition twice", func(v int16) kmsg.Request {
		return s.produceTo(part{"produce", int32(v), good.bytes()}, part{"produce", int32(v), good.bytes()})
	}, first, last)
	s.all("a topic twice", func(v int16) kmsg.Request {
		return s.produceTo(part{"produce", int32(v), good.bytes()}, part{"compact", int32(v), plain(keyed(1)...).bytes()}, part{"produce", int32(v), good.bytes()})
	}, first, last)

	s.ask("null records", s.produceTo(part{"produce", 9, nil}), 9)
	one("empty records", "produce", []byte{})
	change := func(f func(b []byte)) []byte {
		b := good
		b.change = func(raw []byte) []byte { f(raw); return raw }
		return b.bytes()
	}
	finish := func(f func(b []byte) []byte) []byte {
		b := good
		b.last = f
		return b.bytes()
	}
	put32 := func(pos int, v int32) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint32(b[pos:], uint32(v)) }
	}
	put64 := func(pos int, v int64) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint64(b[pos:], uint64(v)) }
	}
	attributes := func(bits int16) []byte { b := good; b.attributes = bits; return b.bytes() }
	inner := func(c codec, f func(b []byte) []byte) []byte {
		b := good.packed(c)
		b.inner = f
		return b.bytes()
	}
	for _, c := range []struct {
		name string
		raw  []byte
	}{
		{"flipped bit", flip(good.bytes())},
		{"batch cut off", good.bytes()[:len(good.bytes())-1]},
		{"half a header", good.bytes()[:30]},
		{"a byte", []byte{1}},
		{"bytes behind the batch", append(good.bytes(), 1, 2, 3)},
		{"two batches", append(good.bytes(), good.bytes()...)},
		{"count too high", change(put32(posCount, 4))},
		{"count too low", change(put32(posCount, 2))},
		{"count and last delta too high", change(func(b []byte) { put32(posCount, 4)(b); put32(posLastOffsetDelta, 3)(b) })},
		{"count and last delta too low", change(func(b []byte) { put32(posCount, 2)(b); put32(posLastOffsetDelta, 1)(b) })},
		{"count of zero", change(put32(posCount, 0))},
		{"no records", plain().bytes()},
		{"count negative", change(put32(posCount, -1))},
		{"last delta too high", change(put32(posLastOffsetDelta, 7))},
		{"last delta negative", change(put32(posLastOffsetDelta, -1))},
		{"base offset of 5", change(put64(0, 5))},
		{"base offset negative", change(put64(0, -1))},
		{"length too high", finish(func(b []byte) []byte { put32(posLength, int32(len(b)))(b); return b })},
		{"length too low", finish(func(b []byte) []byte { put32(posLength, int32(len(b)-13))(b); return b })},
		{"length of 3", finish(func(b []byte) []byte { put32(posLength, 3)(b); return b })},
		{"length negative", finish(func(b []byte) []byte { put32(posLength, -1)(b); return b })},
		{"magic 3", change(func(b []byte) { b[posMagic] = 3 })},
		{"magic -1", change(func(b []byte) { b[posMagic] = 0xff })},
		{"magic 0 in the header", change(func(b []byte) { b[posMagic] = 0 })},
		{"a message of magic 0", set(messages(0, sample(1))...)},
		{"a message of magic 1", set(messages(1, sample(1))...)},
		{"log append time", attributes(8)},
		{"control batch", attributes(32)},
		{"delete horizon", attributes(64)},
		{"unknown attribute", attributes(128)},
		{"codec 5", attributes(5)},
		{"codec 7", attributes(7)},
		{"codec said, not used", attributes(1)},
		{"max timestamp too low", change(put64(posMaxTimestamp, firstMillis))},
		{"max timestamp too high", change(put64(posMaxTimestamp, firstMillis+90000))},
		{"leader epoch 7", change(put32(12, 7))},
		{"sequence without producer", plain(sample(1)...).from(-1, -1, 3).bytes()},
		{"epoch without producer", plain(sample(1)...).from(-1, 3, -1).bytes()},
		{"producer without sequence", plain(sample(1)...).from(4000, 0, -1).bytes()},
		{"producer without epoch", plain(sample(1)...).from(4000, -1, 0).bytes()},
		{"records cut off", inner(none, func(b []byte) []byte { return b[:len(b)-1] })},
		{"a byte behind the records", inner(none, func(b []byte) []byte { return append(b, 0) })},
		{"record of another length", inner(none, func(b []byte) []byte { b[0] += 2; return b })},
		{"record of negative length", inner(none, func(b []byte) []byte { b[0] = 1; return b })},
		{"record with attributes", inner(none, func(b []byte) []byte { b[1] = 9; return b })},
		{"first offset delta of 1", inner(none, func(b []byte) []byte { b[3] = 2; return b })},
		{"records cut off in gzip", inner(gzipped, func(b []byte) []byte { return b[:len(b)-1] })},
		{"a byte behind the records in gzip", inner(gzipped, func(b []byte) []byte { return append(b, 0) })},
		{"record of another length in gzip", inner(gzipped, func(b []byte) []byte { b[0] += 2; return b })},
		{"first offset delta of 1 in gzip", inner(gzipped, func(b []byte) []byte { b[3] = 2; return b })},
		{"count too low in gzip", func() []byte {
			b := good.packed(gzipped)
			b.change = func(raw []byte) []byte { put32(posCount, 2)(raw); put32(posLastOffsetDelta, 1)(raw); return raw }
			return b.bytes()
		}()},
		{"nothing in gzip", inner(gzipped, func([]byte) []byte { return nil })},
		{"gzip that is not", garbled(good, 1)},
		{"snappy that is not", garbled(good, 2)},
		{"lz4 that is not", garbled(good, 3)},
		{"zstd that is not", garbled(good, 4)},
		{"header with null key", plain(record{key: text("k"), millis: firstMillis, headers: [][2][]byte{{nil, text("v")}}}).bytes()},
		{"header key that is not UTF-8", plain(record{key: text("k"), millis: firstMillis, headers: [][2][]byte{{{0xff}, text("v")}}}).bytes()},
		{"header twice", plain(record{key: text("k"), millis: firstMillis, headers: [][2][]byte{{text("h"), text("1")}, {text("h"), text("2")}}}).bytes()},
		{"time of -1", plain(at(-1, sample(1))...).bytes()},
		{"time of -5", plain(at(-5, sample(1))...).bytes()},
		{"time 0", plain(at(0, sample(2))...).bytes()},
		{"times that go back", plain(append(sample(2), sample(2)...)...).bytes()},
	} {
		one(c.name, "produce", c.raw)
	}
	now := time.Now().UnixMilli()
	const dayMillis = 24 * 60 * 60 * 1000
	one("too old", "recent", plain(at(now-2*dayMillis, sample(2))...).bytes())
	one("too new", "recent", plain(at(now+2*dayMillis, sample(2))...).bytes())
	one("one too old", "recent", plain(append(at(now, sample(1)), sample(1)...)...).bytes())
	one("no time where it must be recent", "recent", plain(at(-1, sample(1))...).bytes())
	one("recent", "recent", plain(at(now, sample(2))...).bytes())
	one("too new in gzip", "recent", plain(at(now+2*dayMillis, sample(2))...).packed(gzipped).bytes())
	one("time of appending", "append", good.bytes())
	one("time of appending in gzip", "append", good.packed(gzipped).bytes())
	one("time of appending said", "append", attributes(8))
	one("time of appending, far away", "append", plain(at(now+99*dayMillis, sample(2))...).bytes())
	one("no key", "compact", good.bytes())
	one("no keys", "compact", plain(record{value: text("a")}, record{value: text("b")}).bytes())
	one("no key in gzip", "compact", good.packed(gzipped).bytes())
	one("keys", "compact", plain(keyed(3)...).bytes())
	large := record{key: text("k"), value: text(strings.Repeat("x", 2000)), millis: firstMillis}
	one("too large", "small", plain(large).bytes())
	one("too large until packed", "small", plain(large).packed(gzipped).bytes())
	one("as large as may be", "small", plain(record{key: text("k"), value: text(strings.Repeat("x", 1000-posRecords-9)), millis: firstMillis}).bytes())
	one("a byte larger", "small", plain(record{key: text("k"), value: text(strings.Repeat("x", 1000-posRecords-8)), millis: firstMillis}).bytes())
	one("packed by the topic", "gzip", good.bytes())
	one("packed otherwise by the topic", "gzip", good.packed(snappyXerial).bytes())
	one("unpacked by the topic", "uncompressed", good.packed(lz4Framed).bytes())
	transactional := good
	transactional.attributes = 16
	transactional = transactional.from(5000, 0, 0)
	s.all("transactional batch without transaction", func(v int16) kmsg.Request {
		r := s.produceTo(part{"produce", int32(v), transactional.bytes()})
		r.TransactionID = kmsg.StringPtr("tx")
		return r
	}, first, last)
	s.all("plain batch with a transactional id", func(v int16) kmsg.Request {
		r := s.produceTo(part{"compact", int32(v), plain(keyed(1)...).bytes()})
		r.TransactionID = kmsg.StringPtr("tx")
		return r
	}, first, last)
	one("transactional batch without id", "produce", transactional.bytes())
}

// flip changes the last bit, so that the checksum is wrong.
func flip(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-1] ^= 1
	return b
}

// garbled is a batch that says a codec, with other bytes behind its header.
func garbled(b batch, number int8) []byte {
	b.codec = codec{"garbage", number, func([]byte) []byte { return []byte("nothing that was ever compressed") }}
	return b.bytes()
}

func (s *script) produceIdempotent() {
	s.create(topicSpec{"idempotent", produceVersions, nil}, topicSpec{"idempotent2", produceVersions, nil})
	const first, last = 3, produceVersions - 1
	const id = 7000
	one := func(situation, topic string, producer int64, epoch int16, sequence int32, n int) {
		s.t.Helper()
		raw := plain(sample(n)...).from(producer, epoch, sequence).bytes()
		s.all(situation, func(v int16) kmsg.Request { return s.produceTo(part{topic, int32(v), raw}) }, first, last)
	}
	one("first sequence", "idempotent", id, 3, 0, 3)
	one("duplicate", "idempotent", id, 3, 0, 3)
	one("part of a duplicate", "idempotent", id, 3, 0, 2)
	one("more than a duplicate", "idempotent", id, 3, 0, 4)
	one("next sequence", "idempotent", id, 3, 3, 2)
	one("gap", "idempotent", id, 3, 9, 2)
	one("overlap", "idempotent", id, 3, 4, 2)
	one("older epoch", "idempotent", id, 2, 5, 1)
	one("older epoch from the beginning", "idempotent", id, 2, 0, 1)
	one("newer epoch with a gap", "idempotent", id, 4, 5, 1)
	one("newer epoch", "idempotent", id, 4, 0, 1)
	one("epoch before that", "idempotent", id, 3, 5, 1)
	for i := range int32(5) {
		one("batch "+itoa(int64(i)), "idempotent", id, 4, 1+i, 1)
	}
	one("duplicate of the fifth before", "idempotent", id, 4, 1, 1)
	one("duplicate of the sixth before", "idempotent", id, 4, 0, 1)
	one("unknown producer, sequence of 9", "idempotent", id+1, 0, 9, 1)
	one("unknown producer, next", "idempotent", id+1, 0, 10, 1)
	one("unknown producer, epoch of 5", "idempotent", id+2, 5, 0, 1)
	one("last sequence", "idempotent2", id, 0, 1<<31-2, 2)
	one("sequence after the last", "idempotent2", id, 0, 0, 1)
	one("sequences around the last", "idempotent2", id+1, 0, 1<<31-2, 4)
	one("sequence after those", "idempotent2", id+1, 0, 2, 1)
	one("negative producer", "idempotent2", -2, 0, 0, 1)
	s.all("batches of two producers", func(v int16) kmsg.Request {
		return s.produceTo(part{"idempotent", int32(v), plain(sample(1)...).from(id+5, 0, 0).bytes()},
			part{"idempotent2", int32(v), plain(sample(1)...).from(id+6, 0, 0).bytes()})
	}, first, last)
	s.all("idempotent with acks 1", func(v int16) kmsg.Request {
		r := s.produceTo(part{"idempotent", int32(v), plain(sample(1)...).from(id+7, 0, 0).bytes()})
		r.Acks = 1
		return r
	}, first, last)
	for _, topic := range []string{"idempotent", "idempotent2"} {
		s.ask("producers of "+topic, s.describeProducers(topic, 9), 0)
	}
}
