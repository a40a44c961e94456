package api

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage"
)

// oldFetch is what a consumer of an old version asks and gets.
func (c *client) oldFetch(version int16, topic *coordinator.Topic, offset int64, change ...func(*kmsg.FetchRequest)) *kmsg.FetchResponseTopicPartition {
	c.t.Helper()
	q := fetchOne(version, topic, 0, offset)
	for _, f := range change {
		f(q)
	}
	return &do[*kmsg.FetchResponse](c, q).Topics[0].Partitions[0]
}

func partitionMax(n int) func(*kmsg.FetchRequest) {
	return func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].PartitionMaxBytes = int32(n) }
}

// codedBatch is a batch with headers, the records' keys being their values in capitals.
func codedBatch(t testing.TB, codec batch.Codec, timestamp int64, values ...string) []byte {
	t.Helper()
	h := batch.Plain
	h.Codec = codec
	var b batch.Builder
	b.Reset(h)
	for i, v := range values {
		b.Add(timestamp+int64(i), []byte(strings.ToUpper(v)), []byte(v), batch.RecordHeader{Key: []byte("header"), Value: []byte("gone")})
	}
	out, err := b.AppendTo(nil)
	check(t, err)
	return out
}

// put produces a batch as it is.
func (c *client) put(topic *coordinator.Topic, records []byte) {
	c.t.Helper()
	resp := do[*kmsg.ProduceResponse](c, produceOne(9, topic, 0, records))
	wantCode(c.t, "produce", resp.Topics[0].Partitions[0].ErrorCode, protocol.None)
}

// mark appends n markers, of a transaction that nobody began.
func (s *server) mark(topic *coordinator.Topic, n int) {
	s.t.Helper()
	l, err := s.handler.openLog(context.Background(), topic, 0)
	check(s.t, err)
	for range n {
		var b batch.Builder
		b.Reset(batch.Header{Control: true, Transactional: true, ProducerID: 9, BaseSequence: -1})
		b.Add(time.Now().UnixMilli(), []byte{0, 0, 0, 1}, binary.BigEndian.AppendUint32([]byte{0, 0}, 0))
		out, err := b.AppendTo(nil)
		check(s.t, err)
		a := &appended{done: make(chan struct{})}
		a.Batch, a.Marker, a.Notify = out, true, a
		l.Append(&a.Append)
		<-a.done
		check(s.t, a.Err)
	}
}

type appended struct {
	storage.Append
	done chan struct{}
}

func (a *appended) AppendDone(*storage.Append) { close(a.done) }

func TestFetchOldVersions(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	now := time.Now().UnixMilli()
	large := strings.Repeat("x", 2*looseBytes)
	for _, codec := range oldCodecs {
		topic := s.createTopic("t-"+codec.String(), 1)
		c.put(topic, codedBatch(t, codec, now, "a", "b", "c"))
		c.put(topic, codedBatch(t, codec, now+10, "d"+large, "e"))
		for v := int16(0); v <= 3; v++ {
			magic := fetchMagic(v)
			for range 2 { // converted, and from the cache
				p := c.oldFetch(v, topic, 1)
				wantCode(t, "fetch", p.ErrorCode, protocol.None)
				if p.HighWatermark != 5 {
					t.Errorf("v%d: high watermark %d", v, p.HighWatermark)
				}
				got := readMessages(t, magic, p.RecordBatches)
				want := []string{"1:b", "2:c", "3:d" + large, "4:e"}
				if codec != batch.None {
					want = append([]string{"0:a"}, want...) // a wrapper is sent whole
				}
				wantTexts(t, fmt.Sprintf("v%d %v", v, codec), got, want...)
				for _, m := range got {
					stamp := now + m.offset
					if m.offset >= 3 {
						stamp += 7
					}
					if magic == 0 {
						stamp = -1
					}
					if string(m.key) != strings.ToUpper(string(m.value)) || m.codec != codec || m.timestamp != stamp {
						t.Errorf("v%d: message %d has key %.10q, codec %v, time %d", v, m.offset, m.key, m.codec, m.timestamp)
					}
				}
			}
			if p := c.oldFetch(v, topic, 5); p.ErrorCode != 0 || len(p.RecordBatches) != 0 {
				t.Errorf("v%d at the end: %+v", v, p)
			}
		}
	}
}

