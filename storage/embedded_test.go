package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/embedded"
	"github.com/quirelog/quire/storage/meta/mem"
	"github.com/quirelog/quire/storage/vfs"
)

// TestEmbeddedCrashes runs idempotent producers over the embedded tier, cuts
// the power under load, and looks for what was acknowledged on what is left of the disk.
func TestEmbeddedCrashes(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { embeddedCrashes(t, seed) })
	}
}

func embeddedCrashes(t *testing.T, seed uint64) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(seed, 2))
	disk, facts := vfs.NewMem(), mem.New(nil)
	defer facts.Close()
	conf := plain()
	conf.SegmentBytes = 6 << 10

	const producers = 3
	var mu sync.Mutex
	acked := make(map[int64]string)
	next := make([]int32, producers)

	for generation := range 4 {
		tier, err := embedded.Open(embedded.Config{Dir: "data", FS: disk, MinFreeBytes: 1, CheckpointBytes: 16 << 10,
			JournalFileBytes: 128 << 10, CheckpointInterval: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		m := &faultyMeta{Store: facts}
		s, err := Open(ctx, StoreConfig{Tier: tier, Meta: m, Prefix: "quire/test/", TailCacheBytes: 8 << 10,
			SnapshotEveryBytes: 3 << 10, OrphanAge: time.Nanosecond})
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.OpenLog(ctx, testLog, conf)
		if err != nil {
			t.Fatal(err)
		}
		if l.Epoch() < int32(generation) {
			t.Fatalf("epoch %d in generation %d", l.Epoch(), generation)
		}
		start, _, hw := l.Offsets()
		all := values(t, l, start, ReadUncommitted)
		seen := make(map[string]bool)
		for at, v := range acked {
			if at >= hw || all[at-start] != v {
				t.Fatalf("generation %d: offset %d held %s; the log ends at %d", generation, at, v, hw)
			}
		}
		for _, v := range all {
			if seen[v] {
				t.Fatalf("generation %d: %s is there twice", generation, v)
			}
			seen[v] = true
		}

		// Each producer sends what it has no answer for again, then goes on.
		load, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for p := range producers {
			wg.Go(func() {
				for load.Err() == nil {
					v := fmt.Sprintf("p%d/%d", p, next[p])
					r := send(l, makeBatch(idempotent(int64(p), 0, next[p]), 1, 1, v)).wait(t)
					if r.Err != nil {
						if load.Err() == nil {
							t.Errorf("generation %d: %v", generation, r.Err)
						}
						return
					}
					mu.Lock()
					acked[r.BaseOffset] = v + "-0"
					next[p]++
					mu.Unlock()
				}
			})
		}
		target := hw + 20 + rng.Int64N(200)
		eventually(t, func() bool { _, _, hw := l.Offsets(); return hw >= target })

		// The metadata store stops first: what it knows the disk has.
		mu.Lock()
		promised := make(map[int64]string, len(acked))
		for at, v := range acked {
			promised[at] = v
		}
		resume := append([]int32(nil), next...)
		m.set(func(string, string) error { return errCut }, func(string) error { return errCut })
		left := disk.CrashClone(seed*31 + uint64(generation))
		mu.Unlock()
		stop()
		wg.Wait()
		dying, cancel := context.WithTimeout(ctx, time.Minute)
		_ = s.Close(dying)
		cancel()
		if err := tier.Close(); err != nil {
			t.Fatal(err)
		}
		disk, acked, next = left, promised, resume
	}
}
