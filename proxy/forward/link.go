package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/proxy/loop"
	"github.com/quirelog/quire/storage/planted"
)

const (
	// partsPerWrite and bytesPerWrite bound what is gathered for one writev.
	partsPerWrite = 512
	bytesPerWrite = 1 << 20

	// writeBytesPerTurn is what a link may write before the others of its loop
	// have their turn.
	writeBytesPerTurn = 4 << 20

	// lookInterval is how often a link with calls under way is looked at.
	lookInterval = time.Second

	// What waits for a node that is away waits this long at most before it is
	// told, and can look for another one.
	firstRedial = 20 * time.Millisecond
	lastRedial  = 250 * time.Millisecond
)

var (
	errSilent  = errors.New("its system does not answer")
	errStalled = errors.New("it does not read")
	errNotSent = errors.New("it, or one before it, was not sent in time")
	errNoReply = errors.New("no answer in time")
	errLeaves  = errors.New("it is about to end")
	errUnasked = errors.New("nobody waits for it any more")
)

// linkCall is what a link keeps in a Call under way.
type linkCall struct {
	owner atomic.Pointer[link] // set behind id, which Cancel may look for meanwhile
	id    uint64
	head  []byte // the envelope; its memory is kept for the Call's next use
	since time.Time
}

// A link is down, being dialled, or up. While it is down its calls wait for the
// next attempt; when that has failed, they have.
type linkState uint8

const (
	down linkState = iota
	dialling
	up
)

// place is where a call under way is kept. The low half of a call's id is the
// index of its place, the high half is the use of the place that it means: so an
// answer that comes after the call was given up is recognised.
type place struct {
	call     *Call
	use      uint32
	item     uint64 // counts the items of out
	begun    bool   // some of its bytes may be with the system, or all
	written  bool   // all of them are
	expired  bool   // its time is over, but the system has its memory still
	deadline time.Time
	begin    time.Time // when it must have left; zero: it has no such time of its own
}

// cancellation is of a call that is to be answered now, or not to be sent.
type cancellation struct {
	id        uint64
	abandoned bool
}

// item is a frame to be written: a call's, or another.
type item struct {
	call  *Call // nil: frame is all
	frame []byte
	bytes int
}

// link is a connection to another node, or what will be one: it is dialled when
// there is something to send.
type link struct {
	peers *Peers
	node  *node
	loop  *loop.Loop
	task  loop.Task // turn
	again loop.Task // turn, after the others of the loop had theirs
	later loop.Task // posts task; it is for what task itself would do at once

	session atomic.Pointer[string] // the incarnation at the other end; nil if not up
	largest atomic.Int64           // request that the other side takes, as far as is known
	ended   chan struct{}          // closed when it is retired and nothing is left of it

	mu      sync.Mutex
	queue   []*Call
	cancels []cancellation
	places  int      // that were ever in use
	uses    []uint32 // by place: its next use
	free    []uint32
	queued  int   // bytes of calls not yet handed to the system
	refused error // calls end with it; nil while the link takes some

	// turns is held by the loop, and by whoever finds that the loop has ended.
	// It guards all that follows.
	turns    sync.Mutex
	table    []place
	freed    []uint32       // to be given back to free
	live     int            // calls in table
	taken    []*Call        // queue, being looked at; its memory changes places with that of queue
	stopped  []cancellation // cancels, likewise
	state    linkState
	retiring bool
	over     bool // ended is closed

	sock    loop.Sock
	out     []item
	base    uint64 // number of out[0]
	first   int    // of out that is not wholly written
	off     int    // bytes of it that are
	blocked bool
	early   map[uint64]Answer // of calls that are not known to be written; only if async
	async   bool              // a Writev goes on meanwhile, so how far it is cannot be known
	moved   time.Time         // when bytes last left, or had to wait
	// leaving: the other side has said that it goes away, and refuses what reaches it.
	// Nothing more is sent. What has not left ends instead of waiting for who listens
	// there next: it would overtake what is refused meanwhile.
	leaving bool
	parts   [][]byte
	in      input

	// spills is why calls have ended of which nothing had left. Whatever was sent
	// before their Done had returned ends so too, or it could overtake them when they
	// are sent again. That is all that is queued, until a look at the queue finds none.
	spills error

	redial  *backoff.ExponentialBackOff
	dialAt  time.Time // not before
	lastErr error     // of the attempt before
	alarm   loop.Timer
	alarmAt time.Time // zero if it is not set
}

