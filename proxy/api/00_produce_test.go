package api

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
)

func TestProduceEveryVersion(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 2)
	c := s.dial()
	next := int64(0)
	for v := int16(0); v <= 13; v++ {
		for _, acks := range []int16{-1, 1} {
			q := produceOne(v, topic, 1, makeBatch(t, batch.Plain, "a", "b"))
			q.Acks = acks
			resp := do[*kmsg.ProduceResponse](c, q)
			p := &resp.Topics[0].Partitions[0]
			wantCode(t, "produce", p.ErrorCode, protocol.None)
			if p.Partition != 1 || p.BaseOffset != next || p.LogAppendTime != -1 {
				t.Errorf("v%d: partition %d, base offset %d (want %d), time %d", v, p.Partition, p.BaseOffset, next, p.LogAppendTime)
			}
			if v >= 5 && p.LogStartOffset != 0 {
				t.Errorf("v%d: log start offset %d", v, p.LogStartOffset)
			}
			if v >= 13 && resp.Topics[0].TopicID != topic.ID || v < 13 && resp.Topics[0].Topic != "orders" {
				t.Errorf("v%d: topic %q %x", v, resp.Topics[0].Topic, resp.Topics[0].TopicID)
			}
			next += 2
		}
	}
}

// change returns a copy of a batch with bytes put at an offset.
func change(b []byte, at int, put ...byte) []byte {
	b = slices.Clone(b)
	copy(b[at:], put)
	return b
}

