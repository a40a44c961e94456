package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// 2,000 connections at once are all served, and leave nothing behind.
func TestStorm(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		const clients = 2000
		s := start(t, c, echo)
		a := s.listeners[0].Addr()
		var open, done sync.WaitGroup
		open.Add(clients)
		var failed sync.Once
		dialing := make(chan bool, 100)
		for i := range clients {
			done.Go(func() {
				fail := func(err error) {
					failed.Do(func() { t.Errorf("client %d: %v", i, err) })
				}
				opened := sync.OnceFunc(open.Done)
				defer opened()
				dialing <- true
				nc, err := net.DialTimeout(a.Network(), a.String(), patience)
				// The backlog of a unix socket refuses instead of waiting.
				for n := 0; err != nil && errors.Is(err, syscall.EAGAIN) && n < 1e6; n++ {
					runtime.Gosched()
					nc, err = net.Dial(a.Network(), a.String())
				}
				<-dialing
				if err != nil {
					fail(err)
					return
				}
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(patience))
				cl := &client{nc, t}
				for round := range 2 {
					if _, err := nc.Write(frame(3, 3, int32(i), pattern(1000, i))); err != nil {
						fail(err)
						return
					}
					corr, body, err := cl.tryReceive()
					if err != nil || corr != int32(i) || !bytes.Equal(body, pattern(1000, i)) {
						fail(fmt.Errorf("answer to %d: %w", corr, err))
						return
					}
					if round == 0 {
						opened()
						open.Wait()
					}
				}
			})
		}
		open.Wait()
		for _, l := range s.loops {
			if n := l.Conns(); n < clients/3 && !t.Failed() {
				t.Errorf("a loop has %d of %d connections", n, clients)
			}
		}
		done.Wait()
		eventually(t, "all are gone", func() bool { return s.connCount() == 0 && len(s.perIPs()) == 0 })
	})
}

func (s *Server) perIPs() map[ipKey]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[ipKey]int)
	for k, v := range s.perIP {
		m[k] = v
	}
	return m
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

// Whatever bytes come: no panic, no hang, and others are served.
func FuzzBytes(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint8(3))
	f.Add(frame(0, 3, 1, []byte("abc")), uint8(1))
	f.Add(append(frame(3, 9, 1, nil), frame(18, 77, 2, nil)...), uint8(7))
	f.Add([]byte{0, 0, 0, 8, 0, 7, 0, 0, 0, 0, 0, 1}, uint8(2))
	var servers []*Server
	for _, portable := range []bool{false, true} {
		s, err := New(Config{
			Listeners: []Listener{{Address: "127.0.0.1:0"}},
			Handler:   testHandler(echo),
			Portable:  portable,
			Loops:     1,
			Limits:    Limits{MaxFrameBytes: 1 << 20, MaxInflightBytes: 1 << 20, MaxSlotsPerConn: 3},
		})
		if err != nil {
			f.Fatal(err)
		}
		go s.Serve()
		f.Cleanup(func() { s.Close() })
		servers = append(servers, s)
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		for _, s := range servers {
			cl := dial(t, s)
			var sending sync.WaitGroup
			sending.Go(func() {
				for rest := b; len(rest) > 0; {
					n := min(len(rest), 1+int(cut))
					if _, err := cl.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
				cl.Conn.(*net.TCPConn).CloseWrite()
			})
			if _, err := io.Copy(io.Discard, cl); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the connection was not closed")
			}
			sending.Wait()
			cl.Close()
			well := dial(t, s)
			well.send(frame(3, 3, 1, nil))
			well.receive()
			well.Close()
		}
	})
}
