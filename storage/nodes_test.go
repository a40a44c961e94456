package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/mem"
)

// nodes are several Stores on one tier and one metadata store.
type nodes struct {
	t     testing.TB
	tier  *fakeTier // nil if the ledgers are on another
	facts *mem.Store
	clock atomic.Int64 // ms
	all   []*node

	mu     sync.Mutex
	owners map[LogID]int // -1: nobody; node 0 serves what is not in it
}

type node struct {
	of    *nodes
	tier  ledger.Tier
	meta  *faultyMeta
	store *Store
}

func newNodes(t testing.TB, n int, change ...func(*StoreConfig)) *nodes {
	tier := newFakeTier()
	t.Cleanup(func() { tier.Close() })
	c := newNodesOn(t, n, func(int) ledger.Tier { return tier }, change...)
	c.tier = tier
	return c
}

// newNodesOn makes nodes of which each has its tier.
func newNodesOn(t testing.TB, n int, tier func(node int) ledger.Tier, change ...func(*StoreConfig)) *nodes {
	c := &nodes{t: t, facts: mem.New(nil), owners: make(map[LogID]int)}
	c.clock.Store(1_700_000_000_000)
	for i := range n {
		m := &faultyMeta{Store: c.facts}
		conf := StoreConfig{
			Tier: tier(i), Meta: m, Prefix: "quire/test/", IdleCloseAfter: time.Hour,
			Serves:      func(id LogID) bool { return c.owner(id) == i },
			Slot:        topicSlot,
			Housekeeper: func() bool { return false },
			Now:         func() time.Time { return time.UnixMilli(c.clock.Load()) },
		}
		topicKeys(&conf)
		for _, f := range change {
			f(&conf)
		}
		s, err := Open(context.Background(), conf)
		if err != nil {
			t.Fatal(err)
		}
		c.all = append(c.all, &node{of: c, tier: conf.Tier, meta: m, store: s})
	}
	c.createTopic(testLog.Topic)
	t.Cleanup(func() {
		if c.tier != nil {
			c.tier.setFault(nil)
			c.tier.hold(false)
		}
		for _, n := range c.all {
			n.meta.set(nil, nil)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			_ = n.store.Close(ctx)
			cancel()
		}
		c.facts.Close()
	})
	return c
}

