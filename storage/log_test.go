package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plain is the configuration of a topic with Kafka's defaults where they matter.
func plain() *LogConfig {
	return &LogConfig{
		MaxMessageBytes: 1048588, SegmentBytes: 1 << 30, SegmentAge: 7 * 24 * time.Hour, RetentionBytes: -1, RetentionAge: -1,
		TimestampBeforeMax: -1, TimestampAfterMax: -1, KeepCompression: true, Delete: true, IndexIntervalBytes: 4096,
	}
}

// world is a node: one Store on a fake tier and a metadata store with faults.
type world struct {
	t     testing.TB
	tier  *fakeTier
	meta  *faultyMeta
	store *Store
	clock atomic.Int64 // ms
	conf  StoreConfig
}

func newWorld(t testing.TB, change ...func(*StoreConfig)) *world {
	w := &world{t: t, tier: newFakeTier(), meta: &faultyMeta{Store: mem.New(nil)}}
	w.clock.Store(1_700_000_000_000)
	w.conf = StoreConfig{Prefix: "quire/test/", IdleCloseAfter: time.Hour, OrphanAge: time.Millisecond}
	for _, f := range change {
		f(&w.conf)
	}
	w.open()
	t.Cleanup(func() {
		w.tier.hold(false)
		w.close()
		w.tier.Close()
		w.meta.Store.Close()
	})
	return w
}

func (w *world) open() {
	w.t.Helper()
	if !w.tryOpen() {
		w.t.Fatal("the store does not open")
	}
}

func (w *world) tryOpen() bool {
	c := w.conf
	c.Tier, c.Meta = w.tier, w.meta
	c.Now = func() time.Time { return time.UnixMilli(w.clock.Load()) }
	s, err := Open(context.Background(), c)
	if err == nil {
		w.store = s
	}
	return err == nil
}

func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = w.store.Close(ctx)
}

// crash ends the node without warning and starts another on what is left.
func (w *world) crash(keep func(n int) int) {
	w.t.Helper()
	left := w.tier.crash(keep)
	// The old node's metadata store is cut off, so that its dying does not write.
	dead := w.meta
	w.meta = &faultyMeta{Store: dead.Store}
	dead.set(func(string, string) error { return errors.New("cut off") }, nil)
	w.tier.hold(false)
	w.tier.Close()
	w.close()
	w.tier = left
	w.clock.Add(1) // what was made before is older than the new process
	w.open()
}

func (w *world) advance(d time.Duration) { w.clock.Add(d.Milliseconds()) }

var testLog = LogID{Topic: [16]byte{15: 1}, Partition: 3}

func (w *world) log(c *LogConfig) *Log {
	w.t.Helper()
	l, err := w.store.OpenLog(context.Background(), testLog, c)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// result is an Append whose outcome can be waited for.
type result struct {
	Append
	done chan struct{}
	once int32
}

func (r *result) AppendDone(*Append) {
	if atomic.AddInt32(&r.once, 1) != 1 {
		panic("AppendDone was called twice")
	}
	if r.Buf != nil {
		r.Buf.Release()
	}
	close(r.done)
}

func (r *result) wait(t testing.TB) *result {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(time.Minute):
		t.Fatal("no answer to an append")
	}
	return r
}

func (r *result) decided() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// makeBatch builds a batch of n records with the values prefix-0, prefix-1 …
func makeBatch(h batch.Header, timestamp int64, n int, prefix string) batch.Batch {
	var w batch.Builder
	w.Reset(h)
	for i := range n {
		w.Add(timestamp+int64(i), nil, fmt.Appendf(nil, "%s-%d", prefix, i))
	}
	b, err := w.AppendTo(nil)
	if err != nil {
		panic(err)
	}
	return batch.Batch(b)
}

func idempotent(id int64, epoch int16, sequence int32) batch.Header {
	return batch.Header{ProducerID: id, ProducerEpoch: epoch, BaseSequence: sequence}
}

