package coordinator

import (
	"errors"
	"time"

	"github.com/quirelog/quire/coordinator/group"
)

// Join answers a JoinGroup request, when the rebalance that it takes part in is
// complete or it is refused. q and what it points to are kept.
func (g *Groups) Join(id string, q *group.JoinGroupRequest, reply func(*group.JoinGroupResponse)) {
	refuse := func(err error) {
		reply(&group.JoinGroupResponse{Err: err, Generation: -1, MemberID: q.MemberID})
	}
	q.Topics = g.topics
	g.do(id, func(s *shard, slot *ownedSlot) {
		e, err := s.findOrMake(slot, id)
		if err != nil {
			refuse(err)
			return
		}
		ticket := s.ticket(func(response any) { reply(response.(*group.JoinGroupResponse)) })
		e.group.JoinGroup(g.config.Now(), ticket, q, &s.effects)
		s.settle(e)
	}, refuse)
}

// Sync answers a SyncGroup request, when the leader's assignment is durable or
// it is refused. q and what it points to are kept.
func (g *Groups) Sync(id string, q *group.SyncGroupRequest, reply func(*group.SyncGroupResponse)) {
	refuse := func(err error) { reply(&group.SyncGroupResponse{Err: err}) }
	g.do(id, func(s *shard, slot *ownedSlot) {
		e, err := s.findOrMake(slot, id)
		if err != nil {
			refuse(err)
			return
		}
		ticket := s.ticket(func(response any) { reply(response.(*group.SyncGroupResponse)) })
		e.group.SyncGroup(g.config.Now(), ticket, q, &s.effects)
		s.settle(e)
	}, refuse)
}

// Heartbeat answers a Heartbeat request. While the group is loaded members are
// told that all is well, since every session starts afresh when it is
// (GroupCoordinator.handleHeartbeat).
//
// A beat renews the session in any case, but only who is known to own the group says
// anything of it. While the metadata store cannot be asked members live on for as long
// as no other owner could have expired them (group.Group.Patience): who claims the slot
// loads the group after this node's lease has ended, and sessions start afresh then.
func (g *Groups) Heartbeat(id string, q *group.HeartbeatRequest, reply func(error)) {
	refuse := func(err error) {
		if errors.Is(err, group.ErrNotLoaded) {
			err = nil
		}
		reply(err)
	}
	var patience time.Duration
	beat := func(s *shard, slot *ownedSlot) error {
		e, err := s.findOrMake(slot, id)
		if err != nil {
			return err
		}
		if err = e.group.Heartbeat(g.config.Now(), q); err == nil {
			patience = e.group.Patience(q.MemberID)
		}
		s.settle(e)
		return err
	}
	g.doUnproved(id, func(s *shard, slot *ownedSlot) {
		err := beat(s, slot)
		switch {
		case errors.Is(err, group.ErrNotLoaded):
			refuse(err)
		case g.c.slots.trusted(slot.n, slot.fence):
			reply(err)
		default:
			lives := err == nil && g.c.slots.lapsedFor(slot.n, patience)
			s.proveThen(slot.n, request{f: func(s *shard, slot *ownedSlot) { reply(beat(s, slot)) }, refuse: func(err error) {
				if lives && errors.Is(err, group.ErrUnavailable) {
					err = nil
				}
				refuse(err)
			}})
		}
	}, refuse)
}

// HeartbeatNow is Heartbeat for a group whose shard has nothing else to do, which
// is how nearly all are: it answers on the caller's goroutine, without waiting
// and without an allocation. False: Heartbeat is to be asked, whether or not the session was
// renewed. A group's members beat for as long as they live, and handing each beat to the
// shard's goroutine and its answer back cost more than the beat.
func (g *Groups) HeartbeatNow(id string, q *group.HeartbeatRequest) (err error, ok bool) {
	n := SlotOf(id)
	s := g.shardOf(n)
	if !s.enter() {
		return nil, false
	}
	defer s.leave()
	e := s.resting(n, id)
	if e == nil {
		return nil, false
	}
	err = e.group.Heartbeat(g.config.Now(), q)
	s.schedule(e)
	// Looked at last: it was known throughout then.
	return err, g.c.slots.trusted(n, e.slot.fence)
}

