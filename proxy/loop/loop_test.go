package loop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// onEachKind runs f on both kinds of loops and networks.
func onEachKind(t *testing.T, f func(t *testing.T, g Group, ln net.Listener)) {
	groups := map[string]func() (Group, error){
		"epoll":    func() (Group, error) { return Epoll(Config{Loops: 2}) },
		"portable": func() (Group, error) { return Portable(Config{Loops: 2}), nil },
	}
	for name, open := range groups {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(name+"-"+network, func(t *testing.T) {
				address := "127.0.0.1:0"
				if network == "unix" {
					address = filepath.Join(t.TempDir(), "s")
				}
				g, err := open()
				if errors.Is(err, ErrUnsupported) {
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				ln, err := Listen(network, address)
				if err != nil {
					t.Fatal(err)
				}
				f(t, g, ln)
			})
		}
	}
}

// scripted is a Handler made of functions; those that are nil do nothing.
type scripted struct {
	sock    Sock
	space   func() []byte
	filled  func(n int)
	eof     func()
	written func(n int)
	closed  chan error
}

func (h *scripted) Space() []byte { return h.space() }
func (h *scripted) Filled(n int)  { h.filled(n) }
func (h *scripted) EOF() {
	if h.eof != nil {
		h.eof()
	}
}
func (h *scripted) Written(n int) {
	if h.written != nil {
		h.written(n)
	}
}
func (h *scripted) Closed(err error) { h.closed <- err }

// serve starts accepting; the returned function ends it and the group.
func serve(t *testing.T, g Group, ln net.Listener, open func(Sock) Handler) (stop func()) {
	t.Helper()
	served := make(chan error, 1)
	go func() {
		served <- g.Serve(ln, Accept{Admit: func(net.Addr) bool { return true }, Open: open})
	}()
	return func() {
		ln.Close()
		if err := <-served; err == nil {
			t.Error("Serve ended without an error")
		}
		g.Close()
	}
}

func dial(t *testing.T, ln net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// Many parts, empty ones among them, arrive whole and in order although the
// socket takes them in pieces.
func TestWritevOfManyParts(t *testing.T) {
	onEachKind(t, func(t *testing.T, g Group, ln net.Listener) {
		var parts [][]byte
		var want []byte
		for i := range 3000 {
			p := bytes.Repeat([]byte{byte(i)}, i%1700)
			if i == 1000 {
				p = bytes.Repeat([]byte{77}, 5<<20)
			}
			parts = append(parts, p)
			want = append(want, p...)
		}
		h := &scripted{closed: make(chan error, 1)}
		rest := parts
		var send func()
		advance := func(n int) {
			for len(rest) > 0 && n >= len(rest[0]) {
				n -= len(rest[0])
				rest = rest[1:]
			}
			if n > 0 {
				rest[0] = rest[0][n:]
			}
		}
		send = func() {
			left := 0
			for _, p := range rest {
				left += len(p)
			}
			if left == 0 {
				h.sock.CloseWrite()
				return
			}
			n, err := h.sock.Writev(rest, true)
			if err != nil {
				t.Error(err)
				h.sock.Close(err)
				return
			}
			advance(n)
			if n == left {
				h.sock.CloseWrite()
			}
		}
		h.written = func(n int) { advance(n); send() }
		h.space = func() []byte { return make([]byte, 1) }
		h.eof = func() { h.sock.Close(io.EOF) }
		stop := serve(t, g, ln, func(s Sock) Handler {
			h.sock = s
			s.Loop().Post(&Task{Run: send})
			return h
		})
		defer stop()
		c := dial(t, ln)
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes of %d, %v", len(got), len(want), err)
		}
		c.Close()
		if err := <-h.closed; err != io.EOF {
			t.Error(err)
		}
	})
}

