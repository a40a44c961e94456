// Package proxy is what a client connects to: listeners, connections, the
// order of answers, and limits. It knows frames and headers; what a request
// means is its Handler's business.
//
//	socket ─► frame ─► header ─► ring of requests ─► Handler.Handle ─┐
//	                                                                 │ later, any goroutine
//	socket ◄─ one writev ◄─ ready heads of the ring, in order ◄──────┴─ Respond
//
// A connection lives on one event loop (package loop): its frames are cut, its
// requests handled and its answers written there. The ring keeps the order of
// answers; a full ring, and any other limit that is reached, stops the reading of the
// socket and so the client.
package proxy

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
	// block and should take well below a millisecond; Request.Go and GoSlow are for the
	// rest. It answers through Respond, NoResponse or Drop, now or later.
	Handle(r *Request)
}
