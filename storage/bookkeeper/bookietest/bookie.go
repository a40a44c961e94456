package bookietest

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"

	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// Config makes a bookie. A zero field takes the default.
type Config struct {
	TLS           *tls.Config // nil: START_TLS is answered with EBADREQ
	MaxFrameBytes int         // default 5 MiB
	MaxBatchBytes int64       // maxBatchReadSize; default 5 MiB
	NoBatchRead   bool        // a bookie before 4.17.0: a batch read resets the connection
	// Discard acknowledges adds and keeps nothing, for benchmarks of clients.
	Discard bool
}

// maxRemembered bounds what Requests looks at.
const maxRemembered = 1 << 16

// Bookie is a bookie. Its methods may be called from any goroutine.
type Bookie struct {
	cfg     Config
	address string

	lifecycle sync.Mutex // held by what starts and ends processes
	port      *port      // under lifecycle

	mu     sync.Mutex
	moved  *sync.Cond // something of the below changed
	closed bool
	proc   *process // nil: it is down

	memory  store // what the bookie answers from
	durable store // what it has after a crash

	paused   bool
	readOnly bool
	limbo    bool
	syncHeld bool
	poolHeld [2]bool
	faults   []*Fault
	requests []wire.Request // the last ones
}

// Listen starts a bookie without data.
func Listen(cfg Config) (*Bookie, error) {
	if cfg.MaxFrameBytes == 0 {
		cfg.MaxFrameBytes = wire.DefaultMaxFrameBytes
	}
	if cfg.MaxBatchBytes == 0 {
		cfg.MaxBatchBytes = wire.DefaultMaxFrameBytes
	}
	b := &Bookie{cfg: cfg, memory: store{}, durable: store{}}
	b.moved = sync.NewCond(&b.mu)
	var err error
	if b.port, err = reserve(); err != nil {
		return nil, err
	}
	ln, err := b.port.listen()
	if err != nil {
		b.port.release()
		return nil, err
	}
	b.address = ln.Addr().String()
	b.begin(ln, true)
	return b, nil
}

// Address returns host:port, which stays the same over restarts. It is a valid
// bookie id.
func (b *Bookie) Address() string { return b.address }

// begin starts a process on ln.
func (b *Bookie) begin(ln net.Listener, serves bool) {
	p := newProcess(b, ln)
	b.mu.Lock()
	b.proc = p
	b.mu.Unlock()
	p.start(serves)
}

// down ends the process, if there is one, and waits for its goroutines. Nothing of
// it touches the stores after the first moment.
func (b *Bookie) down(then func()) {
	b.mu.Lock()
	p := b.proc
	b.proc = nil
	if p != nil {
		p.dead = true
	}
	if then != nil {
		then()
	}
	b.moved.Broadcast()
	b.mu.Unlock()
	if p != nil {
		p.end()
	}
}

// Close ends the bookie for good and waits for its goroutines.
func (b *Bookie) Close() {
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	b.down(func() { b.closed = true })
	b.port.release()
}

// Crash ends the process, as kill -9 with a power cut would: connections are reset,
// what was not synced is gone, entries and fences alike. A pause ends.
func (b *Bookie) Crash() {
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	b.down(func() {
		b.memory = b.durable.clone()
		b.paused = false
	})
}

// Stop closes the connections and the port and keeps all data.
func (b *Bookie) Stop() {
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	b.down(func() {
		b.durable = b.memory.clone()
		b.paused = false
	})
}

// Restart brings a bookie that crashed or stopped back at its address. It ends a
// process that is still there as Stop does.
func (b *Bookie) Restart() error { return b.restart(true) }

// BindOnly brings it back as far as a real bookie is for its first second: it
// accepts connections and resets them. Restart ends it.
func (b *Bookie) BindOnly() error { return b.restart(false) }

func (b *Bookie) restart(serves bool) error {
	b.lifecycle.Lock()
	defer b.lifecycle.Unlock()
	b.down(func() { b.durable = b.memory.clone() })
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	if closed {
		return errors.New("bookie was closed")
	}
	ln, err := b.port.listen()
	if err != nil {
		return err
	}
	b.begin(ln, serves)
	return nil
}

// set changes the bookie's state and tells its goroutines.
func (b *Bookie) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	b.moved.Broadcast()
}

