package coordinator_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/offsets"
)

var (
	seeds    = flag.Int("slots.seeds", histories, "histories of TestSlotsProperty")
	lastSeed = flag.Uint64("slots.seed", 0, "the only history of TestSlotsProperty, if it is not 0")
)

// TestSlotsProperty lets nodes start, die, drain, be cut off from the metadata
// store, be told to move slots and lose the answers of their transactions, which
// may arrive late. Whatever happens
//
//   - no two nodes answer for a slot from memory at a time (cluster.check),
//   - a commit that was acknowledged is in every answer that is asked for later,
//     of whichever node, and no answer is of an offset that nobody has committed,
//   - once all is well again every slot has one owner that everybody knows.
func TestSlotsProperty(t *testing.T) {
	for i := range *seeds {
		seed := uint64(i + 1)
		if *lastSeed != 0 {
			seed = *lastSeed
		}
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) { newHistory(t, c, seed).run() })
		})
		if *lastSeed != 0 {
			break
		}
	}
}

// history is one random run.
type history struct {
	*testing.T
	c     *cluster
	r     *rand.Rand
	names []string
	topic offsets.Partition
	// acked is the last offset of a group that was acknowledged, tried the last
	// that was sent.
	acked, tried map[string]int64
	steps        []string
}

func newHistory(t *testing.T, c *cluster, seed uint64) *history {
	h := &history{T: t, c: c, r: rand.New(rand.NewPCG(seed, 7)), acked: make(map[string]int64), tried: make(map[string]int64)}
	for i := range 3 + h.r.IntN(3) {
		h.names = append(h.names, fmt.Sprint("n", i))
	}
	return h
}

func (h *history) note(format string, args ...any) {
	h.steps = append(h.steps, fmt.Sprintf("%7.2f ", time.Since(h.c.began).Seconds())+fmt.Sprintf(format, args...))
}

func (h *history) start(name string) *member {
	h.note("start %s", name)
	m := h.c.start(name, func(c *coordinator.Config) {
		c.LeaseTTL = 3 * time.Second
		c.Groups.CommitTimeout = time.Second
	})
	if h.r.IntN(2) == 0 {
		m.link.setFate(randomly(rand.New(rand.NewPCG(h.r.Uint64(), 1)), 0.1, 2*time.Second))
	}
	return m
}

func (h *history) run() {
	defer func() {
		if h.Failed() {
			for _, s := range h.steps {
				h.Log(s)
			}
		}
	}()
	first := h.start(h.names[0])
	made := create(h.T, first.Coordinator, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})
	h.topic = partition(made[0], 0)
	for range 60 {
		h.step()
		if h.Failed() {
			return
		}
		for range 3 {
			h.ask()
		}
		if h.r.IntN(3) == 0 {
			time.Sleep(time.Duration(h.r.Int64N(int64(4 * time.Second))))
		}
	}
	h.note("all is well again")
	for _, m := range h.c.live {
		m.link.setFate(nil)
		m.link.heal()
	}
	all := values(h.c.live)
	eventually(h.T, "every slot has one owner", func() bool { return h.c.served(all...) })
	time.Sleep(30 * time.Second)
	if !h.c.served(all...) {
		h.Error("not every slot has one owner")
	}
	for id := range h.tried {
		h.fetch(serving(id, all...), id)
	}
	for _, m := range all {
		if m.logs.early.Load() > 0 {
			h.Errorf("%s was told %d times to release what its route said it serves", m.name, m.logs.early.Load())
		}
	}
}

// step does something to a node.
func (h *history) step() {
	name := h.names[h.r.IntN(len(h.names))]
	m := h.c.live[name]
	if m == nil {
		h.start(name)
		return
	}
	switch h.r.IntN(8) {
	case 0:
		h.note("kill %s", name)
		h.c.kill(m)
	case 1:
		h.note("close %s", name)
		m.link.setFate(nil)
		m.link.heal()
		m.Close()
		h.c.kill(m)
	case 2, 3:
		h.note("cut %s", name)
		m.link.cut()
	case 4, 5:
		h.note("heal %s", name)
		m.link.heal()
	case 6:
		other := values(h.c.live)[h.r.IntN(len(h.c.live))]
		draining := h.r.IntN(2) == 0
		h.note("%s drains %s: %v", other.name, name, draining)
		ctx, cancel := timeout(h.T, time.Second)
		defer cancel()
		other.SetDraining(ctx, m.Self().ID, draining)
	case 7:
		slot := coordinator.SlotOf(h.group())
		h.note("slot %d to %s", slot, name)
		ctx, cancel := timeout(h.T, time.Second)
		defer cancel()
		m.Override(ctx, slot, m.Self().ID)
	}
}

func (h *history) group() string { return fmt.Sprint("group ", h.r.IntN(6)) }

// ask commits to a group, or asks what it has committed, at any node.
func (h *history) ask() {
	all := values(h.c.live)
	if len(all) == 0 {
		return
	}
	m, id := all[h.r.IntN(len(all))], h.group()
	if s := serving(id, all...); s != nil && h.r.IntN(2) == 0 {
		m = s
	}
	if h.r.IntN(2) == 0 {
		h.fetch(m, id)
		return
	}
	h.tried[id]++
	n := h.tried[id]
	err := commit(h.T, m.Coordinator, id, nobody, h.topic, n)
	h.note("commit %d of %s at %s: %v", n, id, m.name, err)
	switch {
	case err == nil:
		h.acked[id] = n
	case !errors.Is(err, offsets.ErrUnknownOutcome) && !errors.Is(err, offsets.ErrNotOwner):
		// It was refused, and is not stored.
	}
}

func (h *history) fetch(m *member, id string) {
	if m == nil {
		return
	}
	floor := h.acked[id]
	o, err := fetch(h.T, m.Coordinator, id, h.topic)
	h.note("fetch of %s at %s: %d, %v", id, m.name, o, err)
	if err == nil && (max(o, 0) < floor || o > h.tried[id]) {
		h.Errorf("%s says that %s has committed %d; %d was acknowledged, %d sent", m.name, id, o, floor, h.tried[id])
	}
}
