package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta/mem"

	"github.com/quirelog/quire/protocol/batch"
)

// TestReleaseCrashPoints cuts a node off at each step of its release, under a
// ledger in use, one that is being sealed and appends on their way.
func TestReleaseCrashPoints(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 0; ; n++ {
			cut := &cutter{left: n, after: after}
			if !t.Run(fmt.Sprintf("after=%v/step=%d", after, n), func(t *testing.T) { crashInRelease(t, cut) }) {
				return
			}
			if !cut.happened() {
				if n < 1 || !after && n < 4 {
					t.Fatalf("a release has only %d steps", n)
				}
				break
			}
		}
	}
}

func crashInRelease(t *testing.T, cut *cutter) {
	c := newNodes(t, 2)
	a, b := c.all[0], c.all[1]
	conf := plain()
	conf.SegmentBytes = 300
	l := a.open(conf)
	var sent []*result
	seq := int32(0)
	for range 4 {
		put(t, l, makeBatch(idempotent(1, 0, seq), 1, 1, fmt.Sprint("v", seq)))
		seq++
	}
	eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.queued == 0 && l.queueHead == nil
	})
	c.tier.hold(true)
	for i := range int32(3) {
		sent = append(sent, send(l, makeBatch(idempotent(1, 0, seq+i), 1, 1, fmt.Sprint("v", seq+i))))
	}
	c.tier.setFault(func(op string, _ ledger.ID) error {
		err := cut.step(false)
		if err != nil && op == "append" {
			return fmt.Errorf("%w: %w", ledger.ErrFailed, err)
		}
		return err
	})
	a.meta.set(func(string, string) error { return cut.step(false) }, func(string) error { return cut.step(true) })
	c.assign(testLog, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	released := make(chan error, 1)
	go func() { released <- a.store.ReleaseSlot(ctx, testSlot) }()
	eventually(t, func() bool { return a.store.Log(testLog) == nil })
	c.tier.hold(false)
	if err := <-released; err != nil {
		t.Fatal(err)
	}
	acked := seq
	failed := false
	for _, r := range sent {
		switch r.wait(t); {
		case r.Err != nil:
			failed = true
		case failed:
			t.Fatal("a batch is stored behind one that is not")
		default:
			acked++
		}
	}
	if failed && !cut.happened() {
		t.Fatal("an append failed")
	}
	c.tier.setFault(nil)
	l = b.open(conf)
	// The client sends again what it does not know to be stored, and one more.
	for s := acked; s <= seq+3; s++ {
		if at := put(t, l, makeBatch(idempotent(1, 0, s), 1, 1, fmt.Sprint("v", s))); at != int64(s) {
			t.Fatalf("batch %d lies at %d", s, at)
		}
	}
	all := values(t, l, 0, ReadUncommitted)
	if len(all) != int(seq)+4 {
		t.Fatalf("%q", all)
	}
	for i, v := range all {
		if v != fmt.Sprintf("v%d-0", i) {
			t.Fatalf("%q", all)
		}
	}
	if !cut.happened() {
		b.release()
		c.wantSealed()
	}
}

