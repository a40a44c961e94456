package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/offsets"
	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/planted"
)

// loads reads slots from the metadata store. What concerns one slot happens
// in order, since a slot has always the same worker.
type loads struct {
	g       *Groups
	workers [loadsAtOnce]*inbox
	loaded  atomic.Int32 // slots that can be used
}

const (
	// loadsAtOnce is how many slots are read side by side. A slot takes two reads, one
	// after the other, and each some milliseconds or, of a busy etcd, tens of them. etcd
	// asks its quorum once for all reads that come together.
	loadsAtOnce = 32
	loadRetry   = 500 * time.Millisecond
)

func (l *loads) init(g *Groups) {
	l.g = g
	for i := range l.workers {
		l.workers[i] = newInbox(0)
	}
}

// start begins to work, until the coordinator closes.
func (l *loads) start() {
	for _, w := range l.workers {
		l.g.c.background.Add(1)
		go func() {
			defer l.g.c.background.Done()
			l.work(w)
		}()
	}
}

func (l *loads) work(w *inbox) {
	for {
		select {
		case <-w.wake:
		case <-l.g.c.ctx.Done():
			return
		}
		jobs, _ := w.take(nil)
		for _, job := range jobs {
			if l.g.c.ctx.Err() != nil {
				return
			}
			job()
		}
	}
}

func (l *loads) worker(slot int) *inbox { return l.workers[slot%loadsAtOnce] }

// load reads a slot and gives its content to its shard, however often that has
// to be tried, as long as the slot is wanted. Any goroutine.
func (l *loads) load(slot *ownedSlot) {
	l.worker(slot.n).put(func() {
		if slot.gone.Load() {
			return
		}
		started := time.Now()
		table, groups, err := l.read(slot)
		if err != nil {
			if l.g.c.ctx.Err() == nil {
				l.g.c.logger.Warn("a slot of groups was not loaded; trying again", zap.Int("slot", slot.n), zap.Error(err))
			}
			l.pause()
			l.load(slot)
			return
		}
		l.g.metrics.loadSeconds.Observe(time.Since(started).Seconds())
		s := l.g.shardOf(slot.n)
		if !s.inbox.put(func() { s.loaded(slot, table, groups) }) {
			table.Release()
		}
	})
}

// AwaitLoaded returns when the groups of every slot that this node is to serve
// can be used, or with ctx's error. Until then their requests are refused with
// ErrNotLoaded, which clients wait out for longer than the loading takes. Any
// goroutine.
func (g *Groups) AwaitLoaded(ctx context.Context) error {
	const look = 2 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for !g.allLoaded() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-g.c.ctx.Done():
			return meta.ErrClosed
		}
	}
	return nil
}

func (g *Groups) allLoaded() bool {
	return g.c.slots.settled() && int(g.loads.loaded.Load()) >= g.c.slots.owned()
}

// pause keeps a worker from asking a store that fails too often.
func (l *loads) pause() {
	t := time.NewTimer(loadRetry)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.g.c.ctx.Done():
	}
}

// read reads a slot's groups and offsets.
func (l *loads) read(slot *ownedSlot) (*offsets.Slot, map[string]*entry, error) {
	ctx := l.g.c.ctx
	groups := make(map[string]*entry)
	owner := meta.Cond{Key: l.g.c.keys.owner(slot.n), Modified: slot.fence}
	table, err := l.g.committers[slot.n%numCommitters].Load(ctx, slot.n, owner, func(id string, record []byte) error {
		groups[id] = &entry{id: id, slot: slot, group: l.g.decodeGroup(id, record), index: -1}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for _, bad := range table.Unreadable() {
		l.g.unreadable(bad.Group, bad.Err)
		if bad.HasGroup {
			groups[bad.Group] = &entry{id: bad.Group, slot: slot, index: -1}
		}
	}
	if planted.Is(planted.ForgottenGroups) {
		clear(groups)
	}
	// A topic that this node has not heard of yet must not look like one
	// without commits.
	unknown := make(map[offsets.TopicID]struct{})
	for id := range groups {
		l.g.unknownTopics(table, id, unknown)
	}
	for id := range unknown {
		deleted, err := l.g.c.TopicDeleted(ctx, id)
		if err == nil && !deleted && l.g.c.TopicByID(id) == nil {
			err = fmt.Errorf("topic %s: %w: not known here yet", encodeID(id), ErrUnavailable)
		}
		if err != nil {
			table.Release()
			return nil, nil, err
		}
	}
	return table, groups, nil
}

// recheck finds out who owns a slot whose writes are refused, and has it read
// again if that is this node still. Any goroutine.
func (l *loads) recheck(slot *ownedSlot) {
	l.worker(slot.n).put(func() {
		if slot.gone.Load() {
			return
		}
		if err := l.g.c.slots.recheck(l.g.c.ctx, slot.n); err != nil {
			l.pause()
			l.recheck(slot)
			return
		}
		s := l.g.shardOf(slot.n)
		s.inbox.put(func() { s.checked(slot) })
	})
}

// TopicDeleted says whether no topic has an id any more, for certain: ids are
// never used again. It blocks.
func (c *Coordinator) TopicDeleted(ctx context.Context, id [16]byte) (bool, error) {
	_, err := c.meta.Get(ctx, c.keys.topicID(id))
	if errors.Is(err, meta.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, unavailable("topic "+encodeID(id), err)
	}
	return false, nil
}
