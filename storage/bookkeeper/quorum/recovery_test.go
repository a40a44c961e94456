package quorum

import (
	"fmt"
	"strings"
	"testing"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

func newTestRecovery(t *testing.T, l *metadata.Ledger, spare string, readAhead int) *Recovery {
	t.Helper()
	r, err := NewRecovery(l, 1, &spares{ids(spare)}, readAhead)
	if err != nil {
		t.Fatal(err)
	}
	r.Start()
	return r
}

// lasts gives the answers "bookie entry LAC" or "bookie class" to the reads of the last entry.
func lasts(t *testing.T, r *Recovery, answers ...string) {
	t.Helper()
	for _, a := range answers {
		words := strings.Fields(a)
		index := -1
		for i, b := range r.frozen.Last().Bookies {
			if string(b) == words[0] {
				index = i
			}
		}
		var last Last
		class := Ack
		if len(words) == 3 {
			if _, err := fmt.Sscan(words[1]+" "+words[2], &last.Entry, &last.LAC); err != nil {
				t.Fatal(err)
			}
			last.Length = 10 * (last.Entry + 1)
		} else {
			_, _, class = parseAnswer(t, "0 "+a)
		}
		r.LastReply(index, metadata.BookieID(words[0]), class, last)
	}
}

// reads gives the answers "entry bookie [class]" to the reads of entries, of ten bytes each.
func reads(t *testing.T, r *Recovery, answers ...string) (kept string) {
	t.Helper()
	for _, a := range answers {
		entry, bookie, class := parseAnswer(t, a)
		index := -1
		for i, b := range r.frozen.EnsembleAt(entry).Bookies {
			if b == bookie {
				index = i
			}
		}
		if r.ReadReply(entry, index, bookie, class, 10*(entry+1)) {
			kept += fmt.Sprint(entry)
		}
	}
	return kept
}

// fenced is a recovery of an IN_RECOVERY ledger that is about to read on from lac.
func fenced(t *testing.T, spare string, lac int64, readAhead int, writeQuorum, ackQuorum int, segments ...string) *Recovery {
	t.Helper()
	r := newTestRecovery(t, inRecovery(open(writeQuorum, ackQuorum, segments...)), spare, readAhead)
	for _, b := range r.frozen.Last().Bookies {
		lasts(t, r, fmt.Sprintf("%s %d %d", b, lac+1, lac))
	}
	r.Effects(nil)
	return r
}

func TestRecovery(t *testing.T) {
	r := newTestRecovery(t, open(3, 2, "0 "+trio), "", 2)
	expect(t, r, "Store over 1: IN_RECOVERY 0[b1 b2 b3]")
	r.Stored(2)
	expect(t, r, "ReadLast fence priority: b1 b2 b3")
	lasts(t, r, "b1 7 4")
	expect(t, r)
	lasts(t, r, "b2 negative")
	// Entry 4 for the length, 5 and 6 ahead. Every read fences.
	expect(t, r, "Read 4 fence priority: b2 b3 b1", "Read 5 fence priority: b3 b1 b2", "Read 6 fence priority: b1 b2 b3")
	lasts(t, r, "b3 9 8") // too late
	if kept := reads(t, r, "4 b1", "6 b2", "6 b1", "5 b3 negative"); kept != "6" {
		t.Fatalf("kept %s", kept)
	}
	expect(t, r)
	if kept := reads(t, r, "5 b1"); kept != "5" {
		t.Fatalf("kept %s", kept)
	}
	expect(t, r, "Send 5 recovery priority: b3 b1 b2", "Send 6 recovery priority: b1 b2 b3")
	reply(t, r, trio, "6 b1", "6 b2", "5 b1", "5 b2")
	expect(t, r, "Read 7 fence priority: b2 b3 b1", "Read 8 fence priority: b3 b1 b2")
	reply(t, r, trio, "6 b3")
	expect(t, r, "Release 6")
	reads(t, r, "7 b2 negative", "7 b2 negative", "8 b1")
	expect(t, r)
	reads(t, r, "7 b1 negative")
	expect(t, r, "Store over 2: CLOSED at 6 length 70 0[b1 b2 b3]")
	reply(t, r, trio, "5 b3")
	expect(t, r, "Release 5")
	r.Stored(3)
	expect(t, r, "Sealed: CLOSED at 6 length 70 0[b1 b2 b3]")
	if !r.Done() {
		t.Fatal("not done")
	}
	lasts(t, r, "b3 9 8")
	reads(t, r, "7 b2")
	reply(t, r, trio, "6 b3")
	r.Start()
	r.Stored(4)
	r.Conflict(nil, 4)
	r.StoreFailed(errStoreAway)
	expect(t, r)
}

// TestVotes: how many negative answers end a recovery, and what is no vote.
func TestVotes(t *testing.T) {
	for _, c := range []struct {
		writeQuorum, ackQuorum int
		answers                string // of b1, b2, b3 to the read of entry 3
		want                   string
	}{
		{3, 2, "n--", ""},
		{3, 2, "nn-", "CLOSED at 2"},
		{3, 2, "nu-", ""},
		{3, 2, "nuu", "cannot tell"},
		{3, 2, "uuu", "cannot tell"},
		{3, 2, "unn", "CLOSED at 2"},
		{3, 3, "n--", "CLOSED at 2"},
		{3, 3, "uun", "CLOSED at 2"},
		{3, 1, "nn-", ""},
		{3, 1, "nnn", "CLOSED at 2"},
		{3, 1, "nnu", "cannot tell"},
		{3, 2, "na-", "Send 3"},
		{3, 2, "uua", "Send 3"},
		{3, 2, "nna", "CLOSED at 2"}, // as legal as keeping it
	} {
		r := fenced(t, "", 2, 1, c.writeQuorum, c.ackQuorum, "0 "+trio)
		reads(t, r, "2 b1")
		for i, a := range c.answers {
			if class, ok := map[rune]string{'a': "", 'n': " negative", 'u': " unknown"}[a]; ok {
				reads(t, r, fmt.Sprintf("3 b%d%s", i+1, class))
			}
		}
		if got := show(r.Effects(nil)); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%d/%d %s: %q, want %q", c.writeQuorum, c.ackQuorum, c.answers, got, c.want)
		}
	}
	// An answer that comes after its deadline was told is as good as any.
	r := fenced(t, "", 2, 1, 3, 2, "0 "+trio)
	reads(t, r, "2 b1", "3 b1 unknown", "3 b2 negative", "3 b2 negative")
	expect(t, r)
	reads(t, r, "3 b1 negative")
	expect(t, r, "Store over 1: CLOSED at 2 length 30 0[b1 b2 b3]")

	for class := Fenced; class <= Unknown; class++ {
		if protocol.negative(class) {
			t.Errorf("%v is a negative vote", class)
		}
	}
}