// send appends a batch, which it copies into a pooled buffer.
func send(l *Log, b batch.Batch) *result {
	buf := buffer.Get(len(b))
	copy(buf.B, b)
	r := &result{done: make(chan struct{})}
	r.Batch, r.Buf, r.Notify = batch.Batch(buf.B), buf, r
	l.Append(&r.Append)
	return r
}

// put appends a batch that must succeed and returns its offset.
func put(t testing.TB, l *Log, b batch.Batch) int64 {
	t.Helper()
	r := send(l, b).wait(t)
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	return r.BaseOffset
}

// values reads all records from offset on, up to what isolation allows.
func values(t testing.TB, l *Log, offset int64, i Isolation) []string {
	t.Helper()
	all, err := tryValues(t, l, offset, i)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func tryValues(t testing.TB, l *Log, offset int64, i Isolation) ([]string, error) {
	t.Helper()
	var all []string
	for {
		r := Read{Offset: offset, MaxBytes: 4096, MinOne: true, Isolation: i}
		if !l.ReadTail(&r) {
			l.Read(context.Background(), &r)
		}
		if r.Err != nil {
			return nil, fmt.Errorf("read at %d: %w", offset, r.Err)
		}
		if len(r.Records) == 0 {
			return all, nil
		}
		for _, data := range r.Records {
			b := batch.Batch(data)
			if err := b.VerifyStored(); err != nil {
				t.Fatal(err)
			}
			if b.BaseOffset() > offset {
				t.Fatalf("read at %d gave a batch at %d", offset, b.BaseOffset())
			}
			it := b.IterateStored(b.Records())
			var rec batch.Record
			for it.Next(&rec) {
				if at := b.BaseOffset() + int64(rec.OffsetDelta); at >= offset {
					if at != offset {
						t.Fatalf("offset %d after %d", at, offset)
					}
					all = append(all, string(rec.Value))
					offset++
				}
			}
		}
		for _, b := range r.Bufs {
			b.Release()
		}
	}
}

func wantValues(t testing.TB, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("read %q, want %q", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("read %q, want %q", got, want)
		}
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// settled waits until the background work of a log is done.
func (w *world) settled(l *Log) {
	w.t.Helper()
	eventually(w.t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.queued == 0 && l.queueHead == nil
	})
}

// await waits for a signal that another goroutine gives.
func await(t testing.TB, signal <-chan struct{}) {
	t.Helper()
	select {
	case <-signal:
	case <-time.After(time.Minute):
		t.Fatal("nobody was woken")
	}
}

// eventually waits for something that another goroutine brings about.
func eventually(t testing.TB, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
		runtime.Gosched()
	}
}

func TestAppendReadReopen(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	if n := len(w.tier.ids()); n != 0 {
		t.Fatalf("opening made %d ledgers", n)
	}
	if at := put(t, l, makeBatch(batch.Plain, 1, 3, "a")); at != 0 {
		t.Fatalf("first batch at %d", at)
	}
	if at := put(t, l, makeBatch(batch.Plain, 1, 2, "b")); at != 3 {
		t.Fatalf("second batch at %d", at)
	}
	wantValues(t, values(t, l, 1, ReadUncommitted), "a-1", "a-2", "b-0", "b-1")
	if start, stable, hw := l.Offsets(); start != 0 || stable != 5 || hw != 5 {
		t.Fatalf("offsets %d %d %d", start, stable, hw)
	}
	if l.Epoch() != 0 {
		t.Fatalf("epoch %d", l.Epoch())
	}
	w.close()
	w.open()
	if e := w.store.Epoch(testLog); e != 1 {
		t.Fatalf("epoch %d is announced", e)
	}
	l = w.log(plain())
	if l.Epoch() != 1 {
		t.Fatalf("epoch %d", l.Epoch())
	}
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0", "a-1", "a-2", "b-0", "b-1")
	if at := put(t, l, makeBatch(batch.Plain, 1, 1, "c")); at != 5 {
		t.Fatalf("after reopening: offset %d", at)
	}
	wantValues(t, values(t, l, 4, ReadUncommitted), "b-1", "c-0")
}

