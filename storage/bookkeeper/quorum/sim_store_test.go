package quorum

import (
	"errors"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// simStore is the metadata store. It looks at every write.
type simStore struct {
	s       *simulation
	ledger  *metadata.Ledger
	version metadata.Version
}

// write is the compare-and-swap.
func (st *simStore) write(who string, l *metadata.Ledger, version metadata.Version) bool {
	if st.version != version {
		return false
	}
	old := st.ledger
	st.check(who, old, l)
	st.ledger = l
	st.version++
	if l.State == metadata.Closed && old.State != metadata.Closed {
		if st.s.acked > l.LastEntry {
			st.s.violate("%s closes the ledger at %d, but %d was acknowledged", who, l.LastEntry, st.s.acked)
		}
		if l.LastEntry >= int64(len(st.s.payload)) {
			st.s.violate("%s closes the ledger at %d, but only %d entries were written", who, l.LastEntry, len(st.s.payload))
			return true
		}
		st.s.checkReplicas(0, l.LastEntry, "at the close by "+who)
	}
	return true
}

// check holds a change of metadata against the protocol.
func (st *simStore) check(who string, old, l *metadata.Ledger) {
	if err := check(l); err != nil {
		st.s.violate("%s stores %v", who, err)
	}
	if l.State < old.State {
		st.s.violate("%s moves the ledger from %v to %v", who, old.State, l.State)
	}
	if old.State == metadata.Closed && (l.LastEntry != old.LastEntry || l.Length != old.Length || len(l.Segments) != len(old.Segments)) {
		st.s.violate("%s changes a closed ledger from end %d, length %d to %d, %d", who, old.LastEntry, old.Length, l.LastEntry, l.Length)
	}
	if who == "writer" && old.State != metadata.Open {
		st.s.violate("the writer changes a ledger that is %v", old.State)
	}
	if who == "worker" {
		return
	}
	n := len(old.Segments)
	if len(l.Segments) < n || len(l.Segments) > n && who == "writer" && len(l.Segments) != n+1 {
		st.s.violate("%s makes %d segments of %d", who, len(l.Segments), n)
		return
	}
	for i := range n - 1 {
		if !sameSegment(old.Segments[i], l.Segments[i]) {
			st.s.violate("%s changes the older segment %d from %v to %v", who, old.Segments[i].First, old.Segments[i].Bookies, l.Segments[i].Bookies)
		}
	}
	if old.Segments[n-1].First != l.Segments[n-1].First {
		st.s.violate("%s moves a segment from %d to %d", who, old.Segments[n-1].First, l.Segments[n-1].First)
	}
}

var errStoreAway = errors.New("metadata store does not answer")

// put carries out a Store for a client: it repeats the write until it hears of its
// outcome, or gives up while the last attempt may still be on its way.
func (s *simulation) put(c *client, e Effect, m storer) {
	told := false
	tell := func(do func()) {
		if !told {
			told = true
			c.run(do)
		}
	}
	var attempt func(left int)
	attempt = func(left int) {
		if told {
			return
		}
		if left == 0 && !s.healed {
			s.log("%s: gives up storing", c.name)
			tell(func() { m.StoreFailed(errStoreAway) })
			return
		}
		s.after(storePause, func() { attempt(left - 1) })
		if s.lost() || s.now < s.storeAway && !s.healed {
			return
		}
		s.after(s.delay(), func() {
			ok := s.store.write(c.role, e.Ledger, e.Version)
			stored, version := s.store.ledger, s.store.version
			s.log("%s: stores %v %v, end %d, over %d: %v", c.name, e.Ledger.State, e.Ledger.Segments, e.Ledger.LastEntry, e.Version, ok)
			if s.lost() {
				return
			}
			s.after(s.delay(), func() {
				tell(func() {
					if ok {
						m.Stored(version)
					} else {
						m.Conflict(stored, version)
					}
				})
			})
		})
	}
	attempt(s.patience)
}

// storer is what hears the outcome of a Store: both machines.
type storer interface {
	Stored(metadata.Version)
	Conflict(*metadata.Ledger, metadata.Version)
	StoreFailed(error)
}
