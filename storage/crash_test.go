package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
)

// linkedLedgers returns the ledgers of all chains, pages included.
func (w *world) linkedLedgers() []ledger.ID {
	w.t.Helper()
	var ids []ledger.ID
	_, err := w.meta.Store.List(context.Background(), w.conf.Prefix+"log/", func(kv meta.KV) bool {
		id, ok := w.store.parseChainKey(kv.Key)
		if !ok {
			w.t.Fatalf("stray key %s", kv.Key)
		}
		c, err := w.store.loadChain(context.Background(), id)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, k := range c.links {
			ids = append(ids, k.id)
		}
		return true
	})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(ids)
	return ids
}

// removeOrphans takes the two looks of the janitor.
func (w *world) removeOrphans() {
	j := janitor{store: w.store}
	j.sweep(context.Background(), w.store.c.Now())
	w.advance(w.conf.OrphanAge)
	j.sweep(context.Background(), w.store.c.Now())
}

// topicKeys gives every topic a key, of which those named exist.
func topicKeys(c *StoreConfig) {
	c.TopicKey = func(topic [16]byte) string { return fmt.Sprintf("quire/test/tid/%x", topic) }
}

func (w *world) createTopics(topics ...[16]byte) {
	w.t.Helper()
	for _, topic := range topics {
		if _, _, err := w.meta.Store.Txn(context.Background(), nil, []meta.Op{meta.Put(w.conf.TopicKey(topic), []byte("t"))}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) deleteTopic(topic [16]byte) {
	w.t.Helper()
	if _, _, err := w.meta.Store.Txn(context.Background(), nil, []meta.Op{meta.Delete(w.conf.TopicKey(topic))}); err != nil {
		w.t.Fatal(err)
	}
}

// checkLinks checks that every ledger of a chain exists and that nothing else
// is left once the janitor has been.
func (w *world) checkLinks() {
	w.t.Helper()
	linked, there := w.linkedLedgers(), w.tier.ids()
	for _, id := range linked {
		if !slices.Contains(there, id) {
			w.t.Fatalf("ledger %d is in a chain and was deleted; there are %v", id, there)
		}
	}
	w.removeOrphans()
	if now := w.tier.ids(); !slices.Equal(now, linked) {
		w.t.Fatalf("ledgers %v are left, chains have %v", now, linked)
	}
}

var errCut = errors.New("power is cut")

// cutter cuts the power at the nth step of all that is done with the tier and
// the metadata store.
type cutter struct {
	mu    sync.Mutex
	left  int
	cut   bool
	after bool // the last step is done and its answer lost
}

func (c *cutter) step(after bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return errCut
	}
	if after != c.after {
		return nil
	}
	if c.left--; c.left < 0 {
		c.cut = true
		return errCut
	}
	return nil
}

func (c *cutter) happened() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

func (c *cutter) install(w *world) {
	w.tier.setFault(func(op string, _ ledger.ID) error {
		err := c.step(false)
		if err != nil && op == "append" {
			return fmt.Errorf("%w: %w", ledger.ErrFailed, err)
		}
		return err
	})
	w.meta.set(func(string, string) error { return c.step(false) }, func(string) error { return c.step(true) })
}

// TestCrashPoints runs the life of a log (opening, appending, rolling, deleting
// records, retention, idle close, closing, reopening) and cuts the power at each of its steps.
func TestCrashPoints(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 0; ; n++ {
			c := &cutter{left: n, after: after}
			if !t.Run(fmt.Sprintf("after=%v/step=%d", after, n), func(t *testing.T) { crashAt(t, c) }) {
				return
			}
			if !c.happened() {
				if n < 8 {
					t.Fatalf("the life of a log has only %d steps", n)
				}
				break
			}
		}
	}
}

