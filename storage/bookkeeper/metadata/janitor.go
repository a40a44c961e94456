package metadata

import (
	"maps"
	"slices"
	"time"
)

// Times says since when something is the case, by this process's clock. The zero
// value is ready for Note.
type Times[K comparable] map[K]time.Time

// Note takes over what is the case now: what is new is so since now, what was so
// already keeps its time, and the rest is forgotten.
func (t *Times[K]) Note(now time.Time, is []K) {
	next := make(Times[K], len(is))
	for _, k := range is {
		since, known := (*t)[k]
		if !known {
			since = now
		}
		next[k] = since
	}
	*t = next
}

// Orphans returns, in order, which of our ledgers may be deleted: those that a
// listing held (seen, since when), that no chain links, and that have been in
// listings for longer than grace. seen holds only ledgers that are surely ours,
// by their custom metadata and its cluster.
//
// linked must be complete, and have been read after the listing began: a ledger
// is created before it is linked, so one that the listing holds and a later
// reading of all chains does not, was not linked yet, or will not be, or was
// unlinked. grace must be longer than creating and linking can ever take; whoever
// takes longer must look whether the ledger is still there before using it.
func Orphans(linked map[int64]bool, seen Times[int64], now time.Time, grace time.Duration) []int64 {
	var orphans []int64
	for id, since := range seen {
		if !linked[id] && now.Sub(since) > grace {
			orphans = append(orphans, id)
		}
	}
	slices.Sort(orphans)
	return orphans
}

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
func UnderReplicated(ledgers []*Ledger, alive map[BookieID]bool, gone Times[BookieID], now time.Time, delay time.Duration) map[int64][]BookieID {
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
