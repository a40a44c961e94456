package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/ledger"
)

func read(l *Log, r Read) Read {
	if !l.ReadTail(&r) {
		l.Read(context.Background(), &r)
	}
	for _, b := range r.Bufs {
		b.Release()
	}
	return r
}

func TestReadBounds(t *testing.T) {
	for _, cold := range []bool{false, true} {
		w := newWorld(t, func(c *StoreConfig) {
			if cold {
				c.TailCacheBytes = 1
			}
		})
		l := w.log(plain())
		size := 0
		for i := range 10 {
			b := makeBatch(batch.Plain, 1, 3, fmt.Sprint(i))
			size = len(b)
			put(t, l, b)
		}
		for _, c := range []struct {
			offset  int64
			max     int
			one     bool
			batches int
			first   int64
			err     error
		}{
			{offset: 0, max: 1 << 20, batches: 10},
			{offset: 4, max: 1 << 20, batches: 9, first: 3},
			{offset: 29, max: 1 << 20, batches: 1, first: 27},
			{offset: 30, max: 1 << 20, one: true},
			{offset: 31, max: 1 << 20, err: ErrOffsetOutOfRange},
			{offset: -1, max: 1 << 20, err: ErrOffsetOutOfRange},
			{offset: 3, max: 3*size - 1, batches: 2, first: 3},
			{offset: 3, max: 3 * size, batches: 3, first: 3},
			{offset: 3, max: size - 1},
			{offset: 3, max: size - 1, one: true, batches: 1, first: 3},
			{offset: 3, max: 0, one: true, batches: 1, first: 3},
			{offset: 3, max: 0},
		} {
			r := read(l, Read{Offset: c.offset, MaxBytes: c.max, MinOne: c.one})
			if !errors.Is(r.Err, c.err) || len(r.Records) != c.batches || r.Bytes != c.batches*size {
				t.Errorf("cold %v, %+v: %d batches, %d bytes, %v", cold, c, len(r.Records), r.Bytes, r.Err)
				continue
			}
			if len(r.Records) > 0 && batch.Batch(r.Records[0]).BaseOffset() != c.first {
				t.Errorf("cold %v, %+v: begins at %d", cold, c, batch.Batch(r.Records[0]).BaseOffset())
			}
			if r.HighWatermark != 30 || r.LastStable != 30 || r.LogStartOffset != 0 {
				t.Errorf("cold %v, %+v: %d %d %d", cold, c, r.HighWatermark, r.LastStable, r.LogStartOffset)
			}
		}
	}
}

func TestAvailable(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	size := int64(len(makeBatch(batch.Plain, 1, 2, "v")))
	for range 5 {
		put(t, l, makeBatch(batch.Plain, 1, 2, "v"))
	}
	w.tier.hold(true)
	r := send(l, makeBatch(batch.Plain, 1, 2, "v"))
	for offset, want := range map[int64]int64{0: 5 * size, 1: 5 * size, 2: 4 * size, 9: size, 10: 0, 11: 0, -1: 0} {
		if got := l.Available(offset, ReadUncommitted); got != want {
			t.Errorf("at %d: %d bytes, want %d", offset, got, want)
		}
	}
	w.tier.hold(false)
	r.wait(t)
	w.close()
	w.open()
	if got := w.log(plain()).Available(4, ReadCommitted); got < size || got > 20*size {
		t.Errorf("%d bytes after reopening", got)
	}
}

