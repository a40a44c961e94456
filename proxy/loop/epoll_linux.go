package loop

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// eventsPerWait bounds how many sockets are served before tasks and timers are.
	eventsPerWait = 256

	// readBytesPerTurn bounds what one socket may read before the others of
	// its loop are looked at. Epoll is level-triggered: what is left shows up again.
	readBytesPerTurn = 512 << 10

	// partsPerWritev is below IOV_MAX, which is 1024 on Linux.
	partsPerWritev = 512

	// smallWriteBytes is what is sent as one part, since that costs the system less
	// than copying does.
	smallWriteBytes = 512
)

type epollGroup struct {
	cfg   Config
	loops []*epollLoop
	all   []*Loop
	done  sync.WaitGroup
}

// Epoll returns a group of epoll loops, running.
func Epoll(cfg Config) (Group, error) {
	cfg.fill()
	if cfg.Loops <= 0 {
		cfg.Loops = runtime.GOMAXPROCS(0)
	}
	g := &epollGroup{cfg: cfg}
	for range cfg.Loops {
		l, err := newEpollLoop(cfg)
		if err != nil {
			g.Close()
			return nil, err
		}
		g.loops = append(g.loops, l)
		g.all = append(g.all, &l.Loop)
		g.done.Go(l.run)
	}
	return g, nil
}

func (g *epollGroup) Loops() []*Loop { return g.all }

func (g *epollGroup) Close() {
	for _, l := range g.loops {
		l.Post(&Task{Run: l.stop})
	}
	g.done.Wait()
}

// epollLoop is one goroutine on one epoll instance.
//
// It does not block in epoll_wait. It parks in the runtime's network poller,
// to which an epoll descriptor is one more pollable file. A thread that blocks
// in a system call keeps its processor until the runtime takes it away, up
// to 10 ms later, and meanwhile a journal that is back from its fsync finds none
// to go on with; a parked goroutine keeps nothing. Measured with a journal on
// two busy processors it took some 10 % less CPU. Another goroutine wakes the loop by
// moving the file's read deadline into the past, without a system call.
type epollLoop struct {
	Loop
	epfd   int
	file   *os.File // epfd, in the runtime's poller
	raw    syscall.RawConn
	poll   func(uintptr) bool // EpollWait, bound once
	n      int                // events that poll found
	armed  time.Duration      // what the file's deadline is set to, as of timers.base; or unarmed, or unknown
	events [eventsPerWait]unix.EpollEvent
	iov    [partsPerWritev]unix.Iovec
	small  [smallWriteBytes]byte
	socks  []*epollSock // by file descriptor
	calls  calls
	ended  bool
}

const (
	unarmed time.Duration = -1
	unknown time.Duration = -2
)

// past is a deadline that is over.
var past = time.Unix(1, 0)

