package coordinator

import "sync"

// inbox is what a shard of groups has to do, in order. Requests are refused
// once max events wait; what the coordinator tells itself is always taken: each
// such event answers one that was let in, or is one of a slot.
type inbox struct {
	max  int
	wake chan struct{} // holds one element while there are events, or after close

	mu     sync.Mutex
	events []func()
	closed bool
}

func newInbox(max int) *inbox {
	return &inbox{max: max, wake: make(chan struct{}, 1)}
}

// offer adds a request's event. False: the inbox is full or closed. Any goroutine.
func (b *inbox) offer(event func()) bool { return b.add(event, b.max) }

// put adds an event of the coordinator's own. False: the inbox is closed. Any goroutine.
func (b *inbox) put(event func()) bool { return b.add(event, -1) }

func (b *inbox) add(event func(), max int) bool {
	b.mu.Lock()
	if b.closed || max >= 0 && len(b.events) >= max {
		b.mu.Unlock()
		return false
	}
	b.events = append(b.events, event)
	b.mu.Unlock()
	b.ring()
	return true
}

// idle says whether nothing is to be taken and the inbox is open. Any goroutine.
func (b *inbox) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.events) == 0 && !b.closed
}

func (b *inbox) ring() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take returns all events and leaves spare to collect the next ones in.
func (b *inbox) take(spare []func()) (events []func(), closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	events, b.events = b.events, spare[:0]
	return events, b.closed
}

// close makes the inbox take nothing more; what it holds is still to be taken.
func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.ring()
}
