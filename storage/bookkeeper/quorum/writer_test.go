package quorum

import (
	"errors"
	"testing"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

func newTestWriter(t *testing.T, l *metadata.Ledger, spare string) *Writer {
	t.Helper()
	w, err := NewWriter(l, 1, &spares{ids(spare)})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// appendUpTo appends entries of ten bytes until last.
func appendUpTo(t *testing.T, w *Writer, last int64) {
	t.Helper()
	for {
		entry, length, lac, err := w.Append(10)
		if err != nil || length != 10*(entry+1) || lac != w.LAC() {
			t.Fatalf("append: entry %d, length %d, LAC %d, %v", entry, length, lac, err)
		}
		if entry == last {
			return
		}
	}
}

const trio = "b1 b2 b3"

// writerAt is a writer on b1, b2 and b3 with all entries up to lac acknowledged by all.
func writerAt(t *testing.T, lac int64, spare string) *Writer {
	t.Helper()
	w := newTestWriter(t, open(3, 2, "0 "+trio), spare)
	for e := range lac + 1 {
		appendUpTo(t, w, e)
		for i, b := range ids(trio) {
			w.AddReply(e, i, b, Ack)
		}
	}
	w.Effects(nil)
	if w.LAC() != lac || w.Pending() != 0 || w.Unreleased() != 0 || w.Length() != 10*(lac+1) {
		t.Fatalf("LAC %d, %d pending, %d unreleased, length %d", w.LAC(), w.Pending(), w.Unreleased(), w.Length())
	}
	return w
}

func TestAcknowledgeInOrder(t *testing.T) {
	w := newTestWriter(t, open(2, 2, "0 b1 b2 b3"), "")
	appendUpTo(t, w, 2)
	expect(t, w, "Send 0: b1 b2", "Send 1: b2 b3", "Send 2: b3 b1")
	reply(t, w, trio, "1 b2", "1 b3", "2 b1", "0 b1")
	expect(t, w)
	reply(t, w, trio, "0 b2")
	expect(t, w, "Acknowledge 0…1", "Release 0", "Release 1")
	reply(t, w, trio, "2 b3", "2 b3", "1 b2")
	expect(t, w, "Acknowledge 2…2", "Release 2")
}

// TestReleaseAfterAllHaveAnswered: a slow bookie holds the bytes, not the outcome.
func TestReleaseAfterAllHaveAnswered(t *testing.T) {
	w := newTestWriter(t, open(3, 2, "0 "+trio), "b4")
	appendUpTo(t, w, 40)
	w.Effects(nil)
	for e := range int64(41) {
		w.AddReply(e, 0, "b1", Ack)
		w.AddReply(e, 1, "b2", Ack)
	}
	if w.LAC() != 40 || w.Unreleased() != 41 {
		t.Fatalf("LAC %d, %d unreleased", w.LAC(), w.Unreleased())
	}
	w.Effects(nil)
	reply(t, w, trio, "3 b3", "0 b3")
	expect(t, w, "Release 3", "Release 0")
	reply(t, w, trio, "1 b3 unknown")
	expect(t, w, "Release 1", "Store over 1: OPEN 0[b1 b2 b3] 41[b1 b2 b4]")
	w.Stored(2)
	if effects := w.Effects(nil); len(effects) != 38 || w.Unreleased() != 0 {
		t.Fatalf("%d unreleased after\n%s", w.Unreleased(), show(effects))
	}
}

// TestEnsembleChange is a bookie's failure with entries half acknowledged, and that
// of its successor before anything was acknowledged again.
func TestEnsembleChange(t *testing.T) {
	w := writerAt(t, 41, "b4 b5")
	appendUpTo(t, w, 45)
	w.Effects(nil)
	reply(t, w, trio, "43 b1", "43 b2", "44 b1", "44 b3", "45 b2 unknown", "45 b1")
	expect(t, w, "Store over 1: OPEN 0[b1 b2 b3] 42[b1 b4 b3]")
	reply(t, w, trio, "42 b1", "42 b2") // complete, but not while the ensemble changes
	expect(t, w)
	if !w.Changing() || w.LAC() != 41 {
		t.Fatalf("changing %v, LAC %d", w.Changing(), w.LAC())
	}

	w.Stored(2)
	expect(t, w, "Send 42: b4", "Send 43: b4", "Send 44: b4", "Send 45: b4")
	const second = "b1 b4 b3"
	reply(t, w, second, "44 b4", "45 b4 failure")
	expect(t, w, "Store over 2: OPEN 0[b1 b2 b3] 42[b1 b5 b3]") // replaced, not appended
	w.Stored(3)
	expect(t, w, "Send 42: b5", "Send 43: b5", "Send 44: b5", "Send 45: b5")

	const third = "b1 b5 b3"
	w.AddReply(42, 1, "b2", Ack) // of bookies that are gone
	w.AddReply(43, 1, "b4", Ack)
	w.AddReply(43, 1, "b4", Failure)
	expect(t, w)
	reply(t, w, third, "42 b5", "42 b3")
	expect(t, w, "Acknowledge 42…42", "Release 42")
	reply(t, w, third, "43 b5", "44 b5", "45 b3")
	expect(t, w, "Acknowledge 43…44", "Release 44", "Acknowledge 45…45")
}

// TestLateFailure: a failure after the entry was acknowledged replaces the bookie too.
func TestLateFailure(t *testing.T) {
	w := writerAt(t, 40, "b4")
	appendUpTo(t, w, 41)
	w.Effects(nil)
	reply(t, w, trio, "41 b1", "41 b3")
	expect(t, w, "Acknowledge 41…41")
	reply(t, w, trio, "41 b2 unknown")
	expect(t, w, "Release 41", "Store over 1: OPEN 0[b1 b2 b3] 42[b1 b4 b3]")
	appendUpTo(t, w, 42) // b2 gets nothing more
	expect(t, w, "Send 42: b1 b3")
	w.Stored(2)
	expect(t, w, "Send 42: b4")
}

// TestStripedChange: entries that the failed bookie does not keep are
// acknowledged by the change as well.
func TestStripedChange(t *testing.T) {
	w := newTestWriter(t, open(2, 2, "0 b1 b2 b3"), "b4")
	appendUpTo(t, w, 2)
	w.Effects(nil)
	reply(t, w, trio, "1 b2 read-only")
	expect(t, w, "Store over 1: OPEN 0[b1 b4 b3]")
	reply(t, w, trio, "2 b3", "2 b1", "0 b1")
	w.Stored(2)
	expect(t, w, "Send 0: b4", "Send 1: b4")
	reply(t, w, "b1 b4 b3", "1 b3", "0 b4")
	expect(t, w, "Acknowledge 0…0", "Release 0")
	reply(t, w, "b1 b4 b3", "1 b4")
	expect(t, w, "Acknowledge 1…2", "Release 1", "Release 2")
}

// TestFailureDuringChange: one change at a time, and nothing acknowledged between two.
func TestFailureDuringChange(t *testing.T) {
	w := writerAt(t, 9, "b4 b5")
	appendUpTo(t, w, 10)
	w.Effects(nil)
	reply(t, w, trio, "10 b2 busy")
	expect(t, w, "Store over 1: OPEN 0[b1 b2 b3] 10[b1 b4 b3]")
	reply(t, w, trio, "10 b3 negative", "10 b1")
	expect(t, w)
	w.Stored(2)
	expect(t, w, "Send 10: b4", "Store over 2: OPEN 0[b1 b2 b3] 10[b1 b4 b5]")
	reply(t, w, "b1 b4 b3", "10 b4")
	expect(t, w)
	w.Stored(3)
	expect(t, w, "Send 10: b5", "Acknowledge 10…10")
}

// TestVanished: bookies are replaced in an idle ledger, also those that are just
// being put in, and kept if there is nobody else.
func TestVanished(t *testing.T) {
	w := writerAt(t, 4, "b4 b5")
	w.BookieFailed("b9")
	expect(t, w)
	w.BookieFailed("b3")
	expect(t, w, "Store over 1: OPEN 0[b1 b2 b3] 5[b1 b2 b4]")
	w.BookieFailed("b3")
	w.BookieFailed("b4")
	w.Stored(2)
	expect(t, w, "Store over 2: OPEN 0[b1 b2 b3] 5[b1 b2 b5]")
	w.Stored(3)
	w.BookieFailed("b1")
	expect(t, w)
	if w.Degraded() {
		t.Fatal("degraded without a failed add")
	}
	appendUpTo(t, w, 5)
	expect(t, w, "Send 5: b5 b1 b2")
}

// TestStalled: a bookie that is slow to answer is replaced where an entry has to have
// its answer, and not where the others are enough.
func TestStalled(t *testing.T) {
	w := writerAt(t, 4, "b4 b5")
	w.BookieStalled("b3", among("b3"), true) // nothing waits
	appendUpTo(t, w, 5)
	w.Effects(nil)
	reply(t, w, trio, "5 b1", "5 b2")
	expect(t, w, "Acknowledge 5…5")
	w.BookieStalled("b3", among("b3"), true)
	w.BookieStalled("b9", among("b9"), true)
	appendUpTo(t, w, 6)
	expect(t, w, "Send 6: b1 b2 b3")
	w.BookieStalled("b2", among("b2"), true) // b1 and b3 will do
	reply(t, w, trio, "6 b1")
	w.BookieStalled("b1", among("b1 b2 b3"), true) // has answered
	w.BookieStalled("b2", among("b2"), true)       // b3 will do
	expect(t, w)
	w.BookieStalled("b2", among("b2 b3"), true)
	expect(t, w, "Store over 1: OPEN 0[b1 b2 b3] 6[b1 b4 b3]")
	w.BookieStalled("b3", among("b3"), true) // one after the other
	w.Stored(2)
	expect(t, w, "Send 6: b4")
	reply(t, w, "b1 b4 b3", "6 b4")
	expect(t, w, "Acknowledge 6…6")

	// Nobody replaces them: two of three may be slow.
	appendUpTo(t, w, 7)
	w.Effects(nil)
	w.placement.(*spares).ids = nil
	w.BookieStalled("b1", among("b1 b4"), true)
	w.BookieStalled("b4", among("b1 b4"), true)
	expect(t, w)
	if w.Degraded() {
		t.Fatal("degraded without a failed add")
	}
	reply(t, w, "b1 b4 b3", "7 b4", "7 b1")
	expect(t, w, "Acknowledge 7…7")
}

// TestStalledWithoutWhomThereIsNoQuorum: the ledger ends if another one is better off.
func TestStalledWithoutWhomThereIsNoQuorum(t *testing.T) {
	w := newTestWriter(t, open(2, 2, "0 b1 b2 b3 b4"), "")
	appendUpTo(t, w, 0)
	w.Effects(nil)
	reply(t, w, "b1 b2 b3 b4", "0 b1")
	w.BookieStalled("b2", among("b2"), false)
	expect(t, w)
	w.BookieStalled("b2", among("b2"), true)
	expect(t, w, "Failed: ledger 7: not enough bookies for the ack quorum", "Store over 1: CLOSED at -1 length 0 0[b1 b2 b3 b4]")
	w.BookieStalled("b1", among("b1"), true)
	reply(t, w, "b1 b2 b3 b4", "0 b2")
	w.Stored(2)
	expect(t, w, "Sealed: CLOSED at -1 length 0 0[b1 b2 b3 b4]")
}

// TestNoSpare: without a bookie to replace it with, a failed one is left out as
// long as there is an ack quorum.
func TestNoSpare(t *testing.T) {
	w := writerAt(t, 4, "")
	appendUpTo(t, w, 5)
	w.Effects(nil)
	reply(t, w, trio, "5 b2 unknown")
	expect(t, w, "Degraded 1 b2")
	reply(t, w, trio, "5 b1", "5 b3")
	expect(t, w, "Acknowledge 5…5", "Release 5")
	appendUpTo(t, w, 7)
	expect(t, w, "Send 6: b1 b3", "Send 7: b3 b1")
	w.Retry() // still nobody
	expect(t, w)

	// It is back: it gets what is not acknowledged.
	reply(t, w, trio, "6 b1", "6 b3")
	expect(t, w, "Acknowledge 6…6", "Release 6")
	w.BookieReturned("b2")
	w.BookieReturned("b2")
	w.BookieReturned("b1")
	expect(t, w, "Send 7: b2")
	if w.Degraded() {
		t.Fatal("still degraded")
	}

	// Gone again, and then somebody else comes.
	reply(t, w, trio, "7 b2 failure")
	expect(t, w, "Degraded 1 b2")
	w.placement.(*spares).ids = ids("b4")
	w.Retry()
	expect(t, w, "Store over 1: OPEN 0[b1 b2 b3] 7[b1 b4 b3]")
	w.Stored(2)
	expect(t, w, "Send 7: b4")
	if w.Degraded() {
		t.Fatal("degraded after the change")
	}
	reply(t, w, "b1 b4 b3", "7 b3 unknown")
	expect(t, w, "Degraded 2 b3")
	reply(t, w, "b1 b4 b3", "7 b4 unknown") // nobody but b1 is left
	expect(t, w, "Failed: ledger 7: not enough bookies for the ack quorum",
		"Store over 2: CLOSED at 6 length 70 0[b1 b2 b3] 7[b1 b4 b3]")
	w.Stored(3)
	expect(t, w, "Sealed: CLOSED at 6 length 70 0[b1 b2 b3] 7[b1 b4 b3]")
}

// TestPartialReplacement: some failed bookies are replaced, others not.
func TestPartialReplacement(t *testing.T) {
	w := newTestWriter(t, open(3, 1, "0 "+trio), "b4")
	appendUpTo(t, w, 0)
	w.Effects(nil)
	reply(t, w, trio, "0 b1 unknown")
	expect(t, w, "Store over 1: OPEN 0[b4 b2 b3]")
	reply(t, w, trio, "0 b2 unknown")
	w.Stored(2)
	expect(t, w, "Send 0: b4", "Degraded 1 b2")
	reply(t, w, "b4 b2 b3", "0 b3")
	expect(t, w, "Acknowledge 0…0")
}

// TestBadPlacement: an answer that would put a bookie into an ensemble twice is none.
func TestBadPlacement(t *testing.T) {
	w := writerAt(t, 0, "b3")
	appendUpTo(t, w, 1)
	w.Effects(nil)
	reply(t, w, trio, "1 b2 unknown")
	expect(t, w, "Degraded 1 b2")
}

// TestStop: what ends a writer, and how the ledger is settled then.
func TestStop(t *testing.T) {
	for _, class := range []Class{Fenced, Unauthorized} {
		w := writerAt(t, 4, "b4")
		appendUpTo(t, w, 6)
		w.Effects(nil)
		w.AddReply(5, 0, "b1", class)
		err := map[Class]string{
			Fenced: "ledger is fenced by a recovery", Unauthorized: "bookie b1: bookie refuses the ledger's password",
		}[class]
		expect(t, w, "Failed: ledger 7: "+err, "Store over 1: CLOSED at 4 length 50 0[b1 b2 b3]")
		w.AddReply(5, 1, "b2", Ack)
		w.AddReply(5, 2, "b3", Ack)
		if _, _, _, err := w.Append(1); !errors.Is(err, ErrClosed) || w.LAC() != 4 {
			t.Fatalf("append: %v; LAC %d", err, w.LAC())
		}
		w.Conflict(inRecovery(open(3, 2, "0 "+trio)), 2)
		expect(t, w, "Unsealed: IN_RECOVERY 0[b1 b2 b3]: ledger 7: ledger is fenced by a recovery")
		w.Close()
		w.Abort(errAborted)
		w.BookieFailed("b1")
		w.BookieReturned("b1")
		w.Retry()
		expect(t, w)
		// The recovery kept one of the two entries in doubt.
		w.Settle()
		expect(t, w, "Store over 1: CLOSED at 4 length 50 0[b1 b2 b3]")
		w.Conflict(closed(open(3, 2, "0 "+trio), 5, 60), 3)
		expect(t, w, "Sealed: CLOSED at 5 length 60 0[b1 b2 b3]")
		w.Settle()
		w.Stored(9)
		w.Conflict(nil, 9)
		w.StoreFailed(errAborted)
		expect(t, w)
	}
}

func TestFencedByReplacedBookie(t *testing.T) {
	w := writerAt(t, 0, "b4")
	w.BookieFailed("b2")
	w.Stored(2)
	appendUpTo(t, w, 1)
	w.Effects(nil)
	w.AddReply(0, 1, "b2", Unauthorized) // a matter of that bookie
	expect(t, w)
	w.AddReply(0, 1, "b2", Fenced) // a matter of the ledger
	expect(t, w, "Failed: ledger 7: ledger is fenced by a recovery", "Store over 2: CLOSED at 0 length 10 0[b1 b2 b3] 1[b1 b4 b3]")
}

func TestAbort(t *testing.T) {
	w := writerAt(t, 2, "b4")
	appendUpTo(t, w, 3)
	w.Effects(nil)
	reply(t, w, trio, "3 b1 unknown")
	expect(t, w, "Store over 1: OPEN 0[b1 b2 b3] 3[b4 b2 b3]")
	w.Abort(errAborted)
	w.Abort(errAborted)
	expect(t, w, "Failed: ledger 7: an add took too long") // one Store at a time
	w.Stored(2)
	expect(t, w, "Store over 2: CLOSED at 2 length 30 0[b1 b2 b3] 3[b4 b2 b3]")
	w.StoreFailed(errStoreAway)
	expect(t, w, "Unsealed: nothing: ledger 7: metadata store does not answer")
	w.Settle()
	expect(t, w, "Store over 2: CLOSED at 2 length 30 0[b1 b2 b3] 3[b4 b2 b3]")
	w.Conflict(closed(open(3, 2, "0 "+trio, "3 b4 b2 b3"), 2, 30), 3) // it had been written
	expect(t, w, "Sealed: CLOSED at 2 length 30 0[b1 b2 b3] 3[b4 b2 b3]")
}

func TestClose(t *testing.T) {
	w := writerAt(t, 2, "b4")
	appendUpTo(t, w, 3)
	w.Effects(nil)
	w.Close()
	w.Close()
	expect(t, w)
	if _, _, _, err := w.Append(1); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	reply(t, w, trio, "3 b1", "3 b2")
	expect(t, w, "Acknowledge 3…3", "Store over 1: CLOSED at 3 length 40 0[b1 b2 b3]")
	reply(t, w, trio, "3 b3 fenced") // the store decides now
	expect(t, w, "Release 3")
	w.Stored(2)
	expect(t, w, "Sealed: CLOSED at 3 length 40 0[b1 b2 b3]")
	if l, v := w.Metadata(); l.State != metadata.Closed || v != 2 {
		t.Fatalf("%s at %d", showLedger(l), v)
	}

	w = newTestWriter(t, open(3, 2, "0 "+trio), "")
	w.Close()
	expect(t, w, "Store over 1: CLOSED at -1 length 0 0[b1 b2 b3]")
}

// TestCloseDuringChange: the change comes first, with what fails meanwhile.
func TestCloseDuringChange(t *testing.T) {
	w := writerAt(t, 0, "b4")
	w.BookieFailed("b1")
	w.Close()
	expect(t, w, "Store over 1: OPEN 0[b1 b2 b3] 1[b4 b2 b3]")
	w.Stored(2)
	expect(t, w, "Store over 2: CLOSED at 0 length 10 0[b1 b2 b3] 1[b4 b2 b3]")
}

// TestDelayedStore: while nobody knows which ensemble is stored an entry counts that has
// its quorum in both.
func TestDelayedStore(t *testing.T) {
	w := writerAt(t, 9, "b4 b5")
	appendUpTo(t, w, 12)
	w.Effects(nil)
	reply(t, w, trio, "10 b1", "10 b2", "11 b1 unknown", "11 b2", "11 b3")
	expect(t, w, "Acknowledge 10…10", "Store over 1: OPEN 0[b1 b2 b3] 11[b4 b2 b3]")
	reply(t, w, trio, "12 b1", "12 b2")
	w.StoreDelayed()
	expect(t, w, "Acknowledge 11…11", "Release 11") // 12 has b1, of which nobody knows whether it is still in
	if w.LAC() != 11 || !w.Changing() {
		t.Fatalf("LAC %d, changing %v", w.LAC(), w.Changing())
	}
	w.StoreDelayed()
	expect(t, w)
	appendUpTo(t, w, 13)
	expect(t, w, "Send 13: b2 b3")
	reply(t, w, trio, "12 b3", "13 b2", "13 b3")
	expect(t, w, "Acknowledge 12…12", "Release 12", "Acknowledge 13…13", "Release 13")
	appendUpTo(t, w, 14)
	expect(t, w, "Send 14: b3 b2")

	w.Stored(2)
	const second = "b4 b2 b3"
	expect(t, w, "Lacking 0 b4", "Send 14: b4")
	reply(t, w, second, "14 b4", "14 b2")
	expect(t, w, "Acknowledge 14…14")

	// The next change begins after what was acknowledged meanwhile, and is in time.
	reply(t, w, second, "14 b3 failure")
	expect(t, w, "Release 14", "Store over 2: OPEN 0[b1 b2 b3] 11[b4 b2 b3] 15[b4 b2 b5]")
	w.Stored(3)
	w.StoreDelayed()
	expect(t, w, "Release 10")
}

// TestDelayedStoreThatIsNotWritten: a Store that is made again begins after what was
// acknowledged meanwhile, and nobody lacks anything.
func TestDelayedStoreThatIsNotWritten(t *testing.T) {
	w := writerAt(t, 9, "b4")
	w.BookieFailed("b1")
	expect(t, w, "Store over 1: OPEN 0[b1 b2 b3] 10[b4 b2 b3]")
	w.StoreDelayed()
	appendUpTo(t, w, 10)
	expect(t, w, "Send 10: b2 b3")
	reply(t, w, trio, "10 b2", "10 b3")
	expect(t, w, "Acknowledge 10…10", "Release 10")
	w.Conflict(open(3, 2, "0 "+trio), 5)
	expect(t, w, "Store over 5: OPEN 0[b1 b2 b3] 11[b4 b2 b3]")
	appendUpTo(t, w, 11)
	w.Effects(nil)
	reply(t, w, trio, "11 b2", "11 b3")
	expect(t, w) // this one is not delayed
	w.Stored(6)
	expect(t, w, "Send 11: b4", "Acknowledge 11…11")
}

// TestConflicts: what a Store that was not written means, by what is stored.
func TestConflicts(t *testing.T) {
	base := open(3, 2, "0 "+trio)
	for _, c := range []struct {
		name   string
		act    func(w *Writer) // gives a Store over 1, with 5 acknowledged and 6 not
		stored *metadata.Ledger
		want   []string
	}{
		{"a change, written by an earlier attempt", change, open(3, 2, "0 b1 b2 b3", "6 b4 b2 b3"),
			[]string{"Send 6: b4", "Send 7: b4"}},
		{"a change, with a repair since", change, open(3, 2, "0 b1 b9 b3", "6 b4 b2 b3"),
			[]string{"Send 6: b4", "Send 7: b4"}},
		{"a change of another's segment", change, open(3, 2, "0 b1 b2 b3", "5 b8 b2 b3"),
			[]string{"Failed: ledger 7: ledger metadata were changed by somebody else: last segment is 5",
				"Unsealed: OPEN 0[b1 b2 b3] 5[b8 b2 b3]: ledger 7: ledger metadata were changed by somebody else: last segment is 5"}},
		{"a change in recovery", change, inRecovery(base),
			[]string{"Failed: ledger 7: ledger is fenced by a recovery",
				"Unsealed: IN_RECOVERY 0[b1 b2 b3]: ledger 7: ledger is fenced by a recovery"}},
		{"a change of a closed ledger", change, closed(base, 6, 70),
			[]string{"Failed: ledger 7: ledger is fenced by a recovery", "Sealed: CLOSED at 6 length 70 0[b1 b2 b3]"}},
		{"a change of a ledger closed too early", change, closed(base, 4, 50),
			[]string{"Failed: ledger 7: ledger is fenced by a recovery",
				"Sealed: CLOSED at 4 length 50 0[b1 b2 b3]: ledger 7: ledger was closed elsewhere at another end than its writer knows: closed at 4, acknowledged 5, written 7"}},
		{"a change of a deleted ledger", change, nil,
			[]string{"Failed: ledger 7: ledger was deleted", "Unsealed: nothing: ledger 7: ledger was deleted"}},
		{"a close, closed by an earlier attempt", end, closed(base, 7, 80),
			[]string{"Sealed: CLOSED at 7 length 80 0[b1 b2 b3]"}},
		{"a close, closed with what was never written", end, closed(base, 8, 90),
			[]string{"Sealed: CLOSED at 8 length 90 0[b1 b2 b3]: ledger 7: ledger was closed elsewhere at another end than its writer knows: closed at 8, acknowledged 7, written 7"}},
		{"a close in recovery", end, inRecovery(base),
			[]string{"Unsealed: IN_RECOVERY 0[b1 b2 b3]: ledger 7: ledger is fenced by a recovery"}},
		{"a close of a deleted ledger", end, nil,
			[]string{"Unsealed: nothing: ledger 7: ledger was deleted"}},
		{"a close of another's segment", end, open(3, 2, "0 b1 b2 b3", "5 b8 b2 b3"),
			[]string{"Unsealed: OPEN 0[b1 b2 b3] 5[b8 b2 b3]: ledger 7: ledger metadata were changed by somebody else: last segment is 5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := writerAt(t, 5, "b4")
			appendUpTo(t, w, 7)
			c.act(w)
			w.Effects(nil)
			w.Conflict(c.stored, 4)
			expect(t, w, c.want...)
		})
	}
}

func change(w *Writer) { w.AddReply(6, 0, "b1", Failure) }

func end(w *Writer) {
	for e := int64(6); e < 8; e++ {
		for i, b := range ids(trio) {
			w.AddReply(e, i, b, Ack)
		}
	}
	w.Close()
}

// TestRepairMeanwhile: AutoRecovery edits older segments of the same record, and
// that edit stays.
func TestRepairMeanwhile(t *testing.T) {
	w := writerAt(t, 5, "b4 b5")
	w.BookieFailed("b1")
	w.Stored(2)
	appendUpTo(t, w, 6)
	w.Effects(nil)
	reply(t, w, "b4 b2 b3", "6 b2 unknown")
	expect(t, w, "Store over 2: OPEN 0[b1 b2 b3] 6[b4 b5 b3]")
	w.Conflict(open(3, 2, "0 b9 b2 b3", "6 b4 b2 b3"), 3)
	expect(t, w, "Store over 3: OPEN 0[b9 b2 b3] 6[b4 b5 b3]")
	w.Stored(4)
	w.Effects(nil)
	w.Abort(errAborted)
	w.Effects(nil)
	w.Conflict(open(3, 2, "0 b9 b8 b3", "6 b4 b5 b3"), 5)
	expect(t, w, "Store over 5: CLOSED at 5 length 60 0[b9 b8 b3] 6[b4 b5 b3]")
}

// TestGivenUpChange: the change that nobody heard of may be stored or not.
func TestGivenUpChange(t *testing.T) {
	for _, stored := range []*metadata.Ledger{open(3, 2, "0 b1 b2 b3"), open(3, 2, "0 b1 b2 b3", "6 b4 b2 b3")} {
		w := writerAt(t, 5, "b4")
		appendUpTo(t, w, 7)
		change(w)
		w.Effects(nil)
		w.StoreFailed(errStoreAway)
		effects := w.Effects(nil)
		if len(effects) != 2 || effects[0].Kind != Failed || !errors.Is(effects[0].Err, errStoreAway) || effects[1].Kind != Store {
			t.Fatal(show(effects))
		}
		w.Conflict(stored, 8)
		effects = w.Effects(nil)
		if len(effects) != 1 || effects[0].Kind != Store || effects[0].Version != 8 ||
			effects[0].Ledger.LastEntry != w.LAC() || !sameSegment(effects[0].Ledger.Last(), stored.Last()) {
			t.Fatal(show(effects))
		}
	}
}

// TestSettlingAnswers: the change that was under way when the writer failed is
// answered in each way.
func TestSettlingAnswers(t *testing.T) {
	for name, answer := range map[string]func(w *Writer) string{
		"given up": func(w *Writer) string {
			w.StoreFailed(errStoreAway)
			return "Store over 1: CLOSED at 5 length 60 0[b1 b2 b3]"
		},
		"repaired": func(w *Writer) string {
			w.Conflict(open(3, 2, "0 b1 b2 b3"), 2)
			return "Store over 2: CLOSED at 5 length 60 0[b1 b2 b3]"
		},
		"stored": func(w *Writer) string {
			w.Stored(2)
			return "Store over 2: CLOSED at 5 length 60 0[b1 b2 b3] 6[b4 b2 b3]"
		},
		"our own": func(w *Writer) string {
			w.Conflict(open(3, 2, "0 b1 b2 b3", "6 b4 b2 b3"), 3)
			return "Store over 3: CLOSED at 5 length 60 0[b1 b2 b3] 6[b4 b2 b3]"
		},
		"recovering": func(w *Writer) string {
			w.Conflict(inRecovery(open(3, 2, "0 b1 b2 b3")), 3)
			return "Unsealed: IN_RECOVERY 0[b1 b2 b3]: ledger 7: ledger is fenced by a recovery"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := writerAt(t, 5, "b4")
			appendUpTo(t, w, 7)
			change(w)
			w.Abort(errAborted)
			w.Effects(nil)
			expect(t, w, answer(w))
		})
	}
}

func TestFull(t *testing.T) {
	w := newTestWriter(t, open(1, 1, "0 b1"), "")
	w.next, w.oldest, w.lac = MaxEntries-1, MaxEntries-1, MaxEntries-2
	if _, _, _, err := w.Append(0); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := w.Append(0); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	expect(t, w, "Send 2147483646: b1")
}

// TestNoAllocation: an entry costs no allocation once the queues have grown.
func TestNoAllocation(t *testing.T) {
	w := newTestWriter(t, open(3, 2, "0 "+trio), "")
	bookies := ids(trio)
	var effects []Effect
	const window = 100
	step := func() {
		entry, _, _, err := w.Append(1000)
		if err != nil {
			t.Fatal(err)
		}
		effects = w.Effects(effects[:0])
		if e := entry - window; e >= 0 {
			for i, b := range bookies {
				w.AddReply(e, i, b, Ack)
			}
		}
		effects = w.Effects(effects[:0])
	}
	for range 1000 {
		step()
	}
	if n := testing.AllocsPerRun(1000, step); n != 0 {
		t.Fatalf("%.1f allocations per entry", n)
	}
	if w.Unreleased() != window {
		t.Fatalf("%d unreleased", w.Unreleased())
	}
}

func BenchmarkWriter(b *testing.B) {
	w, err := NewWriter(open(3, 2, "0 "+trio), 1, &spares{})
	if err != nil {
		b.Fatal(err)
	}
	bookies := ids(trio)
	var effects []Effect
	b.ReportAllocs()
	for b.Loop() {
		entry, _, _, err := w.Append(1000)
		if err != nil {
			b.Fatal(err)
		}
		effects = w.Effects(effects[:0])
		for i, id := range bookies {
			w.AddReply(entry, i, id, Ack)
			effects = w.Effects(effects[:0])
		}
	}
}