func TestFencingReads(t *testing.T) {
	for _, c := range []struct{ answers, want string }{
		{"b1 unknown, b2 failure, b3 4 3", "Failed: recovery of ledger 7: too few bookies answered the fencing reads"},
		{"b1 unauthorized", "Failed: recovery of ledger 7: bookie b1: bookie refuses the ledger's password"},
		{"b1 unknown, b2 busy", ""},
	} {
		r := newTestRecovery(t, inRecovery(open(3, 2, "0 "+trio)), "", 1)
		r.Effects(nil)
		lasts(t, r, strings.Split(c.answers, ", ")...)
		if got := show(r.Effects(nil)); got != c.want {
			t.Errorf("%s: %s", c.answers, got)
		}
	}
}

// TestStartOfLastSegment: what is before the last segment was acknowledged, though
// no bookie of the last segment can say so (BookKeeper issue 2615).
func TestStartOfLastSegment(t *testing.T) {
	r := newTestRecovery(t, inRecovery(open(3, 2, "0 "+trio, "42 b4 b5 b6")), "", 1)
	r.Effects(nil)
	lasts(t, r, "b4 negative", "b5 42 17")
	expect(t, r, "Read 41 fence priority: b3 b1 b2", "Read 42 fence priority: b4 b5 b6")
	reads(t, r, "42 b4 negative", "42 b6 negative")
	expect(t, r) // the length is that of entry 41
	reads(t, r, "41 b2 unknown", "41 b3")
	expect(t, r, "Store over 1: CLOSED at 41 length 420 0[b1 b2 b3] 42[b4 b5 b6]")
}

