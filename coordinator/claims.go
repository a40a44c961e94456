package coordinator

import (
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

const (
	// slotsPerTxn leaves room in a transaction for the conditions on nodes.
	slotsPerTxn = 60
	// claimsPerTxn leaves room for those on this node and, mostly, one that is gone.
	claimsPerTxn = 120
	claimRetry   = 100 * time.Millisecond

	// claimDelay is how long a node that has gone from the list may take to come
	// back, if only its lease was lost: revoked by hand, for example. It is part of the
	// second that a failover may take beyond the lease.
	claimDelay = 250 * time.Millisecond
	// candidateDelay is by how much each candidate for a slot waits longer than
	// the one before it: the others claim nothing if that one does.
	candidateDelay = time.Second
)

// run claims and hands over, now and whenever there may be something, until the
// coordinator closes.
func (s *slots) run() {
	for {
		todo, wait := s.plan()
		if len(todo) > 0 {
			ok, err := s.claim(todo)
			if ok {
				continue
			}
			if err != nil && s.c.ctx.Err() == nil {
				s.c.logger.Warn("slots were not claimed; trying again", zap.Int("slots", len(todo)), zap.Error(err))
			}
			if sleep(s.c.ctx, claimRetry) != nil {
				return
			}
			continue
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

// plan returns the slots to claim now, begins the handovers that are due, and
// says how long there is nothing to do; negative: until something changes.
func (s *slots) plan() (todo []int, wait time.Duration) {
	s.mu.Lock()
	defer s.unlock()
	wait = -1
	if s.abandoned || s.c.registration.revision() == 0 {
		return nil, wait
	}
	now := s.c.now().monotonic
	if s.firstLook == 0 {
		s.firstLook = now
	}
	later := func(at time.Duration) {
		if d := max(at-now, 0); wait < 0 || d < wait {
			wait = d
		}
	}
	for slot := range s.state {
		o := &s.state[slot]
		switch {
		case s.mineLocked(o):
			if o.doubtful && !o.releasing {
				todo = append(todo, slot)
			}
		case s.ownerLives(&o.slotOwner):
			o.ownerlessSince = 0
		default:
			if o.ownerlessSince == 0 {
				o.ownerlessSince = now
			}
			if at, ok := s.claimAtLocked(slot); !ok {
				continue
			} else if at > now {
				later(at)
			} else {
				todo = append(todo, slot)
			}
		}
	}
	if at, ok := s.moveLocked(now); ok {
		later(at)
	}
	return todo, wait
}

// claimAtLocked says when this node is to claim a slot that has no owner, on the
// monotonic clock; false: never, as things stand.
func (s *slots) claimAtLocked(slot int) (at time.Duration, ok bool) {
	order := s.orderLocked(slot)
	turn := slices.Index(order, s.c.self.ID)
	if turn < 0 {
		return 0, false
	}
	o := &s.state[slot]
	at = o.ownerlessSince + time.Duration(turn)*candidateDelay
	if !o.exists || o.Node == s.c.self.ID || o.Node < 0 {
		// Nobody's, or this node's own of another process: that one is gone.
		return at, true
	}
	if o.ownerlessSince != s.firstLook {
		at += claimDelay
	}
	// When the metadata store has been away, leases ended without their nodes'
	// doing. Those register again as soon as they reach it.
	r := s.c.registration
	return max(at, time.Duration(r.steady.Load())+max(2*time.Second, r.ttl/3)), true
}

// membersLocked finds the nodes that may own slots: those that do not drain, or
// all if all do.
func (s *slots) membersLocked() {
	var members, draining []candidate
	for _, n := range s.c.Nodes() {
		c := candidate{n.ID, n.Weight}
		if n.Draining {
			draining = append(draining, c)
		} else {
			members = append(members, c)
		}
	}
	if len(members) == 0 {
		members = draining
	}
	if !slices.Equal(members, s.members) {
		s.members, s.membersSince = members, s.c.now().monotonic
	}
}

// wantedLocked returns the node that is to own a slot; false: there is none.
func (s *slots) wantedLocked(slot int) (int32, bool) {
	if node, ok := s.overrides[slot]; ok && s.memberLocked(node) {
		return node, true
	}
	return best(slot, s.members)
}

// orderLocked returns the nodes that may own a slot, the one that is to first.
func (s *slots) orderLocked(slot int) []int32 {
	order := rank(slot, s.members)
	if node, ok := s.overrides[slot]; ok {
		if at := slices.Index(order, node); at > 0 {
			order = slices.Insert(slices.Delete(order, at, at+1), 0, node)
		}
	}
	return order
}

func (s *slots) memberLocked(node int32) bool {
	return slices.ContainsFunc(s.members, func(c candidate) bool { return c.id == node })
}

// slotClaim is what a transaction writes for a slot.
type slotClaim struct {
	slot   int
	record ownerRecord
}

// claim makes this node the owner of slots, in transactions that do not wait for each
// other. False: of none. What is written in the store has been read again if not all are.
func (s *slots) claim(todo []int) (some bool, err error) {
	chunks := slices.Collect(slices.Chunk(todo, claimsPerTxn))
	done, errs := make([]bool, len(chunks)), make([]error, len(chunks))
	var claiming sync.WaitGroup
	for i, chunk := range chunks {
		claiming.Go(func() { done[i], errs[i] = s.claimTogether(chunk) })
	}
	claiming.Wait()
	if err := errors.Join(errs...); err != nil || !slices.Contains(done, false) {
		return err == nil, err
	}
	if _, err := s.c.listNodes(s.c.ctx); err != nil {
		return false, err
	}
	_, err = s.list(s.c.ctx)
	return slices.Contains(done, true), err
}

// claimTogether makes this node the owner of slots, all or none. False: somebody else was
// faster, or nobody knows, or this node is not registered any more.
func (s *slots) claimTogether(todo []int) (bool, error) {
	conds := make([]meta.Cond, 0, 2*len(todo)+1)
	self := s.c.registration.revision()
	if self == 0 {
		return false, nil
	}
	conds = append(conds, meta.Cond{Key: s.c.keys.node(s.c.self.ID), Modified: self})
	ops := make([]meta.Op, 0, len(todo))
	claims := make([]slotClaim, 0, len(todo))
	nodes := s.c.nodes.Load().byID
	gone := map[int32]bool{s.c.self.ID: true, -1: true}
	s.mu.Lock()
	for _, slot := range todo {
		o := &s.state[slot]
		cond := meta.Cond{Key: s.c.keys.owner(slot)}
		if o.exists {
			n, listed := nodes[o.Node]
			if listed && n.Incarnation == o.Incarnation && o.Node != s.c.self.ID {
				continue // back on the list since it was looked at
			}
			cond.Modified = o.revision
			if !gone[o.Node] {
				// Not registered, or as another process than had the slot.
				gone[o.Node] = true
				conds = append(conds, meta.Cond{Key: s.c.keys.node(o.Node), Modified: n.revision})
			}
		}
		conds = append(conds, cond)
		record := ownerRecord{Version: ownerRecordVersion, Node: s.c.self.ID, Incarnation: s.c.self.Incarnation, Epoch: o.Epoch + 1}
		ops = append(ops, meta.Put(cond.Key, record.encode()))
		claims = append(claims, slotClaim{slot, record})
	}
	s.mu.Unlock()
	switch {
	case len(conds) > meta.MaxTxnOps:
		// More owners have gone than clusters have nodes.
		return s.claimTogether(todo[:len(todo)/2])
	case len(claims) == 0:
		return false, nil
	}
	revision, ok, err := s.c.meta.Txn(s.c.ctx, conds, ops)
	if err == nil && ok {
		s.metrics.claims.Add(float64(len(claims)))
		s.mu.Lock()
		defer s.unlock()
		for _, c := range claims {
			s.applyLocked(c.slot, slotOwner{c.record, revision, true})
		}
		return true, nil
	}
	if err != nil && !retriable(s.c.ctx, err) {
		return false, unavailable("owners of slots", err)
	}
	return false, nil
}
