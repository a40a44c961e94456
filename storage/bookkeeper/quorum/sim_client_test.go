package quorum

import (
	"errors"
	"fmt"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// client is a process that runs a machine: it can stop for a while, and die.
type client struct {
	s       *simulation
	name    string
	role    string
	effects func([]Effect) []Effect
	carry   func(Effect)
	buf     []Effect

	dead    bool
	paused  bool
	waiting []func()
}

// run gives the machine an event and carries out what follows.
func (c *client) run(event func()) {
	if c.dead {
		return
	}
	if c.paused {
		c.waiting = append(c.waiting, event)
		return
	}
	event()
	c.buf = c.effects(c.buf[:0])
	for _, e := range c.buf {
		c.carry(e)
	}
}

func (c *client) event(what string, f func()) {
	c.run(func() {
		c.s.log("%s: %s", c.name, what)
		f()
	})
}

func (c *client) pause(length int64) {
	if c.paused {
		return
	}
	c.paused = true
	c.s.log("%s is paused", c.name)
	c.s.after(length, func() {
		c.paused = false
		c.s.log("%s goes on", c.name)
		events := c.waiting
		c.waiting = nil
		for _, e := range events {
			c.run(e)
		}
	})
}

// simWriter is the writer's shell.
type simWriter struct {
	client
	machine  *Writer
	released []bool
	lacs     []int64 // encoded into each entry
	degraded map[metadata.BookieID]bool

	failed, sealed, unsealed bool
}

func newSimWriter(s *simulation, l *metadata.Ledger) *simWriter {
	m, err := newWriter(s.rules, l, s.store.version, s)
	if err != nil {
		panic(err)
	}
	w := &simWriter{machine: m, degraded: map[metadata.BookieID]bool{}}
	w.client = client{s: s, name: "writer", role: "writer", effects: m.Effects, carry: w.carryOut}
	return w
}

var errAborted = errors.New("an add took too long")

// writing returns whether the writer has met no end yet.
func (w *simWriter) writing() bool { return !w.dead && !w.failed && !w.sealed && !w.unsealed }

func (w *simWriter) appendOften(left int, pause int64) {
	w.run(func() {
		bytes := w.s.rng.Int64N(50)
		entry, length, lac, err := w.machine.Append(int(bytes))
		if err != nil {
			if !errors.Is(err, ErrClosed) {
				w.s.violate("append: %v", err)
			}
			return
		}
		want := bytes
		if entry > 0 {
			want += w.s.length[entry-1]
		}
		if entry != int64(len(w.s.payload)) || length != want || lac != w.s.acked {
			w.s.violate("append got entry %d, length %d, LAC %d instead of %d, %d, %d", entry, length, lac, len(w.s.payload), want, w.s.acked)
		}
		w.s.log("writer: appends %d with LAC %d", entry, lac)
		w.s.payload = append(w.s.payload, bytes)
		w.s.length = append(w.s.length, length)
		w.released = append(w.released, false)
		w.lacs = append(w.lacs, lac)
	})
	if left > 1 {
		w.s.after(w.s.rng.Int64N(pause), func() { w.appendOften(left-1, pause) })
	}
}

func (w *simWriter) carryOut(e Effect) {
	s := w.s
	switch e.Kind {
	case Send:
		if w.failed || w.sealed || w.released[e.Entry] {
			s.violate("entry %d is sent after its release", e.Entry)
			return
		}
		s.send(&w.client, e, w.lacs[e.Entry], w.machine.AddReply)
	case Acknowledge:
		s.log("writer: acknowledged up to %d", e.Entry)
		if e.First != s.acked+1 || e.Entry < e.First || w.failed || w.sealed {
			s.violate("acknowledged %d…%d after %d, failed %v, sealed %v", e.First, e.Entry, s.acked, w.failed, w.sealed)
		}
		s.acked = e.Entry
		if l := s.store.ledger; l.State == metadata.Closed && e.Entry > l.LastEntry {
			s.violate("acknowledged %d after the ledger was closed at %d", e.Entry, l.LastEntry)
		}
		s.checkReplicas(e.First, e.Entry, "when it is acknowledged")
	case Release:
		if w.released[e.Entry] || e.Entry > s.acked || w.failed || w.sealed {
			s.violate("entry %d is released twice or before it is acknowledged", e.Entry)
		}
		w.released[e.Entry] = true
	case Store:
		s.put(&w.client, e, w.machine)
		s.after(s.rng.Int64N(2*storePause), func() { w.event("its store takes long", w.machine.StoreDelayed) })
	case Lacking:
		s.log("writer: %s lacks entries", e.Bookie)
	case Degraded:
		s.log("writer: goes on without %s", e.Bookie)
		w.degraded[e.Bookie] = true
		s.after(50+s.rng.Int64N(100), func() { w.event("retry", w.machine.Retry) })
	case Failed:
		s.log("writer: fails: %v", e.Err)
		if w.failed || w.sealed || w.unsealed {
			s.violate("the writer fails after its end: %v", e.Err)
		}
		w.failed = true
		if errors.Is(e.Err, ErrMetadata) || errors.Is(e.Err, ErrUnauthorized) {
			s.violate("the writer fails: %v", e.Err)
		}
	case Sealed:
		w.sealed = true
		s.log("writer: sealed at %d", e.Ledger.LastEntry)
		if e.Err != nil {
			s.violate("the writer's end: %v", e.Err)
		}
		s.checkSealed("the writer", e)
	case Unsealed:
		w.unsealed = true
		s.log("writer: leaves the ledger unsealed: %v", e.Err)
		if errors.Is(e.Err, ErrMetadata) {
			s.violate("the writer cannot seal: %v", e.Err)
		}
		if errors.Is(e.Err, errStoreAway) && s.chance(2) {
			s.after(s.delay(), func() { w.event("settle", w.machine.Settle) })
		} else if s.chance(2) {
			newSimRecovery(s, "RW", 3)
		}
	default:
		s.violate("the writer says %v", e.Kind)
	}
}

// simRecovery is a recovery's shell. It tries again while tries lasts; 0 means to
// try until it succeeds.
type simRecovery struct {
	client
	machine *Recovery
	tries   int
	reading bool
	kept    map[int64]int64 // LAC encoded in each entry that was read
}

func newSimRecovery(s *simulation, name string, tries int) {
	l, version := s.store.ledger, s.store.version // by the time it starts these may be old
	m, err := newRecovery(s.rules, l, version, s, 1+s.rng.IntN(5))
	if err != nil {
		s.violate("%s: %v", name, err)
		return
	}
	r := &simRecovery{machine: m, tries: tries, kept: map[int64]int64{}}
	r.client = client{s: s, name: name, role: "recovery", effects: m.Effects, carry: r.carryOut}
	s.recoveries = append(s.recoveries, r)
	s.after(s.delay(), func() { r.event("starts", m.Start) })
	if !s.healed && s.chance(10) {
		s.after(s.rng.Int64N(200), func() {
			r.dead = true
			s.log("%s dies", name)
		})
	}
	if !s.healed && s.chance(10) {
		s.after(s.rng.Int64N(100), func() { r.pause(s.rng.Int64N(300)) })
	}
}

func (r *simRecovery) carryOut(e Effect) {
	s := r.s
	switch e.Kind {
	case Send:
		lac, ok := r.kept[e.Entry]
		if !ok {
			s.violate("%s sends entry %d, which it does not hold", r.name, e.Entry)
			return
		}
		s.send(&r.client, e, lac, r.machine.AddReply)
	case ReadLast:
		b := s.bookie(e.Bookie)
		s.call(&r.client, b, func(reply func(answer)) { b.readLast(e.Flags, reply) }, func(a answer) {
			s.log("%s: %s says %v to the read of its last entry, %d with LAC %d", r.name, e.Bookie, a.class, a.last.Entry, a.last.LAC)
			r.machine.LastReply(int(e.Index), e.Bookie, a.class, a.last)
		})
	case Read:
		if !r.reading {
			r.reading = true
			s.checkFence(r.name, r.machine.frozen)
		}
		b := s.bookie(e.Bookie)
		s.call(&r.client, b, func(reply func(answer)) { b.read(e.Entry, e.Flags, reply) }, func(a answer) {
			s.log("%s: %s says %v to the read of %d", r.name, e.Bookie, a.class, e.Entry)
			if r.machine.ReadReply(e.Entry, int(e.Index), e.Bookie, a.class, a.length) {
				r.kept[e.Entry] = s.writer.lacs[e.Entry]
			}
		})
	case Release:
		if _, ok := r.kept[e.Entry]; !ok {
			s.violate("%s releases entry %d, which it does not hold", r.name, e.Entry)
		}
		delete(r.kept, e.Entry)
	case Store:
		s.guessed = s.guessed || r.machine.guessed
		s.put(&r.client, e, r.machine)
	case Degraded:
		s.log("%s: goes on without %s", r.name, e.Bookie)
	case Failed:
		s.log("%s: fails: %v", r.name, e.Err)
		r.dead = true
		if errors.Is(e.Err, ErrMetadata) || errors.Is(e.Err, ErrUnauthorized) {
			s.violate("%s: %v", r.name, e.Err)
		}
		if r.tries != 1 {
			if s.healed && r.tries < -20 {
				s.violate("%s: cannot recover though all is well: %v", r.name, e.Err)
				return
			}
			s.after(20+s.delay(), func() { newSimRecovery(s, r.name, r.tries-1) })
		}
	case Sealed:
		s.log("%s: sealed at %d", r.name, e.Ledger.LastEntry)
		r.dead = true
		s.checkSealed(r.name, e)
	default:
		s.violate("%s says %v", r.name, e.Kind)
	}
}

// send carries out a Send.
func (s *simulation) send(c *client, e Effect, lac int64, done func(int64, int, metadata.BookieID, Class)) {
	b := s.bookie(e.Bookie)
	s.call(c, b, func(reply func(answer)) { b.add(e.Entry, lac, e.Flags, reply) }, func(a answer) {
		s.log("%s: %s says %v to the add of %d", c.name, e.Bookie, a.class, e.Entry)
		done(e.Entry, int(e.Index), e.Bookie, a.class)
	})
}

// checkFence: when a recovery begins to read, no write set has an ack quorum left
// that takes the writer's adds.
func (s *simulation) checkFence(who string, l *metadata.Ledger) {
	for first := range l.Ensemble {
		unfenced := 0
		for i := range l.WriteQuorum {
			if !s.bookie(l.Last().Bookies[Position(int64(first), i, l.Ensemble)]).fencedSynced {
				unfenced++
			}
		}
		if unfenced >= l.AckQuorum {
			s.violate("%s goes on with %d bookies of write set %d of %v not fenced", who, unfenced, first, l.Last().Bookies)
		}
	}
}

// checkSealed: whoever says that the ledger is sealed says what is stored.
func (s *simulation) checkSealed(who string, e Effect) {
	l := s.store.ledger
	if l.State != metadata.Closed || e.Ledger.State != metadata.Closed || l.LastEntry != e.Ledger.LastEntry || l.Length != e.Ledger.Length {
		s.violate("%s says that the ledger is sealed at %d, length %d; stored is %v, %d, %d", who, e.Ledger.LastEntry, e.Ledger.Length, l.State, l.LastEntry, l.Length)
		return
	}
	var want int64
	if l.LastEntry >= 0 && l.LastEntry < int64(len(s.length)) {
		want = s.length[l.LastEntry]
	}
	if l.Length != want && !s.guessed {
		s.violate("%s seals the ledger at %d with length %d instead of %d", who, l.LastEntry, l.Length, want)
	}
}

func describe(seed uint64, violation string, trace []string) string {
	if len(trace) > 160 {
		trace = append(append(trace[:60:60], fmt.Sprintf("   …   %d lines", len(trace)-150)), trace[len(trace)-90:]...)
	}
	text := fmt.Sprintf("seed %d: %s\n", seed, violation)
	for _, line := range trace {
		text += "  " + line + "\n"
	}
	return text
}
