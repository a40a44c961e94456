package coordinator

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/planted"
)

// NumSlots is how many slots the partitions and groups of a cluster fall into. It
// is the same for the life of every cluster: a group's keys lie under its slot.
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
	Epoch       int64  `json:"epoch"` // counts the owners of the slot
}

const ownerRecordVersion = 1

func (r ownerRecord) encode() []byte {
	value, err := json.Marshal(r)
	if err != nil {
		// Strings and numbers always have a JSON form.
		panic(err)
	}
	return value
}

// slotOwner is who owns a slot as of the revision at which its record changed.
type slotOwner struct {
	ownerRecord
	revision meta.Revision // 0: nothing is known of the slot
	exists   bool
}

// slotState is what this node knows of a slot.
type slotState struct {
	slotOwner
	// releasing: this node owns the slot and is handing it over, so nobody
	// serves it.
	releasing bool
	// doubtful: this node owns the slot and has tried to hand it over, and the
	// transaction may be executed yet. The lease does not keep it from that, so it
	// proves nothing of this slot until another claim of it is executed.
	doubtful bool
	// ownerlessSince is when it was seen, on the monotonic clock, that the owner
	// is gone; 0: it is not.
	ownerlessSince time.Duration
}

// slots knows who owns each slot, claims for this node those that it is to have
// and nobody live owns, and hands over those that others are to have. The
// revision of the record that makes this node the owner is the fence: whatever
// the coordinator writes for the slot compares it in the same transaction, so a
// node that lost the slot and does not know it writes nothing.
//
//	                 claim: owner gone                       hand over: drain, join, override
//	own/{slot}: ─────────────────────────► this node ──────────────────────────────────────► another node
//	                                        │  ▲
//	                      Route.Here ───────┘  └── found by watch: handed to this node
//
// Each change is a compare-and-swap of own/{slot}. A claim compares also that the
// node which had the slot is not registered as the process that it was, and that
// this one is.
type slots struct {
	c *Coordinator

	// gained and lost are told each change of what this node owns, one at a
	// time and in order. They must not block.
	gained func(slot int, fence meta.Revision)
	lost   func(slot int)
	holder atomic.Pointer[SlotHolder]

	wake chan struct{} // holds one element if there may be something to claim or to hand over

	routes        [NumSlots]atomic.Pointer[Route]
	routesChanged atomic.Pointer[chan struct{}]
	doubtful      [NumSlots]atomic.Bool
	fences        [NumSlots]atomic.Int64 // the revision of the record that makes this node the owner; 0: it is not
	seen          atomic.Int64           // when the owners were last listed or seen to change, on the monotonic clock
	moves         handovers
	metrics       *slotMetrics

	mu        sync.Mutex
	opened    bool
	changed   bool // routes, since routesChanged was closed
	abandoned bool
	state     [NumSlots]slotState
	// overrides are nodes by slot, as of overridden. The map is never changed.
	overrides  map[int]int32
	overridden meta.Revision
	// members are the nodes that may own slots, as of membersSince on the monotonic clock.
	members      []candidate
	membersSince time.Duration
	firstLook    time.Duration // by run; what had no owner then has had none for long
}

func (s *slots) init(c *Coordinator) {
	s.c = c
	s.wake = make(chan struct{}, 1)
	ch := make(chan struct{})
	s.routesChanged.Store(&ch)
	for i := range s.routes {
		s.routes[i].Store(&Route{Node: -1})
	}
	s.moves.init(s)
}

// openSlots reads who owns what and begins to claim.
func (c *Coordinator) openSlots(ctx context.Context) (err error) {
	if c.slots.metrics, err = newSlotMetrics(c.config.Groups.Registerer, c); err != nil {
		return err
	}
	c.slots.gained, c.slots.lost = c.groups.slotGained, c.groups.slotLost
	return c.slots.open(ctx)
}

