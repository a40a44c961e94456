package group

import (
	"errors"
	"slices"
	"time"
)

// writes tracks what of a group is durable. At most one write is in flight.
//
//	change()      change()          Written(1)      Written(2)
//	  │ seq 1       │ seq 2            │ write 2       │
//	  ▼ write 1     ▼ (waits)          ▼               ▼ nothing in flight
type writes struct {
	seq      uint64 // of the last write asked for
	done     uint64 // every write ≤ done has an outcome
	dirty    bool   // a change is waiting for the write after seq
	stored   bool   // a record may exist
	deleting bool   // write seq is a deletion
	withheld []withheld
}

// withheld is a reply that leaves when write seq is durable.
type withheld struct {
	seq    uint64
	ticket Ticket
	ok     response
}

func (w *writes) idle() bool { return !w.dirty && w.seq == w.done && len(w.withheld) == 0 }

// change says that the group's durable state has changed and returns the
// sequence of the write that will hold it. The record is made when the event is
// over and no write is in flight.
func (g *Group) change() uint64 {
	g.log.dirty = true
	return g.log.seq + 1
}

// withhold answers ticket with ok when write seq is durable, with
// ErrUnavailable if it failed.
func (g *Group) withhold(seq uint64, ticket Ticket, ok response) {
	g.log.withheld = append(g.log.withheld, withheld{seq, ticket, ok})
}

// withdraw answers the withheld joins of a member that is no more with err.
func (g *Group) withdraw(memberID string, err error, e *Effects) {
	w := &g.log
	w.withheld = slices.DeleteFunc(w.withheld, func(h withheld) bool {
		join, ok := h.ok.(*JoinGroupResponse)
		if ok = ok && join.MemberID == memberID; ok {
			e.reply(h.ticket, join.refused(err))
		}
		return ok
	})
}

// flush asks for the next write if one is due; every event ends with it.
func (g *Group) flush(e *Effects) {
	w := &g.log
	if !w.dirty || w.seq != w.done {
		return
	}
	w.dirty = false
	w.seq++
	w.stored = true
	if w.deleting = g.State() == Dead; w.deleting {
		e.Write = Write{Seq: w.seq, Delete: true}
		return
	}
	e.Write = Write{Seq: w.seq, Record: g.appendRecord(nil)}
}

// Written tells the outcome of write seq and of all before. After an error the
// stored record may be that of the write, or the one before. ErrMaxSizeReached
// says that the record is larger than any that can be stored; who made it so is
// told the same, everybody else ErrUnavailable.
func (g *Group) Written(now time.Time, seq uint64, err error, e *Effects) {
	w := &g.log
	if seq <= w.done || seq > w.seq {
		return
	}
	w.done = seq
	why := ErrUnavailable
	if errors.Is(err, ErrMaxSizeReached) {
		why = ErrMaxSizeReached
	}
	kept := w.withheld[:0]
	for _, h := range w.withheld {
		switch {
		case h.seq > seq:
			kept = append(kept, h)
		case err == nil:
			e.reply(h.ticket, h.ok)
		default:
			e.reply(h.ticket, h.ok.refused(why))
		}
	}
	clear(w.withheld[len(kept):])
	w.withheld = kept
	switch {
	case w.deleting && err == nil:
		w.deleting, w.stored = false, false
		g.classic = newClassic(g)
	case w.deleting:
		w.deleting = false
		g.classic.state = Empty
	case g.consumer != nil && err == nil:
		g.consumer.written(now, seq, e)
	case g.consumer != nil:
		g.consumer.writeFailed(why, e)
	case err == nil:
		g.classic.written(now, seq, e)
	default:
		g.classic.writeFailed(now, seq, why, e)
	}
	g.flush(e)
}

// failWithheld refuses every withheld reply.
func (g *Group) failWithheld(err error, e *Effects) {
	for _, h := range g.log.withheld {
		e.reply(h.ticket, h.ok.refused(err))
	}
	g.log.withheld = nil
}
