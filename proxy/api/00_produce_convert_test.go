package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
)

var oldCodecs = []batch.Codec{batch.None, batch.Gzip, batch.Snappy, batch.LZ4}

// sentSet is a set as a producer of a magic and codec sends it.
func sentSet(t testing.TB, magic int8, codec batch.Codec, values ...string) []byte {
	t.Helper()
	now := time.Now().UnixMilli()
	set := messageSet(magic, now, values...)
	if codec != batch.None {
		set = wrapped(t, magic, codec, now+int64(len(values))-1, int64(len(values)-1), set)
	}
	return set
}

// stored are the values of all records of a partition, each in its batch as it
// is stored.
func (c *client) stored(topic *coordinator.Topic, partition int32) (values []string, batches []batch.Batch) {
	c.t.Helper()
	// v11 reads topics of every codec.
	set := do[*kmsg.FetchResponse](c, fetchOne(11, topic, partition, 0)).Topics[0].Partitions[0].RecordBatches
	next := int64(0)
	for len(set) > 0 {
		b, rest, err := batch.Next(set)
		check(c.t, err)
		check(c.t, b.Verify())
		if b.BaseOffset() != next {
			c.t.Fatalf("a batch at offset %d, the one before ended at %d", b.BaseOffset(), next)
		}
		next = b.LastOffset() + 1
		records, err := batch.Decompress(nil, b.Codec(), b.Records(), 1<<20)
		check(c.t, err)
		it := b.Iterate(records)
		var r batch.Record
		for it.Next(&r) {
			values = append(values, string(r.Value))
		}
		check(c.t, it.Err())
		batches = append(batches, b)
		set = rest
	}
	return values, batches
}

func TestProduceMessageSets(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	for v := int16(0); v <= 2; v++ {
		for _, codec := range oldCodecs {
			for magic := int8(0); magic <= 1; magic++ { // no version insists on its own
				topic := s.createTopic(fmt.Sprintf("t-%d-%v-%d", v, codec, magic), 1)
				for i, acks := range []int16{-1, 1} {
					q := produceOne(v, topic, 0, sentSet(t, magic, codec, "a", "b", "c"))
					q.Acks = acks
					p := &do[*kmsg.ProduceResponse](c, q).Topics[0].Partitions[0]
					wantCode(t, "produce", p.ErrorCode, protocol.None)
					if p.BaseOffset != int64(3*i) || p.LogAppendTime != -1 {
						t.Errorf("v%d %v magic %d: offset %d, time %d", v, codec, magic, p.BaseOffset, p.LogAppendTime)
					}
				}
				values, batches := c.stored(topic, 0)
				if !slices.Equal(values, []string{"a", "b", "c", "a", "b", "c"}) || len(batches) != 2 {
					t.Errorf("v%d %v magic %d: stored %v in %d batches", v, codec, magic, values, len(batches))
				}
				for _, b := range batches {
					if b.Codec() != codec || (b.MaxTimestamp() == batch.NoTimestamp) != (magic == 0) {
						t.Errorf("v%d %v magic %d: codec %v, time %d", v, codec, magic, b.Codec(), b.MaxTimestamp())
					}
				}
			}
		}
	}
}

