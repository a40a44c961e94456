package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
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
		counted := make(chan struct{}) // closed when the loops' connections are
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
						<-counted
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
		close(counted)
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
