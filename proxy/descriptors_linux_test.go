package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// init makes the test binary the server of TestOutOfDescriptors.
func init() {
	if os.Getenv("QUIRE_TEST_FEW_DESCRIPTORS") != "" {
		serveWithFewDescriptors()
		os.Exit(0)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestDescriptorsAreClosed(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		s := start(t, c, echo)
		first := dial(t, s) // now the acceptor has all that it needs
		first.send(frame(3, 3, 1, nil))
		first.receive()
		before := descriptors(t)
		for i := range 50 {
			cl := dial(t, s)
			cl.send(frame(3, 3, 1, nil))
			cl.receive()
			switch i % 3 {
			case 0:
				cl.Close()
			case 1:
				cl.closeWrite()
				cl.wantEnd()
				cl.Close()
			case 2:
				cl.send([]byte{0, 0, 0, 0})
				cl.wantEnd()
				cl.Close()
			}
		}
		eventually(t, "as many descriptors as before", func() bool { return descriptors(t) <= before })
	})
}

// serveWithFewDescriptors is the other process of TestOutOfDescriptors.
func serveWithFewDescriptors() {
	network, address, portable := os.Args[1], os.Args[2], os.Args[3] == "true"
	limit := syscall.Rlimit{Cur: 40, Max: 40}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		panic(err)
	}
	s, err := New(Config{
		Listeners: []Listener{{Network: network, Address: address}},
		Handler:   testHandler(echo),
		Portable:  portable,
		Loops:     2,
	})
	if err != nil {
		panic(err)
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		s.Close()
	}()
	fmt.Println(s.Addr(""))
	fmt.Println(s.Serve())
}

// Without descriptors new connections fail, the others are served, and when
// there are some again so are new ones.
func TestOutOfDescriptors(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		l := c.Listeners[0]
		cmd := exec.Command(os.Args[0], l.Network, l.Address, fmt.Sprint(c.Portable))
		cmd.Env = append(os.Environ(), "QUIRE_TEST_FEW_DESCRIPTORS=1")
		cmd.Stderr = os.Stderr
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		lines.Scan()
		address := lines.Text()
		dial := func() *client {
			nc, err := net.Dial(l.Network, address)
			if err != nil {
				t.Fatal(err)
			}
			nc.SetDeadline(time.Now().Add(patience))
			return &client{nc, t}
		}
		served := func(cl *client) bool {
			cl.Write(frame(3, 3, 1, nil))
			_, _, err := cl.tryReceive()
			return err == nil
		}
		first := dial()
		if !served(first) {
			t.Fatal("the first connection is not served")
		}
		var all []*client
		for range 60 {
			all = append(all, dial())
		}
		for range 3 {
			if !served(first) {
				t.Fatal("the first connection is served no more")
			}
		}
		for _, cl := range all {
			cl.Close()
		}
		eventually(t, "new connections are served", func() bool {
			cl := dial()
			defer cl.Close()
			return served(cl)
		})
		first.Close()
		stdin.Close()
		lines.Scan()
		if got := lines.Text(); !strings.Contains(got, ErrServerClosed.Error()) {
			t.Errorf("Serve ended with %q", got)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}
