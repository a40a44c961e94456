package coordinator

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// NumSlots is how many slots the groups of a cluster fall into. It is the same
// for the life of every cluster: a group's keys lie under its slot.
const NumSlots = 1024

// SlotOf returns the slot of a group: FNV-1a of 64 bits over the id's bytes, its
// halves folded by exclusive or, modulo NumSlots.
func SlotOf(group string) int {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(group) {
		h = (h ^ uint64(group[i])) * prime
	}
	return int((h ^ h>>32) % NumSlots)
}

// slotName is a slot as part of a key. Its width is fixed: no slot's keys begin
// with another's.
func slotName(slot int) string { return fmt.Sprintf("%04d", slot) }

// ownerRecord is the value of own/{slot}.
type ownerRecord struct {
	Version     int    `json:"v"`
	Node        int32  `json:"node"`
	Incarnation string `json:"inc"`   // of the process, as in node/{id}
	Epoch       int64  `json:"epoch"` // counts the claims of the slot
}

// slotOwner is who owns a slot as of the revision at which its record changed.
type slotOwner struct {
	ownerRecord
	revision meta.Revision // 0: nothing is known of the slot
	exists   bool
}

// slots knows who owns each slot, and claims for this node those that nobody
// live owns. The revision of the record that makes this node the owner is the
// fence: whatever is written for the slot compares it in the same transaction, so
// a node that lost the slot and does not know it writes nothing.
//
// Today a node claims every slot that it can have. Which of several nodes is to
// claim which slot is for claimable alone to say.
type slots struct {
	c           *Coordinator
	incarnation string

	// gained and lost are told each change of what this node owns, one at a
	// time and in order. They must not block.
	gained func(slot int, fence meta.Revision)
	lost   func(slot int)

	wake    chan struct{} // a slot may have become claimable
	started meta.Revision // records before it that name this node are of a process that is gone

	mu     sync.Mutex
	owners [NumSlots]slotOwner
}

const (
	slotsPerClaim = 64
	claimRetry    = 500 * time.Millisecond
	// claimLook is how often a node looks whether the owner of a slot that is
	// not its own has died.
	claimLook = time.Second
)

// open reads who owns what.
func (s *slots) open(ctx context.Context) error {
	s.wake = make(chan struct{}, 1)
	revision, err := s.list(ctx)
	if err != nil {
		return err
	}
	s.started = revision
	return nil
}

// start follows the owners and claims, until the coordinator closes.
func (s *slots) start() {
	s.c.background.Add(2)
	go func() {
		defer s.c.background.Done()
		s.c.follow(s.c.keys.owners(), s.started, s.changed, s.list)
	}()
	go func() {
		defer s.c.background.Done()
		s.claimAll()
	}()
}

// owner returns the node that serves a slot: its live owner, or this node if it
// is about to claim the slot. False: nobody yet. Any goroutine.
func (s *slots) owner(slot int) (node int32, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.owners[slot]
	if s.mine(o) || s.claimableLocked(o) {
		return s.c.self.ID, true
	}
	return o.Node, o.exists
}

// expects says whether this node owns a slot or is about to claim it. Any goroutine.
func (s *slots) expects(slot int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.owners[slot]
	return s.mine(o) || s.claimableLocked(o)
}

func (s *slots) mine(o *slotOwner) bool { return o.exists && o.Incarnation == s.incarnation }

// claimableLocked says whether this node is to claim a slot: nobody has it, or a
// node that is gone, or this node's process before this one. A later process of
// the same name is left alone.
//
// A node that is gone may only be cut off, and go on answering from memory what
// the next owner will change; its writes are fenced, its answers to OffsetFetch are
// not. So a claim waits for the end of the node's lease, and where several nodes
// share a cluster, shard.slot must refuse a slot once this node's own lease may
// have ended: leaseSeconds after it sent the last renewal that was answered.
func (s *slots) claimableLocked(o *slotOwner) bool {
	switch {
	case !o.exists:
		return true
	case o.Incarnation == s.incarnation:
		return false
	case o.Node == s.c.self.ID:
		return o.revision <= s.started
	}
	_, live := s.c.nodes.Load().byID[o.Node]
	return !live
}

// claimAll claims what can be claimed, now and whenever that changes.
func (s *slots) claimAll() {
	for {
		wait := time.Duration(-1)
		todo, foreign := s.claimable()
		if len(todo) > 0 {
			if err := s.claim(todo[:min(len(todo), slotsPerClaim)]); err == nil {
				continue
			} else if s.c.ctx.Err() == nil {
				s.c.logger.Warn("slots of groups were not claimed; trying again", zap.Int("slots", len(todo)), zap.Error(err))
			}
			wait = claimRetry
		} else if foreign {
			wait = claimLook
		}
		if !s.sleep(wait) {
			return
		}
	}
}

