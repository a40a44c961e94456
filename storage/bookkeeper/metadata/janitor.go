package metadata

import "time"

// Owned says whose a ledger is, by its custom metadata; see Orphans.
type Owned struct {
	ID       int64
	FirstSaw time.Time // when this process first listed it
}

// Orphans returns which ledgers may be deleted: those that were in a listing of
// ours, and not linked by a chain read after it, for longer than grace since each
// was first listed.
//
// linked must have been read after listed: a ledger enters its chain after it is
// created, so one that is in the listing and not in a later reading of the chains
// was not linked yet, or never will be, or was unlinked. grace is the time that
// creating and linking can take at most.
func Orphans(linked map[int64]bool, listed []Owned, now time.Time, grace time.Duration) []int64 {
	return nil
}

// UnderReplicated returns, by ledger, the bookies that should be replaced in it:
// members of its segments that are not alive and have been gone for longer than
// delay. since has when each was first seen gone; a bookie without an entry there
// is not known to be gone.
func UnderReplicated(ledgers []*Ledger, alive map[BookieID]bool, since map[BookieID]time.Time, now time.Time, delay time.Duration) map[int64][]BookieID {
	return nil
}