func (c *nodes) createTopic(topic [16]byte) {
	c.t.Helper()
	if _, _, err := c.facts.Txn(context.Background(), nil, []meta.Op{meta.Put(c.all[0].store.c.TopicKey(topic), []byte("t"))}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *nodes) deleteTopic(topic [16]byte) {
	c.t.Helper()
	if _, _, err := c.facts.Txn(context.Background(), nil, []meta.Op{meta.Delete(c.all[0].store.c.TopicKey(topic))}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *nodes) owner(id LogID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owners[id]
}

func (c *nodes) assign(id LogID, node int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owners[id] = node
}

// topicSlot is the slot of a log in tests: one for each of their topics.
func topicSlot(id LogID) int { return int(id.Topic[15]) }

var testSlot = topicSlot(testLog)

func (n *node) open(conf *LogConfig) *Log {
	n.of.t.Helper()
	l, err := n.store.OpenLog(context.Background(), testLog, conf)
	if err != nil {
		n.of.t.Fatal(err)
	}
	return l
}

func (n *node) release() {
	n.of.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.store.ReleaseSlot(ctx, testSlot); err != nil {
		n.of.t.Fatal(err)
	}
}

// chain returns the chain of testLog as it is stored.
func (c *nodes) chain() *chain {
	c.t.Helper()
	s := &Store{c: StoreConfig{Meta: c.facts, Prefix: "quire/test/"}}
	found, err := s.loadChain(context.Background(), testLog)
	if err != nil {
		c.t.Fatal(err)
	}
	return found
}

// wantSealed checks that whoever opens testLog next has nothing to recover, and that
// no ledger is left outside the chain.
func (c *nodes) wantSealed() {
	c.t.Helper()
	found := c.chain()
	for _, k := range found.links {
		if !k.sealed {
			c.t.Fatalf("ledger %d is not sealed in the chain", k.id)
		}
	}
	n := 0
	if err := c.all[0].tier.List(context.Background(), func(ledger.Info) bool { n++; return true }); err != nil {
		c.t.Fatal(err)
	}
	if n != len(found.links) {
		c.t.Fatalf("%d ledgers, the chain has %d", n, len(found.links))
	}
}

// recoveries counts the ledgers that are recovered from now on.
func (c *nodes) recoveries() *atomic.Int32 {
	n := new(atomic.Int32)
	c.tier.setFault(func(op string, _ ledger.ID) error {
		if op == "recover" {
			n.Add(1)
		}
		return nil
	})
	return n
}

// TestOpenAfterRelease counts what the next owner asks for.
func TestOpenAfterRelease(t *testing.T) {
	c := newNodes(t, 2)
	a, b := c.all[0], c.all[1]
	l := a.open(plain())
	for i := range 100 {
		put(t, l, makeBatch(idempotent(1, 0, int32(i)), 1, 1, "v"))
	}
	a.release()
	c.wantSealed()
	c.assign(testLog, 1)
	var asked sync.Map
	count := func(op string) {
		n, _ := asked.LoadOrStore(op, new(atomic.Int32))
		n.(*atomic.Int32).Add(1)
	}
	b.meta.set(func(op, _ string) error { count(op); return nil }, nil)
	c.tier.setFault(func(op string, _ ledger.ID) error { count("tier " + op); return nil })
	l = b.open(plain())
	b.meta.set(nil, nil)
	c.tier.setFault(nil)
	asked.Range(func(op, n any) bool {
		switch op {
		case "get", "txn", "tier open", "tier read":
			if n.(*atomic.Int32).Load() == 1 {
				return true
			}
		}
		t.Errorf("%s: %d times", op, n.(*atomic.Int32).Load())
		return true
	})
	// The producer's state came with it.
	if r := send(l, makeBatch(idempotent(1, 0, 99), 1, 1, "v")).wait(t); r.Err != nil || r.BaseOffset != 99 {
		t.Fatalf("a duplicate lies at %d, %v", r.BaseOffset, r.Err)
	}
	wantErr(t, send(l, makeBatch(idempotent(1, 0, 101), 1, 1, "v")).wait(t).Err, ErrOutOfSequence)
	put(t, l, makeBatch(idempotent(1, 0, 100), 1, 1, "v"))
}

// TestReleaseAnswers: what is refused was not stored, and what is with the tier is
// answered as the tier answers.
func TestReleaseAnswers(t *testing.T) {
	c := newNodes(t, 2)
	a, b := c.all[0], c.all[1]
	l := a.open(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	c.tier.hold(true)
	underway := send(l, makeBatch(batch.Plain, 1, 1, "b"))
	woken := make(chan struct{})
	l.Wait(&Waiter{Wake: func() { close(woken) }})
	c.assign(testLog, 1)

	// Nothing is answered in time: the rest goes on in the background.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, a.store.ReleaseSlot(ended, testSlot), context.Canceled)
	await(t, woken)
	var r Read
	l.ReadTail(&r)
	wantErr(t, r.Err, ErrLostOwnership)
	refused := send(l, makeBatch(batch.Plain, 1, 1, "c")).wait(t)
	wantErr(t, refused.Err, ErrLostOwnership)
	if errors.Is(refused.Err, ErrUnknownOutcome) || underway.decided() {
		t.Fatalf("refused: %v; under way: decided %v", refused.Err, underway.decided())
	}
	if a.store.Log(testLog) != nil {
		t.Fatal("the log is open")
	}
	c.tier.hold(false)
	if underway.wait(t); underway.Err != nil || underway.BaseOffset != 1 {
		t.Fatalf("offset %d, %v", underway.BaseOffset, underway.Err)
	}
	eventually(t, func() bool { links := c.chain().links; return len(links) == 1 && links[0].sealed })
	wantValues(t, values(t, b.open(plain()), 0, ReadUncommitted), "a-0", "b-0")
}

// TestReleaseWithoutLedger: appends that wait for their ledger are not stored, and
// the ledger that is made for them meanwhile goes away.
func TestReleaseWithoutLedger(t *testing.T) {
	for _, step := range []string{"create", "link"} {
		t.Run(step, func(t *testing.T) {
			c := newNodes(t, 2)
			a, b := c.all[0], c.all[1]
			l := a.open(plain())
			reached, goOn := make(chan struct{}), make(chan struct{})
			var once sync.Once
			stop := func() { once.Do(func() { close(reached); <-goOn }) }
			if step == "create" {
				c.tier.setFault(func(op string, _ ledger.ID) error {
					if op == "create" {
						stop()
					}
					return nil
				})
			} else {
				a.meta.set(func(op, _ string) error {
					if op == "txn" {
						stop()
					}
					return nil
				}, nil)
			}
			r := send(l, makeBatch(batch.Plain, 1, 1, "a"))
			await(t, reached)
			c.assign(testLog, 1)
			released := make(chan error, 1)
			go func() { released <- a.store.ReleaseSlot(t.Context(), testSlot) }()
			wantErr(t, r.wait(t).Err, ErrLostOwnership)
			if errors.Is(r.Err, ErrUnknownOutcome) {
				t.Fatal(r.Err)
			}
			close(goOn)
			if err := <-released; err != nil {
				t.Fatal(err)
			}
			c.wantSealed()
			recovered := c.recoveries()
			put(t, b.open(plain()), makeBatch(batch.Plain, 1, 1, "b"))
			if recovered.Load() != 0 {
				t.Error("a ledger was recovered")
			}
			wantValues(t, values(t, b.store.Log(testLog), 0, ReadUncommitted), "b-0")
		})
	}
}

// TestReleaseDuringRoll: the ledger in use and the next one, which is just being made.
func TestReleaseDuringRoll(t *testing.T) {
	for _, step := range []string{"create", "close"} {
		t.Run(step, func(t *testing.T) {
			c := newNodes(t, 2)
			a, b := c.all[0], c.all[1]
			conf := plain()
			conf.SegmentBytes = 200
			l := a.open(conf)
			put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
			reached, goOn := make(chan struct{}), make(chan struct{})
			var once sync.Once
			c.tier.setFault(func(op string, _ ledger.ID) error {
				if op == step {
					once.Do(func() { close(reached); <-goOn })
				}
				return nil
			})
			for i := range 3 {
				put(t, l, makeBatch(batch.Plain, 1, 1, fmt.Sprint("b", i)))
			}
			await(t, reached)
			c.assign(testLog, 1)
			released := make(chan error, 1)
			go func() { released <- a.store.ReleaseSlot(t.Context(), testSlot) }()
			eventually(t, func() bool { return a.store.Log(testLog) == nil })
			close(goOn)
			if err := <-released; err != nil {
				t.Fatal(err)
			}
			c.wantSealed()
			wantValues(t, values(t, b.open(conf), 0, ReadUncommitted), "a-0", "b0-0", "b1-0", "b2-0")
		})
	}
}

// TestSteal: a log that another node opens fails once, with what it has acknowledged
// in the other's hands and what it has not unknown.
func TestSteal(t *testing.T) {
	c := newNodes(t, 2)
	a, b := c.all[0], c.all[1]
	l := a.open(plain())
	put(t, l, makeBatch(idempotent(1, 0, 0), 1, 1, "a"))
	c.tier.hold(true)
	parked := []*result{send(l, makeBatch(idempotent(1, 0, 1), 1, 1, "b")), send(l, makeBatch(batch.Plain, 1, 1, "c"))}
	var woken atomic.Int32
	l.Wait(&Waiter{Wake: func() { woken.Add(1) }})
	c.assign(testLog, 1)
	stolen := b.open(plain())
	if stolen.Epoch() <= l.Epoch() {
		t.Fatalf("epoch %d after %d", stolen.Epoch(), l.Epoch())
	}
	eventually(t, func() bool { return a.store.Log(testLog) == nil }) // the watch tells
	wantErr(t, send(l, makeBatch(batch.Plain, 1, 1, "d")).wait(t).Err, ErrLostOwnership)
	c.tier.hold(false)
	for _, r := range parked {
		wantErr(t, r.wait(t).Err, ErrLostOwnership)
		wantErr(t, r.Err, ErrUnknownOutcome)
	}
	if woken.Load() != 1 {
		t.Errorf("woken %d times", woken.Load())
	}
	if _, err := a.store.OpenLog(t.Context(), testLog, plain()); !errors.Is(err, ErrLostOwnership) {
		t.Errorf("opened again: %v", err)
	}
	a.store.DropSlot(testSlot)
	put(t, stolen, makeBatch(idempotent(1, 0, 1), 1, 1, "b"))
	wantValues(t, values(t, stolen, 0, ReadUncommitted), "a-0", "b-0")
	if e := a.store.Epoch(testLog); e != stolen.Epoch() {
		t.Errorf("node 0 announces epoch %d, node 1 %d", e, stolen.Epoch())
	}
}

// TestZombie: a node that hears of nothing appends nothing and sends no reader
// back, whatever it believes.
func TestZombie(t *testing.T) {
	for _, written := range []bool{false, true} {
		t.Run(fmt.Sprint("written=", written), func(t *testing.T) {
			c := newNodes(t, 1)
			zombie := c.all[0]
			zombie.meta.lose()
			l := zombie.open(plain())
			var want []string
			if written {
				put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
				want = append(want, "a-0")
			}
			other := newWorldOf(t, c)
			o, err := other.OpenLog(t.Context(), testLog, plain())
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				put(t, o, makeBatch(batch.Plain, 1, 1, "b"))
				want = append(want, "b-0")
			}
			if zombie.store.Log(testLog) != l {
				t.Fatal("it has heard")
			}
			r := Read{Offset: int64(len(want)), MaxBytes: 1}
			if l.ReadTail(&r) {
				t.Fatalf("answered without a look: %v", r.Err)
			}
			l.Read(t.Context(), &r)
			wantErr(t, r.Err, ErrLostOwnership)
			wantErr(t, send(l, makeBatch(batch.Plain, 1, 1, "c")).wait(t).Err, ErrLostOwnership)
			wantValues(t, values(t, o, 0, ReadUncommitted), want...)
			// Of its own offsets that are too large it tells.
			r = Read{Offset: int64(len(want)) + 1, MaxBytes: 1}
			o.Read(t.Context(), &r)
			wantErr(t, r.Err, ErrOffsetOutOfRange)
		})
	}
}

// newWorldOf opens one more Store, which serves everything.
func newWorldOf(t *testing.T, c *nodes) *Store {
	conf := c.all[0].store.c
	conf.Serves, conf.Meta = func(LogID) bool { return true }, c.facts
	s, err := Open(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// TestZombieAppends: the first append, and one to a ledger in use, of a node that
// was followed without hearing of it.
func TestZombieAppends(t *testing.T) {
	for _, written := range []bool{false, true} {
		c := newNodes(t, 1)
		zombie := c.all[0]
		zombie.meta.lose()
		l := zombie.open(plain())
		if written {
			put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
		}
		o, err := newWorldOf(t, c).OpenLog(t.Context(), testLog, plain())
		if err != nil {
			t.Fatal(err)
		}
		at := put(t, o, makeBatch(batch.Plain, 1, 1, "b"))
		r := send(l, makeBatch(batch.Plain, 1, 1, "c")).wait(t)
		wantErr(t, r.Err, ErrLostOwnership)
		if errors.Is(r.Err, ErrUnknownOutcome) != written {
			t.Errorf("written %v: %v", written, r.Err)
		}
		if got := values(t, o, at, ReadUncommitted); len(got) != 1 {
			t.Errorf("%q", got)
		}
	}
}

// TestBothOpen: nodes that open a log at the same time, over and over.
func TestBothOpen(t *testing.T) {
	c := newNodes(t, 1)
	stores := []*Store{newWorldOf(t, c), newWorldOf(t, c)}
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked := make(map[int64]string)
	for i, s := range stores {
		wg.Go(func() {
			for n := range 60 {
				l, err := s.OpenLog(t.Context(), testLog, plain())
				if errors.Is(err, ErrLostOwnership) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				v := fmt.Sprintf("%d.%d", i, n)
				r := send(l, makeBatch(batch.Plain, 1, 1, v)).wait(t)
				if r.Err == nil {
					mu.Lock()
					if old, ok := acked[r.BaseOffset]; ok {
						t.Errorf("offset %d was given to %s and %s", r.BaseOffset, old, v)
					}
					acked[r.BaseOffset] = v + "-0"
					mu.Unlock()
				} else if !errors.Is(r.Err, ErrLostOwnership) && !errors.Is(r.Err, ErrStorage) {
					t.Error(r.Err)
				}
			}
		})
	}
	wg.Wait()
	l, err := newWorldOf(t, c).OpenLog(t.Context(), testLog, plain())
	if err != nil {
		t.Fatal(err)
	}
	all := values(t, l, 0, ReadUncommitted)
	for at, v := range acked {
		if at >= int64(len(all)) || all[at] != v {
			t.Fatalf("%s was acknowledged at %d of %q", v, at, all)
		}
	}
}

// TestOpenRacesRelease takes a log away at each step of its opening.
func TestOpenRacesRelease(t *testing.T) {
	ways := map[string]func(*Store){
		"dropped":   func(s *Store) { s.DropSlot(testSlot) },
		"unnoticed": func(*Store) {}, // the route has changed and nobody has said so yet
		"deleted":   func(s *Store) { s.CloseTopic(testLog.Topic) },
	}
	for name, take := range ways {
		for _, written := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/written=%v", name, written), func(t *testing.T) {
				steps := 0
				for n := 0; n <= steps; n++ {
					c := newNodes(t, 2)
					a := c.all[0]
					if written {
						put(t, a.open(plain()), makeBatch(batch.Plain, 1, 1, "a"))
						a.release()
					}
					taken, left := false, n
					at := func(string, string) error {
						if left--; left == -1 {
							taken = true
							if name != "deleted" {
								c.assign(testLog, 1)
							}
							take(a.store)
						}
						return nil
					}
					a.meta.set(at, func(string) error { return at("", "") })
					l, err := a.store.OpenLog(t.Context(), testLog, plain())
					a.meta.set(nil, nil)
					if !taken {
						break
					}
					steps = n + 1
					if err == nil || a.store.Log(testLog) != nil || l != nil {
						t.Fatalf("step %d: the log is open: %v", n, err)
					}
				}
				if steps < 2 {
					t.Fatalf("an opening has only %d steps", steps)
				}
			})
		}
	}
}

// TestReleaseEndsOpenings: ReleaseLogs comes back when what it took away from an
// opening is over.
func TestReleaseEndsOpenings(t *testing.T) {
	c := newNodes(t, 2)
	a := c.all[0]
	reached := make(chan struct{})
	goOn := make(chan struct{})
	a.meta.set(func(op, _ string) error {
		close(reached)
		<-goOn
		return nil
	}, nil)
	opened := make(chan error, 1)
	go func() {
		_, err := a.store.OpenLog(t.Context(), testLog, plain())
		opened <- err
	}()
	await(t, reached)
	a.meta.set(nil, nil)
	c.assign(testLog, 1)
	released := make(chan error, 1)
	go func() { released <- a.store.ReleaseSlot(t.Context(), testSlot) }()
	close(goOn)
	wantErr(t, <-opened, ErrLostOwnership)
	if err := <-released; err != nil {
		t.Fatal(err)
	}
	if a.store.Log(testLog) != nil {
		t.Fatal("the log is open")
	}
}

// TestStaleEmptyLog: a log that was opened before anybody had written it is not
// registered after somebody has.
func TestStaleEmptyLog(t *testing.T) {
	c := newNodes(t, 2)
	a, b := c.all[0], c.all[1]
	reached, goOn := make(chan struct{}), make(chan struct{})
	a.meta.set(func(_, key string) error {
		if key == a.store.c.TopicKey(testLog.Topic) { // after the look for a record
			close(reached)
			<-goOn
		}
		return nil
	}, nil)
	opened := make(chan *Log, 1)
	go func() {
		l, err := a.store.OpenLog(t.Context(), testLog, plain())
		if err != nil {
			t.Error(err)
		}
		opened <- l
	}()
	await(t, reached)
	a.meta.set(nil, nil)
	c.assign(testLog, 1)
	put(t, b.open(plain()), makeBatch(batch.Plain, 1, 1, "a"))
	b.release()
	c.assign(testLog, 0)
	rev := c.chain().rev
	eventually(t, func() bool {
		h := a.store.shard(testLog)
		h.mu.RLock()
		defer h.mu.RUnlock()
		return h.known[testLog].rev == rev
	})
	close(goOn)
	if l := <-opened; l != nil {
		wantValues(t, values(t, l, 0, ReadUncommitted), "a-0")
	}
}

// gaps of a watch: the second is told, the third is not.
var gaps = []string{"none", "compacted", "silent"}

// soon makes listings, which come by themselves only now and then, follow each other.
func soon(gap string) func(*StoreConfig) {
	return func(c *StoreConfig) {
		if gap == "silent" {
			c.RelistInterval = time.Millisecond
		}
	}
}

// TestEpochsAreFollowed: by watch, and by listing when the watch has missed something.
func TestEpochsAreFollowed(t *testing.T) {
	for _, gap := range gaps {
		t.Run("gap="+gap, func(t *testing.T) {
			c := newNodes(t, 2, soon(gap))
			a, b := c.all[0], c.all[1]
			gone := LogID{Topic: [16]byte{15: 7}}
			c.createTopic(gone.Topic)
			for i := range 3 {
				l := a.open(plain())
				put(t, l, makeBatch(batch.Plain, 1, 1, fmt.Sprint(i)))
				eventually(t, func() bool { return b.store.Epoch(testLog) == l.Epoch() })
				a.release()
				if e := a.store.Epoch(testLog); e != l.Epoch()+1 {
					t.Fatalf("epoch %d is announced of a log that was closed in %d", e, l.Epoch())
				}
			}
			o, err := a.store.OpenLog(t.Context(), gone, plain())
			if err != nil {
				t.Fatal(err)
			}
			put(t, o, makeBatch(batch.Plain, 1, 1, "v"))
			eventually(t, func() bool {
				h := b.store.shard(gone)
				h.mu.RLock()
				defer h.mu.RUnlock()
				_, ok := h.known[gone]
				return ok
			})
			if gap != "none" {
				b.meta.lose()
			}
			l := a.open(plain())
			c.deleteTopic(gone.Topic)
			if err := b.store.DeleteLogs(t.Context(), gone.Topic, 1); err != nil {
				t.Fatal(err)
			}
			if gap == "compacted" {
				b.meta.compact(t)
			}
			eventually(t, func() bool {
				return b.store.Epoch(testLog) == l.Epoch() && b.store.Epoch(gone) == 0 && a.store.Log(gone) == nil
			})
		})
	}
}

// TestRelistClosesWhatIsLost: a gap in the watch hides neither a theft nor a deletion.
func TestRelistClosesWhatIsLost(t *testing.T) {
	for _, gap := range gaps[1:] {
		t.Run("gap="+gap, func(t *testing.T) { relistClosesWhatIsLost(t, gap) })
	}
}

func relistClosesWhatIsLost(t *testing.T, gap string) {
	c := newNodes(t, 2, soon(gap))
	a, b := c.all[0], c.all[1]
	gone := LogID{Topic: [16]byte{15: 7}}
	c.createTopic(gone.Topic)
	l := a.open(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	o, err := a.store.OpenLog(t.Context(), gone, plain())
	if err != nil {
		t.Fatal(err)
	}
	put(t, o, makeBatch(batch.Plain, 1, 1, "v"))
	a.meta.lose()
	c.assign(testLog, 1)
	b.open(plain())
	c.deleteTopic(gone.Topic)
	if err := b.store.DeleteLogs(t.Context(), gone.Topic, 1); err != nil {
		t.Fatal(err)
	}
	if gap == "compacted" {
		a.meta.compact(t)
	}
	eventually(t, func() bool { return a.store.Log(testLog) == nil && a.store.Log(gone) == nil })
	var r Read
	l.ReadTail(&r)
	wantErr(t, r.Err, ErrLostOwnership)
	o.ReadTail(&r)
	wantErr(t, r.Err, ErrClosed)
}

// TestTopicDeletedElsewhere: neither an open log nor one being opened, nor a swap that
// was under way, leaves a record of a deleted topic.
func TestTopicDeletedElsewhere(t *testing.T) {
	for _, written := range []bool{false, true} {
		for _, when := range []string{"idle", "linking"} {
			t.Run(fmt.Sprintf("written=%v/%s", written, when), func(t *testing.T) {
				c := newNodes(t, 2)
				a, b := c.all[0], c.all[1]
				a.meta.lose()
				conf := plain()
				conf.SegmentBytes = 80
				l := a.open(conf)
				if written {
					put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
				}
				if err := b.store.DeleteLogs(t.Context(), testLog.Topic, 8); err == nil {
					t.Fatal("the logs of a topic that exists are deleted")
				}
				reached, goOn := make(chan struct{}), make(chan struct{})
				var once sync.Once
				if when == "linking" {
					a.meta.set(func(op, _ string) error {
						if op == "txn" {
							once.Do(func() { close(reached); <-goOn })
						}
						return nil
					}, nil)
				}
				var r *result
				if when == "linking" {
					r = send(l, makeBatch(batch.Plain, 1, 1, "b"))
					await(t, reached)
				}
				c.deleteTopic(testLog.Topic)
				if err := b.store.DeleteLogs(t.Context(), testLog.Topic, 8); err != nil {
					t.Fatal(err)
				}
				close(goOn)
				if r == nil {
					r = send(l, makeBatch(batch.Plain, 1, 1, "b"))
				}
				r.wait(t)
				if !written && r.Err == nil {
					t.Fatal("a batch of a deleted topic is stored")
				}
				a.store.CloseTopic(testLog.Topic)
				if a.store.Log(testLog) != nil {
					t.Fatal("the log is open")
				}
				_, err := a.store.OpenLog(t.Context(), testLog, conf)
				wantErr(t, err, ErrClosed)
				if found := c.chain(); found.rev != 0 {
					t.Fatalf("there is a record of revision %d", found.rev)
				}
			})
		}
	}
}

// TestSetConfigs: of open logs, of one being opened with an older one, and of one
// opened later.
func TestSetConfigs(t *testing.T) {
	c := newNodes(t, 1)
	s := c.all[0].store
	old, changed := plain(), plain()
	id := func(p int32) LogID { return LogID{Topic: testLog.Topic, Partition: p} }
	open := func(p int32) *Log {
		l, err := s.OpenLog(t.Context(), id(p), old)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := open(3)
	var once sync.Once
	c.all[0].meta.set(func(string, string) error {
		once.Do(func() { s.SetConfigs(testLog.Topic, changed) })
		return nil
	}, nil)
	for _, l := range []*Log{first, open(4), open(9)} {
		if l.config.Load() != changed {
			t.Errorf("log %s has the old configuration", logName(l.id))
		}
	}
}

// TestEpochDoesNotGoBack: changes that are heard late, and a log that is closed late.
func TestEpochDoesNotGoBack(t *testing.T) {
	c := newNodes(t, 1)
	a := c.all[0]
	for i := range 2 {
		put(t, a.open(plain()), makeBatch(batch.Plain, 1, 1, fmt.Sprint(i)))
		a.release()
	}
	told := a.store.Epoch(testLog)
	a.store.observe(testLog, recordHead{epoch: 0, owner: 7}, 1)
	if e := a.store.Epoch(testLog); e != told {
		t.Fatalf("epoch %d after %d", e, told)
	}
	l := a.open(plain())
	later := known{epoch: l.Epoch() + 3, rev: c.chain().rev}
	h := a.store.shard(testLog)
	h.mu.Lock()
	h.known[testLog] = later
	h.mu.Unlock()
	a.store.DropSlot(testSlot)
	if e := a.store.Epoch(testLog); e != later.epoch {
		t.Fatalf("epoch %d after %d", e, later.epoch)
	}
}

// A producer of which a log of several nodes knows nothing begins with sequence 0:
// what comes before may be lost on another node, and would be refused for ever if a
// later batch got in its place.
func TestFirstSequenceAmongNodes(t *testing.T) {
	l := newNodes(t, 2).all[0].open(plain())
	wantErr(t, send(l, makeBatch(idempotent(1, 0, 23), 1, 1, "later")).wait(t).Err, ErrUnknownProducer)
	put(t, l, makeBatch(idempotent(1, 0, 0), 1, 23, "v"))
	put(t, l, makeBatch(idempotent(1, 0, 23), 1, 1, "later"))
}