// TestProduceMessageSetChecks: what is wrong with a set, and its code. The
// partitions beside it are served, and of it nothing is stored.
func TestProduceMessageSetChecks(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 3)
	compacted := s.createTopic("table", 3, "cleanup.policy", "compact")
	small := s.createTopic("small", 3, "max.message.bytes", "200")
	segments := s.createTopic("segments", 3, "segment.bytes", "300")
	past := s.createTopic("past", 3, "message.timestamp.before.max.ms", "3600000")
	stamped := s.createTopic("stamped", 3, "message.timestamp.type", "LogAppendTime")
	internal := s.createTopic("__consumer_offsets", 3)
	now := time.Now().UnixMilli()
	good := messageSet(1, now, "good")
	plain := func(m oldMessage) []byte { return encodeMessage(1, m) }
	wrapper := func(value []byte) []byte {
		return encodeMessage(1, oldMessage{timestamp: now, codec: batch.Gzip, value: value})
	}
	pack := func(set []byte) []byte { return wrapped(t, 1, batch.Gzip, now, 1, set) }
	badCRC := change(messageSet(1, now, "x"), 12, 1, 2, 3, 4)
	transactional := batch.Plain
	transactional.Transactional, transactional.ProducerID, transactional.ProducerEpoch, transactional.BaseSequence = true, 7, 0, 0
	for _, tc := range []struct {
		what  string
		topic *coordinator.Topic
		set   []byte
		want  protocol.Code // None with an offset, unless no whole message is there
	}{
		{"no message", topic, []byte{}, protocol.None},
		{"no message but one cut off", topic, good[:len(good)-1], protocol.None},
		{"null", topic, nil, protocol.InvalidRecord},

		{"wrong CRC", topic, badCRC, protocol.CorruptMessage},
		{"wrong CRC after a good message", topic, slices.Concat(good, badCRC), protocol.CorruptMessage},
		{"wrong CRC in a wrapper", topic, pack(badCRC), protocol.CorruptMessage},
		{"size below the minimum", topic, change(good, 8, 0, 0, 0, 13), protocol.CorruptMessage},
		{"size of magic 0 in magic 1", topic, change(good, 8, 0, 0, 0, 14), protocol.CorruptMessage},
		{"negative size", topic, change(good, 8, 0xff), protocol.CorruptMessage},
		{"unknown magic", topic, change(good, 16, 3), protocol.CorruptMessage},

		{"two magics", topic, slices.Concat(good, messageSet(0, 0, "x")), protocol.InvalidRecord},
		{"a wrapper among others", topic, slices.Concat(good, pack(good)), protocol.InvalidRecord},
		{"two wrappers", topic, slices.Concat(pack(good), pack(good)), protocol.InvalidRecord},
		{"a wrapper in a wrapper", topic, pack(pack(good)), protocol.InvalidRecord},
		{"another magic in a wrapper", topic, pack(messageSet(0, 0, "x")), protocol.InvalidRecord},
		{"a wrapper without messages", topic, pack(nil), protocol.InvalidRecord},
		{"a wrapper that is null", topic, wrapper(nil), protocol.InvalidRecord},
		{"a wrapper that does not inflate", topic, wrapper([]byte("gzip")), protocol.InvalidRecord},
		{"offsets beyond the wrapper's", topic, wrapped(t, 1, batch.Gzip, now, 1, messageSet(1, now, "a", "b", "c")), protocol.InvalidRecord},
		{"zstd", topic, encodeMessage(1, oldMessage{timestamp: now, codec: batch.Zstd, value: []byte("x")}), protocol.InvalidRecord},
		{"unknown codec", topic, encodeMessage(1, oldMessage{timestamp: now, codec: 7, value: []byte("x")}), protocol.UnsupportedCompressionType},

		{"no key in a compacted topic", compacted, plain(oldMessage{timestamp: now, value: []byte("x")}), protocol.InvalidRecord},
		{"no key in a compacted topic, wrapped", compacted, pack(plain(oldMessage{timestamp: now, value: []byte("x")})), protocol.InvalidRecord},
		{"keys in a compacted topic", compacted, pack(good), protocol.None},
		{"too far in the past", past, messageSet(1, now-2*3_600_000, "x"), protocol.InvalidTimestamp},
		{"too far in the future", topic, messageSet(1, now+2*3_600_000, "x"), protocol.InvalidTimestamp},
		{"no timestamp is never too far", past, messageSet(0, 0, "x"), protocol.None},
		{"negative timestamp", topic, messageSet(1, -2, "x"), protocol.InvalidTimestamp},
		{"log append time from a client", stamped, plain(oldMessage{timestamp: now, attributes: 8, value: []byte("x")}), protocol.InvalidTimestamp},

		{"a message too large", small, messageSet(1, now, "fine", strings.Repeat("x", 200)), protocol.MessageTooLarge},
		{"more than a segment together", segments, messageSet(1, now, strings.Repeat("x", 100), strings.Repeat("x", 200)), protocol.RecordListTooLarge},

		{"a batch of magic 2", topic, makeBatch(t, batch.Plain, "x"), protocol.None},
		{"two batches of magic 2", topic, slices.Concat(makeBatch(t, batch.Plain, "x"), makeBatch(t, batch.Plain, "x")), protocol.InvalidRecord},
		{"a transaction that nobody began", topic, makeBatch(t, transactional, "x"), protocol.InvalidTxnState},
		{"internal topic", internal, good, protocol.InvalidTopicException},
		{"unknown topic", &coordinator.Topic{Name: "nope"}, good, protocol.UnknownTopicOrPartition},
	} {
		t.Run(tc.what, func(t *testing.T) {
			for v := int16(0); v <= 2; v++ {
				c := s.dial()
				var before []string
				if tc.topic.ID != [16]byte{} && tc.topic != internal {
					before, _ = c.stored(tc.topic, 1)
				}
				q := produceOne(v, topic, 0, good)
				q.Topics = append(q.Topics, produceOne(v, tc.topic, 1, tc.set).Topics...)
				q.Topics = append(q.Topics, produceOne(v, topic, 2, good).Topics...)
				resp := do[*kmsg.ProduceResponse](c, q)
				wantCode(t, "the first", resp.Topics[0].Partitions[0].ErrorCode, protocol.None)
				wantCode(t, "the last", resp.Topics[2].Partitions[0].ErrorCode, protocol.None)
				p := &resp.Topics[1].Partitions[0]
				wantCode(t, tc.what, p.ErrorCode, tc.want)
				if tc.want == protocol.None && !strings.HasPrefix(tc.what, "no message") {
					if p.BaseOffset < 0 {
						t.Errorf("v%d: base offset %d", v, p.BaseOffset)
					}
					continue
				}
				if p.BaseOffset != -1 || p.LogAppendTime != -1 {
					t.Errorf("nothing is stored at offset %d, time %d", p.BaseOffset, p.LogAppendTime)
				}
				if before != nil {
					if after, _ := c.stored(tc.topic, 1); len(after) != len(before) {
						t.Errorf("%d records were stored", len(after)-len(before))
					}
				}
			}
		})
	}
	c := s.dial()
	q := produceOne(1, topic, 0, good)
	q.Acks = 2
	wantCode(t, "acks", do[*kmsg.ProduceResponse](c, q).Topics[0].Partitions[0].ErrorCode, protocol.InvalidRequiredAcks)
}

