package api

import (
	"time"

	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/proxy/forward"
)

// forwarding says how a request that one node serves, as a whole, is carried there.
type forwarding struct {
	// slots are what the request is for: one at least. They are kept.
	slots []int
	// wait is how long somebody to serve it is looked for, as the request has its
	// timeout; at most maxRouteWait.
	wait time.Duration
	// timeout is how long who serves it may take to answer.
	timeout time.Duration
	// reads says that the request changes nothing, so that it is sent again when
	// nobody knows what became of it.
	reads bool
	// poll says that the answer may wait for others: it is asked for as soon as
	// the connection closes or waits for its answers to close.
	poll bool

	// One of these is called, on the connection's loop, unless another node has
	// answered or the connection is gone. What they get is r as it came.
	here   func()      // this node serves it, now or after a while
	split  func()      // several nodes do; nil: the request never is for slots of several
	refuse func(error) // nobody did, or nobody knows whether somebody did: errNotServed, forward.ErrLost
}

// forwarded is a request on its way, from forward on.
type forwarded struct {
	tied
	forwarding
	h        *Handlers
	node     int32
	deadline time.Time
	waiting  routeWait
	call     forward.Call
	message  [1][]byte
	slot     [1]forward.SlotEpoch // of most requests
	sent     bool                 // under mu: call is under way
	gone     bool                 // under mu: the connection is closed
	drains   bool                 // loop only
}

// forward finds out who serves r and has them answer it, this node included.
// Loop only, for requests of this node's own clients; where Peers is nil nothing has
// to be forwarded. The answer of another node reaches the client byte for byte.
func (h *Handlers) forward(r *proxy.Request, f forwarding) {
	d := h.resolve(nil, f.slots...)
	if d.here {
		f.here()
		return
	}
	s := &forwarded{forwarding: f, h: h}
	s.r = r
	s.deadline = r.Received.Add(min(f.wait, maxRouteWait))
	s.waiting.deadline = s.deadline
	s.waiting.wake = func() { s.post(s.look) }
	s.message[0] = r.Message
	s.call.Message, s.call.Done = s.message[:], s.done
	r.OnClose(s.closed)
	if f.poll {
		r.OnDrain(s.drain)
	}
	s.look()
}

// look sends the request on, or waits for somebody to serve it. Loop only.
func (s *forwarded) look() {
	if s.isOver() {
		return
	}
	s.waiting.changed = s.h.router.RoutesChanged()
	d := s.h.resolve(s.slot[:0], s.slots...)
	switch {
	case d.here:
		s.give(s.here)
	case d.split && s.split != nil:
		s.give(s.split)
	case d.node < 0 && !time.Now().Before(s.deadline):
		s.give(func() { s.refuse(errNotServed) })
	case d.node < 0:
		s.h.waits.add(&s.waiting)
	default:
		s.node = d.node
		s.h.call(&s.call, s.r, d.slots, s.r.Conn.ID(), s.timeout)
		s.mu.Lock()
		s.sent = true
		s.mu.Unlock()
		s.h.c.Peers.Send(d.node, &s.call)
	}
}

// give hands the request back to its API. Loop only.
func (s *forwarded) give(f func()) {
	if !s.end() {
		return
	}
	s.r.OnClose(nil)
	s.r.OnDrain(nil)
	f()
}

// done takes what became of the call. Any goroutine.
func (s *forwarded) done(_ *forward.Call, a forward.Answer) {
	s.mu.Lock()
	s.sent = false
	gone := s.gone
	s.over = s.over || gone
	s.mu.Unlock()
	switch {
	case gone:
		letGo(&a)
		s.r.NoResponse()
	case nothingDone(&a) || s.reads && a.Status == forward.Failed:
		letGo(&a)
		s.post(s.later)
	case a.Status == forward.Failed:
		letGo(&a)
		why := whyNot(s.node, &a)
		s.post(func() { s.give(func() { s.refuse(why) }) })
	case s.end():
		answer(s.r, &a)
	default:
		letGo(&a) // the connection has closed meanwhile
	}
}

// later looks again when the routes have changed, or after a while. Loop only.
func (s *forwarded) later() {
	switch {
	case s.isOver():
	case s.drains || !time.Now().Before(s.deadline):
		s.give(func() { s.refuse(errNotServed) })
	default:
		s.h.waits.add(&s.waiting)
	}
}

// closed runs on the loop if the connection closes before the answer.
func (s *forwarded) closed() {
	s.mu.Lock()
	s.gone = true
	sent, over := s.sent, s.over
	s.over = over || !sent
	s.mu.Unlock()
	switch {
	case over:
	case !sent:
		s.h.waits.remove(&s.waiting)
		s.r.NoResponse()
	case s.poll:
		s.h.c.Peers.Cancel(&s.call) // and done ends the request
	}
}

// drain runs on the loop when the connection waits for the answer of a poll to close.
func (s *forwarded) drain() {
	s.drains = true
	s.mu.Lock()
	sent := s.sent
	s.mu.Unlock()
	switch {
	case sent:
		s.h.c.Peers.Cancel(&s.call)
	case s.h.waits.remove(&s.waiting):
		s.later()
	}
}

// answer passes on what another node has answered: not Failed, not NotServed.
func answer(r *proxy.Request, a *forward.Answer) {
	switch a.Status {
	case forward.Answered:
		r.Respond(proxy.Response{Parts: [][]byte{a.Message}, Release: a.Buf.Release})
	case forward.Silent:
		r.NoResponse()
	default:
		r.Drop(whyDropped(a))
	}
}