// sleep waits until something may have changed, at most for d if that is not
// negative. False: the coordinator closes.
func (s *slots) sleep(d time.Duration) bool {
	var due <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-due:
	case <-s.wake:
	case <-s.c.ctx.Done():
		return false
	}
	return true
}

// claimable returns the slots to claim, and whether others own some.
func (s *slots) claimable() (todo []int, foreign bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for slot := range s.owners {
		o := &s.owners[slot]
		switch {
		case s.claimableLocked(o):
			todo = append(todo, slot)
		case !s.mine(o):
			foreign = true
		}
	}
	return todo, foreign
}

// owned is how many slots this node owns.
func (s *slots) owned() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for slot := range s.owners {
		if s.mine(&s.owners[slot]) {
			n++
		}
	}
	return n
}

// claim makes this node the owner of slots, or finds out who is.
func (s *slots) claim(todo []int) error {
	conds := make([]meta.Cond, len(todo))
	ops := make([]meta.Op, len(todo))
	claims := make([]ownerRecord, len(todo))
	s.mu.Lock()
	for i, slot := range todo {
		o := &s.owners[slot]
		key := s.c.keys.owner(slot)
		claims[i] = ownerRecord{Version: 1, Node: s.c.self.ID, Incarnation: s.incarnation, Epoch: o.Epoch + 1}
		conds[i] = meta.Cond{Key: key}
		if o.exists {
			conds[i].Modified = o.revision
		}
		value, err := json.Marshal(claims[i])
		if err != nil {
			panic("coordinator: an owner record cannot be encoded: " + err.Error()) // it has plain fields only
		}
		ops[i] = meta.Put(key, value)
	}
	s.mu.Unlock()
	revision, ok, err := s.c.meta.Txn(s.c.ctx, conds, ops)
	switch {
	case err == nil && ok:
		for i, slot := range todo {
			s.apply(slot, slotOwner{claims[i], revision, true})
		}
		return nil
	case err != nil && !retriable(s.c.ctx, err):
		return unavailable("owners of slots", err)
	}
	// Somebody else was faster, or nobody knows: what is written there decides.
	_, err = s.list(s.c.ctx)
	return err
}

// list learns all owners.
func (s *slots) list(ctx context.Context) (meta.Revision, error) {
	found := make(map[int]slotOwner, NumSlots)
	revision, err := s.c.meta.List(ctx, s.c.keys.owners(), func(kv meta.KV) bool {
		if slot, ok := s.slotOf(kv.Key); ok {
			found[slot] = s.decode(kv)
		}
		return true
	})
	if err != nil {
		return 0, unavailable("owners of slots", err)
	}
	for slot := range NumSlots {
		o, ok := found[slot]
		if !ok {
			o.revision = revision
		}
		s.apply(slot, o)
	}
	return revision, nil
}

// changed applies what a watch saw.
func (s *slots) changed(e meta.Events) {
	for _, e := range e.Events {
		slot, ok := s.slotOf(e.Key)
		if !ok {
			continue
		}
		o := slotOwner{revision: e.Modified}
		if !e.Deleted {
			o = s.decode(e.KV)
		}
		s.apply(slot, o)
	}
}

func (s *slots) slotOf(key string) (int, bool) {
	slot, err := strconv.Atoi(strings.TrimPrefix(key, s.c.keys.owners()))
	return slot, err == nil && slot >= 0 && slot < NumSlots
}

// decode reads a slot's record. One that cannot be read names no node, so the
// slot is claimed anew.
func (s *slots) decode(kv meta.KV) slotOwner {
	o := slotOwner{revision: kv.Modified, exists: true}
	if err := json.Unmarshal(kv.Value, &o.ownerRecord); err != nil {
		s.c.logger.Error("owner record is not readable", zap.String("key", kv.Key), zap.Error(err))
		o.ownerRecord = ownerRecord{Node: -1}
	}
	return o
}

// apply takes note of an owner unless something newer is known.
func (s *slots) apply(slot int, o slotOwner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.owners[slot]
	if o.revision <= old.revision {
		return
	}
	if !o.exists {
		o.Epoch = old.Epoch
	}
	s.owners[slot] = o
	switch {
	case s.mine(&o):
		s.gained(slot, o.revision)
	case s.mine(&old):
		s.c.logger.Warn("a slot of groups was lost", zap.Int("slot", slot), zap.Int32("owner", o.Node), zap.Bool("owned", o.exists))
		s.lost(slot)
		fallthrough
	default:
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// recheck reads a slot's owner again after a write for it was fenced. It blocks.
func (s *slots) recheck(ctx context.Context, slot int) error {
	key := s.c.keys.owner(slot)
	var o slotOwner
	revision, err := s.c.meta.List(ctx, key, func(kv meta.KV) bool {
		o = s.decode(kv)
		return false
	})
	if err != nil {
		return unavailable(fmt.Sprintf("owner of slot %d", slot), err)
	}
	if !o.exists {
		o.revision = revision
	}
	s.apply(slot, o)
	return nil
}