// TestTailCountsFrames: batches of one frame pin it once.
func TestTailCountsFrames(t *testing.T) {
	w := newWorld(t, func(c *StoreConfig) { c.TailCacheBytes = 12 << 10 })
	l := w.log(plain())
	one := makeBatch(batch.Plain, 1, 1, "v")
	frame := func(n int) {
		buf := buffer.Get(4 << 10)
		at := 0
		var all []*result
		for range n {
			copy(buf.B[at:], one)
			r := &result{done: make(chan struct{})}
			buf.Retain()
			r.Batch, r.Buf, r.Notify = batch.Batch(buf.B[at:at+len(one)]), buf, r
			at += len(one)
			l.Append(&r.Append)
			all = append(all, r)
		}
		buf.Release()
		for _, r := range all {
			if r.wait(t); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	cached := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.tail.n
	}
	frame(10)
	frame(10)
	if n := cached(); n != 20 {
		t.Fatalf("%d batches of two frames are cached", n)
	}
	frame(1)
	// Three frames of 4 KiB do not fit: one and no more has to go.
	if n := cached(); n != 11 {
		t.Fatalf("%d batches are cached", n)
	}
	before := buffer.InUseBytes()
	l.mu.Lock()
	l.tail.clear()
	l.mu.Unlock()
	if freed := before - buffer.InUseBytes(); freed != 8<<10 {
		t.Fatalf("the cache held %d bytes", freed)
	}
}

func TestCorruptEntryIsReportedAndNotSkipped(t *testing.T) {
	w := newWorld(t, func(c *StoreConfig) { c.TailCacheBytes = 1 })
	l := w.log(plain())
	for i := range 6 {
		put(t, l, makeBatch(batch.Plain, int64(i), 2, fmt.Sprint(i)))
	}
	w.tier.mu.Lock()
	w.tier.ledgers[1].corrupt[2] = true
	w.tier.mu.Unlock()
	r := read(l, Read{Offset: 0, MaxBytes: 1 << 20})
	if r.Err != nil || len(r.Records) != 2 {
		t.Fatalf("before it: %d batches, %v", len(r.Records), r.Err)
	}
	for _, at := range []int64{4, 5} {
		r = read(l, Read{Offset: at, MaxBytes: 1 << 20})
		if !errors.Is(r.Err, ErrCorrupt) || len(r.Records) != 0 {
			t.Fatalf("in it: %d batches, %v", len(r.Records), r.Err)
		}
	}
	for _, at := range []int64{6, 7, 11} {
		r = read(l, Read{Offset: at, MaxBytes: 1 << 20})
		if r.Err != nil || batch.Batch(r.Records[0]).BaseOffset() != at/2*2 {
			t.Fatalf("behind it, at %d: %v", at, r.Err)
		}
	}
	if _, err := l.OffsetForTime(context.Background(), 5, ReadUncommitted); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("search through it: %v", err)
	}
	// It stays so after a crash, and the log goes on behind it.
	w.crash(func(n int) int { return n })
	l = w.log(plain())
	if r = read(l, Read{Offset: 4, MaxBytes: 1 << 20}); !errors.Is(r.Err, ErrCorrupt) {
		t.Fatalf("after a crash: %v", r.Err)
	}
	if at := put(t, l, makeBatch(batch.Plain, 1, 1, "v")); at != 12 {
		t.Fatalf("after a crash: offset %d", at)
	}
	// A log outlives the loss of the final entry of its last ledger too: the
	// entries before it tell as much.
	put(t, l, makeBatch(idempotent(4, 0, 0), 1, 1, "w"))
	w.close()
	w.tier.mu.Lock()
	w.tier.ledgers[2].corrupt[2] = true
	w.tier.mu.Unlock()
	w.open()
	l = w.log(plain())
	if at := put(t, l, makeBatch(idempotent(4, 0, 0), 1, 1, "w")); at != 13 {
		t.Fatalf("the duplicate got offset %d", at)
	}
	wantValues(t, values(t, l, 12, ReadUncommitted), "v-0", "w-0")
}

