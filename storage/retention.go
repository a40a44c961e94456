package storage

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
)

// expired returns how many ledgers at the front of the chain may go, and
// whether the one in use, behind them, may go too once it is sealed. l.mu is held.
func (l *Log) expired(now int64) (n int, active bool) {
	c := l.config.Load()
	age, left := int64(-1), int64(-1)
	if c.Delete && c.RetentionAge >= 0 {
		age = c.RetentionAge.Milliseconds()
	}
	if c.Delete && c.RetentionBytes >= 0 {
		// A ledger goes if what is left without it is still enough.
		left = -c.RetentionBytes
		for i := range l.chain.links {
			left += l.chain.links[i].bytes
		}
		for _, s := range l.sealing {
			left += s.bytes
		}
		if l.seg != nil {
			left += l.seg.bytes
		}
	}
	goes := func(maxTimestamp, bytes, end int64) bool {
		if end <= l.start || age >= 0 && now-maxTimestamp > age {
			left -= bytes
			return true
		}
		if left >= 0 && left >= bytes {
			left -= bytes
			return true
		}
		return false
	}
	for i := range l.chain.links {
		k := &l.chain.links[i]
		if !k.sealed {
			break
		}
		if !goes(k.age(), k.bytes, k.last+1) {
			return n, false
		}
		n++
	}
	s := l.seg
	if len(l.sealing) > 0 || s == nil || l.queueHead != nil || l.hw == s.base {
		return n, false
	}
	newest := s.maxTimestamp
	if newest < 0 {
		newest = l.touched
	}
	return n, goes(newest, s.bytes, l.hw)
}

func (l *Log) retentionDue(now int64) bool {
	n, active := l.expired(now)
	return n > 0 || active
}

// retain drops the ledgers that retention, or the start of the log, has freed:
// from the chain first, then from the tier. l.admin is held.
func (l *Log) retain(ctx context.Context) {
	now := l.store.c.Now().UnixMilli()
	l.mu.Lock()
	n, active := l.expired(now)
	if active && l.closed == nil {
		// Kafka rolls the active segment when all of it has expired, so that
		// a topic nobody writes to empties fully.
		l.retire(encodeState(l.producers))
	}
	l.mu.Unlock()
	if active {
		if err := l.seal(ctx); err == nil {
			n++
		}
	}
	l.mu.Lock()
	old := l.chain
	closed := l.closed != nil
	// What was sealed a moment ago is in the chain unless an error put it off.
	n = min(n, len(old.links))
	start := l.start
	for n > 0 && !old.links[n-1].sealed {
		n--
	}
	if n > 0 {
		start = max(start, old.links[n-1].last+1)
	}
	l.mu.Unlock()
	if n == 0 || closed {
		return
	}
	next := old.clone()
	next.start = start
	pages := next.drop(n)
	if err := l.swap(ctx, old, next, func() { l.moveStart(start) }); err != nil {
		l.store.c.Logger.Warn("retention is put off", zap.String("log", logName(l.id)), zap.Error(err))
		return
	}
	ids := make([]ledger.ID, n)
	for i := range ids {
		ids[i] = old.links[i].id
	}
	l.deleteLedgers(ctx, ids)
	if err := l.store.deletePages(ctx, l.id, pages); err != nil {
		l.store.c.Logger.Warn("pages of a chain are left over", zap.String("log", logName(l.id)), zap.Error(err))
	}
}

// moveStart raises the start of the log, which the chain has. l.mu is held.
func (l *Log) moveStart(start int64) {
	if start > l.start {
		l.start = start
		l.wake()
	}
}

// DeleteRecords moves the start of the log up to offset (-1: the high
// watermark) and returns the new start. It may block.
func (l *Log) DeleteRecords(ctx context.Context, offset int64) (start int64, err error) {
	l.admin.Lock()
	defer l.admin.Unlock()
	l.mu.Lock()
	if offset == -1 {
		offset = l.hw
	}
	start, old := l.start, l.chain
	switch {
	case l.closed != nil:
		err = l.closed
	case !l.config.Load().Delete:
		err = fmt.Errorf("log %s: %w: DeleteRecords needs delete", logName(l.id), ErrPolicy)
	case offset < 0 || offset > l.hw:
		err = fmt.Errorf("log %s: %w: DeleteRecords up to %d of %d", logName(l.id), ErrOffsetOutOfRange, offset, l.hw)
	}
	l.mu.Unlock()
	if err != nil || offset <= start {
		return start, err
	}
	next := old.clone()
	next.start = offset
	if err := l.swap(ctx, old, next, func() {
		l.moveStart(offset)
		l.schedule(workRetain)
	}); err != nil {
		return -1, fmt.Errorf("log %s: DeleteRecords: %w", logName(l.id), err)
	}
	return offset, nil
}

// DeleteLogs forgets the logs of a deleted topic and deletes their ledgers,
// whichever node has them open. It refuses while StoreConfig.TopicKey exists. It
// may block. After an error, or a crash, it can be called again.
func (s *Store) DeleteLogs(ctx context.Context, topic [16]byte, partitions int32) error {
	if s.c.TopicKey != nil {
		switch _, err := s.topicExists(ctx, topic); {
		case err == nil:
			return fmt.Errorf("delete the logs of topic %x: it exists", topic)
		case !errors.Is(err, errTopicDeleted):
			return fmt.Errorf("delete the logs of topic %x: %w", topic, err)
		}
	}
	ids := make(map[LogID]struct{}, partitions)
	for p := range partitions {
		id := LogID{Topic: topic, Partition: p}
		if s.Log(id) != nil {
			ids[id] = struct{}{}
		}
	}
	_, err := s.c.Meta.List(ctx, s.topicPrefix(topic), func(kv meta.KV) bool {
		if id, ok := s.parseChainKey(kv.Key); ok {
			ids[id] = struct{}{}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("list the logs of a topic: %w", err)
	}
	for id := range ids {
		if err := s.deleteLog(ctx, id); err != nil {
			return fmt.Errorf("delete log %s: %w", logName(id), err)
		}
	}
	return nil
}

func (s *Store) deleteLog(ctx context.Context, id LogID) error {
	if l := s.Log(id); l != nil {
		// The worker's swaps are over when admin is free, and a closed log
		// begins none.
		l.disown(errTopicDeleted)
		l.admin.Lock()
		defer l.admin.Unlock()
	}
	for range openAttempts {
		c, err := s.loadChain(ctx, id)
		if err != nil {
			return err
		}
		if c.rev != 0 {
			_, ok, err := s.c.Meta.Txn(ctx, []meta.Cond{{Key: s.chainKey(id), Modified: c.rev}}, []meta.Op{
				meta.Delete(s.chainKey(id)),
				{Key: s.pagePrefix(id), Delete: true, Prefix: true},
			})
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			for _, k := range c.links {
				s.handles.drop(k.id)
				if err := s.c.Tier.Delete(ctx, k.id); err != nil {
					s.c.Logger.Warn("ledger left to the janitor", zap.Int64("ledger", int64(k.id)), zap.Error(err))
				}
			}
		}
		h := s.shard(id)
		h.mu.Lock()
		delete(h.known, id)
		delete(h.expected, id)
		h.mu.Unlock()
		return nil
	}
	return ErrLostOwnership
}