// TestProduceChecks goes through the rows of Kafka's checks. Each bad partition
// stands between two good ones, which are served.
func TestProduceChecks(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 3)
	compacted := s.createTopic("table", 3, "cleanup.policy", "compact")
	small := s.createTopic("small", 3, "max.message.bytes", "200")
	segments := s.createTopic("segments", 3, "segment.bytes", "150")
	past := s.createTopic("past", 3, "message.timestamp.before.max.ms", "3600000")
	internal := s.createTopic("__consumer_offsets", 3)
	good := makeBatch(t, batch.Plain, "good")
	keyed := func(codec batch.Codec, age time.Duration, keys ...string) []byte {
		h := batch.Plain
		h.Codec = codec
		var b batch.Builder
		b.Reset(h)
		for _, k := range keys {
			var key []byte
			if k != "" {
				key = []byte(k)
			}
			b.Add(time.Now().Add(-age).UnixMilli(), key, []byte("value"))
		}
		out, err := b.AppendTo(nil)
		check(t, err)
		return out
	}
	header := func(f func(h *batch.Header)) []byte {
		h := batch.Plain
		f(&h)
		return makeBatch(t, h, "x")
	}
	resum := func(b []byte) []byte {
		binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
		return b
	}
	big := makeBatch(t, batch.Plain, string(make([]byte, 300)))
	// Errors that come with the log's start, beside those of records: the log has looked at the batch.
	looked := map[string]bool{
		"base offset": true, "negative last offset delta": true, "more records told than offsets": true, "no records told": true,
		"control batch": true, "producer without sequence": true, "unknown codec": true,
	}
	for _, tc := range []struct {
		what    string
		version int16
		topic   *coordinator.Topic
		records []byte
		want    protocol.Code
		bad     []int32 // record errors
	}{
		{"null records", 9, topic, nil, protocol.InvalidRecord, nil},
		{"no batch", 9, topic, []byte{}, protocol.InvalidRecord, nil},
		{"cut off", 9, topic, good[:len(good)-1], protocol.InvalidRecord, nil},
		{"cut off in the header", 9, topic, good[:30], protocol.InvalidRecord, nil},
		{"two batches", 9, topic, slices.Concat(good, good), protocol.InvalidRecord, nil},
		{"bytes behind the batch", 9, topic, slices.Concat(good, []byte{0, 1, 2}), protocol.None, nil},
		{"half a batch behind the batch", 9, topic, slices.Concat(good, good[:len(good)/2]), protocol.None, nil},
		{"length too low", 9, topic, change(good, 11, good[11]-13), protocol.CorruptMessage, nil},
		{"magic 1", 9, topic, change(good, 16, 1), protocol.InvalidRecord, nil},
		{"magic 0", 3, topic, change(good, 16, 0), protocol.InvalidRecord, nil},
		{"zstd before v7", 6, topic, header(func(h *batch.Header) { h.Codec = batch.Zstd }), protocol.UnsupportedCompressionType, nil},
		{"zstd from v7 on", 7, topic, header(func(h *batch.Header) { h.Codec = batch.Zstd }), protocol.None, nil},
		{"base offset", 9, topic, header(func(h *batch.Header) { h.BaseOffset = 5 }), protocol.InvalidRecord, nil},
		{"too large", 9, small, big, protocol.MessageTooLarge, nil},
		{"larger than a segment", 9, segments, big, protocol.RecordListTooLarge, nil},
		{"wrong CRC", 9, topic, change(good, 17, 1, 2, 3, 4), protocol.CorruptMessage, nil},
		{"flipped bit", 9, topic, change(good, len(good)-2, good[len(good)-2]^1), protocol.CorruptMessage, nil},
		{"length below the minimum", 9, topic, change(good, 8, 0, 0, 0, 10), protocol.CorruptMessage, nil},
		{"negative length", 9, topic, change(good, 8, 0xff), protocol.CorruptMessage, nil},
		{"negative last offset delta", 9, topic, resum(change(good, 23, 0xff, 0xff, 0xff, 0xff)), protocol.InvalidRecord, nil},
		{"more records told than offsets", 9, topic, resum(change(good, 57, 0, 0, 0, 2)), protocol.InvalidRecord, nil},
		{"no records told", 9, topic, resum(change(good, 57, 0, 0, 0, 0)), protocol.InvalidRecord, nil},
		{"control batch", 9, topic, header(func(h *batch.Header) { h.Control = true }), protocol.InvalidRecord, nil},
		{"transaction that nobody began", 9, topic, header(func(h *batch.Header) {
			h.Transactional, h.ProducerID, h.ProducerEpoch, h.BaseSequence = true, 7, 0, 0
		}), protocol.InvalidTxnState, nil},
		{"producer without sequence", 9, topic, header(func(h *batch.Header) { h.ProducerID, h.ProducerEpoch = 7, 0 }), protocol.InvalidRecord, nil},
		{"compacted without keys", 9, compacted, keyed(batch.None, 0, "a", "", "b", ""), protocol.InvalidRecord, []int32{1, 3}},
		{"compacted without keys, compressed", 9, compacted, keyed(batch.LZ4, 0, "", "b"), protocol.InvalidRecord, []int32{0}},
		{"compacted with keys", 9, compacted, keyed(batch.Snappy, 0, "a", "b"), protocol.None, nil},
		{"too far in the future", 9, topic, keyed(batch.None, -2*time.Hour, "a"), protocol.InvalidTimestamp, []int32{0}},
		{"too far in the past", 9, past, keyed(batch.None, 2*time.Hour, "a", "b"), protocol.InvalidTimestamp, []int32{0, 1}},
		{"log append time from a client", 9, topic, func() []byte {
			b := slices.Clone(good)
			batch.Batch(b).SetLogAppendTime(batch.Batch(b).MaxTimestamp())
			return b
		}(), protocol.InvalidTimestamp, []int32{0}},
		{"unknown codec", 9, topic, func() []byte {
			return resum(change(good, 22, good[22]|7))
		}(), protocol.UnsupportedCompressionType, nil},
		{"internal topic", 9, internal, good, protocol.InvalidTopicException, nil},
		{"unknown topic", 9, &coordinator.Topic{Name: "nope"}, good, protocol.UnknownTopicOrPartition, nil},
		{"unknown topic id", 13, &coordinator.Topic{ID: [16]byte{1}}, good, protocol.UnknownTopicID, nil},
	} {
		t.Run(tc.what, func(t *testing.T) {
			c := s.dial()
			q := produceOne(tc.version, topic, 0, good)
			q.Topics = append(q.Topics, produceOne(tc.version, tc.topic, 1, tc.records).Topics...)
			q.Topics = append(q.Topics, produceOne(tc.version, topic, 2, good).Topics...)
			resp := do[*kmsg.ProduceResponse](c, q)
			wantCode(t, "the first", resp.Topics[0].Partitions[0].ErrorCode, protocol.None)
			wantCode(t, "the last", resp.Topics[2].Partitions[0].ErrorCode, protocol.None)
			p := &resp.Topics[1].Partitions[0]
			wantCode(t, tc.what, p.ErrorCode, tc.want)
			if tc.want == protocol.None {
				return
			}
			start := int64(-1)
			if looked[tc.what] || len(tc.bad) > 0 {
				start = 0
			}
			if p.BaseOffset != -1 || p.LogAppendTime != -1 || p.LogStartOffset != start {
				t.Errorf("offsets of an error are %d, %d, %d", p.BaseOffset, p.LogAppendTime, p.LogStartOffset)
			}
			if tc.version >= 8 && p.ErrorMessage == nil {
				t.Error("no error message")
			}
			var bad []int32
			for _, e := range p.ErrorRecords {
				bad = append(bad, e.RelativeOffset)
			}
			if !slices.Equal(bad, tc.bad) {
				t.Errorf("records at fault are %v, want %v", bad, tc.bad)
			}
		})
	}
	c := s.dial()
	for _, partition := range []int32{-1, 3} {
		resp := do[*kmsg.ProduceResponse](c, produceOne(9, topic, partition, good))
		wantCode(t, "partition", resp.Topics[0].Partitions[0].ErrorCode, protocol.UnknownTopicOrPartition)
	}
}

