package bookie

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// clockTick is how much later than its deadline a request may time out.
const clockTick = 5 * time.Millisecond

// never is later than any deadline.
const never = time.Duration(math.MaxInt64)

// clock ends requests whose time is up, and makes the calls that cannot be made
// where their reason is found. Requests have no timers of their own: the
// clock sleeps until the earliest deadline, or end of patience with a bookie that is
// silent, that anybody knew when it last looked. As most lie equally far ahead, it
// wakes about once in the shortest of them.
type clock struct {
	armed atomic.Int64 // when it wakes, a time.Duration
	wake  chan struct{}

	mu   sync.Mutex
	late []outcome // to be reported by the clock's goroutine
}

func (k *clock) init() {
	k.armed.Store(int64(never))
	k.wake = make(chan struct{}, 1)
}

// arm makes the clock look at deadline at the latest.
func (k *clock) arm(deadline time.Duration) {
	if int64(deadline) < k.armed.Load() {
		k.poke()
	}
}

func (k *clock) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// report has the clock's goroutine call a handler.
func (k *clock) report(o outcome) {
	k.mu.Lock()
	k.late = append(k.late, o)
	k.mu.Unlock()
	k.poke()
}

func (k *clock) takeLate() []outcome {
	k.mu.Lock()
	defer k.mu.Unlock()
	late := k.late
	k.late = nil
	return late
}

func (c *Client) keepTime() {
	timer := time.NewTimer(never)
	defer timer.Stop()
	var outcomes []outcome
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.clock.wake:
		case <-timer.C:
		}
		c.report(c.clock.takeLate(), nil)
		if high, changed := c.budget.pressure(); changed && c.cfg.Pressure != nil {
			c.cfg.Pressure(c.id, high)
		}
		// Until the scan has armed the clock anew, every new deadline pokes it;
		// so none that a channel takes after it was scanned is overlooked.
		c.clock.armed.Store(int64(never))
		now := c.now()
		next := never
		stalled := false
		for _, ch := range c.channels {
			var earliest time.Duration
			var stalls bool
			earliest, stalls, outcomes = ch.expire(now, outcomes[:0])
			c.report(outcomes, nil)
			next = min(next, earliest)
			stalled = stalled || stalls
		}
		if stalled {
			c.cfg.Stalled(c.id)
		}
		if next == never {
			timer.Stop()
			continue
		}
		c.clock.armed.Store(int64(next))
		timer.Reset(max(next-now, 0) + clockTick)
	}
}