// TestReleaseDuringMigration: the copy that is under way is neither linked nor left.
func TestReleaseDuringMigration(t *testing.T) {
	near, far := newFakeTier(), newFakeTier()
	defer near.Close()
	defer far.Close()
	x := &crossing{t: t, facts: mem.New(nil)}
	defer x.facts.Close()
	l := x.open(0, near)
	put(t, l, makeBatch(batch.Plain, 1, 2, "a"))
	x.close()
	for _, step := range []string{"append", "close"} {
		l = x.open(1, near, far)
		reached, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		far.setFault(func(op string, _ ledger.ID) error {
			if op == step {
				once.Do(func() { close(reached); <-goOn })
			}
			return nil
		})
		moved := make(chan error, 1)
		go func() {
			_, err := l.Migrate(context.Background())
			moved <- err
		}()
		await(t, reached)
		if err := x.store.ReleaseSlot(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		close(goOn)
		wantErr(t, <-moved, ErrLostOwnership)
		far.setFault(nil)
		if near.count() != 1 || far.count() != 0 {
			t.Fatalf("%s: %d and %d ledgers", step, near.count(), far.count())
		}
		x.close()
	}
	l = x.open(1, near, far)
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0", "a-1")
	x.close()
}

// TestReleaseOfIdleLogs: logs without a ledger in use cost no worker, no write and no
// wait, and each slot looks at no log of another.
func TestReleaseOfIdleLogs(t *testing.T) {
	const logs, slots = 2000, 8 // of which the last two have none
	id := func(i int) LogID { return LogID{Topic: [16]byte{15: byte(i)}, Partition: int32(i)} }
	slot := func(i int) int { return i % (slots - 2) }
	asked := 0
	w := newWorld(t, func(c *StoreConfig) {
		c.Housekeeper = func() bool { return false }
		c.Slot = func(id LogID) int { asked++; return slot(int(id.Partition)) }
	})
	for range 2 { // those of a slot that was given away are there again the second time
		for i := range logs {
			if _, err := w.store.OpenLog(t.Context(), id(i), plain()); err != nil {
				t.Fatal(err)
			}
		}
		w.store.workers.mu.Lock()
		w.store.workers.stopped = true // whoever waits for one waits for ever
		w.store.workers.mu.Unlock()
		w.meta.set(func(op, key string) error { t.Errorf("%s of %s", op, key); return nil }, nil)
		for at := slots - 1; at >= 0; at-- {
			asked = 0
			want := 0
			for i := range logs {
				if slot(i) == at {
					want++
				}
			}
			looked := 0
			w.store.closeSlot(at, func(l *Log) <-chan struct{} {
				if looked++; slot(int(l.id.Partition)) != at {
					t.Errorf("log %s is looked at for slot %d", logName(l.id), at)
				}
				return nil
			})
			if looked != want || asked != 0 {
				t.Fatalf("slot %d: %d of %d logs are looked at, slots are asked for %d times", at, looked, want, asked)
			}
			if want == 0 {
				// It costs nothing, however many logs others have.
				if n := leastAllocs(10, func() { w.store.DropSlot(at) }); n != 0 {
					t.Errorf("an empty slot costs %v allocations", n)
				}
			}
			if at%2 == 0 {
				if err := w.store.ReleaseSlot(t.Context(), at); err != nil {
					t.Fatal(err)
				}
			} else {
				w.store.DropSlot(at)
			}
			for i := range logs {
				if open := w.store.Log(id(i)) != nil; open != (slot(i) < at) {
					t.Fatalf("slot %d is given away; log %d is open: %v", at, i, open)
				}
			}
		}
		w.meta.set(nil, nil)
	}
	w.store.slots.mu.Lock()
	defer w.store.slots.mu.Unlock()
	if n := len(w.store.slots.first); n != 0 {
		t.Errorf("%d slots have logs", n)
	}
}

// TestReleaseEndsWithTheStore: it waits for nobody who will not come.
func TestReleaseEndsWithTheStore(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	w.tier.hold(true)
	r := send(l, makeBatch(batch.Plain, 1, 1, "b"))
	released := make(chan error, 1)
	go func() {
		released <- w.store.ReleaseSlot(context.Background(), 0)
	}()
	eventually(t, func() bool { return w.store.Log(testLog) == nil })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = w.store.Close(ctx)
	if err := <-released; err != nil && !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	w.tier.hold(false)
	r.wait(t)
}

// TestReleaseAfterRefusal: of batches that were refused while their ledger was being
// replaced, nothing is left in the producer state that the next owner reads.
func TestReleaseAfterRefusal(t *testing.T) {
	c := newNodes(t, 2)
	a, b := c.all[0], c.all[1]
	conf := plain()
	conf.SegmentBytes = 200
	l := a.open(conf)
	put(t, l, makeBatch(idempotent(1, 0, 0), 1, 1, "v0"))
	reached, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.tier.setFault(func(op string, _ ledger.ID) error {
		if op == "create" {
			once.Do(func() { close(reached); <-goOn })
		}
		return nil
	})
	c.tier.hold(true)
	var sent []*result
	for seq := int32(1); seq < 4; seq++ {
		sent = append(sent, send(l, makeBatch(idempotent(1, 0, seq), 1, 1, fmt.Sprint("v", seq))))
	}
	await(t, reached)
	close(goOn)
	eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.sealing) > 0
	})
	// What is with either ledger is refused, and later there is space again.
	refused := make(map[ledger.ID]bool) // read and written by the tier's goroutine
	c.tier.setFault(func(op string, id ledger.ID) error {
		if op != "append" || refused[id] {
			return nil
		}
		refused[id] = true
		return ledger.ErrNoSpace
	})
	c.tier.hold(false)
	for _, r := range sent {
		wantErr(t, r.wait(t).Err, ErrNoSpace)
	}
	c.tier.setFault(nil)
	c.assign(testLog, 1)
	a.release()
	l = b.open(conf)
	for seq := int32(1); seq < 4; seq++ {
		if at := put(t, l, makeBatch(idempotent(1, 0, seq), 1, 1, fmt.Sprint("v", seq))); at != int64(seq) {
			t.Fatalf("batch %d lies at %d", seq, at)
		}
	}
	wantValues(t, values(t, l, 0, ReadUncommitted), "v0-0", "v1-0", "v2-0", "v3-0")
}
