package metadata

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// BookieState is what the registrations say of a bookie.
type BookieState int8

const (
	// Vanished: not registered. That is no proof of death: a bookie whose lease
	// lapsed while it was stalled goes on serving and never registers again. Its
	// last known address may be tried for reading.
	Vanished BookieState = iota
	// Writable: takes new entries.
	Writable
	// ReadOnly: serves reads, and adds of recoveries if it has room left.
	ReadOnly
)

func (s BookieState) String() string {
	switch s {
	case Vanished:
		return "vanished"
	case Writable:
		return "writable"
	case ReadOnly:
		return "read-only"
	}
	return "unknown"
}

// Bookie is a bookie as of its registration, or as of the last one if it vanished.
type Bookie struct {
	ID    BookieID
	Addr  string // host:port of its bookie-rpc endpoint; empty: not known
	TLS   bool   // it offers START_TLS
	State BookieState
	Since time.Time // when this process first saw it in this state
}

// Registry follows which bookies are registered. While the metadata store does
// not answer it keeps what it knew. All methods may be called from any goroutine.
type Registry struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	now    func() time.Time

	mu struct {
		sync.Mutex
		bookies map[BookieID]Bookie // never changed, only replaced
		changed chan struct{}
	}
}

// Registration is one registered bookie, as a store reads it.
type Registration struct {
	ID       BookieID
	ReadOnly bool
	Info     ServiceInfo
}

// Follow makes a registry for a Store: first is who is registered, and follow
// runs on a goroutine of the registry until its context ends, calling set with
// everybody who is registered whenever that may have changed.
func Follow(first []Registration, follow func(ctx context.Context, set func([]Registration))) *Registry {
	return followAt(time.Now, first, follow)
}

func followAt(now func() time.Time, first []Registration, follow func(ctx context.Context, set func([]Registration))) *Registry {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Registry{cancel: cancel, now: now}
	r.mu.changed = make(chan struct{})
	r.set(first)
	r.done.Add(1)
	go func() {
		defer r.done.Done()
		follow(ctx, r.set)
	}()
	return r
}

// Close ends the following and waits for it. What was known can still be asked.
func (r *Registry) Close() {
	r.cancel()
	r.done.Wait()
}

// All returns everybody who is or was registered since the registry began, by id.
func (r *Registry) All() []Bookie {
	r.mu.Lock()
	known := r.mu.bookies
	r.mu.Unlock()
	return slices.SortedFunc(maps.Values(known), func(a, b Bookie) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
}

// Get returns one bookie. Of one that was never registered here it says that it
// vanished, with the id as its address if it has the form host:port, as ids have
// that no operator chose, and the zero time.
func (r *Registry) Get(id BookieID) Bookie {
	r.mu.Lock()
	b, ok := r.mu.bookies[id]
	r.mu.Unlock()
	if !ok {
		b = Bookie{ID: id, Addr: addressOf(id), State: Vanished}
	}
	return b
}

// Changed returns a channel that is closed when a bookie comes, goes, moves or
// changes its state after this call. Call it before All or Get, or a change
// between the two goes unnoticed.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.changed
}

// set takes over who is registered now.
func (r *Registry) set(registered []Registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[BookieID]Bookie, len(registered))
	for _, reg := range registered {
		b := Bookie{ID: reg.ID, State: Writable}
		b.Addr, b.TLS = reg.Info.rpc(reg.ID)
		if reg.ReadOnly {
			b.State = ReadOnly
		}
		// Both keys exist for a moment while a bookie changes over; it is read-only
		// as soon as one says so.
		if next[reg.ID].State != ReadOnly {
			next[reg.ID] = b
		}
	}
	for id, b := range r.mu.bookies {
		if _, ok := next[id]; !ok {
			b.State = Vanished
			next[id] = b
		}
	}
	changed := r.mu.bookies == nil
	for id, b := range next {
		old, known := r.mu.bookies[id]
		if b.Since = r.now(); known && old.State == b.State {
			b.Since = old.Since
		}
		next[id] = b
		changed = changed || old != b
	}
	if changed {
		r.mu.bookies = next
		close(r.mu.changed)
		r.mu.changed = make(chan struct{})
	}
}

// addressOf is the address that an id says itself.
func addressOf(id BookieID) string {
	if host, port, err := net.SplitHostPort(string(id)); err != nil || host == "" || port == "" {
		return ""
	}
	return string(id)
}