// TestFetchOldLimits: the limit of a partition is hard below v3, and within it
// messages are whole, but for a first one that is larger.
func TestFetchOldLimits(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	plain, packed := s.createTopic("plain", 2), s.createTopic("packed", 2)
	value := strings.Repeat("x", 500)
	for p := range int32(2) {
		c.produce(plain, p, value, value, value)
		for range 3 {
			resp := do[*kmsg.ProduceResponse](c, produceOne(9, packed, p, codedBatch(t, batch.Gzip, 1, "a", "b")))
			wantCode(t, "produce", resp.Topics[0].Partitions[0].ErrorCode, protocol.None)
		}
	}
	for v := int16(0); v <= 3; v++ {
		size := len(encodeMessage(fetchMagic(v), oldMessage{value: []byte(value)}))
		wrapper := len(c.oldFetch(v, packed, 4).RecordBatches)
		for _, tc := range []struct {
			what     string
			topic    *coordinator.Topic
			max      int
			hard, v3 [2]int // bytes, of each partition
		}{
			{"no limit", plain, 1 << 20, [2]int{3 * size, 3 * size}, [2]int{3 * size, 3 * size}},
			{"two messages", plain, 3*size - 1, [2]int{2 * size, 2 * size}, [2]int{2 * size, 2 * size}},
			{"one message", plain, size, [2]int{size, size}, [2]int{size, size}},
			{"less than a message", plain, size - 1, [2]int{size - 1, size - 1}, [2]int{size, 0}},
			{"one byte", plain, 1, [2]int{1, 1}, [2]int{size, 0}},
			{"nothing", plain, 0, [2]int{0, 0}, [2]int{size, 0}},
			{"negative", plain, -5, [2]int{0, 0}, [2]int{size, 0}},
			{"two wrappers", packed, 3*wrapper - 1, [2]int{2 * wrapper, 2 * wrapper}, [2]int{2 * wrapper, 2 * wrapper}},
			{"less than a wrapper", packed, wrapper / 2, [2]int{wrapper / 2, wrapper / 2}, [2]int{wrapper, 0}},
		} {
			q := fetchOne(v, tc.topic, 0, 0)
			q.Topics[0].Partitions = append(q.Topics[0].Partitions, fetchTopic(tc.topic, 1, 0).Partitions...)
			for i := range q.Topics[0].Partitions {
				q.Topics[0].Partitions[i].PartitionMaxBytes = int32(tc.max)
			}
			want := tc.hard
			if v == 3 {
				want = tc.v3
			}
			for i, p := range do[*kmsg.FetchResponse](c, q).Topics[0].Partitions {
				if len(p.RecordBatches) != want[i] || p.HighWatermark < 3 || p.ErrorCode != 0 {
					t.Errorf("v%d %s: partition %d has %d bytes, want %d; high watermark %d", v, tc.what, i, len(p.RecordBatches), want[i], p.HighWatermark)
				}
			}
		}
	}
	// v3 limits the answer as a whole.
	size := len(encodeMessage(1, oldMessage{value: []byte(value)}))
	q := fetchOne(3, plain, 0, 0)
	q.Topics[0].Partitions = append(q.Topics[0].Partitions, fetchTopic(plain, 1, 0).Partitions...)
	q.MaxBytes = int32(4 * size)
	for i, p := range do[*kmsg.FetchResponse](c, q).Topics[0].Partitions {
		if want := []int{3 * size, size}[i]; len(p.RecordBatches) != want {
			t.Errorf("partition %d has %d bytes of an answer of %d", i, len(p.RecordBatches), 4*size)
		}
	}
	// The next fetch begins within the batch.
	wantTexts(t, "within a batch", readMessages(t, 1, c.oldFetch(2, plain, 2).RecordBatches), "2:"+value)
}

