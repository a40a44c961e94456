package api

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/proxy/forward"
)

// Where a request is served. Every partition and every group has a slot, and every slot
// one node that serves it. What this node's clients ask of slots that others serve
// goes on to those, one hop:
//
//	route.go          who serves what; what other nodes ask of this one
//	route_wait.go     requests that nobody serves at the moment
//	trip.go           a request of a group
//	route_split.go    a request for several nodes, decoded
//	route_order.go    Produce requests of a connection, which overlap
//
// Produce and Fetch split their requests themselves (00_produce_route.go,
// 01_fetch_route.go), without decoding records.
//
// A node alone (Config.Peers is nil) serves everything and looks for no route.

// router says who serves what. The Coordinator is the one that is real.
type router interface {
	Route(slot int) coordinator.Route
	RoutesChanged() <-chan struct{}
}

// errNotServed: no node has served a request in the time that there was for it.
var errNotServed = errors.New("no node serves it at the moment")

// maxRouteWait bounds how long a request waits for somebody to serve it,
// whatever its own timeout.
const maxRouteWait = 15 * time.Second

// parting is how this node takes leave of clients that know nodes.
type parting struct {
	leaving atomic.Bool
	astray  atomic.Int64 // Unix time in ns
}

// Leave says that this node has given away what it served and is about to end: clients
// that know nodes are told who serves what they ask for, also those too old to be told
// who it is, for whom other nodes are asked else. Any goroutine.
func (h *Handlers) Leave() { h.parting.leaving.Store(true) }

// LastAstray returns when a client that knows nodes has last produced to, or fetched from,
// a partition that this node does not serve; the zero time if none has. While they do they
// have yet to learn who does. Any goroutine.
func (h *Handlers) LastAstray() time.Time {
	if ns := h.parting.astray.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// tells says whether r's client is told who serves a partition that this node does not,
// instead of that one being asked. From a version on it can be told all that it needs.
func (h *Handlers) tells(r *proxy.Request, since int16) bool {
	return !h.proxied(r.Listener()) && (r.Version >= since || h.parting.leaving.Load())
}

// heedAstray takes note that r is about a partition that this node does not serve.
func (h *Handlers) heedAstray(r *proxy.Request) {
	if !h.proxied(r.Listener()) {
		h.parting.astray.Store(r.Received.UnixNano())
	}
}

// routes says whether r's way has to be looked for: this node is not alone, and its
// own client has asked. What another node has sent is for this node, or for nobody.
func (h *Handlers) routes(r *proxy.Request) bool { return h.c.Peers != nil && r.Origin == nil }

// route is who serves a slot; node is -1 while nobody does. A slot that this node
// owns and does not serve any more is nobody's until its next owner is known.
type route struct {
	node  int32
	here  bool
	epoch int64
}

func (h *Handlers) route(slot int) route {
	r := h.router.Route(slot)
	if r.Node == h.self && !r.Here {
		return route{node: -1, epoch: r.Epoch}
	}
	return route{node: r.Node, here: r.Here, epoch: r.Epoch}
}

// serves says whether this node serves a slot now. A node alone does.
func (h *Handlers) serves(slot int) bool {
	return h.c.Peers == nil || h.router.Route(slot).Here
}

// servesOrigin says whether this node serves all that another node's request is for.
func (h *Handlers) servesOrigin(r *proxy.Request) bool {
	for _, s := range r.Origin.Slots {
		if int(s.Slot) >= coordinator.NumSlots {
			return false
		}
		if route := h.router.Route(int(s.Slot)); !route.Here || route.Epoch < s.Epoch {
			return false
		}
	}
	return true
}

// slotSet is the slots that a request for one node is for. It may be for a hundred
// thousand partitions.
type slotSet [coordinator.NumSlots / 64]uint64

// add adds a slot. False: it was there.
func (s *slotSet) add(slot int) bool {
	word, bit := &s[slot/64], uint64(1)<<(slot%64)
	added := *word&bit == 0
	*word |= bit
	return added
}

// call fills in a call that is made for r's client.
func (h *Handlers) call(c *forward.Call, r *proxy.Request, slots []forward.SlotEpoch, stream uint64, timeout time.Duration) {
	c.Slots, c.Stream, c.Timeout, c.Loop = slots, stream, timeout, r.Conn.Loop()
	c.Listener, c.RemoteAddr, c.Principal = r.Listener(), r.RemoteAddr(), principalType+":"+anonymous
}

// nothingDone says that a call has changed nothing where it went to, and may be made again.
func nothingDone(a *forward.Answer) bool {
	return a.Status == forward.NotServed ||
		a.Status == forward.Failed && (errors.Is(a.Err, forward.ErrUnreachable) || errors.Is(a.Err, forward.ErrBusy))
}

// whyNot is the error of a call that was not answered.
func whyNot(node int32, a *forward.Answer) error {
	switch {
	case a.Err != nil:
		return fmt.Errorf("node %d: %w", node, a.Err)
	case a.Status == forward.NotServed:
		return fmt.Errorf("node %d: %w", node, errNotServed)
	}
	return fmt.Errorf("node %d: %w", node, forward.ErrProtocol)
}

// whyDropped is why a node has closed the connection of a request.
func whyDropped(a *forward.Answer) error {
	if a.Status != forward.Dropped || a.Err == nil {
		return forward.ErrProtocol
	}
	return a.Err
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

// letGo releases an answer that nobody needs.
func letGo(a *forward.Answer) {
	if a.Buf != nil {
		a.Buf.Release()
	}
}

// tied is a request that waits for others than its connection's loop: what they
// have to say runs on the loop, unless the request is over by then.
type tied struct {
	r    *proxy.Request
	mu   sync.Mutex
	over bool // answered, or about to be: r is not to be touched any more
}

// post runs f on the loop, unless the request is over by then. False: it is.
// Any goroutine. f has to look at over again.
func (t *tied) post(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.r.Post(f)
	}
	return !t.over
}

// end makes the request the caller's to answer. False: it is over already. Any goroutine.
func (t *tied) end() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.over
	t.over = true
	return !was
}

// isOver says whether the request is over. Any goroutine.
func (t *tied) isOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}