func crashAt(t *testing.T, c *cutter) {
	w := newWorld(t, func(c *StoreConfig) { c.SnapshotEveryBytes = 300; c.TailCacheBytes = 1 })
	conf := plain()
	conf.SegmentBytes = 600
	acked := make(map[int64]string)
	sequence := int32(0)
	open := func() *Log {
		l, err := w.store.OpenLog(context.Background(), testLog, conf)
		if err != nil {
			if !c.happened() {
				t.Fatal(err)
			}
			return nil
		}
		return l
	}
	send := func(l *Log, n int) {
		for range n {
			if l == nil {
				return
			}
			v := fmt.Sprintf("v%d", sequence)
			r := send(l, makeBatch(idempotent(1, 0, sequence), w.clock.Load(), 1, v)).wait(t)
			if r.Err == nil {
				acked[r.BaseOffset] = v + "-0"
				sequence++
			} else if !c.happened() {
				t.Fatal(r.Err)
			} else {
				return
			}
		}
	}
	floor := int64(0)
	c.install(w)
	func() {
		l := open()
		send(l, 12)
		if l == nil || c.happened() {
			return
		}
		w.settled(l)
		send(l, 3)
		if start, err := l.DeleteRecords(context.Background(), 5); err == nil {
			floor = start
		}
		w.settled(l)
		w.close()
		if !w.tryOpen() {
			return
		}
		l = open()
		send(l, 4)
		w.advance(2 * time.Hour)
		w.store.sweep(time.UnixMilli(w.clock.Load()), false)
		if l == nil {
			return
		}
		w.settled(l)
		aged := *conf
		aged.RetentionAge = time.Hour
		send(l, 1)
		l.SetConfig(&aged)
		w.store.sweep(time.UnixMilli(w.clock.Load()), true)
		w.settled(l)
	}()

	for _, kept := range []int{0, 1} {
		w.crash(func(n int) int { return n * kept })
		w.advance(time.Hour)
		l := w.log(conf)
		start, _, hw := l.Offsets()
		if start < floor {
			t.Fatalf("the log starts at %d, DeleteRecords said %d", start, floor)
		}
		all := values(t, l, start, ReadUncommitted)
		for at, v := range acked {
			if at >= hw || at >= start && all[at-start] != v {
				t.Fatalf("offset %d held %s; the log is [%d, %d) %q", at, v, start, hw, all)
			}
		}
		// At most the one batch that was cut off may be there beside.
		if hw > int64(len(acked))+1 {
			t.Fatalf("%d acknowledged, %d stored", len(acked), hw)
		}
		if at := put(t, l, makeBatch(idempotent(1, 0, sequence), w.clock.Load(), 1, fmt.Sprintf("v%d", sequence))); at != int64(len(acked)) {
			t.Fatalf("the next batch lies at %d after %d", at, len(acked))
		}
		acked[int64(len(acked))] = fmt.Sprintf("v%d-0", sequence)
		sequence++
		w.settled(l)
		w.checkLinks()
	}
}

func TestDeleteLogsCrashPoints(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 0; ; n++ {
			other := LogID{Topic: [16]byte{15: 2}}
			w := newWorld(t, topicKeys)
			w.createTopics(testLog.Topic, other.Topic)
			conf := plain()
			conf.SegmentBytes = 300
			l := w.log(conf)
			for i := range 10 {
				put(t, l, makeBatch(idempotent(1, 0, int32(i)), 1, 1, "v"))
				w.settled(l)
			}
			o, err := w.store.OpenLog(context.Background(), other, conf)
			if err != nil {
				t.Fatal(err)
			}
			put(t, o, makeBatch(idempotent(1, 0, 0), 1, 1, "kept"))
			w.settled(o)
			woken := make(chan struct{})
			l.Wait(&Waiter{Wake: func() { close(woken) }})
			w.deleteTopic(testLog.Topic)
			c := &cutter{left: n, after: after}
			c.install(w)
			if err := w.store.DeleteLogs(context.Background(), testLog.Topic, 8); err != nil && !c.happened() {
				t.Fatal(err)
			}
			if !c.happened() {
				await(t, woken)
				wantErr(t, send(l, makeBatch(batch.Plain, 1, 1, "v")).wait(t).Err, ErrClosed)
			}
			happened := c.happened()
			w.crash(func(int) int { return 0 })
			if err := w.store.DeleteLogs(context.Background(), testLog.Topic, 8); err != nil {
				t.Fatal(err)
			}
			w.advance(time.Hour)
			w.checkLinks()
			for _, prefix := range []string{w.store.topicPrefix(testLog.Topic), w.store.topicPagePrefix(testLog.Topic)} {
				if _, err := w.meta.List(context.Background(), prefix, func(kv meta.KV) bool {
					t.Errorf("step %d: %s is left", n, kv.Key)
					return true
				}); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(w.tier.ids()); n != 1 {
				t.Fatalf("%d ledgers are left of a log with one", n)
			}
			if e := w.store.Epoch(testLog); e != 0 {
				t.Fatalf("epoch %d of a log that does not exist", e)
			}
			if !happened {
				break
			}
		}
	}
}
