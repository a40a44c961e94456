package storage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/bookkeeper"
	"github.com/quirelog/quire/storage/bookkeeper/bookietest"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	ledgers "github.com/quirelog/quire/storage/bookkeeper/metadata/mem"
	"github.com/quirelog/quire/storage/embedded"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/vfs"
)

// countingTier counts the ledgers that are recovered.
type countingTier struct {
	ledger.Tier
	recovered *atomic.Int32
}

func (t countingTier) Recover(ctx context.Context, id ledger.ID) (ledger.Reader, error) {
	t.recovered.Add(1)
	return t.Tier.Recover(ctx, id)
}

// embeddedTier is one in memory, for all nodes of a process.
func embeddedTier(t *testing.T) func(int) ledger.Tier {
	tier, err := embedded.Open(embedded.Config{Dir: "data", FS: vfs.NewMem(), MinFreeBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tier.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(int) ledger.Tier { return tier }
}

// bookKeeperTiers are on three bookies in this process: each node has one, which
// knows nothing of the others but what BookKeeper tells.
func bookKeeperTiers(t *testing.T) func(int) ledger.Tier {
	facts := ledgers.New("cluster")
	for range 3 {
		b, err := bookietest.Listen(bookietest.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		host, port, err := net.SplitHostPort(b.Address())
		if err != nil {
			t.Fatal(err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		facts.RegisterAddr(metadata.BookieID(b.Address()), host, number)
	}
	return func(int) ledger.Tier {
		tier, err := bookkeeper.Open(t.Context(), bookkeeper.Config{Store: facts, JanitorInterval: -1, AddTimeout: 20 * time.Second, ReadTimeout: 20 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := tier.Close(); err != nil {
				t.Error(err)
			}
		})
		return tier
	}
}

// caller produces to testLog as an idempotent client does that looks for the owner
// anew after an error: five batches in flight, and after an error all that were not
// acknowledged again, in order, when the fate of all is known.
type caller struct {
	c     *nodes
	conf  *LogConfig
	id    int64
	acked []int64 // offsets by sequence
	count atomic.Int64
	epoch int32 // largest seen
}

func (p *caller) log() *Log {
	for {
		if at := p.c.owner(testLog); at >= 0 {
			s := p.c.all[at].store
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			l, err := s.OpenLog(ctx, testLog, p.conf)
			cancel()
			if err == nil {
				if l.Epoch() < p.epoch {
					p.c.t.Errorf("epoch %d after %d", l.Epoch(), p.epoch)
				}
				p.epoch = l.Epoch()
				return l
			}
			if !errors.Is(err, ErrLostOwnership) {
				p.c.t.Error(err)
				return nil
			}
		}
		runtime.Gosched()
	}
}

// run goes on until stop says so and all that was sent is stored.
func (p *caller) run(stop *atomic.Bool) {
	for until := -1; until < 0 || len(p.acked) < until; {
		if until < 0 && stop.Load() {
			until = len(p.acked) + 5
		}
		l := p.log()
		if l == nil {
			return
		}
		var sent []*result
		for i := range 5 {
			seq := len(p.acked) + i
			sent = append(sent, send(l, makeBatch(idempotent(p.id, 0, int32(seq)), 1, 1, fmt.Sprintf("p%d-%d", p.id, seq))))
		}
		failed := false
		for _, r := range sent {
			r.wait(p.c.t)
			switch {
			case r.Err == nil && !failed:
				p.acked = append(p.acked, r.BaseOffset)
			case r.Err == nil:
				p.c.t.Errorf("a batch is stored behind one that is not")
			case !failed && !errors.Is(r.Err, ErrLostOwnership):
				p.c.t.Error(r.Err)
				return
			default:
				failed = true
			}
		}
		p.count.Store(int64(len(p.acked)))
	}
}

// TestMovesUnderLoad gives a log back and forth while two producers write to it: in
// order, by theft, and by either.
func TestMovesUnderLoad(t *testing.T) {
	tiers := []struct {
		name  string
		open  func(*testing.T) func(int) ledger.Tier
		moves int
	}{
		{"memory", func(t *testing.T) func(int) ledger.Tier {
			tier := newFakeTier()
			t.Cleanup(func() { tier.Close() })
			return func(int) ledger.Tier { return tier }
		}, 40},
		{"embedded", embeddedTier, 20},
		{"bookkeeper", bookKeeperTiers, 10},
	}
	ways := map[string]func(move int) bool{
		"release": func(int) bool { return true },
		"steal":   func(int) bool { return false },
		"either":  func(move int) bool { return move%3 == 0 },
	}
	for _, tier := range tiers {
		for way, releases := range ways {
			t.Run(tier.name+"/"+way, func(t *testing.T) { moveUnderLoad(t, tier.open(t), tier.moves, releases) })
		}
	}
}

func moveUnderLoad(t *testing.T, tier func(int) ledger.Tier, moves int, releases func(move int) bool) {
	var recovered atomic.Int32
	counting := func(i int) ledger.Tier { return countingTier{tier(i), &recovered} }
	c := newNodesOn(t, 3, counting, func(c *StoreConfig) { c.SnapshotEveryBytes = 2000; c.TailCacheBytes = 4 << 10 })
	conf := plain()
	conf.SegmentBytes = 4000
	callers := []*caller{{c: c, conf: conf, id: 1, epoch: -1}, {c: c, conf: conf, id: 2, epoch: -1}}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, p := range callers {
		wg.Go(func() { p.run(&stop) })
	}
	defer wg.Wait()
	defer stop.Store(true)
	last := make([]int32, len(c.all))
	stolen := 0
	for move := range moves {
		from, to := c.all[move%2], (move+1)%2
		// Each owner serves both for a while.
		for _, p := range callers {
			before := p.count.Load()
			eventually(t, func() bool { return t.Failed() || p.count.Load() > before+20 })
		}
		if t.Failed() {
			return
		}
		if releases(move) {
			c.assign(testLog, -1)
			from.release()
			if from.store.Log(testLog) != nil {
				t.Fatal("a released log is open")
			}
			if stolen == 0 {
				c.wantSealed()
			}
			if _, err := from.store.OpenLog(t.Context(), testLog, conf); !errors.Is(err, ErrLostOwnership) {
				t.Fatalf("a log that is not served here: %v", err)
			}
		} else {
			stolen++
		}
		for j, n := range c.all {
			e := n.store.Epoch(testLog)
			if e < last[j] {
				t.Fatalf("node %d announces epoch %d after %d", j, e, last[j])
			}
			last[j] = e
		}
		// Who is to have it again has heard by then that it had lost it.
		c.all[to].store.DropSlot(testSlot)
		c.assign(testLog, to)
	}
	stop.Store(true)
	wg.Wait()
	if n := recovered.Load(); stolen == 0 && n != 0 {
		t.Errorf("%d ledgers were recovered although all were released", n)
	} else if stolen > 0 && n == 0 {
		t.Error("nothing was stolen")
	}
	at := c.owner(testLog)
	l := c.all[at].open(conf)
	all := values(t, l, 0, ReadUncommitted)
	acked := 0
	for _, p := range callers {
		acked += len(p.acked)
		for seq, offset := range p.acked {
			if want := fmt.Sprintf("p%d-%d-0", p.id, seq); offset >= int64(len(all)) || all[offset] != want {
				t.Fatalf("offset %d of %d does not hold %s, which was acknowledged", offset, len(all), want)
			}
			if seq > 0 && p.acked[seq-1] >= offset {
				t.Fatalf("producer %d: offset %d after %d", p.id, offset, p.acked[seq-1])
			}
		}
	}
	for j, n := range c.all {
		eventually(t, func() bool { return n.store.Epoch(testLog) == l.Epoch() })
		if j != at {
			eventually(t, func() bool { return n.store.Log(testLog) == nil })
		}
	}
	// What is stored and was not acknowledged at first was sent again, and is there once.
	if !t.Failed() && len(all) != acked {
		seen := make(map[string]int)
		for offset, v := range all {
			if first, ok := seen[v]; ok {
				t.Errorf("%s is stored at %d and %d", v, first, offset)
			}
			seen[v] = offset
		}
		t.Errorf("%d records, %d were acknowledged", len(all), acked)
	}
}
