package quorum

import "github.com/quirelog/quire/storage/bookkeeper/metadata"

// simBookie is a bookie: what it acknowledges is synced, what it had not synced is
// lost in a crash, fences included. It serves reads from what it has not synced.
type simBookie struct {
	s  *simulation
	id metadata.BookieID

	up       bool
	life     int
	readOnly bool
	limbo    bool             // after a crash: it does not vouch for the absence of an entry
	stuck    int64            // answers nothing before this time
	slow     map[string]int64 // requests of this role arrive after this time

	fenced       bool
	fencedSynced bool
	entries      []simEntry
}

type simEntry struct {
	state uint8
	lac   int64
}

const (
	absent uint8 = iota
	unsynced
	synced
)

type answer struct {
	class  Class
	last   Last
	length int64
}

func (b *simBookie) synced(entry int64) bool {
	return entry < int64(len(b.entries)) && b.entries[entry].state == synced
}

func (b *simBookie) has(entry int64) bool {
	return entry < int64(len(b.entries)) && b.entries[entry].state != absent
}

func (b *simBookie) put(entry, lac int64, sync bool) {
	for int64(len(b.entries)) <= entry {
		b.entries = append(b.entries, simEntry{})
	}
	e := &b.entries[entry]
	if e.state == absent {
		*e = simEntry{unsynced, lac}
	}
	if sync {
		e.state = synced
	}
}

func (b *simBookie) crash() {
	if !b.up {
		return
	}
	b.up = false
	b.life++
	b.fenced = b.fencedSynced
	for i := range b.entries {
		if b.entries[i].state == unsynced {
			b.entries[i].state = absent
		}
	}
	b.s.log("%s crashes", b.id)
}

func (b *simBookie) restart() {
	if b.up {
		return
	}
	b.up = true
	b.limbo = !b.s.healed && b.s.chance(4)
	b.s.log("%s restarts, limbo %v", b.id, b.limbo)
	w := b.s.writer
	w.event("returned "+string(b.id), func() { w.machine.BookieReturned(b.id) })
}

// sync calls then once the bookie has synced, unless it crashes before.
func (b *simBookie) sync(then func()) {
	life := b.life
	b.s.after(1+b.s.delay()/2, func() {
		if b.life == life {
			then()
		}
	})
}

func (b *simBookie) add(entry, lac int64, flags Flags, reply func(answer)) {
	switch {
	case b.readOnly && flags&HighPriority == 0:
		reply(answer{class: ReadOnly})
	case !b.s.healed && b.s.chance(150):
		reply(answer{class: Busy})
	case b.fenced && flags&RecoveryAdd == 0:
		reply(answer{class: Fenced})
	default:
		b.put(entry, lac, false)
		b.sync(func() {
			b.put(entry, lac, true)
			if !b.s.healed && b.s.chance(150) {
				reply(answer{class: Failure}) // stored all the same
				return
			}
			reply(answer{class: Ack})
		})
	}
}

// fence calls then once the fence is synced, if flags ask for one.
func (b *simBookie) fence(flags Flags, then func()) {
	if flags&Fence == 0 || b.fencedSynced {
		then()
		return
	}
	b.fenced = true
	b.sync(func() {
		b.fencedSynced = true
		then()
	})
}

func (b *simBookie) missing() Class {
	if b.limbo {
		return Unknown
	}
	return Negative
}

func (b *simBookie) read(entry int64, flags Flags, reply func(answer)) {
	a := answer{class: b.missing()}
	if b.has(entry) {
		a = answer{class: Ack, length: b.s.length[entry]}
		if !b.s.healed && b.s.chance(100) {
			a.class = Unknown // does not match its digest
		}
	}
	b.fence(flags, func() { reply(a) })
}

func (b *simBookie) readLast(flags Flags, reply func(answer)) {
	a := answer{class: b.missing()}
	for e := range b.entries {
		if b.has(int64(e)) {
			a = answer{class: Ack, last: Last{Entry: int64(e), LAC: b.entries[e].lac, Length: b.s.length[e]}}
		}
	}
	b.fence(flags, func() { reply(a) })
}

// call sends a request to b for client, and tells it the answer or, past the
// deadline, that there is none. A request may arrive long after that.
func (s *simulation) call(c *client, b *simBookie, serve func(reply func(answer)), done func(answer)) {
	told := false
	tell := func(a answer) {
		if told && !s.late {
			return
		}
		told = true
		c.run(func() { done(a) })
	}
	s.after(deadline, func() {
		if !told {
			tell(answer{class: Unknown})
		}
	})
	if s.lost() {
		return
	}
	arrives := s.delay()
	if until := max(b.stuck, b.slow[c.role]); until > s.now+arrives {
		arrives = until - s.now + s.delay()
	}
	s.after(arrives, func() {
		if !b.up {
			s.after(s.delay(), func() { tell(answer{class: Unknown}) })
			return
		}
		serve(func(a answer) {
			if !s.lost() {
				s.after(s.delay(), func() { tell(a) })
			}
		})
	})
}
