package loop

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probes is how many keepalive probes go unanswered before a peer is gone.
const probes = 3

// tuneFD sets what every TCP connection gets. An idle peer that vanished is
// noticed after keepAlive: half of it passes before the first probe.
//
// TCP_USER_TIMEOUT is not set: it also ends connections whose peer answers
// all window probes but does not read for that long (seen on Linux 6.18), as a
// consumer does that works on its records between two polls. Sock.Silent
// tells the two apart.
func tuneFD(fd int, keepAlive time.Duration) error {
	idle := max(1, int(keepAlive/2/time.Second))
	every := max(1, int(keepAlive/2/probes/time.Second))
	for _, o := range []struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, every},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, probes},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return err
		}
	}
	return nil
}

// corkFD has a TCP socket keep back what fills no segment, for 200 ms at most, or send it
// with its end. Nothing depends on it.
func corkFD(fd int, on bool) {
	value := 0
	if on {
		value = 1
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_CORK, value)
}

// cork is corkFD of what lies under a net.Conn.
func cork(c net.Conn, on bool) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	// It fails if the connection is closed.
	_ = raw.Control(func(fd uintptr) { corkFD(int(fd), on) })
}

// silentFD is Sock.Silent of a TCP socket.
func silentFD(fd int) (waits bool, d time.Duration) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false, 0
	}
	// A peer that acknowledges data resets Retransmits, one that answers
	// window probes resets Probes; the answer to the last one may be under way.
	if info.Retransmits > 0 || info.Probes > 1 {
		d = time.Duration(info.Last_ack_recv) * time.Millisecond
	}
	return info.Unacked > 0 || info.Notsent_bytes > 0, d
}

// silent is silentFD of what lies under a net.Conn.
func silent(c net.Conn) (waits bool, d time.Duration) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return false, 0
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return false, 0
	}
	// It fails if the connection is closed.
	_ = raw.Control(func(fd uintptr) { waits, d = silentFD(int(fd)) })
	return waits, d
}

// hungUpFD is Sock.HungUp of any socket.
func hungUpFD(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	for {
		if _, err := unix.Poll(p, 0); err != unix.EINTR {
			return err == nil && p[0].Revents != 0
		}
	}
}

// hungUp is hungUpFD of what lies under a net.Conn.
func hungUp(c net.Conn) (is bool) {
	t, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return false
	}
	// It fails if the connection is closed.
	_ = raw.Control(func(fd uintptr) { is = hungUpFD(int(fd)) })
	return is
}
