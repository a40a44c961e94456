package proxy

import (
	"sync/atomic"
	"time"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/proxy/forward"
	"github.com/quirelog/quire/proxy/loop"
)

// Request is one request of one connection. It is pooled: after Respond,
// NoResponse or Drop it belongs to somebody else.
//
// The requests of a connection are handled one at a time, in order, except that
// Produce requests (key 0) overlap with each other, and so do OffsetCommit requests
// (key 8): the next one is handled as soon as the one before has returned from
// Handle, unless that one called Go or GoSlow: then whatever follows waits until Go's
// function has returned. Of a connection from another node that is so for each
// stream, not for them all; and nothing waits for a request that the other node
// has given up, but for its Go.
type Request struct {
	Key           int16
	Version       int16
	CorrelationID int32
	ClientID      string         // aliases the frame
	Body          []byte         // after the header; aliases Frame
	Frame         *buffer.Buffer // hold it past the answer only by Retain; it may hold other frames as well
	Message       []byte         // header and Body: all after the size; aliases Frame
	Conn          *Conn
	Origin        *Origin   // of a request that another node has forwarded; nil: Conn's own client
	Received      time.Time // when the loop found it whole

	// Scratch is the handler's: it survives in the pooled Request, so a
	// handler may keep reusable state in it.
	Scratch any

	state atomic.Uint32 // of the request* constants

	origin Origin  // that Origin points at
	call   uint64  // the forwarding node's number for it
	stream *stream // of a forwarded request that was handed on

	next *Request // of those answered, which the loop has yet to see

	// Written by the one that answers, before state says so.
	resp   Response
	bytes  int // of the response on the wire, size included; 0 if there is none
	why    error
	status forward.Status            // on a link
	prefix [forward.AnswerBytes]byte // what comes before the response: prefixBytes of it

	// Loop only.
	prefixBytes int       // the response's size, and on a link what belongs to it
	frameBytes  int       // what it counts for in the limits
	cancelled   bool      // the forwarding node does not wait for it any more
	until       time.Time // of a forwarded request: when it may be begun no more; zero: always
	after       time.Time // when it may be begun; zero: at once
	onClose     func()
	onDrain     func()
}

// Origin is where a forwarded request comes from.
type Origin struct {
	Listener   string // by which the client reached the node that forwards
	RemoteAddr string // of the client
	Principal  string // "User:ANONYMOUS" without authentication
	Stream     uint64 // one per client connection and forwarding node
	Node       int32  // that forwards

	// Slots are those that the forwarding node takes this one for the owner of, in
	// an epoch of at least that: else the request is to be refused. They are the
	// Request's, until the answer.
	Slots []forward.SlotEpoch

	// Timeout is how long the forwarding node waits for the answer; 0 is not said.
	Timeout time.Duration
}

// Listener is the name of the listener by which the client came, to whatever node.
func (r *Request) Listener() string {
	if r.Origin != nil {
		return r.Origin.Listener
	}
	return r.Conn.Listener
}

// RemoteAddr is the client's address.
func (r *Request) RemoteAddr() string {
	if r.Origin != nil {
		return r.Origin.RemoteAddr
	}
	return r.Conn.RemoteAddr
}

// The states of a Request, in order.
const (
	requestWaits   uint32 = iota // in the ring, not yet handled
	requestHandled               // Handle was called
	requestReady                 // answered; the response may be sent
	requestDropped               // the connection ends here
	requestGone                  // released after the end of the loop
)

// Response is the bytes of an answer after its size, in parts that are sent as
// they are. Release is called once they are sent, or never will be; on any goroutine.
type Response struct {
	Parts   [][]byte // header included; read-only until released
	Release func()   // may be nil
}

// Respond answers. Any goroutine, exactly once per request (of Respond, NoResponse, Refuse, Drop).
//
// It costs some atomic operations; what is ready is written by the loop, all
// that it finds at once. On the loop itself that is at the end of its turn.
func (r *Request) Respond(resp Response) {
	n := r.prefixBytes
	for _, p := range resp.Parts {
		n += len(p)
	}
	r.resp = resp
	r.answer(requestReady, n)
}

// NoResponse ends a request that gets no answer (acks=0). Any goroutine.
func (r *Request) NoResponse() {
	if r.stream != nil {
		r.tell(forward.Silent, nil)
		return
	}
	r.answer(requestReady, 0)
}

