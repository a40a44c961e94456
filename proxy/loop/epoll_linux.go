package loop

import (
	"fmt"
	"net"
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
type epollLoop struct {
	Loop
	epfd    int
	eventfd int
	events  [eventsPerWait]unix.EpollEvent
	iov     [partsPerWritev]unix.Iovec
	socks   []*epollSock // by file descriptor
	ended   bool
}

func newEpollLoop(cfg Config) (*epollLoop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	evfd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	l := &epollLoop{epfd: epfd, eventfd: evfd}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(evfd)}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, evfd, &ev); err != nil {
		unix.Close(epfd)
		unix.Close(evfd)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	l.init(cfg.Now, l.signal)
	return l, nil
}

// signal ends the wait. The mailbox calls it once per sleep.
func (l *epollLoop) signal() {
	one := [8]byte{7: 1}
	// EAGAIN means that the counter is full, so that the loop is awake already.
	_, _ = unix.Write(l.eventfd, one[:])
}

func (l *epollLoop) run() {
	l.tasks.asleep.Store(false)
	for !l.ended {
		n := l.wait()
		l.now = l.clock()
		for i := range l.events[:n] {
			ev := &l.events[i]
			if int(ev.Fd) == l.eventfd {
				var count [8]byte
				_, _ = unix.Read(l.eventfd, count[:])
				continue
			}
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
	unix.Close(l.eventfd)
	unix.Close(l.epfd)
}

// wait returns how many events there are. It first only looks, and gives the
// processor to other goroutines before it blocks: a blocked system call keeps
// it until the runtime's monitor takes it away.
func (l *epollLoop) wait() int {
	n, err := unix.EpollWait(l.epfd, l.events[:], 0)
	if n > 0 {
		return n
	}
	if err == nil && l.tasks.empty() {
		runtime.Gosched()
	}
	timeout := l.timers.next(l.clock())
	if timeout == 0 || !l.tasks.sleep() {
		return 0
	}
	ms := -1
	if timeout > 0 {
		// Rounded up, or the loop would spin through the last millisecond.
		ms = int(min((timeout+time.Millisecond-1)/time.Millisecond, 1<<30))
	}
	n, _ = unix.EpollWait(l.epfd, l.events[:], ms)
	l.tasks.asleep.Store(false)
	return max(n, 0)
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

// adopt makes fd, an accepted non-blocking socket, a connection of the loop.
// Any goroutine. fd is closed if the loop has ended.
func (l *epollLoop) adopt(fd int, remote net.Addr, tcp bool, open func(Sock) Handler) {
	s := &epollSock{loop: l, fd: fd, remote: remote, tcp: tcp, detached: true}
	s.gone.Run = func() { s.h.Closed(s.err) }
	l.conns.Add(1)
	start := &Task{Run: func() {
		for len(l.socks) <= fd {
			l.socks = append(l.socks, nil)
		}
		l.socks[fd] = s
		s.h = open(s)
		s.update()
	}}
	if !l.Post(start) {
		l.conns.Add(-1)
		unix.Close(fd)
	}
}

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
		case s.eof:
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
		if len(p) == 0 {
			return
		}
		n, errno := readFD(s.fd, p)
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

func (s *epollSock) Writev(parts [][]byte) (n int, err error) {
	if s.closed || s.shut {
		return 0, net.ErrClosed
	}
	for len(parts) > 0 {
		iov, want := s.loop.iov[:0], 0
		for _, p := range parts {
			if len(iov) == partsPerWritev {
				break
			}
			if len(p) > 0 {
				v := unix.Iovec{Base: unsafe.SliceData(p)}
				v.SetLen(len(p))
				iov = append(iov, v)
				want += len(p)
			}
		}
		wrote, errno := 0, syscall.Errno(0)
		if want > 0 {
			wrote, errno = writevFD(s.fd, iov)
		}
		clear(iov)
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
		if len(parts) <= partsPerWritev {
			break
		}
		for taken := 0; taken < want; parts = parts[1:] {
			taken += len(parts[0])
		}
	}
	return n, nil
}

func (s *epollSock) Pause() {
	s.paused = true
	s.update()
}

func (s *epollSock) Resume() {
	s.paused = false
	s.update()
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

// readFD and writevFD go around the wrappers of x/sys, which allocate an
// iovec list and an error.
func readFD(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.Syscall(unix.SYS_READ, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), errno
}

func writevFD(fd int, iov []unix.Iovec) (int, syscall.Errno) {
	n, _, errno := syscall.Syscall(unix.SYS_WRITEV, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	return int(n), errno
}
