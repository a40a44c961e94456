package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/bookkeeper"
	"github.com/quirelog/quire/storage/bookkeeper/bookietest"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	bookiemem "github.com/quirelog/quire/storage/bookkeeper/metadata/mem"
	"github.com/quirelog/quire/storage/meta/mem"
)

// TestBookKeeperCrashes runs idempotent producers over bookies that die, stall and refuse,
// and metadata stores that do not answer or lose answers, while one owner of the log after
// another is killed or deposed: what was acknowledged is there at its offset, nothing is
// there twice, and nothing in the middle is missing.
func TestBookKeeperCrashes(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel() // they wait for the time of bookies that stand still
			bookKeeperCrashes(t, seed)
		})
	}
}

const (
	crashBookies   = 4
	crashProducers = 4
	crashOwners    = 4
	crashSteps     = 6 // of an owner
	// crashHaste is how much faster than others the clocks of owners go: they forget
	// sooner who has failed.
	crashHaste = 20
)

// bookieWorld is a cluster of bookies and what its producers were told.
type bookieWorld struct {
	t       *testing.T
	rng     *rand.Rand
	bookies []*bookietest.Bookie
	ledgers *bookiemem.Store
	facts   *mem.Store
	began   time.Time
	owner   atomic.Pointer[logOwner]

	mu    sync.Mutex
	acked map[int64]string
	count int
}

// logOwner is a node.
type logOwner struct {
	tier    *bookkeeper.Tier
	store   *Store
	facts   *faultyMeta
	ledgers *severed
	killed  chan struct{} // who waits for its answers waits in vain
}

// severed are the ledgers' metadata as one node reaches them.
type severed struct {
	metadata.Store
	cut atomic.Bool
}

func (s *severed) fail() error {
	if s.cut.Load() {
		return fmt.Errorf("%w: %w", metadata.ErrUnavailable, errCut)
	}
	return nil
}

func (s *severed) Create(ctx context.Context, l *metadata.Ledger) (metadata.Version, error) {
	if err := s.fail(); err != nil {
		return 0, err
	}
	return s.Store.Create(ctx, l)
}

func (s *severed) Update(ctx context.Context, l *metadata.Ledger, v metadata.Version) (metadata.Version, error) {
	if err := s.fail(); err != nil {
		return 0, err
	}
	return s.Store.Update(ctx, l, v)
}

func (s *severed) Delete(ctx context.Context, id int64, v metadata.Version) error {
	if err := s.fail(); err != nil {
		return err
	}
	return s.Store.Delete(ctx, id, v)
}

func (w *bookieWorld) now() time.Time { return w.began.Add(crashHaste * time.Since(w.began)) }

// await waits until f says yes.
func (w *bookieWorld) await(what string, f func() bool) {
	w.t.Helper()
	limit, stop := context.WithTimeout(w.t.Context(), time.Minute)
	defer stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-limit.Done():
			w.t.Fatalf("%s: never", what)
		}
	}
}

