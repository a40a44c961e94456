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

// looks lets the janitor of a node look twice.
func (n *node) looks() {
	j := janitor{store: n.store}
	j.sweep(context.Background(), n.store.c.Now())
	n.of.clock.Add(n.store.c.OrphanAge.Milliseconds())
	j.sweep(context.Background(), n.store.c.Now())
}

// TestLateLinker: a node that is stopped between the creation of a ledger and the
// swap that links it, for longer than it takes to be an orphan, does not link it.
func TestLateLinker(t *testing.T) {
	for _, before := range []int{0, 1} { // appends: the first ledger of a log, or a later one
		t.Run(fmt.Sprint("before=", before), func(t *testing.T) {
			c := newNodes(t, 2)
			a, housekeeper := c.all[0], c.all[1]
			conf := plain()
			conf.SegmentBytes = 80
			l := a.open(conf)
			for range before {
				put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
			}
			reached, goOn := make(chan struct{}), make(chan struct{})
			var once sync.Once
			a.meta.set(func(op, _ string) error {
				if op == "txn" {
					once.Do(func() { close(reached); <-goOn })
				}
				return nil
			}, nil)
			r := send(l, makeBatch(batch.Plain, 1, 1, "b"))
			await(t, reached)
			late := c.tier.ids()[before]
			housekeeper.looks()
			if n := len(c.tier.ids()); n != before {
				t.Fatalf("%d ledgers are left", n)
			}
			close(goOn)
			acked := make(map[int64]string)
			if r.wait(t); r.Err == nil {
				acked[r.BaseOffset] = "b-0"
			}
			for i := range 10 {
				l := a.open(conf)
				if r := send(l, makeBatch(batch.Plain, 1, 1, fmt.Sprint("c", i))).wait(t); r.Err == nil {
					acked[r.BaseOffset] = fmt.Sprintf("c%d-0", i)
				}
			}
			if before > 0 && a.store.Log(testLog) != l {
				t.Error("the log was closed for an orphan")
			}
			if len(acked) < 10 {
				t.Errorf("%d appends of 11 were taken", len(acked))
			}
			eventually(t, func() bool {
				l := a.store.Log(testLog)
				l.mu.Lock()
				defer l.mu.Unlock()
				return l.queued == 0
			})
			for _, k := range c.chain().links {
				if k.id == late {
					t.Fatalf("ledger %d is gone and was linked", late)
				}
			}
			c.assign(testLog, 1)
			all := values(t, housekeeper.open(conf), 0, ReadUncommitted)
			for at, v := range acked {
				if at >= int64(len(all)) || all[at] != v {
					t.Fatalf("%s was acknowledged at %d of %q", v, at, all)
				}
			}
		})
	}
}

// TestLinkedWhileLooking: a ledger that is linked after the janitor has read the chain
// and before it writes it stays.
func TestLinkedWhileLooking(t *testing.T) {
	c := newNodes(t, 2)
	a, housekeeper := c.all[0], c.all[1]
	l := a.open(plain())
	reached, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	a.meta.set(func(op, _ string) error {
		if op == "txn" {
			once.Do(func() { close(reached); <-goOn })
		}
		return nil
	}, nil)
	r := send(l, makeBatch(batch.Plain, 1, 1, "a"))
	await(t, reached)
	touched := false
	housekeeper.meta.set(func(op, _ string) error {
		if op == "txn" && !touched {
			touched = true
			close(goOn)
			r.wait(t)
		}
		return nil
	}, nil)
	housekeeper.looks()
	if !touched || r.Err != nil {
		t.Fatalf("the janitor wrote: %v, the append: %v", touched, r.Err)
	}
	wantValues(t, values(t, a.open(plain()), 0, ReadUncommitted), "a-0")
	put(t, l, makeBatch(batch.Plain, 1, 1, "b"))
}

