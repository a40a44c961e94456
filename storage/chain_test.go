package storage

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/mem"
)

func drawLinks(t *rapid.T, n int) []link {
	links := make([]link, 0, n)
	base, id := rapid.Int64Range(0, 1<<50).Draw(t, "base"), ledger.ID(0)
	for i := range n {
		id += ledger.ID(rapid.IntRange(1, 1000).Draw(t, "id"))
		k := link{id: id, epoch: int32(i)}
		if i < n-rapid.IntRange(0, 1).Draw(t, "open") {
			k.sealed, k.aborted = true, rapid.Bool().Draw(t, "aborted")
			k.base, k.last = base, base+rapid.Int64Range(0, 1<<31).Draw(t, "records")
			k.lastEntry, k.bytes = rapid.Int64Range(0, 1<<40).Draw(t, "entry"), rapid.Int64Range(0, 1<<40).Draw(t, "bytes")
			k.maxTimestamp, k.written = rapid.Int64Range(-1, 1<<45).Draw(t, "time"), rapid.Int64Range(0, 1<<45).Draw(t, "sealed")
			base = k.last + 1
		}
		links = append(links, k)
	}
	return links
}

func TestChainRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &chain{
			epoch: rapid.Int32Range(0, 1<<31-1).Draw(t, "epoch"), start: rapid.Int64Range(0, 1<<60).Draw(t, "start"),
			owner: rapid.Uint64().Draw(t, "owner"), swap: rapid.Uint64().Draw(t, "swap"), nextPage: 3,
			pages: []page{}, links: drawLinks(t, rapid.IntRange(0, 8).Draw(t, "links")), rev: 7,
		}
		if len(c.links) == 0 {
			c.links = nil
		}
		value := c.encode()
		got, err := decodeChain(meta.KV{Key: "k", Value: value, Modified: 7})
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("%+v became %+v, %v", c, got, err)
		}
		if epoch, err := decodeEpoch(value); err != nil || epoch != c.epoch {
			t.Fatalf("epoch %d, %v", epoch, err)
		}
		for i := range value {
			if _, err := decodeChain(meta.KV{Value: value[:i]}); err == nil {
				t.Fatalf("%d of %d bytes are taken for a record", i, len(value))
			}
		}
	})
}

func FuzzDecodeChain(f *testing.F) {
	f.Add((&chain{epoch: 3, links: []link{{id: 4, sealed: true, last: 9}, {id: 5}}, pages: []page{{number: 1, links: 2}}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeChain(meta.KV{Value: b})
		if err == nil && c.epoch < 0 {
			t.Fatalf("epoch %d", c.epoch)
		}
	})
}

func FuzzDecodeSnapshot(f *testing.F) {
	t := new(producerTable)
	t.add(7, 10).apply(makeBatch(idempotent(7, 1, 5), 1, 2, "v"), 3)
	x := newIndex(1)
	x.add(0, 0, 10, 5)
	x.add(1, 2, 10, 4)
	f.Add(encodeSnapshot(encodeState(t), 20, &x, []abortedTxn{{producer: 1, first: 2, last: 9}}))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = decodeSnapshot(b) })
}

func FuzzDecodeEntry(f *testing.F) {
	var b [headBytes]byte
	head{kind: kindData, entry: 5, snapshot: 3, offset: 9}.encode(&b)
	f.Add(append(b[:], makeBatch(batch.Plain, 1, 1, "v")...))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if h, body, err := decodeEntry(b); err == nil {
			_, _ = decodeData(h, body)
		}
	})
}

func TestSnapshotRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := new(producerTable)
		for i := range rapid.IntRange(0, 20).Draw(t, "producers") {
			p := table.add(int64(i*i), 100)
			for range rapid.IntRange(0, 7).Draw(t, "batches") {
				h := batch.Header{ProducerID: p.id, ProducerEpoch: 3, BaseSequence: rapid.Int32Range(0, 1<<31-1).Draw(t, "sequence"),
					BaseOffset: rapid.Int64Range(0, 1<<50).Draw(t, "offset"), Transactional: rapid.Bool().Draw(t, "txn")}
				p.apply(makeBatch(h, rapid.Int64Range(-1, 1<<50).Draw(t, "time"), 3, "v"), 99)
			}
			p.coordinatorEpoch = rapid.Int32Range(-1, 5).Draw(t, "coordinator")
		}
		x := newIndex(1)
		for i := range rapid.Int64Range(0, 3000).Draw(t, "rows") {
			x.add(i, 10*i, 50, (i*7)%1000)
		}
		aborted := []abortedTxn{{producer: 4, first: 10, last: 20}, {producer: -5, first: 11, last: 1 << 40}}
		b := encodeSnapshot(encodeState(table), 12345, &x, aborted)
		s, err := decodeSnapshot(b)
		if err != nil {
			t.Fatal(err)
		}
		if s.bytes != 12345 || fmt.Sprint(s.aborted) != fmt.Sprint(aborted) || fmt.Sprint(s.index) != fmt.Sprint(x) {
			t.Fatalf("%+v", s)
		}
		p := s.producers
		var q *producer
		if p != nil {
			q = p.oldest
		}
		for want := table.oldest; want != nil; want = want.newer {
			if want.epoch == noEpoch {
				continue // nothing is known of it
			}
			if q == nil || q.id != want.id || q.producerState != want.producerState {
				t.Fatalf("producer %d: %+v became %+v", want.id, want, q)
			}
			q = q.newer
		}
		if q != nil {
			t.Fatalf("producer %d was made up", q.id)
		}
		for i := range b {
			if _, err := decodeSnapshot(b[:i]); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%d of %d bytes: %v", i, len(b), err)
			}
		}
	})
}