// TestFetchOldGrown: the limit concerns what is stored. A batch within it is sent
// although its message set, with a checksum for each message, is larger.
func TestFetchOldGrown(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	topic := s.createTopic("grown", 1)
	values := make([]string, 300)
	want := make([]string, len(values))
	for i := range values {
		values[i] = fmt.Sprint("v", i)
		want[i] = fmt.Sprintf("%d:%s", i, values[i])
	}
	stored := codedBatch(t, batch.Gzip, time.Now().UnixMilli(), values...)
	c.put(topic, stored)
	for v := int16(0); v <= 3; v++ {
		set := c.oldFetch(v, topic, 0, partitionMax(len(stored))).RecordBatches
		if len(set) <= len(stored) {
			t.Fatalf("v%d: %d bytes of a batch of %d: the test needs one that grows", v, len(set), len(stored))
		}
		wantTexts(t, fmt.Sprint("v", v), readMessages(t, fetchMagic(v), set), want...)
	}
	if set := c.oldFetch(2, topic, 0, partitionMax(len(stored)-1)).RecordBatches; len(set) != len(stored)-1 {
		t.Errorf("%d bytes within a limit of %d", len(set), len(stored)-1)
	}
}

// TestFetchOldSkipsMarkers: what has no place in the old formats is read over, within
// one answer if there is something behind it, and else it is waited there.
func TestFetchOldSkipsMarkers(t *testing.T) {
	t.Run("from memory", func(t *testing.T) { fetchOldSkipsMarkers(t, 0) })
	t.Run("from ledgers", func(t *testing.T) { fetchOldSkipsMarkers(t, 1) })
}

func fetchOldSkipsMarkers(t *testing.T, tailCacheBytes int64) {
	s := newServer(t, func(o *options) { o.store.TailCacheBytes = tailCacheBytes })
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.produce(topic, 0, "a")
	s.mark(topic, 40)
	c.produce(topic, 0, "b")
	s.mark(topic, 40)
	for v := int16(0); v <= 3; v++ {
		magic := fetchMagic(v)
		for _, offset := range []int64{1, 20, 41} {
			p := c.oldFetch(v, topic, offset, partitionMax(100))
			wantTexts(t, fmt.Sprintf("v%d at %d", v, offset), readMessages(t, magic, p.RecordBatches), "41:b")
		}
		if p := c.oldFetch(v, topic, 42); len(p.RecordBatches) != 0 || p.HighWatermark != 82 || p.ErrorCode != 0 {
			t.Errorf("v%d, only markers: %+v", v, p)
		}
	}
	// Markers are no reason to answer, whatever they come to in bytes.
	q := fetchOne(2, topic, 0, 42)
	q.MaxWaitMillis = 3_600_000
	c.send(q)
	s.mark(topic, 2)
	s.dial().produce(topic, 0, "c")
	r, err := c.receive(q)
	check(t, err)
	wantTexts(t, "after markers", readMessages(t, 1, r.(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches), "84:c")
	// A client that goes away meanwhile.
	gone := s.dial()
	q.Topics[0].Partitions[0].FetchOffset = 85
	gone.send(q)
	s.mark(topic, 1)
	check(t, gone.conn.Close())
	s.mark(topic, 1)
	// Nothing but markers until the end of the wait.
	if p := c.oldFetch(1, topic, 85, func(q *kmsg.FetchRequest) { q.MaxWaitMillis = 20 }); len(p.RecordBatches) != 0 || p.ErrorCode != 0 {
		t.Errorf("at the end of the wait: %+v", p)
	}
}

// TestFetchOldWaits: parking is as for other versions, in stored bytes.
func TestFetchOldWaits(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 2)
	reader, writer := s.dial(), s.dial()
	writer.produce(topic, 0, "a")
	q := fetchOne(1, topic, 0, 1)
	q.Topics[0].Partitions = append(q.Topics[0].Partitions, fetchTopic(topic, 1, 0).Partitions...)
	q.MaxWaitMillis, q.MinBytes = 3_600_000, int32(2*len(makeBatch(t, batch.Plain, "b"))+1)
	reader.send(q)
	answered := make(chan *kmsg.FetchResponse, 1)
	go func() {
		r, err := reader.receive(q)
		if err != nil {
			t.Error(err)
		}
		answered <- r.(*kmsg.FetchResponse)
	}()
	writer.produce(topic, 0, "b")
	writer.produce(topic, 1, "c")
	select {
	case r := <-answered:
		t.Fatalf("answered below min_bytes: %+v", r)
	default:
	}
	writer.produce(topic, 0, "d")
	r := <-answered
	wantTexts(t, "partition 0", readMessages(t, 0, r.Topics[0].Partitions[0].RecordBatches), "1:b", "2:d")
	wantTexts(t, "partition 1", readMessages(t, 0, r.Topics[0].Partitions[1].RecordBatches), "0:c")
}

