package loop

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quirelog/quire/protocol/buffer"
)

// recordBytes is what one TLS record holds. Small parts are joined up to it,
// or each would become a record of its own.
const recordBytes = 16 << 10

// writeBytesPerTurn is after how many bytes a long Writev reports its progress.
const writeBytesPerTurn = 256 << 10

type netGroup struct {
	cfg   Config
	loops []*netLoop
	all   []*Loop
	done  sync.WaitGroup
}

// Portable returns a group of loops that work on any net.Listener, running.
func Portable(cfg Config) Group {
	cfg.fill()
	if cfg.Loops <= 0 {
		cfg.Loops = runtime.GOMAXPROCS(0)
	}
	g := &netGroup{cfg: cfg}
	for range cfg.Loops {
		l := &netLoop{signaled: make(chan struct{}, 1), socks: make(map[*netSock]struct{})}
		l.init(cfg.Now, l.signal, func(c net.Conn, open func(Sock) Handler) error {
			g.tune(c)
			return l.adopt(c, &cfg, &Accept{Open: open})
		})
		g.loops = append(g.loops, l)
		g.all = append(g.all, &l.Loop)
		g.done.Go(l.run)
	}
	return g
}

func (g *netGroup) Loops() []*Loop { return g.all }

func (g *netGroup) Close() {
	for _, l := range g.loops {
		l.enter()
		l.stopping = true
		for s := range l.socks {
			s.Close(ErrStopped)
		}
		l.leave()
		l.signal()
	}
	g.done.Wait()
}

func (g *netGroup) Serve(ln net.Listener, a Accept) error {
	var retry backoff
	for turn := 0; ; turn++ {
		c, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			retry.wait(err, a.Failed)
			continue
		}
		retry.reset()
		if !a.Admit(c.RemoteAddr()) {
			c.Close()
			continue
		}
		g.tune(c)
		// It fails if the loop is ending, and the listener is about to be closed.
		_ = g.loops[least(g.all, turn)].adopt(c, &g.cfg, &a)
	}
}

// tune sets what every TCP connection gets; see tuneFD. TCP_NODELAY is Go's default.
func (g *netGroup) tune(c net.Conn) {
	if t, ok := underlying(c).(*net.TCPConn); ok {
		// It fails if the peer is gone already, which reading will tell.
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable:   true,
			Idle:     g.cfg.KeepAlive / 2,
			Interval: g.cfg.KeepAlive / 6,
			Count:    3,
		})
	}
}

func underlying(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// netLoop is a lock. Whoever holds it is on the loop: a goroutine that has
// read or written, or the loop's own, which runs tasks and timers when nobody
// else is about.
type netLoop struct {
	Loop
	mu       sync.Mutex
	signaled chan struct{}
	armed    atomic.Int64 // when the loop's goroutine wakes by itself, as ns after base; 0 is never
	socks    map[*netSock]struct{}
	stopping bool
}

func (l *netLoop) signal() {
	select {
	case l.signaled <- struct{}{}:
	default:
	}
}

// enter begins a turn.
func (l *netLoop) enter() {
	l.mu.Lock()
	l.tasks.asleep.Store(false)
	l.now = l.clock()
}

// leave ends a turn, after the timers that are due and the tasks that it left behind.
func (l *netLoop) leave() {
	l.timers.run(l.now)
	// Tasks that post tasks would keep the lock here, so the loop's own
	// goroutine goes on after some rounds.
	for round := 0; ; round++ {
		l.tasks.run()
		if l.tasks.sleep() {
			break
		}
		if round == 16 {
			l.signal()
			break
		}
	}
	next := l.timers.next(l.now)
	if next >= 0 {
		at := int64(l.now.Sub(l.timers.base)+next) + 1
		if armed := l.armed.Load(); armed == 0 || at < armed {
			l.signal()
		}
	}
	l.mu.Unlock()
}

func (l *netLoop) run() {
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		l.enter()
		l.timers.run(l.now)
		l.tasks.run()
		done := l.stopping && len(l.socks) == 0
		if done {
			l.tasks.end()
		}
		next := l.timers.next(l.now)
		if next >= 0 {
			alarm.Reset(next)
			l.armed.Store(int64(l.now.Sub(l.timers.base)+next) + 1)
		} else {
			alarm.Stop()
			l.armed.Store(0)
		}
		l.leave()
		if done {
			return
		}
		select {
		case <-l.signaled:
		case <-alarm.C:
			l.armed.Store(0)
		}
	}
}

// netSock is a net.Conn with a goroutine that reads, and one that writes
// while a Writev is under way.
type netSock struct {
	loop   *netLoop
	c      net.Conn
	h      Handler
	remote net.Addr

	preamble bool // what comes is the Preamble's, not yet TLS's or the handler's

	paused bool
	resume chan struct{}
	closed bool
	shut   bool
	corked bool
	err    error
	gone   Task

	users int // goroutines that touch the handler's memory
	parts net.Buffers
}

// adopt makes c a connection of the loop. Any goroutine that is not on the
// loop. c is closed if the loop is ending, which is ErrStopped.
func (l *netLoop) adopt(c net.Conn, cfg *Config, a *Accept) error {
	s := &netSock{loop: l, c: c, remote: c.RemoteAddr(), preamble: a.Preamble != nil, resume: make(chan struct{}, 1), users: 1}
	s.gone.Run = func() {
		delete(l.socks, s)
		l.conns.Add(-1)
		s.h.Closed(s.err)
		if l.stopping {
			l.signal()
		}
	}
	l.enter()
	defer l.leave()
	if l.stopping {
		c.Close()
		return ErrStopped
	}
	l.conns.Add(1)
	l.socks[s] = struct{}{}
	s.h = a.open(s, cfg, s.opened)
	go s.read(cfg.HandshakeTimeout)
	return nil
}

