package coordinator

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

const (
	// handoversAtOnce is how many slots change hands at a time. Each stands
	// still while it does.
	handoversAtOnce = 64
	// releaseTimeout bounds the orderly end of a slot's service. After it the
	// slot moves all the same: the next owner fences what is left.
	releaseTimeout = 2 * time.Second
	// handoverTimeout bounds how long a released slot waits for the metadata
	// store. After it this node serves the slot again.
	handoverTimeout = 3 * time.Second
	handoverRetry   = 50 * time.Millisecond
)

// handovers moves slots of this node to others: each slot is released on its
// own, and those that are released are handed over together.
//
//	Route.Here = false ─► groups: writes finish     ─┐
//	                  └─► SlotHolder: ledgers sealed ┴─► own/{slot} names the next owner, its epoch + 1
//
// What is asked of the slot meanwhile is refused with ErrNotCoordinator or finds
// no log here; it is to be asked again where the next route leads.
type handovers struct {
	s *slots

	// These belong to slots.mu.
	running  int
	nextMove time.Duration // when the next slot may move for balance alone, on the monotonic clock

	mu     sync.Mutex
	ready  []*handover
	worker bool
}

// handover is one slot on its way.
type handover struct {
	slot    int
	fence   meta.Revision // of the claim that this node gives up
	started moment
	unsure  bool // a transaction may yet be executed
}

func (m *handovers) init(s *slots) { m.s = s }

// moveLocked begins the handovers that are due and says when the next one may
// be; false: none waits for time alone. Those that wait for the sake of balance hold up
// none that were asked for.
func (s *slots) moveLocked(now time.Duration) (at time.Duration, ok bool) {
	if !s.c.registration.valid() {
		return 0, false // the renewal that makes it so again looks
	}
	draining := s.c.Self().Draining
	stable := s.membersSince + s.c.config.BalanceDelay
	for slot := range s.state {
		o := &s.state[slot]
		if !s.mineLocked(o) || o.releasing || o.doubtful {
			continue
		}
		overridden, named := s.overrides[slot]
		if ok && !named {
			continue
		}
		next, found := s.wantedLocked(slot)
		if !found || next == s.c.self.ID || s.c.nodes.Load().byID[next].revision == 0 {
			continue
		}
		if s.moves.running >= handoversAtOnce {
			return 0, false // the end of one looks
		}
		if !draining && !(named && overridden == next) {
			if due := max(stable, s.moves.nextMove); due > now {
				at, ok = due, true
				continue
			}
			s.moves.nextMove = max(now, s.moves.nextMove) + time.Second/time.Duration(s.c.config.BalanceSlotsPerSecond)
		}
		s.beginLocked(slot)
	}
	return at, ok
}

// beginLocked begins the handover of a slot.
func (s *slots) beginLocked(slot int) {
	o := &s.state[slot]
	o.releasing = true
	s.setRouteLocked(slot)
	s.moves.running++
	h := &handover{slot: slot, fence: o.revision, started: s.c.now()}
	s.c.background.Add(1)
	go func() {
		defer s.c.background.Done()
		s.release(h)
		s.moves.add(h)
	}()
}

// release ends the service of a slot in order, unless it was lost: then it is ended, and
// may have begun anew.
func (s *slots) release(h *handover) {
	if s.fence(h.slot) != h.fence {
		return
	}
	ctx, cancel := context.WithTimeout(s.c.ctx, releaseTimeout)
	defer cancel()
	var groups, logs error
	var releasing sync.WaitGroup
	releasing.Go(func() { groups = s.c.groups.release(ctx, h.slot, h.fence) })
	if holder := s.holder.Load(); holder != nil {
		logs = (*holder).ReleaseSlot(ctx, h.slot)
	}
	releasing.Wait()
	if err := errors.Join(groups, logs); err != nil && s.c.ctx.Err() == nil {
		s.c.logger.Warn("a slot is handed over without having been released in order", zap.Int("slot", h.slot), zap.Error(err))
	}
}