// While a connection is paused nothing is read; what came meanwhile is read after.
func TestPause(t *testing.T) {
	onEachKind(t, func(t *testing.T, g Group, ln net.Listener) {
		h := &scripted{closed: make(chan error, 1)}
		buf := make([]byte, 4)
		got := make(chan string, 10)
		h.space = func() []byte { return buf }
		h.filled = func(n int) {
			h.sock.Pause()
			got <- string(buf[:n])
		}
		h.eof = func() { h.sock.Close(io.EOF) }
		stop := serve(t, g, ln, func(s Sock) Handler {
			h.sock = s
			return h
		})
		defer stop()
		c := dial(t, ln)
		c.Write([]byte("aaaabbbbcccc"))
		c.Close()
		for _, want := range []string{"aaaa", "bbbb", "cccc"} {
			if s := <-got; s != want {
				t.Fatalf("read %q, want %q", s, want)
			}
			// The loop turns, and reads nothing.
			for range 10 {
				turn(h.sock.Loop())
			}
			if len(got) > 0 {
				t.Fatal("read although paused")
			}
			h.sock.Loop().Post(&Task{Run: h.sock.Resume})
		}
		if err := <-h.closed; err != io.EOF {
			t.Error(err)
		}
	})
}

func turn(l *Loop) {
	done := make(chan struct{})
	l.Post(&Task{Run: func() { close(done) }})
	<-done
}

// Close is allowed in every callback, and Closed comes once, after it.
func TestCloseInCallbacks(t *testing.T) {
	why := errors.New("closed by the test")
	for _, in := range []string{"open", "space", "filled", "eof", "task", "timer"} {
		t.Run(in, func(t *testing.T) {
			onEachKind(t, func(t *testing.T, g Group, ln net.Listener) {
				h := &scripted{closed: make(chan error, 2)}
				at := func(place string) {
					if in == place {
						h.sock.Close(why)
					}
				}
				buf := make([]byte, 10)
				h.space = func() []byte { at("space"); return buf }
				h.filled = func(int) { at("filled") }
				h.eof = func() { at("eof") }
				stop := serve(t, g, ln, func(s Sock) Handler {
					h.sock = s
					at("open")
					s.Loop().Post(&Task{Run: func() { at("task") }})
					s.Loop().After(time.Millisecond, func() { at("timer") })
					return h
				})
				c := dial(t, ln)
				if in != "timer" && in != "task" {
					c.Write([]byte("x"))
				}
				if in == "eof" {
					c.(interface{ CloseWrite() error }).CloseWrite()
				}
				if err := <-h.closed; err != why {
					t.Errorf("closed with %v", err)
				}
				stop()
				if len(h.closed) > 0 {
					t.Error("Closed was called twice")
				}
			})
		})
	}
}

func TestGroupClose(t *testing.T) {
	onEachKind(t, func(t *testing.T, g Group, ln net.Listener) {
		const conns = 20
		closed := make(chan error, conns)
		var open sync.WaitGroup
		open.Add(conns)
		stop := serve(t, g, ln, func(s Sock) Handler {
			open.Done()
			return &scripted{sock: s, closed: closed, space: func() []byte { return make([]byte, 1) }}
		})
		for range conns {
			dial(t, ln)
		}
		open.Wait()
		stop()
		for range conns {
			if err := <-closed; !errors.Is(err, ErrStopped) {
				t.Errorf("closed with %v", err)
			}
		}
		for _, l := range g.Loops() {
			if l.Post(&Task{Run: func() { t.Error("a task ran after the end") }}) {
				t.Error("a task was taken after the end")
			}
			if l.Conns() != 0 {
				t.Errorf("%d connections after the end", l.Conns())
			}
		}
	})
}

// Tasks run in the order of posting, all of them, and one that is posted while it runs
// runs again.
func TestPost(t *testing.T) {
	onEachKind(t, func(t *testing.T, g Group, ln net.Listener) {
		defer ln.Close()
		defer g.Close()
		l := g.Loops()[0]
		const producers, each = 8, 500
		next := make([]int, producers)
		var done sync.WaitGroup
		done.Add(producers * each)
		for p := range producers {
			go func() {
				for i := range each {
					l.Post(&Task{Run: func() {
						if next[p] != i {
							t.Errorf("task %d of producer %d ran as its %dth", i, p, next[p])
						}
						next[p]++
						done.Done()
					}})
					if i%50 == 0 {
						runtime.Gosched()
					}
				}
			}()
		}
		done.Wait()

		// Posted while it runs, it runs again.
		runs := 0
		again := &Task{}
		again.Run = func() {
			if runs++; runs < 5 {
				l.Post(again)
			}
		}
		l.Post(again)
		for range 5 { // each turn runs it once at least
			turn(l)
		}
		l.Post(&Task{Run: func() {
			if runs != 5 {
				t.Errorf("a task that posts itself ran %d times", runs)
			}
		}})
		turn(l)

		// A counter that many raise: the last raise is always seen.
		var raised atomic.Int64
		seen := make(chan int64, 1)
		look := &Task{}
		look.Run = func() {
			if n := raised.Load(); n == producers*each {
				select {
				case seen <- n:
				default:
				}
			}
		}
		for range producers {
			go func() {
				for range each {
					raised.Add(1)
					l.Post(look)
				}
			}()
		}
		select {
		case <-seen:
		case <-time.After(patience):
			t.Fatal("the last post was not seen")
		}
	})
}

