package proxy

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/proxy/loop"
)

// Reasons for which a connection is closed, as they are logged.
var (
	errFrameSize   = errors.New("frame size out of range")
	errHeader      = errors.New("unreadable request header")
	errNotAccepted = errors.New("API key or version not accepted")
	errIdle        = errors.New("idle for too long")
	errSlowFrame   = errors.New("frame arrives too slowly")
	errNotRead     = errors.New("client does not read its answers")
	errVanished    = errors.New("client's system does not answer")
	errDrain       = errors.New("not drained in time")
	errShutdown    = errors.New("server shuts down")
	errServerClose = errors.New("server closed")
)

const (
	keyProduce     = 0
	keyFetch       = 1
	keyCommit      = 8  // OffsetCommit
	keyJoin        = 11 // JoinGroup
	keyHeartbeat   = 12
	keyAPIVersions = 18

	keyConsumerGroupHeartbeat = 68

	// minFrameBytes is a header without client id (ControlledShutdown v0).
	minFrameBytes = 8

	// sizeBytes is what comes before a frame.
	sizeBytes = 4
)

// Reasons for which a connection is not read from; bits of Conn.paused.
const (
	pausedFull   uint8 = 1 << iota // a limit of its own
	pausedMemory                   // the budget of the process
	pausedEnd                      // nothing more is wanted
)

// Conn is one connection. The exported fields are for handlers; all others
// are the loop's, except where they say otherwise.
type Conn struct {
	Listener        string // its name, as in advertised.listeners
	RemoteAddr      string
	SoftwareName    string // from ApiVersions v3+; set on the loop
	SoftwareVersion string

	// State is the handler's, of this connection. Loop only.
	State any

	id     uint64 // counts the server's connections
	server *Server
	state  *loopState
	loop   *loop.Loop
	sock   loop.Sock
	ip     ipKey
	local  bool // a load balancer's own, no client

	task  loop.Task // turn: posted whenever something may go on
	again loop.Task // turn, after the others of the loop had theirs

	in input
	ring
	link          *link // the rest of a connection from another node; nil otherwise
	unanswered    int   // requests of a link that are not in the ring yet
	limits        *connLimits
	maxFrameBytes int
	traffic       *traffic
	held          int // bytes reserved in the budget: of the ring and of the frame under way
	paused        uint8

	out      output
	watching loop.Timer
	watchAt  time.Time // when watching is due; zero if it is not set
	active   time.Time // last byte in or out
	// doubtUntil is until when what has come after a silence may be from before it.
	doubtUntil time.Time
	awaitsEnd  bool // turn is called when that is over
	opened     time.Time

	// At Shutdown; see leave.
	knowsVersions bool // the client has asked for ApiVersions
	produces      bool // and has sent Produce
	leaving       bool // a moment to close is looked for
	parting       bool // it has come
	leaveAt       time.Time

	eof       bool // the client sends nothing more
	ending    bool // nothing more is read; close when the answers have left
	draining  bool // ending or eof: what waits should not
	lingering bool // all is sent; discarding input until the client closes
	closed    bool // the socket is gone; answers go nowhere
	gone      bool // closed, and all answers have come
	why       error
	deadline  time.Time // for draining, then for lingering

	// Any goroutine.
	open     atomic.Int32 // requests handled and not answered
	working  atomic.Int32 // Go functions not returned
	unsent   atomic.Int64 // bytes of answers not yet handed to the system
	admitted atomic.Bool  // the budget lets it try again
}

// newConn makes a connection. via is the load balancer's end, if one has named the
// client; local says that it is the load balancer's own.
func (s *Server) newConn(l *Listener, sock loop.Sock, via string, local bool) *Conn {
	c := &Conn{
		Listener:   l.Name,
		RemoteAddr: sock.RemoteAddr().String(),
		server:     s,
		loop:       sock.Loop(),
		sock:       sock,
		ip:         keyOf(sock.RemoteAddr()),
		local:      local,

		limits:        &l.limits,
		maxFrameBytes: l.limits.frameBytes,
		traffic:       s.metrics.clients,
	}
	c.id = s.ids.Add(1)
	c.state = c.loop.Local.(*loopState)
	c.task.Run = c.turn
	c.again.Run = c.turn
	c.opened = c.loop.Now()
	c.active = c.opened
	c.in.init(c)
	c.state.conns[c] = struct{}{}
	c.watch(s.cfg.IdleTimeout)
	if l.Peer != nil {
		newLink(c, l.Peer)
	}
	if ce := s.cfg.Log.Check(zap.DebugLevel, "connection opened"); ce != nil {
		fields := []zap.Field{zap.String("listener", c.Listener), zap.String("remote", c.RemoteAddr)}
		if via != "" {
			fields = append(fields, zap.String("via", via), zap.Bool("local", local))
		}
		ce.Write(fields...)
	}
	switch {
	case s.draining.Load():
		c.end(errShutdown)
	case s.leaving.Load():
		c.leave()
	}
	return c
}

