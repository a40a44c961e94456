package api

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/offsets"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/proxy/forward"
)

// trip takes a request about one group to the node that coordinates the group:
// this one or another, to which the request goes as the client has sent it.
//
//	attempt ──► here: the group answers ──────────────────────────► answer
//	   ▲   └──► another node: it answers ─────────────────────────► answer
//	   │        it does not serve the group, or is gone
//	   └─ again ◄──┘     (a new route, or some milliseconds later)
//
// A client that was given one address for everything does not hear of this. One that
// knows nodes is told NOT_COORDINATOR, but waits here for a group that is being loaded.
//
// To do a request again whose outcome is not known is what the client would do, and
// all of them can be repeated: a join of a known member, and what one member says of
// its generation or commits. It is only for commits that the order matters
// (commitLine), and only a join without a member id makes a second member.
type trip struct {
	p     *parked
	slot  int
	serve func() // the request by this node; holds p

	forwarded bool // by another node: who sends it looks for the way
	proxied   bool // the client shall not learn who coordinates the group

	mu   sync.Mutex
	call *forward.Call // under way to another node

	began time.Time // when it set out first
	// Of whoever holds p.
	tried   time.Time     // when the last attempt began
	trouble time.Time     // since when nobody serves the request
	wait    time.Duration // from then on
	ages    bool          // then it is not made any more; see freshTime
	waiting routeWait

	conn *connState  // of the client's connection; nil: forwarded
	line *commitLine // nil: not a commit
	at   lineState   // in the line; of whoever has the line's lock
}

const (
	// forwardTimeout is how long another node may take to answer what no other client
	// has to do something for.
	forwardTimeout = 20 * time.Second
	// freshTime is how old a commit or a join may be when it is begun, or a heartbeat of
	// the consumer protocol, which may be a join. A node that was cut off from its clients
	// and from others goes on with what it has when that is over, before it hears that a
	// client has hung up. The client has come back by another node meanwhile, and has
	// committed more, which the old commit would undo, or has joined as another member,
	// and the old join would make the group rebalance. Clients need longer than this to
	// find that a node is gone; so what is older is refused, and they ask again for what
	// they want by then, as they do wherever a coordinator is away. A slot is handed
	// over in much less.
	freshTime = time.Second
	// syncTimeout bounds how long the members of a group may take to rebalance.
	syncTimeout = 30 * time.Minute
)

// travel sets out with a request about one group. False: it cannot be read. One that
// had to wait in its connection while nobody served those before it is as old as it is.
// Loop only.
func (p *parked) travel(serve func()) bool {
	id, err := protocol.PeekGroup(p.r.Key, p.r.Version, p.r.Body)
	if err != nil {
		return false
	}
	t := &trip{p: p, slot: coordinator.SlotOf(id), serve: serve, forwarded: p.r.Origin != nil}
	t.proxied = !t.forwarded && p.h.proxied(p.r.Listener())
	t.began = time.Now()
	t.trouble, t.wait = t.began, maxRouteWait
	if !t.forwarded {
		t.conn = stateOf(p.r)
		if p.r.Received.UnixNano() <= t.conn.heldUp.Load() {
			t.trouble = p.r.Received
		}
	}
	switch p.r.Key {
	case keyOffsetCommit, keyJoinGroup, keyConsumerGroupHeartbeat:
		t.wait, t.ages = p.h.c.freshTime, true
	}
	t.waiting.wake = t.attempt
	p.trip = t
	switch {
	case t.forwarded:
		t.serve()
	case p.r.Key == keyOffsetCommit:
		p.h.lines.admit(p.r.Conn.ID(), t)
	default:
		t.attempt()
	}
	return true
}

// servesGroup says whether the group that a request is about is this node's. What
// another node has sent was looked at.
func (h *Handlers) servesGroup(r *proxy.Request) bool {
	if !h.routes(r) {
		return true
	}
	id, err := protocol.PeekGroup(r.Key, r.Version, r.Body)
	return err == nil && h.serves(coordinator.SlotOf(id))
}

