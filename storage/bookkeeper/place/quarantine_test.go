package place

import (
	"testing"
	"time"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

func TestQuarantine(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	q := NewQuarantine(QuarantineConfig{Errors: 3, Window: 10 * time.Second, First: 30 * time.Second, Max: 100 * time.Second})
	now := start
	const b, other metadata.BookieID = "b", "other"
	at := func(seconds float64) { now = start.Add(time.Duration(seconds * float64(time.Second))) }
	fail := func(want bool) {
		t.Helper()
		if got := q.Failed(b, now); got != want {
			t.Errorf("at %v Failed = %v, want %v", now.Sub(start), got, want)
		}
	}
	avoid := func(want bool) {
		t.Helper()
		if got := q.Avoid(b, now); got != want {
			t.Errorf("at %v Avoid = %v, want %v", now.Sub(start), got, want)
		}
		if q.Avoid(other, now) {
			t.Errorf("at %v a bookie without errors is avoided", now.Sub(start))
		}
	}

	// Errors far from each other, or with answers among them, count by the window alone.
	for _, s := range []float64{0, 5, 10.5, 16} {
		at(s)
		fail(false)
		q.Succeeded(b, now)
		avoid(false)
	}
	at(18)
	fail(true) // 10.5, 16, 18
	avoid(true)
	at(20)
	fail(false)
	q.Succeeded(b, now) // of an old ledger
	avoid(true)
	at(47.9)
	avoid(true)

	// Its probe: one new ensemble at a time.
	at(48)
	avoid(false)
	q.Chosen(b, now)
	avoid(true)
	fail(true) // for 60 s
	at(107.9)
	avoid(true)
	at(108)
	avoid(false)
	fail(true) // without a probe too, for 100 s, the most
	at(207.9)
	avoid(true)
	at(208)
	q.Chosen(b, now)
	fail(true) // again 100 s
	at(307.9)
	avoid(true)

	// A probe of which nothing is heard ends by itself.
	at(308)
	q.Chosen(b, now)
	at(337.9)
	avoid(true)
	at(338)
	avoid(false)
	q.Chosen(b, now)
	q.Succeeded(b, now)
	avoid(false)
	fail(false) // free: it takes three again
	fail(false)
	fail(true)
	at(367.9)
	avoid(true)
	at(368)
	avoid(false) // and the time is the first again
}

func TestQuarantineForgets(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	q := NewQuarantine(QuarantineConfig{})
	all := func(metadata.BookieID) bool { return true }
	q.Failed("once", now)
	for range 3 {
		q.Failed("bad", now)
	}
	for range 3 {
		q.Failed("gone", now)
	}
	q.Forget(now.Add(10*time.Second), all)
	if len(q.bookies) != 3 {
		t.Errorf("too early: %d are left", len(q.bookies))
	}
	q.Forget(now.Add(11*time.Second), func(id metadata.BookieID) bool { return id != "gone" })
	if len(q.bookies) != 1 || !q.Avoid("bad", now.Add(11*time.Second)) {
		t.Errorf("%d are left, of which bad should be one", len(q.bookies))
	}
	q.Chosen("nobody", now)
	q.Succeeded("nobody", now)
	if len(q.bookies) != 1 {
		t.Error("bookies without errors are remembered")
	}
}