// ID is the connection's own number, from 1 on. Any goroutine.
func (c *Conn) ID() uint64 { return c.id }

// Loop is where the connection lives. Any goroutine.
func (c *Conn) Loop() *loop.Loop { return c.loop }

// events is the Conn as its loop.Handler, apart so that handlers do not see it.
type events Conn

func (e *events) Space() []byte    { return (*Conn)(e).in.space() }
func (e *events) Filled(n int)     { (*Conn)(e).in.filled(n) }
func (e *events) Written(n int)    { (*Conn)(e).written(n) }
func (e *events) EOF()             { (*Conn)(e).readEnd() }
func (e *events) Closed(err error) { (*Conn)(e).socketGone(err) }

// accept makes a request of a whole frame, which body's holder has retained
// for it, and whose size bytes are reserved. It says whether to go on.
func (c *Conn) accept(b *buffer.Buffer, frame []byte) {
	if c.link != nil {
		c.link.accept(b, frame)
		return
	}
	head, body, err := c.server.header(frame)
	if err != nil {
		c.refuse(b, len(frame), err)
		return
	}
	r := c.state.newRequest()
	r.Key, r.Version, r.CorrelationID, r.ClientID = head.Key, head.Version, head.CorrelationID, head.ClientID
	r.Body, r.Message, r.Frame, r.Conn = body, frame, b, c
	r.Received = c.loop.Now()
	r.frameBytes, r.prefixBytes = len(frame), sizeBytes
	switch r.Key {
	case keyAPIVersions:
		c.knowsVersions = true
	case keyProduce:
		c.produces = true
	}
	c.push(r)
	c.start()
}

// header reads the header of a request. It fails if that closes the connection.
func (s *Server) header(frame []byte) (head protocol.RequestHeader, body []byte, err error) {
	h := s.cfg.Handler
	peek, err := protocol.PeekRequestHeader(frame)
	if err != nil {
		return head, nil, fmt.Errorf("%w: %w", errHeader, err)
	}
	accepted := h.Accepts(peek.Key, peek.Version)
	if !accepted && peek.Key != keyAPIVersions {
		return head, nil, fmt.Errorf("%w: key %d version %d", errNotAccepted, peek.Key, peek.Version)
	}
	head, body, err = protocol.ParseRequestHeader(frame, h.FlexibleRequest(peek.Key, peek.Version))
	if err != nil {
		if accepted {
			return head, nil, fmt.Errorf("%w: %w", errHeader, err)
		}
		// Of an ApiVersions from the future only what all versions share is needed.
		head, body = peek, nil
	}
	if len(head.ClientID) > s.cfg.MaxClientIDBytes {
		return head, nil, fmt.Errorf("%w: client id of %d bytes", errHeader, len(head.ClientID))
	}
	return head, body, nil
}

// refuse gives up a frame that cannot be served, and with it the connection.
func (c *Conn) refuse(b *buffer.Buffer, frameBytes int, why error) {
	b.Release()
	c.giveBack(frameBytes)
	c.end(why)
}

// start handles the requests whose turn it is.
func (c *Conn) start() {
	for c.unhandled() && !c.lingering && !c.closed && c.working.Load() == 0 {
		r := c.at(c.handled)
		if c.open.Load() > 0 {
			// Those under way are all of one kind that overlaps, or it is the one before.
			if !overlaps(r.Key) || c.at(c.handled-1).Key != r.Key {
				return
			}
		}
		if c.unsent.Load() >= int64(c.limits.unsentBytes) || c.waitsForEnd(r) {
			return
		}
		c.handled++
		c.open.Add(1)
		r.state.Store(requestHandled)
		if c.outlived(r) {
			r.Drop(errSenderGone)
			return
		}
		c.server.cfg.Handler.Handle(r)
	}
}

// overlaps says whether requests of an API may be under way together on one
// connection: their order is fixed when they are handled, and what they wait for
// is a sync that all of them can share.
func overlaps(key int16) bool { return key == keyProduce || key == keyCommit }

// awaits says whether clients wait for the answers of an API in order to go on. Members
// go on with their records while they send heartbeats.
func awaits(key int16) bool { return key != keyHeartbeat && key != keyConsumerGroupHeartbeat }