// TestLastLedgerIsUnreadable: the chain knows where a sealed ledger ends, so a log goes
// on behind one of which nothing can be read any more.
func TestLastLedgerIsUnreadable(t *testing.T) {
	for _, broken := range []string{"entries", "first and final", "file"} {
		w := newWorld(t, func(c *StoreConfig) { c.TailCacheBytes = 1 })
		l := w.log(plain())
		put(t, l, makeBatch(idempotent(4, 0, 0), 1, 2, "lost"))
		w.close()
		w.open()
		l = w.log(plain())
		put(t, l, makeBatch(idempotent(4, 0, 2), 1, 2, "lost too"))
		w.close()
		w.tier.mu.Lock()
		last := w.tier.ledgers[2]
		entries := int64(len(last.entries)) // a snapshot, the batch, the final snapshot
		switch broken {
		case "entries":
			for i := range entries {
				last.corrupt[i] = true
			}
		case "first and final":
			last.corrupt[0], last.corrupt[entries-1] = true, true
		}
		w.tier.mu.Unlock()
		if broken == "file" {
			w.tier.setFault(func(op string, id ledger.ID) error {
				if (op == "open" || op == "read") && id == 2 {
					return ledger.ErrCorrupt
				}
				return nil
			})
		}
		w.open()
		l = w.log(plain())
		if at := put(t, l, makeBatch(batch.Plain, 1, 1, "v")); at != 4 {
			t.Fatalf("%s: the log goes on at offset %d", broken, at)
		}
		if r := read(l, Read{Offset: 2, MaxBytes: 1 << 20}); broken != "first and final" && !errors.Is(r.Err, ErrCorrupt) {
			t.Fatalf("%s: %d batches, %v", broken, len(r.Records), r.Err)
		}
		wantValues(t, values(t, l, 4, ReadUncommitted), "v-0")
	}
}

func TestFailedReads(t *testing.T) {
	w := newWorld(t, func(c *StoreConfig) { c.TailCacheBytes = 1 })
	l := w.log(plain())
	put(t, l, makeBatch(batch.Plain, 1, 2, "v"))
	w.tier.setFault(func(op string, _ ledger.ID) error {
		if op == "read" {
			return errors.New("the disk is gone")
		}
		return nil
	})
	r := read(l, Read{Offset: 0, MaxBytes: 100, MinOne: true})
	wantErr(t, r.Err, ErrStorage)
	w.tier.setFault(nil)
	wantValues(t, values(t, l, 0, ReadUncommitted), "v-0", "v-1")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	held, _ := w.store.cold.acquire(context.Background(), 1<<40)
	r = Read{Offset: 0, MaxBytes: 100, MinOne: true}
	l.Read(ctx, &r)
	wantErr(t, r.Err, context.Canceled)
	w.store.cold.release(held)
	if w.store.cold.free != w.store.cold.size {
		t.Fatalf("%d of %d bytes are free", w.store.cold.free, w.store.cold.size)
	}
}

