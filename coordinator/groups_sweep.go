package coordinator

import (
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/offsets"
)

// sweepPause is the least time between two sweeps that deleted topics cause.
const sweepPause = time.Second

// sweep removes, until the coordinator closes, the offsets of deleted topics
// when there are some, and now and then all that have expired and the groups
// that have nothing left. It also tells groups of the consumer protocol that
// topics have changed.
func (g *Groups) sweep() {
	expiry := time.NewTicker(g.config.ExpiryInterval)
	defer expiry.Stop()
	var soon <-chan time.Time // a sweep for deleted topics
	for {
		expire := false
		select {
		case <-g.c.topics.changed:
			for _, s := range g.shards {
				s.inbox.put(s.topicsChanged)
			}
			if soon == nil && g.c.topics.removed.Swap(false) {
				soon = time.After(sweepPause)
			}
			continue
		case <-soon:
			soon = nil
		case <-expiry.C:
			expire = true
		case <-g.c.ctx.Done():
			return
		}
		g.sweepOnce(expire)
	}
}

// sweepOnce removes the offsets of deleted topics and, with expire, those that
// have expired. It blocks.
func (g *Groups) sweepOnce(expire bool) {
	unknown := make(map[offsets.TopicID]struct{})
	for _, s := range g.shards {
		s.ask(func() {
			for slot := range s.owned {
				for id := range slot.groups {
					g.unknownTopics(slot.table, id, unknown)
				}
			}
		})
	}
	deleted := make(map[offsets.TopicID]struct{})
	for id := range unknown {
		gone, err := g.c.TopicDeleted(g.c.ctx, id)
		if err != nil {
			if g.c.ctx.Err() == nil {
				g.c.logger.Warn("offsets of a topic that is not known stay for now", zap.Error(err))
			}
			continue
		}
		if gone {
			deleted[id] = struct{}{}
		}
	}
	if len(deleted) == 0 && !expire {
		return
	}
	for _, s := range g.shards {
		s.ask(func() { s.expire(deleted, expire) })
	}
}

// ask runs f on the shard and waits for it. False: the shard has ended. Not
// for the shard's own goroutine.
func (s *shard) ask(f func()) bool {
	var done sync.WaitGroup
	done.Add(1)
	if !s.inbox.put(func() { defer done.Done(); f() }) {
		return false
	}
	done.Wait()
	return true
}

// unknownTopics adds the ids of topics that a group has committed for and the
// catalog does not know.
func (g *Groups) unknownTopics(table *offsets.Slot, id string, unknown map[offsets.TopicID]struct{}) {
	if table == nil {
		return
	}
	var last offsets.TopicID
	for p := range table.Group(id) {
		if p.Topic != last && g.c.TopicByID(p.Topic) == nil {
			unknown[p.Topic] = struct{}{}
		}
		last = p.Topic
	}
}

// expire removes the offsets of deleted topics. With all it removes those that
// have expired too, and the groups that have neither members nor offsets.
func (s *shard) expire(deleted map[offsets.TopicID]struct{}, all bool) {
	now := s.g.config.Now()
	retention := int64(1) << 62
	if all {
		retention = s.g.config.OffsetsRetention.Milliseconds()
	}
	for slot := range s.owned {
		if slot.releasing {
			continue
		}
		if all && slot.table != nil {
			s.findLate(slot)
		}
		for _, e := range slot.groups {
			if e.group == nil {
				continue
			}
			facts := s.facts(e, deleted)
			// Looked at before the table: what is not under way any more is in it.
			committing := e.committing.Load() > 0
			expired := offsets.Expired(now.UnixMilli(), retention, &facts, slot.table.Group(e.id))
			switch {
			case len(expired) > 0:
				s.commit(e, expired, func(err error) { s.g.expired(e.id, len(expired), err) })
			case all && !committing && e.group.State() == group.Empty && !slot.table.HasOffsets(e.id):
				s.delete(e, func(err error) { s.g.expired(e.id, 0, err) })
			}
		}
	}
}

// findLate makes the groups that were forgotten, since a commit to them had no known outcome
// and nothing else showed that they exist, and that have offsets by that commit.
func (s *shard) findLate(slot *ownedSlot) {
	for _, id := range slot.table.Groups() {
		if slot.groups[id] == nil {
			// There is none that could be refused.
			_, _ = s.findOrMake(slot, id)
		}
	}
}

// expired takes note of what became of an expiry.
func (g *Groups) expired(id string, n int, err error) {
	if err == nil {
		g.metrics.expired.Add(float64(n))
	} else if !errors.Is(err, group.ErrNotCoordinator) && !errors.Is(err, offsets.ErrClosed) {
		g.c.logger.Warn("expired offsets of a group stay for now", zap.String("group", id), zap.Error(err))
	}
}

// topicsChanged lets groups of the consumer protocol look at the topics again.
func (s *shard) topicsChanged() {
	now := s.g.config.Now()
	for slot := range s.owned {
		for _, e := range slot.groups {
			if e.group != nil && !slot.releasing && e.group.Type() == group.Consumer {
				e.group.TopicsChanged(now, s.g.topics, &s.effects)
				s.settle(e)
			}
		}
	}
}

// facts is what decides which offsets of a group are needed.
func (s *shard) facts(e *entry, deleted map[offsets.TopicID]struct{}) offsets.GroupFacts {
	g := e.group
	f := offsets.GroupFacts{
		ProtocolType:     g.ProtocolType(),
		ConsumerProtocol: g.Type() == group.Consumer,
		Subscribed: func(id offsets.TopicID) bool {
			t := s.g.c.TopicByID(id)
			return t != nil && g.SubscribedTo(t.Name)
		},
		Deleted: func(id offsets.TopicID) bool {
			_, ok := deleted[id]
			return ok
		},
	}
	switch rule := g.Expiry(); {
	case rule.Never:
		f.State = offsets.Rebalancing
	case g.State() == group.Empty:
		f.State = offsets.Empty
		if !rule.EmptySince.IsZero() {
			f.EmptySince = rule.EmptySince.UnixMilli()
		}
	case g.State() == group.Stable || f.ConsumerProtocol:
		f.State = offsets.Stable
	}
	return f
}
