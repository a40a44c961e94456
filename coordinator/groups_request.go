package coordinator

import (
	"errors"
	"time"

	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/storage/planted"
)

// maxParked is how many requests wait for one slot to be loaded.
const maxParked = 1 << 12

// request is what somebody asks of a group.
type request struct {
	f      func(s *shard, slot *ownedSlot)
	refuse func(error)
	// unproved requests are carried out whether or not the lease is known to
	// last, and are refused at once while the slot is loaded.
	unproved bool
	// atRest, if it is not nil, says how to answer what needs nothing but memory, and for
	// how long that holds once the lease is not known to last any more; nil: f is needed.
	atRest func(slot *ownedSlot) (answer func(), patience time.Duration)
}

// serve carries out a request: now, when its slot is loaded, or when the
// metadata store has said that this node owns the slot.
func (s *shard) serve(n int, r request) {
	slot, err := s.slot(n)
	switch {
	case r.unproved && err == nil:
		r.f(s, slot)
	case err == nil && r.atRest != nil && s.rest(slot, &r):
	case errors.Is(err, group.ErrNotLoaded) && !r.unproved && s.park(n, r):
	case err != nil:
		r.refuse(err)
	case s.proving[n] == 0 && s.g.c.slots.trusted(n, slot.fence), planted.Is(planted.StaleOffsets), planted.Is(planted.UnguardedCommits):
		r.f(s, slot)
	default:
		s.proveThen(n, r)
	}
}

// rest answers a request at rest. While the lease is not known to last it does not: then
// the request has its answer if the metadata store cannot be asked, as long as that holds.
func (s *shard) rest(slot *ownedSlot, r *request) bool {
	answer, patience := r.atRest(slot)
	switch {
	case answer == nil:
	case s.g.c.slots.trusted(slot.n, slot.fence): // looked at last: it was known throughout then
		answer()
		return true
	case s.g.c.slots.lapsedFor(slot.n, patience):
		refuse := r.refuse
		r.refuse = func(err error) {
			if errors.Is(err, group.ErrUnavailable) {
				answer()
			} else {
				refuse(err)
			}
		}
	}
	return false
}

// proveThen carries out a request after the metadata store has said that this
// node owns the slot. What it finds in memory then is as of that moment or
// later, and everything that the slot's owner before has written. Requests of a slot
// that come while others are proved are proved too, also if the lease lasts again: a
// commit that overtook an older one would be undone by it.
func (s *shard) proveThen(n int, r request) {
	s.proving[n]++
	s.g.c.prover.prove(n, func(err error) {
		proved := func() {
			if s.proving[n]--; s.proving[n] == 0 {
				delete(s.proving, n)
			}
			slot, lost := s.slot(n)
			switch {
			case errors.Is(err, ErrNotOwner):
				r.refuse(group.ErrNotCoordinator)
			case err != nil:
				r.refuse(group.ErrUnavailable)
			case lost != nil:
				r.refuse(lost)
			default:
				r.f(s, slot)
			}
		}
		if !s.inbox.put(proved) {
			r.refuse(group.ErrUnavailable)
		}
	})
}

// park keeps a request until its slot is loaded, or has been loading for too long.
func (s *shard) park(n int, r request) bool {
	if s.closed || len(s.parked[n]) >= maxParked || s.g.config.LoadWait < 0 {
		return false
	}
	s.parked[n] = append(s.parked[n], r)
	if len(s.parked[n]) == 1 {
		s.parkings++
		parking := s.parkings
		s.parkedAs[n] = parking
		time.AfterFunc(s.g.config.LoadWait, func() {
			s.inbox.put(func() {
				if s.parkedAs[n] == parking {
					s.refuseParked(n, group.ErrNotLoaded)
				}
			})
		})
	}
	return true
}

// unpark returns what waits for a slot to be loaded, in order.
func (s *shard) unpark(n int) []request {
	parked := s.parked[n]
	delete(s.parked, n)
	delete(s.parkedAs, n)
	return parked
}

// refuseParked refuses what waits for a slot to be loaded.
func (s *shard) refuseParked(n int, why error) {
	for _, r := range s.unpark(n) {
		r.refuse(why)
	}
}
