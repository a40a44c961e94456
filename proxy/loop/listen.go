package loop

import (
	"net"
	"os"
)

// Listener is a net.Listener that epoll loops can accept from by themselves.
type Listener struct {
	net.Listener
	f *os.File // the same socket, whose descriptor can be waited for
}

// Listen is net.Listen.
func Listen(network, address string) (*Listener, error) {
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	l := &Listener{Listener: ln}
	if s, ok := ln.(interface{ File() (*os.File, error) }); ok {
		// Without a file only Portable can serve it, as on Windows.
		l.f, _ = s.File()
	}
	return l, nil
}

// Close stops listening. Connections in the backlog are reset.
func (l *Listener) Close() error {
	if l.f != nil {
		l.f.Close()
	}
	return l.Listener.Close()
}
