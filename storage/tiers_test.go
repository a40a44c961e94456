package storage

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta/mem"
)

// crossing is a node whose logs may lie in two tiers.
type crossing struct {
	t     *testing.T
	facts *mem.Store
	store *Store
}

// open opens the store with new ledgers in tier create; a number may be without a tier.
func (x *crossing) open(create int, tiers ...ledger.Tier) *Log {
	x.t.Helper()
	both, err := NewTiers(create, tiers...)
	if err != nil {
		x.t.Fatal(err)
	}
	x.store, err = Open(context.Background(), StoreConfig{Tier: both, Meta: x.facts, Prefix: "quire/test/", TailCacheBytes: 1})
	if err != nil {
		x.t.Fatal(err)
	}
	l, err := x.store.OpenLog(context.Background(), testLog, plain())
	if err != nil {
		x.t.Fatal(err)
	}
	return l
}

func (x *crossing) close() {
	x.t.Helper()
	if err := x.store.Close(context.Background()); err != nil {
		x.t.Fatal(err)
	}
}

// TestChainCrossesTiers: a log begins in one tier, goes on in another whose ledgers
// have the same ids, and is read, trimmed and deleted wherever it lies.
func TestChainCrossesTiers(t *testing.T) {
	near, far := newFakeTier(), newFakeTier()
	defer near.Close()
	defer far.Close()
	x := &crossing{t: t, facts: mem.New(nil)}
	defer x.facts.Close()

	l := x.open(0, near)
	put(t, l, makeBatch(batch.Plain, 1, 2, "near"))
	x.close()
	l = x.open(1, near, far)
	put(t, l, makeBatch(batch.Plain, 1, 2, "far"))
	wantValues(t, values(t, l, 0, ReadUncommitted), "near-0", "near-1", "far-0", "far-1")
	x.close()
	if near.count() != 1 || far.count() != 1 {
		t.Fatalf("%d and %d ledgers, want one in each tier", near.count(), far.count())
	}

	l = x.open(1, near, far) // recovers what lies in both
	wantValues(t, values(t, l, 0, ReadUncommitted), "near-0", "near-1", "far-0", "far-1")
	x.close()

	// Without the first tier nothing is taken for missing or empty.
	both, err := NewTiers(1, nil, far)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := both.Open(context.Background(), 1); !errors.Is(err, ErrNoTier) {
		t.Errorf("a ledger of no tier: %v", err)
	}

	l = x.open(1, near, far)
	if _, err := l.DeleteRecords(context.Background(), 2); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return near.count() == 0 })
	wantValues(t, values(t, l, 2, ReadUncommitted), "far-0", "far-1")
	if err := x.store.DeleteLogs(context.Background(), testLog.Topic, 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return far.count() == 0 })
	x.close()
}

