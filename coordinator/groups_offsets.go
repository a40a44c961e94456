package coordinator

import (
	"errors"
	"iter"
	"math"
	"slices"

	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/offsets"
)

// NewCommit is one offset to be committed.
type NewCommit struct {
	offsets.Partition
	Offset      int64
	LeaderEpoch int32  // -1: not known
	Metadata    string // as long as it is
	// CommitTime is when the client says that it committed, ms since 1970; -1: now.
	CommitTime int64
	// Retention of this offset in ms, as the client asks; -1: the server's.
	Retention int64
}

// Commit stores offsets for who, all with one outcome. reply gets nil once they
// are durable, an error of package group if the group does not let them in, else
// one of package offsets: then some of them may be stored. commits is not used
// after the call; what its strings point to is.
//
// wanted, if it is not nil, says whether somebody waits for the answer still. It is asked
// when the commit's turn has come, which may be after the slot was loaded or its owner
// proved: a client that has gone since may have committed something newer by another
// node, and this commit would take the group back. Then reply gets
// group.ErrNotCoordinator, and nothing is done.
func (g *Groups) Commit(id string, who *group.CommitIdentity, commits []NewCommit, wanted func() bool, reply func(error)) {
	now := g.config.Now().UnixMilli()
	updates := make([]offsets.Update, len(commits))
	for i := range commits {
		c, u := &commits[i], &updates[i]
		u.Partition = c.Partition
		u.Offset = offsets.Offset{Offset: c.Offset, LeaderEpoch: c.LeaderEpoch, Metadata: c.Metadata, CommitTime: c.CommitTime, ExpireTime: offsets.NoExpireTime}
		if u.CommitTime < 0 {
			u.CommitTime = now
		}
		if c.Retention >= 0 {
			u.ExpireTime = now + min(c.Retention, math.MaxInt64-now)
		}
	}
	g.do(id, func(s *shard, slot *ownedSlot) {
		if wanted != nil && !wanted() {
			reply(group.ErrNotCoordinator)
			return
		}
		e, err := s.find(slot, id)
		switch {
		case err != nil:
			reply(err)
			return
		case e != nil:
			err = e.group.CheckCommit(g.config.Now(), who)
			s.schedule(e)
		default:
			err = group.CheckCommitUnknown(who)
		}
		if err == nil && e == nil {
			e, err = s.findOrMake(slot, id)
		}
		if err != nil {
			reply(err)
			return
		}
		s.commit(e, updates, reply)
	}, reply)
}

// commit queues changes of a group's offsets.
func (s *shard) commit(e *entry, updates []offsets.Update, reply func(error)) {
	simple := e.group.Forgettable()
	e.committing.Add(1)
	done := func(err error) {
		e.committing.Add(-1)
		reply(err)
		if simple || errors.Is(err, offsets.ErrNotOwner) || errors.Is(err, offsets.ErrGroupChanged) {
			s.inbox.put(func() { s.committed(e, simple, err) })
		}
	}
	if simple {
		e.commits++
	}
	if err := e.slot.table.Commit(e.id, updates, done); err != nil {
		done(err)
	}
}

// committed follows a commit of a simple group, and one that failed since
// somebody else writes.
func (s *shard) committed(e *entry, simple bool, err error) {
	if !s.current(e) {
		return
	}
	if simple {
		e.commits--
	}
	switch {
	case errors.Is(err, offsets.ErrNotOwner):
		s.doubt(e.slot)
	case errors.Is(err, offsets.ErrGroupChanged) && e.group != nil:
		s.unloadGroup(e)
	}
	if e.group != nil {
		s.settle(e)
	}
}

// Committed is what a group has committed. It is read where it is got, in the
// reply of Fetch.
type Committed struct {
	slot *offsets.Slot
	id   string
}

// Get returns the committed offset of a partition; false: there is none.
func (c Committed) Get(p offsets.Partition) (offsets.Offset, bool) { return c.slot.Get(c.id, p) }

// All yields everything, by topic id and partition.
func (c Committed) All() iter.Seq[offsets.PartitionOffset] { return c.slot.Group(c.id) }

// Fetch lets who read what a group has committed. A group that does not exist
// has committed nothing, which is no error.
//
// It answers from memory, also while the metadata store is away, as long as this
// node's lease is known to last: nobody claims the slot before that ends. Then it
// asks the metadata store who owns the slot.
func (g *Groups) Fetch(id string, who *group.CommitIdentity, reply func(Committed, error)) {
	g.do(id, func(s *shard, slot *ownedSlot) {
		e, err := s.find(slot, id)
		if err == nil && e != nil {
			err = e.group.CheckFetch(g.config.Now(), who)
			s.schedule(e)
			if errors.Is(err, group.ErrGroupNotFound) {
				err = nil
			}
		}
		reply(Committed{slot.table, id}, err)
	}, func(err error) { reply(Committed{}, err) })
}

// AllCommitted yields everything that the groups of this node have committed,
// group by group and each with its partitions in order: by slot, and by id within
// one, so that the order stays as long as the groups do. Slots that are not
// loaded, and groups that are not available, are left out. It waits for the
// shards, so it is for no reply.
func (g *Groups) AllCommitted() iter.Seq2[string, offsets.PartitionOffset] {
	return func(yield func(string, offsets.PartitionOffset) bool) {
		for n := range NumSlots {
			var table *offsets.Slot
			var ids []string
			s := g.shardOf(n)
			s.ask(func() {
				slot := s.slots[n]
				if slot == nil || slot.table == nil {
					return
				}
				table = slot.table
				for id, e := range slot.groups {
					if e.group != nil && table.HasOffsets(id) {
						ids = append(ids, id)
					}
				}
			})
			slices.Sort(ids)
			for _, id := range ids {
				for p := range table.Group(id) {
					if !yield(id, p) {
						return
					}
				}
			}
		}
	}
}

// DeleteOffsets removes a group's offsets of partitions, those of topics that
// the group does not subscribe to. reply gets an error for all, or one for each
// (ErrSubscribedTo), in order. topics are the names of the partitions' topics.
func (g *Groups) DeleteOffsets(id string, partitions []offsets.Partition, topics []string, reply func([]error, error)) {
	g.do(id, func(s *shard, slot *ownedSlot) {
		e, err := s.find(slot, id)
		if err == nil && e == nil {
			err = group.ErrGroupNotFound
		}
		if err == nil {
			err = e.group.CheckOffsetDelete()
		}
		if err != nil {
			reply(nil, err)
			return
		}
		errs := make([]error, len(partitions))
		updates := make([]offsets.Update, 0, len(partitions))
		seen := make(map[offsets.Partition]bool, len(partitions))
		for i, p := range partitions {
			switch {
			case e.group.SubscribedTo(topics[i]):
				errs[i] = group.ErrSubscribedTo
			case !seen[p]:
				seen[p] = true
				updates = append(updates, offsets.Update{PartitionOffset: offsets.PartitionOffset{Partition: p}, Action: offsets.Remove})
			}
		}
		if len(updates) == 0 {
			reply(errs, nil)
			return
		}
		s.commit(e, updates, func(err error) { reply(errs, err) })
	}, func(err error) { reply(nil, err) })
}
