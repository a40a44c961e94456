package quorum

import "github.com/quirelog/quire/storage/bookkeeper/metadata"

// rules are the rules that the protocol's safety rests on, each by itself. The
// machines follow protocol; the tests break one at a time.
type rules struct {
	// acknowledged: an entry is complete with this many acks, each of another
	// member of its write set.
	acknowledged func(acks, ackQuorum int) bool
	// current: an answer counts only if it is of the bookie that has the position now.
	current func(member, answering metadata.BookieID) bool
	// carry: which acks of an unacknowledged entry outlive a change of the
	// ensemble. The new bookies have nothing yet.
	carry func(acked, replaced uint64) uint64
	// advance: how far the last acknowledged entry moves. It passes no entry that
	// is incomplete, else it would promise the ones before too.
	advance func(a *adds) int64
	// counted: which acks count while a change of the ensemble is being stored. Whether
	// it was is not known, so an entry needs its quorum in both ensembles, and only the
	// bookies that keep their positions are in both.
	counted func(acked, leaving uint64) uint64
	// firstOfSegment: a new ensemble takes over after the last acknowledged
	// entry. All that is not acknowledged moves to it.
	firstOfSegment func(lac, last int64) int64
	// mayWrite: a writer changes metadata only while nobody recovers the ledger.
	mayWrite func(stored metadata.State) bool
	// end: a failed writer closes the ledger where it stopped to acknowledge.
	end func(lac, last int64) int64

	// covered: so many members of a write set may still acknowledge an add.
	covered func(unknown, ackQuorum int) bool
	// start: recovery reads on after this entry. All entries before the last
	// segment were acknowledged, else the segment would begin earlier.
	start func(lac, firstOfLast int64) int64
	// lastFlags: the first reads of a recovery fence.
	lastFlags Flags
	// readFlags: so does every other. A bookie that had not answered
	// before might else acknowledge the entry after it said that it has none.
	readFlags Flags
	// addFlags: a recovery's adds pass its own fence.
	addFlags Flags
	// negative: who is unknown does not vote for an entry's absence.
	negative func(class Class) bool
	// absent: with so many negative votes the entry has no ack quorum, and, the
	// voters being fenced, never will.
	absent func(negatives, writeQuorum, ackQuorum int) bool
	// mayClose: every recovered entry has its ack quorum before the ledger's end
	// is stored.
	mayClose func(pending int) bool
	// commit: which of a recovery's new segments are stored together with the end.
	// Those after the last entry have nothing in them.
	commit func(first, lastEntry int64) bool
	// adopt: a ledger that another has closed stays as it is.
	adopt func(stored metadata.State) bool
}

var protocol = rules{
	acknowledged:   func(acks, ackQuorum int) bool { return acks >= ackQuorum },
	current:        func(member, answering metadata.BookieID) bool { return member == answering },
	carry:          func(acked, replaced uint64) uint64 { return acked &^ replaced },
	advance:        inOrder,
	counted:        func(acked, leaving uint64) uint64 { return acked &^ leaving },
	firstOfSegment: func(lac, _ int64) int64 { return lac + 1 },
	mayWrite:       func(stored metadata.State) bool { return stored == metadata.Open },
	end:            func(lac, _ int64) int64 { return lac },

	covered:   func(unknown, ackQuorum int) bool { return unknown < ackQuorum },
	start:     func(lac, firstOfLast int64) int64 { return max(lac, firstOfLast-1) },
	lastFlags: Fence | HighPriority,
	readFlags: Fence | HighPriority,
	addFlags:  RecoveryAdd | HighPriority,
	negative:  func(class Class) bool { return class == Negative },
	absent: func(negatives, writeQuorum, ackQuorum int) bool {
		return negatives >= writeQuorum-ackQuorum+1
	},
	mayClose: func(pending int) bool { return pending == 0 },
	commit:   func(first, lastEntry int64) bool { return first <= lastEntry },
	adopt:    func(stored metadata.State) bool { return stored == metadata.Closed },
}

// inOrder returns the last entry that is complete together with all before it.
func inOrder(a *adds) int64 {
	lac := a.lac
	for lac+1 < a.next && a.complete(lac+1) {
		lac++
	}
	return lac
}