// attempt goes to who serves the group as far as this node knows. It holds p.
func (t *trip) attempt() {
	p := t.p
	if p.state.Load() == parkedClosed {
		p.end(nil)
		return
	}
	t.tried = time.Now()
	if p.unasked.Load() || t.ages && t.left() <= 0 {
		t.fail(protocol.CoordinatorNotAvailable)
		return
	}
	t.waiting.changed = p.h.router.RoutesChanged()
	switch to := p.h.route(t.slot); {
	case to.here || !t.proxied:
		t.serve()
	case to.node < 0:
		t.again(protocol.NotCoordinator)
	default:
		t.send(to)
	}
}

// send sends the request on.
func (t *trip) send(to route) {
	p := t.p
	timeout := forwardTimeout
	switch p.r.Key {
	case keyJoinGroup:
		// What cannot be read the other node drops.
		wait, _ := protocol.PeekJoinTimeout(p.r.Version, p.r.Body)
		timeout += wait
	case keySyncGroup:
		timeout = syncTimeout
	}
	c := &forward.Call{Message: [][]byte{p.r.Message}, Done: t.arrived}
	if t.ages {
		c.Begin = max(t.left(), time.Millisecond)
	}
	p.h.call(c, p.r, []forward.SlotEpoch{{Slot: uint16(t.slot), Epoch: to.epoch}}, p.r.Conn.ID(), timeout)
	t.mu.Lock()
	t.call = c
	t.mu.Unlock()
	p.h.c.Peers.Send(to.node, c)
	// From here on the request may be answered.
	switch {
	case p.unasked.Load() || p.state.Load() == parkedClosed:
		t.abandon()
	case p.long && p.draining.Load():
		t.cancel()
	}
}

// cancel makes the other node answer now.
func (t *trip) cancel() {
	if c := t.underway(); c != nil {
		t.p.h.c.Peers.Cancel(c)
	}
}

// abandon is cancel for a client that has gone. Its request must not wait for the way to
// be free: by then the client, which has come back by another node, may have done
// something newer.
func (t *trip) abandon() {
	if c := t.underway(); c != nil {
		t.p.h.c.Peers.Abandon(c)
	}
}

// underway is the call to another node, nil if there is none.
func (t *trip) underway() *forward.Call {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.call
}

// closed ends what does not need its connection any more to know what it has done.
func (t *trip) closed() {
	switch {
	case t == nil:
	case t.line != nil:
		if !t.line.abandon(t) {
			t.abandon()
		}
	case t.p.h.waits.remove(&t.waiting):
		t.p.end(nil)
	default:
		t.abandon()
	}
}

// arrived takes what another node says. Any goroutine; it does not block.
func (t *trip) arrived(_ *forward.Call, a forward.Answer) {
	t.mu.Lock()
	t.call = nil
	t.mu.Unlock()
	p := t.p
	if a.Status == forward.Answered && !isAnswer(p.r, a.Message) {
		letGo(&a)
		a = forward.Answer{Status: forward.Failed, Err: forward.ErrProtocol}
	}
	switch a.Status {
	case forward.Answered:
		if !p.end(func(r *proxy.Request) { answer(r, &a) }) {
			letGo(&a)
		}
	case forward.Silent, forward.Dropped:
		p.end(func(r *proxy.Request) { answer(r, &a) })
	case forward.Failed:
		if errors.Is(a.Err, forward.ErrLost) && t.makesMember() {
			t.fail(protocol.NotCoordinator)
			return
		}
		if errors.Is(a.Err, forward.ErrLost) {
			t.served()
		}
		t.again(protocol.NotCoordinator)
	default:
		t.served()
		t.again(protocol.NotCoordinator)
	}
}

// served takes note that the request was with its group for as long as the last
// attempt took, if it is one that may wait there: the time in which
// somebody has to serve it begins anew.
func (t *trip) served() {
	if now := time.Now(); t.p.long && !t.ages && now.Sub(t.tried) > time.Second {
		t.trouble, t.waiting.attempts = now, 0
	}
}

// holdsUp takes note that those behind the request wait until now, without a group that
// takes its time, as it may for a member that joins. Any goroutine.
func (t *trip) holdsUp() {
	if t.conn != nil {
		t.conn.heldUp.Store(time.Now().UnixNano())
	}
}

