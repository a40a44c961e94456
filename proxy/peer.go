package proxy

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/proxy/forward"
	"github.com/quirelog/quire/proxy/loop"
)

// PeerAuth makes a listener one for other nodes, and says whom it lets in: those
// that prove to know the secret, or by TLS that they have a certificate. Of
// everything but Self and Secret the zero value means the default.
type PeerAuth struct {
	Self forward.Identity

	// Secret is what all nodes of the cluster share, forward.MinSecretBytes at
	// least. Without one the listener's TLS must ask for certificates.
	Secret []byte

	// Late, if it is not nil, gives Self and Secret for each link, to those who bind
	// the listener before they know. It is called after Serve, and must not block.
	Late func() (forward.Identity, []byte)

	// MaxLinks is how many such connections there may be, proved or not; 1,024.
	MaxLinks int

	// MaxRequestsPerLink is how many requests of a connection may be without an
	// answer, long polls of many clients among them; 65,536. Then, as with the next
	// two, it is not read from until it is back at half of that.
	MaxRequestsPerLink int

	// MaxInflightBytesPerLink is how many bytes of requests of a connection may
	// wait for their answers to leave; 64 MiB. All links together count as all clients do.
	MaxInflightBytesPerLink int

	// MaxUnsentBytesPerLink is how many bytes of answers may wait to leave; 64 MiB.
	MaxUnsentBytesPerLink int
}

const (
	handshakeTimeout = 5 * time.Second

	// maxNames bounds the names that a link keeps: of listeners, principals and
	// addresses of clients.
	maxNames = 8192

	maxIdleStreams = 1024
)

var (
	errHandshakeTime = errors.New("no handshake in time")
	errLinkRequest   = errors.New("unexpected frame on a link")
)

func (l *Listener) fillPeer(maxFrameBytes int) error {
	p := *l.Peer
	if l.ProxyProtocol != nil {
		return fmt.Errorf("%w: listener %s: nodes connect to each other directly, without the PROXY protocol", errConfig, l.Name)
	}
	if p.Late == nil && len(p.Secret) == 0 && (l.TLS == nil || l.TLS.ClientAuth != tls.RequireAndVerifyClientCert) {
		return fmt.Errorf("%w: listener %s: peers need a secret, or TLS with certificates on both sides", errConfig, l.Name)
	}
	if n := len(p.Secret); n > 0 && n < forward.MinSecretBytes {
		return fmt.Errorf("%w: listener %s: a secret of %d bytes; it needs %d at least", errConfig, l.Name, n, forward.MinSecretBytes)
	}
	setDefault(&p.MaxLinks, 1024)
	setDefault(&p.MaxRequestsPerLink, 1<<16)
	setDefault(&p.MaxInflightBytesPerLink, 64<<20)
	setDefault(&p.MaxUnsentBytesPerLink, 64<<20)
	l.Peer = &p
	l.limits = connLimits{p.MaxRequestsPerLink, p.MaxInflightBytesPerLink, p.MaxUnsentBytesPerLink, maxFrameBytes}
	return nil
}

// link is what a connection from another node has beside the others'. Its
// requests are those of many clients: each is handled as it comes, apart from
// the order within its stream, and its answer is queued in the ring when it is ready. So
// all that is in the ring is ready, and leaves as other answers do.
type link struct {
	conn     *Conn
	acceptor forward.Acceptor
	proven   bool
	leaving  bool // the other side knows that this one is about to end
	node     int32
	transit  forward.Transit
	streams  map[uint64]*stream
	names    map[string]string

	ready atomic.Pointer[Request] // answered, newest first
}

// stream is the requests of one client's connection at the other node that are
// under way. It exists as long as there are some.
type stream struct {
	link    *link // nil while it is idle
	id      uint64
	task    loop.Task // run
	open    []*Request
	waiting []*Request

	working atomic.Int32 // Go functions not returned; any goroutine
}

func newLink(c *Conn, auth *PeerAuth) {
	self, secret := auth.Self, auth.Secret
	if auth.Late != nil {
		self, secret = auth.Late()
	}
	c.link = &link{
		conn:     c,
		acceptor: forward.Acceptor{Self: self, Secret: secret, MaxMessageBytes: c.limits.frameBytes},
		streams:  make(map[uint64]*stream),
		names:    make(map[string]string),
	}
	c.maxFrameBytes = forward.MaxHandshakeBytes
	c.traffic = c.server.metrics.peers
	c.watch(handshakeTimeout)
}

// waitsForEnd says whether the connection stays until the other side closes it.
func (k *link) waitsForEnd() bool {
	return k != nil && k.leaving && !k.conn.ending && !k.conn.eof
}