func TestHighWatermarkWaitsForTheTier(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	w.tier.hold(true)
	b, c := send(l, makeBatch(batch.Plain, 1, 1, "b")), send(l, makeBatch(batch.Plain, 1, 1, "c"))
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0")
	woken := make(chan struct{}, 1)
	wait := &Waiter{Wake: func() { woken <- struct{}{} }}
	l.Wait(wait)
	if b.decided() || c.decided() {
		t.Fatal("answered before the tier")
	}
	r := Read{Offset: 2, MaxBytes: 100}
	if !l.ReadTail(&r) || r.Err != nil || len(r.Records) != 0 || r.HighWatermark != 1 {
		t.Fatalf("read between high watermark and end: %+v", r)
	}
	w.tier.step()
	b.wait(t)
	await(t, woken)
	if c.decided() {
		t.Fatal("answered before the tier")
	}
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0", "b-0")
	l.Wait(wait)
	l.Unwait(wait)
	w.tier.step()
	c.wait(t)
	select {
	case <-woken:
		t.Fatal("woken after Unwait")
	default:
	}
}

func TestColdRead(t *testing.T) {
	w := newWorld(t, func(c *StoreConfig) { c.TailCacheBytes = 1 })
	l := w.log(plain())
	var want []string
	for i := range 300 {
		put(t, l, makeBatch(batch.Plain, int64(i), 2, fmt.Sprint(i)))
		want = append(want, fmt.Sprintf("%d-0", i), fmt.Sprintf("%d-1", i))
	}
	r := Read{Offset: 7, MaxBytes: 100, MinOne: true}
	if l.ReadTail(&r) {
		t.Fatal("answered from memory")
	}
	for _, at := range []int64{0, 1, 7, 300, 598, 599} {
		wantValues(t, values(t, l, at, ReadUncommitted), want[at:]...)
	}
	if n := w.store.tail.size(); n > 1 {
		t.Fatalf("%d bytes in the tail cache", n)
	}
}

func TestFirstAppendsQueueWhileTheLedgerIsMade(t *testing.T) {
	w := newWorld(t)
	gate := make(chan struct{})
	w.tier.setFault(func(op string, _ ledger.ID) error {
		if op == "create" {
			<-gate
		}
		return nil
	})
	l := w.log(plain())
	var all []*result
	for i := range 5 {
		all = append(all, send(l, makeBatch(batch.Plain, 1, 1, fmt.Sprint(i))))
	}
	if all[0].decided() {
		t.Fatal("decided without a ledger")
	}
	close(gate)
	for i, r := range all {
		if r.wait(t).Err != nil || r.BaseOffset != int64(i) {
			t.Fatalf("append %d: offset %d, %v", i, r.BaseOffset, r.Err)
		}
	}
	if n := len(w.tier.ids()); n != 1 {
		t.Fatalf("%d ledgers", n)
	}
}

func TestUnsentAppendsAreBounded(t *testing.T) {
	w := newWorld(t)
	gate := make(chan struct{})
	w.tier.setFault(func(op string, _ ledger.ID) error {
		if op == "create" {
			<-gate
		}
		return nil
	})
	l := w.log(plain())
	big := makeBatch(batch.Plain, 1, 1, string(bytes.Repeat([]byte("x"), 1<<20-200)))
	var all []*result
	refused := 0
	for range 20 {
		r := send(l, big)
		if r.decided() {
			wantErr(t, r.Err, ErrStorage)
			refused++
		} else {
			all = append(all, r)
		}
	}
	if refused != 4 {
		t.Fatalf("%d of 20 MiB refused", refused)
	}
	close(gate)
	for i, r := range all {
		if r.wait(t).Err != nil || r.BaseOffset != int64(i) {
			t.Fatalf("append %d: offset %d, %v", i, r.BaseOffset, r.Err)
		}
	}
}