// Drop closes the connection instead of answering, once the answers before it
// are sent; why is logged. It is the client's connection, at whatever node. Any goroutine.
func (r *Request) Drop(why error) {
	if r.stream != nil {
		r.tell(forward.Dropped, []byte(why.Error()))
		return
	}
	r.why = why
	r.answer(requestDropped, 0)
}

// Refuse ends a forwarded request of which nothing was done, since this node
// does not serve all its slots: the node that forwards it looks for another. Only
// of a request with an Origin. Any goroutine.
func (r *Request) Refuse() { r.tell(forward.NotServed, nil) }

// tell answers the node that forwards with something else than a response.
func (r *Request) tell(status forward.Status, text []byte) {
	r.status = status
	r.Respond(Response{Parts: [][]byte{text}})
}

func (r *Request) answer(state uint32, bytes int) {
	c, s := r.Conn, r.stream
	r.bytes = bytes
	if s != nil {
		forward.PutAnswer(r.prefix[:], r.call, r.status, bytes-r.prefixBytes)
	}
	if bytes > 0 {
		c.unsent.Add(int64(bytes))
	}
	// Before the state: once that is set, the loop may recycle r, and what
	// counts as open has to be in the ring.
	c.open.Add(-1)
	if old := r.state.Swap(state); old != requestHandled {
		panic("proxy: a request was answered twice, or not while it was handled")
	}
	if s != nil {
		c.link.answered(r)
	}
	if !c.loop.Post(&c.task) && r.state.CompareAndSwap(state, requestGone) {
		// The loop has ended, and did not see the answer before it did.
		r.release()
	}
}

// Go runs f on the server's bounded workers, for what may block. f runs exactly
// once, even if the connection closes meanwhile. Until it has returned, the
// connection's later requests wait; of a forwarded request those of its stream.
// Any goroutine, before the answer.
func (r *Request) Go(f func()) { r.runOn(r.Conn.server.workers, f) }

// GoSlow is Go for what may wait for other systems than this one's disks: to change
// metadata, or to take a log over. It has workers of its own, as many: while those
// systems are away, they all wait, and what only reads or computes does not wait behind.
func (r *Request) GoSlow(f func()) { r.runOn(r.Conn.server.slow, f) }

func (r *Request) runOn(w *workers, f func()) {
	r.Conn.working.Add(1)
	if r.stream != nil {
		r.stream.working.Add(1)
	}
	w.run(job{r.Conn, r.stream, f})
}

// Post runs f on the connection's loop. Any goroutine, before the answer. It
// is dropped if the connection is closed by then.
func (r *Request) Post(f func()) {
	c := r.Conn
	c.loop.Post(&loop.Task{Run: func() {
		if !c.closed {
			f()
		}
	}})
}

// Timer runs a function later on the connection's loop.
type Timer struct{ t loop.Timer }

// After calls f on the connection's loop after d, within some milliseconds.
// It is called even if the request is answered or the connection closed by
// then: whoever sets it stops it. Loop only.
func (r *Request) After(d time.Duration, f func()) Timer {
	return Timer{r.Conn.loop.After(d, f)}
}

// Stop makes f not be called. Loop only.
func (t Timer) Stop() { t.t.Stop() }

// OnClose registers f to run on the loop if the connection closes before the
// request is answered, which is still to be done then: the answer goes
// nowhere, but its Release is called. Loop only, at most one per request.
func (r *Request) OnClose(f func()) { r.onClose = f }

// OnDrain registers f to run on the loop if the connection is about to close
// (at Shutdown, or since the client will send nothing more) and waits for
// this request's answer: a long poll answers with what it has. So it is if the
// node that forwards the request wants the answer now. f runs at once if that is
// so already. Loop only, at most one per request.
func (r *Request) OnDrain(f func()) {
	r.onDrain = f
	if c := r.Conn; c.draining || c.leaving {
		c.loop.Post(&loop.Task{Run: c.drainHooks})
	} else if r.cancelled {
		c.loop.Post(&loop.Task{Run: r.stream.drainHooks})
	}
}

// release gives up what the request holds, and empties it for the next use.
func (r *Request) release() {
	if r.resp.Release != nil {
		r.resp.Release()
	}
	if r.Frame != nil {
		r.Frame.Release()
	}
	r.ClientID, r.Body, r.Message, r.Frame, r.Conn, r.Origin = "", nil, nil, nil, nil, nil
	r.origin = Origin{Slots: r.origin.Slots[:0]}
	r.call, r.stream, r.cancelled, r.status = 0, nil, false, 0
	r.resp, r.bytes, r.why = Response{}, 0, nil
	r.onClose, r.onDrain = nil, nil
}