// TestProduceSetInSeveralBatches: a set whose messages are small enough, but not
// as one batch, is stored in several without a gap, or not at all.
func TestProduceSetInSeveralBatches(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	var values []string
	for i := range 10 {
		values = append(values, strings.Repeat(string(rune('a'+i)), 300))
	}
	for i, codec := range []string{"producer", "uncompressed", "gzip"} {
		topic := s.createTopic(codec, 1, "max.message.bytes", "1000", "compression.type", codec)
		for n := range 2 {
			p := &do[*kmsg.ProduceResponse](c, produceOne(1, topic, 0, sentSet(t, 1, []batch.Codec{batch.None, batch.LZ4, batch.None}[i], values...))).Topics[0].Partitions[0]
			wantCode(t, codec, p.ErrorCode, protocol.None)
			if p.BaseOffset != int64(10*n) {
				t.Errorf("%s: base offset %d", codec, p.BaseOffset)
			}
		}
		got, batches := c.stored(topic, 0)
		if !slices.Equal(got, slices.Concat(values, values)) {
			t.Errorf("%s: stored %d records", codec, len(got))
		}
		for _, b := range batches {
			if len(b) > 1000 {
				t.Errorf("%s: a batch of %d bytes", codec, len(b))
			}
		}
		if codec == "gzip" != (len(batches) == 2) {
			t.Errorf("%s: %d batches", codec, len(batches))
		}
	}

	// A failing ledger is told once for all of them, and the client sends all again.
	topic := s.createTopic("breaks", 1, "max.message.bytes", "1000")
	c.produce(topic, 0, "opens the log")
	s.tier.fail(ledger.ErrFailed)
	p := &do[*kmsg.ProduceResponse](c, produceOne(2, topic, 0, sentSet(t, 1, batch.None, values...))).Topics[0].Partitions[0]
	if code := protocol.Code(p.ErrorCode); code != protocol.NotLeaderOrFollower || p.BaseOffset != -1 {
		t.Errorf("a failed ledger is told as %s at %d", code.Name(), p.BaseOffset)
	}
	s.tier.fail(nil)
}

