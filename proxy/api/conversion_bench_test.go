package api

import (
	"encoding/binary"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol/batch"
)

// benchValues are so many values of 100 bytes, which compress about as text does.
func benchValues(n int) []string {
	out := make([]string, n)
	for i := range out {
		b := make([]byte, 100)
		for j := range b {
			b[j] = "abcdefghijklmnop"[(i*7+j*j+i*j)%16]
		}
		out[i] = string(b)
	}
	return out
}

// BenchmarkProduceSets sends sets of 16 KB through a whole server, some at a time
// as producers do.
func BenchmarkProduceSets(b *testing.B) {
	for _, codec := range oldCodecs {
		b.Run(codec.String(), func(b *testing.B) {
			s := newServer(b, func(o *options) { o.store.TailCacheBytes = 1 << 20 })
			topic := s.createTopic("orders", 1)
			c := s.dial()
			c.produce(topic, 0, "opens the log")
			s.tier.set(func() { s.tier.forgets = true })
			values := benchValues(130)
			frame := kmsg.NewRequestFormatter().AppendRequest(nil, produceOne(2, topic, 0, sentSet(b, 1, codec, values...)), 1)
			b.SetBytes(int64(len(messageSet(1, 0, values...))))
			b.ReportAllocs()
			const inFlight = 5
			slots := make(chan struct{}, inFlight)
			var done sync.WaitGroup
			done.Go(func() {
				for range slots {
					readFrame(b, c)
				}
			})
			check(b, c.conn.SetDeadline(time.Time{}))
			for b.Loop() {
				slots <- struct{}{}
				if _, err := c.conn.Write(frame); err != nil {
					b.Fatal(err)
				}
			}
			close(slots)
			done.Wait()
		})
	}
}

func readFrame(b *testing.B, c *client) (bytes int) {
	var size [4]byte
	if _, err := io.ReadFull(c.conn, size[:]); err != nil {
		b.Error(err)
		return 0
	}
	n := int64(binary.BigEndian.Uint32(size[:]))
	if _, err := io.CopyN(io.Discard, c.conn, n); err != nil {
		b.Error(err)
	}
	return int(n)
}

// BenchmarkOldConsumers has so many consumers read the same megabytes in magic 1; bytes
// are those of one of them. What the first one pays for conversion the others share.
func BenchmarkOldConsumers(b *testing.B) {
	for _, consumers := range []int{1, 100} {
		for _, codec := range oldCodecs {
			b.Run(codec.String()+"/"+map[int]string{1: "1", 100: "100"}[consumers], func(b *testing.B) {
				s := newServer(b)
				topic := s.createTopic("orders", 1)
				c := s.dial()
				const batches = 60
				for range batches {
					c.put(topic, codedBatch(b, codec, 1, benchValues(150)...))
				}
				b.SetBytes(batches * 150 * 100)
				for b.Loop() {
					s.handler.cache.clear()
					var done sync.WaitGroup
					for range consumers {
						q := fetchOne(2, topic, 0, 0)
						q.Topics[0].Partitions[0].PartitionMaxBytes = 64 << 20
						reader := s.dial()
						done.Go(func() {
							reader.send(q)
							readFrame(b, reader)
							reader.conn.Close()
						})
					}
					done.Wait()
				}
				b.ReportMetric(counted(b, s.handler.cache.misses)/float64(b.N), "conversions/op")
			})
		}
	}
}

// BenchmarkDownConversion is what one batch of 150 records costs.
func BenchmarkDownConversion(b *testing.B) {
	for _, codec := range oldCodecs {
		b.Run(codec.String(), func(b *testing.B) {
			records := batch.Batch(codedBatch(b, codec, 1, benchValues(150)...))
			b.SetBytes(150 * 100)
			b.ReportAllocs()
			for b.Loop() {
				set, err := convertDown(records, 1, inflateLimit(len(records)))
				if err != nil {
					b.Fatal(err)
				}
				set.Release()
			}
		})
	}
}