func newLink(p *Peers, n *node, on *loop.Loop) *link {
	l := &link{peers: p, node: n, loop: on, ended: make(chan struct{})}
	l.task.Run = l.turn
	l.again.Run = l.turn
	l.later.Run = func() { l.loop.Post(&l.task) }
	l.redial = backoff.NewExponentialBackOff()
	l.redial.InitialInterval, l.redial.MaxInterval = firstRedial, lastRedial
	l.in.link = l
	l.largest.Store(int64(p.cfg.MaxMessageBytes))
	l.early = make(map[uint64]Answer)
	return l
}

// send queues a call. Any goroutine. After an error the call is not the link's.
func (l *link) send(c *Call) error {
	l.mu.Lock()
	if l.refused != nil {
		defer l.mu.Unlock()
		return fmt.Errorf("%w: node %d: %w", ErrUnreachable, l.node.id, l.refused)
	}
	if len(l.free) == 0 && l.places >= l.peers.cfg.MaxCallsPerLink || l.queued >= l.peers.cfg.MaxQueuedBytesPerLink {
		defer l.mu.Unlock()
		return fmt.Errorf("%w: node %d", ErrBusy, l.node.id)
	}
	index := uint32(l.places)
	if n := len(l.free); n > 0 {
		index = l.free[n-1]
	} else {
		l.uses = append(l.uses, 0)
	}
	id := uint64(l.uses[index])<<32 | uint64(index)
	now := time.Now()
	head, err := appendEnvelope(c.link.head[:0], id, l.peers.clock(now), c, int(l.largest.Load()))
	c.link.head = head
	if err != nil {
		if len(l.free) == 0 {
			l.uses = l.uses[:index]
		}
		l.mu.Unlock()
		return err
	}
	if n := len(l.free); n > 0 {
		l.free = l.free[:n-1]
	} else {
		l.places++
	}
	l.uses[index]++
	l.queued += frameBytes(head)
	c.link.id = id
	c.link.owner.Store(l)
	c.link.since = now
	l.queue = append(l.queue, c)
	l.mu.Unlock()
	l.wake()
	return nil
}

// frameBytes is the size of a frame that begins with head.
func frameBytes(head []byte) int { return 4 + int(binary.BigEndian.Uint32(head)) }

func (l *link) cancel(what cancellation) {
	l.mu.Lock()
	l.cancels = append(l.cancels, what)
	l.mu.Unlock()
	l.wake()
}

func (l *link) wake() {
	if !l.loop.Post(&l.task) {
		l.peers.abandon(l)
	}
}

// refuse makes calls that are sent from now on end with why. Any goroutine.
func (l *link) refuse(why error) {
	l.mu.Lock()
	if l.refused == nil {
		l.refused = why
	}
	l.mu.Unlock()
}

// retire ends the link for good. Any goroutine. ended is closed when it is done.
func (l *link) retire() {
	l.refuse(errClosing)
	l.onLoop(func() {
		l.look()
		l.retiring = true
		l.failWaiting(errClosing)
		if l.state == up {
			l.sock.Close(errClosing)
		}
		l.endIfRetired()
	})
}

// withdraw gives up a node that is not registered any more: it may still answer
// what it has, for a moment. Any goroutine.
func (l *link) withdraw() {
	l.onLoop(func() {
		if l.state != up {
			l.look()
			l.failWaiting(errGone)
			return
		}
		if l.leaving {
			return
		}
		s := l.sock
		l.leave(errGone)
		l.loop.After(partingTime, func() {
			l.turns.Lock()
			defer l.turns.Unlock()
			if l.sock == s {
				s.Close(errGone)
			}
		})
	})
}

// only closes the connection if it is to another process than that. Any goroutine.
func (l *link) only(incarnation string) {
	if s := l.session.Load(); s == nil || *s == incarnation {
		return
	}
	l.onLoop(func() {
		if s := l.session.Load(); s != nil && *s != incarnation {
			l.sock.Close(errGone)
		}
	})
}

// onLoop runs f on the loop, with turns held; if that has ended, so has the link.
func (l *link) onLoop(f func()) {
	t := &loop.Task{Run: func() {
		l.turns.Lock()
		defer l.turns.Unlock()
		f()
	}}
	if !l.loop.Post(t) {
		l.peers.abandon(l)
	}
}

