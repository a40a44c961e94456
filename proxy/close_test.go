package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/quirelog/quire/protocol/buffer"
)

// largeAnswer is what large answers, after the correlation id.
var largeAnswer = sync.OnceValue(func() []byte { return pattern(17<<20-4, 31) })

// large answers with 17 MiB and the byte of the correlation id.
func large(r *Request) {
	b := buffer.Get(17 << 20)
	b.B[0], b.B[1], b.B[2], b.B[3] = 0, 0, 0, byte(r.CorrelationID)
	copy(b.B[4:], largeAnswer())
	r.Respond(Response{Parts: [][]byte{b.B}, Release: b.Release})
}

func (c *client) wantLarge(corr int32) {
	c.t.Helper()
	got, body := c.receive()
	if got != corr || len(body) != len(largeAnswer()) {
		c.t.Fatalf("answer to %d with %d bytes", got, len(body))
	}
	if !bytes.Equal(body, largeAnswer()) {
		c.t.Fatal("an answer of other bytes")
	}
}

// However the end begins, answers that are owed arrive whole before it.
func TestEndDeliversPendingAnswers(t *testing.T) {
	ends := map[string]func(t *testing.T, s *Server, cl *client){
		"half-close": func(t *testing.T, s *Server, cl *client) { cl.closeWrite() },
		"bad frame": func(t *testing.T, s *Server, cl *client) {
			cl.send([]byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5})
			eventually(t, "the server reads no more", func() bool { return s.pausedConns() == 1 })
			// If these were never read, the end would be a reset, which
			// destroys what the client has yet to get.
			cl.send(make([]byte, 50<<10))
		},
		"drop":    func(t *testing.T, s *Server, cl *client) { cl.send(frame(66, 0, 2, make([]byte, 50<<10))) },
		"unknown": func(t *testing.T, s *Server, cl *client) { cl.send(frame(3, 55, 2, nil)) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			onEachKind(t, func(t *testing.T, c Config) {
				s := start(t, c, func(r *Request) {
					if r.Key == 66 {
						r.Drop(errors.New("dropped by the test"))
						return
					}
					large(r)
				})
				cl := dial(t, s)
				cl.send(frame(3, 3, 1, nil))
				eventually(t, "the answer fills the socket", func() bool { return s.blockedConns() == 1 })
				end(t, s, cl)
				cl.wantLarge(1)
				cl.wantEnd()
				cl.Close()
				eventually(t, "the connection is gone", func() bool { return s.connCount() == 0 })
			})
		})
	}
}

func (s *Server) blockedConns() int {
	n := 0
	var mu sync.Mutex
	s.onLoops(func(st *loopState) {
		mu.Lock()
		defer mu.Unlock()
		for c := range st.conns {
			if c.out.blocked && c.len() > 0 {
				n++
			}
		}
	})
	return n
}

func TestHalfCloseWaitsForAnswer(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		parked := make(chan *Request, 2)
		s := start(t, c, func(r *Request) { parked <- r })
		cl := dial(t, s)
		cl.send(append(frame(0, 3, 1, nil), frame(3, 3, 2, nil)...))
		first := <-parked
		cl.closeWrite()
		eventually(t, "the server has seen it", func() bool {
			n := 0
			s.onLoops(func(st *loopState) {
				for c := range st.conns {
					if c.eof {
						n = 1
					}
				}
			})
			return n == 1
		})
		echo(first)
		echo(<-parked)
		cl.receive()
		if corr, _ := cl.receive(); corr != 2 {
			t.Fatal("the second answer is wrong")
		}
		cl.wantEnd()
	})
}