// TestProduceSetsInOrder: sets that the loop converts, those that a worker
// converts, and batches as they are stored, all on one connection and some to logs that a worker
// opens first, are appended in the order in which they were sent.
func TestProduceSetsInOrder(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 3)
	c := s.dial()
	large := strings.Repeat("x", 20_000)
	const rounds = 60
	go func() { // the answers are read meanwhile
		for i := range rounds {
			q := kmsg.NewPtrProduceRequest()
			q.Version, q.Acks, q.TimeoutMillis = 2, 1, 30000
			for p := range topic.Partitions {
				text := fmt.Sprint(i)
				var set []byte
				switch (i + int(p)) % 5 {
				case 0:
					set = sentSet(t, 1, batch.None, text)
				case 1:
					set = sentSet(t, 1, batch.Gzip, text+large)
				case 2:
					set = sentSet(t, 0, batch.Snappy, text)
				case 3:
					set = sentSet(t, 1, batch.None, text+large+large)
				default:
					set = makeBatch(t, batch.Plain, text)
				}
				if i%3 == int(p) {
					continue // not every partition in every request
				}
				q.Topics = append(q.Topics, produceOne(2, topic, p, set).Topics...)
			}
			c.send(q)
		}
	}()
	next := make(map[int32]int64)
	for range rounds {
		r, err := c.receive(&kmsg.ProduceRequest{Version: 2})
		check(t, err)
		for _, rt := range r.(*kmsg.ProduceResponse).Topics {
			p := &rt.Partitions[0]
			wantCode(t, "produce", p.ErrorCode, protocol.None)
			if p.BaseOffset != next[p.Partition] {
				t.Fatalf("partition %d: base offset %d after %d", p.Partition, p.BaseOffset, next[p.Partition])
			}
			next[p.Partition]++
		}
	}
	for p := range topic.Partitions {
		values, _ := c.stored(topic, p)
		at := 0
		for i := range rounds {
			if i%3 == int(p) {
				continue
			}
			if at == len(values) || strings.TrimRight(values[at], "x") != fmt.Sprint(i) {
				t.Fatalf("partition %d: record %d of %d is not the one of request %d", p, at, len(values), i)
			}
			at++
		}
	}
}

// TestProduceSetsAcks0: old producers without acknowledgement.
func TestProduceSetsAcks0(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	q := produceOne(0, topic, 0, sentSet(t, 0, batch.Gzip, "a", "b"))
	q.Acks = 0
	c.send(q)
	c.send(q)
	if p := do[*kmsg.ProduceResponse](c, produceOne(0, topic, 0, sentSet(t, 0, batch.None, "c"))).Topics[0].Partitions[0]; p.BaseOffset != 4 {
		t.Errorf("base offset %d after two sets of acks=0", p.BaseOffset)
	}
	bad := produceOne(0, topic, 0, change(sentSet(t, 0, batch.None, "c"), 12, 9))
	bad.Acks = 0
	c.send(bad)
	if !c.dropped() {
		t.Error("a failed produce with acks=0 is answered")
	}
}

func TestProduceSetsRewritten(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	for _, codec := range []string{"uncompressed", "gzip", "snappy", "lz4", "zstd"} {
		topic := s.createTopic(codec, 1, "compression.type", codec)
		for _, sent := range oldCodecs {
			wantCode(t, codec, do[*kmsg.ProduceResponse](c, produceOne(2, topic, 0, sentSet(t, 1, sent, "a"))).Topics[0].Partitions[0].ErrorCode, protocol.None)
		}
		_, batches := c.stored(topic, 0)
		for _, b := range batches {
			if name := b.Codec().String(); name != codec && (name != "none" || codec != "uncompressed") {
				t.Errorf("%s: stored as %s", codec, name)
			}
		}
	}
	topic := s.createTopic("stamped", 1, "message.timestamp.type", "LogAppendTime")
	before := time.Now().UnixMilli()
	for v := int16(0); v <= 2; v++ {
		// The producer's time may be anything: it does not count.
		set := messageSet(1, before+100*3_600_000, "a", "b")
		p := &do[*kmsg.ProduceResponse](c, produceOne(v, topic, 0, set)).Topics[0].Partitions[0]
		wantCode(t, "stamped", p.ErrorCode, protocol.None)
		if now := time.Now().UnixMilli(); v == 2 && (p.LogAppendTime < before || p.LogAppendTime > now) {
			t.Errorf("v%d: log append time %d, it is %d", v, p.LogAppendTime, now)
		}
	}
	_, batches := c.stored(topic, 0)
	for _, b := range batches {
		if !b.LogAppendTime() || b.MaxTimestamp() > time.Now().UnixMilli() {
			t.Errorf("stored with time %d, type %v", b.MaxTimestamp(), b.LogAppendTime())
		}
	}
}

// TestProduceSetsTimeOut: a request that is answered before its sets are
// stored gives their memory back when they are.
func TestProduceSetsTimeOut(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1, "max.message.bytes", "1000")
	c := s.dial()
	c.produce(topic, 0, "opens the log")
	s.tier.hold()
	q := produceOne(1, topic, 0, sentSet(t, 1, batch.None, strings.Repeat("x", 400), strings.Repeat("y", 400)))
	q.TimeoutMillis = 3_600_000
	c.send(q)
	s.tier.waitQueued(2)
	if s.handler.converted.Load() == 0 {
		t.Error("converted sets do not count")
	}
	s.handler.waiting.expire(time.Now().Add(2 * time.Hour))
	r, err := c.receive(q)
	check(t, err)
	wantCode(t, "undecided", r.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode, protocol.RequestTimedOut)
	s.tier.release()
	if base := c.produce(topic, 0, "next"); base != 3 {
		t.Errorf("base offset %d: the late set is not stored", base)
	}
	if n := s.handler.converted.Load(); n != 0 {
		t.Errorf("%d bytes count as converted and not stored", n)
	}
}