// endIfRetired ends a link that is retired and has nothing any more. With turns held.
func (l *link) endIfRetired() {
	if l.retiring && l.state == down && !l.over {
		l.over = true
		l.peers.forget(l)
		close(l.ended)
	}
}

// abandon ends the calls of a link whose loop has ended, once it has.
func (l *link) abandon() {
	l.refuse(loop.ErrStopped)
	l.turns.Lock()
	defer l.turns.Unlock()
	l.retiring = true
	if l.state == up {
		return // closed is on its way, and does the rest
	}
	l.take()
	l.failAll(loop.ErrStopped)
	l.endIfRetired()
}

// turn does whatever can be done since something has changed.
func (l *link) turn() {
	l.turns.Lock()
	defer l.turns.Unlock()
	l.look()
	switch l.state {
	case up:
		l.flush()
	case down:
		l.dial()
	}
}

// look takes what was queued. On the loop.
func (l *link) look() {
	next := l.take()
	if l.leaving && l.state == up && !next.IsZero() {
		l.failWaiting(errLeaves)
		return
	}
	if l.spills != nil {
		if next.IsZero() {
			l.spills = nil
		} else {
			l.failWaiting(l.spills)
			return
		}
	}
	if !next.IsZero() {
		l.watch(min(next.Sub(l.loop.Now()), lookInterval))
	}
}

// take makes items of what was queued; next is when the first of these calls
// has to be answered.
func (l *link) take() (next time.Time) {
	l.mu.Lock()
	l.queue, l.taken = l.taken[:0], l.queue
	l.cancels, l.stopped = l.stopped[:0], l.cancels
	l.free = append(l.free, l.freed...)
	l.mu.Unlock()
	l.freed = l.freed[:0]
	for i, c := range l.taken {
		l.taken[i] = nil
		index := int(uint32(c.link.id))
		for index >= len(l.table) {
			l.table = append(l.table, place{})
		}
		d := c.Timeout
		if d <= 0 {
			d = longestCall
		}
		p := place{call: c, use: uint32(c.link.id >> 32), item: l.base + uint64(len(l.out)), deadline: c.link.since.Add(d)}
		if next.IsZero() || p.deadline.Before(next) {
			next = p.deadline
		}
		if c.Begin > 0 {
			p.begin = c.link.since.Add(c.Begin)
			if p.begin.Before(next) {
				next = p.begin
			}
		}
		l.table[index] = p
		l.live++
		l.out = append(l.out, item{call: c, frame: c.link.head, bytes: frameBytes(c.link.head)})
	}
	for _, what := range l.stopped {
		if p := l.at(what.id); what.abandoned && p != nil && !p.begun {
			l.drop(p)
			l.fail(int(uint32(what.id)), ErrUnreachable, errUnasked)
			continue
		}
		l.sendCancel(what.id)
	}
	return next
}

// at returns the place of a call under way, nil if it is over.
func (l *link) at(id uint64) *place {
	if index := uint32(id); int(index) < len(l.table) {
		if p := &l.table[index]; p.call != nil && p.use == uint32(id>>32) {
			return p
		}
	}
	return nil
}

// sendCancel asks for the answer of a call under way, behind its request.
func (l *link) sendCancel(id uint64) {
	if p := l.at(id); p == nil || p.expired {
		return
	}
	stream := l.at(id).call.Stream
	l.mu.Lock()
	l.queued += 4 + cancelBytes
	l.mu.Unlock()
	l.out = append(l.out, item{frame: appendCancel(nil, id, stream), bytes: 4 + cancelBytes})
}

// finish ends the call of a place. What comes for it later is ignored.
func (l *link) finish(index int, a Answer) {
	c := l.table[index].call
	l.table[index] = place{}
	l.live--
	l.freed = append(l.freed, uint32(index))
	l.peers.done(c, a)
}

func (l *link) fail(index int, kind, why error) {
	l.finish(index, Answer{Status: Failed, Err: fmt.Errorf("%w: node %d: %w", kind, l.node.id, why)})
}

// failWaiting ends the calls of which no byte has left. On the loop.
func (l *link) failWaiting(why error) {
	for i := range l.table {
		if p := &l.table[i]; p.call != nil && !p.begun {
			l.drop(p)
			l.fail(i, ErrUnreachable, why)
			l.spills = why
		}
	}
	l.lookAgain()
}