// resting finds a group that can be asked at once, nil if there is none.
func (s *shard) resting(n int, id string) *entry {
	slot := s.slots[n]
	if slot == nil || slot.releasing {
		return nil
	}
	if e := slot.groups[id]; e != nil && e.group != nil {
		return e
	}
	return nil
}

// Leave answers a LeaveGroup request, when what it changes is durable.
func (g *Groups) Leave(id string, q *group.LeaveGroupRequest, reply func(*group.LeaveGroupResponse)) {
	refuse := func(err error) { reply(&group.LeaveGroupResponse{Err: err}) }
	g.do(id, func(s *shard, slot *ownedSlot) {
		e, err := s.findOrMake(slot, id)
		if err != nil {
			refuse(err)
			return
		}
		ticket := s.ticket(func(response any) { reply(response.(*group.LeaveGroupResponse)) })
		e.group.LeaveGroup(g.config.Now(), ticket, q, &s.effects)
		s.settle(e)
	}, refuse)
}

// ConsumerHeartbeat answers a ConsumerGroupHeartbeat request (KIP-848), when
// what it tells the member is durable. q and what it points to are kept.
//
// That there is nothing new is told from memory. While the metadata store cannot be asked it
// is told, as in Heartbeat, for as long as no other owner could have expired the member, and
// given its partitions away; anything else only by who is known to own the group.
func (g *Groups) ConsumerHeartbeat(id string, q *group.ConsumerHeartbeatRequest, reply func(*group.ConsumerHeartbeatResponse)) {
	refuse := func(err error) { reply(&group.ConsumerHeartbeatResponse{Err: err, MemberID: q.MemberID}) }
	if g.config.ClassicOnly {
		refuse(group.ErrUnsupportedVersion)
		return
	}
	s := g.shardOf(SlotOf(id))
	g.request(id, request{
		f: func(s *shard, slot *ownedSlot) {
			e, err := s.findOrMake(slot, id)
			if err != nil {
				refuse(err)
				return
			}
			ticket := s.ticket(func(response any) { reply(response.(*group.ConsumerHeartbeatResponse)) })
			e.group.ConsumerHeartbeat(g.config.Now(), ticket, q, g.topics, &s.effects)
			s.settle(e)
		},
		atRest: func(slot *ownedSlot) (func(), time.Duration) {
			answer, ok := s.consumerHeartbeatAtRest(slot.n, id, q)
			if !ok {
				return nil, 0
			}
			return func() { reply(answer) }, slot.groups[id].group.Patience(q.MemberID)
		},
		refuse: refuse,
	})
}

// ConsumerHeartbeatNow is ConsumerHeartbeat as HeartbeatNow is Heartbeat: for a
// request that says nothing, of a member that is to be told nothing. q is not kept; the answer
// is shared and only to be read. False: ConsumerHeartbeat is to be asked, whether or not the
// session was renewed.
func (g *Groups) ConsumerHeartbeatNow(id string, q *group.ConsumerHeartbeatRequest) (*group.ConsumerHeartbeatResponse, bool) {
	n := SlotOf(id)
	s := g.shardOf(n)
	if g.config.ClassicOnly || !s.enter() {
		return nil, false
	}
	defer s.leave()
	answer, ok := s.consumerHeartbeatAtRest(n, id, q)
	// Looked at last: it was known throughout then.
	return answer, ok && g.c.slots.trusted(n, s.slots[n].fence)
}

func (s *shard) consumerHeartbeatAtRest(n int, id string, q *group.ConsumerHeartbeatRequest) (*group.ConsumerHeartbeatResponse, bool) {
	e := s.resting(n, id)
	if e == nil {
		return nil, false
	}
	answer, ok := e.group.ConsumerHeartbeatAtRest(s.g.config.Now(), q, s.g.topics)
	if ok {
		s.schedule(e)
	}
	return answer, ok
}
