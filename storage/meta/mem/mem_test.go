package mem_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/mem"
	"github.com/quirelog/quire/storage/meta/metatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	metatest.Run(t, func(t *testing.T) metatest.Harness {
		clock := new(mem.ManualClock)
		s := mem.New(clock)
		t.Cleanup(func() { s.Close() })
		return metatest.Harness{Store: s, Compact: s.Compact, Pass: clock.Advance}
	})
}

// With the system's clock leases end by themselves.
func TestStoreSystemClock(t *testing.T) {
	metatest.Run(t, func(t *testing.T) metatest.Harness {
		s := mem.New(nil)
		t.Cleanup(func() { s.Close() })
		return metatest.Harness{Store: s, Compact: s.Compact}
	})
}

// A watch that falls behind the history that is kept ends with ErrCompacted; one
// that keeps up does not notice.
func TestSlowWatch(t *testing.T) {
	s := mem.New(nil)
	defer s.Close()
	slow, ctx := s.Watch(t.Context(), "", 0), t.Context()
	var last meta.Revision
	put := func() {
		rev, _, err := s.Txn(ctx, nil, []meta.Op{meta.Put("k", nil)})
		if err != nil {
			t.Fatal(err)
		}
		last = rev
	}
	put()
	quick := s.Watch(ctx, "", last)
	// Up to twice as much as HistoryRevisions is kept, and the slow watch may begin
	// when that is there: the changes after it must be as many again.
	for range 4 * mem.HistoryRevisions {
		put()
		if e := <-quick; e.Err != nil || e.Revision != last {
			t.Fatalf("the watch that keeps up says %+v at %d", e, last)
		}
	}
	for e := range slow {
		if e.Err != nil {
			if !errors.Is(e.Err, meta.ErrCompacted) {
				t.Fatalf("the slow watch ends with %v, want ErrCompacted", e.Err)
			}
			return
		}
	}
	t.Fatal("the slow watch ends without a word")
}

// ManualClock runs what falls due in order of time, timers set meanwhile included.
func TestManualClock(t *testing.T) {
	var c mem.ManualClock
	start := c.Now()
	var ran []time.Duration
	at := func(d time.Duration) func() bool {
		return c.AfterFunc(d, func() { ran = append(ran, c.Now().Sub(start)) })
	}
	at(3)
	stop := at(2)
	at(1)
	c.AfterFunc(1, func() { at(1) })
	at(9)
	if !stop() || stop() {
		t.Error("stop of a waiting timer, then again: want true, false")
	}
	c.Advance(5)
	if want := []time.Duration{1, 2, 3}; !slices.Equal(ran, want) || c.Now().Sub(start) != 5 {
		t.Errorf("ran at %v by %v, want %v", ran, c.Now().Sub(start), want)
	}
}
