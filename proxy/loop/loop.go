// Package loop moves bytes between sockets and handlers on a few event loops.
//
// A connection lives on one loop, from its first call to its last. Everything
// that is said to be "on the loop" happens one after the other for all
// connections of that loop, so handlers need no locks, must not block, and
// should return well below a millisecond.
//
// There are two kinds of loop, and handlers cannot tell them apart:
//
//	Epoll     one goroutine per loop on a level-triggered epoll instance (Linux)
//	Portable  a net.Conn per connection with a goroutine that reads; the loop is
//	          a lock that goroutines take in turn. It serves TLS and other systems
//
// The contract is one of completion, not readiness: a handler says where the
// next bytes go (Space) and is told how many came (Filled); it hands bytes out
// (Writev) and is told how many left (Written). An epoll loop reads and writes
// on the spot; a net.Conn does it meanwhile on another goroutine. Memory given
// to a Sock is in use until Filled, Written or Closed says otherwise.
package loop

import (
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// Errors that Closed may report, beside those of the system.
var (
	ErrUnsupported = errors.New("epoll loops need Linux")
	ErrStopped     = errors.New("event loop stopped")
	ErrPeerGone    = errors.New("peer closed both directions")
	ErrHandshake   = errors.New("TLS handshake failed")
)

// Handler is the code behind one connection. All of its methods are called on
// the connection's loop.
type Handler interface {
	// Space returns where the next bytes are to be put, or nothing if none
	// are wanted now; then Sock.Resume asks for another call. If
	// Sock.HoldsSpace, the memory is kept while the peer is silent.
	Space() []byte

	// Filled reports that n > 0 bytes were put into what Space returned.
	// With HoldsSpace it may come after Pause, once.
	Filled(n int)

	// EOF reports that the peer will send nothing more. It may still read.
	// Space is not called again.
	EOF()

	// Written reports that n >= 0 more bytes of the last Writev have left, and
	// that Writev may be called again.
	Written(n int)

	// Closed is the last call, once per Sock, after Close or a failure. The
	// Sock no longer touches any memory of the handler.
	Closed(err error)
}

// Sock is one connection. Its methods are called on its loop.
type Sock interface {
	Loop() *Loop
	RemoteAddr() net.Addr

	// HoldsSpace says whether what Space returns is in use while the peer is
	// silent, so that it cannot be shared between connections.
	HoldsSpace() bool

	// Writev sends parts in order. It returns how many bytes left at once. If
	// that is less than all, Written is called later, and until then the
	// parts stay as they are and Writev is not called. parts itself may be
	// reused at once. awaited says that somebody waits for them; what nobody waits
	// for costs an epoll loop that has nothing else to do less processor time.
	Writev(parts [][]byte, awaited bool) (n int, err error)

	// Pause stops calls of Space, and so the peer, until Resume.
	Pause()
	Resume()

	// Cork keeps back what is written from now on, some tenths of a second at most, so
	// that its last bytes leave together with the end that CloseWrite tells of. Where
	// the system or the network has no such thing it does nothing.
	Cork()

	// CloseWrite tells the peer that nothing more will come. No Writev may be
	// called afterwards, and none may be under way.
	CloseWrite()

	// Close ends the connection; bytes not yet handed to the system are lost.
	// Closed(err) follows, not from within Close.
	Close(err error)

	// Silent says whether the peer's system has yet to acknowledge some of
	// what was sent, and for how long it has not been heard of although it was
	// asked again. Without TCP_INFO it knows of nothing.
	Silent() (waits bool, d time.Duration)

	// HungUp says whether the peer has ended its side, also while there are bytes
	// before that end which were not read yet. Where the system does not tell
	// (Linux does) it is false until EOF.
	HungUp() bool
}

// Config is what loops need to know. The zero value works.
type Config struct {
	// Loops is how many loops there are; 0 means GOMAXPROCS.
	Loops int

	// Now is the clock; nil means time.Now. Tests replace it, and post a Task
	// to have loops look at it.
	Now func() time.Time

	// KeepAlive is after how long without an answer a peer is taken for
	// gone; 0 means 60 s. TCP only.
	KeepAlive time.Duration

	// HandshakeTimeout bounds a TLS handshake; 0 means 30 s.
	HandshakeTimeout time.Duration

	// PreambleTimeout bounds how long a Preamble takes; 0 means 5 s.
	PreambleTimeout time.Duration
}

func (c *Config) fill() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.KeepAlive <= 0 {
		c.KeepAlive = 60 * time.Second
	}
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = 30 * time.Second
	}
	if c.PreambleTimeout <= 0 {
		c.PreambleTimeout = 5 * time.Second
	}
}