// TestFetchOldErrors: codes of partitions that cannot be served.
func TestFetchOldErrors(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	now := time.Now().UnixMilli()
	mixed := s.createTopic("mixed", 1)
	c.put(mixed, codedBatch(t, batch.Snappy, now, "a"))
	c.put(mixed, codedBatch(t, batch.Zstd, now, "b"))
	c.put(mixed, codedBatch(t, batch.None, now, "c"))
	zstd := s.createTopic("zstd", 1, "compression.type", "zstd")
	c.put(zstd, codedBatch(t, batch.None, now, "a"))
	never := s.createTopic("never", 1, "message.downconversion.enable", "false")
	c.put(never, codedBatch(t, batch.None, now, "a"))
	for v := int16(0); v <= 11; v++ {
		old := v <= 3
		for _, tc := range []struct {
			what   string
			topic  *coordinator.Topic
			offset int64
			change func(q *kmsg.FetchRequest)
			want   protocol.Code
		}{
			{"zstd", mixed, 1, nil, pick(old, protocol.UnsupportedCompressionType, protocol.None)},
			{"zstd behind others", mixed, 0, nil, protocol.None},
			{"behind zstd", mixed, 2, nil, protocol.None},
			{"zstd of the topic", zstd, 0, nil, pick(v < 10, protocol.UnsupportedCompressionType, protocol.None)},
			{"zstd of the topic, at the end", zstd, 1, nil, pick(v < 10, protocol.UnsupportedCompressionType, protocol.None)},
			{"conversion is off", never, 0, nil, pick(old, protocol.UnsupportedVersion, protocol.None)},
			{"beyond the end", mixed, 4, nil, protocol.OffsetOutOfRange},
			{"negative", mixed, -1, nil, protocol.OffsetOutOfRange},
			{"unknown topic", &coordinator.Topic{Name: "nope"}, 0, nil, protocol.UnknownTopicOrPartition},
			{"unknown partition", mixed, 0, func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].Partition = 1 }, protocol.UnknownTopicOrPartition},
			{"a follower", mixed, 0, func(q *kmsg.FetchRequest) { q.ReplicaID = 3 }, protocol.NotLeaderOrFollower},
		} {
			p := c.oldFetch(v, tc.topic, tc.offset, func(q *kmsg.FetchRequest) {
				if tc.change != nil {
					tc.change(q)
				}
				// An error is not kept waiting, if it is known before anything is converted.
				if tc.want != protocol.None && tc.what != "zstd" {
					q.MinBytes, q.MaxWaitMillis = 1<<20, 3_600_000
				}
			})
			wantCode(t, fmt.Sprintf("v%d %s", v, tc.what), p.ErrorCode, tc.want)
			if tc.want != protocol.None && (p.HighWatermark != -1 || len(p.RecordBatches) != 0) {
				t.Errorf("v%d %s: an error comes with %+v", v, tc.what, p)
			}
		}
		if old {
			wantTexts(t, "before zstd", readMessages(t, fetchMagic(v), c.oldFetch(v, mixed, 0).RecordBatches), "0:a")
		}
	}
	// A storage failure has no code of its own below v6.
	for v := int16(0); v <= 6; v++ {
		r := fetchRequest{h: s.handler, version: v}
		p := fetchPart{topic: mixed}
		p.read.Err = storage.ErrStorage
		if got, want := r.code(&p), pick(v < 6, protocol.NotLeaderOrFollower, protocol.KafkaStorageError); got != want {
			t.Errorf("v%d: a failed storage is %s", v, got.Name())
		}
	}
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

