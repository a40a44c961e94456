package peer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A FileCall is a system call that syncs a file or writes it at a position, and
// waits for leave to go on.
type FileCall struct {
	Sync bool   // fsync, fdatasync or syncfs; else a write
	Path string // what the descriptor is open on
}

// An Interceptor answers a server's calls in its place: 0 lets the call go on
// to the kernel, anything else is what it fails with. It is called from one
// goroutine at a time.
type Interceptor func(FileCall) syscall.Errno

// intercepted are the calls that an Interceptor is asked about, and whether
// they sync.
var intercepted = map[uint32]bool{
	unix.SYS_FSYNC: true, unix.SYS_FDATASYNC: true, unix.SYS_SYNCFS: true,
	unix.SYS_PWRITE64: false, unix.SYS_PWRITEV: false, unix.SYS_PWRITEV2: false,
}

// launchEnv makes this program, started once more, become the one named by its
// arguments behind a filter of system calls (seccomp's user notification). The
// filter's descriptor goes to the parent through descriptor launchFD.
const (
	launchEnv = "QUIRE_CONFORMANCE_LAUNCH"
	launchFD  = 3
)

func init() {
	if os.Getenv(launchEnv) == "" {
		return
	}
	fmt.Fprintln(os.Stderr, "launch behind a filter of system calls:", launch())
	os.Exit(1)
}

// launch returns only if it fails.
func launch() error {
	// The filter is this thread's alone, and exec keeps this thread alone.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	const loadNumber = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	program := []unix.SockFilter{{Code: loadNumber, K: 0}}
	for number := range intercepted {
		program = append(program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: number},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&f)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	if err := unix.Sendmsg(launchFD, []byte{0}, unix.UnixRights(int(listener)), nil, 0); err != nil {
		return fmt.Errorf("hand over the filter: %w", err)
	}
	unix.CloseOnExec(launchFD)
	if err := os.Unsetenv(launchEnv); err != nil {
		return err
	}
	return syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
}

// intercept makes cmd start behind a filter. When cmd runs, call serve: it
// asks decide until the process has ended.
func intercept(cmd *exec.Cmd, decide Interceptor) (serve func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	cmd.Args = append([]string{self, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = self
	cmd.Env = append(cmd.Env, launchEnv+"=1")
	cmd.ExtraFiles = []*os.File{theirs}
	return func() error {
		theirs.Close() // the process has it: when it ends without a filter, ours says so
		listener, err := receiveDescriptor(ours)
		if err != nil {
			return fmt.Errorf("no filter came from the launched process: %w", err)
		}
		defer unix.Close(listener)
		return answerCalls(listener, decide)
	}, nil
}

// receiveDescriptor closes f.
func receiveDescriptor(f *os.File) (int, error) {
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), rights)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return 0, errors.Join(errors.New("the connection ended without one"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	unix.CloseOnExec(fds[0])
	return fds[0], nil
}

// The forms of struct seccomp_notif and seccomp_notif_resp of the kernel.
type callNotice struct {
	id      uint64
	thread  uint32
	flags   uint32
	number  uint32
	arch    uint32
	pointer uint64
	args    [6]uint64
}

type callAnswer struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

func answerCalls(listener int, decide Interceptor) error {
	for {
		ready := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return fmt.Errorf("poll the filter: %w", err)
		}
		if ready[0].Revents&unix.POLLIN == 0 {
			return nil // nobody is left behind the filter
		}
		var notice callNotice
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&notice)))
		if errno == unix.ENOENT || errno == unix.EINTR {
			continue // the thread was killed meanwhile
		}
		if errno != 0 {
			return fmt.Errorf("receive from the filter: %w", errno)
		}
		answer := callAnswer{id: notice.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		path, err := os.Readlink("/proc/" + strconv.Itoa(int(notice.thread)) + "/fd/" + strconv.Itoa(int(notice.args[0])))
		if err == nil && strings.HasPrefix(path, "/") {
			if fault := decide(FileCall{Sync: intercepted[notice.number], Path: path}); fault != 0 {
				answer.flags, answer.errno = 0, -int32(fault)
			}
		}
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&answer)))
		if errno != 0 && errno != unix.ENOENT {
			return fmt.Errorf("answer the filter: %w", errno)
		}
	}
}
