package bookie

import (
	"io"
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// rawBytes bounds a system call that the runtime is not told of, for which the
	// garbage collector may have to wait.
	rawBytes = 64 << 10
	// announceInterval bounds for how long none is told.
	announceInterval = 100 * time.Millisecond
)

// direct reads and writes a connection by calls that never wait: the socket is
// non-blocking. So the runtime need not be told of them. To tell it in a process that
// was idle a moment ago wakes a thread of it (sysmon) that looks every 20 µs whether
// the call comes back, and an add that is alone comes after such a moment.
type direct struct {
	conn  *net.TCPConn
	raw   syscall.RawConn
	start time.Time

	// Of write; channel.writing is held.
	iov   [2]unix.Iovec
	wrote int
	fault syscall.Errno
	send  func(fd uintptr) (done bool) // made once: for each call it would be allocated

	// Of Read, which one goroutine calls.
	announced time.Duration // since start
	into      []byte
	got       int
	failed    syscall.Errno
	recv      func(fd uintptr) (done bool)
}

// newDirect returns nil for a connection that is not read and written like that: TLS.
func newDirect(conn net.Conn) *direct {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	d := &direct{conn: tcp, raw: raw, start: time.Now()}
	d.send = func(fd uintptr) bool {
		for {
			n, _, errno := syscall.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&d.iov)), uintptr(len(d.iov)))
			if errno != unix.EINTR {
				d.wrote, d.fault = int(n), errno
				return true
			}
		}
	}
	d.recv = func(fd uintptr) bool {
		at, most := uintptr(unsafe.Pointer(unsafe.SliceData(d.into))), uintptr(len(d.into))
		for {
			var n uintptr
			if now := time.Since(d.start); now-d.announced < announceInterval {
				n, _, d.failed = syscall.RawSyscall6(unix.SYS_RECVFROM, fd, at, most, 0, 0, 0)
			} else {
				d.announced = now
				n, _, d.failed = syscall.Syscall6(unix.SYS_RECVFROM, fd, at, most, 0, 0, 0)
			}
			d.got = int(n)
			if d.failed != unix.EINTR {
				return d.failed != unix.EAGAIN
			}
		}
	}
	return d
}

// write returns how many bytes of a frame the connection took.
func (d *direct) write(head, body []byte) (n int, err error) {
	for i, b := range [...][]byte{head, body} {
		d.iov[i].Base = unsafe.SliceData(b)
		d.iov[i].SetLen(len(b))
	}
	err = d.raw.Write(d.send)
	d.iov = [2]unix.Iovec{}
	switch {
	case err != nil:
		return 0, err
	case d.fault == unix.EAGAIN:
		return 0, nil
	case d.fault != 0:
		return 0, d.fault
	}
	return d.wrote, nil
}

// Read implements io.Reader.
func (d *direct) Read(p []byte) (int, error) {
	if len(p) > rawBytes {
		return d.conn.Read(p)
	}
	d.into = p
	err := d.raw.Read(d.recv)
	d.into = nil
	switch {
	case err != nil:
		return 0, err
	case d.failed != 0:
		return 0, d.failed
	case d.got == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return d.got, nil
}
