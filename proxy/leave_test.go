package proxy

import (
	"sync/atomic"
	"testing"
	"time"
)

// A departure is a server that shuts down on a clock that stands still.
type departure struct {
	*Server
	t      *testing.T
	clock  *clock
	parked chan *Request // of key 0, which overlap
	polled chan struct{} // had a request of key 1, which waits for the end
	ended  chan error
}

// depart makes a server that echoes what it is sent, but for requests of keys 0 and 1.
func depart(t *testing.T, c Config) *departure {
	d := &departure{t: t, clock: &clock{t: time.Unix(1000, 0)}, parked: make(chan *Request, 16), polled: make(chan struct{}, 1), ended: make(chan error, 1)}
	c.now = d.clock.now
	setDefault(&c.leaveTime, patience)
	d.Server = start(t, c, func(r *Request) {
		switch r.Key {
		case keyProduce:
			d.parked <- r
		case 1:
			r.OnDrain(func() { echo(r) })
			d.polled <- struct{}{}
		default:
			echo(r)
		}
	})
	return d
}

// client connects, and asks for ApiVersions as most do.
func (d *departure) client() *client {
	d.t.Helper()
	cl := dial(d.t, d.Server)
	cl.send(frame(keyAPIVersions, 3, 0, nil))
	cl.receive()
	return cl
}

// begin has the server shut down, and returns when all its connections know.
func (d *departure) begin() {
	d.t.Helper()
	go func() { d.ended <- d.Shutdown(background(d.t)) }()
	eventually(d.t, "the server leaves", func() bool { return d.leaving.Load() })
	eventually(d.t, "all connections know", func() bool { return d.count(func(c *Conn) bool { return !c.leaving }) == 0 })
}

// end waits for the end, after the clients' sides are closed.
func (d *departure) end(clients ...*client) {
	d.t.Helper()
	for _, cl := range clients {
		cl.wantEnd()
		cl.Close()
	}
	if err := <-d.ended; err != nil {
		d.t.Error(err)
	}
}

// count says of how many connections something is so.
func (s *Server) count(is func(*Conn) bool) int {
	var n atomic.Int32
	s.onLoops(func(st *loopState) {
		for c := range st.conns {
			if is(c) {
				n.Add(1)
			}
		}
	})
	return int(n.Load())
}

// answers says how many answers a connection has that have not left.
func (d *departure) answers(want int) {
	d.t.Helper()
	eventually(d.t, "the answers wait", func() bool {
		return d.count(func(c *Conn) bool { return c.answered() && c.len() == want }) == 1
	})
}

// What comes until the client is silent is served, and all answers leave with the end.
func TestLeaveWithTheAnswers(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		d := depart(t, c)
		cl := d.client()
		cl.send(append(frame(0, 3, 1, nil), frame(0, 3, 2, nil)...))
		first, second := <-d.parked, <-d.parked
		d.begin()
		echo(second)
		echo(first)
		d.answers(2)
		d.clock.advance(d.Server, quietTime-time.Millisecond)
		cl.send(frame(0, 3, 3, nil)) // the client has one more
		third := <-d.parked
		d.clock.advance(d.Server, quietTime-time.Millisecond)
		echo(third)
		d.answers(3)
		if n := d.count(func(c *Conn) bool { return c.lingering || c.len() < 3 }); n != 0 {
			t.Error("it ends, or an answer has left, while the client may send")
		}
		d.clock.advance(d.Server, time.Millisecond)
		for want := range int32(3) {
			if corr, _ := cl.receive(); corr != want+1 {
				t.Errorf("answer to %d, want %d", corr, want+1)
			}
		}
		d.end(cl)
	})
}

// Who does not fall silent gets the answers in time, and the end when none is owed.
func TestLeaveTheBusy(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		d := depart(t, c)
		cl := d.client()
		cl.send(frame(0, 3, 1, nil))
		first := <-d.parked
		d.begin()
		echo(first)
		d.answers(1)
		next := frame(0, 3, 2, nil)
		cl.send(next[:7])
		eventually(t, "a frame has begun", func() bool { return d.count(func(c *Conn) bool { return c.in.partial() }) == 1 })
		d.clock.advance(d.Server, holdTime)
		if corr, _ := cl.receive(); corr != 1 {
			t.Errorf("answer to %d", corr)
		}
		cl.send(next[7:])
		second := <-d.parked
		cl.send(frame(0, 3, 3, nil))
		third := <-d.parked
		echo(second)
		if corr, _ := cl.receive(); corr != 2 {
			t.Errorf("answer to %d", corr)
		}
		echo(third)
		if corr, _ := cl.receive(); corr != 3 {
			t.Errorf("answer to %d", corr)
		}
		d.end(cl)
	})
}

