package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/quirelog/quire/proxy/forward"
	"github.com/quirelog/quire/proxy/loop"
)

var peerSecret = []byte("a secret of the cluster's nodes!")

func identity(node int32) forward.Identity {
	return forward.Identity{Cluster: "c", Node: node, Incarnation: fmt.Sprintf("incarnation %d", node)}
}

// onBothLoops runs f with an owner's configuration on each kind of loop.
func onBothLoops(t *testing.T, f func(t *testing.T, c Config)) {
	for _, portable := range []bool{false, true} {
		t.Run(map[bool]string{false: "epoll", true: "portable"}[portable], func(t *testing.T) {
			f(t, Config{
				Listeners: []Listener{{Name: "PEER", Address: "127.0.0.1:0", Peer: &PeerAuth{Self: identity(1), Secret: peerSecret}}},
				Portable:  portable,
				Loops:     2,
			})
		})
	}
}

// peers returns the links of node 2, to the owner.
func peers(t *testing.T, owner *Server, change ...func(*forward.Config)) *forward.Peers {
	t.Helper()
	c := forward.Config{
		Self:   identity(2),
		Secret: peerSecret,
		Log:    zaptest.NewLogger(t),
		Nodes: func(node int32) (string, string, bool) {
			return owner.listeners[0].Addr().String(), identity(node).Incarnation, node == 1
		},
	}
	for _, f := range change {
		f(&c)
	}
	p, err := forward.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// What a test leaves open, it gives up.
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		p.Close(ctx)
	})
	return p
}

// called is a call and what became of it.
type called struct {
	forward.Call
	t    *testing.T
	done chan forward.Answer
}

func call(t *testing.T, stream uint64, frame []byte) *called {
	c := &called{t: t, done: make(chan forward.Answer, 2)}
	c.Message = [][]byte{frame[4:9], frame[9:]}
	c.Stream, c.Listener, c.RemoteAddr, c.Principal = stream, "PLAINTEXT", "198.51.100.7:4711", "User:alice"
	c.Timeout = patience
	c.Done = func(_ *forward.Call, a forward.Answer) { c.done <- a }
	return c
}

// answer waits for the end of the call.
func (c *called) answer() forward.Answer {
	c.t.Helper()
	select {
	case a := <-c.done:
		return a
	case <-time.After(patience):
		c.t.Fatal("the call never ended")
		panic("unreachable")
	}
}

// want waits for an answer with that correlation id and body.
func (c *called) want(corr int32, body []byte) {
	c.t.Helper()
	a := c.answer()
	if a.Status != forward.Answered {
		c.t.Fatalf("call ended with %d: %v", a.Status, a.Err)
	}
	defer a.Buf.Release()
	if got := int32(binary.BigEndian.Uint32(a.Message)); got != corr {
		c.t.Fatalf("got the answer to %d, want %d", got, corr)
	}
	if !bytes.Equal(a.Message[4:], body) {
		c.t.Fatalf("answer to %d has other bytes, %d of them", corr, len(a.Message)-4)
	}
}

func TestForwardedRequestComesWhole(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		type seen struct {
			Origin
			client  string
			message []byte
		}
		got := make(chan seen, 1)
		s := start(t, c, func(r *Request) {
			o := *r.Origin
			o.Slots = append([]forward.SlotEpoch(nil), o.Slots...)
			got <- seen{o, string([]byte(r.ClientID)), bytes.Clone(r.Message)}
			echo(r)
		})
		p := peers(t, s)
		for i, n := range []int{0, 1, 100, 4 << 10, 9 << 10, 64 << 10, 1 << 20, 1<<20 + 1, 5 << 20, 17 << 20} {
			body := pattern(n, i)
			f := frame(3, 3, int32(i), body)
			cl := call(t, 77, f)
			cl.Slots = []forward.SlotEpoch{{Slot: 5, Epoch: 1 << 40}, {Slot: 1023, Epoch: int64(n)}}
			p.Send(1, &cl.Call)
			cl.want(int32(i), body)
			o := <-got
			if o.Listener != "PLAINTEXT" || o.RemoteAddr != "198.51.100.7:4711" || o.Principal != "User:alice" || o.Stream != 77 || o.Node != 2 {
				t.Fatalf("origin is %+v", o.Origin)
			}
			if len(o.Slots) != 2 || o.Slots[0] != cl.Slots[0] || o.Slots[1] != cl.Slots[1] || o.Timeout != patience {
				t.Fatalf("origin is %+v", o.Origin)
			}
			if o.client != "test" || !bytes.Equal(o.message, f[4:]) {
				t.Fatalf("the request came as something else: client %q, %d bytes", o.client, len(o.message))
			}
		}
	})
}