func TestRollSwitchesWithoutStall(t *testing.T) {
	w := newWorld(t)
	c := plain()
	c.SegmentBytes = 2000
	l := w.log(c)
	var want []string
	for i := range 200 {
		put(t, l, makeBatch(batch.Plain, int64(i), 1, fmt.Sprint(i)))
		want = append(want, fmt.Sprintf("%d-0", i))
		if i%20 == 0 {
			w.settled(l)
		}
	}
	if n := len(w.tier.ids()); n < 5 {
		t.Fatalf("%d ledgers", n)
	}
	wantValues(t, values(t, l, 0, ReadUncommitted), want...)
	w.crash(func(int) int { return 0 })
	l = w.log(c)
	wantValues(t, values(t, l, 0, ReadUncommitted), want...)
}

// TestAppendsGoBeforeSeals: an append that needs a ledger does not wait for ledgers of
// other logs, or its own, to be sealed.
func TestAppendsGoBeforeSeals(t *testing.T) {
	w := newWorld(t)
	var logs []*Log
	for i := range maxBehind + 8 {
		l, err := w.store.OpenLog(t.Context(), LogID{Topic: [16]byte{15: 9}, Partition: int32(i)}, plain())
		if err != nil {
			t.Fatal(err)
		}
		put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
		w.settled(l)
		logs = append(logs, l)
	}
	sealing, gate := make(chan struct{}, len(logs)), make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	w.tier.setFault(func(op string, _ ledger.ID) error {
		if op == "close" {
			sealing <- struct{}{}
			<-gate
		}
		return nil
	})
	w.advance(w.conf.IdleCloseAfter)
	w.store.sweep(time.UnixMilli(w.clock.Load()), false)
	for range maxBehind {
		await(t, sealing)
	}
	waiting := 0
	for _, l := range logs {
		l.mu.Lock()
		served := l.served
		l.mu.Unlock()
		if !served {
			waiting++
			put(t, l, makeBatch(batch.Plain, 1, 1, "b"))
		}
	}
	put(t, w.log(plain()), makeBatch(batch.Plain, 1, 1, "c"))
	if waiting != 8 {
		t.Errorf("%d logs waited for a worker, want 8", waiting)
	}
	open()
	for _, l := range logs {
		w.settled(l)
	}
}

func TestConcurrentAppendsAndReaders(t *testing.T) {
	w := newWorld(t, func(c *StoreConfig) { c.TailCacheBytes = 8 << 10; c.SnapshotEveryBytes = 4 << 10 })
	c := plain()
	c.SegmentBytes = 32 << 10
	l := w.log(c)
	const writers, each = 4, 250
	var wg sync.WaitGroup
	var mu sync.Mutex
	at := make(map[int64]string)
	for p := range writers {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprintf("%d/%d", p, i)
				o := put(t, l, makeBatch(idempotent(int64(p), 0, int32(i)), 1, 1, name))
				mu.Lock()
				at[o] = name + "-0"
				mu.Unlock()
			}
		})
	}
	var seen []string
	wg.Go(func() {
		for len(seen) < writers*each {
			woken := make(chan struct{})
			wait := &Waiter{Wake: func() { close(woken) }}
			l.Wait(wait)
			more := values(t, l, int64(len(seen)), ReadUncommitted)
			seen = append(seen, more...)
			if len(more) == 0 {
				await(t, woken)
			} else {
				l.Unwait(wait)
			}
		}
	})
	wg.Wait()
	for i, v := range seen {
		if at[int64(i)] != v {
			t.Fatalf("offset %d: read %q, written %q", i, v, at[int64(i)])
		}
	}
}