// Who is silent gets no answer before the last one, however long that takes.
func TestLeaveTheSilent(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		d := depart(t, c)
		cl := d.client()
		cl.send(append(frame(0, 3, 1, nil), frame(0, 3, 2, nil)...))
		first, second := <-d.parked, <-d.parked
		d.begin()
		echo(first)
		d.clock.advance(d.Server, 2*holdTime)
		if n := d.count(func(c *Conn) bool { return c.len() == 2 }); n != 1 {
			t.Error("an answer has left, which lets the client send again")
		}
		echo(second)
		for want := range int32(2) {
			if corr, _ := cl.receive(); corr != want+1 {
				t.Errorf("answer to %d, want %d", corr, want+1)
			}
		}
		d.end(cl)
	})
}

// A producer that may forget answers which come with the end gets them before.
func TestLeaveTheForgetful(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		d := depart(t, c)
		cl := dial(t, d.Server)
		cl.send(frame(0, 3, 1, nil))
		first := <-d.parked
		d.begin()
		for n := range int32(3) {
			d.clock.advance(d.Server, quietTime)
			echo(first)
			if corr, _ := cl.receive(); corr != n+1 {
				t.Errorf("answer to %d, want %d", corr, n+1)
			}
			cl.send(frame(0, 3, n+2, nil)) // at once, as one does that has more
			first = <-d.parked
		}
		d.clock.advance(d.Server, holdTime)
		echo(first)
		if corr, _ := cl.receive(); corr != 4 {
			t.Errorf("answer to %d", corr)
		}
		eventually(t, "the answer has left", func() bool { return d.count(func(c *Conn) bool { return c.len() == 0 && !c.out.blocked }) == 1 })
		if n := d.count(func(c *Conn) bool { return c.lingering }); n != 0 {
			t.Error("the end came with the answer")
		}
		d.clock.advance(d.Server, gapTime)
		d.end(cl)
	})
}

// While connections are left new ones are served, idle ones are closed, and long polls
// answer.
func TestLeaveTheOthers(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		d := depart(t, c)
		idle, poll := d.client(), d.client()
		d.clock.advance(d.Server, quietTime)
		poll.send(frame(1, 3, 1, nil))
		<-d.polled
		d.begin()
		idle.wantEnd() // nothing came of it for long
		idle.Close()
		late := dial(t, d.Server)
		late.send(frame(3, 3, 1, nil))
		eventually(t, "it leaves", func() bool { return d.count(func(c *Conn) bool { return c.leaving && c.len() == 1 }) == 2 })
		d.clock.advance(d.Server, quietTime)
		for _, cl := range []*client{poll, late} {
			if corr, _ := cl.receive(); corr != 1 {
				t.Errorf("answer to %d", corr)
			}
		}
		// A poll that comes now is not parked any more.
		again := dial(t, d.Server)
		again.send(frame(1, 3, 1, nil))
		<-d.polled
		d.answers(1)
		d.clock.advance(d.Server, quietTime)
		again.receive()
		d.end(poll, late, again)
	})
}

// Limits end the holding of answers: what a client has sent beyond them is served.
func TestLeaveWithinLimits(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.MaxSlotsPerConn = 2
		d := depart(t, c)
		cl := d.client()
		cl.send(frame(0, 3, 1, nil))
		first := <-d.parked
		d.begin()
		const more = 5
		var frames []byte
		for i := range int32(more) {
			frames = append(frames, frame(3, 3, i+2, nil)...)
		}
		cl.send(frames)
		echo(first)
		eventually(t, "all are served", func() bool {
			return d.count(func(c *Conn) bool { return c.ring.end == 2+more && c.answered() }) == 1
		})
		d.clock.advance(d.Server, quietTime)
		for want := range int32(1 + more) {
			if corr, _ := cl.receive(); corr != want+1 {
				t.Errorf("answer to %d, want %d", corr, want+1)
			}
		}
		d.end(cl)
	})
}

// Clients that are busy all the time do not keep a server.
func TestLeaveIsBounded(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.leaveTime = time.Millisecond
		d := depart(t, c)
		cl := d.client()
		cl.send(frame(0, 3, 1, nil))
		first := <-d.parked
		d.begin()
		eventually(t, "nothing is read any more", func() bool { return d.count(func(c *Conn) bool { return c.ending }) == 1 })
		echo(first)
		if corr, _ := cl.receive(); corr != 1 {
			t.Errorf("answer to %d", corr)
		}
		d.end(cl)
	})
}