func TestForwardedEnds(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		s := start(t, c, func(r *Request) {
			switch r.CorrelationID {
			case 1:
				r.NoResponse()
			case 2:
				r.Refuse()
			case 3:
				r.Drop(errors.New("bad manners"))
			default:
				echo(r)
			}
		})
		p := peers(t, s)
		for i, want := range []forward.Status{forward.Answered, forward.Silent, forward.NotServed, forward.Dropped, forward.Answered} {
			cl := call(t, 1, frame(3, 3, int32(i), nil))
			p.Send(1, &cl.Call)
			a := cl.answer()
			if a.Status != want || (want == forward.Dropped) != (a.Err != nil && a.Err.Error() == "bad manners") {
				t.Errorf("request %d ended with %d, %v; want %d", i, a.Status, a.Err, want)
			}
			if a.Buf != nil {
				a.Buf.Release()
			}
		}
		// What cannot be read closes the client's connection, and not the link.
		bad := call(t, 1, frame(3, 99, 0, nil))
		p.Send(1, &bad.Call)
		if a := bad.answer(); a.Status != forward.Dropped {
			t.Errorf("a version that is not accepted ended with %d, %v", a.Status, a.Err)
		}
		none := call(t, 1, frame(3, 3, 0, nil))
		p.Send(9, &none.Call)
		if a := none.answer(); !errors.Is(a.Err, forward.ErrUnreachable) {
			t.Errorf("a call to a node that is not there ended with %d, %v", a.Status, a.Err)
		}
	})
}

// Answers leave when they are ready, whatever the order of requests.
func TestForwardedAnswersOvertake(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		var h handled
		s := start(t, c, h.add)
		p := peers(t, s)
		var calls []*called
		for i := range 100 {
			cl := call(t, uint64(i%2), frame(0, 3, int32(i), pattern(i*300, i)))
			calls = append(calls, cl)
			p.Send(1, &cl.Call)
		}
		eventually(t, "all are handled", func() bool { return h.count() == len(calls) })
		for i := len(calls) - 1; i >= 0; i-- {
			echo(h.take(int32(i)))
			calls[i].want(int32(i), pattern(i*300, i))
		}
	})
}

// In a stream Produce overlaps with Produce and OffsetCommit with OffsetCommit,
// nothing else. Streams do not wait for each other.
func TestStreamsKeepTheirOrder(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		var h handled
		s := start(t, c, h.add)
		p := peers(t, s)
		var calls []*called
		keys := []int16{0, 0, 3, 0, 0, 1, 1, 8, 8, 0, 8}
		for i, k := range keys {
			cl := call(t, 5, frame(k, 3, int32(i), nil))
			calls = append(calls, cl)
			p.Send(1, &cl.Call)
		}
		want := func(n int) {
			t.Helper()
			eventually(t, fmt.Sprintf("%d requests handled", n), func() bool { return h.count() >= n })
			other := call(t, 6, frame(3, 3, 100, nil))
			p.Send(1, &other.Call)
			eventually(t, "a request of another stream", func() bool { return h.count() > n })
			echo(h.take(100))
			other.want(100, nil)
			h.mu.Lock()
			h.log = h.log[:len(h.log)-1]
			if len(h.log) != n {
				t.Fatalf("%d requests are handled, want %d: %v", len(h.log), n, h.log)
			}
			h.mu.Unlock()
		}
		want(2)
		echo(h.take(1))
		calls[1].want(1, nil)
		want(2)
		echo(h.take(0))
		want(3)
		echo(h.take(2))
		want(5)
		h.take(3).NoResponse()
		echo(h.take(4))
		want(6)
		echo(h.take(5))
		want(7)
		echo(h.take(6))
		want(9)
		echo(h.take(8))
		want(9)
		echo(h.take(7))
		want(10)
		echo(h.take(9))
		want(11)
		echo(h.take(10))
		for i, cl := range calls {
			if i == 1 {
				continue
			}
			if a := cl.answer(); a.Buf != nil {
				a.Buf.Release()
			}
		}
	})
}

// After Go nothing of the stream is handled until its function has returned,
// even if the request has been answered before; other streams go on.
func TestGoHoldsItsStreamOnly(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		var h handled
		proceed := make(chan bool)
		s := start(t, c, func(r *Request) {
			h.note(fmt.Sprint(r.CorrelationID))
			if r.CorrelationID != 1 {
				echo(r)
				return
			}
			r.Go(func() {
				echo(r)
				<-proceed
				h.note("returned")
			})
		})
		p := peers(t, s)
		var calls []*called
		for i := range 4 {
			cl := call(t, 5, frame(0, 3, int32(i), nil))
			calls = append(calls, cl)
			p.Send(1, &cl.Call)
		}
		calls[0].want(0, nil)
		calls[1].want(1, nil)
		for i := range 3 {
			other := call(t, 6, frame(0, 3, int32(10+i), nil))
			p.Send(1, &other.Call)
			other.want(int32(10+i), nil)
		}
		close(proceed)
		calls[2].want(2, nil)
		calls[3].want(3, nil)
		h.mu.Lock()
		defer h.mu.Unlock()
		if got, want := fmt.Sprint(h.log), "[0 1 10 11 12 returned 2 3]"; got != want {
			t.Errorf("order is %s, want %s", got, want)
		}
	})
}