func TestProduceAcks(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	good := makeBatch(t, batch.Plain, "a")

	c := s.dial()
	for _, acks := range []int16{2, -2, 32767} {
		q := produceOne(9, topic, 0, good)
		q.Acks = acks
		wantCode(t, "acks", do[*kmsg.ProduceResponse](c, q).Topics[0].Partitions[0].ErrorCode, protocol.InvalidRequiredAcks)
	}
	// acks=0 gets no answer, and what follows gets its own.
	q := produceOne(9, topic, 0, good)
	q.Acks = 0
	c.send(q)
	c.send(q)
	if base := c.produce(topic, 0, "b"); base != 2 {
		t.Errorf("base offset %d after two batches of acks=0", base)
	}
	// If any partition failed, the connection closes.
	bad := produceOne(9, topic, 7, good)
	bad.Acks = 0
	c.send(bad)
	if !c.dropped() {
		t.Error("a failed produce with acks=0 is answered")
	}
	if base := s.dial().produce(topic, 0, "c"); base != 3 {
		t.Errorf("base offset %d", base)
	}
}

// TestProduceOverlaps: requests of one connection overlap while the tier keeps
// them waiting, their offsets go by their order, and so do the answers.
func TestProduceOverlaps(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.produce(topic, 0, "opens the log")
	s.tier.hold()
	var sent []*kmsg.ProduceRequest
	for range 5 {
		q := produceOne(9, topic, 0, makeBatch(t, batch.Plain, "a", "b"))
		c.send(q)
		sent = append(sent, q)
	}
	s.tier.waitQueued(5)
	s.tier.release()
	for i, q := range sent {
		resp, err := c.receive(q)
		check(t, err)
		if got := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].BaseOffset; got != int64(1+2*i) {
			t.Errorf("answer %d has base offset %d", i, got)
		}
	}
}

// TestProduceTimesOut: undecided partitions are answered with 7 and the batch
// is stored all the same; the connection goes on.
func TestProduceTimesOut(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.produce(topic, 0, "opens the log")
	s.tier.hold()
	q := produceOne(9, topic, 0, makeBatch(t, batch.Plain, "late"))
	q.TimeoutMillis = 3_600_000
	q.Topics = append(q.Topics, produceOne(9, topic, 9, nil).Topics...)
	c.send(q)
	s.tier.waitQueued(1)
	s.handler.waiting.expire(time.Now())
	s.handler.waiting.expire(time.Now().Add(2 * time.Hour))
	resp, err := c.receive(q)
	check(t, err)
	topics := resp.(*kmsg.ProduceResponse).Topics
	wantCode(t, "undecided", topics[0].Partitions[0].ErrorCode, protocol.RequestTimedOut)
	wantCode(t, "refused", topics[1].Partitions[0].ErrorCode, protocol.UnknownTopicOrPartition)
	s.tier.release()
	if base := c.produce(topic, 0, "next"); base != 2 {
		t.Errorf("base offset %d: the late batch is not stored", base)
	}
}