// TestChainPages: the record of a long chain stays small.
func TestChainPages(t *testing.T) {
	ctx := context.Background()
	m := &faultyMeta{Store: mem.New(nil)}
	defer m.Store.Close()
	s := &Store{c: StoreConfig{Meta: m, Prefix: "quire/test/"}}
	c := &chain{owner: 1}
	largest := 0
	for i := range 3000 {
		next := c.clone()
		next.swap++
		if n := len(next.links); n > 0 {
			k := &next.links[n-1]
			k.sealed, k.base, k.last, k.bytes, k.lastEntry = true, int64(i)*1000, int64(i)*1000+999, 1<<30, 1<<20
			k.maxTimestamp, k.written = 1_700_000_000_000+int64(i*i), 1_700_000_000_000+int64(i)
		}
		next.links = append(next.links, link{id: ledger.ID(i*97 + 1), epoch: 1})
		if err := s.swapChain(ctx, testLog, c, next); err != nil {
			t.Fatal(err)
		}
		c = next
		largest = max(largest, len(c.encode()))
	}
	if largest > chainSpillBytes+chainSpillBytes/8 || len(c.pages) < 2 {
		t.Fatalf("records of %d bytes, %d pages", largest, len(c.pages))
	}
	same := func() {
		t.Helper()
		got, err := s.loadChain(ctx, testLog)
		if err != nil || !reflect.DeepEqual(got.links, c.links) {
			t.Fatalf("%d links became %d, %v", len(c.links), len(got.links), err)
		}
	}
	same()
	for _, n := range []int{1, 10, 400, 1, 700, 1200} {
		next := c.clone()
		next.swap++
		gone := next.drop(n)
		if err := s.swapChain(ctx, testLog, c, next); err != nil {
			t.Fatal(err)
		}
		c = next
		same()
		if err := s.deletePages(ctx, testLog, gone); err != nil {
			t.Fatal(err)
		}
		same()
	}
	pages := func() (n int) {
		if _, err := m.List(ctx, s.pagePrefix(testLog), func(meta.KV) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if pages() != len(c.pages) {
		t.Fatalf("%d pages are stored, %d are named", pages(), len(c.pages))
	}
	// 0 is left from before, 900 is the page of a later owner.
	if _, _, err := m.Txn(ctx, nil, []meta.Op{meta.Put(s.pageKey(testLog, 0), []byte("x")), meta.Put(s.pageKey(testLog, 900), []byte("x"))}); err != nil {
		t.Fatal(err)
	}
	if err := s.removeStrayPages(ctx, testLog, c); err != nil || pages() != len(c.pages)+1 {
		t.Fatalf("%d pages are stored, %d are named, %v", pages(), len(c.pages), err)
	}
	if _, err := m.Get(ctx, s.pageKey(testLog, 900)); err != nil {
		t.Fatal(err)
	}
}

func TestSwapOutcomes(t *testing.T) {
	ctx := context.Background()
	m := &faultyMeta{Store: mem.New(nil)}
	defer m.Store.Close()
	s := &Store{c: StoreConfig{Meta: m, Prefix: "quire/test/"}}
	c := &chain{owner: 1, swap: 1}
	lost := func(string) error { return meta.ErrUnknownOutcome }
	// The answer is lost, the record tells.
	m.set(nil, lost)
	if err := s.swapChain(ctx, testLog, &chain{}, c); err != nil || c.rev == 0 {
		t.Fatalf("revision %d, %v", c.rev, err)
	}
	// The answer is lost and the record cannot be read: the next swap of the
	// same owner writes over whichever of the two is there.
	m.set(func(op, _ string) error {
		if op == "get" {
			return meta.ErrUnavailable
		}
		return nil
	}, lost)
	late := c.clone()
	late.swap, late.start = 2, 5
	wantErr(t, s.swapChain(ctx, testLog, c, late), meta.ErrUnknownOutcome)
	m.set(nil, nil)
	next := c.clone()
	next.swap, next.start = 3, 9
	if err := s.swapChain(ctx, testLog, c, next); err != nil {
		t.Fatal(err)
	}
	if got, err := s.loadChain(ctx, testLog); err != nil || got.start != 9 || got.rev != next.rev {
		t.Fatalf("%+v, %v", got, err)
	}
	// Another owner was there.
	other := next.clone()
	other.owner, other.swap = 2, 1
	if err := s.swapChain(ctx, testLog, next, other); err != nil {
		t.Fatal(err)
	}
	mine := next.clone()
	mine.swap = 4
	wantErr(t, s.swapChain(ctx, testLog, next, mine), errConflict)
}

func TestLostOwnership(t *testing.T) {
	w := newWorld(t)
	c := plain()
	c.SegmentBytes = 300
	l := w.log(c)
	put(t, l, makeBatch(idempotent(1, 0, 0), 1, 1, "a"))
	old := w.store
	w.open()
	l2 := w.log(c)
	if l2.Epoch() != 1 {
		t.Fatalf("epoch %d", l2.Epoch())
	}
	// The old owner is fenced: it hears of it by its next append.
	wantErr(t, send(l, makeBatch(batch.Plain, 1, 1, "b")).wait(t).Err, ErrLostOwnership)
	wantErr(t, send(l, makeBatch(batch.Plain, 1, 1, "b")).wait(t).Err, ErrLostOwnership)
	if at := put(t, l2, makeBatch(idempotent(1, 0, 1), 1, 1, "c")); at != 1 {
		t.Fatalf("offset %d", at)
	}
	// An owner without a ledger hears of it by its next swap.
	third := w.store
	w.advance(2 * time.Hour)
	third.sweep(time.UnixMilli(w.clock.Load()), false)
	w.settled(l2)
	w.open()
	l3 := w.log(c)
	r := send(l2, makeBatch(batch.Plain, 1, 1, "d")).wait(t)
	if !errors.Is(r.Err, ErrLostOwnership) && !errors.Is(r.Err, ErrStorage) {
		t.Fatalf("%v", r.Err)
	}
	wantErr(t, send(l2, makeBatch(batch.Plain, 1, 1, "d")).wait(t).Err, ErrLostOwnership)
	wantValues(t, values(t, l3, 0, ReadUncommitted), "a-0", "c-0")
	for _, s := range []*Store{old, third} {
		if err := s.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMetadataAway: while the metadata store is away an open ledger takes
// appends beyond its size, and the roll follows when it is back.
func TestMetadataAway(t *testing.T) {
	w := newWorld(t)
	c := plain()
	c.SegmentBytes = 300
	l := w.log(c)
	put(t, l, makeBatch(batch.Plain, 1, 1, "v"))
	w.settled(l)
	w.meta.set(func(string, string) error { return meta.ErrUnavailable }, nil)
	for range 20 {
		w.advance(2 * retryPause)
		put(t, l, makeBatch(batch.Plain, 1, 1, "v"))
		w.settled(l)
	}
	if start, _, hw := l.Offsets(); start != 0 || hw != 21 {
		t.Fatalf("[%d, %d)", start, hw)
	}
	w.meta.set(nil, nil)
	if n := len(w.linkedLedgers()); n != 1 {
		t.Fatalf("%d ledgers are linked", n)
	}
	for range 3 {
		w.advance(2 * retryPause)
		put(t, l, makeBatch(batch.Plain, 1, 1, "v"))
		w.settled(l)
	}
	if n := len(w.linkedLedgers()); n < 2 {
		t.Fatalf("%d ledgers are linked", n)
	}
	// A log without a ledger cannot do without it, and says so.
	id := LogID{Topic: [16]byte{1}}
	o, err := w.store.OpenLog(context.Background(), id, c)
	if err != nil {
		t.Fatal(err)
	}
	w.meta.set(func(string, string) error { return meta.ErrUnavailable }, nil)
	a, b := send(o, makeBatch(batch.Plain, 1, 1, "v")), send(o, makeBatch(batch.Plain, 1, 1, "v"))
	wantErr(t, a.wait(t).Err, ErrStorage)
	wantErr(t, b.wait(t).Err, ErrStorage)
	w.meta.set(nil, nil)
	if at := put(t, o, makeBatch(batch.Plain, 1, 1, "v")); at != 0 {
		t.Fatalf("offset %d", at)
	}
}

// TestOpenReadsLittle: what opening a log replays is bounded by the distance
// between snapshots.
func TestOpenReadsLittle(t *testing.T) {
	w := newWorld(t, func(c *StoreConfig) { c.SnapshotEveryBytes = 2000 })
	l := w.log(plain())
	for i := range 500 {
		put(t, l, makeBatch(idempotent(int64(i%3), 0, int32(i/3)), 1, 1, "v"))
	}
	w.crash(func(n int) int { return n })
	l = w.log(plain())
	w.tier.mu.Lock()
	entries := w.tier.reads
	w.tier.mu.Unlock()
	if entries > 40 {
		t.Fatalf("%d entries were read to open", entries)
	}
	for i := range int64(3) {
		if at := put(t, l, makeBatch(idempotent(i, 0, int32(166-i/2)), 1, 1, "v")); at != 498+i {
			if i < 2 {
				t.Fatalf("the duplicate of producer %d got offset %d", i, at)
			}
		}
	}
}

func TestEpochEnd(t *testing.T) {
	w := newWorld(t)
	c := plain()
	l := w.log(c)
	reopen := func(n int) {
		w.crash(func(n int) int { return n })
		l = w.log(c)
		for range n {
			put(t, l, makeBatch(batch.Plain, 1, 5, "v"))
		}
	}
	put(t, l, makeBatch(batch.Plain, 1, 10, "v")) // epoch 0: [0, 10)
	reopen(0)                                     // epoch 1: nothing
	reopen(2)                                     // epoch 2: [10, 20)
	reopen(1)                                     // epoch 3: [20, 25)
	reopen(1)                                     // epoch 4: [25, 30)
	for _, c := range []struct {
		ask, epoch int32
		end        int64
	}{{-1, -1, -1}, {0, 0, 10}, {1, 0, 10}, {2, 2, 20}, {3, 3, 25}, {4, 4, 30}, {5, -1, -1}} {
		if epoch, end := l.EpochEnd(c.ask); epoch != c.epoch || end != c.end {
			t.Errorf("epoch %d: %d, %d; want %d, %d", c.ask, epoch, end, c.epoch, c.end)
		}
	}
	if _, err := l.DeleteRecords(context.Background(), 22); err != nil {
		t.Fatal(err)
	}
	w.settled(l)
	if epoch, end := l.EpochEnd(1); epoch != 1 || end != 22 {
		t.Errorf("an epoch that is gone: %d, %d", epoch, end)
	}
	reopen(0)
	if epoch, end := l.EpochEnd(4); epoch != 4 || end != 30 {
		t.Errorf("the epoch before one without records: %d, %d", epoch, end)
	}
	if epoch, end := l.EpochEnd(5); epoch != 5 || end != 30 {
		t.Errorf("an epoch without records: %d, %d", epoch, end)
	}
}

// rollHeld brings a log to where two ledgers have appends on their way: it
// returns the first batch in each.
func (w *world) rollHeld(c *LogConfig) (l *Log, a, b *result) {
	w.t.Helper()
	l = w.log(c)
	put(w.t, l, makeBatch(idempotent(1, 0, 0), 1, 1, "first"))
	w.settled(l)
	w.tier.hold(true)
	roll := *c
	roll.SegmentBytes = 1
	roll.MaxMessageBytes = 0
	l.mu.Lock()
	old := l.seg
	l.mu.Unlock()
	l.SetConfig(c)
	a = send(l, makeBatch(idempotent(1, 0, 1), 1, 1, "a"))
	l.mu.Lock()
	l.config.Store(&roll)
	l.schedule(workLedger)
	l.mu.Unlock()
	eventually(w.t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.seg != old
	})
	l.SetConfig(c)
	b = send(l, makeBatch(idempotent(1, 0, 2), 1, 1, "b"))
	return l, a, b
}

// TestAcknowledgedInOrderAcrossLedgers: what is stored in a ledger counts only
// with all that was appended to the one before it.
func TestAcknowledgedInOrderAcrossLedgers(t *testing.T) {
	answerSecond := func(w *world) {
		w.tier.mu.Lock()
		w.tier.queue = append(w.tier.queue[1:], w.tier.queue[0])
		w.tier.mu.Unlock()
		for range 2 { // the head snapshot and the batch
			w.tier.step()
		}
	}
	t.Run("acknowledged", func(t *testing.T) {
		w := newWorld(t)
		l, a, b := w.rollHeld(plain())
		answerSecond(w)
		if b.decided() {
			t.Fatal("acknowledged before the ledger before it")
		}
		if _, _, hw := l.Offsets(); hw != 1 {
			t.Fatalf("high watermark %d", hw)
		}
		w.tier.hold(false)
		if a.wait(t).Err != nil || b.wait(t).Err != nil || a.BaseOffset != 1 || b.BaseOffset != 2 {
			t.Fatalf("%d %v, %d %v", a.BaseOffset, a.Err, b.BaseOffset, b.Err)
		}
	})
	for _, fault := range []error{ledger.ErrNoSpace, ledger.ErrFailed, ledger.ErrFenced} {
		t.Run(fault.Error(), func(t *testing.T) {
			w := newWorld(t)
			l, a, b := w.rollHeld(plain())
			answerSecond(w)
			w.tier.setFault(func(op string, id ledger.ID) error {
				if op == "append" && id == 1 {
					return fault
				}
				return nil
			})
			w.tier.hold(false)
			if a.wait(t).Err == nil || b.wait(t).Err == nil {
				t.Fatalf("%v, %v", a.Err, b.Err)
			}
			wantErr(t, send(l, makeBatch(batch.Plain, 1, 1, "x")).wait(t).Err, l.closed)
			w.tier.setFault(nil)
			l = w.log(plain())
			wantValues(t, values(t, l, 0, ReadUncommitted), "first-0")
			if ids := w.tier.ids(); slices.Contains(ids, 2) {
				t.Fatalf("ledgers %v: what was dropped is not deleted", ids)
			}
			for i, v := range []string{"a", "b"} {
				if at := put(t, l, makeBatch(idempotent(1, 0, int32(i+1)), 1, 1, v)); at != int64(i+1) {
					t.Fatalf("%s again: offset %d", v, at)
				}
			}
			w.settled(l)
			w.crash(func(n int) int { return n })
			w.checkLinks()
		})
	}
	t.Run("power cut", func(t *testing.T) {
		w := newWorld(t)
		w.rollHeld(plain())
		answerSecond(w)
		w.crash(func(int) int { return 0 })
		wantValues(t, values(t, w.log(plain()), 0, ReadUncommitted), "first-0")
	})
}

// TestSealedElsewhere: a ledger that turns out to hold more than the log put
// there is not vouched for.
func TestSealedElsewhere(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	w.tier.mu.Lock()
	stray := w.tier.ledgers[1]
	stray.entries = append(stray.entries, stray.entries[0])
	w.tier.mu.Unlock()
	w.advance(2 * time.Hour)
	w.store.sweep(time.UnixMilli(w.clock.Load()), false)
	w.settled(l)
	wantErr(t, send(l, makeBatch(batch.Plain, 1, 1, "b")).wait(t).Err, ErrStorage)
	// Opening finds that the stray entry is not where its writer expected it.
	l = w.log(plain())
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0")
	if at := put(t, l, makeBatch(batch.Plain, 1, 1, "b")); at != 1 {
		t.Fatalf("offset %d", at)
	}
}

// TestSealGoesOnWaiting: a tier that is slow to take the final entry delays the
// seal and nothing else.
func TestSealGoesOnWaiting(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	w.tier.hold(true)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	l.admin.Lock()
	l.mu.Lock()
	l.retire(nil)
	l.mu.Unlock()
	err := l.seal(gone)
	l.admin.Unlock()
	wantErr(t, err, context.Canceled)
	b := send(l, makeBatch(batch.Plain, 1, 1, "b"))
	w.tier.hold(false)
	if b.wait(t).Err != nil || b.BaseOffset != 1 || l.Epoch() != 0 {
		t.Fatalf("offset %d in epoch %d, %v", b.BaseOffset, l.Epoch(), b.Err)
	}
	w.advance(2 * retryPause)
	w.store.sweep(time.UnixMilli(w.clock.Load()), false)
	w.settled(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sealing) != 0 || len(l.chain.links) != 2 || !l.chain.links[0].sealed || l.chain.links[0].lastEntry != 1 {
		t.Fatalf("%d ledgers are not sealed, %+v", len(l.sealing), l.chain.links)
	}
}