// isAnswer says whether message can be the answer to r, as far as its header tells.
func isAnswer(r *proxy.Request, message []byte) bool {
	return len(message) >= 4 && int32(binary.BigEndian.Uint32(message)) == r.CorrelationID
}

// makesMember says whether doing the request twice may make two members.
func (t *trip) makesMember() bool {
	if t.p.r.Key != keyJoinGroup {
		return false
	}
	var q kmsg.JoinGroupRequest
	q.SetVersion(t.p.r.Version)
	return t.p.h.parse(t.p.r, &q) != nil || q.MemberID == "" && q.InstanceID == nil
}

// elsewhere says whether err, which a group has answered with, is no answer:
// nothing was done since this node does not serve the group, or not yet. Then it
// sees to the request, and whoever has asked must forget it. Any goroutine.
func (p *parked) elsewhere(err error) bool {
	if err == nil || p.trip == nil {
		return false
	}
	code := protocol.None
	switch {
	case errors.Is(err, group.ErrNotLoaded):
		code = protocol.CoordinatorLoadInProgress
	case notServed(err):
		code = protocol.NotCoordinator
	default:
		return false
	}
	t := p.trip
	switch {
	case t.forwarded:
		if p.state.CompareAndSwap(parkedWaiting, parkedAnswered) {
			p.r.Refuse()
		}
	case code == protocol.NotCoordinator && !t.proxied:
		return false
	case p.hold():
		t.served()
		t.again(code)
	}
	return true
}

// notServed says whether a group's error means that another node coordinates it.
func notServed(err error) bool {
	return errors.Is(err, group.ErrNotCoordinator) || errors.Is(err, coordinator.ErrNotOwner) ||
		errors.Is(err, offsets.ErrNotOwner) || errors.Is(err, offsets.ErrClosed)
}

// again makes another attempt when the route has changed, or after a pause; or
// answers with code if that has taken too long. It holds p.
func (t *trip) again(code protocol.Code) {
	t.holdsUp()
	switch {
	case t.p.draining.Load():
		t.fail(protocol.CoordinatorNotAvailable)
		return
	case t.left() <= 0:
		t.fail(code)
		return
	}
	t.waiting.deadline = t.trouble.Add(t.wait)
	if t.line != nil {
		t.line.stall(t)
		return
	}
	t.p.h.waits.add(&t.waiting)
	if t.p.state.Load() == parkedClosed && t.p.h.waits.remove(&t.waiting) {
		t.p.end(nil) // closed has looked too early
	}
}

// left is for how long somebody may still be looked for to serve the request. While a
// machine is stopped its monotonic clock may be too, the other one goes on.
func (t *trip) left() time.Duration {
	now := time.Now()
	return t.wait - max(now.Sub(t.trouble), now.Round(0).Sub(t.trouble.Round(0)))
}

// fail answers with a code. It holds p.
func (t *trip) fail(code protocol.Code) {
	p := t.p
	if t.line != nil {
		t.line.failing(t)
	}
	q := kmsg.RequestForKey(p.r.Key)
	if err := p.h.parse(p.r, q); err != nil {
		p.end(func(r *proxy.Request) { r.Drop(err) })
		return
	}
	resp := refusedGroup(q, code)
	p.end(func(r *proxy.Request) { p.h.respond(r, resp) })
}

// handing and handed are called before and after the request is given to its group here,
// which takes a worker if it is large, or about topics that have to be looked for.
func (t *trip) handing() {
	if t != nil && t.line != nil {
		t.line.hold()
	}
}

func (t *trip) handed() {
	if t != nil && t.line != nil {
		t.line.letOn()
	}
}

// ended runs when the request is answered.
func (t *trip) ended() {
	if t == nil {
		return
	}
	if !t.p.long && time.Since(t.began) > t.p.h.c.freshTime {
		t.holdsUp()
	}
	if t.line != nil {
		t.line.ended(t)
	}
}

// alone says whether there are no other nodes.
func (h *Handlers) alone() bool { return h.c.Peers == nil }

// Keys of the APIs that are looked at by number.
const (
	keyOffsetCommit = 8
	keyJoinGroup    = 11
	keySyncGroup    = 14

	keyConsumerGroupHeartbeat = 68
)