// A loop does not spin on a peer that has closed its side, or is gone, while
// an answer is under way or the connection is paused.
func TestNoSpinOnHangup(t *testing.T) {
	for name, close := range map[string]func(*client){
		"half": func(cl *client) { cl.closeWrite() },
		"full": func(cl *client) { cl.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			onEachKind(t, func(t *testing.T, c Config) {
				var turns atomic.Int64
				c.now = func() time.Time {
					turns.Add(1)
					return time.Now()
				}
				c.MaxSlotsPerConn = 1
				parked := make(chan *Request, 1)
				s := start(t, c, func(r *Request) { parked <- r })
				reading, paused := dial(t, s), dial(t, s)
				reading.send(frame(3, 3, 1, nil))
				first := <-parked
				paused.send(append(frame(3, 3, 1, nil), frame(3, 3, 2, nil)...))
				second := <-parked
				eventually(t, "one is paused", func() bool { return s.pausedConns() == 1 })
				close(reading)
				close(paused)
				eventually(t, "the loops sleep", func() bool {
					before := turns.Load()
					// That a loop does not turn is no event; it is seen by looking twice.
					time.Sleep(20 * time.Millisecond)
					return turns.Load() == before
				})
				first.NoResponse()
				second.NoResponse()
				// What the paused one had sent is handled before its end is seen.
				(<-parked).NoResponse()
				eventually(t, "both are gone", func() bool { return s.connCount() == 0 })
			})
		})
	}
}

func TestAbruptClose(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		parked := make(chan *Request, 1)
		closed := make(chan bool, 1)
		s := start(t, c, func(r *Request) {
			r.OnClose(func() { closed <- true })
			parked <- r
		})
		cl := dial(t, s)
		cl.send(frame(3, 3, 1, nil))
		r := <-parked
		released := make(chan bool, 1)
		if tc, ok := cl.Conn.(*net.TCPConn); ok {
			tc.SetLinger(0) // a reset
		}
		cl.Close()
		if tc, ok := cl.Conn.(*net.TCPConn); ok && tc != nil {
			<-closed
		}
		// The handler answers as if nothing had happened.
		r.Respond(Response{Parts: [][]byte{{0, 0, 0, 1}}, Release: func() { released <- true }})
		<-released
		eventually(t, "the connection is gone", func() bool { return s.connCount() == 0 })
	})
}

func TestPostAndTimers(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		s := start(t, c, func(r *Request) {
			stopped := r.After(time.Millisecond, func() { t.Error("a stopped timer fired") })
			stopped.Stop()
			r.After(2*time.Millisecond, func() {
				stopped.Stop()
				go r.Post(func() { echo(r) })
			})
		})
		cl := dial(t, s)
		for i := range 3 {
			cl.send(frame(3, 3, int32(i), nil))
			if corr, _ := cl.receive(); corr != int32(i) {
				t.Fatalf("answer to %d", corr)
			}
		}
	})
}

// Requests that wait for something answer early when the server shuts down,
// and what was received is answered before the end.
func TestShutdown(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		var parked sync.WaitGroup
		parked.Add(1)
		s := start(t, c, func(r *Request) {
			switch r.Key {
			case 1: // a long poll
				r.OnDrain(func() { echo(r) })
				parked.Done()
			case 2:
				go func() { // work under way
					for !s0(r).leaving.Load() {
						runtime.Gosched()
					}
					echo(r)
				}()
			default:
				large(r)
			}
		})
		poll, work, fetch, idle := dial(t, s), dial(t, s), dial(t, s), dial(t, s)
		poll.send(append(frame(1, 3, 1, nil), frame(3, 3, 2, nil)...))
		work.send(frame(2, 3, 3, nil))
		fetch.send(frame(3, 3, 4, nil))
		parked.Wait()
		settled(s, 4)
		eventually(t, "the large answer fills the socket", func() bool { return s.blockedConns() == 1 })
		var reading sync.WaitGroup
		reading.Go(func() {
			if corr, _ := poll.receive(); corr != 1 {
				t.Errorf("the poll got the answer to %d", corr)
			}
			poll.wantLarge(2)
			poll.wantEnd()
			poll.Close()
			if corr, _ := work.receive(); corr != 3 {
				t.Errorf("the work got the answer to %d", corr)
			}
			work.wantEnd()
			work.Close()
			fetch.wantLarge(4)
			fetch.wantEnd()
			fetch.Close()
			idle.wantEnd()
			idle.Close()
		})
		if err := s.Shutdown(background(t)); err != nil {
			t.Error(err)
		}
		reading.Wait()
		if c, err := net.Dial(s.listeners[0].Addr().Network(), s.listeners[0].Addr().String()); err == nil {
			c.Close()
			t.Error("a connection after Shutdown")
		}
	})
}

