// Package proxy is what a client connects to: listeners, connections, the
// order of answers, and limits. It knows frames and headers; what a request
// means is its Handler's business.
package proxy

import (
	"time"

	"github.com/quirelog/quire/protocol/buffer"
)

// Handler is given every request whose header could be read.
type Handler interface {
	// Accepts says whether the API key is known and the version in range. A
	// request that is not accepted closes the connection, ApiVersions (18)
	// excepted: that one is always handed on.
	Accepts(key, version int16) bool

	// FlexibleRequest says whether the request header of key and version is
	// v2 (with tagged fields).
	FlexibleRequest(key, version int16) bool

	// Handle starts a request. It runs on the connection's loop: it must not
	// block and should take well below a millisecond; Request.Go is for the
	// rest. It answers through Respond, NoResponse or Drop, now or later.
	Handle(r *Request)
}

// Request is one request of one connection.
//
// The requests of a connection are handled one at a time, in order, except that
// Produce requests (key 0) overlap with each other: the next one is handled as soon as
// the one before has returned from Handle, unless that one called Go: then
// whatever follows waits until Go's function has returned.
type Request struct {
	Key           int16
	Version       int16
	CorrelationID int32
	ClientID      string         // aliases the frame
	Body          []byte         // after the header; aliases Frame
	Frame         *buffer.Buffer // hold it past the answer only by Retain
	Conn          *Conn
	Received      time.Time

	// Scratch is the handler's: it survives in the pooled Request, so a
	// handler may keep reusable state in it.
	Scratch any
}

// Conn is what handlers may know of a connection.
type Conn struct {
	Listener        string // its name, as in advertised.listeners
	RemoteAddr      string
	SoftwareName    string // from ApiVersions v3+
	SoftwareVersion string
}

// Response is the bytes of an answer after its size, in parts that are sent as
// they are. Release is called once they are sent, or never will be.
type Response struct {
	Parts   [][]byte // header included; read-only until released
	Release func()   // may be nil
}

// Respond answers. Any goroutine, exactly once per request (of Respond, NoResponse, Drop).
func (r *Request) Respond(resp Response) { panic("unwritten") }

// NoResponse ends a request that gets no answer (acks=0).
func (r *Request) NoResponse() { panic("unwritten") }

// Drop closes the connection instead of answering; why is logged.
func (r *Request) Drop(why error) { panic("unwritten") }

// Go runs f on the server's bounded workers, for what may block. f runs exactly
// once, even if the connection closes meanwhile.
func (r *Request) Go(f func()) { panic("unwritten") }

// Post runs f on the connection's loop. Any goroutine. It is dropped if the
// connection is closed by then.
func (r *Request) Post(f func()) { panic("unwritten") }

// Timer runs a function later on the connection's loop.
type Timer struct{}

// After calls f on the connection's loop after d, within some milliseconds. Loop only.
func (r *Request) After(d time.Duration, f func()) Timer { panic("unwritten") }

// Stop makes f not be called. Loop only.
func (t Timer) Stop() { panic("unwritten") }

// OnClose registers f to run on the loop if the connection closes before the
// request is answered. Loop only, at most one per request.
func (r *Request) OnClose(f func()) { panic("unwritten") }
