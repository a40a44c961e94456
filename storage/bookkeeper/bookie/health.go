package bookie

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	minBackoff = 20 * time.Millisecond
	maxBackoff = time.Second
)

// health is what all connections to a bookie know together: since when it is not
// heard from, and when to try it again.
type health struct {
	failed atomic.Bool // an outage is under way; changed under mu

	mu      sync.Mutex
	since   time.Duration // of the outage; meaningful if failed
	err     error         // of the last dial
	backoff time.Duration
	next    time.Duration // no dial before
}

// lost begins an outage, unless one is under way.
func (h *health) lost(now time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.failed.Load() {
		h.since = now
		h.failed.Store(true)
	}
}

// dialFailed says when to dial again: after twice as long as the last time, give
// or take a quarter, so that many clients do not come at once.
func (h *health) dialFailed(now time.Duration, err error) {
	h.lost(now)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	h.postpone(now)
}

// mute says that a connection broke before any answer came over it.
func (h *health) mute(now time.Duration) {
	h.lost(now)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.postpone(now)
}

// postpone is called with the lock held. Of dials that fail at about the same
// time, as those of all connections do, one counts.
func (h *health) postpone(now time.Duration) {
	if now < h.next {
		return
	}
	h.backoff = min(max(2*h.backoff, minBackoff), maxBackoff)
	h.next = now + h.backoff*3/4 + rand.N(h.backoff/2)
}

// heard ends an outage.
func (h *health) heard() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed.Store(false)
	h.err, h.backoff, h.next = nil, 0, 0
}

// wait returns for how long not to dial, the last dial's error, and whether the
// outage is so young that requests wait for its end.
func (h *health) wait(now, grace time.Duration) (d time.Duration, err error, patient bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.next - now, h.err, !h.failed.Load() || now-h.since < grace
}
