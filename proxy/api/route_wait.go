package api

import (
	"context"
	"sync"
	"time"
)

// routeWaits keeps what waits for somebody to serve it. Its goroutine wakes all of it
// when routes have changed, and each now and then: a node may be told of a slot
// before it knows itself that it serves it.
//
// What waits is bounded by the requests of all connections.
type routeWaits struct {
	changed func() <-chan struct{}

	mu    sync.Mutex
	first *routeWait
	kick  chan struct{} // the goroutine looks at the list again
}

// routeWait is one place in the list. It may be used again once it was woken.
type routeWait struct {
	wake     func()          // called once per add, on the goroutine of the list or of add; it must not block
	changed  <-chan struct{} // of before the routes were looked at
	deadline time.Time

	attempts   int
	due        time.Time
	listed     bool
	next, prev *routeWait
}

// Between two looks at a route that has not changed.
const (
	firstRouteLook = 5 * time.Millisecond
	lastRouteLook  = 250 * time.Millisecond
)

func (l *routeWaits) init(changed func() <-chan struct{}) {
	l.changed = changed
	l.kick = make(chan struct{}, 1)
}

// add lists w, if it is not listed. Any goroutine.
func (l *routeWaits) add(w *routeWait) {
	l.mu.Lock()
	if !w.listed {
		l.link(w)
	}
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// link puts w into the list. l.mu is held.
func (l *routeWaits) link(w *routeWait) {
	delay := lastRouteLook
	if w.attempts < 6 {
		delay = min(firstRouteLook<<w.attempts, lastRouteLook)
	}
	w.attempts++
	select {
	case <-w.changed:
		// They changed while they were looked at. Not at once all the same: what is
		// refused again and again must not spin.
		delay = min(delay, firstRouteLook)
	default:
	}
	w.due = time.Now().Add(delay)
	if w.deadline.Before(w.due) {
		w.due = w.deadline
	}
	w.listed = true
	w.prev, w.next = nil, l.first
	if w.next != nil {
		w.next.prev = w
	}
	l.first = w
}

// remove takes w off the list; it is not woken after that. False: it is not listed,
// and may be being woken. Any goroutine.
func (l *routeWaits) remove(w *routeWait) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !w.listed {
		return false
	}
	l.unlink(w)
	return true
}

func (l *routeWaits) unlink(w *routeWait) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	w.next, w.prev, w.listed = nil, nil, false
}

// take removes what is due, or all, and returns it with the time at which the next one is.
func (l *routeWaits) take(now time.Time, all bool) (woken []*routeWait, next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := l.first; w != nil; {
		after := w.next
		switch {
		case all || !now.Before(w.due):
			l.unlink(w)
			woken = append(woken, w)
		case next.IsZero() || w.due.Before(next):
			next = w.due
		}
		w = after
	}
	return woken, next
}

// run wakes until ctx ends.
func (l *routeWaits) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	changed := l.changed()
	for {
		woken, next := l.take(time.Now(), false)
		for _, w := range woken {
			w.wake()
		}
		if next.IsZero() {
			timer.Reset(time.Hour)
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-changed:
			changed = l.changed()
			woken, _ := l.take(time.Now(), true)
			for _, w := range woken {
				w.wake()
			}
		case <-timer.C:
		case <-l.kick:
		case <-ctx.Done():
			return
		}
	}
}