// Accept says what becomes of the connections of a listener.
type Accept struct {
	// Admit says whether a connection may live. It is called on the
	// listener's accepting goroutine; on false the connection is closed.
	Admit func(remote net.Addr) bool

	// Open makes the handler of an admitted connection, on its loop.
	Open func(Sock) Handler

	// Preamble, if it is not nil, makes what reads the beginning of an admitted
	// connection, on its loop; its Open is called in the place of Open.
	Preamble func(remote net.Addr) Preamble

	// Failed is told of failures to accept, and how long accepting waits
	// before it tries again. May be nil.
	Failed func(err error, retryIn time.Duration)
}

// Group is a set of loops that share the connections of their listeners.
type Group interface {
	// Serve accepts connections from ln and gives each to the loop that has
	// the fewest, until ln is closed; it returns why it ended. A lack of file
	// descriptors does not end it. Epoll loops need a *Listener.
	Serve(ln net.Listener, a Accept) error

	// Loops returns the loops. It does not change.
	Loops() []*Loop

	// Close closes all connections with ErrStopped, ends the loops and waits
	// for them. Listeners must have been closed and Serve returned.
	Close()
}

// Loop runs tasks, timers and the handlers of its connections one at a time.
type Loop struct {
	// Local is the user's state of this loop. Set it before Serve; use it on
	// the loop.
	Local any

	tasks  mailbox
	timers timers
	wake   func()                                          // ends the loop's sleep; any goroutine
	take   func(c net.Conn, open func(Sock) Handler) error // Adopt
	clock  func() time.Time
	now    time.Time // of this turn; loop only
	conns  atomic.Int64
}

func (l *Loop) init(clock func() time.Time, wake func(), take func(net.Conn, func(Sock) Handler) error) {
	l.clock, l.wake, l.take = clock, wake, take
	l.now = clock()
	l.timers.base = l.now
	l.tasks.asleep.Store(true)
}

// Now returns the time at which this turn of the loop began. Loop only.
func (l *Loop) Now() time.Time { return l.now }

// Conns returns how many connections live on the loop. Any goroutine.
func (l *Loop) Conns() int { return int(l.conns.Load()) }

// Post has t run on the loop, in the order of posting. If t waits already it
// still runs once; if it is running it runs again. Any goroutine; it returns
// false, and t will not run, if the loop has ended.
//
// The sleeper is woken by the first Post only. A loop that is awake looks at
// its tasks before it sleeps, so a burst of Posts costs one wake-up, and a
// Post on the loop itself costs none.
func (l *Loop) Post(t *Task) bool {
	ok, wake := l.tasks.push(t)
	if wake {
		l.wake()
	}
	return ok
}

// Adopt makes c, of which nobody reads or writes any more, a connection of the
// loop; open makes its handler, on the loop. Any goroutine but the loop's own turn
// of a Portable loop. After an error c is closed and open is not called:
// ErrStopped if the loop has ended, ErrUnsupported if c is not made for it, as a
// TLS connection is not for an epoll loop.
func (l *Loop) Adopt(c net.Conn, open func(Sock) Handler) error { return l.take(c, open) }

// After calls f on the loop after d, some milliseconds late at most if the
// loop is not busy. Loop only.
func (l *Loop) After(d time.Duration, f func()) Timer {
	return l.timers.add(l.now, d, f)
}

// least returns the index of the loop with the fewest connections, the first
// of equals counted from first on.
func least(loops []*Loop, first int) int {
	best := first % len(loops)
	for i := range loops {
		if j := (first + i) % len(loops); loops[j].Conns() < loops[best].Conns() {
			best = j
		}
	}
	return best
}
