package proxy

import (
	"slices"
	"sync"
	"sync/atomic"
)

// budget bounds the bytes of requests that all connections hold together.
//
// A connection that finds it exhausted waits. If all of it were held by frames
// that cannot grow, nothing would ever come back; so one connection at a time,
// over, may exceed the budget until its requests are answered. As long as
// somebody waits there is such a connection, and it passes the right on.
type budget struct {
	max  int64
	used atomic.Int64

	over atomic.Pointer[Conn] // changed with mu held

	mu      sync.Mutex
	waiters []*Conn
	waiting atomic.Int64 // len(waiters), to be looked at without mu
}

// take reserves n bytes for c; begins says whether for a new frame. If it
// cannot, c waits: some time later c.admitted is set and c's task runs, and c
// tries again. Loop of c only.
func (b *budget) take(c *Conn, n int, begins bool) bool {
	if b.used.Load() < b.max {
		b.used.Add(int64(n))
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over.Load() == nil {
		b.over.Store(c)
	}
	if b.over.Load() == c && (!begins || c.held == 0) {
		b.used.Add(int64(n))
		return true
	}
	c.admitted.Store(false)
	b.waiters = append(b.waiters, c)
	b.waiting.Store(int64(len(b.waiters)))
	return false
}

// give returns n bytes of c; empty says that c holds none now. Loop of c only.
func (b *budget) give(c *Conn, n int, empty bool) {
	used := b.used.Add(-int64(n))
	passOn := empty && b.over.Load() == c
	if !passOn && (used > b.max/2 || b.waiting.Load() == 0) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if passOn {
		b.over.Store(nil)
	}
	if used <= b.max/2 {
		for _, w := range b.waiters {
			admit(w)
		}
		clear(b.waiters)
		b.waiters = b.waiters[:0]
	} else if passOn && len(b.waiters) > 0 {
		b.over.Store(b.waiters[0])
		admit(b.waiters[0])
		b.waiters = slices.Delete(b.waiters, 0, 1)
	}
	b.waiting.Store(int64(len(b.waiters)))
}

func admit(c *Conn) {
	c.admitted.Store(true)
	c.loop.Post(&c.task)
}

// forget takes c, which closes, out of the waiters. Loop of c only.
func (b *budget) forget(c *Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiters, c); i >= 0 {
		b.waiters = slices.Delete(b.waiters, i, i+1)
		b.waiting.Store(int64(len(b.waiters)))
	}
}