func newEpollLoop(cfg Config) (*epollLoop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	// Only of a non-blocking descriptor NewFile thinks that it can be polled.
	if err := unix.SetNonblock(epfd, true); err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l := &epollLoop{epfd: epfd, file: os.NewFile(uintptr(epfd), "epoll"), armed: unarmed}
	l.raw, err = l.file.SyscallConn()
	if err == nil {
		err = l.file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		l.file.Close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l.poll = func(uintptr) bool {
		l.look()
		return l.n > 0
	}
	l.init(cfg.Now, l.signal, func(c net.Conn, open func(Sock) Handler) error {
		return l.adoptConn(c, &cfg, &Accept{Open: open})
	})
	return l, nil
}

// signal ends the wait. The mailbox calls it once per sleep.
func (l *epollLoop) signal() {
	// It fails only if the loop has ended.
	_ = l.file.SetReadDeadline(past)
}

func (l *epollLoop) run() {
	l.tasks.asleep.Store(false)
	for !l.ended {
		l.wait()
		l.now = l.clock()
		l.calls.turn(l.now)
		for i := range l.events[:l.n] {
			ev := &l.events[i]
			// A socket that was closed earlier in this turn is gone from the
			// table, and its number cannot be another's yet: sockets are added by tasks.
			if s := l.socks[ev.Fd]; s != nil {
				s.ready(ev.Events)
			}
		}
		l.timers.run(l.now)
		l.tasks.run()
	}
	l.tasks.end()
	l.file.Close()
}

// look sets n to the number of sockets that are ready now.
func (l *epollLoop) look() {
	l.n = l.calls.epoll(l.epfd, l.events[:])
}

// wait sets n, and returns when a socket is ready, a timer due or a task posted.
func (l *epollLoop) wait() {
	next := l.timers.next(l.clock())
	if next == 0 || !l.tasks.empty() {
		l.look()
		return
	}
	// The deadline is set before the sleep is announced: a waker sets it after.
	if next < 0 {
		l.arm(unarmed, time.Time{})
	} else {
		l.arm(l.timers.heap[0].when, time.Now().Add(next))
	}
	if !l.tasks.sleep() {
		l.look()
		return
	}
	l.n = 0
	if err := l.raw.Read(l.poll); err != nil {
		// The deadline has passed, or was moved by a waker.
		l.armed = unknown
	}
	l.tasks.asleep.Store(false)
}

func (l *epollLoop) arm(when time.Duration, deadline time.Time) {
	if l.armed != when {
		l.armed = when
		// It cannot fail: the file can be polled and is open.
		_ = l.file.SetReadDeadline(deadline)
	}
}

func (l *epollLoop) stop() {
	for _, s := range l.socks {
		if s != nil {
			s.Close(ErrStopped)
		}
	}
	l.ended = true
}

// epollSock is one non-blocking socket.
type epollSock struct {
	loop   *epollLoop
	fd     int
	h      Handler
	remote net.Addr

	interest uint32 // what epoll was told
	detached bool   // epoll does not know it (yet, or any more)
	paused   bool
	eof      bool
	blocked  bool // a Writev waits for room
	shut     bool // CloseWrite
	closed   bool
	tcp      bool
	err      error
	gone     Task
}

// adopt makes fd, a connected non-blocking socket, a connection of the loop.
// Any goroutine. fd is closed if the loop has ended, which is ErrStopped.
func (l *epollLoop) adopt(fd int, remote net.Addr, tcp bool, cfg *Config, a *Accept) error {
	s := &epollSock{loop: l, fd: fd, remote: remote, tcp: tcp, detached: true}
	s.gone.Run = func() { s.h.Closed(s.err) }
	l.conns.Add(1)
	start := &Task{Run: func() {
		for len(l.socks) <= fd {
			l.socks = append(l.socks, nil)
		}
		l.socks[fd] = s
		s.h = a.open(s, cfg, s.opened)
		if !l.ended {
			s.update()
			return
		}
		// It came behind stop, in the loop's last turn: nobody else closes it.
		s.Close(ErrStopped)
		if !l.Post(&s.gone) {
			s.gone.Run()
		}
	}}
	if !l.Post(start) {
		l.conns.Add(-1)
		unix.Close(fd)
		return ErrStopped
	}
	return nil
}

// adoptConn takes the socket out of c: a descriptor of its own stays when c,
// and with it the runtime's interest in it, is closed. It is non-blocking already.
func (l *epollLoop) adoptConn(c net.Conn, cfg *Config, a *Accept) error {
	defer c.Close()
	sc, ok := c.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%w: epoll loops take no %T", ErrUnsupported, c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(own uintptr) {
		fd, dupErr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(err, dupErr); err != nil {
		return fmt.Errorf("fcntl: %w", err)
	}
	_, tcp := c.(*net.TCPConn)
	if tcp {
		// It fails if the peer is gone already, which reading will tell.
		_ = tuneFD(fd, cfg.KeepAlive)
	}
	return l.adopt(fd, c.RemoteAddr(), tcp, cfg, a)
}

func (s *epollSock) opened(h Handler, remote net.Addr) { s.h, s.remote = h, remote }

func (s *epollSock) Loop() *Loop          { return &s.loop.Loop }
func (s *epollSock) RemoteAddr() net.Addr { return s.remote }
func (s *epollSock) HoldsSpace() bool     { return false }

func (s *epollSock) wanted() uint32 {
	var w uint32
	if !s.paused && !s.eof {
		w |= unix.EPOLLIN
	}
	if s.blocked {
		w |= unix.EPOLLOUT
	}
	return w
}

// update tells epoll what is wanted, if that has changed.
func (s *epollSock) update() {
	w := s.wanted()
	if s.closed || w == s.interest && !s.detached {
		return
	}
	op := unix.EPOLL_CTL_MOD
	if s.detached {
		if w == 0 {
			return
		}
		op = unix.EPOLL_CTL_ADD
		s.detached = false
	}
	s.interest = w
	ev := unix.EpollEvent{Events: w, Fd: int32(s.fd)}
	if err := unix.EpollCtl(s.loop.epfd, op, s.fd, &ev); err != nil {
		s.Close(fmt.Errorf("epoll_ctl: %w", err))
	}
}

// detach takes a socket that has hung up and of which nothing is wanted now
// out of epoll, which would report it for ever.
func (s *epollSock) detach() {
	if err := unix.EpollCtl(s.loop.epfd, unix.EPOLL_CTL_DEL, s.fd, nil); err != nil {
		s.Close(fmt.Errorf("epoll_ctl: %w", err))
		return
	}
	s.detached = true
}

func (s *epollSock) ready(events uint32) {
	const hangup = unix.EPOLLHUP | unix.EPOLLERR
	if events&(unix.EPOLLIN|hangup) != 0 && !s.paused && !s.eof {
		s.read(events&hangup != 0)
	}
	if events&(unix.EPOLLOUT|hangup) != 0 && s.blocked && !s.closed {
		s.blocked = false
		s.h.Written(0)
		if !s.closed {
			s.update()
		}
	}
	if events&hangup != 0 && !s.closed {
		switch {
		case s.eof, events&unix.EPOLLERR != 0:
			// Nobody is left to read what may still come.
			s.Close(ErrPeerGone)
		case s.paused && !s.blocked:
			// A unix socket has hung up with bytes yet to be read.
			s.detach()
		}
	}
}

// read takes what is there, into what the handler offers.
func (s *epollSock) read(hangup bool) {
	for budget := readBytesPerTurn; budget > 0 && !s.paused && !s.eof && !s.closed; {
		p := s.h.Space()
		if len(p) == 0 || s.closed {
			return
		}
		n, errno := s.loop.calls.recv(s.fd, p)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			if hangup {
				s.Close(ErrPeerGone)
			}
			return
		case errno != 0:
			s.Close(fmt.Errorf("read: %w", errno))
			return
		case n == 0:
			s.eof = true
			s.update()
			s.h.EOF()
			return
		}
		s.h.Filled(n)
		if n < len(p) {
			// The socket was empty a moment ago; asking again would most
			// often cost a system call for nothing.
			return
		}
		budget -= n
	}
}

