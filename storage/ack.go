package storage

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
)

// Appended is the tier's answer to one entry. It runs on a goroutine of the
// tier that holds none of the tier's locks, since it takes the log's.
func (p *pending) Appended(a *ledger.Append, err error) {
	l := p.log
	l.mu.Lock()
	p.answered, p.err = true, err
	switch {
	case err == nil && a.Entry != p.id:
		// The tier refused an entry and then took this one: there is a hole.
		p.err = fmt.Errorf("log %s: %w: entry %d of ledger %d became %d", logName(l.id), ErrStorage, p.id, p.seg.id, a.Entry)
		l.fail(p.err)
	case err != nil:
		p.err = l.ledgerError(p.seg.id, err)
		if !errors.Is(err, ledger.ErrNoSpace) {
			l.fail(p.err)
			if errors.Is(err, ledger.ErrFenced) {
				// Whoever has recovered the ledger may have found it there.
				p.err = fmt.Errorf("%w: %w", ErrUnknownOutcome, p.err)
			}
		}
	}
	done := l.settle()
	l.mu.Unlock()
	deliver(done)
}

// ledgerError says in the log's words what befell a ledger.
func (l *Log) ledgerError(id ledger.ID, err error) error {
	kind := ErrStorage
	switch {
	case errors.Is(err, ledger.ErrNoSpace):
		kind = ErrNoSpace
	case errors.Is(err, ledger.ErrFenced):
		kind = ErrLostOwnership
	case errors.Is(err, ledger.ErrCorrupt):
		kind = ErrCorrupt
	}
	return fmt.Errorf("log %s: %w: ledger %d: %w", logName(l.id), kind, id, err)
}

// settle takes from the queue what is decided, in order: an entry counts as
// stored when it and all before it are acknowledged, and one failure fails all
// behind it. It returns the appends to notify once l.mu is free.
func (l *Log) settle() *pending {
	var done pendingList
	moved := false
	for p := l.queueHead; p != nil && p.answered; p = l.queueHead {
		l.queueHead, p.next = p.next, nil
		if l.queueHead == nil {
			l.queueTail = nil
		}
		if p.seg != nil {
			p.seg.inflight--
		}
		if l.failure == nil && p.err == nil {
			l.commit(p)
			done.add(p)
			moved = true
			continue
		}
		if l.failure == nil {
			l.failure = p.err
		}
		if p.err == nil {
			// It was stored behind one that was not: nothing may follow it.
			l.fail(fmt.Errorf("log %s: %w: ledger %d has a hole", logName(l.id), ErrStorage, p.seg.id))
		}
		p.next, l.failed = l.failed, p
	}
	if l.failure != nil && l.queueHead == nil {
		l.rollback(&done)
	}
	if moved {
		l.wake()
	}
	switch {
	case l.closed != nil:
		if l.queueHead == nil && l.holdsLedgers() {
			l.schedule(workAbandon)
		}
	case len(l.sealing) > 0 && l.sealing[0].inflight == 0:
		l.schedule(workSeal)
	}
	return done.first
}

// commit makes an acknowledged entry visible.
func (l *Log) commit(p *pending) {
	l.hw = p.end
	s := p.seg
	s.maxTimestamp = max(s.maxTimestamp, p.timestamp)
	if p.undo.ended >= 0 {
		l.endTxn(p.base)
	}
	a := p.owner
	if a == nil {
		return
	}
	l.store.metrics.appendBytes.Add(float64(len(p.entry.Body)))
	a.BaseOffset, a.LogAppendTime, a.LogStartOffset = p.base, p.appended, l.start
	for d := p.duplicates; d != nil; d = d.internal.nextDuplicate {
		d.BaseOffset, d.LogAppendTime, d.LogStartOffset = p.base, d.internal.appended, l.start
	}
}

// rollback ends a failure: everything from the first failed append on has been
// answered. If it is known what is stored, the log goes back to that.
func (l *Log) rollback(done *pendingList) {
	for p := l.failed; p != nil; p = p.next { // the newest first
		if !l.unsound {
			l.takeBack(p)
		}
		if a := p.owner; a != nil {
			a.Err = l.failure
			for d := a.internal.duplicates; d != nil; d = d.internal.nextDuplicate {
				d.Err = l.failure
			}
		}
	}
	if !l.unsound {
		l.next = l.hw
		l.unsentBytes = 0
		l.headState = nil
		l.tail.cut(l.hw)
		if l.seg != nil && l.seg.base > l.hw {
			l.seg.base = l.hw
		}
		for _, s := range l.sealing {
			if s.end > l.hw {
				s.end, s.finalState = l.hw, encodeState(l.producers)
			}
		}
	}
	// Callers hear in the order in which they appended.
	var first *pending
	for p := l.failed; p != nil; {
		next := p.next
		p.next, first = first, p
		p = next
	}
	for p := first; p != nil; {
		next := p.next
		p.next = nil
		done.add(p)
		p = next
	}
	l.failed, l.failure = nil, nil
}

// takeBack undoes what p, the newest append left, has changed.
func (l *Log) takeBack(p *pending) {
	u := &p.undo
	if u.opened {
		l.txns = l.txns[:len(l.txns)-1]
	}
	if u.ended >= 0 {
		l.decideTxn(u.ended, -1)
	}
	if u.producer != nil {
		u.producer.producerState = u.before
		if b := batch.Batch(p.entry.Body); p.idempotent() && u.before.epoch == noEpoch && !u.before.expected.set && l.store.c.Serves == nil {
			u.producer.expected = expectation{set: true, epoch: b.ProducerEpoch(), sequence: b.BaseSequence()}
		}
	}
	s := p.seg
	if s == nil {
		return
	}
	s.next = p.id
	size := int64(headBytes + len(p.entry.Body))
	s.bytes -= size
	if p.owner == nil {
		s.snapshot, s.since, s.snapshotBytes = u.snapshot, u.since, u.snapshotBytes
		return
	}
	s.since -= size
	s.index.cut(p.id)
	if u.ended >= 0 && u.aborted {
		s.aborted = s.aborted[:len(s.aborted)-1]
	}
}

// fail closes the log because of what befell its storage. What is stored is
// found out by opening it again. l.mu is held.
func (l *Log) fail(err error) {
	l.unsound = true
	if l.closed != nil {
		return
	}
	if errors.Is(err, ErrLostOwnership) {
		l.store.metrics.fenced.Inc()
	}
	l.store.c.Logger.Warn("log is closed until it is opened again", zap.String("log", logName(l.id)), zap.Error(err))
	l.shut(err)
}

// failUnsent fails the appends that wait for a ledger.
func (l *Log) failUnsent(err error) *pending {
	for p := l.queueHead; p != nil; p = p.next {
		if p.seg == nil && !p.answered {
			p.answered, p.err = true, err
		}
	}
	return l.settle()
}

// pendingList is a queue linked by pending.next.
type pendingList struct {
	first, last *pending
}

func (q *pendingList) add(p *pending) {
	if q.last != nil {
		q.last.next = p
	} else {
		q.first = p
	}
	q.last = p
}

// deliver notifies the callers of decided appends. No lock is held: they may
// recycle their Append at once, or call into the log.
func deliver(p *pending) {
	for p != nil {
		next := p.next
		a := p.owner
		if a == nil {
			p = next
			continue
		}
		d := p.duplicates
		a.Notify.AppendDone(a)
		for d != nil {
			after := d.internal.nextDuplicate
			d.Notify.AppendDone(d)
			d = after
		}
		p = next
	}
}