// TestEntryLimitOfTheTier: a batch that the tier could not take is refused and its
// ledger goes on.
// TestLostFilesOfATier: a tier that comes back without its files gives no ledger the id
// of one that a chain has.
func TestLostFilesOfATier(t *testing.T) {
	for create := range 2 {
		tiers := []ledger.Tier{newFakeTier(), newFakeTier()}
		x := &crossing{t: t, facts: mem.New(nil)}
		l := x.open(create, tiers...)
		put(t, l, makeBatch(batch.Plain, 1, 2, "lost"))
		x.close()
		if n, err := CountLedgers(context.Background(), x.facts, "quire/test/", create); err != nil || n != 1 {
			t.Fatalf("%d ledgers in tier %d, %v", n, create, err)
		}
		if n, err := CountLedgers(context.Background(), x.facts, "quire/test/", 1-create); err != nil || n != 0 {
			t.Fatalf("%d ledgers in tier %d, %v", n, 1-create, err)
		}

		_ = tiers[create].Close()
		tiers[create] = newFakeTier()
		both, err := NewTiers(create, tiers...)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(context.Background(), StoreConfig{Tier: both, Meta: x.facts, Prefix: "quire/test/", TailCacheBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		other, err := s.OpenLog(context.Background(), LogID{Topic: [16]byte{15: 2}}, plain())
		if err != nil {
			t.Fatal(err)
		}
		put(t, other, makeBatch(batch.Plain, 1, 2, "other"))
		if l, err := s.OpenLog(context.Background(), testLog, plain()); err == nil {
			t.Errorf("a log whose records are lost has %q", values(t, l, 0, ReadUncommitted))
		} else {
			wantErr(t, err, ErrStorage)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, tier := range tiers {
			_ = tier.Close()
		}
		_ = x.facts.Close()
	}
}

func TestEntryLimitOfTheTier(t *testing.T) {
	w := newWorld(t)
	w.tier.maxEntryBytes = 2000
	w.close()
	w.open()
	c := *plain()
	c.MaxMessageBytes = 1 << 20
	l := w.log(&c)
	long := string(make([]byte, 3000))
	if r := send(l, makeBatch(batch.Plain, 1, 1, long)).wait(t); !errors.Is(r.Err, ErrMessageTooLarge) {
		t.Errorf("a batch longer than an entry: %v", r.Err)
	}
	put(t, l, makeBatch(batch.Plain, 1, 1, "fits"))
}

func TestTierOf(t *testing.T) {
	for _, tc := range []struct {
		tier int
		own  ledger.ID
	}{{0, 1}, {0, 1<<tierShift - 1}, {1, 1}, {1, 1 << 40}, {maxTiers - 1, 7}} {
		tier, own := TierOf((&Tiers{}).outside(tc.tier, tc.own))
		if tier != tc.tier || own != tc.own {
			t.Errorf("tier %d id %d came back as %d, %d", tc.tier, tc.own, tier, own)
		}
	}
	if _, err := NewTiers(1, &fakeTier{}); err == nil {
		t.Error("ledgers are created in a tier that is not there")
	}
}

// TestMigrate moves a log of many ledgers, some in pages, and keeps reading it.
func TestMigrate(t *testing.T) {
	near, far := newFakeTier(), newFakeTier()
	defer near.Close()
	defer far.Close()
	x := &crossing{t: t, facts: mem.New(nil)}
	defer x.facts.Close()

	c := *plain()
	c.SegmentBytes = 100
	l := x.open(0, near)
	l.SetConfig(&c)
	var want []string
	for paged := false; !paged && len(want) < 5000; {
		v := fmt.Sprint("r", len(want))
		put(t, l, makeBatch(batch.Plain, 1, 1, v))
		want = append(want, v+"-0")
		eventually(t, func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			paged = len(l.chain.pages) > 0
			return l.queued == 0 && l.queueHead == nil
		})
	}
	x.close()
	l = x.open(1, near, far)
	if len(l.chain.pages) == 0 {
		t.Fatal("the chain has no pages: the test needs some")
	}
	links := len(l.chain.links)

	// A copy that fails is no loss, and the next call goes on.
	broken := errors.New("broken")
	n := 0
	far.setFault(func(op string, _ ledger.ID) error {
		if op == "append" {
			if n++; n > 100 {
				return broken
			}
		}
		return nil
	})
	first, err := l.Migrate(context.Background())
	if !errors.Is(err, broken) || first == 0 {
		t.Fatalf("moved %d: %v", first, err)
	}
	far.setFault(nil)
	wantValues(t, values(t, l, 0, ReadUncommitted), want...)
	second, err := l.Migrate(context.Background())
	if err != nil || first+second != links {
		t.Fatalf("moved %d and %d of %d: %v", first, second, links, err)
	}
	wantValues(t, values(t, l, 0, ReadUncommitted), want...)
	eventually(t, func() bool { return near.count() == 0 && far.count() == links })
	x.close()

	l = x.open(1, nil, far)
	wantValues(t, values(t, l, 0, ReadUncommitted), want...)
	x.close()
}

// TestDegradedLedgerIsReplaced: appends go to a new ledger when the tier says that it
// would be kept more safely, and an idle one is closed.
func TestDegradedLedgerIsReplaced(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	put(t, l, makeBatch(batch.Plain, 1, 1, "b"))
	w.settled(l)
	if n := len(w.tier.ids()); n != 1 {
		t.Fatalf("%d ledgers at first", n)
	}
	w.tier.degraded.Store(true)
	put(t, l, makeBatch(batch.Plain, 1, 1, "c"))
	w.settled(l)
	if n := len(w.tier.ids()); n != 1 {
		t.Fatalf("%d ledgers although the writer was asked a moment ago", n)
	}
	w.advance(2 * askDegraded)
	put(t, l, makeBatch(batch.Plain, 1, 1, "d"))
	w.settled(l)
	w.tier.degraded.Store(false)
	put(t, l, makeBatch(batch.Plain, 1, 1, "e"))
	w.settled(l)
	if n := len(w.tier.ids()); n != 2 {
		t.Fatalf("%d ledgers, want a new one", n)
	}
	w.tier.degraded.Store(true)
	w.advance(2 * askDegraded)
	l.sweep(w.store.c.Now(), false)
	w.settled(l)
	l.mu.Lock()
	open := l.seg != nil
	l.mu.Unlock()
	if open {
		t.Error("an idle degraded ledger stays open")
	}
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0", "b-0", "c-0", "d-0", "e-0")
}

// TestReadMeetsMigration: a ledger that is moved away under a reader is read where it
// lies then.
func TestReadMeetsMigration(t *testing.T) {
	near, far := newFakeTier(), newFakeTier()
	defer near.Close()
	defer far.Close()
	x := &crossing{t: t, facts: mem.New(nil)}
	defer x.facts.Close()
	l := x.open(0, near)
	put(t, l, makeBatch(batch.Plain, 1, 2, "a"))
	x.close()
	l = x.open(1, near, far)
	// The reader has found its place in the old ledger when that goes.
	var moved atomic.Bool
	near.setFault(func(op string, _ ledger.ID) error {
		if op == "read" && moved.CompareAndSwap(false, true) {
			if n, err := l.Migrate(context.Background()); n != 1 || err != nil {
				t.Errorf("moved %d: %v", n, err)
			}
		}
		return nil
	})
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0", "a-1")
	if !moved.Load() {
		t.Error("nobody read the old ledger")
	}
	x.close()
}