// TestPurgeDisturbsNothing: the owner of a log whose orphans are deleted keeps it, and
// its next swaps, which link and seal, succeed.
func TestPurgeDisturbsNothing(t *testing.T) {
	c := newNodes(t, 2)
	a, housekeeper := c.all[0], c.all[1]
	l := a.open(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	for range 3 {
		if _, err := c.tier.Create(t.Context(), l.ledgerProperties(1)); err != nil {
			t.Fatal(err)
		}
		housekeeper.looks()
		if n := c.tier.count(); n != 1 {
			t.Fatalf("%d ledgers", n)
		}
	}
	if _, err := l.DeleteRecords(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	put(t, l, makeBatch(batch.Plain, 1, 1, "b"))
	epoch := l.Epoch()
	housekeeper.looks()
	a.release()
	c.wantSealed()
	if l := a.open(plain()); l.Epoch() != epoch+1 {
		t.Errorf("epoch %d after %d", l.Epoch(), epoch)
	}
}

// TestOnlyTheHousekeeperLooks, twice and no sooner, and anew when it becomes it.
func TestOnlyTheHousekeeperLooks(t *testing.T) {
	var housekeeper atomic.Bool
	w := newWorld(t, func(c *StoreConfig) {
		c.OrphanAge = 10 * time.Minute
		c.Housekeeper = housekeeper.Load
	})
	l := w.log(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	if _, err := w.tier.Create(t.Context(), l.ledgerProperties(1)); err != nil {
		t.Fatal(err)
	}
	j := janitor{store: w.store}
	pass := func(d time.Duration, want int) {
		t.Helper()
		w.advance(d)
		j.look(t.Context())
		if n := w.tier.count(); n != want {
			t.Fatalf("%d ledgers, want %d", n, want)
		}
	}
	for range 3 {
		pass(time.Hour, 2)
	}
	housekeeper.Store(true)
	pass(0, 2)
	pass(9*time.Minute, 2)
	housekeeper.Store(false)
	pass(time.Minute, 2)
	housekeeper.Store(true)
	pass(0, 2)
	pass(9*time.Minute, 2)
	pass(time.Minute, 1)
	// Without candidates the next look is an hour away.
	if _, err := w.tier.Create(t.Context(), l.ledgerProperties(1)); err != nil {
		t.Fatal(err)
	}
	pass(59*time.Minute, 2)
	pass(time.Minute, 2)
	pass(10*time.Minute, 1)
}

// TestOrphansOfDeletedTopics go without a trace.
func TestOrphansOfDeletedTopics(t *testing.T) {
	c := newNodes(t, 2)
	a := c.all[0]
	l := a.open(plain())
	c.tier.setFault(func(op string, _ ledger.ID) error {
		if op == "delete" {
			return ledger.ErrFailed
		}
		return nil
	})
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	c.deleteTopic(testLog.Topic)
	if err := c.all[1].store.DeleteLogs(t.Context(), testLog.Topic, 8); err != nil {
		t.Fatal(err)
	}
	c.tier.setFault(nil)
	c.all[1].looks()
	if n := c.tier.count(); n != 0 {
		t.Errorf("%d ledgers are left", n)
	}
	if found := c.chain(); found.rev != 0 {
		t.Error("a deleted log has a record")
	}
}

// TestJanitorFails: after an error nothing is deleted that is not known to be out of reach.
func TestJanitorFails(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	if _, err := w.tier.Create(t.Context(), l.ledgerProperties(1)); err != nil {
		t.Fatal(err)
	}
	away := errors.New("away")
	for _, op := range []string{"list", "get", "txn"} {
		w.meta.set(func(o, _ string) error {
			if o == op {
				return away
			}
			return nil
		}, nil)
		w.removeOrphans()
		if n := w.tier.count(); n != 2 {
			t.Fatalf("%s failed, %d ledgers are left", op, n)
		}
	}
	w.meta.set(nil, func(string) error { return meta.ErrUnknownOutcome })
	w.removeOrphans()
	if n := w.tier.count(); n != 2 {
		t.Fatalf("%d ledgers are left after an answer was lost", n)
	}
	w.meta.set(nil, nil)
	w.removeOrphans()
	if n := w.tier.count(); n != 1 {
		t.Fatalf("%d ledgers are left", n)
	}
	put(t, l, makeBatch(batch.Plain, 1, 1, "b"))
	w.close()
	w.open()
	wantValues(t, values(t, w.log(plain()), 0, ReadUncommitted), "a-0", "b-0")
}

// TestLateCopy: a copy for another tier that became an orphan meanwhile is not linked,
// and one whose swap was taken for lost is not deleted.
func TestLateCopy(t *testing.T) {
	for _, name := range []string{"purged", "purged, then swapped", "lost answer"} {
		t.Run(name, func(t *testing.T) {
			near, far := newFakeTier(), newFakeTier()
			defer near.Close()
			defer far.Close()
			facts := mem.New(nil)
			defer facts.Close()
			m := &faultyMeta{Store: facts}
			open := func(create int) *Store {
				both, err := NewTiers(create, near, far)
				if err != nil {
					t.Fatal(err)
				}
				s, err := Open(t.Context(), StoreConfig{Tier: both, Meta: m, Prefix: "quire/test/", TailCacheBytes: 1, OrphanAge: time.Nanosecond})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			logOf := func(s *Store) *Log {
				l, err := s.OpenLog(t.Context(), testLog, plain())
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			s := open(0)
			put(t, logOf(s), makeBatch(batch.Plain, 1, 2, "a"))
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			s = open(1)
			l := logOf(s)
			if name == "lost answer" {
				// The swap comes through, and its answer and the look for it are lost.
				lost := false
				m.set(func(op, _ string) error {
					if lost && op == "get" {
						return meta.ErrUnavailable
					}
					return nil
				}, func(string) error { lost = true; return meta.ErrUnknownOutcome })
			} else {
				far.setFault(func(op string, _ ledger.ID) error {
					if op == "close" {
						far.setFault(nil)
						j := janitor{store: s}
						j.sweep(t.Context(), s.c.Now())
						j.sweep(t.Context(), s.c.Now().Add(time.Second))
						if name != "purged" {
							// The log has heard of it by another swap.
							if _, err := l.DeleteRecords(t.Context(), 1); err != nil {
								t.Error(err)
							}
						}
					}
					return nil
				})
			}
			if n, err := l.Migrate(t.Context()); err == nil {
				t.Fatalf("%d ledgers were moved", n)
			}
			m.set(nil, nil)
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			s = open(1)
			l = logOf(s)
			start, _, _ := l.Offsets()
			wantValues(t, values(t, l, start, ReadUncommitted), []string{"a-0", "a-1"}[start:]...)
			if _, err := l.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantValues(t, values(t, l, start, ReadUncommitted), []string{"a-0", "a-1"}[start:]...)
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