func (s *epollSock) Writev(parts [][]byte, awaited bool) (n int, err error) {
	if s.closed || s.shut {
		return 0, net.ErrClosed
	}
	s.loop.calls.calm = !awaited
	for len(parts) > 0 {
		some := parts[:min(len(parts), partsPerWritev)]
		wrote, want, errno := s.write(some)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			s.blocked = true
			s.update()
			return n, nil
		case errno != 0:
			return n, fmt.Errorf("write: %w", errno)
		}
		n += wrote
		if wrote < want {
			s.blocked = true
			s.update()
			return n, nil
		}
		parts = parts[len(some):]
	}
	return n, nil
}

// write sends parts, as many bytes as there is room for; want is how many they are.
func (s *epollSock) write(parts [][]byte) (wrote, want int, errno syscall.Errno) {
	l := s.loop
	for _, p := range parts {
		want += len(p)
	}
	if want == 0 {
		return 0, 0, 0
	}
	if want <= len(l.small) {
		joined := l.small[:0]
		for _, p := range parts {
			joined = append(joined, p...)
		}
		wrote, errno = l.calls.send(s.fd, joined)
		return wrote, want, errno
	}
	iov := l.iov[:0]
	for _, p := range parts {
		if len(p) > 0 {
			v := unix.Iovec{Base: unsafe.SliceData(p)}
			v.SetLen(len(p))
			iov = append(iov, v)
		}
	}
	wrote, errno = l.calls.writev(s.fd, iov)
	clear(iov)
	return wrote, want, errno
}

func (s *epollSock) Pause() {
	s.paused = true
	s.update()
}

func (s *epollSock) Resume() {
	s.paused = false
	s.update()
}

func (s *epollSock) Cork() {
	if s.tcp && !s.closed && !s.shut {
		corkFD(s.fd, true)
	}
}

func (s *epollSock) CloseWrite() {
	if !s.closed && !s.shut {
		s.shut = true
		// It fails only if the peer is gone, which reading tells.
		_ = unix.Shutdown(s.fd, unix.SHUT_WR)
	}
}

func (s *epollSock) Close(err error) {
	if s.closed {
		return
	}
	s.closed = true
	s.err = err
	s.loop.socks[s.fd] = nil
	s.loop.conns.Add(-1)
	unix.Close(s.fd)
	s.loop.Post(&s.gone)
}

func (s *epollSock) Silent() (waits bool, d time.Duration) {
	if s.closed || !s.tcp {
		return false, 0
	}
	return silentFD(s.fd)
}

func (s *epollSock) HungUp() bool { return s.closed || hungUpFD(s.fd) }
