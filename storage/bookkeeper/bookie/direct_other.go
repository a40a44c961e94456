//go:build !linux

package bookie

import "net"

// direct is made on Linux only: elsewhere the writer writes everything.
type direct struct{ net.Conn }

func newDirect(net.Conn) *direct { return nil }

func (*direct) write(_, _ []byte) (n int, err error) { return 0, nil }