func TestTimers(t *testing.T) {
	onEachKind(t, func(t *testing.T, g Group, ln net.Listener) {
		defer ln.Close()
		defer g.Close()
		l := g.Loops()[0]
		fired := make(chan int, 10)
		l.Post(&Task{Run: func() {
			for _, ms := range []int{30, 10, 20} {
				l.After(time.Duration(ms)*time.Millisecond, func() { fired <- ms })
			}
			stopped := l.After(15*time.Millisecond, func() { fired <- -1 })
			l.After(5*time.Millisecond, stopped.Stop)
		}})
		for _, want := range []int{10, 20, 30} {
			if got := <-fired; got != want {
				t.Fatalf("timer %d fired, want %d", got, want)
			}
		}
	})
}

func TestAcceptFailureIsReported(t *testing.T) {
	boom := errors.New("no connections today")
	ln := &failingListener{fail: 3, err: boom}
	g := Portable(Config{Loops: 1})
	defer g.Close()
	var told []time.Duration
	err := g.Serve(ln, Accept{Failed: func(err error, retry time.Duration) {
		if !errors.Is(err, boom) {
			t.Errorf("told of %v", err)
		}
		told = append(told, retry)
	}})
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve ended with %v", err)
	}
	if len(told) != 3 || told[1] <= told[0] || told[2] <= told[1] {
		t.Errorf("waits were %v", told)
	}
}

type failingListener struct {
	net.Listener
	fail int
	err  error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.fail--; l.fail < 0 {
		return nil, net.ErrClosed
	}
	return nil, l.err
}

// What is corked arrives, with the end.
func TestCork(t *testing.T) {
	onEachKind(t, func(t *testing.T, g Group, ln net.Listener) {
		h := &scripted{closed: make(chan error, 1)}
		h.space = func() []byte { return make([]byte, 1) }
		h.filled = func(int) {
			h.sock.Cork()
			n, err := h.sock.Writev([][]byte{[]byte("la"), []byte("st")}, true)
			if err != nil {
				t.Error(err)
			}
			if n > 0 {
				h.sock.CloseWrite()
			}
		}
		h.written = func(int) { h.sock.CloseWrite() }
		h.eof = func() { h.sock.Close(nil) }
		defer serve(t, g, ln, func(s Sock) Handler {
			h.sock = s
			return h
		})()
		c := dial(t, ln)
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != "last" {
			t.Errorf("read %q, %v", got, err)
		}
		c.Close()
		<-h.closed
	})
}

// The end of a stream is told also if it has come with its last bytes, and what
// was left unread, because a handler had paused or had its turn, is read in the end.
func TestNothingIsLeftBehind(t *testing.T) {
	onEachKind(t, func(t *testing.T, g Group, ln net.Listener) {
		const streams, size = 50, 3 * readBytesForTest
		ends := make(chan int, streams)
		stop := serve(t, g, ln, func(s Sock) Handler {
			h := &scripted{sock: s, closed: make(chan error, 1)}
			space, got, resume := make([]byte, 4096), 0, Task{}
			resume.Run = s.Resume
			h.space = func() []byte { return space }
			h.filled = func(n int) {
				if got += n; got%7 == 0 {
					s.Pause()
					s.Loop().Post(&resume)
				}
			}
			h.eof = func() {
				ends <- got
				s.Close(nil)
			}
			return h
		})
		defer stop()
		for i := range streams {
			c := dial(t, ln)
			n := size
			if i%2 == 0 {
				n = 100 + i
			}
			if _, err := c.Write(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-ends:
				if got != n {
					t.Fatalf("of %d bytes %d were read", n, got)
				}
			case <-time.After(patience):
				t.Fatalf("the end of a stream of %d bytes was not told", n)
			}
		}
	})
}

// readBytesForTest is more than a socket may read in one turn of an epoll loop.
const readBytesForTest = 600 << 10
