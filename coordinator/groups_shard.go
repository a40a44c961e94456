package coordinator

import (
	"container/heap"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/offsets"
	"github.com/quirelog/quire/storage/meta"
)

// shard drives the groups of every numShards-th slot, one event at a time: on
// its own goroutine those of its inbox and those that time brings, and on a
// caller's what is quick (enter). Whoever drives holds mu, which guards all
// fields but the inbox.
type shard struct {
	g     *Groups
	inbox *inbox

	mu      sync.Mutex
	slots   [NumSlots]*ownedSlot // those of the shard; nil: not owned
	due     dueEntries
	wakes   time.Time     // when the goroutine looks at due; zero: when it is woken
	effects group.Effects // of the event under way

	// parked are the requests that wait for a slot to be loaded, by slot, and
	// parkedAs numbers the waiting of each.
	parked   map[int][]request
	parkedAs map[int]int
	parkings int
	// proving counts the requests, by slot, for which the metadata store is asked who
	// owns it.
	proving map[int]int

	closed     bool // the inbox is: nothing more comes
	lastTicket group.Ticket
	waiting    map[group.Ticket]func(response any) // requests that groups will answer
}

// ownedSlot is a slot that this node has claimed.
type ownedSlot struct {
	n      int
	fence  meta.Revision
	table  *offsets.Slot // nil until the slot is loaded
	groups map[string]*entry
	// checking: somebody is finding out whether the slot is still owned.
	checking bool
	// releasing: no event of its groups happens any more, and it is given up once
	// what they have written is stored.
	releasing bool
	gone      atomic.Bool // nobody wants it any more
}

// entry is one group in memory.
type entry struct {
	id   string
	slot *ownedSlot
	// group is nil while the entry is read again, and for ever if its record
	// cannot be understood.
	group     *group.Group
	reloading bool
	// commits of a simple group that are under way: the group has nothing else
	// to show that it exists.
	commits int
	// committing counts all that are under way. It is lowered once the table has what was
	// committed, on the committer's goroutine.
	committing atomic.Int64
	// held: what was due has waited since nobody knew whether this node owns the group.
	held bool

	due   time.Time // when the heap brings it; no later than the group's deadline
	index int       // in the heap; -1: not in it

	state       group.State // as counted
	rebalancing bool
}

const (
	// reloadRetry is how long a group that could not be read again waits.
	reloadRetry = 500 * time.Millisecond
	// heldRetry is how long what is due waits where the lease is not known to last.
	heldRetry = 250 * time.Millisecond
)

func newShard(g *Groups) *shard {
	return &shard{
		g: g, inbox: newInbox(g.config.MaxInboxEvents),
		parked: make(map[int][]request), parkedAs: make(map[int]int), proving: make(map[int]int), waiting: make(map[group.Ticket]func(any)),
	}
}

// atOnce is the time of a timer for what is due. It is not 0: a timer that is due when it
// is looked at is run by whoever looks, and if several do so in one synctest bubble the
// race detector crashes (Go 1.26).
const atOnce = time.Nanosecond

// run carries out what comes and what is due, until the inbox is closed.
func (s *shard) run() {
	timer := time.NewTimer(atOnce)
	defer timer.Stop()
	var spare []func()
	for closed := false; !closed; {
		select {
		case <-s.inbox.wake:
		case <-timer.C:
		}
		spare, closed = s.turn(spare, timer)
	}
}

// turn does what run has been woken for, and sets the timer.
func (s *shard) turn(spare []func(), timer *time.Timer) (events []func(), closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, closed = s.inbox.take(spare)
	for i, event := range events {
		event()
		events[i] = nil
	}
	if closed {
		s.closed = true
		for slot := range s.owned {
			s.lost(slot.n)
		}
		for n := range s.parked {
			s.refuseParked(n, group.ErrNotCoordinator)
		}
		return nil, true
	}
	s.tick()
	s.wakes = s.next()
	if s.wakes.IsZero() {
		timer.Stop()
	} else {
		timer.Reset(max(s.wakes.Sub(s.g.config.Now()), atOnce))
	}
	return events, false
}

// enter lets the caller drive the shard, on its own goroutine, if the shard has
// nothing to do: what came before has been carried out then. It does not wait.
// End with leave.
func (s *shard) enter() bool {
	if !s.mu.TryLock() {
		return false
	}
	if !s.inbox.idle() {
		s.mu.Unlock()
		return false
	}
	return true
}

func (s *shard) leave() {
	next := s.next()
	early := !next.IsZero() && (s.wakes.IsZero() || next.Before(s.wakes))
	s.mu.Unlock()
	if early {
		s.inbox.ring()
	}
}

// next is when something is due; zero if nothing is.
func (s *shard) next() time.Time {
	if len(s.due) == 0 {
		return time.Time{}
	}
	return s.due[0].due
}