func s0(r *Request) *Server { return r.Conn.server }

func TestShutdownOutOfTime(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		closed := make(chan bool)
		s := start(t, c, func(r *Request) {
			r.OnClose(func() {
				r.NoResponse()
				close(closed)
			})
		})
		cl := dial(t, s)
		cl.send(frame(1, 3, 1, nil))
		settled(s, 1)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Shutdown: %v", err)
		}
		<-closed
		cl.wantEnd()
	})
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(s *Server, d time.Duration) {
	c.mu.Lock()
	c.t = c.t.Add(d)
	c.mu.Unlock()
	// The first turn sees the new time, the second what came of it.
	for range 2 {
		s.onLoops(func(*loopState) {})
	}
}

func TestIdleTimeout(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		clk := &clock{t: time.Unix(1000, 0)}
		c.now = clk.now
		c.IdleTimeout = time.Hour
		parked := make(chan *Request, 1)
		s := start(t, c, func(r *Request) {
			if r.Key == 1 {
				parked <- r
			} else {
				echo(r)
			}
		})
		idle, active, waiting := dial(t, s), dial(t, s), dial(t, s)
		eventually(t, "all are on their loops", func() bool { return s.openConns() == 3 })
		waiting.send(frame(1, 3, 9, nil))
		r := <-parked
		clk.advance(s, 50*time.Minute)
		active.send(frame(3, 3, 1, nil))
		active.receive()
		clk.advance(s, 15*time.Minute)
		idle.wantEnd()
		active.send(frame(3, 3, 2, nil))
		active.receive()
		clk.advance(s, 59*time.Minute)
		active.send(frame(3, 3, 3, nil))
		active.receive()
		// A request that waits is not idle, for however long.
		echo(r)
		waiting.receive()
		// The end of the last write may be seen after the clock has moved.
		eventually(t, "both are closed", func() bool {
			clk.advance(s, 61*time.Minute)
			return s.connCount() == 0
		})
		active.wantEnd()
		waiting.wantEnd()
	})
}

// A frame that drips is closed, one that makes progress is not, whatever its size.
func TestSlowFrame(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		clk := &clock{t: time.Unix(1000, 0)}
		c.now = clk.now
		c.FrameTimeout = 10 * time.Second
		c.MinFrameProgressBytes = 1000
		s := start(t, c, echo)
		slow, steady, head, fine := dial(t, s), dial(t, s), dial(t, s), dial(t, s)
		f := frame(3, 3, 5, pattern(20000, 0))
		got := func() (n int) {
			var mu sync.Mutex
			s.onLoops(func(st *loopState) {
				mu.Lock()
				defer mu.Unlock()
				for c := range st.conns {
					n += c.in.got + c.in.headN
				}
			})
			return n
		}
		slow.send(f[:104])
		steady.send(f[:104])
		head.send(f[:1])
		eventually(t, "the beginnings have come", func() bool { return got() == 104+104+1 })
		clk.advance(s, 9*time.Second)
		slow.send(f[104:200])
		steady.send(f[104:2000])
		eventually(t, "some more has come", func() bool { return got() == 200+2000+1 })
		clk.advance(s, 2*time.Second)
		slow.wantEnd()
		head.wantEnd()
		clk.advance(s, 9*time.Second)
		steady.send(f[2000:])
		if corr, body := steady.receive(); corr != 5 || len(body) != 20000 {
			t.Fatal("the steady frame came back wrong")
		}
		clk.advance(s, time.Minute)
		fine.send(f)
		if corr, _ := fine.receive(); corr != 5 {
			t.Fatal("a connection that was silent before its first byte is not served")
		}
	})
}