func TestOffsetForTime(t *testing.T) {
	for _, codec := range []batch.Codec{batch.None, batch.Zstd} {
		w := newWorld(t)
		c := plain()
		c.SegmentBytes, c.IndexIntervalBytes = 800, 1
		l := w.log(c)
		h := batch.Header{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, Codec: codec}
		empty, err := l.OffsetForTime(context.Background(), MaxTimestamp, ReadUncommitted)
		if err != nil || empty != noOffset {
			t.Fatalf("of an empty log: %+v, %v", empty, err)
		}
		// Timestamps rise by 10 within a batch of 3 and are not in order between batches.
		var times []int64
		for i := range 40 {
			base := int64(1000 + 100*((i*7)%40))
			var b batch.Builder
			b.Reset(h)
			for j := range int64(3) {
				b.Add(base+10*j, nil, []byte("v"))
				times = append(times, base+10*j)
			}
			made, err := b.AppendTo(nil)
			if err != nil {
				t.Fatal(err)
			}
			put(t, l, made)
			w.settled(l)
		}
		checkMax := func(l *Log, start int) {
			t.Helper()
			most := int64(start)
			for i := start; i < len(times); i++ {
				if times[i] > times[most] {
					most = int64(i)
				}
			}
			got, err := l.OffsetForTime(context.Background(), MaxTimestamp, ReadUncommitted)
			if err != nil || got.Offset != most || got.Timestamp != times[most] {
				t.Fatalf("%v, max from %d on: %+v, %v; want %d", codec, start, got, err, most)
			}
		}
		check := func(l *Log, start int) {
			t.Helper()
			for ts := int64(995); ts < 5005; ts += 5 {
				want := int64(-1)
				for i := start; i < len(times); i++ {
					if times[i] >= ts {
						want = int64(i)
						break
					}
				}
				got, err := l.OffsetForTime(context.Background(), ts, ReadUncommitted)
				if err != nil || got.Offset != want || want >= 0 && got.Timestamp != times[want] {
					t.Fatalf("%v, timestamp %d: %+v, %v; want %d", codec, ts, got, err, want)
				}
			}
			checkMax(l, start)
		}
		check(l, 0)
		if _, err := l.DeleteRecords(context.Background(), 4); err != nil {
			t.Fatal(err)
		}
		check(l, 4)
		w.crash(func(n int) int { return n })
		l = w.log(c)
		check(l, 4)
		for ts, want := range map[int64]TimestampAndOffset{
			LatestTimestamp:        {Offset: 120, Timestamp: -1, LeaderEpoch: 1},
			EarliestTimestamp:      {Offset: 4, Timestamp: -1, LeaderEpoch: 0},
			EarliestLocalTimestamp: {Offset: 4, Timestamp: -1, LeaderEpoch: 0},
			LatestTieredTimestamp:  noOffset,
			EarliestPendingUpload:  noOffset,
		} {
			if got, err := l.OffsetForTime(context.Background(), ts, ReadUncommitted); err != nil || got != want {
				t.Errorf("special timestamp %d: %+v, %v; want %+v", ts, got, err, want)
			}
		}
		_, err = l.OffsetForTime(context.Background(), -7, ReadUncommitted)
		wantErr(t, err, ErrUnknownTimestamp)
		// The newest record may lie below the start, in a ledger that is still there.
		for start := 5; start < len(times); start++ {
			if _, err := l.DeleteRecords(context.Background(), int64(start)); err != nil {
				t.Fatal(err)
			}
			checkMax(l, start)
		}
		if _, err := l.DeleteRecords(context.Background(), -1); err != nil {
			t.Fatal(err)
		}
		if got, err := l.OffsetForTime(context.Background(), MaxTimestamp, ReadUncommitted); err != nil || got != noOffset {
			t.Errorf("max of what is left of nothing: %+v, %v", got, err)
		}
	}
}

func TestOffsetForLogAppendTime(t *testing.T) {
	w := newWorld(t)
	c := plain()
	c.LogAppendTime = true
	l := w.log(c)
	first := w.clock.Load()
	put(t, l, makeBatch(batch.Plain, 1, 3, "a"))
	w.advance(time.Second)
	put(t, l, makeBatch(batch.Plain, 1, 3, "b"))
	for start, want := range []TimestampAndOffset{{0, first, 0}, {1, first, 0}, {2, first, 0}, {3, first + 1000, 0}, {4, first + 1000, 0}} {
		if _, err := l.DeleteRecords(context.Background(), int64(start)); err != nil {
			t.Fatal(err)
		}
		if got, err := l.OffsetForTime(context.Background(), 5, ReadUncommitted); err != nil || got != want {
			t.Fatalf("from %d: %+v, %v; want %+v", start, got, err, want)
		}
	}
}

func TestIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newIndex(rapid.IntRange(1, 5000).Draw(t, "interval"))
		n := rapid.IntRange(1, 5000).Draw(t, "entries")
		seed := rapid.Int64Range(1, 1000).Draw(t, "seed")
		type entry struct{ offset, time int64 }
		entries := make([]entry, n)
		offset := int64(0)
		for i := range entries {
			seed = (seed*1103515245 + 12345) & 0x7fffffff
			entries[i] = entry{offset, seed % 10_000}
			x.add(int64(i), offset, 100+seed%400, entries[i].time)
			offset += 1 + seed%3
		}
		if len(x.rows) > maxIndexRows {
			t.Fatalf("%d rows", len(x.rows))
		}
		at := rapid.Int64Range(0, offset-1).Draw(t, "offset")
		e := x.entryOf(at)
		if entries[e].offset > at {
			t.Fatalf("offset %d is sought from entry %d at %d on", at, e, entries[e].offset)
		}
		ts := rapid.Int64Range(0, 10_000).Draw(t, "time")
		e = x.entryOfTime(ts)
		for i := range e {
			if entries[i].time >= ts {
				t.Fatalf("time %d is sought from entry %d on, entry %d has %d", ts, e, i, entries[i].time)
			}
		}
		x.cut(e)
		for _, r := range x.rows {
			if r.entry >= e {
				t.Fatalf("row of entry %d after a cut at %d", r.entry, e)
			}
		}
	})
}