func TestCancelDrainsOneRequest(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		parked := make(chan bool, 10)
		s := start(t, c, func(r *Request) {
			r.OnDrain(func() { echo(r) })
			parked <- true
		})
		p := peers(t, s)
		one, two := call(t, 1, frame(1, 3, 1, nil)), call(t, 1<<40, frame(1, 3, 2, nil))
		p.Send(1, &one.Call)
		p.Send(1, &two.Call)
		<-parked
		<-parked
		p.Cancel(&two.Call)
		two.want(2, nil)
		if len(one.done) > 0 {
			t.Error("the other request was drained too")
		}
		p.Cancel(&one.Call)
		one.want(1, nil)
		// At once behind its request.
		three := call(t, 1, frame(1, 3, 3, nil))
		p.Send(1, &three.Call)
		p.Cancel(&three.Call)
		three.want(3, nil)
	})
}

// The hooks of what is parked run when the link is gone; Done is told so.
func TestLinkIsLost(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		var closed sync.WaitGroup
		handled := make(chan bool, 10)
		s := start(t, c, func(r *Request) {
			closed.Add(1)
			r.OnClose(func() {
				echo(r)
				closed.Done()
			})
			handled <- true
		})
		p := peers(t, s)
		var calls []*called
		for i := range 3 {
			cl := call(t, uint64(i), frame(1, 3, int32(i), nil))
			calls = append(calls, cl)
			p.Send(1, &cl.Call)
			<-handled
		}
		s.onLoops(func(st *loopState) {
			for c := range st.conns {
				c.close(errServerClose)
			}
		})
		for _, cl := range calls {
			if a := cl.answer(); a.Status != forward.Failed || !errors.Is(a.Err, forward.ErrLost) {
				t.Errorf("ended with %d, %v", a.Status, a.Err)
			}
		}
		closed.Wait()
	})
}

// A node that shuts down answers what it has, and refuses what comes meanwhile
// without having done anything.
func TestShutdownLosesNothing(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		var done sync.Map
		s := start(t, c, func(r *Request) {
			done.Store(r.CorrelationID, true)
			r.Go(func() { echo(r) })
		})
		p := peers(t, s)
		ctx, stop := context.WithCancel(context.Background())
		var senders sync.WaitGroup
		for w := range 8 {
			senders.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					corr := int32(w<<24 | i)
					cl := call(t, uint64(w), frame(0, 3, corr, nil))
					p.Send(1, &cl.Call)
					a := cl.answer()
					if a.Buf != nil {
						a.Buf.Release()
					}
					_, carriedOut := done.Load(corr)
					switch {
					case a.Status == forward.Answered && carriedOut:
					case !carriedOut && (a.Status == forward.NotServed || errors.Is(a.Err, forward.ErrUnreachable)):
					default:
						t.Errorf("call ended with %d, %v; carried out: %v", a.Status, a.Err, carriedOut)
					}
				}
			})
		}
		eventually(t, "some calls", func() bool { return s.workers.length() >= 0 && connections(s) > 0 })
		if err := s.Shutdown(background(t)); err != nil {
			t.Error(err)
		}
		stop()
		senders.Wait()
	})
}

func connections(s *Server) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links
}

// A call that names a loop is answered on it.
func TestAnswerComesOnTheCallersLoop(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		s := start(t, c, echo)
		p := peers(t, s)
		for i := range 20 {
			cl := call(t, uint64(i), frame(0, 3, int32(i), nil))
			cl.Loop = s.loops[i%len(s.loops)]
			turn := make(chan bool, 1)
			cl.Done = func(_ *forward.Call, a forward.Answer) {
				// A task that is posted on the loop itself runs behind this.
				ended := false
				cl.Loop.Post(&loop.Task{Run: func() { turn <- ended }})
				for range 1000 {
					if len(turn) > 0 {
						break
					}
				}
				ended = true
				cl.done <- a
			}
			p.Send(1, &cl.Call)
			cl.want(int32(i), nil)
			if !<-turn {
				t.Fatal("Done was not called on the loop that was named")
			}
		}
	})
}

// TestClientsDoNotHoldTheBudgetOfLinks: what a node's own clients wait for other nodes
// with does not keep those from asking it, or all nodes would wait for each other.
func TestClientsDoNotHoldTheBudgetOfLinks(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		c.Listeners = append(c.Listeners, Listener{Name: "PLAINTEXT", Address: "127.0.0.1:0"})
		c.MaxInflightBytes = 1 << 20
		parked := make(chan *Request, 1)
		s := start(t, c, func(r *Request) {
			if r.Key == 1 {
				parked <- r
			} else {
				echo(r)
			}
		})
		for range 3 { // the last one may exceed it
			conn, err := net.Dial("tcp", s.listeners[1].Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(frame(1, 3, 0, make([]byte, 600<<10))); err != nil {
				t.Fatal(err)
			}
			defer func(r *Request) { echo(r) }(<-parked)
		}
		if s.budget.used.Load() < c.MaxInflightBytes || s.budget.over.Load() == nil {
			t.Fatal("the clients do not hold all of their budget")
		}
		body := pattern(100<<10, 1)
		forwarded := call(t, 7, frame(3, 3, 5, body))
		peers(t, s).Send(1, &forwarded.Call)
		forwarded.want(5, body)
	})
}