// Bytes that are no frames of Kafka close the connection, with a line in the
// log that says what they look like.
func TestBadFrames(t *testing.T) {
	bad := map[string]struct {
		bytes []byte
		log   string
	}{
		"negative":     {[]byte{0x80, 0, 0, 0, 0, 3}, ""},
		"zero":         {[]byte{0, 0, 0, 0}, ""},
		"tiny":         {[]byte{0, 0, 0, 7, 0, 3, 0, 0, 0, 0, 0}, ""},
		"huge":         {[]byte{0x7f, 0xff, 0xff, 0xff}, ""},
		"over":         {[]byte{0x06, 0x40, 0, 1}, ""},
		"http":         {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP"},
		"http2":        {[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "HTTP"},
		"tls":          {[]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, "TLS"},
		"proxy":        {[]byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), "PROXY"},
		"client id":    {[]byte{0, 0, 0, 12, 0, 3, 0, 3, 0, 0, 0, 1, 0x7f, 0xff, 'a', 'b'}, ""},
		"cut header":   {[]byte{0, 0, 0, 9, 0, 3, 0, 3, 0, 0, 0, 1, 0}, ""},
		"unknown key":  {frame(101, 0, 1, nil), ""},
		"negative key": {frame(-1, 0, 1, nil), ""},
		"version":      {frame(3, 10, 1, nil), ""},
		"tags":         {append(frame(3, 9, 1, nil)[:18], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), ""},
	}
	bad["tags"].bytes[3] = byte(len(bad["tags"].bytes) - 4)
	for name, b := range bad {
		t.Run(name, func(t *testing.T) {
			onEachKind(t, func(t *testing.T, c Config) {
				core, logs := observer.New(zap.DebugLevel)
				c.Log = zap.New(core)
				s := start(t, c, echo)
				cl := dial(t, s)
				cl.send(frame(3, 3, 1, nil))
				cl.receive()
				if b.log != "" {
					cl = dial(t, s)
				}
				cl.send(b.bytes)
				cl.wantEnd()
				cl.Close()
				eventually(t, "the end is logged", func() bool { return logs.FilterMessage("connection closed").Len() > 0 })
				warned := logs.FilterLevelExact(zap.WarnLevel).All()
				if b.log == "" {
					return
				}
				if len(warned) != 1 {
					t.Fatalf("%d warnings", len(warned))
				}
				if hint, _ := warned[0].ContextMap()["hint"].(string); !bytes.Contains([]byte(hint), []byte(b.log)) {
					t.Errorf("the hint is %q", hint)
				}
			})
		})
	}
}

// ApiVersions is handed on in any version, however its header goes on.
func TestAPIVersionsOfTheFuture(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		s := start(t, c, func(r *Request) {
			if r.Key != 18 || r.Version != 77 {
				t.Errorf("key %d version %d", r.Key, r.Version)
			}
			echo(r)
		})
		cl := dial(t, s)
		f := frame(18, 77, 5, nil)
		f[len(f)-1] = 0x85 // tags that the frame does not hold
		cl.send(f)
		if corr, _ := cl.receive(); corr != 5 {
			t.Fatalf("answer to %d", corr)
		}
	})
}

// One byte at a time, all sizes of headers and frames.
func TestDrip(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		s := start(t, c, echo)
		cl := dial(t, s)
		var stream []byte
		for i := range 30 {
			stream = append(stream, frame(int16(i%2)*3, 3, int32(i), pattern(i*3, i))...)
		}
		go func() {
			for i := range stream {
				if _, err := cl.Write(stream[i : i+1]); err != nil {
					return
				}
			}
		}()
		for i := range 30 {
			if corr, body := cl.receive(); corr != int32(i) || !bytes.Equal(body, pattern(i*3, i)) {
				t.Fatalf("answer %d is to %d", i, corr)
			}
		}
		cl.closeWrite()
		if _, err := io.ReadFull(cl, make([]byte, 1)); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	})
}
