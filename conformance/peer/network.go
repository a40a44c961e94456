package peer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Network is a bridge with machines at it, each a network namespace: what one
// of them sends another can be dropped. It lives in namespaces of this process's
// own (Isolate), and goes with it whatever happens.
type Network struct {
	mu    sync.Mutex
	hosts int
}

// A Host is a machine of a Network. Nil stands for this machine, on its loopback
// interface.
type Host struct {
	name, ip string
	calls    chan func() // run by the thread that lives in the namespace
}

const (
	isolatedEnv = "QUIRE_CONFORMANCE_ISOLATED"
	bridgeIP    = "10.77.0.1"
	hostPattern = "10.77.0.%d"
	firstHost   = 10
	lastHost    = 250
)

// Isolated says whether this process is the one that Isolate started.
func Isolated() bool { return os.Getenv(isolatedEnv) != "" }

// CanIsolate says whether this machine lets this user have networks of its own:
// nil, or an error that wraps ErrMissingTool and names what is missing.
func CanIsolate() error {
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := findSystemTool(tool); err != nil {
			return fmt.Errorf("%w: %s: install it (Debian: apt-get install iproute2 iptables)", ErrMissingTool, tool)
		}
	}
	cmd := exec.Command("true")
	cmd.SysProcAttr = isolation()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: this user may not make network namespaces: %v", ErrMissingTool, err)
	}
	return nil
}

// findSystemTool also looks where the path of a user who is not root does not.
func findSystemTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", name))
}

func isolation() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	return attr
}

// Isolate runs this program with its arguments once more, in namespaces of its
// own for networks and mounts, and returns its exit status. Fetch and build before:
// no other network can be reached from there.
func Isolate() (status int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	// The death of the thread that starts it would be the child's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = isolation()
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-interrupts:
			cmd.Process.Signal(s)
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return max(1, exit.ExitCode()), nil
			}
			return 0, err
		}
	}
}

// NewNetwork makes the bridge. Only in a process that Isolated says yes of, once.
func NewNetwork() (*Network, error) {
	// Of a chroot the root is no mount and cannot be made private.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil && err != unix.EINVAL {
		return nil, fmt.Errorf("make the mounts private: %w", err)
	}
	for _, args := range []string{
		"link set lo up", "link add bridge0 type bridge", "addr add " + bridgeIP + "/24 dev bridge0", "link set bridge0 up",
	} {
		if err := (*Host)(nil).system("ip", strings.Fields(args)...); err != nil {
			return nil, err
		}
	}
	return &Network{}, nil
}

// IP is this process's own address in the network: what others reach it by.
func (n *Network) IP() string { return bridgeIP }

// Add puts one more machine at the bridge.
func (n *Network) Add(name string) (*Host, error) {
	n.mu.Lock()
	number := firstHost + n.hosts
	n.hosts++
	n.mu.Unlock()
	if number > lastHost {
		return nil, errors.New("the network is full")
	}
	h := &Host{name: name, ip: fmt.Sprintf(hostPattern, number), calls: make(chan func())}
	opened := make(chan error)
	var namespace int
	go func() {
		// The thread is never given back: it is the namespace's.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			namespace, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		opened <- err
		for call := range h.calls {
			call()
		}
	}()
	if err := <-opened; err != nil {
		return nil, fmt.Errorf("network namespace of %s: %w", name, err)
	}
	defer unix.Close(namespace)
	link := fmt.Sprintf("veth%d", number)
	self := (*Host)(nil)
	steps := []struct {
		at   *Host
		args string
	}{
		{self, fmt.Sprintf("link add %s type veth peer name eth0 netns /proc/%d/fd/%d", link, os.Getpid(), namespace)},
		{self, "link set " + link + " master bridge0 up"},
		{h, "link set lo up"},
		{h, "addr add " + h.ip + "/24 dev eth0"},
		{h, "link set eth0 up"},
	}
	for _, s := range steps {
		if err := s.at.system("ip", strings.Fields(s.args)...); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// IP is the machine's address.
func (h *Host) IP() string {
	if h == nil {
		return "127.0.0.1"
	}
	return h.ip
}

// Interface is the name of the interface with that address.
func (h *Host) Interface() string {
	if h == nil {
		return "lo"
	}
	return "eth0"
}

// String names the machine.
func (h *Host) String() string {
	if h == nil {
		return "this machine"
	}
	return h.name
}

// do runs f on a thread of the machine: a process that f starts lives there.
func (h *Host) do(f func() error) error {
	if h == nil {
		return f()
	}
	done := make(chan error, 1)
	h.calls <- func() { done <- f() }
	return <-done
}

func (h *Host) system(tool string, args ...string) error {
	path, err := findSystemTool(tool)
	if err != nil {
		return err
	}
	return h.do(func() error {
		if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %s %s: %w: %s", h, tool, strings.Join(args, " "), err, lastLines(out, 3))
		}
		return nil
	})
}

// Drop lets nothing through any more that from sends to h, until Pass. What h
// sends arrives, but none of its answers come back.
func (h *Host) Drop(from *Host) error {
	return h.system("iptables", "-w", "-A", "INPUT", "-s", from.IP(), "-j", "DROP")
}

// Pass ends what Drop began.
func (h *Host) Pass(from *Host) error {
	return h.system("iptables", "-w", "-D", "INPUT", "-s", from.IP(), "-j", "DROP")
}

// PassAll ends whatever Drop began.
func (h *Host) PassAll() error { return h.system("iptables", "-w", "-F", "INPUT") }

// address is a server's on one of the machine's ports.
func (h *Host) address(port int) string { return net.JoinHostPort(h.IP(), fmt.Sprint(port)) }

// MountTmpfs mounts a file system of so many bytes on a folder, for this process
// and those it starts. Only where Isolated says yes.
func MountTmpfs(dir string, bytes int64) error {
	if !Isolated() {
		return errors.New("mount: this process has no mounts of its own")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("disk", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return nil
}