// lookAgain has the queue looked at once more if calls have spilled. On the loop.
func (l *link) lookAgain() {
	if l.spills != nil {
		l.loop.Post(&l.later)
	}
}

// drop takes a call of which no byte has left out of what is to be written.
func (l *link) drop(p *place) {
	it := &l.out[p.item-l.base]
	l.unqueue(it.bytes)
	*it = item{}
}

func (l *link) unqueue(bytes int) {
	l.mu.Lock()
	l.queued -= bytes
	l.mu.Unlock()
}

// failAll ends all calls; there is no connection any more.
func (l *link) failAll(why error) {
	left := -l.off
	for i := l.first; i < len(l.out); i++ {
		left += l.out[i].bytes
	}
	l.unqueue(max(left, 0))
	l.base += uint64(len(l.out))
	clear(l.out)
	l.out, l.first, l.off = l.out[:0], 0, 0
	for i := range l.table {
		p := &l.table[i]
		if a, ok := l.early[uint64(p.use)<<32|uint64(i)]; ok && p.call != nil {
			l.finish(i, a)
			continue
		}
		switch {
		case p.call == nil:
		case p.written, p.begun && l.async:
			l.fail(i, ErrLost, why)
		default:
			// Half a frame is nothing to the other side.
			l.fail(i, ErrUnreachable, why)
			l.spills = why
		}
	}
	clear(l.early)
}

// flush writes what waits.
func (l *link) flush() {
	for total := 0; l.state == up && !l.blocked; {
		want := l.gather()
		if want == 0 {
			return
		}
		n, err := l.sock.Writev(l.parts, true)
		clear(l.parts)
		if err != nil {
			l.sock.Close(err)
			return
		}
		l.left(n)
		if n < want {
			l.blocked = true
			return
		}
		if total += n; total >= writeBytesPerTurn {
			l.loop.Post(&l.again)
			return
		}
	}
}

// gather lists the bytes to be written next, and returns how many they are.
func (l *link) gather() (bytes int) {
	l.parts = l.parts[:0]
	skip := l.off
	for i := l.first; i < len(l.out) && bytes < bytesPerWrite; i++ {
		it := &l.out[i]
		if it.bytes == 0 {
			continue
		}
		if l.leaving && skip == 0 {
			break // it waits for the next connection
		}
		var message [][]byte
		if it.call != nil {
			message = it.call.Message
		}
		if len(l.parts) > 0 && len(l.parts)+1+len(message) > partsPerWrite {
			break
		}
		if l.async && it.call != nil {
			l.at(it.call.link.id).begun = true
		}
		for part := -1; part < len(message); part++ {
			p := it.frame
			if part >= 0 {
				p = message[part]
			}
			if skip >= len(p) {
				skip -= len(p)
				continue
			}
			l.parts = append(l.parts, p[skip:])
			bytes += len(p) - skip
			skip = 0
		}
	}
	return bytes
}

// left notes that n more bytes are with the system.
func (l *link) left(n int) {
	l.moved = l.loop.Now()
	l.peers.metrics.bytesOut.Add(float64(n))
	l.unqueue(n)
	l.off += n
	for l.first < len(l.out) {
		it := l.out[l.first]
		if l.off < it.bytes {
			if it.call != nil && l.off > 0 {
				l.at(it.call.link.id).begun = true
			}
			l.compact()
			return
		}
		l.off -= it.bytes
		l.out[l.first] = item{}
		l.first++
		if it.call != nil {
			p := l.at(it.call.link.id)
			p.begun, p.written = true, true
			id := it.call.link.id
			if a, ok := l.early[id]; ok {
				delete(l.early, id)
				l.finish(int(uint32(id)), a)
			} else if p.expired {
				l.expire(int(uint32(id)))
			}
		}
	}
	l.compact()
}

// compact gives up the memory of what is written, once that is half of it.
func (l *link) compact() {
	if l.first < len(l.out)-l.first {
		return
	}
	l.base += uint64(l.first)
	l.out = slices.Delete(l.out, 0, l.first)
	l.first = 0
}

// watch makes check run within d.
func (l *link) watch(d time.Duration) {
	at := l.loop.Now().Add(d)
	if !l.alarmAt.IsZero() && !at.Before(l.alarmAt) {
		return
	}
	l.alarm.Stop()
	l.alarmAt = at
	l.alarm = l.loop.After(d, l.check)
}

