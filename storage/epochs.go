package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// known is what this node knows of a log's record while the log is not open here.
type known struct {
	epoch int32 // of the record
	// next says that whoever opens the log gets a later epoch, because nobody can
	// have it open in this one: it was this node that had.
	next bool
	rev  meta.Revision // that the record had at least
}

func (k known) announced() int32 {
	if k.next {
		return k.epoch + 1
	}
	return k.epoch
}

// Epoch returns the leader epoch to announce for a log: the one in which it is
// open, here or, as far as this node has heard, on another; of a log that this node
// has closed the one after that. It never goes back and never blocks.
func (s *Store) Epoch(id LogID) int32 {
	h := s.shard(id)
	h.mu.RLock()
	defer h.mu.RUnlock()
	if l := h.open[id]; l != nil {
		return l.epoch
	}
	k, ok := h.known[id]
	if !ok {
		return s.c.FirstEpoch
	}
	return k.announced()
}

// Unopened calls f for each log that this node serves, that has a record and that
// is not open, until f returns false. Retention works on open logs only: whoever
// knows the topics opens the others.
func (s *Store) Unopened(f func(LogID) bool) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.RLock()
		ids := make([]LogID, 0, len(h.known))
		for id := range h.known {
			if h.open[id] == nil {
				ids = append(ids, id)
			}
		}
		h.mu.RUnlock()
		for _, id := range ids {
			if s.serves(id) && !f(id) {
				return
			}
		}
	}
}

// list reads which logs exist and in which epochs, as of the revision that it returns.
func (s *Store) list(ctx context.Context, f func(id LogID, r recordHead, kv *meta.KV)) (meta.Revision, error) {
	var bad error
	revision, err := s.c.Meta.List(ctx, s.c.Prefix+"log/", func(kv meta.KV) bool {
		id, ok := s.parseChainKey(kv.Key)
		if !ok {
			return true
		}
		r, err := decodeRecordHead(kv.Value)
		if err != nil {
			bad = fmt.Errorf("chain at %s: %w", kv.Key, err)
			return false
		}
		f(id, r, &kv)
		return true
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return 0, fmt.Errorf("list the logs: %w", err)
	}
	return revision, nil
}

// follow hears what other nodes do to the records of logs after a revision, until the
// Store closes. Where the metadata store was closed under it nothing can be opened or
// sealed either.
func (s *Store) follow(after meta.Revision) {
	defer s.wg.Done()
	err := (&meta.Follower{
		Store: s.c.Meta, Prefix: s.c.Prefix + "log/", List: s.relist, Every: s.c.RelistInterval,
		Changed: func(e meta.Events) error {
			for i := range e.Events {
				s.changed(&e.Events[i], e.Revision)
			}
			return nil
		},
		Amiss: func(err error) {
			if s.ctx.Err() == nil {
				s.c.Logger.Warn("the logs are listed again", zap.Error(err))
			}
		},
	}).Run(s.ctx, after)
	if err != nil && s.ctx.Err() == nil {
		s.c.Logger.Error("the records of logs are not followed any more", zap.Error(err))
	}
}

// changed takes one change of a record. Only its first bytes are looked at: all
// swaps of all nodes come by here, those of this one included.
func (s *Store) changed(e *meta.Event, rev meta.Revision) {
	id, ok := s.parseChainKey(e.Key)
	if !ok {
		return
	}
	if e.Deleted {
		s.removed(id, rev)
		return
	}
	r, err := decodeRecordHead(e.Value)
	if err != nil {
		s.c.Logger.Error("record of a log cannot be read", zap.String("log", logName(id)), zap.Error(err))
		return
	}
	s.observe(id, r, e.Modified)
}

// relist brings what is known to the revision that it returns, as the changes that
// were missed would have.
func (s *Store) relist(ctx context.Context) (meta.Revision, error) {
	there := make(map[LogID]struct{})
	revision, err := s.list(ctx, func(id LogID, r recordHead, kv *meta.KV) {
		there[id] = struct{}{}
		s.observe(id, r, kv.Modified)
	})
	if err != nil {
		return 0, err
	}
	for i := range s.shards {
		h := &s.shards[i]
		var gone []LogID
		h.mu.RLock()
		for id := range h.known {
			if _, ok := there[id]; !ok {
				gone = append(gone, id)
			}
		}
		for id := range h.open {
			if _, ok := there[id]; !ok {
				gone = append(gone, id)
			}
		}
		h.mu.RUnlock()
		for _, id := range gone {
			s.removed(id, revision)
		}
	}
	return revision, nil
}

// observe takes note of a record of the revision rev. A log that is open here and
// that somebody else has opened since is closed.
func (s *Store) observe(id LogID, r recordHead, rev meta.Revision) {
	if l := s.Log(id); l != nil {
		l.mu.Lock()
		open := l.closed == nil
		lost := open && r.owner != l.owner && r.epoch >= l.epoch && rev > l.chain.rev
		var done *pending
		if lost {
			l.fail(fmt.Errorf("log %s: %w: it was opened in epoch %d", logName(id), ErrLostOwnership, r.epoch))
			done = l.settle()
		}
		l.mu.Unlock()
		deliver(done)
		if open && !lost {
			return // a swap of its own, or one from before it was opened
		}
	}
	h := s.shard(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	k, ok := h.known[id]
	switch {
	case !ok || r.epoch > k.epoch:
		h.known[id] = known{epoch: r.epoch, next: !ok && s.c.Serves == nil, rev: rev}
		if ok {
			// What was refused here may have been taken there.
			delete(h.expected, id)
		}
	case rev > k.rev:
		k.rev = rev
		h.known[id] = k
	}
}

// removed takes note that a log has no record since the revision rev: its topic is deleted.
func (s *Store) removed(id LogID, rev meta.Revision) {
	if l := s.Log(id); l != nil {
		l.mu.Lock()
		var done *pending
		if l.closed == nil && l.chain.rev != 0 && l.chain.rev < rev {
			l.end(errTopicDeleted)
			done = l.settle()
		}
		l.mu.Unlock()
		deliver(done)
	}
	h := s.shard(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	if k, ok := h.known[id]; ok && k.rev < rev {
		delete(h.known, id)
		delete(h.expected, id)
	}
}

// recordHead is the beginning of a chain's record.
type recordHead struct {
	epoch int32
	owner uint64
}

// decodeRecordHead reads no more of a record than it returns.
func decodeRecordHead(b []byte) (recordHead, error) {
	epoch, err := decodeEpoch(b)
	if err != nil {
		return recordHead{}, err
	}
	b = b[5:]
	_, n := binary.Uvarint(b) // start
	if n <= 0 {
		return recordHead{}, errors.New("record is cut short")
	}
	owner, n := binary.Uvarint(b[n:])
	if n <= 0 {
		return recordHead{}, errors.New("record is cut short")
	}
	return recordHead{epoch: epoch, owner: owner}, nil
}