// TestFetchOldInPieces: what is not in memory is read and converted as well, and many
// small batches too.
func TestFetchOldInPieces(t *testing.T) {
	t.Run("from memory", func(t *testing.T) { fetchOldInPieces(t, 0) })
	t.Run("from ledgers", func(t *testing.T) { fetchOldInPieces(t, 1) })
}

func fetchOldInPieces(t *testing.T, tailCacheBytes int64) {
	s := newServer(t, func(o *options) { o.store.TailCacheBytes = tailCacheBytes })
	topic := s.createTopic("orders", 1)
	c := s.dial()
	var want []string
	for i := range 300 {
		v := fmt.Sprint(i, strings.Repeat("x", i%7*300))
		c.produce(topic, 0, v)
		want = append(want, fmt.Sprintf("%d:%s", i, v))
	}
	for v := int16(0); v <= 3; v++ {
		var got []oldMessage
		for offset := int64(0); offset < 300; offset = got[len(got)-1].offset + 1 {
			p := c.oldFetch(v, topic, offset, partitionMax(40_000), func(q *kmsg.FetchRequest) { q.MaxWaitMillis = 3_600_000 })
			wantCode(t, "fetch", p.ErrorCode, protocol.None)
			ms := readMessages(t, fetchMagic(v), p.RecordBatches)
			if len(ms) == 0 || len(p.RecordBatches) > 40_000 {
				t.Fatalf("v%d at %d: %d messages in %d bytes", v, offset, len(ms), len(p.RecordBatches))
			}
			got = append(got, ms...)
		}
		if !slices.Equal(texts(got), want) {
			t.Errorf("v%d: read %d messages", v, len(got))
		}
	}
}

// cutGzip is a batch whose records lack the end of their stream.
func cutGzip(t testing.TB) []byte {
	b := codedBatch(t, batch.Gzip, time.Now().UnixMilli(), "b")
	b = b[:len(b)-9]
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-batch.PrefixBytes))
	batch.Batch(b).SetMaxTimestamp(batch.Batch(b).MaxTimestamp() + 1) // sums again
	return b
}

// TestProduceVerified: a topic that asks for it takes no compressed batch that its consumers
// could not read, and all others as they came.
func TestProduceVerified(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1, "quire.verify.compressed", "true")
	c := s.dial()
	good := codedBatch(t, batch.Gzip, time.Now().UnixMilli(), "a")
	for _, version := range []int16{2, 9} { // the older takes a batch in a set's place
		p := &do[*kmsg.ProduceResponse](c, produceOne(version, topic, 0, cutGzip(t))).Topics[0].Partitions[0]
		wantCode(t, "cut off", p.ErrorCode, protocol.InvalidRecord)
		p = &do[*kmsg.ProduceResponse](c, produceOne(version, topic, 0, slices.Clone(good))).Topics[0].Partitions[0]
		wantCode(t, "whole", p.ErrorCode, protocol.None)
	}
	_, batches := c.stored(topic, 0)
	if len(batches) != 2 || !slices.Equal(batches[1].Records(), batch.Batch(good).Records()) {
		t.Errorf("stored %d batches, or other bytes", len(batches))
	}
}