// accept takes a frame, as Conn.accept.
func (k *link) accept(b *buffer.Buffer, frame []byte) {
	c := k.conn
	if !k.proven {
		k.handshake(frame)
		b.Release()
		c.giveBack(len(frame))
		return
	}
	switch binary.BigEndian.Uint16(frame) {
	case forward.KeyEnvelope:
		k.request(b, frame)
	case forward.KeyCancel:
		call, id, err := forward.ParseCancel(frame)
		b.Release()
		c.giveBack(len(frame))
		if err != nil {
			c.end(err)
			return
		}
		if s := k.streams[id]; s != nil {
			s.cancel(call)
		}
	default:
		c.refuse(b, len(frame), fmt.Errorf("%w: key %d", errLinkRequest, binary.BigEndian.Uint16(frame)))
	}
}

func (k *link) handshake(frame []byte) {
	c := k.conn
	reply, done, err := k.acceptor.Receive(frame)
	if err == nil {
		k.transit.Arrived(k.acceptor.Clock, c.server.cfg.peersNow())
	}
	k.say(sizeBytes, reply)
	if err != nil {
		k.notProven(err)
		c.end(err)
		return
	}
	if done {
		k.proven = true
		k.node = k.acceptor.Peer.Node
		c.maxFrameBytes = c.limits.frameBytes + forward.MaxEnvelopeBytes
		c.server.cfg.Log.Debug("link opened", zap.Int32("node", k.node), zap.String("remote", c.RemoteAddr))
	}
}

// notProven tells that somebody is not let in.
func (k *link) notProven(why error) {
	c := k.conn
	c.server.metrics.rejected.WithLabelValues("peer").Inc()
	if n := c.server.refusals.due(); n > 0 {
		c.server.cfg.Log.Warn("somebody is not let in as a node", zap.String("listener", c.Listener),
			zap.String("remote", c.RemoteAddr), zap.Error(why), zap.Int("refused", n))
	}
}

// say queues bytes that answer no request of a client; the first prefixBytes
// are in place of the prefix.
func (k *link) say(prefixBytes int, rest []byte) *Request {
	c := k.conn
	r := c.state.newRequest()
	r.Key, r.Conn, r.prefixBytes = -1, c, prefixBytes
	k.sayAs(r, rest)
	return r
}

func (k *link) sayAs(r *Request, rest []byte) {
	c := k.conn
	r.resp = Response{Parts: [][]byte{rest}}
	r.bytes = r.prefixBytes + len(rest)
	r.state.Store(requestReady)
	c.unsent.Add(int64(r.bytes))
	k.queue(r)
	c.loop.Post(&c.task)
}

// queue puts an answer behind those that wait to leave.
func (k *link) queue(r *Request) {
	k.conn.push(r)
	k.conn.handled++
}

// request takes an envelope.
func (k *link) request(b *buffer.Buffer, frame []byte) {
	c := k.conn
	r := c.state.newRequest()
	e, err := forward.ParseEnvelope(frame, r.origin.Slots)
	if err != nil {
		c.state.recycle(r)
		c.refuse(b, len(frame), err)
		return
	}
	r.origin = Origin{
		Listener:   k.name(e.Listener),
		RemoteAddr: k.name(e.RemoteAddr),
		Principal:  k.name(e.Principal),
		Stream:     e.Stream,
		Node:       k.node,
		Slots:      e.Slots,
		Timeout:    e.Timeout,
	}
	r.Origin, r.call = &r.origin, e.Call
	r.Key, r.Message, r.Frame, r.Conn = -1, e.Request, b, c
	r.Received = c.loop.Now()
	r.frameBytes, r.prefixBytes = len(frame), forward.AnswerBytes
	head, body, err := c.server.header(e.Request)
	if err != nil {
		k.instead(r, forward.Dropped, err.Error())
		return
	}
	if k.late(r, e.Sent, e.Begin) || k.leaving {
		k.instead(r, forward.NotServed, "")
		return
	}
	r.Key, r.Version, r.CorrelationID, r.ClientID, r.Body = head.Key, head.Version, head.CorrelationID, head.ClientID, body
	c.unanswered++
	s := k.streams[e.Stream]
	if s == nil {
		s = c.state.newStream()
		s.link, s.id = k, e.Stream
		k.streams[e.Stream] = s
	}
	r.stream = s
	s.waiting = append(s.waiting, r)
	s.start()
}

// instead answers a request that is not handed on.
func (k *link) instead(r *Request, status forward.Status, text string) {
	forward.PutAnswer(r.prefix[:], r.call, status, len(text))
	k.sayAs(r, []byte(text))
}

