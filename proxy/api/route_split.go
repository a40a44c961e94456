package api

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/proxy/forward"
)

// splitting says how a decoded request that may be for several nodes is carried
// to them. It consists of items, each of one slot: partitions, or groups; they go
// by their index. All functions are called on the connection's loop and must not block it.
type splitting struct {
	slots []int // by item

	// wait is how long somebody to serve an item is looked for, as the request has
	// its timeout; at most maxRouteWait.
	wait time.Duration
	// timeout is how long who serves it may take to answer.
	timeout time.Duration
	// reads says that the request changes nothing, so that it is sent again when
	// nobody knows what became of it.
	reads bool

	// here answers items that this node serves. It calls done once, from any
	// goroutine, with those that it turned out not to serve.
	here func(items []int, done func(again []int))
	// part makes a request of r's version for some of the items.
	part func(items []int) kmsg.Request
	// take notes the answer to such a request. It returns the items that the node has
	// turned out not to serve: they are taken to whoever does.
	take func(items []int, resp kmsg.Response) (again []int)
	// refuse notes that nobody has answered the items: errNotServed, or that
	// nobody knows what became of them: forward.ErrLost.
	refuse func(items []int, why error)
	// respond answers the request: every item was noted. It is not called if the
	// connection has closed.
	respond func()
}

// split is a request that is taken apart.
type split struct {
	tied
	splitting
	h        *Handlers
	deadline time.Time
	waiting  routeWait
	items    []int // that wait. Loop only, as all that follows
	underWay int   // parts, with this node or another
}

// split takes r apart, has each item answered by who serves it, and answers when
// all are. Loop only, for requests of this node's own clients. There is one item at least.
func (h *Handlers) split(r *proxy.Request, f splitting) {
	s := &split{splitting: f, h: h}
	s.r = r
	s.deadline = r.Received.Add(min(f.wait, maxRouteWait))
	s.waiting.deadline = s.deadline
	s.waiting.wake = func() { s.post(s.lookAgain) }
	r.OnClose(s.closed)
	r.OnDrain(s.drain)
	s.items = make([]int, len(f.slots))
	for i := range s.items {
		s.items[i] = i
	}
	s.look()
}

// lookAgain is look for the loop.
func (s *split) lookAgain() {
	if !s.isOver() {
		s.look()
	}
}

// look takes what waits to who serves it.
func (s *split) look() {
	items := s.items
	s.items = nil
	s.waiting.changed = s.h.router.RoutesChanged()
	var here, late []int
	parts := make(map[int32]*splitPart)
	var order []*splitPart
	for _, i := range items {
		route := s.h.route(s.slots[i])
		switch {
		case route.here:
			here = append(here, i)
		case route.node < 0 && !time.Now().Before(s.deadline):
			late = append(late, i)
		case route.node < 0:
			s.items = append(s.items, i)
		default:
			p := parts[route.node]
			if p == nil {
				p = &splitPart{s: s, node: route.node}
				parts[route.node] = p
				order = append(order, p)
			}
			p.items = append(p.items, i)
			p.addSlot(forward.SlotEpoch{Slot: uint16(s.slots[i]), Epoch: route.epoch})
		}
	}
	s.underWay += len(order)
	if len(here) > 0 {
		s.underWay++
	}
	if len(late) > 0 {
		s.refuse(late, errNotServed)
	}
	if len(s.items) > 0 {
		s.h.waits.add(&s.waiting)
	}
	for _, p := range order {
		p.send()
	}
	if len(here) > 0 {
		s.splitting.here(here, func(again []int) { s.post(func() { s.finish(again) }) })
	}
	s.respondIfDone()
}

// finish ends a part. again are the items that were not answered.
func (s *split) finish(again []int) {
	if s.isOver() {
		return
	}
	s.underWay--
	s.waitFor(again)
	s.respondIfDone()
}

// waitFor lets items wait until the routes have changed.
func (s *split) waitFor(again []int) {
	switch {
	case len(again) == 0:
	case !time.Now().Before(s.deadline):
		s.refuse(again, errNotServed)
	case len(s.items) > 0: // the others wait already
		s.items = append(s.items, again...)
	default:
		s.items = again
		s.h.waits.add(&s.waiting)
	}
}

