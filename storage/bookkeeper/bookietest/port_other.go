//go:build !unix

package bookietest

import "net"

// port is the address of a bookie. While the bookie is down somebody else may get it.
type port struct{ address string }

func reserve() (*port, error) { return &port{address: "127.0.0.1:0"}, nil }

func (p *port) listen() (net.Listener, error) {
	ln, err := net.Listen("tcp", p.address)
	if err == nil {
		p.address = ln.Addr().String()
	}
	return ln, err
}

func (p *port) release() {}
