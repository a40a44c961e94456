package proxy

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/protocol/buffer"
)

// A client that sends without end is stopped at each of the limits, and goes
// on when there is room again: nothing is lost.
func TestFloodStopsAtLimit(t *testing.T) {
	limits := map[string]struct {
		limits Limits
		size   int
		most   int // requests that are handled
	}{
		"slots":    {Limits{MaxSlotsPerConn: 8}, 10, 8},
		"inflight": {Limits{MaxInflightBytesPerConn: 100 << 10}, 30 << 10, 4},
		"process":  {Limits{MaxInflightBytes: 100 << 10}, 30 << 10, 4},
		"large":    {Limits{MaxInflightBytes: 100 << 10}, 3 << 20, 1},
	}
	for name, l := range limits {
		t.Run(name, func(t *testing.T) {
			onEachKind(t, func(t *testing.T, c Config) {
				c.Limits = l.limits
				var mu sync.Mutex
				var parked []*Request
				open := false
				s := start(t, c, func(r *Request) {
					mu.Lock()
					defer mu.Unlock()
					if open {
						echo(r)
					} else {
						parked = append(parked, r)
					}
				})
				cl := dial(t, s)
				// Small enough to fill limits exactly, large enough that
				// the system's buffers do not take the flood.
				requests := 40
				if l.size > 1<<20 {
					requests = 8
				}
				var sending sync.WaitGroup
				sending.Go(func() {
					for i := range requests {
						if _, err := cl.Write(frame(0, 3, int32(i), pattern(l.size, i))); err != nil {
							return
						}
					}
				})
				eventually(t, "the connection is paused", func() bool { return s.pausedConns() == 1 })
				mu.Lock()
				n := len(parked)
				mu.Unlock()
				if n == 0 || n > l.most {
					t.Fatalf("%d requests are in flight, want 1 to %d", n, l.most)
				}
				mu.Lock()
				open = true
				for _, r := range parked {
					echo(r)
				}
				mu.Unlock()
				for i := range requests {
					corr, body := cl.receive()
					if corr != int32(i) || !bytes.Equal(body, pattern(l.size, i)) {
						t.Fatalf("answer %d is to request %d", i, corr)
					}
				}
				sending.Wait()
				if n := s.pausedConns(); n != 0 {
					t.Fatal("the connection is still paused")
				}
			})
		})
	}
}

// A client that never reads makes the server stop reading from it, at the
// price of about its limit, and gets everything when it reads after all.
func TestClientThatDoesNotRead(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.MaxUnsentBytesPerConn = 1 << 20
		s := start(t, c, func(r *Request) {
			b := buffer.Get(200 << 10)
			b.B[0], b.B[1], b.B[2], b.B[3] = 0, 0, 0, byte(r.CorrelationID)
			r.Respond(Response{Parts: [][]byte{b.B}, Release: b.Release})
		})
		before := buffer.InUseBytes()
		cl := dial(t, s)
		var sending sync.WaitGroup
		sending.Go(func() {
			for i := range 200 {
				if _, err := cl.Write(frame(3, 3, int32(i), nil)); err != nil {
					return
				}
			}
		})
		eventually(t, "the connection is paused", func() bool { return s.pausedConns() == 1 })
		if held := buffer.InUseBytes() - before; held > 3<<20 {
			t.Errorf("%d bytes are held for a client that does not read", held)
		}
		for i := range 200 {
			if corr, body := cl.receive(); corr != int32(i) || len(body) != 200<<10-4 {
				t.Fatalf("answer %d is to %d", i, corr)
			}
		}
		sending.Wait()
	})
}