// Pause stops the bookie as SIGSTOP does: connections stay, nothing is answered.
func (b *Bookie) Pause() { b.set(func() { b.paused = true }) }

// Resume ends Pause; what arrived meanwhile is done.
func (b *Bookie) Resume() { b.set(func() { b.paused = false }) }

// SetReadOnly makes the bookie answer adds with EREADONLY but for those of high priority.
func (b *Bookie) SetReadOnly(on bool) { b.set(func() { b.readOnly = on }) }

// SetLimbo makes the bookie answer with EUNKNOWNLEDGERSTATE where it would say
// that it has no such entry or ledger (BP-46).
func (b *Bookie) SetLimbo(on bool) { b.set(func() { b.limbo = on }) }

// HoldSync keeps the journal from syncing: adds and fences take effect in memory
// and are not answered. ReleaseSync ends it.
func (b *Bookie) HoldSync() { b.set(func() { b.syncHeld = true }) }

// ReleaseSync syncs what was held, answers it and goes on.
func (b *Bookie) ReleaseSync() { b.set(func() { b.syncHeld = false }) }

// Pool is one of the bookie's thread pools.
type Pool int

// The pools: requests of high priority and fencing reads have their own, so they
// overtake others of the same connection.
const (
	Normal Pool = iota
	High
)

// HoldPool keeps the requests of a pool waiting until ReleasePool.
func (b *Bookie) HoldPool(p Pool) { b.set(func() { b.poolHeld[p] = true }) }

// ReleasePool does what was held, in order.
func (b *Bookie) ReleasePool(p Pool) { b.set(func() { b.poolHeld[p] = false }) }

// Corrupt flips a bit of a stored entry's last byte; false if there is none.
func (b *Bookie) Corrupt(ledger, entry int64) bool {
	return b.change(ledger, entry, func(stored []byte) []byte {
		stored = slices.Clone(stored)
		stored[len(stored)-1] ^= 1
		return stored
	})
}

// Lose forgets one stored entry; false if there is none.
func (b *Bookie) Lose(ledger, entry int64) bool {
	return b.change(ledger, entry, func([]byte) []byte { return nil })
}

func (b *Bookie) change(ledger, entry int64, f func([]byte) []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	found := false
	for _, s := range []store{b.memory, b.durable} {
		l := s[ledger]
		if l == nil || l.entries[entry] == nil {
			continue
		}
		found = true
		if stored := f(l.entries[entry]); stored != nil {
			l.entries[entry] = stored
		} else {
			delete(l.entries, entry)
		}
	}
	return found
}

// CollectGarbage deletes the ledgers that keep says no to, as a bookie does with
// those that the metadata store does not list.
func (b *Bookie) CollectGarbage(keep func(ledger int64) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range []store{b.memory, b.durable} {
		for id := range s {
			if !keep(id) {
				delete(s, id)
			}
		}
	}
}

// Wipe forgets everything, as a bookie does that comes back with empty disks.
func (b *Bookie) Wipe() { b.CollectGarbage(func(int64) bool { return false }) }

// Ledgers returns the ids of the ledgers that the bookie knows, in order.
func (b *Bookie) Ledgers() []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.memory.ids()
}

// Entries returns the ids of the entries of a ledger, in order.
func (b *Bookie) Entries(ledger int64) []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.memory[ledger]; l != nil {
		return l.ids()
	}
	return nil
}

// Stored returns an entry as it is stored; nil if there is none. It is read-only.
func (b *Bookie) Stored(ledger, entry int64) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.memory[ledger]; l != nil {
		return l.entries[entry]
	}
	return nil
}

// Fenced says whether the ledger is fenced.
func (b *Bookie) Fenced(ledger int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.memory[ledger]
	return l != nil && l.fenced
}

// Requests returns how many requests that match were decoded so far; nil: all.
// Only the last 65536 requests are remembered. match must not call the bookie.
func (b *Bookie) Requests(match func(wire.Request) bool) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, r := range b.requests {
		if match == nil || match(r) {
			n++
		}
	}
	return n
}

// AwaitRequests returns when n requests that match were decoded, or the bookie was
// closed, which makes it false. match must not call the bookie.
func (b *Bookie) AwaitRequests(n int, match func(wire.Request) bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed {
		have := 0
		for _, r := range b.requests {
			if match == nil || match(r) {
				have++
			}
		}
		if have >= n {
			return true
		}
		b.moved.Wait()
	}
	return false
}
