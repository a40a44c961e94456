package loop

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Serve accepts by itself and not through ln, so that no net.Conn is made and
// the descriptor belongs to the loop alone.
func (g *epollGroup) Serve(ln net.Listener, a Accept) error {
	l, ok := ln.(*Listener)
	if !ok || l.f == nil {
		return fmt.Errorf("epoll loops cannot accept from a %T", ln)
	}
	raw, err := l.f.SyscallConn()
	if err != nil {
		return err
	}
	_, tcp := l.Listener.(*net.TCPListener)
	spare := newSpare()
	defer spare.close()
	var retry backoff
	for turn := 0; ; turn++ {
		var fd int
		var sa unix.Sockaddr
		var errno error
		err := raw.Read(func(lfd uintptr) bool {
			fd, sa, errno = unix.Accept4(int(lfd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			return errno != unix.EAGAIN
		})
		if err != nil {
			return err // the listener is closed
		}
		if errno != nil {
			if errno == unix.EINTR || errno == unix.ECONNABORTED {
				continue
			}
			if errno == unix.EMFILE || errno == unix.ENFILE {
				spare.refuse(raw)
			}
			retry.wait(errno, a.Failed)
			continue
		}
		retry.reset()
		remote := addrOf(sa, ln)
		if !a.Admit(remote) {
			unix.Close(fd)
			continue
		}
		if tcp {
			// It fails if the peer is gone already, which reading will tell.
			_ = tuneFD(fd, g.cfg.KeepAlive)
		}
		// It fails if the loop has ended, and the listener is about to be closed.
		_ = g.loops[least(g.all, turn)].adopt(fd, remote, tcp, &g.cfg, &a)
	}
}

// spare is a descriptor kept for the moment when there are no others. Given
// up, it lets a waiting connection be accepted and closed: its client learns
// at once that it is not served, instead of waiting in the backlog.
type spare struct{ f *os.File }

func newSpare() *spare {
	f, _ := os.Open(os.DevNull)
	return &spare{f}
}

func (s *spare) refuse(raw syscall.RawConn) {
	if s.f == nil {
		s.f, _ = os.Open(os.DevNull)
		return
	}
	s.f.Close()
	_ = raw.Read(func(lfd uintptr) bool {
		if fd, _, err := unix.Accept4(int(lfd), unix.SOCK_CLOEXEC); err == nil {
			unix.Close(fd)
		}
		return true
	})
	s.f, _ = os.Open(os.DevNull)
}

func (s *spare) close() {
	if s.f != nil {
		s.f.Close()
	}
}

func addrOf(sa unix.Sockaddr, ln net.Listener) net.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: net.IP(sa.Addr[:]), Port: sa.Port}
	case *unix.SockaddrInet6:
		return &net.TCPAddr{IP: net.IP(sa.Addr[:]), Port: sa.Port, Zone: zoneOf(sa.ZoneId)}
	default:
		// A client's end of a unix socket has no name.
		return ln.Addr()
	}
}

func zoneOf(index uint32) string {
	if index == 0 {
		return ""
	}
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		return i.Name
	}
	return fmt.Sprint(index)
}