// check ends the calls whose time is over, and the connection if the other side
// is dead or does not read.
func (l *link) check() {
	l.turns.Lock()
	defer l.turns.Unlock()
	l.alarmAt = time.Time{}
	now := l.loop.Now()
	next := l.dropLate(now)
	for i := range l.table {
		if p := &l.table[i]; p.call == nil || p.expired {
			continue
		} else if left := p.deadline.Sub(now); left <= 0 {
			l.expire(i)
		} else {
			next = min(next, left)
		}
	}
	if l.state == up {
		limit := l.peers.cfg.PeerTimeout
		_, silent := l.sock.Silent()
		switch {
		case silent >= limit:
			l.sock.Close(errSilent)
			return
		case l.blocked && now.Sub(l.moved) >= limit:
			l.sock.Close(errStalled)
			return
		}
		l.flush()
	}
	if l.state == down && !l.retiring && l.live > 0 {
		l.dial()
	}
	if l.live > 0 || l.blocked {
		l.watch(next)
	}
}

// expire ends a call whose time is over, as soon as the system does not have
// its memory any more.
func (l *link) expire(index int) {
	p := &l.table[index]
	switch {
	case p.written:
		l.sendCancel(uint64(p.use)<<32 | uint64(index))
		l.fail(index, ErrLost, errNoReply)
	case p.begun:
		p.expired = true
	default:
		why := errNotSent
		if l.lastErr != nil {
			why = fmt.Errorf("%w: %w", errNotSent, l.lastErr)
		}
		// Those behind it would overtake it.
		l.failWaiting(why)
	}
}

// dial begins an attempt to connect if something waits for it and it is time.
func (l *link) dial() {
	if l.live == 0 || l.retiring {
		return
	}
	if wait := l.dialAt.Sub(l.loop.Now()); wait > 0 {
		l.watch(wait)
		return
	}
	l.state = dialling
	l.peers.running.Go(func() {
		c, err := l.peers.connect(l.node.id)
		if err == nil {
			err = l.loop.Adopt(c.Conn, func(s loop.Sock) loop.Handler { return l.opened(s, c) })
		}
		if err == nil {
			return
		}
		t := &loop.Task{Run: func() { l.notDialled(err) }}
		if !l.loop.Post(t) {
			l.turns.Lock()
			l.state = down
			l.turns.Unlock()
			l.abandon()
		}
	})
}

// notDialled is called when an attempt to connect has failed: what has waited for
// it has waited long enough.
func (l *link) notDialled(err error) {
	l.turns.Lock()
	defer l.turns.Unlock()
	l.look()
	l.state = down
	l.lastErr = err
	l.dialAt = l.loop.Now().Add(l.redial.NextBackOff())
	l.peers.metrics.dialsFailed.Inc()
	if !l.retiring {
		l.node.warn(l.peers.cfg.Log, err)
	}
	l.failWaiting(err)
	l.endIfRetired()
}

// opened is called on the loop with a connection whose other side has proved itself.
func (l *link) opened(s loop.Sock, c connected) loop.Handler {
	l.turns.Lock()
	defer l.turns.Unlock()
	l.sock, l.state, l.lastErr = s, up, nil
	l.async, l.blocked, l.leaving = s.HoldsSpace(), false, false
	l.moved = l.loop.Now()
	l.session.Store(&c.incarnation)
	l.dropTooLarge(c.maxMessageBytes)
	l.dropLate(l.moved)
	l.peers.metrics.links.Inc()
	l.node.connected(l.peers.cfg.Log)
	if l.retiring {
		s.Close(errClosing)
	}
	l.loop.Post(&l.task)
	return (*events)(l)
}

// dropLate ends the calls that should have left by now. Others of their streams do not
// wait for them. It returns after how long it should be asked again.
func (l *link) dropLate(now time.Time) (next time.Duration) {
	next = lookInterval
	for i := range l.table {
		p := &l.table[i]
		if p.call == nil || p.begun || p.begin.IsZero() {
			continue
		}
		if left := p.begin.Sub(now); left > 0 {
			next = min(next, left)
			continue
		}
		l.drop(p)
		l.fail(i, ErrUnreachable, errNotSent)
	}
	return next
}