// TestLength: of a ledger where there was nothing to recover.
func TestLength(t *testing.T) {
	r := newTestRecovery(t, inRecovery(open(3, 2, "0 "+trio)), "", 1)
	r.Effects(nil)
	lasts(t, r, "b1 negative", "b2 negative")
	expect(t, r, "Read 0 fence priority: b1 b2 b3")
	reads(t, r, "0 b1 negative", "0 b2 negative")
	expect(t, r, "Store over 1: CLOSED at -1 length 0 0[b1 b2 b3]")

	// One of the last entries is the one before the end: no need to read it.
	r = newTestRecovery(t, inRecovery(open(3, 2, "0 "+trio, "3 "+"b1 b2 b4")), "", 1)
	r.Effects(nil)
	lasts(t, r, "b1 2 1", "b2 2 1")
	expect(t, r, "Read 3 fence priority: b1 b2 b4")
	reads(t, r, "3 b1 negative", "3 b2 negative")
	expect(t, r, "Store over 1: CLOSED at 2 length 30 0[b1 b2 b3] 3[b1 b2 b4]")

	// Nobody can read it: the ledger ends all the same.
	r = newTestRecovery(t, inRecovery(open(3, 2, "0 "+trio, "3 b4 b5 b6")), "", 1)
	r.Effects(nil)
	lasts(t, r, "b4 negative", "b5 negative")
	reads(t, r, "3 b4 negative", "3 b5 negative", "2 b1 unknown", "2 b2 unknown")
	r.Effects(nil)
	reads(t, r, "2 b3 negative")
	expect(t, r, "Store over 1: CLOSED at 2 length 0 0[b1 b2 b3] 3[b4 b5 b6]")
}

// TestTwoRecoveries: A finds an entry that B does not; whoever closes first is right.
func TestTwoRecoveries(t *testing.T) {
	a := fenced(t, "", 9, 1, 3, 2, "0 "+trio)
	b := fenced(t, "", 9, 1, 3, 2, "0 "+trio)
	reads(t, a, "10 b1")
	expect(t, a, "Send 10 recovery priority: b2 b3 b1")
	reads(t, b, "10 b2 negative", "9 b1", "10 b3 negative")
	expect(t, b, "Store over 1: CLOSED at 9 length 100 0[b1 b2 b3]")
	reply(t, a, trio, "10 b2", "10 b3")
	expect(t, a, "Read 11 fence priority: b3 b1 b2")
	reads(t, a, "11 b2 negative", "11 b3 negative")
	expect(t, a, "Store over 1: CLOSED at 10 length 110 0[b1 b2 b3]")
	b.Stored(2)
	expect(t, b, "Sealed: CLOSED at 9 length 100 0[b1 b2 b3]")
	a.Conflict(closed(open(3, 2, "0 "+trio), 9, 100), 2)
	expect(t, a, "Sealed: CLOSED at 9 length 100 0[b1 b2 b3]")
}

// TestRecoveryChangesInMemory: bookies that fail are replaced in the one write that
// closes the ledger.
func TestRecoveryChangesInMemory(t *testing.T) {
	r := fenced(t, "b4 b5 b6", 9, 2, 3, 2, "0 "+trio)
	reads(t, r, "10 b1", "11 b1")
	r.Effects(nil)
	reply(t, r, trio, "10 b1", "10 b2 fenced")
	expect(t, r, "Send 10 recovery priority: b4", "Send 11 recovery priority: b4")
	reply(t, r, "b1 b4 b3", "10 b4 unknown") // at once again: the segment is replaced
	expect(t, r, "Send 10 recovery priority: b5", "Send 11 recovery priority: b5")
	reply(t, r, "b1 b5 b3", "10 b5", "11 b5")
	expect(t, r, "Read 12 fence priority: b1 b2 b3") // by the stored ensemble
	reply(t, r, "b1 b5 b3", "11 b3 failure")
	expect(t, r, "Release 10", "Send 11 recovery priority: b6")
	reads(t, r, "12 b1 negative", "12 b2 negative")
	expect(t, r)
	reply(t, r, "b1 b5 b6", "11 b6")
	expect(t, r, "Store over 1: CLOSED at 11 length 120 0[b1 b2 b3] 10[b1 b5 b3] 11[b1 b5 b6]")
	// AutoRecovery has edited an older segment: the same on top of it.
	r.Conflict(inRecovery(open(3, 2, "0 "+trio)), 5)
	expect(t, r, "Store over 5: CLOSED at 11 length 120 0[b1 b2 b3] 10[b1 b5 b3] 11[b1 b5 b6]")
	r.Stored(6)
	expect(t, r, "Sealed: CLOSED at 11 length 120 0[b1 b2 b3] 10[b1 b5 b3] 11[b1 b5 b6]")
}