// full says whether a limit of the connection's own is reached, resp. with
// half whether it is not yet back at half of all.
func (c *Conn) full(half bool) bool {
	l := c.limits
	slots, held, unsent := c.len()+c.unanswered, c.held, c.unsent.Load()
	if half {
		slots, held, unsent = 2*slots-1, 2*held-1, 2*unsent-1
	}
	return slots >= l.slots || held >= l.inflightBytes || unsent >= int64(l.unsentBytes)
}

func (c *Conn) pause(why uint8) {
	if c.paused == 0 {
		c.sock.Pause()
		c.traffic.paused.Inc()
	}
	c.paused |= why
}

func (c *Conn) unpause(why uint8) {
	if c.paused&why == 0 {
		return
	}
	c.paused &^= why
	if c.paused == 0 {
		c.traffic.paused.Dec()
		if !c.closed {
			c.in.resume()
		}
		if c.paused == 0 && !c.closed {
			c.sock.Resume()
		}
	}
}

// turn does whatever can be done since something has changed.
func (c *Conn) turn() {
	if c.closed || c.lingering {
		c.discard()
		return
	}
	if c.link != nil {
		c.link.collect()
	}
	for {
		c.flush()
		before := c.handled
		c.start()
		if c.paused&pausedFull != 0 && !c.full(true) {
			c.unpause(pausedFull)
		}
		if c.paused&pausedMemory != 0 && c.admitted.CompareAndSwap(true, false) {
			c.unpause(pausedMemory)
		}
		if c.closed || c.handled == before {
			break
		}
	}
	c.settle()
}

// settle closes a connection that has nothing left to do.
func (c *Conn) settle() {
	if c.closed || c.out.blocked || c.lingering {
		return
	}
	if !c.draining {
		if c.leaving {
			c.part()
		}
		return
	}
	if c.len() > 0 || c.unanswered > 0 || c.link.waitsForEnd() || c.paused&(pausedFull|pausedMemory) != 0 && !c.ending {
		return
	}
	if c.eof {
		c.close(c.why)
		return
	}
	c.linger()
}

// linger is how the server closes first.
func (c *Conn) linger() {
	c.ending, c.draining = true, true
	// Bytes that the client has sent and nobody has read would make the
	// system answer with a reset, which destroys answers on their way.
	// So what comes is read until the client has closed its side too.
	c.lingering = true
	c.sock.CloseWrite()
	c.deadline = c.loop.Now().Add(min(lingerTime, c.server.cfg.DrainTimeout))
	c.watch(lingerTime)
	c.budget().forget(c)
	c.in.discard()
	c.giveBack(0)
	c.unpause(pausedFull | pausedMemory | pausedEnd)
}

// lingerTime is how long a client may take to close a connection that the
// server has closed.
const lingerTime = 2 * time.Second

// end stops reading; the requests that are there are handled, answered and
// sent before the connection is closed, within DrainTimeout.
func (c *Conn) end(why error) {
	if c.closed || c.ending {
		return
	}
	if c.link != nil && why == errShutdown && c.link.leave() {
		return
	}
	c.ending = true
	if c.why == nil {
		c.why = why
	}
	c.pause(pausedEnd)
	c.drain()
}

// drain makes parked requests answer, and bounds how long all may take.
func (c *Conn) drain() {
	if !c.draining {
		c.draining = true
		c.deadline = c.loop.Now().Add(c.server.cfg.DrainTimeout)
		c.watch(c.server.cfg.DrainTimeout)
	}
	c.drainHooks()
	c.loop.Post(&c.task)
}

func (c *Conn) drainHooks() {
	if c.link != nil {
		c.link.drainHooks()
		return
	}
	for i := c.first; i != c.handled; i++ {
		r := c.at(i)
		if f := r.onDrain; f != nil && r.state.Load() == requestHandled {
			r.onDrain = nil
			f()
		}
	}
}

// dropUnhandled forgets the requests that will not be handled.
func (c *Conn) dropUnhandled() {
	for c.unhandled() {
		r := c.dropLast()
		c.giveUpFrame(r)
		c.state.recycle(r)
	}
}

// budget is the one that the connection's requests count in. Those of other nodes
// have their own: requests that wait for another node would else keep this one
// from reading what that node waits for, and all would wait for each other.
func (c *Conn) budget() *budget {
	if c.link != nil {
		return &c.server.peers
	}
	return &c.server.budget
}

// giveBack returns n bytes to the budget.
func (c *Conn) giveBack(n int) {
	c.held -= n
	c.budget().give(c, n, c.held == 0)
}

// close ends the connection now. Answers not yet sent are lost.
func (c *Conn) close(why error) {
	if c.why == nil {
		c.why = why
	}
	c.sock.Close(c.why)
}