// tick does what is due.
func (s *shard) tick() {
	now := s.g.config.Now()
	for len(s.due) > 0 && !now.Before(s.due[0].due) {
		e := heap.Pop(&s.due).(*entry)
		if e.slot.releasing {
			continue
		}
		if e.group == nil {
			s.reload(e)
			continue
		}
		// Renewed sessions leave the entry where it was in the heap.
		at, ok := e.group.Deadline()
		due := ok && !now.Before(at)
		switch {
		case due && !s.g.c.slots.trusted(e.slot.n, e.slot.fence):
			// Who cannot answer members does not judge that they are silent, nor who
			// was not running: what they have sent may wait to be read.
			e.held = true
			s.put(e, now.Add(heldRetry))
			continue
		case due && e.held:
			// Sessions start afresh, as with another owner.
			e.held = false
			s.unloadGroup(e)
		default:
			e.held = false
			e.group.Tick(now, &s.effects)
		}
		s.settle(e)
	}
}

// owned yields the slots that this node has claimed.
func (s *shard) owned(yield func(*ownedSlot) bool) {
	for _, slot := range s.slots {
		if slot != nil && !yield(slot) {
			return
		}
	}
}

// slot returns a slot that can be used, or why it cannot.
func (s *shard) slot(n int) (*ownedSlot, error) {
	if slot := s.slots[n]; slot != nil {
		switch {
		case slot.releasing:
			return nil, group.ErrNotCoordinator
		case slot.table == nil:
			return nil, group.ErrNotLoaded
		}
		return slot, nil
	}
	if s.g.c.slots.expects(n) {
		return nil, group.ErrNotLoaded
	}
	return nil, group.ErrNotCoordinator
}

// gained begins to own a slot, which is then to be loaded.
func (s *shard) gained(n int, fence meta.Revision) {
	s.unload(n)
	slot := &ownedSlot{n: n, fence: fence}
	s.slots[n] = slot
	s.g.loads.load(slot)
}

// lost ends the owning of a slot: every request that waits there is told so.
func (s *shard) lost(n int) {
	s.unload(n)
	s.refuseParked(n, group.ErrNotCoordinator)
}

// unload forgets what is in memory of a slot. Requests that wait for its being loaded stay.
func (s *shard) unload(n int) {
	slot := s.slots[n]
	if slot == nil {
		return
	}
	s.slots[n] = nil
	slot.gone.Store(true)
	for _, e := range slot.groups {
		if e.group != nil {
			e.group.Unload(&s.effects)
			s.answer()
		}
		s.forget(e)
	}
	if slot.table != nil {
		slot.table.Release()
		s.g.loads.loaded.Add(-1)
	}
}

// release gives a slot up as soon as what its groups have written is stored. One that was
// lost since it was owned at fence is given up already, though it may be owned again.
func (s *shard) release(n int, fence meta.Revision, done func()) {
	slot := s.slots[n]
	if slot != nil && slot.fence != fence {
		done()
		return
	}
	if slot == nil || slot.table == nil {
		s.lost(n)
		done()
		return
	}
	slot.releasing = true
	flushed := func(error) {
		if !s.inbox.put(func() {
			if s.slots[n] == slot {
				s.lost(n)
			}
			done()
		}) {
			done()
		}
	}
	if err := slot.table.Flush(flushed); err != nil {
		flushed(err)
	}
}

// loaded takes a slot's content, unless it was lost meanwhile.
func (s *shard) loaded(slot *ownedSlot, table *offsets.Slot, groups map[string]*entry) {
	if s.slots[slot.n] != slot {
		table.Release()
		return
	}
	slot.table, slot.groups = table, groups
	// Configs may have changed since the groups were read.
	s.configureSlot(slot)
	s.g.loads.loaded.Add(1)
	for _, e := range groups {
		if e.group != nil {
			s.schedule(e)
			s.count(e)
		}
	}
	for _, r := range s.unpark(slot.n) {
		s.serve(slot.n, r)
	}
}

// find returns the group of an id; nil if there is none.
func (s *shard) find(slot *ownedSlot, id string) (*entry, error) {
	e := slot.groups[id]
	switch {
	case e == nil || e.group != nil:
		return e, nil
	case e.reloading:
		return nil, group.ErrNotLoaded
	}
	return nil, group.ErrUnavailable
}

// findOrMake is find, but makes an empty group if there is none. settle forgets
// it again unless something becomes of it.
func (s *shard) findOrMake(slot *ownedSlot, id string) (*entry, error) {
	e, err := s.find(slot, id)
	if e != nil || err != nil {
		return e, err
	}
	e = &entry{id: id, slot: slot, group: group.New(id, s.g.configs.of(id)), index: -1}
	slot.groups[id] = e
	return e, nil
}

// current says whether an entry is still the group's.
func (s *shard) current(e *entry) bool {
	return s.slots[e.slot.n] == e.slot && e.slot.groups[e.id] == e
}

// ticket makes reply the one that is called with the response to a request.
func (s *shard) ticket(reply func(response any)) group.Ticket {
	s.lastTicket++
	s.waiting[s.lastTicket] = reply
	return s.lastTicket
}

// settle carries out the effects of an event of a group.
func (s *shard) settle(e *entry) {
	write, reload := s.effects.Write, s.effects.Reload
	s.answer()
	if write.Seq != 0 && !reload {
		s.write(e, write)
	}
	if reload {
		s.reload(e)
		return
	}
	if e.commits == 0 && e.group.Forgettable() && !e.slot.table.HasOffsets(e.id) {
		s.forget(e)
		return
	}
	s.schedule(e)
	s.count(e)
}

