package api

import (
	"slices"
	"sync"

	"github.com/quirelog/quire/protocol"
)

// commitLine keeps the commits of one connection in order while the way to their
// group changes. They overlap, so that the second may be on its way when the first
// comes back since nobody has served it; then whatever comes later waits, and
// when those under way are decided the others set out again, in their order. A
// commit that comes back when a later one of its group was answered is
// refused instead: done now it would take the group back.
type commitLine struct {
	lines *commitLines
	conn  uint64
	trips []*trip // in the order in which the client has sent them

	starting bool // somebody has one set out
	handing  int  // those that are on their way to their group here
	waits    bool // those that came back will be queued again
	waiting  routeWait
}

// lineState is where a commit is.
type lineState uint8

const (
	lineQueued    lineState = iota // to set out
	lineUnderway                   // set out
	lineOvertaken                  // likewise, and a later one was answered
	lineReturned                   // nobody has served it
	lineFailed                     // it is being refused
)

// commitLines are the lines of all connections that have commits under way.
type commitLines struct {
	mu     sync.Mutex // of all lines
	byConn map[uint64]*commitLine
}

// admit lets a commit set out when it is its turn.
func (c *commitLines) admit(conn uint64, t *trip) {
	c.mu.Lock()
	l := c.byConn[conn]
	if l == nil {
		l = &commitLine{lines: c, conn: conn}
		l.waiting.wake = l.restart
		if c.byConn == nil {
			c.byConn = make(map[uint64]*commitLine)
		}
		c.byConn[conn] = l
	}
	t.line, t.at = l, lineQueued
	l.trips = append(l.trips, t)
	c.mu.Unlock()
	l.run()
}

// run lets those set out that may.
func (l *commitLine) run() {
	c := l.lines
	for {
		c.mu.Lock()
		t := l.next()
		c.mu.Unlock()
		if t == nil {
			return
		}
		t.attempt()
		c.mu.Lock()
		l.starting = false
		c.mu.Unlock()
	}
}

// next takes the one that sets out now.
func (l *commitLine) next() *trip {
	if l.starting || l.handing > 0 {
		return nil // who starts one, or hands one over, looks again
	}
	var first, returned *trip
	underway := false
	for _, t := range l.trips {
		switch t.at {
		case lineQueued:
			if first == nil {
				first = t
			}
		case lineReturned:
			if returned == nil {
				returned = t
			}
		default:
			underway = true
		}
	}
	switch {
	case returned != nil:
		if !underway && !l.waits {
			l.waits = true
			l.waiting.changed, l.waiting.deadline = returned.waiting.changed, returned.waiting.deadline
			returned.p.h.waits.add(&l.waiting)
		}
		return nil
	case first != nil:
		first.at = lineUnderway
		l.starting = true
	}
	return first
}

// hold lets none set out until letOn: who is on the way to the group here would be overtaken.
func (l *commitLine) hold() {
	l.lines.mu.Lock()
	l.handing++
	l.lines.mu.Unlock()
}

func (l *commitLine) letOn() {
	l.lines.mu.Lock()
	l.handing--
	l.lines.mu.Unlock()
	l.run()
}

// restart queues again what came back.
func (l *commitLine) restart() {
	l.lines.mu.Lock()
	l.waits = false
	for _, t := range l.trips {
		if t.at == lineReturned {
			t.at = lineQueued
		}
	}
	l.lines.mu.Unlock()
	l.run()
}

// stall takes back a commit that nobody has served.
func (l *commitLine) stall(t *trip) {
	l.lines.mu.Lock()
	overtaken := t.at == lineOvertaken
	if !overtaken {
		t.at = lineReturned
	}
	l.lines.mu.Unlock()
	switch {
	case overtaken:
		t.fail(protocol.NotCoordinator)
	case t.p.state.Load() == parkedClosed:
		l.abandon(t) // closed has looked too early
	}
	l.run()
}

// abandon takes out a commit whose connection has closed, unless it is under way:
// then its answer ends it. False: it is.
func (l *commitLine) abandon(t *trip) bool {
	c := l.lines
	c.mu.Lock()
	at := slices.Index(l.trips, t)
	waits := at >= 0 && (t.at == lineQueued || t.at == lineReturned)
	if waits {
		l.remove(at)
	}
	c.mu.Unlock()
	if waits {
		t.p.end(nil)
	}
	return waits
}

// remove takes out a commit. The caller has the lock.
func (l *commitLine) remove(at int) {
	h := l.trips[at].p.h
	l.trips = slices.Delete(l.trips, at, at+1)
	if len(l.trips) > 0 {
		return
	}
	h.waits.remove(&l.waiting)
	if l.lines.byConn[l.conn] == l {
		delete(l.lines.byConn, l.conn)
	}
}

// failing says that a commit is being refused: nothing was done, or nobody knows.
func (l *commitLine) failing(t *trip) {
	l.lines.mu.Lock()
	defer l.lines.mu.Unlock()
	t.at = lineFailed
}

// ended takes out a commit that is answered.
func (l *commitLine) ended(t *trip) {
	c := l.lines
	c.mu.Lock()
	at := slices.Index(l.trips, t)
	if at < 0 {
		c.mu.Unlock()
		return
	}
	var late []*trip
	if t.at == lineUnderway || t.at == lineOvertaken {
		for _, earlier := range l.trips[:at] {
			switch {
			case earlier.slot != t.slot:
			case earlier.at == lineUnderway:
				earlier.at = lineOvertaken
			case earlier.at == lineReturned:
				earlier.at = lineFailed
				late = append(late, earlier)
			}
		}
	}
	l.remove(at)
	c.mu.Unlock()
	for _, earlier := range late {
		earlier.fail(protocol.NotCoordinator)
	}
	l.run()
}