// open starts a node.
func (w *bookieWorld) open() *logOwner {
	w.t.Helper()
	o := &logOwner{facts: &faultyMeta{Store: w.facts}, ledgers: &severed{Store: w.ledgers}, killed: make(chan struct{})}
	var err error
	o.tier, err = bookkeeper.Open(w.t.Context(), bookkeeper.Config{
		Store: o.ledgers, Now: w.now, AddTimeout: 300 * time.Millisecond, ReadTimeout: 300 * time.Millisecond,
		StallAfter: 50 * time.Millisecond, MinSpeculative: 5 * time.Millisecond, CloseTimeout: 50 * time.Millisecond,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	o.store, err = Open(w.t.Context(), StoreConfig{
		Tier: o.tier, Meta: o.facts, Prefix: "quire/test/", TailCacheBytes: 8 << 10, SnapshotEveryBytes: 3 << 10, Now: w.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// close ends a node that nobody needs any more.
func (o *logOwner) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = o.store.Close(ctx) // it may be cut off from what it would write
	return o.tier.Close()
}

// produce sends what has no answer again, then goes on, until ctx ends.
func (w *bookieWorld) produce(ctx context.Context, id int64, conf *LogConfig) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for next := int32(0); ctx.Err() == nil; {
		o := w.owner.Load()
		opening, cancel := context.WithTimeout(ctx, 5*time.Second)
		l, err := o.store.OpenLog(opening, testLog, conf)
		cancel()
		if err == nil {
			v := fmt.Sprintf("p%d/%d", id, next)
			r := send(l, makeBatch(idempotent(id, 0, next), 1, 1, v))
			select {
			case <-r.done:
				err = r.Err
			case <-o.killed:
				continue
			case <-ctx.Done():
				return
			}
			if err == nil {
				w.mu.Lock()
				if old, ok := w.acked[r.BaseOffset]; ok {
					w.t.Errorf("offset %d was given to %s and to %s", r.BaseOffset, old, v)
				}
				w.acked[r.BaseOffset] = v + "-0"
				w.count++
				w.mu.Unlock()
				next++
				continue
			}
		}
		if errors.Is(err, ErrOutOfSequence) {
			w.t.Errorf("producer %d: %v", id, err)
			return
		}
		select { // as clients do before they try again
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// progress waits until n more records are acknowledged.
func (w *bookieWorld) progress(n int) {
	w.t.Helper()
	acked := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.count
	}
	until := acked() + n
	w.await("records are acknowledged", func() bool { return acked() >= until })
}

// harm does one thing, waits for what must go on, and undoes it.
func (w *bookieWorld) harm() {
	w.t.Helper()
	few := 5 + w.rng.IntN(40)
	one := w.bookies[w.rng.IntN(len(w.bookies))]
	restart := func(b *bookietest.Bookie) {
		if err := b.Restart(); err != nil {
			w.t.Fatal(err)
		}
	}
	switch w.rng.IntN(9) {
	case 0: // kill -9
		one.Crash()
		w.progress(few)
		restart(one)
	case 1: // SIGSTOP
		one.Pause()
		w.progress(few)
		one.Resume()
	case 2: // a full disk
		one.SetReadOnly(true)
		w.progress(few)
		one.SetReadOnly(false)
	case 3: // a disk that stands still, and loses what it did not sync
		one.HoldSync()
		w.progress(few)
		one.Crash()
		one.ReleaseSync()
		restart(one)
	case 4: // a power cut
		for _, b := range w.bookies {
			b.Crash()
		}
		for _, b := range w.bookies {
			restart(b)
		}
	case 5: // answers are lost
		remove := one.Inject(bookietest.Fault{Times: few, DropReply: true})
		w.progress(few)
		remove()
	case 6: // the metadata store is away
		w.ledgers.SetFaults(bookiemem.Faults{Before: func(context.Context, bookiemem.Op, int64) error { return metadata.ErrUnavailable }})
		one.Crash()
		w.ledgers.SetFaults(bookiemem.Faults{})
		w.progress(few)
		restart(one)
	case 7: // it loses answers
		left := atomic.Int32{}
		left.Store(int32(few))
		w.ledgers.SetFaults(bookiemem.Faults{After: func(_ context.Context, op bookiemem.Op, _ int64) error {
			if (op == bookiemem.Update || op == bookiemem.Create) && left.Add(-1)%2 == 0 && left.Load() > 0 {
				return metadata.ErrUnknownOutcome
			}
			return nil
		}})
		one.Pause()
		w.progress(few)
		one.Resume()
		w.ledgers.SetFaults(bookiemem.Faults{})
	case 8: // two of four at once
		other := w.bookies[w.rng.IntN(len(w.bookies))]
		one.Crash()
		other.Pause()
		// Whoever has to recover a ledger of three meanwhile may have to wait for them.
		other.Resume()
		restart(one)
	}
	w.progress(few)
}

// check reads the whole log and compares it with what producers were told before.
func (w *bookieWorld) check(conf *LogConfig) {
	w.t.Helper()
	w.mu.Lock()
	promised := make(map[int64]string, len(w.acked))
	for at, v := range w.acked {
		promised[at] = v
	}
	w.mu.Unlock()
	var all []string
	w.await("the log can be read", func() bool {
		l, err := w.owner.Load().store.OpenLog(w.t.Context(), testLog, conf)
		if err == nil {
			all, err = tryValues(w.t, l, 0, ReadUncommitted)
		}
		return err == nil
	})
	for at, v := range promised {
		if at >= int64(len(all)) || all[at] != v {
			w.t.Fatalf("offset %d held %s; the log ends at %d", at, v, len(all))
		}
	}
	next := make(map[string]int)
	for at, v := range all {
		producer, sequence, _ := strings.Cut(v, "/")
		n, err := strconv.Atoi(strings.TrimSuffix(sequence, "-0"))
		if err != nil || n != next[producer] {
			w.t.Fatalf("offset %d holds %s, want record %d of its producer", at, v, next[producer])
		}
		next[producer]++
	}
}

func bookKeeperCrashes(t *testing.T, seed uint64) {
	w := &bookieWorld{
		t: t, rng: rand.New(rand.NewPCG(seed, 3)), ledgers: bookiemem.New("cluster"), facts: mem.New(nil),
		began: time.Now(), acked: make(map[int64]string),
	}
	defer w.facts.Close()
	for range crashBookies {
		b, err := bookietest.Listen(bookietest.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		host, port, _ := net.SplitHostPort(b.Address())
		n, _ := strconv.Atoi(port)
		w.ledgers.RegisterAddr(metadata.BookieID(b.Address()), host, n)
		w.bookies = append(w.bookies, b)
	}
	conf := plain()
	conf.SegmentBytes = 6 << 10

	load, stop := context.WithCancel(t.Context())
	var producers sync.WaitGroup
	var owners []*logOwner
	defer func() {
		stop()
		producers.Wait()
		for _, o := range owners {
			if err := o.close(); err != nil {
				t.Error(err)
			}
		}
	}()
	for generation := range crashOwners {
		o := w.open()
		owners = append(owners, o)
		if generation > 0 && w.rng.IntN(2) == 0 {
			// The one before is killed: it writes no more metadata, and what it has
			// on its way to bookies may arrive. Else it lives on and is deposed.
			before := owners[generation-1]
			before.ledgers.cut.Store(true)
			before.facts.set(func(string, string) error { return errCut }, func(string) error { return errCut })
			w.owner.Store(o)
			close(before.killed)
		}
		w.owner.Store(o)
		if generation == 0 {
			for id := range int64(crashProducers) {
				producers.Go(func() { w.produce(load, id, conf) })
			}
		}
		for range crashSteps {
			w.harm()
		}
		w.check(conf)
	}
}