// TestFetchOldOfCorruptRecords: a batch whose records are not what its header
// says is told, and does not stop those before it.
func TestFetchOldOfCorruptRecords(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.produce(topic, 0, "a")
	b := cutGzip(t) // nobody looks into it before it is converted
	c.put(topic, b)
	for v := int16(0); v <= 3; v++ {
		wantTexts(t, "before", readMessages(t, fetchMagic(v), c.oldFetch(v, topic, 0).RecordBatches), "0:a")
		wantCode(t, "corrupt", c.oldFetch(v, topic, 1).ErrorCode, protocol.CorruptMessage)
	}
}

// TestOneConversionForAll: however many consumers read the same, each batch is
// converted once for each magic.
func TestOneConversionForAll(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	now := time.Now().UnixMilli()
	const batches, consumers = 20, 30
	var want []string
	for i := range batches {
		v := fmt.Sprint(i, strings.Repeat("x", 3000))
		c.put(topic, codedBatch(t, oldCodecs[i%4], now, v))
		want = append(want, fmt.Sprintf("%d:%s", i, v))
	}
	// The compressed ones are small, and yet kept: what they cost is not to be seen from their size.
	got := make(chan []oldMessage, consumers)
	for i := range consumers {
		reader := s.dial()
		go func() {
			q := fetchOne(int16(i%4), topic, 0, 0)
			reader.send(q)
			r, err := reader.receive(q)
			if err != nil {
				t.Error(err)
				got <- nil
				return
			}
			got <- readMessages(t, fetchMagic(q.Version), r.(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches)
		}()
	}
	for range consumers {
		if m := <-got; !slices.Equal(texts(m), want) {
			t.Errorf("a consumer got %d messages", len(m))
		}
	}
	if n := counted(t, s.handler.cache.misses); n != 2*batches {
		t.Errorf("%v conversions of %d batches into two formats", n, batches)
	}
	if n := counted(t, s.handler.cache.hits); n != (consumers-2)*batches {
		t.Errorf("%v hits of %d consumers of %d batches", n, consumers, batches)
	}
	if n := s.handler.cache.size(); n < 3000*batches/4*2 {
		t.Errorf("%d bytes are kept", n)
	}
}

// TestSlowOldConsumers: consumers that do not read their answers hold what a
// connection may and no more, while another one goes on.
func TestSlowOldConsumers(t *testing.T) {
	const limit, unsent, answer = 2 << 20, 4 << 20, 1 << 20 // unsent is the server's default
	s := newServer(t, func(o *options) {
		o.config.MaxFetchedBytes = limit
		o.config.ConversionCacheBytes = 1 << 20
	})
	topic := s.createTopic("orders", 1)
	c := s.dial()
	const records = 40
	value := strings.Repeat("x", 300_000)
	for range records {
		c.produce(topic, 0, value)
	}
	const slow = 10
	for range slow {
		reader := s.dial()
		check(t, reader.conn.(*net.TCPConn).SetReadBuffer(4<<10))
		for range 60 {
			reader.send(fetchOne(2, topic, 0, 0))
		}
	}
	reader := s.dial()
	most, full := int64(0), false
	for offset := int64(0); offset < records || !full; {
		ms := readMessages(t, 1, reader.oldFetch(2, topic, offset%records).RecordBatches)
		if len(ms) == 0 {
			t.Fatalf("nothing at %d", offset)
		}
		offset += int64(len(ms))
		held := s.handler.fetched.Load()
		most = max(most, held)
		full = full || held >= limit/2
	}
	if bound := int64(limit + (slow+1)*(unsent+2*answer)); most > bound {
		t.Errorf("%d bytes were held at a time, at most %d may be", most, bound)
	}
	if n := s.handler.cache.size(); n > 1<<20 {
		t.Errorf("%d bytes are kept", n)
	}
}
