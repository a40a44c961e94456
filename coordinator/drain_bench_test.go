package coordinator_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/offsets"
	"github.com/quirelog/quire/storage/meta/etcd"
)

// BenchmarkDrain drains a node that owns all slots into another on an embedded
// etcd. stall-ms is the longest time for which nobody could say what a group has
// committed, for one group of each slot.
func BenchmarkDrain(b *testing.B) {
	s, err := etcd.OpenEmbedded(b.Context(), etcd.EmbeddedConfig{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var nodes [2]*coordinator.Coordinator
	for i := range nodes {
		nodes[i], err = coordinator.Open(b.Context(), coordinator.Config{Meta: s, Prefix: "quire/test/", NodeName: fmt.Sprint("n", i), Node: coordinator.Node{ID: -1}, BalanceDelay: time.Hour})
		if err != nil {
			b.Fatal(err)
		}
		defer nodes[i].Close()
	}
	ask := func(id string) bool {
		for _, c := range nodes {
			if !c.Route(coordinator.SlotOf(id)).Here {
				continue
			}
			done := make(chan error, 1)
			c.Groups().Fetch(id, &nobody, func(committed coordinator.Committed, err error) {
				committed.Get(offsets.Partition{})
				done <- err
			})
			return <-done == nil
		}
		return false
	}
	var ids []string
	slots := make(map[int]bool)
	for i := 0; len(ids) < coordinator.NumSlots; i++ {
		id := fmt.Sprint("g", i)
		if slot := coordinator.SlotOf(id); !slots[slot] {
			slots[slot] = true
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		for !ask(id) {
			time.Sleep(time.Millisecond)
		}
	}
	var longest time.Duration
	for b.Loop() {
		from := nodes[0]
		if !from.Route(0).Here {
			from = nodes[1]
		}
		done := make(chan struct{})
		var asking sync.WaitGroup
		var mu sync.Mutex
		for part := range 8 {
			asking.Go(func() {
				last := make(map[string]time.Time)
				for {
					for i := part; i < len(ids); i += 8 {
						asked := time.Now()
						if ask(ids[i]) {
							last[ids[i]] = asked
						} else if before, ok := last[ids[i]]; ok {
							mu.Lock()
							longest = max(longest, asked.Sub(before))
							mu.Unlock()
						}
					}
					select {
					case <-done:
						return
					case <-time.After(5 * time.Millisecond):
					}
				}
			})
		}
		time.Sleep(50 * time.Millisecond) // so that those who ask are at it when the drain begins
		if err := from.Drain(b.Context()); err != nil {
			b.Fatal(err)
		}
		for _, id := range ids {
			for !ask(id) {
				time.Sleep(time.Millisecond)
			}
		}
		close(done)
		asking.Wait()
		if err := from.SetDraining(b.Context(), from.Self().ID, false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(longest.Milliseconds()), "stall-ms")
}
