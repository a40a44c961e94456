package bookietest

import (
	"slices"

	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// Fault is what happens to requests that match.
type Fault struct {
	// Match says which requests; nil: all. It must not call the bookie.
	Match func(wire.Request) bool
	// Times is for how many requests, one after the other; 0: all, until removed.
	Times int

	// One of these:

	// Until delays the request until the channel is closed; others pass it.
	Until <-chan struct{}
	// DropRequest: nothing is done, nothing answered.
	DropRequest bool
	// DropReply: it is done and synced, not answered.
	DropReply bool
	// Code is answered, nothing is done.
	Code wire.Code
	// Disconnect: the connection is reset, nothing is done.
	Disconnect bool
}

// Inject adds a fault. The first that matches a request counts. The result removes it.
func (b *Bookie) Inject(f Fault) (remove func()) {
	fault := &f
	b.set(func() { b.faults = append(b.faults, fault) })
	return func() {
		b.set(func() {
			b.faults = slices.DeleteFunc(b.faults, func(g *Fault) bool { return g == fault })
		})
	}
}

// note remembers r and returns its fault; nil if it has none.
func (b *Bookie) note(r wire.Request) *Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.requests) >= maxRemembered {
		b.requests = slices.Delete(b.requests, 0, maxRemembered/2)
	}
	b.requests = append(b.requests, r)
	b.moved.Broadcast()
	for i, f := range b.faults {
		if f.Match != nil && !f.Match(r) {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				b.faults = slices.Delete(b.faults, i, i+1)
			}
		}
		return f
	}
	return nil
}
