package loop

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// calls makes the system calls of a loop. They go around the wrappers of x/sys,
// which allocate an iovec list and an error.
//
// None of them waits: sockets are non-blocking, and epoll is looked at without a
// timeout. So the runtime need not be told of them, and is not where a loop is calm,
// by RawSyscall. To tell it in a process that was idle a moment ago wakes a thread of the
// runtime (sysmon) that looks every 20 µs whether the call comes back: a sixth of
// the processor time of ten thousand heartbeats per second. But while that thread is awake
// the machine's other processor is too, and whoever is to be woken next runs
// sooner: where somebody waits for the answer it is worth its price.
type calls struct {
	calm      bool // what was written last is awaited by nobody
	raw       bool // the calls of this turn need not be announced
	announced time.Time
}

const (
	// rawBytes bounds a raw call, for which the garbage collector may have to wait.
	rawBytes = 64 << 10

	// announceInterval bounds for how long a loop makes raw calls only: the runtime
	// preempts goroutines and polls for those that find no processor while its thread is
	// awake.
	announceInterval = 100 * time.Millisecond
)

// turn begins a turn of the loop at now.
func (c *calls) turn(now time.Time) {
	c.raw = c.calm && now.Sub(c.announced) < announceInterval
	if !c.raw {
		c.announced = now
	}
}

// epoll returns how many sockets are ready now; an error is as if there were none.
func (c *calls) epoll(epfd int, events []unix.EpollEvent) int {
	at, most := unsafe.Pointer(unsafe.SliceData(events)), uintptr(len(events))
	var n uintptr
	var errno syscall.Errno
	if c.raw {
		n, _, errno = syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(at), most, 0, 0, 0)
	} else {
		n, _, errno = syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(at), most, 0, 0, 0)
	}
	if errno != 0 {
		return 0
	}
	return int(n)
}

// recv and send are what a socket has in the place of read and write: the system gets to
// it by a shorter way.
func (c *calls) recv(fd int, p []byte) (int, syscall.Errno) {
	at, bytes := unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p))
	if c.raw && len(p) <= rawBytes {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(at), bytes, 0, 0, 0)
		return int(n), errno
	}
	n, _, errno := syscall.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(at), bytes, 0, 0, 0)
	return int(n), errno
}

// send sends little.
func (c *calls) send(fd int, p []byte) (int, syscall.Errno) {
	at, bytes := unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p))
	if c.raw && c.calm {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(at), bytes, unix.MSG_NOSIGNAL, 0, 0)
		return int(n), errno
	}
	n, _, errno := syscall.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(at), bytes, unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// writev sends what is too much for send.
func (c *calls) writev(fd int, iov []unix.Iovec) (int, syscall.Errno) {
	n, _, errno := syscall.Syscall(unix.SYS_WRITEV, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	return int(n), errno
}
