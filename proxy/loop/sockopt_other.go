//go:build !linux

package loop

import (
	"net"
	"time"
)

// silent needs TCP_INFO, which is Linux's.
func silent(net.Conn) (waits bool, d time.Duration) { return false, 0 }

// cork needs TCP_CORK, which is Linux's.
func cork(net.Conn, bool) {}

// hungUp needs POLLRDHUP, which is Linux's.
func hungUp(net.Conn) bool { return false }
