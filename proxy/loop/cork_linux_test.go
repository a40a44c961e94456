package loop

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TCP is told to keep back what a corked socket writes; what it makes of that is not seen
// from here.
func TestCorkIsTCPs(t *testing.T) {
	onEachKind(t, func(t *testing.T, g Group, ln net.Listener) {
		h := &scripted{closed: make(chan error, 1)}
		corked := make(chan bool, 2)
		look := func() {
			fd := -1
			switch s := h.sock.(type) {
			case *epollSock:
				fd = s.fd
			case *netSock:
				if c, ok := s.c.(*net.TCPConn); ok {
					raw, err := c.SyscallConn()
					if err != nil {
						t.Error(err)
						break
					}
					_ = raw.Control(func(own uintptr) { fd = int(own) })
				}
			}
			v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_CORK)
			corked <- err == nil && v == 1
		}
		h.space = func() []byte { return make([]byte, 1) }
		h.filled = func(int) {
			look()
			h.sock.Cork()
			look()
			h.sock.Close(nil)
		}
		defer serve(t, g, ln, func(s Sock) Handler {
			h.sock = s
			return h
		})()
		c := dial(t, ln)
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		tcp := ln.Addr().Network() == "tcp"
		if before, after := <-corked, <-corked; before || after != tcp {
			t.Errorf("%s is corked: before %t, after %t", ln.Addr().Network(), before, after)
		}
		c.Close()
		<-h.closed
	})
}