func control(id int64, epoch int16, commit bool, coordinator int32) batch.Batch {
	var w batch.Builder
	w.Reset(batch.Header{ProducerID: id, ProducerEpoch: epoch, BaseSequence: -1, Transactional: true, Control: true})
	key := []byte{0, 0, 0, 0}
	if commit {
		key[3] = 1
	}
	w.Add(77, key, binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(coordinator)))
	b, err := w.AppendTo(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func mark(t testing.TB, l *Log, b batch.Batch) error {
	t.Helper()
	r := &result{done: make(chan struct{})}
	r.Batch, r.Notify, r.Marker = b, r, true
	l.Append(&r.Append)
	return r.wait(t).Err
}

func TestTransactions(t *testing.T) {
	t.Run("tail", func(t *testing.T) { testTransactions(t, 1<<20) })
	t.Run("cold", func(t *testing.T) { testTransactions(t, 1) })
}

func testTransactions(t *testing.T, tailBytes int64) {
	w := newWorld(t, func(c *StoreConfig) { c.SnapshotEveryBytes, c.TailCacheBytes = 200, tailBytes })
	c := plain()
	l := w.log(c)
	txn := func(id int64, seq int32) batch.Batch {
		return makeBatch(batch.Header{ProducerID: id, BaseSequence: seq, Transactional: true}, 1, 2, fmt.Sprintf("t%d.%d", id, seq))
	}
	put(t, l, makeBatch(batch.Plain, 1, 1, "p")) // 0
	put(t, l, txn(1, 0))                         // 1, 2
	put(t, l, makeBatch(batch.Plain, 1, 1, "q")) // 3
	put(t, l, txn(2, 0))                         // 4, 5
	want := func(stable, hw int64) {
		t.Helper()
		if _, s, h := l.Offsets(); s != stable || h != hw {
			t.Fatalf("stable %d, high watermark %d; want %d, %d", s, h, stable, hw)
		}
	}
	want(1, 6)
	wantValues(t, values(t, l, 0, ReadCommitted), "p-0")
	if err := send(l, makeBatch(idempotent(1, 0, 2), 1, 1, "v")).wait(t).Err; !errors.Is(err, ErrTxnState) {
		t.Fatalf("outside of its transaction: %v", err)
	}
	if err := mark(t, l, control(2, 0, false, 5)); err != nil { // 6
		t.Fatal(err)
	}
	want(1, 7)
	wantErr(t, mark(t, l, control(2, 0, true, 4)), ErrCoordinatorFenced)

	// The marker counts once it is durable, and the log remembers over a crash.
	w.tier.hold(true)
	r := &result{done: make(chan struct{})}
	r.Batch, r.Notify, r.Marker = control(1, 0, true, 5), r, true
	l.Append(&r.Append) // 7
	want(1, 7)
	w.tier.hold(false)
	r.wait(t)
	want(8, 8)
	for i := range 3 {
		aborted := read(l, Read{Offset: 0, MaxBytes: 1 << 20, Isolation: ReadCommitted}).Aborted
		if len(aborted) != 1 || aborted[0] != (AbortedTxn{ProducerID: 2, FirstOffset: 4}) {
			t.Fatalf("aborted: %+v", aborted)
		}
		if a := read(l, Read{Offset: 7, MaxBytes: 1 << 20, Isolation: ReadCommitted}).Aborted; len(a) != 0 {
			t.Fatalf("aborted behind it: %+v", a)
		}
		if a := read(l, Read{Offset: 0, MaxBytes: 1 << 20}).Aborted; len(a) != 0 {
			t.Fatalf("aborted for a reader of everything: %+v", a)
		}
		if i < 2 {
			if i == 0 {
				w.crash(func(n int) int { return n })
			} else {
				w.close()
				w.open()
			}
			l = w.log(c)
			want(8, 8)
		}
	}
	// An open transaction survives too.
	put(t, l, txn(3, 0)) // 8, 9
	w.crash(func(n int) int { return n })
	l = w.log(c)
	want(8, 10)
	if p := l.Producers(); len(p) != 3 || p[2].TxnStartOffset != 8 || p[0].CoordinatorEpoch != 5 {
		t.Fatalf("%+v", p)
	}
	woken := make(chan struct{})
	l.Wait(&Waiter{Wake: func() { close(woken) }})
	if err := mark(t, l, control(3, 1, false, 6)); err != nil { // 10
		t.Fatal(err)
	}
	await(t, woken)
	want(11, 11)
	wantErr(t, send(l, txn(3, 2)).wait(t).Err, ErrProducerEpoch)
}

func TestTransactionRollsBack(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	first := makeBatch(batch.Header{ProducerID: 1, Transactional: true}, 1, 1, "a")
	put(t, l, first)
	w.tier.hold(true)
	r := &result{done: make(chan struct{})}
	r.Batch, r.Notify, r.Marker = control(1, 0, false, 5), r, true
	l.Append(&r.Append)
	next := send(l, makeBatch(batch.Header{ProducerID: 1, BaseSequence: 1, Transactional: true}, 1, 1, "b"))
	w.tier.setNoSpace(true)
	w.tier.hold(false)
	wantErr(t, r.wait(t).Err, ErrNoSpace)
	wantErr(t, next.wait(t).Err, ErrNoSpace)
	w.tier.setNoSpace(false)
	if _, stable, hw := l.Offsets(); stable != 0 || hw != 1 {
		t.Fatalf("stable %d of %d", stable, hw)
	}
	if p := l.Producers(); p[0].TxnStartOffset != 0 || p[0].CoordinatorEpoch != -1 || p[0].LastSequence != 0 {
		t.Fatalf("%+v", p[0])
	}
	if err := mark(t, l, control(1, 0, true, 5)); err != nil {
		t.Fatal(err)
	}
	if r := read(l, Read{Offset: 0, MaxBytes: 1000, Isolation: ReadCommitted}); len(r.Aborted) != 0 || r.LastStable != 2 {
		t.Fatalf("%+v", r)
	}
}

func TestBudget(t *testing.T) {
	b := newBudget(10)
	ctx, cancel := context.WithCancel(context.Background())
	n, err := b.acquire(ctx, 100)
	if n != 10 || err != nil {
		t.Fatalf("took %d, %v", n, err)
	}
	got := make(chan int64, 2)
	go func() {
		n, err := b.acquire(ctx, 8)
		if err == nil {
			n = -1
		}
		got <- n
	}()
	eventually(t, func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.waiting) == 1 })
	go func() {
		n, _ := b.acquire(context.Background(), 5)
		got <- n
	}()
	eventually(t, func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.waiting) == 2 })
	cancel()
	if n := <-got; n != 0 {
		t.Fatalf("a cancelled reader took %d", n)
	}
	b.release(10)
	if n := <-got; n != 5 || b.free != 5 {
		t.Fatalf("took %d, %d are left", n, b.free)
	}
}