// TestProduceSetsBounded: converted sets that wait to be stored have a limit of
// their own, and producers are told to try again.
func TestProduceSetsBounded(t *testing.T) {
	s := newServer(t, func(o *options) { o.config.MaxConvertedBytes = 30_000 })
	topic := s.createTopic("orders", 1, "compression.type", "uncompressed")
	c := s.dial()
	c.produce(topic, 0, "opens the log")
	s.tier.hold()
	// Each inflates to 8 KB.
	var sent []*kmsg.ProduceRequest
	for range 5 {
		q := produceOne(2, topic, 0, sentSet(t, 1, batch.Gzip, strings.Repeat("x", 4000)))
		c.send(q)
		sent = append(sent, q)
	}
	s.tier.waitQueued(2)
	refusal := s.dial()
	p := &do[*kmsg.ProduceResponse](refusal, produceOne(2, topic, 0, sentSet(t, 1, batch.Gzip, strings.Repeat("x", 9000)))).Topics[0].Partitions[0]
	wantCode(t, "too much", p.ErrorCode, protocol.NotLeaderOrFollower)
	s.tier.release()
	taken := 0
	for _, q := range sent {
		r, err := c.receive(q)
		check(t, err)
		if code := r.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; code == 0 {
			taken++
		} else {
			wantCode(t, "refused", code, protocol.NotLeaderOrFollower)
		}
	}
	if taken < 2 {
		t.Errorf("%d of 5 sets were taken", taken)
	}
	// One alone may be larger than the limit.
	p = &do[*kmsg.ProduceResponse](c, produceOne(2, topic, 0, sentSet(t, 1, batch.None, strings.Repeat("x", 20_000)))).Topics[0].Partitions[0]
	wantCode(t, "one alone", p.ErrorCode, protocol.None)
}

// TestProduceBomb: a set that inflates far beyond its size is refused, or is
// stored, but never inflates without bound.
func TestProduceBomb(t *testing.T) {
	const limit = 4 << 20
	s := newServer(t, func(o *options) { o.config.maxInflatedBytes = limit })
	topic := s.createTopic("orders", 1)
	c := s.dial()
	now := time.Now().UnixMilli()
	zeros := func(n int) []byte {
		return wrapped(t, 1, batch.Gzip, now, 0, encodeMessage(1, oldMessage{timestamp: now, value: make([]byte, n)}))
	}
	for _, tc := range []struct {
		what string
		n    int
		want protocol.Code
	}{
		{"1 : 1000, more than one conversion may beside others", 3 << 20, protocol.None},
		{"all but the limit", limit - 100, protocol.None},
		{"more than the limit", limit, protocol.MessageTooLarge},
	} {
		p := &do[*kmsg.ProduceResponse](c, produceOne(2, topic, 0, zeros(tc.n))).Topics[0].Partitions[0]
		wantCode(t, tc.what, p.ErrorCode, tc.want)
	}
	// What a consumer asks for is bounded likewise.
	for offset := range int64(2) {
		wantCode(t, "fetch", c.oldFetch(2, topic, offset).ErrorCode, protocol.None)
	}
	c.put(topic, codedBatch(t, batch.Gzip, now, string(make([]byte, limit))))
	wantCode(t, "fetch of more than the limit", c.oldFetch(2, topic, 2).ErrorCode, protocol.CorruptMessage)
}

// TestProduceSetOfTooManyBatches: a set that a tiny max.message.bytes would cut into
// more batches than a log takes in one go is refused as a whole.
func TestProduceSetOfTooManyBatches(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("tiny", 1, "max.message.bytes", "100")
	c := s.dial()
	produce := func(n int) protocol.Code {
		var set []byte
		for range n {
			set = append(set, encodeMessage(0, oldMessage{value: make([]byte, 30)})...)
		}
		return protocol.Code(do[*kmsg.ProduceResponse](c, produceOne(0, topic, 0, set)).Topics[0].Partitions[0].ErrorCode)
	}
	wantCode(t, "too many", int16(produce(maxBatches+1)), protocol.RecordListTooLarge)
	wantCode(t, "the most", int16(produce(maxBatches)), protocol.None)
	if next := c.produce(topic, 0, "next"); next != maxBatches {
		t.Errorf("the next offset is %d, after %d records", next, maxBatches)
	}
}
