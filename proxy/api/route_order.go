package api

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/quirelog/quire/proxy"
)

// connState is what the handlers keep of a connection. Loop only, but for what locks itself.
type connState struct {
	line     line
	refusals refusals
	// heldUp is until when (Unix time in ns) a request about a group is known to have
	// waited for somebody to serve it, and with it all that came behind it.
	heldUp atomic.Int64
}

// stateOf returns what is kept of r's connection. Loop only.
func stateOf(r *proxy.Request) *connState {
	s, _ := r.Conn.State.(*connState)
	if s == nil {
		s = new(connState)
		r.Conn.State = s
	}
	return s
}

// line keeps the Produce requests of one connection in order while some of what they
// hold goes to other nodes. Requests that can be sent when they come are sent, one
// behind the other, without waiting for answers. The others queue, and so do all
// behind them:
//
//   - while nobody is known to serve a partition,
//   - while a request for the same slot is under way to another node than the one
//     that serves the slot now,
//   - after a node has refused a request, until all that is under way has come
//     back: what was sent behind it is refused too (refusals), and waits behind it.
//
// What is appended here needs no such care: its place is fixed when it is handed to
// its log, and a log that refuses one, or fails it when it is lost, does so with all that
// follow. They are back in the queue, each in its place, before anybody can learn who
// serves the slot next.
type line struct {
	mu       sync.Mutex
	stream   uint64 // of the calls; another one once a call of it has done nothing
	underWay int    // calls
	spoiled  bool   // a call of the stream has done nothing
	lanes    map[int]lane
	queue    []*routedProduce
	seq      uint64 // of the connection's latest request
	setbacks []setback

	pumping bool // somebody goes through the queue
	again   bool // and has to once more
	working int  // requests of the queue that are being handed to logs

	waiting routeWait
	rests   bool  // waiting is listed
	scratch []int // slots of the request that has just come
}

// lane is a slot of which requests are under way.
type lane struct {
	node  int32 // that they have gone to
	calls int
}

// streams numbers those streams that are not a connection's, by its id.
var streams atomic.Uint64

// newStream returns a stream that no call has had.
func newStream() uint64 { return 1<<63 | streams.Add(1) }

// streamLocked returns the stream for the next call. As of all methods that are
// called so, l.mu is held.
func (l *line) streamLocked() uint64 {
	if l.stream == 0 {
		l.stream = newStream()
	}
	return l.stream
}

// idleLocked says whether a request that comes now may go at once, as far as those before it matter.
func (l *line) idleLocked() bool {
	return len(l.queue) == 0 && !l.spoiled && l.working == 0 && !l.pumping
}

// blockedLocked says whether a request for the slot must not go to the node yet.
func (l *line) blockedLocked(slot int, node int32) bool {
	if l.underWay == 0 {
		return false
	}
	lane, ok := l.lanes[slot]
	return ok && lane.node != node
}

// leftLocked notes that a call for slots goes to a node.
func (l *line) leftLocked(slots []int, node int32) {
	l.underWay++
	if l.lanes == nil {
		l.lanes = make(map[int]lane)
	}
	for _, slot := range slots {
		l.lanes[slot] = lane{node, l.lanes[slot].calls + 1}
	}
}

// backLocked notes that it has come back; nothing says that nothing of it was done.
func (l *line) backLocked(slots []int, nothing bool) {
	l.underWay--
	for _, slot := range slots {
		lane := l.lanes[slot]
		if lane.calls--; lane.calls == 0 {
			delete(l.lanes, slot)
		} else {
			l.lanes[slot] = lane
		}
	}
	l.spoiled = l.spoiled || nothing
}

// joinLocked puts a request into the queue, where it belongs by its age.
func (l *line) joinLocked(p *routedProduce) {
	if p.queued {
		return
	}
	p.queued = true
	at := len(l.queue)
	for at > 0 && l.queue[at-1].seq > p.seq {
		at--
	}
	l.queue = append(l.queue, nil)
	copy(l.queue[at+1:], l.queue[at:])
	l.queue[at] = p
}

// leaveLocked takes a request out of the queue.
func (l *line) leaveLocked(p *routedProduce) {
	for i := range l.queue {
		if l.queue[i] == p {
			p.queued = false
			l.queue = append(l.queue[:i], l.queue[i+1:]...)
			return
		}
	}
}

// restLocked lets the queue wait until routes have changed, or for a while.
func (l *line) restLocked(h *Handlers) {
	if l.rests || len(l.queue) == 0 {
		return
	}
	l.rests = true
	if l.waiting.wake == nil {
		l.waiting.wake = func() {
			l.mu.Lock()
			l.rests = false
			l.mu.Unlock()
			l.pump(h)
		}
	}
	// Those behind it have their answers after it, whatever their deadlines.
	l.waiting.deadline = l.queue[0].deadline
	h.waits.add(&l.waiting)
}

// pump sends on what can be of the queue, in order. Any goroutine, without l.mu.
func (l *line) pump(h *Handlers) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pumping {
		l.again = true
		return
	}
	l.pumping = true
	for l.again = true; l.again; {
		l.again = false
		for l.readyLocked() && l.queue[0].advanceLocked() {
		}
	}
	l.pumping = false
}

// readyLocked says whether the head of the queue may be looked at.
func (l *line) readyLocked() bool {
	if len(l.queue) == 0 || l.rests || l.working > 0 || l.spoiled && l.underWay > 0 {
		return false
	}
	if l.spoiled {
		l.spoiled, l.stream = false, 0
	}
	return true
}

// refusals remembers the streams of which a link has brought a request that this
// node refused. What of them is still on its way is refused as well, or it would
// overtake. The other node sends all of it again, in order, as another stream.
type refusals struct {
	mu         sync.Mutex
	young, old map[uint64]struct{}
	turned     time.Time
}

// Streams are remembered for one to two times refusalAge, by far longer than
// anything is on its way, unless there are too many.
const (
	refusalAge  = 15 * time.Second
	maxRefusals = 1 << 16 // in each map
)

func (f *refusals) add(stream uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); f.young == nil || len(f.young) >= maxRefusals || now.Sub(f.turned) > refusalAge {
		f.old, f.young, f.turned = f.young, make(map[uint64]struct{}), now
	}
	f.young[stream] = struct{}{}
}

func (f *refusals) refused(stream uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.young == nil {
		return false
	}
	_, young := f.young[stream]
	_, old := f.old[stream]
	return young || old
}
