package quorum

import (
	"errors"
	"math"
	"testing"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

func TestWriteSet(t *testing.T) {
	for _, c := range []struct {
		entry       int64
		ensemble    int
		writeQuorum int
		want        []int
	}{
		{0, 3, 3, []int{0, 1, 2}},
		{1, 3, 3, []int{1, 2, 0}},
		{4, 5, 3, []int{4, 0, 1}},
		{2, 3, 2, []int{2, 0}},
		{7, 1, 1, []int{0}},
		{math.MaxInt32 + 2, 3, 2, []int{0, 1}}, // where 32 bits would be negative
	} {
		in := map[int]bool{}
		for i, want := range c.want {
			if got := Position(c.entry, i, c.ensemble); got != want {
				t.Errorf("replica %d of entry %d in %d is at %d, want %d", i, c.entry, c.ensemble, got, want)
			}
			in[want] = true
		}
		for index := range c.ensemble {
			if got := InWriteSet(c.entry, index, c.ensemble, c.writeQuorum); got != in[index] {
				t.Errorf("entry %d of %d/%d at %d: %v", c.entry, c.ensemble, c.writeQuorum, index, got)
			}
		}
	}
}

// TestCoverage: the member's answers are by position, a for Ack, n for Negative, u
// for Unknown, - for none yet.
func TestCoverage(t *testing.T) {
	for _, c := range []struct {
		writeQuorum, ackQuorum int
		answers                string
		covered, lost          bool
	}{
		{3, 2, "a--", false, false},
		{3, 2, "a-n", true, false},
		{3, 2, "uua", false, true},
		{3, 2, "uu-", false, false},
		{3, 3, "--n", true, false},
		{3, 3, "uuu", false, true},
		{3, 1, "aa-", false, false},
		{3, 1, "aau", false, true},
		{3, 1, "ana", true, false},
		{2, 2, "aa-", true, false},
		{2, 2, "a--", false, false},
		{3, 2, "uaaua", false, true}, // 3, 4, 0 holds both unknown
		{3, 2, "-aaaa", true, false},
		{3, 2, "u-aaa", false, false},
		{3, 2, "uaaaa", true, false},
		{1, 1, "-", false, false},
		{1, 1, "n", true, false},
	} {
		l := &metadata.Ledger{Ensemble: len(c.answers), WriteQuorum: c.writeQuorum, AckQuorum: c.ackQuorum}
		cov := NewCoverage(l)
		for i, a := range c.answers {
			if class := map[rune]Class{'a': Ack, 'n': Negative, 'u': Unknown}[a]; class != 0 {
				cov.Answer(i, class)
				cov.Answer(i, Ack) // the first counts
			}
		}
		cov.Answer(-1, Ack)
		cov.Answer(len(c.answers), Ack)
		if cov.Covered() != c.covered || cov.Lost() != c.lost {
			t.Errorf("%d/%d/%d %s: covered %v, lost %v", len(c.answers), c.writeQuorum, c.ackQuorum, c.answers, cov.Covered(), cov.Lost())
		}
	}
}

// TestOnlyVouchersCover: no class but Ack and Negative says anything about a fence.
func TestOnlyVouchersCover(t *testing.T) {
	for class := Class(0); class <= Unknown+1; class++ {
		cov := NewCoverage(&metadata.Ledger{Ensemble: 1, WriteQuorum: 1, AckQuorum: 1})
		cov.Answer(0, class)
		if want := class == Ack || class == Negative; cov.Covered() != want {
			t.Errorf("%v covers: %v", class, cov.Covered())
		}
	}
}

// TestAbsent: how many negative votes end a recovery.
func TestAbsent(t *testing.T) {
	for _, c := range [][3]int{{3, 2, 2}, {3, 3, 1}, {2, 2, 1}, {3, 1, 3}} {
		if !protocol.absent(c[2], c[0], c[1]) || protocol.absent(c[2]-1, c[0], c[1]) {
			t.Errorf("write quorum %d, ack quorum %d: not %d votes", c[0], c[1], c[2])
		}
	}
}

// TestShapes: metadata from outside are looked at before anything is built on them.
func TestShapes(t *testing.T) {
	for name, spoil := range map[string]func(l *metadata.Ledger){
		"no ack quorum":              func(l *metadata.Ledger) { l.AckQuorum = 0 },
		"ack above write quorum":     func(l *metadata.Ledger) { l.AckQuorum = 3 },
		"write quorum above all":     func(l *metadata.Ledger) { l.WriteQuorum = 4 },
		"huge ensemble":              func(l *metadata.Ledger) { l.Ensemble = MaxEnsemble + 1 },
		"no segment":                 func(l *metadata.Ledger) { l.Segments = nil },
		"first segment late":         func(l *metadata.Ledger) { l.Segments[0].First = 1 },
		"segments in disorder":       func(l *metadata.Ledger) { l.Segments = append(l.Segments, l.Segments[0]) },
		"too few bookies":            func(l *metadata.Ledger) { l.Segments[0].Bookies = ids("b1 b2") },
		"no state":                   func(l *metadata.Ledger) { l.State = 0 },
		"closed at nothing":          func(l *metadata.Ledger) { l.State, l.LastEntry = metadata.Closed, -2 },
		"closed with negative bytes": func(l *metadata.Ledger) { l.State, l.Length = metadata.Closed, -1 },
	} {
		l := open(2, 2, "0 b1 b2 b3")
		spoil(l)
		if _, err := NewWriter(l, 1, &spares{}); !errors.Is(err, ErrMetadata) {
			t.Errorf("%s: a writer: %v", name, err)
		}
		if _, err := NewRecovery(l, 1, &spares{}, 1); !errors.Is(err, ErrMetadata) {
			t.Errorf("%s: a recovery: %v", name, err)
		}

		// The same as the answer to a compare-and-swap.
		w, _ := NewWriter(open(2, 2, "0 b1 b2 b3"), 1, &spares{ids("b4")})
		w.Close()
		w.Conflict(l, 2)
		if effects := w.Effects(nil); !errors.Is(effects[len(effects)-1].Err, ErrMetadata) {
			t.Errorf("%s: to a writer: %s", name, show(effects))
		}
		r, _ := NewRecovery(open(2, 2, "0 b1 b2 b3"), 1, &spares{}, 1)
		r.Start()
		r.Conflict(l, 2)
		if effects := r.Effects(nil); !errors.Is(effects[len(effects)-1].Err, ErrMetadata) || !r.Done() {
			t.Errorf("%s: to a recovery: %s", name, show(effects))
		}
	}
	if _, err := NewWriter(open(2, 2, "0 b1 b2", "5 b1 b3"), 1, &spares{}); !errors.Is(err, ErrMetadata) {
		t.Errorf("a second writer: %v", err)
	}
	if _, err := NewWriter(inRecovery(open(2, 2, "0 b1 b2")), 1, &spares{}); !errors.Is(err, ErrMetadata) {
		t.Errorf("a writer of a ledger in recovery: %v", err)
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for c := Class(0); c <= Unknown+1; c++ {
		if seen[c.String()] {
			t.Errorf("two classes are %q", c)
		}
		seen[c.String()] = true
	}
	for k := Kind(1); k <= Unsealed+1; k++ {
		if seen[k.String()] && k <= Unsealed {
			t.Errorf("two kinds are %q", k)
		}
		seen[k.String()] = true
	}
}