// HungUp says whether the client has said that it sends nothing more. It may read on.
// Loop only.
func (c *Conn) HungUp() bool { return c.eof }

// readEnd is called when the client sends nothing more. It may read on, so what
// is in the work is answered.
func (c *Conn) readEnd() {
	if c.lingering {
		c.close(c.why)
		return
	}
	c.eof = true
	if c.why == nil {
		c.why = io.EOF
	}
	if c.in.partial() {
		c.why = fmt.Errorf("%w within a frame", io.ErrUnexpectedEOF)
	}
	c.drain()
}

// socketGone is called when the socket is gone.
func (c *Conn) socketGone(err error) {
	if c.why == nil {
		c.why = err
	}
	if errors.Is(err, loop.ErrHandshake) {
		c.server.handshakeFailed(c, err)
	}
	c.closed = true
	c.watching.Stop()
	if c.paused != 0 {
		c.traffic.paused.Dec()
	}
	c.budget().forget(c)
	c.in.close()
	delete(c.state.conns, c)
	if c.link != nil {
		c.link.closed()
	}
	for i := c.first; i != c.handled; i++ {
		r := c.at(i)
		if f := r.onClose; f != nil && r.state.Load() == requestHandled {
			r.onClose = nil
			f()
		}
	}
	c.dropUnhandled()
	c.giveBack(0)
	c.server.closedConn(c)
	c.discard()
}

// discard forgets the answered requests of a closed connection.
func (c *Conn) discard() {
	c.out.rewind()
	if c.link != nil {
		c.link.collect()
	}
	for c.len() > 0 && c.head().state.Load() >= requestReady {
		c.finish(c.pop())
	}
	if c.closed && !c.gone && c.len() == 0 && c.unanswered == 0 {
		c.gone = true
		c.server.left()
	}
}

// finish gives up a request that has left the ring.
func (c *Conn) finish(r *Request) {
	if !c.closed {
		c.traffic.served(r, c.loop.Now())
	}
	c.giveUpFrame(r)
	c.state.recycle(r)
}

// giveUpFrame lets go of what a request came in.
func (c *Conn) giveUpFrame(r *Request) {
	if r.Frame != nil {
		r.Frame.Release()
		r.Frame, r.Body, r.Message, r.ClientID = nil, nil, nil, ""
		c.giveBack(r.frameBytes)
	}
}

// watch makes check run within d.
func (c *Conn) watch(d time.Duration) {
	at := c.loop.Now().Add(d)
	if !c.watchAt.IsZero() && !at.Before(c.watchAt) {
		return
	}
	c.watching.Stop()
	c.watchAt = at
	c.watching = c.loop.After(d, c.check)
}

// check closes the connection if one of its deadlines has passed, and looks
// again when the next one may.
func (c *Conn) check() {
	c.watchAt = time.Time{}
	if c.leaving && !c.draining {
		c.turn()
	}
	if c.closed {
		return
	}
	now, l := c.loop.Now(), &c.server.cfg.Limits
	next := l.IdleTimeout
	due := func(since time.Time, limit time.Duration) bool {
		left := since.Add(limit).Sub(now)
		if left <= 0 {
			return true
		}
		next = min(next, left)
		return false
	}
	switch {
	case c.draining && due(c.deadline, 0):
		if c.lingering {
			c.close(c.why)
		} else {
			c.why = fmt.Errorf("%w: %w", errDrain, c.why)
			c.close(c.why)
		}
		return
	case c.out.blocked && due(c.out.moved, l.IdleTimeout):
		c.close(errNotRead)
		return
	case c.in.slow(now, due):
		c.close(errSlowFrame)
		return
	case c.link != nil:
		if !c.link.proven && !c.draining && due(c.opened, handshakeTimeout) {
			c.link.notProven(errHandshakeTime)
			c.close(errHandshakeTime)
			return
		}
	case c.quiet() && due(c.active, l.IdleTimeout):
		c.close(errIdle)
		return
	}
	if c.out.sent {
		// Looked at four times per PeerTimeout, so noticed within it.
		waits, silent := c.sock.Silent()
		if silent >= l.PeerTimeout/4*3 {
			c.close(errVanished)
			return
		}
		c.out.sent = waits || c.out.blocked
		next = min(next, l.PeerTimeout/4)
	}
	c.watch(next)
}

// quiet says whether nothing is under way.
func (c *Conn) quiet() bool {
	return c.len() == 0 && !c.out.blocked && !c.in.partial() && c.paused == 0 && !c.draining && c.working.Load() == 0
}