// TestRecoveryReplacesSegment: nothing of the last segment was acknowledged.
func TestRecoveryReplacesSegment(t *testing.T) {
	r := fenced(t, "b4", 9, 1, 3, 2, "0 b7 b8 b9", "10 "+trio)
	reads(t, r, "10 b1")
	r.Effects(nil)
	reply(t, r, trio, "10 b2 unknown", "10 b1", "10 b3")
	r.Effects(nil)
	reply(t, r, "b1 b4 b3", "10 b4 unknown") // after its acknowledgement, and nobody is left
	expect(t, r, "Release 10", "Degraded 1 b4")
	reads(t, r, "11 b1 negative", "11 b2 negative")
	expect(t, r, "Store over 1: CLOSED at 10 length 110 0[b7 b8 b9] 10[b1 b4 b3]")
	r.Conflict(inRecovery(open(3, 2, "0 b7 b8 b6", "10 "+trio)), 2)
	expect(t, r, "Store over 2: CLOSED at 10 length 110 0[b7 b8 b6] 10[b1 b4 b3]")
}

// TestRecoveryLeavesAStalledBookie: as soon as another one can have its place.
func TestRecoveryLeavesAStalledBookie(t *testing.T) {
	r := fenced(t, "b4", 9, 1, 2, 2, "0 b1 b2")
	r.BookieStalled("b2", among("b2")) // nothing waits for it
	reads(t, r, "10 b1")
	r.Effects(nil)
	reply(t, r, "b1 b2", "10 b1")
	spare := r.placement.(*spares).ids
	r.placement.(*spares).ids = nil
	r.BookieStalled("b1", among("b1")) // has answered
	r.BookieStalled("b2", among("b2"))
	expect(t, r)
	r.placement.(*spares).ids = spare
	r.BookieStalled("b2", among("b2"))
	expect(t, r, "Send 10 recovery priority: b4")
	reply(t, r, "b1 b4", "10 b4")
	reads(t, r, "11 b1 negative")
	expect(t, r, "Release 10", "Read 11 fence priority: b2 b1", "Store over 1: CLOSED at 10 length 110 0[b1 b2] 10[b1 b4]")
	r.BookieStalled("b4", among("b4"))
	expect(t, r)
}

// TestEmptySegmentIsDropped: a change after the last entry has nothing in it.
func TestEmptySegmentIsDropped(t *testing.T) {
	r := fenced(t, "b4", 9, 1, 3, 2, "0 "+trio)
	reads(t, r, "10 b1")
	reply(t, r, trio, "10 b1", "10 b3", "10 b2 unknown")
	r.Effects(nil)
	reads(t, r, "11 b1 negative", "11 b2 negative")
	expect(t, r, "Store over 1: CLOSED at 10 length 110 0[b1 b2 b3]")
}

// TestRecoveryWithoutSpare: three bookies are all there are, and one is dead.
func TestRecoveryWithoutSpare(t *testing.T) {
	r := newTestRecovery(t, inRecovery(open(3, 2, "0 "+trio)), "", 1)
	r.Effects(nil)
	lasts(t, r, "b1 10 8", "b2 unknown", "b3 9 8")
	r.Effects(nil)
	reads(t, r, "9 b2 unknown", "9 b3")
	reply(t, r, trio, "9 b2 unknown")
	expect(t, r, "Send 9 recovery priority: b1 b2 b3", "Degraded 1 b2")
	reply(t, r, trio, "9 b3", "9 b1")
	expect(t, r, "Release 9", "Read 10 fence priority: b2 b3 b1")
	reads(t, r, "10 b1")
	expect(t, r, "Send 10 recovery priority: b3 b1")
	reply(t, r, trio, "10 b1", "10 b3")
	reads(t, r, "11 b1 negative", "11 b3 negative")
	expect(t, r, "Release 10", "Read 11 fence priority: b3 b1 b2", "Store over 1: CLOSED at 10 length 110 0[b1 b2 b3]")
}

