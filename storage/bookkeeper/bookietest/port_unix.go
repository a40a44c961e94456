//go:build unix

package bookietest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// port is the address of a bookie, which is its own also while it is down: a socket
// that is bound and never listens keeps the system from giving the port to anybody who
// asks for a free one. Tests of other packages run meanwhile, and clients of the bookie
// would take one of theirs for it, with other entries in ledgers of the same ids.
type port struct {
	address string
	holder  int // -1: it was released
}

// reserve takes a free port, of an address of its own where there are such: what else
// runs on this machine listens on 127.0.0.1.
func reserve() (*port, error) {
	var failures []error
	for _, ip := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 4}), netip.AddrFrom4([4]byte{127, 0, 0, 1})} {
		p, err := reserveOn(ip)
		if err == nil {
			return p, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

func reserveOn(ip netip.Addr) (*port, error) {
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	fail := func(call string, err error) (*port, error) {
		return nil, errors.Join(fmt.Errorf("port of %s: %w", ip, os.NewSyscallError(call, err)), unix.Close(fd))
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fail("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: ip.As4()}); err != nil {
		return fail("bind", err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return fail("getsockname", err)
	}
	return &port{address: netip.AddrPortFrom(ip, uint16(bound.(*unix.SockaddrInet4).Port)).String(), holder: fd}, nil
}

// listen listens at the address.
func (p *port) listen() (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failure error
		err := c.Control(func(fd uintptr) {
			failure = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		return errors.Join(err, failure)
	}}
	return config.Listen(context.Background(), "tcp", p.address)
}

func (p *port) release() {
	if p.holder >= 0 {
		_ = unix.Close(p.holder) // nothing was sent over it
		p.holder = -1
	}
}
