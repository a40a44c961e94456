package api

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
)

// TestLargeConversionsLeaveRoom: conversions that wait to inflate further than others
// may do not keep the others from running.
func TestLargeConversionsLeaveRoom(t *testing.T) {
	c := newConversions(1 << 30)
	c.slots = make(chan struct{}, 2)
	started, release := make(chan struct{}), make(chan struct{})
	var done sync.WaitGroup
	for i := range 5 {
		done.Go(func() {
			err := c.run(t.Context(), 1, func(limitBytes int) error {
				if limitBytes < 1<<30 {
					return batch.ErrTooLarge
				}
				if i == 0 {
					close(started)
					<-release
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		if i == 0 {
			<-started
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 100 {
		if err := c.run(ctx, 1, func(int) error { return nil }); err != nil {
			t.Errorf("a small conversion beside a large one: %v", err)
			break
		}
	}
	close(release)
	done.Wait()
	if len(c.slots) != 0 || len(c.large) != 0 {
		t.Errorf("%d slots and %d large ones are held", len(c.slots), len(c.large))
	}
	// Who gives up waiting holds nothing.
	c.large <- struct{}{}
	ended, end := context.WithCancel(t.Context())
	err := c.run(ended, 1, func(int) error { end(); return batch.ErrTooLarge })
	if err == nil || len(c.slots) != 0 || len(c.large) != 1 {
		t.Errorf("%v; %d slots and %d large ones are held", err, len(c.slots), len(c.large))
	}
}

// worker is a request of an old version as a worker has it, with its logs open.
func (s *server) worker(version int16, topic *coordinator.Topic, partitions int32) *fetchRequest {
	s.t.Helper()
	r := s.handler.newFetchRequest().(*fetchRequest)
	r.version, r.magic, r.maxBytes = version, fetchMagic(version), 1<<20
	r.setParts(int(partitions))
	for i := range r.parts {
		p := &r.parts[i]
		p.ask = fetchAsk{topic: topic.Name, partition: int32(i), maxBytes: 1 << 20}
		p.topic = topic
		var err error
		p.log, err = s.handler.openLog(context.Background(), topic, int32(i))
		check(s.t, err)
	}
	return r
}

// TestFetchOldHoldsWhatItCounts: small records of many partitions do not hold a block
// of memory each.
func TestFetchOldHoldsWhatItCounts(t *testing.T) {
	s := newServer(t)
	const partitions = 500
	topic := s.createTopic("wide", partitions)
	c := s.dial()
	for p := range int32(partitions) {
		c.produce(topic, p, "a small record")
	}
	check(t, s.proxy.NewPing()(t.Context())) // the loop has released what it answered last
	for v := int16(0); v <= 3; v++ {
		r := s.worker(v, topic, partitions)
		before := buffer.InUseBytes()
		r.readConverted(context.Background())
		counted, held := s.handler.fetched.Load(), buffer.InUseBytes()-before
		if counted < 20*partitions || held > counted+2*looseBlockBytes {
			t.Errorf("v%d: %d bytes are held by an answer that counts %d", v, held, counted)
		}
		for i := range r.parts {
			var set []byte
			for _, b := range r.parts[i].read.Records {
				set = append(set, b...)
			}
			wantTexts(t, "partition", readMessages(t, r.magic, set), "0:a small record")
		}
		r.drop()
		if held := buffer.InUseBytes() - before; held != 0 {
			t.Errorf("v%d: %d bytes are still held", v, held)
		}
	}
}

// TestFetchOldOfClosedConnection: nothing is converted for a connection that is closed.
func TestFetchOldOfClosedConnection(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 20)
	c := s.dial()
	for p := range int32(20) {
		for range 3 {
			wantCode(t, "produce", do[*kmsg.ProduceResponse](c, produceOne(9, topic, p, codedBatch(t, batch.Gzip, 1, "a"))).Topics[0].Partitions[0].ErrorCode, protocol.None)
		}
	}
	r := s.worker(1, topic, 20)
	r.phase.Store(fetchClosed)
	r.readConverted(context.Background())
	r.drop()
	if n := counted(t, s.handler.cache.misses); n != 0 {
		t.Errorf("%v conversions for nobody", n)
	}
}

// TestFetchOldOfBomb: that a batch is too large to be converted is found out once, however
// often its consumer asks again.
func TestFetchOldOfBomb(t *testing.T) {
	const limit = 4 << 20
	s := newServer(t, func(o *options) { o.config.maxInflatedBytes = limit })
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.put(topic, codedBatch(t, batch.Gzip, 1, string(make([]byte, limit))))
	for range 5 {
		for v := int16(0); v <= 3; v++ {
			wantCode(t, "bomb", c.oldFetch(v, topic, 0).ErrorCode, protocol.CorruptMessage)
		}
	}
	if n := counted(t, s.handler.cache.misses); n != 2 {
		t.Errorf("inflated %v times, once for each magic is enough", n)
	}
}

// TestFetchOldThinnedOut: of a compressed batch whose last records compaction has
// taken, an old consumer who has read the rest gets nothing, but what follows. It would ask for
// the same offset forever.
func TestFetchOldThinnedOut(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	s.dial().produce(topic, 0, "opens the log")
	for _, codec := range oldCodecs {
		b := batch.Batch(codedBatch(t, codec, 1, "a", strings.Repeat("b", 2*looseBytes)))
		binary.BigEndian.PutUint32(b[23:], 5) // last offset delta
		b.SetMaxTimestamp(b.MaxTimestamp() + 1)
		for v := int16(0); v <= 3; v++ {
			for offset, sent := range []bool{true, true, false, false, false, false} {
				r := s.worker(v, topic, 1)
				p := &r.parts[0]
				p.position, p.ask.offset = int64(offset), int64(offset)
				s.handler.cache.clear()
				var loose looseBlock
				c := conversionOf{s: r, p: p, limit: 1 << 20, own: 1 << 20, least: 1 << 20, first: true, loose: &loose}
				c.add(context.Background(), b)
				if (p.read.Bytes > 0) != sent || c.err != nil || !sent && p.position != 6 {
					t.Errorf("v%d %v at %d: %d bytes, %v, goes on at %d", v, codec, offset, p.read.Bytes, c.err, p.position)
				}
				r.drop()
				loose.close()
			}
		}
	}
}

// TestOldClientsOfChangingTopics: what is kept of a topic is not what is told of another of
// the same name, nor of offsets that were deleted.
func TestOldClientsOfChangingTopics(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	for life := range 3 {
		topic := s.createTopic("orders", 1)
		value := func(i int) string { return fmt.Sprint(life, i, strings.Repeat("x", 2*looseBytes)) }
		now := time.Now().UnixMilli()
		c.put(topic, codedBatch(t, batch.None, now, value(0), value(1), value(2)))
		c.put(topic, codedBatch(t, batch.Gzip, now, value(3), value(4)))
		for start := range int64(5) {
			q := kmsg.NewPtrDeleteRecordsRequest()
			q.Version = 2
			q.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic.Name, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: start}}}}
			wantCode(t, "delete records", do[*kmsg.DeleteRecordsResponse](c, q).Topics[0].Partitions[0].ErrorCode, protocol.None)
			for v := int16(0); v <= 3; v++ {
				var want []string
				first := int(start)
				if start == 4 {
					first = 3 // a wrapper is sent whole
				}
				for i := first; i < 5; i++ {
					want = append(want, fmt.Sprintf("%d:%s", i, value(i)))
				}
				p := c.oldFetch(v, topic, start)
				wantCode(t, fmt.Sprintf("v%d at %d", v, start), p.ErrorCode, protocol.None)
				wantTexts(t, fmt.Sprintf("v%d at %d", v, start), readMessages(t, fetchMagic(v), p.RecordBatches), want...)
				if start > 0 {
					wantCode(t, "deleted", c.oldFetch(v, topic, start-1).ErrorCode, protocol.OffsetOutOfRange)
				}
			}
		}
		d := kmsg.NewPtrDeleteTopicsRequest()
		d.Version, d.TopicNames = 1, []string{"orders"}
		wantCode(t, "delete topic", do[*kmsg.DeleteTopicsResponse](c, d).Topics[0].ErrorCode, protocol.None)
	}
}

// TestOldClientsComeAndGo: clients of old versions that send and leave without a word, while
// topics go and every limit is reached, leave nothing behind, and one that stays reads
// all that is acknowledged.
func TestOldClientsComeAndGo(t *testing.T) {
	s := newServer(t, func(o *options) {
		o.config.MaxFetchedBytes = 1
		o.config.MaxConvertedBytes = 200_000
		o.config.ConversionCacheBytes = 20_000
		o.store.TailCacheBytes = 50_000
	})
	kept, gone := s.createTopic("kept", 1, "max.message.bytes", "20000"), s.createTopic("gone", 1)
	s.dial().produce(kept, 0, "first")
	large := strings.Repeat("x", 9_000)
	var acked atomic.Int64
	acked.Add(1)
	var clients sync.WaitGroup
	for i := range 12 {
		clients.Go(func() {
			for round := range 6 {
				c := s.dial()
				version := int16((i + round) % 3)
				codec := oldCodecs[(i+round)%len(oldCodecs)]
				q := produceOne(version, kept, 0, sentSet(t, pick[int8](version < 2, 0, 1), codec, "a", large, large, large))
				switch round % 3 {
				case 0: // stays for the answer
					c.send(q)
					if r, err := c.receive(q); err != nil {
						t.Error(err)
					} else if r.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode == 0 {
						acked.Add(4)
					}
				case 1: // without acknowledgement, one of them refused
					q.Acks = 0
					c.send(q)
					bad := produceOne(version, kept, 0, []byte("a set that is none at all"))
					bad.Acks = 0
					c.send(bad)
				default:
					c.send(q)
				}
				for v := int16(0); v <= 3; v++ {
					f := fetchOne(v, kept, 0, 0)
					f.Topics = append(f.Topics, fetchTopic(gone, 0, 0))
					f.MaxWaitMillis, f.MinBytes = 1000, int32(1+i%2<<20)
					c.send(f)
				}
				if i == 0 && round == 3 {
					d := kmsg.NewPtrDeleteTopicsRequest()
					d.Version, d.TopicNames = 1, []string{"gone"}
					do[*kmsg.DeleteTopicsResponse](s.dial(), d)
				}
				_ = c.conn.Close()
			}
		})
	}
	clients.Wait()
	c := s.dial()
	for v := int16(0); v <= 3; v++ {
		read := int64(0)
		for {
			p := c.oldFetch(v, kept, read)
			wantCode(t, "fetch", p.ErrorCode, protocol.None)
			if len(p.RecordBatches) == 0 {
				if read != p.HighWatermark {
					t.Errorf("v%d: stopped at %d of %d", v, read, p.HighWatermark)
				}
				break
			}
			for _, m := range readMessages(t, fetchMagic(v), p.RecordBatches) {
				if m.offset >= read {
					read = m.offset + 1
				}
			}
		}
		if read < acked.Load() {
			t.Errorf("v%d: %d records of %d that were acknowledged", v, read, acked.Load())
		}
	}
}

// TestFetchOldSharedLimits: a partition that others have left no room for gets nothing. A part
// of a message tells these consumers that their own limit is too low, which they fail of.
func TestFetchOldSharedLimits(t *testing.T) {
	for v := int16(0); v <= 3; v++ {
		value := strings.Repeat("x", 500)
		size := len(encodeMessage(fetchMagic(v), oldMessage{value: []byte(value)}))
		t.Run(fmt.Sprintf("of an answer, v%d", v), func(t *testing.T) {
			fetchOldSharedLimits(t, v, value, size, func(o *options) { o.config.FetchMaxBytes = size + 5 })
		})
		t.Run(fmt.Sprintf("of all answers, v%d", v), func(t *testing.T) {
			fetchOldSharedLimits(t, v, value, size, func(o *options) { o.config.MaxFetchedBytes = int64(size + 5) })
		})
	}
}

// fetchOldSharedLimits: there is room for one message of the value, which takes size bytes.
func fetchOldSharedLimits(t *testing.T, version int16, value string, size int, limit func(o *options)) {
	s := newServer(t, limit)
	topic := s.createTopic("orders", 3)
	c := s.dial()
	c.produce(topic, 0, value)
	c.produce(topic, 1, value)
	c.produce(topic, 2, strings.Repeat(value, 4))
	q := fetchOne(version, topic, 0, 0)
	for p := range int32(2) {
		q.Topics[0].Partitions = append(q.Topics[0].Partitions, fetchTopic(topic, p+1, 0).Partitions...)
	}
	for i, p := range do[*kmsg.FetchResponse](c, q).Topics[0].Partitions {
		if want := pick(i == 0, size, 0); len(p.RecordBatches) != want || p.ErrorCode != 0 || p.HighWatermark != 1 {
			t.Errorf("partition %d has %d bytes, want %d", i, len(p.RecordBatches), want)
		}
	}
	// Alone it gets its message, which its own limit allows.
	q = fetchOne(version, topic, 2, 0)
	if set := do[*kmsg.FetchResponse](c, q).Topics[0].Partitions[0].RecordBatches; len(set) != size+3*len(value) {
		t.Errorf("alone it has %d bytes", len(set))
	}
}

// TestFetchOldWithoutRoom: where answers hold all that they may, each is cut down to a few
// messages, as far as messages are apart, and its consumer goes on.
func TestFetchOldWithoutRoom(t *testing.T) {
	s := newServer(t, func(o *options) { o.config.MaxFetchedBytes = 1 })
	topic := s.createTopic("orders", 1)
	c := s.dial()
	values := make([]string, 300)
	for i := range values {
		values[i] = fmt.Sprint(i, strings.Repeat("x", 1000))
	}
	c.put(topic, codedBatch(t, batch.None, time.Now().UnixMilli(), values...))
	c.put(topic, codedBatch(t, batch.None, time.Now().UnixMilli(), strings.Repeat("y", 3*leastRoomBytes)))
	for v := int16(0); v <= 3; v++ {
		next := int64(0)
		for next <= int64(len(values)) {
			set := c.oldFetch(v, topic, next).RecordBatches
			ms := readMessages(t, fetchMagic(v), set)
			if len(ms) == 0 || len(ms) > 1 && len(set) > leastRoomBytes || ms[0].offset != next {
				t.Fatalf("v%d at %d: %d messages in %d bytes", v, next, len(ms), len(set))
			}
			next = ms[len(ms)-1].offset + 1
		}
	}
}