func (s *slots) open(ctx context.Context) error {
	overridden, err := s.listOverrides(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.membersLocked()
	s.mu.Unlock()
	revision, err := s.list(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.opened = true
	s.mu.Unlock()
	s.nodesChanged()
	s.c.registration.trust()
	for _, run := range []func(){
		func() {
			s.c.follow(followed{prefix: s.c.keys.owners(), after: revision, changed: applied(s.ownersChanged), list: s.list, every: relistEvery})
		},
		func() {
			s.c.follow(followed{prefix: s.c.keys.overrides(), after: overridden, changed: applied(s.overridesChanged), list: s.listOverrides, every: relistEvery})
		},
		s.run,
	} {
		s.c.background.Add(1)
		go func() {
			defer s.c.background.Done()
			run()
		}()
	}
	return nil
}

// relistEvery is how often nodes, owners and overrides are listed though nothing is amiss.
const relistEvery = 5 * time.Minute

// look makes run look whether there is something to do. Any goroutine.
func (s *slots) look() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// unlock ends a critical section that may have changed routes.
func (s *slots) unlock() {
	if s.changed {
		s.changed = false
		next := make(chan struct{})
		close(*s.routesChanged.Swap(&next))
	}
	s.mu.Unlock()
}

// setRouteLocked shows who serves a slot to all who look.
func (s *slots) setRouteLocked(slot int) {
	o := &s.state[slot]
	r := Route{Node: -1, Epoch: o.Epoch}
	switch {
	case s.mineLocked(o):
		if !o.releasing {
			r.Node, r.Here = s.c.self.ID, true
		}
	case s.ownerLives(&o.slotOwner):
		r.Node = o.Node
	}
	fence := meta.Revision(0)
	if s.mineLocked(o) {
		fence = o.revision
	}
	s.fences[slot].Store(int64(fence))
	s.doubtful[slot].Store(o.doubtful)
	if *s.routes[slot].Load() != r {
		s.routes[slot].Store(&r)
		s.changed = true
	}
}

// mineLocked says whether this process owns a slot.
func (s *slots) mineLocked(o *slotState) bool {
	return o.exists && o.Incarnation == s.c.self.Incarnation && !s.abandoned
}

// ownerLives says whether the process that owns a slot is on the list of nodes.
func (s *slots) ownerLives(o *slotOwner) bool {
	if !o.exists {
		return false
	}
	n, ok := s.c.nodes.Load().byID[o.Node]
	return ok && n.Incarnation == o.Incarnation
}

// trusted says whether the lease proves that this node owns a slot as it did at fence, the
// revision of the owner's record that the caller knows, and what it holds of the slot with
// it. Any goroutine.
//
// A lease may be of a later registration than what the caller holds. The owners are read
// before such a lease is valid, so the fence is looked at after the lease: what was lost
// meanwhile is seen, also where the loss itself is told later.
func (s *slots) trusted(slot int, fence meta.Revision) bool {
	if planted.Is(planted.ServeAfterExpiry) {
		return true
	}
	return s.c.registration.valid() && !s.doubtful[slot].Load() && meta.Revision(s.fences[slot].Load()) == fence
}

// fence is the revision of the record that makes this node the owner of a slot; 0: it is
// not. Any goroutine.
func (s *slots) fence(slot int) meta.Revision { return meta.Revision(s.fences[slot].Load()) }

// lapsedFor says whether a slot that this node owned until its lease was over has been
// without a proof for less than d. Any goroutine.
func (s *slots) lapsedFor(slot int, d time.Duration) bool {
	lapsed, ok := s.c.registration.lapsed()
	return ok && lapsed < d && !s.doubtful[slot].Load()
}

// owner returns the node to ask for a slot: its owner, else who is about to claim
// it. False: nobody. Any goroutine.
func (s *slots) owner(slot int) (node int32, ok bool) {
	if r := s.routes[slot].Load(); r.Node >= 0 {
		return r.Node, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wantedLocked(slot)
}

// expects says whether this node serves a slot or is about to claim it, as the
// first. Any goroutine.
func (s *slots) expects(slot int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.state[slot]
	return s.mineLocked(o) && !o.releasing || s.claimsLocked(slot)
}

// claimsLocked says whether this node is about to claim a slot, as the first.
func (s *slots) claimsLocked(slot int) bool {
	o := &s.state[slot]
	if s.abandoned || s.mineLocked(o) || s.ownerLives(&o.slotOwner) {
		return false
	}
	node, ok := s.wantedLocked(slot)
	return ok && node == s.c.self.ID
}

// settled says whether this node has claimed what it is to claim as the first.
func (s *slots) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for slot := range s.state {
		if s.claimsLocked(slot) {
			return false
		}
	}
	return true
}

// owned is how many slots this node owns.
func (s *slots) owned() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for slot := range s.state {
		if s.mineLocked(&s.state[slot]) {
			n++
		}
	}
	return n
}

// nodesChanged takes note of another list of nodes.
func (s *slots) nodesChanged() {
	s.mu.Lock()
	defer s.unlock()
	if !s.opened {
		return
	}
	s.membersLocked()
	for slot := range s.state {
		s.setRouteLocked(slot)
	}
	s.look()
}

// list learns all owners.
func (s *slots) list(ctx context.Context) (meta.Revision, error) {
	found := make(map[int]slotOwner, NumSlots)
	revision, err := s.c.meta.List(ctx, s.c.keys.owners(), func(kv meta.KV) bool {
		if slot, ok := s.slotOf(kv.Key, s.c.keys.owners()); ok {
			found[slot] = s.decode(kv)
		}
		return true
	})
	if err != nil {
		return 0, unavailable("owners of slots", err)
	}
	s.mu.Lock()
	defer s.unlock()
	s.sawLocked()
	for slot := range NumSlots {
		o, ok := found[slot]
		if !ok {
			o.revision = revision
		}
		s.applyLocked(slot, o)
	}
	return revision, nil
}

// ownersChanged applies what a watch saw.
func (s *slots) ownersChanged(e meta.Events) {
	s.mu.Lock()
	defer s.unlock()
	s.sawLocked()
	for _, e := range e.Events {
		slot, ok := s.slotOf(e.Key, s.c.keys.owners())
		if !ok {
			continue
		}
		o := slotOwner{revision: e.Modified}
		if !e.Deleted {
			o = s.decode(e.KV)
		}
		s.applyLocked(slot, o)
	}
}

func (s *slots) sawLocked() { s.seen.Store(int64(s.c.now().monotonic)) }

func (s *slots) slotOf(key, prefix string) (int, bool) {
	slot, err := strconv.Atoi(strings.TrimPrefix(key, prefix))
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

// applyLocked takes note of an owner unless something newer is known.
func (s *slots) applyLocked(slot int, o slotOwner) {
	old := s.state[slot]
	if o.revision <= old.revision {
		return
	}
	// A record that was removed, or spoilt, must not make the epoch go back.
	o.Epoch = max(o.Epoch, old.Epoch)
	now := &s.state[slot]
	*now = slotState{slotOwner: o}
	switch {
	case s.mineLocked(now):
		if s.mineLocked(&old) && now.Epoch > old.Epoch+1 {
			// A listing has left out that somebody else had it in between, and has
			// perhaps opened its logs: what is held here is of the past.
			s.dropLocked(slot)
		}
		s.gained(slot, o.revision)
		s.setRouteLocked(slot)
	case s.mineLocked(&old):
		if !old.releasing {
			s.c.logger.Warn("a slot was lost", zap.Int("slot", slot), zap.Int32("owner", o.Node), zap.Bool("owned", o.exists))
		}
		// Nobody is sent on to the next owner before what was refused here is back with
		// those who have asked: they keep its order.
		s.dropLocked(slot)
		s.setRouteLocked(slot)
	default:
		s.setRouteLocked(slot)
	}
	s.look()
}

// dropLocked ends the service of a slot that was lost, once its route leads nowhere.
func (s *slots) dropLocked(slot int) {
	s.routes[slot].Store(&Route{Node: -1, Epoch: s.state[slot].Epoch})
	s.changed = true
	s.drop(slot)
}

// drop ends the service of a slot whose route says already that it is not here.
func (s *slots) drop(slot int) {
	s.lost(slot)
	if h := s.holder.Load(); h != nil {
		(*h).DropSlot(slot)
	}
}

// abandon ends the service of all slots for good.
func (s *slots) abandon() {
	s.mu.Lock()
	defer s.unlock()
	if s.abandoned {
		return
	}
	var mine []int
	for slot := range s.state {
		if s.mineLocked(&s.state[slot]) {
			mine = append(mine, slot)
		}
	}
	s.abandoned = true
	for _, slot := range mine {
		s.setRouteLocked(slot)
		s.drop(slot)
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
	s.mu.Lock()
	defer s.unlock()
	s.applyLocked(slot, o)
	return nil
}
