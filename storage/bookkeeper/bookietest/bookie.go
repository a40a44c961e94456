package bookietest

import (
	"crypto/tls"

	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// Config makes a bookie. A zero field takes the default.
type Config struct {
	Address       string      // where to listen; default a free port of 127.0.0.1
	TLS           *tls.Config // nil: START_TLS is answered with EBADREQ
	MaxFrameBytes int         // default 5 MiB
	MaxBatchBytes int64       // maxBatchReadSize; default 5 MiB
	NoBatchRead   bool        // a bookie before 4.17.0
}

// Bookie is a bookie. Its methods may be called from any goroutine.
type Bookie struct{}

// Listen starts a bookie without data.
func Listen(cfg Config) (*Bookie, error) { return nil, nil }

// Address returns host:port, which stays the same over restarts. It is a valid bookie id.
func (b *Bookie) Address() string { return "" }

// Close ends the bookie for good and waits for its goroutines.
func (b *Bookie) Close() {}

// Crash ends the process, as kill -9 with a power cut would: connections are reset,
// what was not synced is gone, entries and fences alike.
func (b *Bookie) Crash() {}

// Stop closes the connections and the port and keeps all data.
func (b *Bookie) Stop() {}

// Restart brings a bookie that crashed or stopped back at its address.
func (b *Bookie) Restart() error { return nil }

// BindOnly brings it back as far as a real bookie is for its first second: it
// accepts connections and resets them. Restart ends it.
func (b *Bookie) BindOnly() error { return nil }

// Pause stops the bookie as SIGSTOP does: connections stay, nothing is answered.
func (b *Bookie) Pause() {}

// Resume ends Pause; what arrived meanwhile is done.
func (b *Bookie) Resume() {}

// SetReadOnly makes the bookie answer adds with EREADONLY but for those of high priority.
func (b *Bookie) SetReadOnly(on bool) {}

// SetLimbo makes the bookie answer with EUNKNOWNLEDGERSTATE where it would say
// that it has no such entry or ledger (BP-46).
func (b *Bookie) SetLimbo(on bool) {}

// HoldSync keeps the journal from syncing: adds and fences take effect in memory
// and are not answered. ReleaseSync ends it.
func (b *Bookie) HoldSync() {}

// ReleaseSync syncs what was held, answers it and goes on.
func (b *Bookie) ReleaseSync() {}

// Pool is one of the bookie's thread pools.
type Pool int

// The pools: requests of high priority and fencing reads have their own, so they
// overtake others of the same connection.
const (
	Normal Pool = iota
	High
)

// HoldPool keeps the requests of a pool waiting until ReleasePool.
func (b *Bookie) HoldPool(p Pool) {}

// ReleasePool does what was held, in order.
func (b *Bookie) ReleasePool(p Pool) {}

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
func (b *Bookie) Inject(f Fault) (remove func()) { return nil }

// Corrupt flips a bit of a stored entry's payload; false if there is none.
func (b *Bookie) Corrupt(ledger, entry int64) bool { return false }

// Lose forgets one stored entry.
func (b *Bookie) Lose(ledger, entry int64) bool { return false }

// CollectGarbage deletes the ledgers that keep says no to, as a bookie does with
// those that the metadata store does not list.
func (b *Bookie) CollectGarbage(keep func(ledger int64) bool) {}

// Wipe forgets everything, cookie and all.
func (b *Bookie) Wipe() {}

// Ledgers returns the ids of the ledgers that the bookie knows, in order.
func (b *Bookie) Ledgers() []int64 { return nil }

// Entries returns the ids of the entries of a ledger, in order.
func (b *Bookie) Entries(ledger int64) []int64 { return nil }

// Stored returns an entry as it is stored; nil if there is none.
func (b *Bookie) Stored(ledger, entry int64) []byte { return nil }

// Fenced says whether the ledger is fenced.
func (b *Bookie) Fenced(ledger int64) bool { return false }

// Requests returns how many requests that match were decoded so far; nil: all.
// Only the last 65536 requests are remembered.
func (b *Bookie) Requests(match func(wire.Request) bool) int { return 0 }
