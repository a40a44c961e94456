package storage

import (
	"context"
	"fmt"
)

// errTopicDeleted says why the log of a deleted topic is closed.
var errTopicDeleted = fmt.Errorf("%w: its topic is deleted", ErrClosed)

// errNotServed says why a log is closed, or not opened, by whoever decides which
// logs this node serves.
var errNotServed = fmt.Errorf("%w: this node does not serve it", ErrLostOwnership)

// serves says whether this node is to serve a log.
func (s *Store) serves(id LogID) bool { return s.c.Serves == nil || s.c.Serves(id) }

// ReleaseSlot ends the service of the logs of a slot, so that the next node that
// opens them has nothing to recover. Their appends are refused at
// once and their readers woken, both with ErrLostOwnership; an append that waits for
// a ledger fails with it too and is not stored, those with the tier are answered as
// the tier answers. Then the ledgers are sealed and the chains say so. A log being
// opened is not opened. What ctx does not leave time for, the error, goes on in the
// background, and the next node recovers it. Logs of other slots cost nothing.
//
// StoreConfig.Serves has to say no already, or a log may be opened again at once.
// A slot that this node lost is released or dropped before Serves says yes again: else
// logs of then would be found open. It may block.
func (s *Store) ReleaseSlot(ctx context.Context, slot int) error {
	for _, c := range s.closeSlot(slot, func(l *Log) <-chan struct{} { return l.closeDown(errNotServed) }) {
		select {
		case <-c:
		case <-s.ctx.Done():
			return fmt.Errorf("release the logs of slot %d: %w", slot, ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("release the logs of slot %d: %w", slot, ctx.Err())
		}
	}
	return nil
}

// DropSlot is ReleaseSlot for a slot that another node serves by now: it seals
// nothing and waits for nothing. What was acknowledged of its logs is in the ledgers,
// where their next owner finds it. It does not block.
func (s *Store) DropSlot(slot int) {
	s.closeSlot(slot, func(l *Log) <-chan struct{} {
		l.disown(errNotServed)
		return nil
	})
}

// CloseTopic closes the logs of a topic that is deleted, wherever that was done;
// they answer ErrClosed. Their chains and ledgers stay, for DeleteLogs. It does not block.
func (s *Store) CloseTopic(topic [16]byte) {
	s.openMu.Lock()
	delete(s.configs, topic)
	width := s.widths[topic]
	delete(s.widths, topic)
	for id, o := range s.opening {
		if id.Topic == topic {
			o.revoke(errTopicDeleted)
		}
	}
	s.openMu.Unlock()
	for p := range width {
		if l := s.Log(LogID{Topic: topic, Partition: p}); l != nil {
			l.disown(errTopicDeleted)
		}
	}
}

// SetConfigs makes c apply to all logs of a topic, those that are opened later
// included, whatever their OpenLog brings. It does not block.
func (s *Store) SetConfigs(topic [16]byte, c *LogConfig) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	s.configs[topic] = c
	for p := range s.widths[topic] {
		if l := s.Log(LogID{Topic: topic, Partition: p}); l != nil {
			l.SetConfig(c)
		}
	}
}

// closeSlot calls f for the open logs of a slot and revokes their openings. It
// returns the channels, closed when all is done, that f gave.
func (s *Store) closeSlot(slot int, f func(*Log) <-chan struct{}) []<-chan struct{} {
	var wait []<-chan struct{}
	// An opening registers its log under openMu: before this, and the log is found
	// below, or after it, and it sees that it is revoked.
	s.openMu.Lock()
	for _, o := range s.opening {
		if o.slot == slot {
			o.revoke(errNotServed)
			wait = append(wait, o.done)
		}
	}
	s.openMu.Unlock()
	for _, l := range s.slots.logs(slot) {
		if c := f(l); c != nil {
			wait = append(wait, c)
		}
	}
	return wait
}

// closeDown ends the service of the log for a reason and returns what is closed
// when its ledgers are sealed; nil if there is nothing to wait for.
func (l *Log) closeDown(why error) <-chan struct{} {
	l.mu.Lock()
	if l.closed == nil {
		l.shut(fmt.Errorf("log %s: %w", logName(l.id), why))
	}
	done := l.settle()
	var c chan struct{}
	if l.busy() {
		if l.drained == nil {
			l.drained = make(chan struct{})
		}
		c = l.drained
	}
	l.mu.Unlock()
	deliver(done)
	return c
}

// disown ends the service of a log whose ledgers are somebody else's.
func (l *Log) disown(why error) {
	l.mu.Lock()
	l.end(why)
	done := l.settle()
	l.mu.Unlock()
	deliver(done)
}

// end is shut for a log whose ledgers are not to be sealed here. l.mu is held;
// the caller settles.
func (l *Log) end(why error) {
	l.unsound = true
	if l.closed == nil {
		l.shut(fmt.Errorf("log %s: %w", logName(l.id), why))
	}
}

// busy says whether a closed log still has something to do with its ledgers. l.mu is held.
func (l *Log) busy() bool {
	return l.holdsLedgers() || l.queueHead != nil || l.queued > 0
}

// holdsLedgers says whether the log has ledgers that are not sealed in the chain. l.mu is held.
func (l *Log) holdsLedgers() bool { return l.seg != nil || len(l.sealing) > 0 }
