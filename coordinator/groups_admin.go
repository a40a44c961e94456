package coordinator

import (
	"errors"
	"sync"

	"github.com/quirelog/quire/coordinator/group"
)

// Describe gives the classic group of an id, ErrGroupNotFound if there is none.
func (g *Groups) Describe(id string, reply func(*group.Description, error)) {
	g.do(id, func(s *shard, slot *ownedSlot) {
		e, err := s.find(slot, id)
		switch {
		case err != nil:
			reply(nil, err)
		case e == nil:
			reply(nil, group.ErrGroupNotFound)
		default:
			reply(e.group.Describe())
		}
	}, func(err error) { reply(nil, err) })
}

// DescribeConsumer gives the group of the consumer protocol of an id,
// ErrGroupNotFound if there is none.
func (g *Groups) DescribeConsumer(id string, reply func(*group.ConsumerDescription, error)) {
	g.do(id, func(s *shard, slot *ownedSlot) {
		e, err := s.find(slot, id)
		switch {
		case err != nil:
			reply(nil, err)
		case e == nil:
			reply(nil, group.ErrGroupNotFound)
		default:
			reply(e.group.DescribeConsumer(g.topics))
		}
	}, func(err error) { reply(nil, err) })
}

// ListedGroup is one group of a list.
type ListedGroup struct {
	ID           string
	ProtocolType string
	State        group.State
	Type         group.Type
}

// List gives all groups of this node for which keep is true, in no order, or
// ErrNotLoaded if a slot of this node is loaded for longer than LoadWait. keep is
// called on several goroutines.
func (g *Groups) List(keep func(ListedGroup) bool, reply func([]ListedGroup, error)) {
	var (
		mu    sync.Mutex
		all   []ListedGroup
		first error
		left  = len(g.shards)
	)
	add := func(groups []ListedGroup, err error) {
		mu.Lock()
		all = append(all, groups...)
		if first == nil {
			first = err
		}
		left--
		last := left == 0
		mu.Unlock()
		if last && first != nil {
			reply(nil, first)
		} else if last {
			reply(all, nil)
		}
	}
	for _, s := range g.shards {
		if !s.inbox.offer(func() { s.listLoaded(0, keep, add) }) {
			add(nil, group.ErrUnavailable)
		}
	}
}

// listLoaded lists the groups of a shard when no slot from n on is being loaded.
func (s *shard) listLoaded(n int, keep func(ListedGroup) bool, reply func([]ListedGroup, error)) {
	for ; n < NumSlots; n++ {
		if s.g.shardOf(n) != s {
			continue
		}
		if _, err := s.slot(n); errors.Is(err, group.ErrNotLoaded) && s.park(n, request{
			f: func(s *shard, slot *ownedSlot) { s.listLoaded(slot.n, keep, reply) },
			refuse: func(err error) {
				if errors.Is(err, group.ErrNotCoordinator) {
					s.listLoaded(n, keep, reply)
				} else {
					reply(nil, err)
				}
			},
		}) {
			return
		}
	}
	reply(s.list(keep))
}

func (s *shard) list(keep func(ListedGroup) bool) ([]ListedGroup, error) {
	var all []ListedGroup
	for n := range NumSlots {
		if s.g.shardOf(n) != s {
			continue
		}
		slot, err := s.slot(n)
		switch err {
		case nil:
		case group.ErrNotCoordinator:
			continue
		default:
			return nil, err
		}
		for _, e := range slot.groups {
			if e.group == nil {
				continue
			}
			l := ListedGroup{e.id, e.group.ProtocolType(), e.group.State(), e.group.Type()}
			if keep(l) {
				all = append(all, l)
			}
		}
	}
	return all, nil
}

// Delete removes a group without members, with what it has committed:
// ErrNonEmptyGroup, ErrGroupNotFound.
func (g *Groups) Delete(id string, reply func(error)) {
	g.do(id, func(s *shard, slot *ownedSlot) {
		e := slot.groups[id]
		switch {
		case e == nil:
			reply(group.ErrGroupNotFound)
		case e.reloading:
			reply(group.ErrNotLoaded)
		case e.group == nil:
			s.deleteUnreadable(e, reply)
		default:
			s.delete(e, reply)
		}
	}, reply)
}

func (s *shard) delete(e *entry, reply func(error)) {
	ticket := s.ticket(func(response any) { reply(response.(*group.DeleteResponse).Err) })
	e.group.Delete(s.g.config.Now(), ticket, &s.effects)
	s.settle(e)
}

// deleteUnreadable removes a group whose record cannot be understood.
func (s *shard) deleteUnreadable(e *entry, reply func(error)) {
	done := func(err error) {
		if !s.inbox.put(func() {
			if err == nil && s.current(e) {
				s.forget(e)
			}
			reply(err)
		}) {
			reply(err)
		}
	}
	if err := e.slot.table.DeleteGroup(e.id, done); err != nil {
		reply(err)
	}
}