func TestRecoveryFails(t *testing.T) {
	base := open(3, 2, "0 "+trio)
	adding := func(t *testing.T) *Recovery {
		r := fenced(t, "", 9, 1, 3, 2, "0 "+trio)
		reads(t, r, "10 b1")
		return r
	}
	closing := func(t *testing.T) *Recovery {
		r := fenced(t, "", 9, 1, 3, 2, "0 "+trio)
		reads(t, r, "9 b1", "10 b2 negative", "10 b3 negative")
		return r
	}
	claiming := func(t *testing.T) *Recovery { return newTestRecovery(t, base, "", 1) }
	for _, c := range []struct {
		name  string
		begin func(t *testing.T) *Recovery
		act   func(t *testing.T, r *Recovery)
		want  string
	}{
		{"too few bookies", adding, func(t *testing.T, r *Recovery) { reply(t, r, trio, "10 b2 unknown", "10 b3 failure") }, "not enough bookies"},
		{"wrong password", adding, func(t *testing.T, r *Recovery) { reply(t, r, trio, "10 b2 unauthorized") }, "refuses the ledger's password"},
		{"the store is away at the claim", claiming, func(_ *testing.T, r *Recovery) { r.StoreFailed(errStoreAway) }, "does not answer"},
		{"the store is away at the close", closing, func(_ *testing.T, r *Recovery) { r.StoreFailed(errStoreAway) }, "does not answer"},
		{"deleted before the claim", claiming, func(_ *testing.T, r *Recovery) { r.Conflict(nil, 2) }, "deleted"},
		{"deleted before the close", closing, func(_ *testing.T, r *Recovery) { r.Conflict(nil, 2) }, "deleted"},
		{"opened again", closing, func(_ *testing.T, r *Recovery) { r.Conflict(base, 2) }, "changed by somebody else"},
		{"another last segment", closing, func(_ *testing.T, r *Recovery) { r.Conflict(inRecovery(open(3, 2, "0 "+trio, "4 "+trio)), 2) }, "changed by somebody else"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.begin(t)
			r.Effects(nil)
			c.act(t, r)
			effects := r.Effects(nil)
			if len(effects) == 0 || effects[len(effects)-1].Kind != Failed || !strings.Contains(effects[len(effects)-1].Err.Error(), c.want) || !r.Done() {
				t.Fatal(show(effects))
			}
		})
	}
}

// TestClaim: the ledger may have moved on before the recovery claims it.
func TestClaim(t *testing.T) {
	for _, c := range []struct {
		name   string
		stored *metadata.Ledger
		want   string
	}{
		{"with another ensemble", open(3, 2, "0 "+trio, "5 b1 b4 b3"), "Store over 2: IN_RECOVERY 0[b1 b2 b3] 5[b1 b4 b3]"},
		{"by another recovery", inRecovery(open(3, 2, "0 "+trio, "5 b1 b4 b3")), "ReadLast fence priority: b1 b4 b3"},
		{"to its end", closed(open(3, 2, "0 "+trio), 4, 50), "Sealed: CLOSED at 4 length 50 0[b1 b2 b3]"},
	} {
		r := newTestRecovery(t, open(3, 2, "0 "+trio), "", 1)
		r.Effects(nil)
		r.Conflict(c.stored, 2)
		if got := show(r.Effects(nil)); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
	r := newTestRecovery(t, closed(open(3, 2, "0 "+trio), 4, 50), "", 1)
	expect(t, r, "Sealed: CLOSED at 4 length 50 0[b1 b2 b3]")
}

// TestEndOfIDs: a ledger from elsewhere may claim entries that nobody can have.
func TestEndOfIDs(t *testing.T) {
	r := newTestRecovery(t, inRecovery(open(1, 1, "0 b1", "9223372036854775807 b2")), "", 4)
	r.Effects(nil)
	lasts(t, r, "b2 negative")
	r.Effects(nil)
	reads(t, r, "9223372036854775806 b1 unknown")
	if effects := r.Effects(nil); len(effects) != 1 || effects[0].Kind != Store || effects[0].Ledger.State != metadata.Closed {
		t.Fatal(show(effects))
	}
}

func BenchmarkRecovery(b *testing.B) {
	l := inRecovery(open(3, 2, "0 "+trio))
	bookies := ids(trio)
	r, err := NewRecovery(l, 1, &spares{}, 64)
	if err != nil {
		b.Fatal(err)
	}
	r.Start()
	for i, id := range bookies {
		r.LastReply(i, id, Negative, Last{})
	}
	queue := r.Effects(nil)
	b.ReportAllocs()
	for entries := 0; entries < b.N; {
		e := queue[0]
		queue = queue[1:]
		switch e.Kind {
		case Read:
			r.ReadReply(e.Entry, int(e.Index), e.Bookie, Ack, e.Entry)
		case Send:
			r.AddReply(e.Entry, int(e.Index), e.Bookie, Ack)
		case Release:
			entries++
		}
		queue = r.Effects(queue)
	}
}