// TestProduceToABrokenTier: a failed ledger is an error that clients retry, and
// the retry finds a new ledger.
func TestProduceToABrokenTier(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.produce(topic, 0, "a")
	s.tier.fail(ledger.ErrFailed)
	resp := do[*kmsg.ProduceResponse](c, produceOne(9, topic, 0, makeBatch(t, batch.Plain, "b")))
	code := protocol.Code(resp.Topics[0].Partitions[0].ErrorCode)
	if code != protocol.KafkaStorageError && code != protocol.NotLeaderOrFollower {
		t.Fatalf("a failed ledger is told as %s", code.Name())
	}
	s.tier.fail(nil)
	deadline := time.Now().Add(30 * time.Second)
	for {
		resp := do[*kmsg.ProduceResponse](c, produceOne(9, topic, 0, makeBatch(t, batch.Plain, "b")))
		code := protocol.Code(resp.Topics[0].Partitions[0].ErrorCode)
		if code == protocol.None {
			break
		}
		if !code.Retriable() || time.Now().After(deadline) {
			t.Fatalf("the retry is told %s", code.Name())
		}
	}
}

func TestProduceIdempotent(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	id := do[*kmsg.InitProducerIDResponse](c, kmsg.NewPtrInitProducerIDRequest())
	wantCode(t, "InitProducerId", id.ErrorCode, protocol.None)
	send := func(epoch int16, sequence int32, n int) (protocol.Code, int64) {
		h := batch.Plain
		h.ProducerID, h.ProducerEpoch, h.BaseSequence = id.ProducerID, epoch, sequence
		resp := do[*kmsg.ProduceResponse](c, produceOne(9, topic, 0, makeBatch(t, h, make([]string, n)...)))
		p := &resp.Topics[0].Partitions[0]
		return protocol.Code(p.ErrorCode), p.BaseOffset
	}
	for _, tc := range []struct {
		what     string
		epoch    int16
		sequence int32
		n        int
		want     protocol.Code
		base     int64
	}{
		{"first", 0, 0, 3, protocol.None, 0},
		{"next", 0, 3, 2, protocol.None, 3},
		{"repeated", 0, 3, 2, protocol.None, 3},
		{"repeated, older", 0, 0, 3, protocol.None, 0},
		{"gap", 0, 9, 1, protocol.OutOfOrderSequenceNumber, -1},
		{"next after the gap", 0, 5, 1, protocol.None, 5},
		{"new epoch, wrong start", 1, 6, 1, protocol.OutOfOrderSequenceNumber, -1},
		{"new epoch", 1, 0, 1, protocol.None, 6},
		{"old epoch", 0, 6, 1, protocol.InvalidProducerEpoch, -1},
	} {
		code, base := send(tc.epoch, tc.sequence, tc.n)
		if code != tc.want || base != tc.base {
			t.Errorf("%s: %s at %d, want %s at %d", tc.what, code.Name(), base, tc.want.Name(), tc.base)
		}
	}
}

func TestProduceLogAppendTime(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1, "message.timestamp.type", "LogAppendTime")
	c := s.dial()
	before := time.Now().UnixMilli()
	resp := do[*kmsg.ProduceResponse](c, produceOne(9, topic, 0, makeBatch(t, batch.Plain, "a")))
	p := &resp.Topics[0].Partitions[0]
	if p.ErrorCode != 0 || p.LogAppendTime < before || p.LogAppendTime > time.Now().UnixMilli() {
		t.Fatalf("log append time %d of %+v", p.LogAppendTime, p)
	}
	f := do[*kmsg.FetchResponse](c, fetchOne(11, topic, 0, 0))
	b := batch.Batch(f.Topics[0].Partitions[0].RecordBatches)
	check(t, b.Verify())
	if !b.LogAppendTime() || b.MaxTimestamp() != p.LogAppendTime {
		t.Errorf("stored with time %d (%v)", b.MaxTimestamp(), b.LogAppendTime())
	}
}

// TestProduceMalformed: a frame that lies about its lengths closes the connection
// and appends nothing of it.
func TestProduceMalformed(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	for v := int16(3); v <= 13; v++ {
		q := produceOne(v, topic, 0, makeBatch(t, batch.Plain, "a"))
		frame := kmsg.NewRequestFormatter().AppendRequest(nil, q, 1)
		frame = frame[:len(frame)-8]
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
		c := s.dial()
		_, err := c.conn.Write(frame)
		check(t, err)
		if !c.dropped() {
			t.Errorf("v%d: a cut off request is answered", v)
		}
	}
	if base := s.dial().produce(topic, 0, "a"); base != 0 {
		t.Errorf("base offset %d: malformed requests were stored", base)
	}
}