// add queues a slot that is released.
func (m *handovers) add(h *handover) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready = append(m.ready, h)
	if !m.worker {
		m.worker = true
		m.s.c.background.Add(1)
		go func() {
			defer m.s.c.background.Done()
			m.work()
		}()
	}
}

// work hands over what is released until nothing is.
func (m *handovers) work() {
	for {
		m.mu.Lock()
		batch := m.ready[:min(len(m.ready), slotsPerTxn)]
		m.ready = m.ready[len(batch):]
		m.worker = len(batch) > 0
		m.mu.Unlock()
		if len(batch) == 0 || m.s.c.ctx.Err() != nil {
			return
		}
		if again := m.s.pass(batch); len(again) > 0 {
			m.mu.Lock()
			m.ready = append(m.ready, again...)
			m.mu.Unlock()
			sleep(m.s.c.ctx, handoverRetry)
		}
	}
}

// pass names the next owners of slots, all or none, and returns the handovers
// that are to be tried again.
func (s *slots) pass(batch []*handover) (again []*handover) {
	var conds []meta.Cond
	var ops []meta.Op
	var passed []slotClaim
	var sent []*handover
	told := make(map[int32]bool)
	nodes := s.c.nodes.Load().byID
	s.mu.Lock()
	for _, h := range batch {
		o := &s.state[h.slot]
		if !s.mineLocked(o) || o.revision != h.fence {
			s.endLocked(h, "lost")
			continue
		}
		next, found := s.wantedLocked(h.slot)
		to := nodes[next]
		late := s.c.now().monotonic-h.started.monotonic > releaseTimeout+handoverTimeout
		if !found || next == s.c.self.ID || late {
			s.resumeLocked(h)
			continue
		}
		if !told[next] {
			// It is registered still, as the process that is to have the slots.
			told[next] = true
			conds = append(conds, meta.Cond{Key: s.c.keys.node(next), Modified: to.revision})
		}
		record := ownerRecord{Version: ownerRecordVersion, Node: next, Incarnation: to.Incarnation, Epoch: o.Epoch + 1}
		key := s.c.keys.owner(h.slot)
		conds = append(conds, meta.Cond{Key: key, Modified: o.revision})
		ops = append(ops, meta.Put(key, record.encode()))
		passed = append(passed, slotClaim{h.slot, record})
		sent = append(sent, h)
	}
	s.unlock()
	if len(sent) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.c.ctx, handoverTimeout/2)
	defer cancel()
	revision, ok, err := s.c.meta.Txn(ctx, conds, ops)
	if err == nil && ok {
		s.mu.Lock()
		defer s.unlock()
		for i, h := range sent {
			s.applyLocked(h.slot, slotOwner{passed[i].record, revision, true})
			s.endLocked(h, "done")
		}
		return nil
	}
	if err != nil {
		s.c.logger.Warn("slots were not handed over; trying again", zap.Int("slots", len(sent)), zap.Error(err))
		for _, h := range sent {
			h.unsure = h.unsure || errors.Is(err, meta.ErrUnknownOutcome)
		}
	}
	// Somebody else has changed something, or nobody knows: what is there decides.
	for _, list := range []func(context.Context) (meta.Revision, error){s.c.listNodes, s.list} {
		if _, err := list(ctx); err != nil {
			break
		}
	}
	return sent
}

// resumeLocked serves a slot again that could not be handed over.
func (s *slots) resumeLocked(h *handover) {
	o := &s.state[h.slot]
	o.releasing, o.doubtful = false, h.unsure
	s.gained(h.slot, o.revision)
	s.setRouteLocked(h.slot)
	s.endLocked(h, "resumed")
}

// endLocked takes note of the end of a handover.
func (s *slots) endLocked(h *handover, result string) {
	s.moves.running--
	s.metrics.handovers.WithLabelValues(result).Inc()
	s.metrics.handoverSeconds.Observe((s.c.now().monotonic - h.started.monotonic).Seconds())
	s.look()
}
