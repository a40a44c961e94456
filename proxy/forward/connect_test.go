package forward

import (
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quirelog/quire/proxy/loop"
)

// A node that takes connections and says nothing, as one that is stopped does, costs no
// more than the time to dial it, with TLS and without.
func TestSilentNode(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for name, secured := range map[string]*tls.Config{"plain": nil, "tls": {}} {
		t.Run(name, func(t *testing.T) {
			p := newPeers(t, ln, func(c *Config) { c.TLS, c.DialTimeout = secured, 10*time.Millisecond })
			for i := range uint64(20) {
				ended := make(chan Answer, 1)
				c := &Call{Message: [][]byte{request(1, 0)}, Stream: i, Timeout: patience, Done: func(_ *Call, a Answer) { ended <- a }}
				p.Send(1, c)
				if a := <-ended; !errors.Is(a.Err, ErrUnreachable) {
					t.Fatalf("ended with %d, %v", a.Status, a.Err)
				}
			}
		})
	}
}

// Whoever gives a call up need not know whether it has been sent yet.
func TestCancelBesideSend(t *testing.T) {
	u := newUnreliable(t, 1, false)
	t.Cleanup(u.close) // when nothing is connected any more
	p := newPeers(t, u.ln, func(*Config) {})
	for i := range 100 {
		ended := make(chan Answer, 1)
		c := &Call{Message: [][]byte{request(uint32(i), 0)}, Timeout: patience, Done: func(_ *Call, a Answer) { ended <- a }}
		var cancelled sync.WaitGroup
		cancelled.Go(func() { p.Cancel(c) })
		p.Send(1, c)
		cancelled.Wait()
		p.Cancel(c) // the first may have come too early
		a := <-ended
		if a.Status > Silent {
			t.Fatalf("call %d ended with %d, %v", i, a.Status, a.Err)
		}
		if a.Buf != nil {
			a.Buf.Release()
		}
	}
}

// Calls of a connection whose loop has ended end, before or after there was a link on it.
func TestLoopHasEnded(t *testing.T) {
	u := newUnreliable(t, 1, false)
	t.Cleanup(u.close)
	p := newPeers(t, u.ln, func(*Config) {})
	for _, used := range []bool{false, true} {
		g := loop.Portable(loop.Config{Loops: 1})
		send := func() Answer {
			ended := make(chan Answer, 1)
			c := &Call{Message: [][]byte{request(1, 0)}, Timeout: patience, Loop: g.Loops()[0], Done: func(_ *Call, a Answer) { ended <- a }}
			p.Send(1, c)
			p.Cancel(c)
			a := <-ended
			if a.Buf != nil {
				a.Buf.Release()
			}
			return a
		}
		if used {
			if a := send(); a.Status > Silent {
				t.Fatalf("ended with %d, %v", a.Status, a.Err)
			}
		}
		g.Close()
		for range 3 {
			if a := send(); !errors.Is(a.Err, ErrUnreachable) {
				t.Fatalf("ended with %d, %v", a.Status, a.Err)
			}
		}
	}
}

// newPeers returns links of node two, to what listens as node one.
func newPeers(t *testing.T, ln net.Listener, change func(*Config)) *Peers {
	c := Config{
		Self: nodeTwo, Secret: secret,
		Nodes: func(node int32) (string, string, bool) { return ln.Addr().String(), nodeOne.Incarnation, node == 1 },
	}
	change(&c)
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(t.Context()); err != nil && !errors.Is(err, t.Context().Err()) {
			t.Error(err)
		}
	})
	return p
}

// What this node has given up with a link does not reach the other side any more, however
// slowly that reads: the system forgets it, and says so.
func TestClosedLinkForgets(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var gone atomic.Bool // the process that listens is another one
	p := newPeers(t, ln, func(c *Config) {
		nodes := c.Nodes
		c.Nodes = func(node int32) (string, string, bool) {
			address, incarnation, ok := nodes(node)
			if gone.Load() {
				incarnation = "another"
			}
			return address, incarnation, ok
		}
	})
	const calls, bytes = 64, 64 << 10
	ended := make(chan Answer, calls)
	for i := range uint32(calls) {
		p.Send(1, &Call{Message: [][]byte{request(i, bytes)}, Timeout: patience, Done: func(_ *Call, a Answer) { ended <- a }})
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := (&unreliable{}).shake(c); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	gone.Store(true)
	p.Recheck()
	for range calls {
		if a := <-ended; a.Status != Failed {
			t.Errorf("a call ended with %d", a.Status)
		}
	}
	if n, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other side reads %d bytes of %d, and then %v", n, calls*bytes, err)
	}
}

// What nobody waits for any more does not wait for a way to be there.
func TestAbandoned(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := newPeers(t, ln, func(*Config) {})
	send := func(corr uint32) (*Call, chan Answer) {
		ended := make(chan Answer, 1)
		c := &Call{Message: [][]byte{request(corr, 0)}, Stream: uint64(corr), Timeout: patience, Done: func(_ *Call, a Answer) { ended <- a }}
		p.Send(1, c)
		return c, ended
	}
	gone, goneEnded := send(1)
	_, stays := send(2)
	p.Cancel(gone) // asks for an answer, which there cannot be yet
	p.Abandon(gone)
	if a := <-goneEnded; !errors.Is(a.Err, ErrUnreachable) {
		t.Errorf("it ended with %d, %v", a.Status, a.Err)
	}
	p.Abandon(gone)
	u := &unreliable{t: t, rand: rand.New(rand.NewPCG(1, 0)), seen: map[uint64][]uint32{}}
	c, err := ln.Accept()
	if err == nil {
		err = u.shake(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var served sync.WaitGroup
	defer served.Wait()
	defer c.Close()
	served.Go(func() { u.serve(c) })
	again, againEnded := send(3)
	p.Abandon(again)
	for _, ended := range []chan Answer{stays, againEnded} {
		if a := <-ended; a.Buf != nil {
			a.Buf.Release()
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.seen[1]) > 0 {
		t.Error("it was sent all the same")
	}
}

// What must be begun soon does not wait longer for a way to be there, though its answer
// may take its time.
func TestNotSentInTime(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := newPeers(t, ln, func(c *Config) { c.DialTimeout = patience })
	ended := make(chan Answer, 2)
	send := func(stream uint64, begin time.Duration) {
		p.Send(1, &Call{Message: [][]byte{request(1, 0)}, Stream: stream, Timeout: patience, Begin: begin, Done: func(_ *Call, a Answer) { ended <- a }})
	}
	send(1, 0)
	send(2, time.Millisecond)
	if a := <-ended; !errors.Is(a.Err, ErrUnreachable) || !errors.Is(a.Err, errNotSent) {
		t.Errorf("it ended with %d, %v", a.Status, a.Err)
	}
	if len(ended) > 0 {
		t.Error("the other one has ended too")
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	<-ended
}