func (s *netSock) opened(h Handler, remote net.Addr) {
	s.h, s.remote, s.preamble = h, remote, false
}

func (s *netSock) Loop() *Loop          { return &s.loop.Loop }
func (s *netSock) RemoteAddr() net.Addr { return s.remote }
func (s *netSock) HoldsSpace() bool     { return true }

func (s *netSock) read(handshake time.Duration) {
	l := s.loop
	l.enter()
	s.pump(underlying(s.c), func() bool { return s.preamble })
	if !s.closed {
		l.leave()
		err := shake(s.c, handshake)
		l.enter()
		if err != nil {
			s.Close(err)
		} else {
			s.pump(s.c, func() bool { return true })
		}
	}
	s.left()
	l.leave()
}

// pump reads from c until it ends, or while more. On the loop, which it leaves to wait.
func (s *netSock) pump(c net.Conn, more func() bool) {
	l := s.loop
	for !s.closed && more() {
		var p []byte
		if !s.paused {
			p = s.h.Space()
		}
		l.leave()
		if len(p) == 0 {
			<-s.resume
			l.enter()
			continue
		}
		n, err := c.Read(p)
		l.enter()
		if n > 0 && !s.closed {
			s.h.Filled(n)
		}
		if err != nil && !s.closed {
			if err == io.EOF {
				s.h.EOF()
			} else {
				s.Close(err)
			}
		}
		if err != nil {
			break
		}
	}
}

// shake makes the TLS handshake, which Read would make without a deadline.
func shake(c net.Conn, timeout time.Duration) error {
	t, ok := c.(*tls.Conn)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	return nil
}

// left is called on the loop by a goroutine that will touch no memory of the handler any more.
func (s *netSock) left() {
	s.users--
	if s.users == 0 && s.closed {
		s.loop.Post(&s.gone)
	}
}

func (s *netSock) Writev(parts [][]byte, _ bool) (int, error) {
	if s.closed || s.shut {
		return 0, net.ErrClosed
	}
	room := writeBytesPerTurn
	s.parts = s.parts[:0]
	for _, p := range parts {
		if len(p) >= room {
			s.parts = append(s.parts, p[:room])
			break
		}
		s.parts = append(s.parts, p)
		room -= len(p)
	}
	s.users++
	go s.write()
	return 0, nil
}

func (s *netSock) write() {
	n, err := s.writeParts()
	l := s.loop
	l.enter()
	clear(s.parts[:cap(s.parts)])
	switch {
	case s.closed:
	case err != nil:
		s.Close(err)
	default:
		s.h.Written(n)
	}
	s.left()
	l.leave()
}

func (s *netSock) writeParts() (int, error) {
	if _, ok := s.c.(*tls.Conn); !ok {
		// WriteTo eats the slice that it is called on.
		b := s.parts
		n, err := b.WriteTo(s.c)
		return int(n), err
	}
	join := buffer.Get(recordBytes)
	defer join.Release()
	joined, total := join.B[:0], 0
	write := func(p []byte) error {
		n, err := s.c.Write(p)
		total += n
		return err
	}
	for _, p := range s.parts {
		if len(joined) > 0 && len(joined)+len(p) > recordBytes {
			if err := write(joined); err != nil {
				return total, err
			}
			joined = joined[:0]
		}
		if len(p) < recordBytes {
			joined = append(joined, p...)
		} else if err := write(p); err != nil {
			return total, err
		}
	}
	if len(joined) == 0 {
		return total, nil
	}
	return total, write(joined)
}

func (s *netSock) Pause() { s.paused = true }

func (s *netSock) Resume() {
	s.paused = false
	s.kick()
}

// kick makes the reading goroutine ask for space again.
func (s *netSock) kick() {
	select {
	case s.resume <- struct{}{}:
	default:
	}
}

func (s *netSock) Cork() {
	if !s.closed && !s.shut {
		s.corked = true
		cork(underlying(s.c), true)
	}
}

// CloseWrite does not wait: TLS sends an alert first.
func (s *netSock) CloseWrite() {
	if s.closed || s.shut {
		return
	}
	s.shut = true
	if c, ok := s.c.(interface{ CloseWrite() error }); ok {
		corked := s.corked
		s.users++
		go func() {
			// It fails only if the peer is gone, which reading tells.
			_ = c.CloseWrite()
			if corked {
				// TLS's alert is no end of TCP's, which would take along what is kept back.
				cork(underlying(s.c), false)
			}
			s.loop.enter()
			s.left()
			s.loop.leave()
		}()
	}
}

// Close does not wait: TLS sends an alert first, for up to 5 s.
func (s *netSock) Close(err error) {
	if s.closed {
		return
	}
	s.closed = true
	s.err = err
	s.kick()
	s.users++
	go func() {
		s.c.Close()
		s.loop.enter()
		s.left()
		s.loop.leave()
	}()
}

func (s *netSock) Silent() (waits bool, d time.Duration) {
	if s.closed {
		return false, 0
	}
	return silent(underlying(s.c))
}

func (s *netSock) HungUp() bool { return s.closed || hungUp(underlying(s.c)) }
