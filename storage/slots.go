package storage

import "sync"

// slotIndex holds the open logs by slot, so that whoever gives a slot away looks at
// no log of another. Its lock comes after those of shards.
type slotIndex struct {
	mu    sync.Mutex
	first map[int]*Log // of a list by Log.nextOfSlot; no entry for a slot without open logs
}

func (x *slotIndex) add(l *Log) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.first == nil {
		x.first = make(map[int]*Log)
	}
	next := x.first[l.slot]
	if l.nextOfSlot = next; next != nil {
		next.prevOfSlot = l
	}
	x.first[l.slot] = l
}

// remove takes out a log that is in.
func (x *slotIndex) remove(l *Log) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case l.prevOfSlot != nil:
		l.prevOfSlot.nextOfSlot = l.nextOfSlot
	case l.nextOfSlot != nil:
		x.first[l.slot] = l.nextOfSlot
	default:
		delete(x.first, l.slot)
	}
	if l.nextOfSlot != nil {
		l.nextOfSlot.prevOfSlot = l.prevOfSlot
	}
	l.prevOfSlot, l.nextOfSlot = nil, nil
}

// logs returns the open logs of a slot.
func (x *slotIndex) logs(slot int) []*Log {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []*Log
	for l := x.first[slot]; l != nil; l = l.nextOfSlot {
		all = append(all, l)
	}
	return all
}

// slot returns the slot of a log.
func (s *Store) slot(id LogID) int {
	if s.c.Slot == nil {
		return 0
	}
	return s.c.Slot(id)
}