// Frames that cannot grow since all memory is held by others like them are
// finished one after the other.
func TestBudgetHeldByPartialFrames(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.MaxInflightBytes = 4 << 20
		s := start(t, c, echo)
		const clients, size = 8, 3 << 20
		begun := make(chan struct{})
		var done sync.WaitGroup
		for i := range clients {
			cl := dial(t, s)
			done.Go(func() {
				b := frame(3, 3, int32(i), pattern(size, i))
				cl.Write(b[:900<<10])
				<-begun
				cl.Write(b[900<<10:])
				corr, body, err := cl.tryReceive()
				if err != nil || corr != int32(i) || !bytes.Equal(body, pattern(size, i)) {
					t.Errorf("client %d: answer to %d of %d bytes, %v", i, corr, len(body), err)
				}
			})
		}
		eventually(t, "the budget is used up by beginnings", func() bool {
			return s.budget.used.Load() >= c.MaxInflightBytes && s.budget.waiting.Load() > 0
		})
		close(begun)
		done.Wait()
	})
}

// Clients that do not read their answers do not hold the budget of all.
func TestBudgetIsNotHeldByAnswers(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.MaxInflightBytes = 1 << 20
		s := start(t, c, large)
		for range 3 {
			cl := dial(t, s)
			cl.send(frame(3, 3, 1, nil))
			var sent sync.WaitGroup
			defer sent.Wait()
			defer cl.Close()
			sent.Go(func() { cl.Write(frame(3, 3, 1, make([]byte, 2<<20))) })
		}
		eventually(t, "all answers wait", func() bool { return s.blockedConns() == 3 })
		cl := dial(t, s)
		cl.send(frame(3, 3, 1, make([]byte, 2<<20)))
		cl.wantLarge(1)
	})
}

// A connection that waits for memory, and when there is some may not read more since its
// client has not read its answers, keeps nobody waiting.
func TestBudgetPassesWhoMayNotRead(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.MaxInflightBytes = 1 << 20
		parked := make(chan *Request, 1)
		s := start(t, c, func(r *Request) {
			if r.Key == 1 {
				parked <- r
			} else {
				echo(r)
			}
		})
		full := dial(t, s)
		full.send(frame(1, 3, 0, nil))
		first := <-parked
		busy := dial(t, s)
		busy.send(frame(1, 3, 0, make([]byte, 1<<20-14))) // all of the budget, and no more
		defer func(r *Request) { echo(r) }(<-parked)
		full.send(frame(3, 3, 1, nil))
		eventually(t, "it waits", func() bool { return s.budget.waiting.Load() == 1 })
		waiting := dial(t, s)
		waiting.send(frame(3, 3, 7, nil))
		eventually(t, "another one waits", func() bool { return s.budget.waiting.Load() == 2 })
		large(first)
		if corr, _ := waiting.receive(); corr != 7 {
			t.Fatalf("answer to %d", corr)
		}
		full.wantLarge(0)
		full.receive()
	})
}

// Frames that are begun and hardly go on do not keep others waiting for what they hold.
func TestBudgetHeldBySlowFrames(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		clk := &clock{t: time.Unix(1000, 0)}
		c.now = clk.now
		c.FrameTimeout, c.MinFrameProgressBytes = 10*time.Second, 1000
		c.MaxInflightBytes = 2 << 20
		s := start(t, c, echo)
		f := frame(3, 3, 0, pattern(10<<10, 0))
		f[0] = 5 // of 80 MiB
		var slow []*client
		for range 3 {
			slow = append(slow, dial(t, s))
			slow[len(slow)-1].send(f[:100])
		}
		eventually(t, "three have begun", func() bool { return s.budget.used.Load() == 3<<20 })
		waiting := dial(t, s)
		waiting.send(frame(3, 3, 7, nil))
		eventually(t, "another one waits", func() bool { return s.budget.waiting.Load() == 1 })
		for _, cl := range slow {
			cl.send(f[100:])
		}
		clk.advance(s, 11*time.Second)
		if corr, _ := waiting.receive(); corr != 7 {
			t.Fatalf("answer to %d", corr)
		}
	})
}