func (s *split) respondIfDone() {
	if s.underWay == 0 && len(s.items) == 0 && s.end() {
		s.r.OnClose(nil)
		s.respond()
	}
}

// closed runs on the loop if the connection closes before the answer. What is under
// way is let go of when it is answered.
func (s *split) closed() {
	if s.end() {
		s.h.waits.remove(&s.waiting)
		s.r.NoResponse()
	}
}

// drainWait is for how long somebody to serve an item is looked for yet when the
// connection is about to close: the client can ask another node instead.
const drainWait = time.Second

// drain runs when the connection waits for its answers to close. Loop only.
func (s *split) drain() {
	if until := time.Now().Add(drainWait); until.Before(s.deadline) {
		s.deadline = until
	}
}

// splitPart is what one node is asked.
type splitPart struct {
	s     *split
	node  int32
	items []int
	slots []forward.SlotEpoch
	named slotSet // slots
	req   kmsg.Request
	call  forward.Call
}

// addSlot adds a slot unless it is there.
func (p *splitPart) addSlot(e forward.SlotEpoch) {
	if p.named.add(int(e.Slot)) {
		p.slots = append(p.slots, e)
	}
}

func (p *splitPart) send() {
	s := p.s
	p.req = s.part(p.items)
	p.req.SetVersion(s.r.Version)
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID(s.r.ClientID)).AppendRequest(nil, p.req, s.r.CorrelationID)
	p.call.Message = [][]byte{frame[4:]}
	p.call.Done = p.done
	s.h.call(&p.call, s.r, p.slots, s.r.Conn.ID(), s.timeout)
	s.h.c.Peers.Send(p.node, &p.call)
}

// done takes what became of the part. Any goroutine.
func (p *splitPart) done(_ *forward.Call, a forward.Answer) {
	s := p.s
	if a.Status != forward.Answered {
		letGo(&a)
		s.post(func() { p.failed(&a) })
		return
	}
	// A copy, as what is decoded may refer to it for as long as it likes.
	message := bytes.Clone(a.Message)
	letGo(&a)
	if len(message) <= inlineBytes {
		resp, err := p.decode(message)
		s.post(func() { p.take(resp, err) })
		return
	}
	s.post(func() {
		if s.isOver() {
			return
		}
		s.r.Go(func() {
			resp, err := p.decode(message)
			s.post(func() { p.take(resp, err) })
		})
	})
}

// decode reads an answer, header and body.
func (p *splitPart) decode(message []byte) (kmsg.Response, error) {
	resp := p.req.ResponseKind()
	header := 4
	if protocol.FlexibleResponse(p.req.Key(), p.req.GetVersion()) {
		header = 5 // no tags
	}
	if len(message) < header || header == 5 && message[4] != 0 {
		return nil, fmt.Errorf("node %d: %s: %w: header", p.node, kmsg.NameForKey(p.req.Key()), forward.ErrProtocol)
	}
	if err := resp.ReadFrom(message[header:]); err != nil {
		return nil, fmt.Errorf("node %d: %s: %w: %w", p.node, kmsg.NameForKey(p.req.Key()), forward.ErrProtocol, err)
	}
	return resp, nil
}

// take notes an answer. Loop only.
func (p *splitPart) take(resp kmsg.Response, err error) {
	s := p.s
	switch {
	case s.isOver():
	case err != nil:
		s.refuse(p.items, err)
		s.finish(nil)
	default:
		s.finish(s.splitting.take(p.items, resp))
	}
}

// failed notes that there is no answer. Loop only.
func (p *splitPart) failed(a *forward.Answer) {
	s := p.s
	switch {
	case s.isOver():
	case nothingDone(a) || s.reads && a.Status == forward.Failed && !errors.Is(a.Err, forward.ErrTooLarge):
		s.finish(p.items)
	default:
		s.refuse(p.items, whyNot(p.node, a))
		s.finish(nil)
	}
}