// answer sends the replies of an event and forgets its other effects.
func (s *shard) answer() {
	for i := range s.effects.Replies {
		r := &s.effects.Replies[i]
		reply := s.waiting[r.Ticket]
		if reply == nil {
			panic("coordinator: a group answered a ticket that does not wait")
		}
		delete(s.waiting, r.Ticket)
		reply(r.Response)
	}
	s.effects.Reset()
}

// write stores a group's record, or removes the group with its offsets.
func (s *shard) write(e *entry, w group.Write) {
	done := func(err error) { s.inbox.put(func() { s.written(e, w.Seq, err) }) }
	var err error
	if w.Delete {
		err = e.slot.table.DeleteGroup(e.id, done)
	} else {
		err = e.slot.table.PutRecord(e.id, packRecord(w.Record), done)
	}
	if err != nil {
		done(err)
	}
}

// written tells a group what became of its write.
func (s *shard) written(e *entry, seq uint64, err error) {
	if !s.current(e) || e.group == nil {
		return
	}
	s.failed(e, err)
	outcome := err
	if errors.Is(err, offsets.ErrTooLarge) {
		outcome = group.ErrMaxSizeReached
		s.g.c.logger.Error("a group has become too large to be stored, so its newest members are refused: give it fewer members, or members with shorter subscriptions",
			zap.String("group", e.id), zap.Error(err))
	}
	e.group.Written(s.g.config.Now(), seq, outcome, &s.effects)
	if errors.Is(err, offsets.ErrGroupChanged) && !s.effects.Reload {
		s.unloadGroup(e)
	}
	s.settle(e)
}

// unloadGroup gives up what is in memory of a group, which is not what is stored:
// nobody may go on from it. settle reads it again.
func (s *shard) unloadGroup(e *entry) {
	e.group.Unload(&s.effects)
	s.effects.Write, s.effects.Reload = group.Write{}, true
}

// failed takes note of an error of the committer.
func (s *shard) failed(e *entry, err error) {
	if err == nil || errors.Is(err, offsets.ErrClosed) {
		return
	}
	s.g.c.logger.Warn("a group's record was not written or read", zap.String("group", e.id), zap.Error(err))
	if errors.Is(err, offsets.ErrNotOwner) {
		s.doubt(e.slot)
	}
}

// doubt finds out whether a slot is still owned.
func (s *shard) doubt(slot *ownedSlot) {
	if slot.checking {
		return
	}
	slot.checking = true
	s.g.loads.recheck(slot)
}

// checked ends what doubt began: the slot is read again if it is still owned,
// since something of it was written by somebody else or refused for nothing.
func (s *shard) checked(slot *ownedSlot) {
	if s.slots[slot.n] == slot && !slot.releasing {
		s.gained(slot.n, slot.fence)
	}
}

// reload reads a group again, whose memory and record may differ.
func (s *shard) reload(e *entry) {
	s.uncount(e)
	e.group, e.reloading = nil, true
	err := e.slot.table.Reload(e.id, func(record []byte, err error) {
		s.inbox.put(func() { s.reloaded(e, record, err) })
	})
	if err != nil {
		s.reloaded(e, nil, err)
	}
}

func (s *shard) reloaded(e *entry, record []byte, err error) {
	if !s.current(e) || !e.reloading {
		return
	}
	if err != nil && !errors.Is(err, offsets.ErrFormat) {
		s.failed(e, err)
		s.put(e, s.g.config.Now().Add(reloadRetry))
		return
	}
	e.reloading = false
	if err != nil {
		s.g.unreadable(e.id, err)
		return
	}
	e.group = s.g.decodeGroup(e.id, record)
	if e.group != nil {
		s.settle(e)
	}
}

// forget removes a group from memory.
func (s *shard) forget(e *entry) {
	s.uncount(e)
	if e.index >= 0 {
		heap.Remove(&s.due, e.index)
	}
	delete(e.slot.groups, e.id)
}

// schedule makes the heap bring a group when something is due. What is due
// later than it was leaves the heap as it is, so heartbeats cost it nothing.
func (s *shard) schedule(e *entry) {
	if at, ok := e.group.Deadline(); ok && (e.index < 0 || at.Before(e.due)) {
		s.put(e, at)
	}
}

func (s *shard) put(e *entry, at time.Time) {
	e.due = at
	if e.index < 0 {
		heap.Push(&s.due, e)
	} else {
		heap.Fix(&s.due, e.index)
	}
}

// dueEntries is a heap of entries by due.
type dueEntries []*entry

func (d dueEntries) Len() int           { return len(d) }
func (d dueEntries) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d dueEntries) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

// Push implements heap.Interface.
func (d *dueEntries) Push(e any) {
	e.(*entry).index = len(*d)
	*d = append(*d, e.(*entry))
}

// Pop implements heap.Interface.
func (d *dueEntries) Pop() any {
	old := *d
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	e.index = -1
	return e
}