// A connection that may exceed the budget and dies passes the right on.
func TestBudgetHolderDies(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.MaxInflightBytes = 1 << 20
		parked := make(chan *Request, 1)
		s := start(t, c, func(r *Request) {
			if r.Key == 1 {
				parked <- r
			} else {
				echo(r)
			}
		})
		const size = 3 << 20
		// Something holds most of the budget all the time.
		busy := dial(t, s)
		busy.send(frame(1, 3, 0, make([]byte, 700<<10)))
		defer func(r *Request) { echo(r) }(<-parked)
		holder := dial(t, s)
		holder.send(frame(3, 3, 0, pattern(size, 0))[:2<<20])
		// Its first buffer alone uses the budget up; the right is given at the next.
		eventually(t, "the holder may exceed", func() bool { return s.budget.over.Load() != nil })
		waiting := dial(t, s)
		var sent sync.WaitGroup
		sent.Go(func() { waiting.Write(frame(3, 3, 1, pattern(size, 1))) })
		eventually(t, "the other waits", func() bool { return s.budget.waiting.Load() == 1 })
		gone := dial(t, s)
		sent.Go(func() { gone.Write(frame(3, 3, 1, pattern(size, 1))) })
		eventually(t, "a third waits", func() bool { return s.budget.waiting.Load() == 2 })
		last := dial(t, s)
		sent.Go(func() { last.Write(frame(3, 3, 2, pattern(size, 2))) })
		eventually(t, "a fourth waits", func() bool { return s.budget.waiting.Load() == 3 })
		resetConn(gone)
		if !c.Portable && c.Listeners[0].Network == "tcp" {
			// Others notice it when they read.
			eventually(t, "the third is gone", func() bool { return s.connCount() == 4 })
		}
		holder.Close()
		if corr, body := last.receive(); corr != 2 || len(body) != size {
			t.Fatalf("answer to %d of %d bytes", corr, len(body))
		}
		if corr, body := waiting.receive(); corr != 1 || len(body) != size {
			t.Fatalf("answer to %d of %d bytes", corr, len(body))
		}
		sent.Wait()
	})
}

func TestClaimedBytesAreNotAllocated(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		s := start(t, c, echo)
		before := buffer.InUseBytes()
		for range 20 {
			dial(t, s).send([]byte{6, 0, 0, 0, 0, 3, 0, 3, 0, 0}) // 96 MiB to come
		}
		eventually(t, "all frames have begun", func() bool {
			n := 0
			var mu sync.Mutex
			s.onLoops(func(st *loopState) {
				mu.Lock()
				defer mu.Unlock()
				for c := range st.conns {
					if c.in.frame != nil {
						n++
					}
				}
			})
			return n == 20
		})
		if held := buffer.InUseBytes() - before; held > 20<<20+1<<20 {
			t.Fatalf("20 claims of 96 MiB hold %d bytes", held)
		}
	})
}

func TestMaxConnections(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.MaxConnections = 2
		s := start(t, c, echo)
		a, b := dial(t, s), dial(t, s)
		for _, cl := range []*client{a, b} {
			cl.send(frame(3, 3, 1, nil))
			cl.receive()
		}
		dial(t, s).wantEnd()
		a.Close()
		eventually(t, "one is gone", func() bool { return s.connCount() == 1 })
		again := dial(t, s)
		again.send(frame(3, 3, 7, nil))
		if corr, _ := again.receive(); corr != 7 {
			t.Fatal("a connection below the limit is not served")
		}
	})
}

func TestMaxConnectionsPerIP(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.MaxConnectionsPerIP = 1
		s := start(t, c, echo)
		first, second := dial(t, s), dial(t, s)
		first.send(frame(3, 3, 1, nil))
		first.receive()
		if c.Listeners[0].Network == "unix" {
			second.send(frame(3, 3, 1, nil))
			second.receive()
			return
		}
		second.wantEnd()
		// Another address of this host is another client.
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		nc, err := d.Dial("tcp", s.Addr("PLAINTEXT").String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(patience))
		other := &client{nc, t}
		other.send(frame(3, 3, 1, nil))
		other.receive()
		first.Close()
		eventually(t, "the address is free", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.perIP) == 1
		})
	})
}

// resetConn closes c so that the server learns of it although it does not read.
func resetConn(c *client) {
	if tc, ok := c.Conn.(*net.TCPConn); ok {
		tc.SetLinger(0)
	}
	c.Close()
}
