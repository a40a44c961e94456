package metadata

import (
	"maps"
	"slices"
	"time"
)

// Missing returns the bookies that a ledger needs and that are not alive, in
// order. All its segments count: those before the last are replicas too.
func Missing(l *Ledger, alive map[BookieID]bool) []BookieID {
	missing := make(map[BookieID]bool)
	for i, s := range l.Segments {
		if l.State == Closed && s.First > l.LastEntry && i > 0 {
			break // no entry is in it
		}
		for _, b := range s.Bookies {
			if !alive[b] {
				missing[b] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(missing))
}

// UnderReplicated returns by ledger the bookies whose replicas AutoRecovery should
// restore: members of its segments that are not alive and have been gone for
// longer than delay. gone says since when; of a bookie that it does not hold
// nobody knows for how long. Alive is what is registered, and what is not but
// answers: a lease may lapse under a bookie that serves.
//
// Ledgers with one replica per entry are left out: there is nothing to copy from.
// delay must give writers time to replace the bookie in the ledgers that they
// write: the replication worker fences an open ledger that it finds marked.
func UnderReplicated(ledgers []*Ledger, alive map[BookieID]bool, gone map[BookieID]time.Time, now time.Time, delay time.Duration) map[int64][]BookieID {
	marks := make(map[int64][]BookieID)
	for _, l := range ledgers {
		if l.WriteQuorum < 2 {
			continue
		}
		lost := slices.DeleteFunc(Missing(l, alive), func(b BookieID) bool {
			since, known := gone[b]
			return !known || now.Sub(since) <= delay
		})
		if len(lost) > 0 {
			marks[l.ID] = lost
		}
	}
	return marks
}
