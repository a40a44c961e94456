package storage

// Waiter is woken when a log moves. Embed or allocate one per fetch and log.
type Waiter struct {
	// Wake is called at most once per Log.Wait, from any goroutine, with the
	// log's lock held: it must not block nor call into the log.
	Wake func()

	next, prev *Waiter
	log        *Log // nil: not registered; under the lock of the log it was registered with
}

type waiterList struct {
	first, last *Waiter
}

// Wait registers w to be woken when the log's high watermark or last stable
// offset passes what they are now, its start moves, or it closes; of a closed log
// at once. Register, then look: the other order sleeps on data that is there already.
func (l *Log) Wait(w *Waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed != nil {
		w.Wake()
		return
	}
	w.log, w.next, w.prev = l, nil, l.waiters.last
	if w.prev != nil {
		w.prev.next = w
	} else {
		l.waiters.first = w
	}
	l.waiters.last = w
}

// Unwait takes w back, which was given to Wait of this log; after it returns Wake is
// not called any more.
func (l *Log) Unwait(w *Waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.log != l {
		return
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.waiters.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.waiters.last = w.prev
	}
	w.log, w.next, w.prev = nil, nil, nil
}

// wake wakes all waiters. l.mu is held.
func (l *Log) wake() {
	w := l.waiters.first
	l.waiters = waiterList{}
	for w != nil {
		next := w.next
		w.log, w.next, w.prev = nil, nil, nil
		w.Wake()
		w = next
	}
}