// dropTooLarge ends the calls that are larger than what the other side takes.
func (l *link) dropTooLarge(limit int) {
	limit = min(limit, l.peers.cfg.MaxMessageBytes)
	if int64(limit) >= l.largest.Swap(int64(limit)) {
		return
	}
	l.look()
	for i := range l.table {
		p := &l.table[i]
		if p.call == nil {
			continue
		}
		if n := frameBytes(p.call.link.head) - len(p.call.link.head); n > limit {
			l.drop(p)
			l.fail(i, ErrTooLarge, fmt.Errorf("it has %d bytes, that node takes %d", n, limit))
		}
	}
}

// events is a link as the handler of its connection.
type events link

func (e *events) Space() []byte {
	l := (*link)(e)
	l.turns.Lock()
	defer l.turns.Unlock()
	return l.in.space()
}

func (e *events) Filled(n int) {
	l := (*link)(e)
	l.turns.Lock()
	defer l.turns.Unlock()
	l.peers.metrics.bytesIn.Add(float64(n))
	if err := l.in.filled(n); err != nil {
		l.node.warn(l.peers.cfg.Log, err)
		l.sock.Close(err)
	}
}

func (e *events) Written(n int) {
	l := (*link)(e)
	l.turns.Lock()
	defer l.turns.Unlock()
	l.blocked = false
	l.left(n)
	l.flush()
}

func (e *events) EOF() {
	l := (*link)(e)
	l.turns.Lock()
	defer l.turns.Unlock()
	l.sock.Close(io.EOF)
}

func (e *events) Closed(err error) {
	l := (*link)(e)
	l.turns.Lock()
	defer l.turns.Unlock()
	l.closed(err)
}

// closed is called when the connection is gone.
func (l *link) closed(err error) {
	l.state, l.sock, l.blocked = down, nil, false
	l.lastErr = err
	l.in.close()
	l.session.Store(nil)
	l.peers.metrics.links.Dec()
	l.dialAt = l.loop.Now().Add(l.redial.NextBackOff())
	l.take()
	l.failAll(err)
	l.lookAgain()
	l.endIfRetired()
}

// answered is called with each answer. buf holds it, and is retained for it.
func (l *link) answered(id uint64, status Status, rest []byte, buf *buffer.Buffer) error {
	if status == goAway {
		buf.Release()
		l.leave(errLeaves)
		return nil
	}
	a := Answer{Status: status}
	p := l.at(id)
	switch {
	case p == nil:
		// Of a call that was given up.
		buf.Release()
		return nil
	case !p.begun || !p.written && (!l.async || l.early[id].Buf != nil):
		buf.Release()
		return fmt.Errorf("%w: an answer to what was not sent", ErrProtocol)
	case status == Answered:
		if len(rest) < 4 || !sameCorrelation(p.call, rest) {
			buf.Release()
			return fmt.Errorf("%w: it does not belong to the request", ErrProtocol)
		}
		if planted.Is(planted.MixedAnswers) {
			mixUp(p.call, rest)
		}
		a.Message, a.Buf = rest, buf
	case status == Dropped:
		a.Err = errors.New(string(rest[:min(len(rest), maxRefusalBytes)]))
		buf.Release()
	case status == Silent, status == NotServed:
		buf.Release()
	default:
		buf.Release()
		return fmt.Errorf("%w: status %d", ErrProtocol, status)
	}
	l.redial.Reset()
	if !p.written {
		// Whoever writes has yet to say so, and until then may use the call's memory.
		l.early[id] = a
		return nil
	}
	l.finish(int(uint32(id)), a)
	l.part()
	return nil
}

// leave sends nothing more, and closes the connection as soon as nothing is owed. On the loop.
func (l *link) leave(why error) {
	l.look()
	l.leaving = true
	l.failWaiting(why)
	l.part()
}

// part closes a connection whose other side wants that, as soon as it owes nothing.
func (l *link) part() {
	if l.leaving && !l.anyBegun() {
		l.sock.Close(errLeaves)
	}
}

// anyBegun says whether the other side may have something of a call.
func (l *link) anyBegun() bool {
	return slices.ContainsFunc(l.table, func(p place) bool { return p.begun })
}

// sameCorrelation says whether the answer begins with the correlation id of the request.
func sameCorrelation(c *Call, answer []byte) bool {
	const at = 4 // behind key and version
	var id [4]byte
	skip, n := at, 0
	for _, p := range c.Message {
		if skip >= len(p) {
			skip -= len(p)
			continue
		}
		n += copy(id[n:], p[skip:])
		skip = 0
		if n == len(id) {
			return [4]byte(answer) == id
		}
	}
	return false
}
