package offsets

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
	"github.com/quirelog/quire/storage/meta/mem"
)

const (
	benchGroups = 5_000
	benchSlots  = 1_024
)

// loadBench makes committers and has them share the slots.
func loadBench(b *testing.B, store meta.Store, committers int, prefix string) []*Slot {
	b.Helper()
	cs := make([]*Committer, committers)
	for i := range cs {
		cs[i] = NewCommitter(Config{Store: store, Keys: Keys{Prefix: prefix}, Name: strconv.Itoa(i), CommitTimeout: time.Minute})
		b.Cleanup(func() { cs[i].Close(context.Background()) })
	}
	slots := make([]*Slot, benchSlots)
	for first := 0; first < benchSlots; first += meta.MaxTxnOps {
		var ops []meta.Op
		for slot := first; slot < first+meta.MaxTxnOps; slot++ {
			ops = append(ops, meta.Put(fmt.Sprintf("%sown/%04d", prefix, slot), []byte("somebody")))
		}
		revision, _, err := store.Txn(b.Context(), nil, ops)
		if err != nil {
			b.Fatal(err)
		}
		for i, op := range ops {
			slots[first+i], err = cs[(first+i)%committers].Load(b.Context(), first+i, meta.Cond{Key: op.Key, Modified: revision}, func(string, []byte) error { return nil })
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	return slots
}

// benchGroup is a group that commits one of ten partitions after the other.
type benchGroup struct {
	slot   *Slot
	name   string
	topic  TopicID
	offset int64
}

func benchCommitters(b *testing.B, slots []*Slot) []benchGroup {
	b.Helper()
	groups := make([]benchGroup, benchGroups)
	var wg sync.WaitGroup
	for i := range groups {
		g := &groups[i]
		g.name, g.slot, g.topic = fmt.Sprintf("consumer-group-%05d", i), slots[i*7919%benchSlots], TopicID{byte(i), byte(i >> 8)}
		wg.Add(2)
		all := make([]Update, 10)
		for p := range all {
			all[p] = set(g.topic, int32(p), 0)
		}
		done := func(err error) {
			if err != nil {
				b.Error(err)
			}
			wg.Done()
		}
		if err := g.slot.PutRecord(g.name, make([]byte, 400), done); err != nil {
			b.Fatal(err)
		}
		if err := g.slot.Commit(g.name, all, done); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	return groups
}

func (g *benchGroup) next() []Update {
	g.offset++
	u := set(g.topic, int32(g.offset%10), g.offset)
	u.CommitTime = 1_800_000_000_000 + g.offset
	return []Update{u}
}

func report(b *testing.B, latencies []time.Duration, elapsed time.Duration) {
	slices.Sort(latencies)
	at := func(q float64) float64 {
		return float64(latencies[min(int(q*float64(len(latencies))), len(latencies)-1)].Microseconds()) / 1000
	}
	b.ReportMetric(float64(len(latencies))/elapsed.Seconds(), "commits/s")
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(at(1), "max-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkEtcd commits for 5,000 groups over an embedded etcd, open loop: at a
// fixed rate, whatever is answered. Run it with -benchtime=200000x.
func BenchmarkEtcd(b *testing.B) {
	for _, committers := range []int{1, 2, 4, 8} {
		for _, rate := range []int{20_000, 40_000} {
			b.Run(fmt.Sprintf("committers=%d/rate=%d", committers, rate), func(b *testing.B) {
				store, err := etcd.OpenEmbedded(b.Context(), etcd.EmbeddedConfig{Dir: b.TempDir()})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { store.Close() })
				groups := benchCommitters(b, loadBench(b, store, committers, prefix))
				latencies := make([]time.Duration, b.N)
				var wg sync.WaitGroup
				b.ReportAllocs()
				b.ResetTimer()
				start := time.Now()
				wg.Add(b.N)
				for i := range b.N {
					// The time at which it should begin counts. The load is open loop:
					// what is waited for is the time itself.
					due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
					if wait := time.Until(due); wait > 500*time.Microsecond {
						time.Sleep(wait)
					}
					g := &groups[i*4999%benchGroups]
					if err := g.slot.Commit(g.name, g.next(), func(err error) {
						latencies[i] = time.Since(due)
						if err != nil {
							b.Error(err)
						}
						wg.Done()
					}); err != nil {
						b.Fatal(err)
					}
				}
				wg.Wait()
				report(b, latencies, time.Since(start))
			})
		}
	}
}

// BenchmarkEtcdClosed has 5,000 groups that commit again as soon as they are answered.
func BenchmarkEtcdClosed(b *testing.B) {
	for _, committers := range []int{1, 4} {
		b.Run(fmt.Sprintf("committers=%d", committers), func(b *testing.B) {
			store, err := etcd.OpenEmbedded(b.Context(), etcd.EmbeddedConfig{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { store.Close() })
			closedLoop(b, benchCommitters(b, loadBench(b, store, committers, prefix)))
		})
	}
}

// BenchmarkCommitter is the same over a store in memory: what a commit costs here.
func BenchmarkCommitter(b *testing.B) {
	store := mem.New(nil)
	b.Cleanup(func() { store.Close() })
	closedLoop(b, benchCommitters(b, loadBench(b, store, 1, prefix)))
}

func closedLoop(b *testing.B, groups []benchGroup) {
	latencies := make([]time.Duration, b.N)
	var begun, ended atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	wg.Add(min(b.N, len(groups)))
	for i := range min(b.N, len(groups)) {
		g := &groups[i]
		var since time.Time
		var done func(error)
		again := func() {
			if begun.Add(1) > int64(b.N) {
				wg.Done()
				return
			}
			since = time.Now()
			if err := g.slot.Commit(g.name, g.next(), done); err != nil {
				b.Error(err)
				wg.Done()
			}
		}
		done = func(err error) {
			latencies[ended.Add(1)-1] = time.Since(since)
			if err != nil {
				b.Error(err)
			}
			again()
		}
		again()
	}
	wg.Wait()
	report(b, latencies, time.Since(start))
}

// BenchmarkLoad loads slots of 10,000 keys, and says what a key takes in memory:
// groups of ten topics with ten partitions each.
func BenchmarkLoad(b *testing.B) {
	const groups, topics = 1_000, 10
	store := mem.New(nil)
	b.Cleanup(func() { store.Close() })
	keys := Keys{Prefix: prefix}
	all := map[int]Offset{}
	for at := range 10 {
		all[at] = Offset{Offset: 1_000_000 + int64(at), CommitTime: 1_800_000_000_000, ExpireTime: NoExpireTime, LeaderEpoch: 3}
	}
	value := encodeChunk(all)
	for g := range groups {
		name := fmt.Sprintf("consumer-group-%05d", g)
		var ops []meta.Op
		for t := range topics {
			topic := TopicID{byte(t), byte(g), byte(g >> 8)}
			ops = append(ops, meta.Put(string(appendChunk([]byte(keys.GroupOffsets(0, name)), &topic, 0)), value))
		}
		if _, _, err := store.Txn(b.Context(), nil, ops); err != nil {
			b.Fatal(err)
		}
	}
	c := NewCommitter(Config{Store: store, Keys: keys, Name: "0"})
	b.Cleanup(func() { c.Close(context.Background()) })
	owner := claim(b, store, 0)
	slots := make([]*Slot, 0, b.N)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		s, err := c.Load(b.Context(), 0, owner, func(string, []byte) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		slots = append(slots, s)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	// The values are the store's here; etcd makes them for the reader.
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(slots)*groups*topics)+float64(len(value)), "B/key")
}
