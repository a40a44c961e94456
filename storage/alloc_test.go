package storage

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"
	"unsafe"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta/mem"
)

// memoryTier acknowledges when it is told to and keeps nothing.
type memoryTier struct {
	ledger.Tier
	head, tail *ledger.Append
	entries    int64
}

func (t *memoryTier) Create(context.Context, ledger.Properties) (ledger.Writer, error) {
	return &memoryWriter{t: t}, nil
}
func (*memoryTier) MaxEntryBytes() int { return 64 << 20 }

func (t *memoryTier) List(context.Context, func(ledger.Info) bool) error { return nil }
func (t *memoryTier) Recover(context.Context, ledger.ID) (ledger.Reader, error) {
	return nil, errors.New("keeps nothing")
}

type memoryWriter struct{ t *memoryTier }

type memoryReader struct{ ledger.Reader }

func (memoryReader) Close() error { return nil }

func (w *memoryWriter) ID() ledger.ID { return 1 }
func (w *memoryWriter) Append(a *ledger.Append) {
	a.Next = nil
	if w.t.tail != nil {
		w.t.tail.Next = a
	} else {
		w.t.head = a
	}
	w.t.tail = a
}
func (w *memoryWriter) Close(context.Context) (ledger.Sealed, error) {
	return ledger.Sealed{}, errors.New("keeps nothing")
}
func (w *memoryWriter) Reader() ledger.Reader { return memoryReader{} }

// ack answers everything.
func (t *memoryTier) ack() {
	for a := t.head; a != nil; {
		next := a.Next
		a.Entry = t.entries
		t.entries++
		a.Done.Appended(a, nil)
		a = next
	}
	t.head, t.tail = nil, nil
}

type silent struct{}

func (silent) AppendDone(*Append) {}

func openOnMemory(tb testing.TB) (*Log, *memoryTier) {
	tb.Helper()
	t := &memoryTier{}
	m := mem.New(nil)
	s, err := Open(context.Background(), StoreConfig{Tier: t, Meta: m, Prefix: "quire/test/", TailCacheBytes: 1 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Close(ctx)
		m.Close()
	})
	l, err := s.OpenLog(context.Background(), testLog, plain())
	if err != nil {
		tb.Fatal(err)
	}
	// The first append makes the ledger.
	l.Append(&Append{Batch: makeBatch(batch.Plain, 1, 1, "v"), Notify: silent{}})
	eventually(tb, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return t.head != nil && l.queued == 0
	})
	t.ack()
	return l, t
}

// leastAllocs is the least that several runs of f allocate, each time, in the whole process: what
// the process does beside them counts too, and is not there in all of them.
func leastAllocs(runs int, f func()) float64 {
	least := math.Inf(1)
	for attempt := 0; attempt < 10 && least > 0; attempt++ {
		least = min(least, testing.AllocsPerRun(runs, f))
	}
	return least
}

// TestAppendAllocatesNothing holds the path of a produce request: append, ack,
// eviction of what is older, and a read from the tail.
func TestAppendAllocatesNothing(t *testing.T) {
	l, tier := openOnMemory(t)
	b := makeBatch(idempotent(7, 0, 0), 1, 20, "value")
	a := &Append{Notify: silent{}}
	var r Read
	sequence := int32(0)
	step := func() {
		buf := buffer.Get(len(b))
		copy(buf.B, b)
		a.Batch, a.Buf = batch.Batch(buf.B), buf
		putSequence(a.Batch, sequence)
		sequence += b.Count()
		l.Append(a)
		tier.ack()
		buf.Release()
		if a.Err != nil {
			t.Fatal(a.Err)
		}
		r.Offset, r.MaxBytes, r.MinOne = a.BaseOffset, 1<<20, true
		if !l.ReadTail(&r) || len(r.Records) != 1 {
			t.Fatalf("%+v", r)
		}
		for _, b := range r.Bufs {
			b.Release()
		}
	}
	for range 5000 { // fills the tail cache
		step()
	}
	// An index and the rings grow now and then.
	if n := leastAllocs(5000, step); n >= 1 && !raceEnabled {
		t.Fatalf("%v allocations per append and read", n)
	}
}

// putSequence numbers a batch anew and sums it.
func putSequence(b batch.Batch, sequence int32) {
	b[53], b[54], b[55], b[56] = byte(sequence>>24), byte(sequence>>16), byte(sequence>>8), byte(sequence)
	t := b.MaxTimestamp()
	b[42]++
	b.SetMaxTimestamp(t)
}

func TestIdleLogIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Log{}); n > 640 {
		t.Fatalf("an open log takes %d bytes", n)
	}
	w := newWorld(t, func(c *StoreConfig) { c.IdleCloseAfter = time.Minute })
	l := w.log(plain())
	if l.producers != nil || l.tail.ring != nil || l.cursors != nil || l.chain.links != nil {
		t.Fatal("an unused log holds memory")
	}
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	w.advance(2 * time.Minute)
	w.store.sweep(time.UnixMilli(w.clock.Load()), false)
	w.settled(l)
	l.mu.Lock()
	if l.seg != nil || l.sealing != nil || len(l.chain.links) != 1 || !l.chain.links[0].sealed {
		t.Fatalf("an idle log has %v, %v, %+v", l.seg, l.sealing, l.chain.links)
	}
	l.mu.Unlock()
	// It is open all the same, in its epoch.
	if at := put(t, l, makeBatch(batch.Plain, 1, 1, "b")); at != 1 || l.Epoch() != 0 || len(w.tier.ids()) != 2 {
		t.Fatalf("offset %d in epoch %d, %d ledgers", at, l.Epoch(), len(w.tier.ids()))
	}
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0", "b-0")
}

func BenchmarkAppend(b *testing.B) {
	l, tier := openOnMemory(b)
	data := makeBatch(batch.Plain, 1, 10, "a value of about a hundred bytes, as the producer of the performance test sends it by default, more or less")
	a := make([]Append, 64)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		p := &a[n%len(a)]
		buf := buffer.Get(len(data))
		copy(buf.B, data)
		p.Batch, p.Buf, p.Notify = batch.Batch(buf.B), buf, silent{}
		l.Append(p)
		if n%len(a) == len(a)-1 {
			tier.ack()
			for i := range a {
				a[i].Buf.Release()
			}
		}
	}
	tier.ack()
}
