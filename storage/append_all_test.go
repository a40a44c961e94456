package storage

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
)

// sendAll appends batches as one.
func sendAll(l *Log, bs ...batch.Batch) []*result {
	all := make([]*result, len(bs))
	as := make([]*Append, len(bs))
	for i, b := range bs {
		all[i] = &result{done: make(chan struct{})}
		all[i].Batch, all[i].Notify = b, all[i]
		as[i] = &all[i].Append
	}
	l.AppendAll(as)
	return all
}

func TestAppendAllHasNoGaps(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	const appends, each = 300, 3
	var done sync.WaitGroup
	for i := range 12 {
		done.Go(func() {
			for j := range appends {
				if i%2 == 0 {
					put(t, l, makeBatch(batch.Plain, 1, 2, "alone"))
					continue
				}
				var bs []batch.Batch
				for k := range each {
					bs = append(bs, makeBatch(batch.Plain, 1, k+1, fmt.Sprintf("%d-%d-%d", i, j, k)))
				}
				next := int64(-1)
				for k, r := range sendAll(l, bs...) {
					r.wait(t)
					if r.Err != nil || next >= 0 && r.BaseOffset != next {
						t.Errorf("batch %d: offset %d after %d, %v", k, r.BaseOffset, next, r.Err)
						return
					}
					next = r.BaseOffset + int64(k) + 1
				}
			}
		})
	}
	done.Wait()
}

// TestAppendAllOrNothing: what refuses one batch refuses those before it too.
func TestAppendAllOrNothing(t *testing.T) {
	w := newWorld(t)
	small := plain()
	small.MaxMessageBytes, small.SegmentBytes = 500, 700
	l := w.log(small)
	good := func() batch.Batch { return makeBatch(batch.Plain, 1, 1, string(make([]byte, 200))) }
	spoiled := good()
	spoiled[len(spoiled)-3] ^= 1
	for _, c := range []struct {
		what string
		last batch.Batch
		want error
	}{
		{"too large", makeBatch(batch.Plain, 1, 1, string(make([]byte, 500))), ErrMessageTooLarge},
		{"corrupt", spoiled, batch.ErrCorrupt},
		{"of a producer", makeBatch(idempotent(1, 0, 0), 1, 1, "v"), batch.ErrInvalid},
		{"together larger than a segment", makeBatch(batch.Plain, 1, 1, string(make([]byte, 300))), ErrListTooLarge},
	} {
		for _, r := range sendAll(l, good(), good(), c.last) {
			if !r.decided() {
				t.Fatalf("%s: a batch is still under way", c.what)
			}
			wantErr(t, r.Err, c.want)
		}
	}
	if at := put(t, l, good()); at != 0 {
		t.Fatalf("refused batches took offsets: the next one is %d", at)
	}
	for _, r := range sendAll(l) {
		t.Fatal("an answer to nothing", r)
	}
}

// TestAppendAllWaitsForALedger: the bound on what waits holds for all together.
func TestAppendAllWaitsForALedger(t *testing.T) {
	w := newWorld(t)
	gate := make(chan struct{})
	w.tier.setFault(func(op string, _ ledger.ID) error {
		if op == "create" {
			<-gate
		}
		return nil
	})
	l := w.log(plain())
	big := func() batch.Batch { return makeBatch(batch.Plain, 1, 1, string(make([]byte, 1<<20-200))) }
	first := send(l, big())
	var bs []batch.Batch
	for range 16 {
		bs = append(bs, big())
	}
	for _, r := range sendAll(l, bs...) {
		if !r.decided() || !errors.Is(r.Err, ErrStorage) {
			t.Fatal("17 MiB wait for a ledger")
		}
	}
	fits := sendAll(l, bs[:3]...)
	close(gate)
	for i, r := range append([]*result{first}, fits...) {
		if r.wait(t).Err != nil || r.BaseOffset != int64(i) {
			t.Fatalf("append %d: offset %d, %v", i, r.BaseOffset, r.Err)
		}
	}
}

func TestOffsetsBefore(t *testing.T) {
	w := newWorld(t)
	c := plain()
	c.SegmentBytes = 300
	l := w.log(c)
	want := func(what string, timestamp int64, most int, offsets ...int64) {
		t.Helper()
		got, err := l.OffsetsBefore(timestamp, most)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(offsets) {
			t.Errorf("%s: %v, want %v", what, got, offsets)
		}
	}
	want("empty, latest", LatestTimestamp, 10, 0)
	want("empty, earliest", EarliestTimestamp, 10, 0)
	begin := w.clock.Load()
	// Each of the larger batches fills a ledger: they begin at 0, 3, 5 and 7, an hour apart.
	put(t, l, makeBatch(batch.Plain, 1, 1, "v"))
	for range 4 {
		put(t, l, makeBatch(batch.Plain, 1, 2, string(make([]byte, 105))))
		w.settled(l)
		w.advance(time.Hour)
	}
	hours := func(n int64) int64 { return begin + n*time.Hour.Milliseconds() }
	want("latest", LatestTimestamp, 1, 9)
	want("latest and all before", LatestTimestamp, 100, 9, 7, 5, 3, 0)
	want("none asked for", LatestTimestamp, 0)
	want("earliest", EarliestTimestamp, 100, 0)
	want("earliest, none asked for", EarliestTimestamp, 0)
	want("before all", begin-1, 10)
	want("the first ledger", hours(0), 10, 0)
	want("two ledgers", hours(1)+1, 10, 3, 0)
	want("one of them", hours(1)+1, 1, 3)
	want("now", w.clock.Load(), 2, 9, 7)
	if _, err := l.DeleteRecords(t.Context(), 6); err != nil {
		t.Fatal(err)
	}
	want("records deleted, earliest", EarliestTimestamp, 10, 6)
	want("records deleted", LatestTimestamp, 100, 9, 7, 6)
	if _, err := l.OffsetsBefore(MaxTimestamp, 1); !errors.Is(err, ErrUnknownTimestamp) {
		t.Errorf("timestamp -3: %v", err)
	}

	// A reopened log knows the same of its sealed ledgers.
	w.crash(func(int) int { return 0 })
	l = w.log(c)
	want("reopened", LatestTimestamp, 100, 9, 7, 6)
	want("reopened, one ledger", hours(2)+1, 10, 6)
}
