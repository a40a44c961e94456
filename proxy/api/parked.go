package api

import (
	"net"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// parked is a request that a group answers later: no goroutine waits for it.
// It is answered once, by whoever comes first of the group, the end of its
// connection, and the drain of a connection that is about to close. A member
// does not leave its group because its connection has closed.
type parked struct {
	h        *Handlers
	r        *proxy.Request
	state    atomic.Int32 // of the parked* constants
	long     bool         // it may wait for other clients
	draining atomic.Bool
	unasked  atomic.Bool                       // the client has hung up, though it may read on
	refuse   func(protocol.Code) kmsg.Response // of a long request that is drained

	// trip takes a request about one group to the node that coordinates the group;
	// nil for others, and where there are no other nodes.
	trip *trip
}

// The states of a parked request.
const (
	parkedHeld    int32 = iota // by one who may use r: it is decoded, or on its way
	parkedWaiting              // for the group
	parkedClosed               // the connection closed while it was held
	parkedAnswered
)

// waiting makes a row's handler of a method that gives the decoded request to a
// group. The method runs on the loop, or on a worker if the body is long; it
// calls wait once it needs nothing of the frame any more, and gives up if that
// fails. Where it is not this node that coordinates the group of a request that
// is about one, it runs later or not at all.
func waiting[Q kmsg.Request](f func(*Handlers, *parked, Q)) func(*Handlers, *proxy.Request) {
	return park(f, false)
}

// waitingLong is waiting for requests that may wait for other clients: when the
// connection is about to close they are refused, by what the method sets refuse to.
func waitingLong[Q kmsg.Request](f func(*Handlers, *parked, Q)) func(*Handlers, *proxy.Request) {
	return park(f, true)
}

func park[Q kmsg.Request](f func(*Handlers, *parked, Q), long bool) func(*Handlers, *proxy.Request) {
	return func(h *Handlers, r *proxy.Request) {
		p := &parked{h: h, r: r, long: long}
		r.OnClose(p.closed)
		if long || !h.alone() {
			r.OnDrain(func() {
				if r.Conn.HungUp() {
					p.unasked.Store(true)
					p.trip.abandon()
				}
				p.drain()
			})
		}
		serve := func() {
			p.trip.handing()
			handle := func() {
				q := kmsg.RequestForKey(r.Key).(Q)
				if err := h.parse(r, q); err != nil {
					p.state.Store(parkedAnswered)
					p.trip.ended()
					r.Drop(err)
					p.trip.handed()
					return
				}
				h.withTopics(r, q, func() {
					f(h, p, q)
					p.trip.handed()
				})
			}
			if len(r.Body) > inlineBytes {
				r.Go(handle)
			} else {
				handle()
			}
		}
		if h.alone() || !protocol.NamesGroup(r.Key, r.Version) || !p.travel(serve) {
			serve()
		}
	}
}

// wait begins the waiting. False: the connection is gone, and the request with it.
func (p *parked) wait() bool {
	if p.state.CompareAndSwap(parkedHeld, parkedWaiting) {
		if p.draining.Load() {
			p.drain()
		}
		return true
	}
	p.state.Store(parkedAnswered)
	p.trip.ended()
	p.r.NoResponse()
	return false
}

// hold ends the waiting without an answer. False: it has been answered.
func (p *parked) hold() bool { return p.state.CompareAndSwap(parkedWaiting, parkedHeld) }

// respond answers, unless that was done. Any goroutine.
func (p *parked) respond(resp kmsg.Response) {
	if p.state.CompareAndSwap(parkedWaiting, parkedAnswered) {
		p.trip.ended()
		p.h.respond(p.r, resp)
	}
}

// wanted says whether somebody waits for the answer to a request that waits, and has not
// gone elsewhere with it. Any goroutine.
func (p *parked) wanted() bool {
	elsewhere := p.trip != nil && p.trip.forwarded && p.draining.Load()
	return p.state.Load() == parkedWaiting && !p.unasked.Load() && !elsewhere
}

// end answers a request that is held, by answer; or not at all if its
// connection is gone: false.
func (p *parked) end(answer func(r *proxy.Request)) bool {
	live := p.state.CompareAndSwap(parkedHeld, parkedAnswered)
	p.trip.ended()
	if live {
		answer(p.r)
		return true
	}
	p.state.Store(parkedAnswered)
	p.r.NoResponse()
	return false
}

// closed runs on the loop if the connection closes before the answer.
func (p *parked) closed() {
	if p.state.CompareAndSwap(parkedHeld, parkedClosed) {
		p.trip.closed()
		return // who holds it finds it
	}
	if p.state.CompareAndSwap(parkedWaiting, parkedAnswered) {
		p.trip.ended()
		p.r.NoResponse()
	}
}

// drain runs when the connection waits for its answers to close. The client
// looks for the coordinator anew and asks again. What does not wait for other clients
// is not cut short, but it is not tried again either.
func (p *parked) drain() {
	p.draining.Store(true)
	if !p.long {
		return
	}
	p.trip.cancel()
	if p.state.CompareAndSwap(parkedWaiting, parkedAnswered) {
		if p.trip != nil && p.trip.forwarded {
			p.r.Refuse()
			return
		}
		p.h.respond(p.r, p.refuse(protocol.CoordinatorNotAvailable))
	}
}

// clientHost is the client's address as Kafka tells it, Java's InetAddress.
func clientHost(r *proxy.Request) string { return string(appendClientHost(nil, r)) }

func appendClientHost(dst []byte, r *proxy.Request) []byte {
	host, _, err := net.SplitHostPort(r.RemoteAddr())
	if err != nil {
		host = r.RemoteAddr() // a unix socket's
	}
	return append(append(dst, '/'), host...)
}
