package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quirelog/quire/protocol/buffer"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// kinds are the loops and networks that every test runs on.
var kinds = []struct {
	name     string
	portable bool
	network  string
}{
	{"epoll-tcp", false, "tcp"},
	{"epoll-unix", false, "unix"},
	{"portable-tcp", true, "tcp"},
	{"portable-unix", true, "unix"},
}

// patience bounds what must happen; nothing is asserted to take less.
const patience = time.Minute

func onEachKind(t *testing.T, f func(t *testing.T, c Config)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			address := "127.0.0.1:0"
			if k.network == "unix" {
				dir, err := os.MkdirTemp("", "quire")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { os.RemoveAll(dir) })
				address = filepath.Join(dir, "s")
			}
			f(t, Config{
				Listeners: []Listener{{Name: "PLAINTEXT", Network: k.network, Address: address}},
				Portable:  k.portable,
				Loops:     2,
			})
		})
	}
}

// testHandler accepts every key below 100 in version 0 to 9, flexible from 9 on.
type testHandler func(r *Request)

func (testHandler) Accepts(key, version int16) bool {
	return key >= 0 && key < 100 && version >= 0 && version <= 9
}
func (testHandler) FlexibleRequest(key, version int16) bool { return version >= 9 }
func (h testHandler) Handle(r *Request)                     { h(r) }

// echo answers a request with its correlation id and body.
func echo(r *Request) {
	r.Frame.Retain()
	head := binary.BigEndian.AppendUint32(nil, uint32(r.CorrelationID))
	r.Respond(Response{Parts: [][]byte{head, r.Body}, Release: r.Frame.Release})
}

// started are the servers that are open, and the bytes of buffers that were held before the
// first of them. Tests run one after another.
var started struct {
	open   int
	before int64
}

func start(t *testing.T, c Config, h testHandler) *Server {
	t.Helper()
	if started.open == 0 {
		started.before = buffer.InUseBytes()
	}
	c.Handler = h
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	started.open++
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		if n := s.budget.used.Load() + s.peers.used.Load(); n != 0 {
			t.Errorf("%d bytes are still reserved after Close", n)
		}
		// Those that are open still hold and release buffers as they like.
		started.open--
		if n := buffer.InUseBytes() - started.before; n != 0 && started.open == 0 {
			t.Errorf("%d bytes of buffers leaked", n)
		}
	})
	return s
}

// client is a Kafka client of few words.
type client struct {
	net.Conn
	t *testing.T
}

func dial(t *testing.T, s *Server) *client {
	t.Helper()
	a := s.listeners[0].Addr()
	c, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &client{c, t}
}

// frame returns a request with its size.
func frame(key, version int16, corr int32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(corr))
	b = binary.BigEndian.AppendUint16(b, 4)
	b = append(b, "test"...)
	if version >= 9 {
		b = append(b, 0)
	}
	b = append(b, body...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *client) receive() (corr int32, body []byte) {
	c.t.Helper()
	corr, body, err := c.tryReceive()
	if err != nil {
		c.t.Fatalf("receive: %v", err)
	}
	return corr, body
}

func (c *client) tryReceive() (corr int32, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 4 || size > 200<<20 {
		return 0, nil, fmt.Errorf("answer of %d bytes", size)
	}
	body = make([]byte, size-4)
	_, err = io.ReadFull(c, body)
	return int32(binary.BigEndian.Uint32(head[4:])), body, err
}

// wantEnd fails unless the server closes the connection without another answer.
func (c *client) wantEnd() {
	c.t.Helper()
	if corr, _, err := c.tryReceive(); err == nil {
		c.t.Fatalf("got an answer to %d instead of the end", corr)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the connection was not closed")
	}
}

func (c *client) closeWrite() {
	c.t.Helper()
	if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// eventually waits for what happens on other goroutines.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// onLoops runs f on every loop, with its connections, and waits.
func (s *Server) onLoops(f func(*loopState)) {
	var done sync.WaitGroup
	for _, l := range s.loops {
		done.Add(1)
		l.Post(task(func() {
			f(l.Local.(*loopState))
			done.Done()
		}))
	}
	done.Wait()
}

// pausedConns returns how many connections are not read from.
func (s *Server) pausedConns() int {
	var n atomic.Int32
	s.onLoops(func(st *loopState) {
		for c := range st.conns {
			if c.paused != 0 {
				n.Add(1)
			}
		}
	})
	return int(n.Load())
}

// openConns is how many connections the loops have; connCount counts those as well that
// are on their way to a loop.
func (s *Server) openConns() int {
	var n atomic.Int32
	s.onLoops(func(st *loopState) { n.Add(int32(len(st.conns))) })
	return int(n.Load())
}

func (s *Server) connCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

func pattern(n, seed int) []byte {
	const period = 1 << 16 // of what follows
	b := make([]byte, n)
	for i := range min(n, period) {
		b[i] = byte(i*7 + seed + i>>8)
	}
	for i := period; i < n; i += period {
		copy(b[i:], b[:period])
	}
	return b
}

func background(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