// name returns the string of p, which it keeps: handlers may keep it as well.
func (k *link) name(p []byte) string {
	if s, ok := k.names[string(p)]; ok {
		return s
	}
	if len(k.names) >= maxNames {
		clear(k.names)
	}
	s := string(p)
	k.names[s] = s
	return s
}

// answered queues a request that was answered. Any goroutine; the loop's task
// is posted next.
func (k *link) answered(r *Request) {
	for {
		head := k.ready.Load()
		r.next = head
		if k.ready.CompareAndSwap(head, r) {
			return
		}
	}
}

// collect queues the answers that are ready, in the order in which they became so.
func (k *link) collect() {
	newest := k.ready.Swap(nil)
	var first *Request
	for newest != nil {
		next := newest.next
		newest.next = first
		first, newest = newest, next
	}
	for r := first; r != nil; r = first {
		first = r.next
		r.next = nil
		s := r.stream
		s.open = slices.Delete(s.open, slices.Index(s.open, r), slices.Index(s.open, r)+1)
		k.conn.unanswered--
		k.queue(r)
		s.run()
	}
}

// leave tells the other side that this one is about to end. It says whether
// the other side is one that understands it.
func (k *link) leave() bool {
	if !k.proven {
		return false
	}
	if !k.leaving {
		k.leaving = true
		r := k.say(forward.AnswerBytes, nil)
		forward.PutGoAway(r.prefix[:])
		k.conn.drain()
	}
	return true
}

// drainHooks makes parked requests answer.
func (k *link) drainHooks() {
	for _, s := range k.streams {
		s.drainHooks()
	}
}

// closed is called when the connection is gone.
func (k *link) closed() {
	for _, s := range k.streams {
		for _, r := range s.waiting {
			k.conn.unanswered--
			k.conn.giveUpFrame(r)
			k.conn.state.recycle(r)
		}
		s.waiting = nil
		for _, r := range s.open {
			if f := r.onClose; f != nil && r.state.Load() == requestHandled {
				r.onClose = nil
				f()
			}
		}
		s.run()
	}
}

// run goes on with what may have waited, and ends the stream if it is empty.
func (s *stream) run() {
	if s.link == nil {
		return
	}
	s.start()
	if len(s.open) == 0 && len(s.waiting) == 0 && s.working.Load() == 0 {
		k := s.link
		delete(k.streams, s.id)
		s.link = nil
		if st := k.conn.state; len(st.idle) < maxIdleStreams {
			st.idle = append(st.idle, s)
		}
	}
}

// start handles the requests whose turn it is; see Request.
func (s *stream) start() {
	c := s.link.conn
	for len(s.waiting) > 0 && !c.lingering && !c.closed && s.working.Load() == 0 {
		r := s.waiting[0]
		if !r.after.IsZero() && !r.cancelled {
			if left := r.after.Sub(c.server.cfg.peersNow()); left > 0 {
				c.loop.After(left, s.run)
				return
			}
		}
		for _, o := range s.open {
			if !o.cancelled && o.state.Load() == requestHandled && (!overlaps(r.Key) || o.Key != r.Key) {
				return
			}
		}
		s.waiting = slices.Delete(s.waiting, 0, 1)
		s.open = append(s.open, r)
		c.open.Add(1)
		r.state.Store(requestHandled)
		if r.overdue(c.server.cfg.peersNow()) || r.unasked() {
			r.Refuse()
			continue
		}
		if c.outlived(r) {
			r.Drop(errSenderGone)
			continue
		}
		c.server.cfg.Handler.Handle(r)
	}
}

// cancel makes a request answer, if it can do so early. What waits for its
// turn has it as soon as nothing is before it that anybody waits for.
func (s *stream) cancel(call uint64) {
	for _, r := range s.waiting {
		if r.call == call {
			r.cancelled = true
		}
	}
	for _, r := range s.open {
		if r.call == call {
			r.cancelled = true
		}
	}
	s.drainHooks()
	s.run()
}

// drainHooks makes those parked requests answer of which that is wanted.
func (s *stream) drainHooks() {
	if s.link == nil {
		return
	}
	for _, r := range s.open {
		if f := r.onDrain; f != nil && (r.cancelled || s.link.conn.draining) && r.state.Load() == requestHandled {
			r.onDrain = nil
			f()
		}
	}
}

func (s *loopState) newStream() *stream {
	if n := len(s.idle); n > 0 {
		t := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return t
	}
	t := new(stream)
	t.task.Run = t.run
	return t
}
