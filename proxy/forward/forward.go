// Package forward carries Kafka requests between nodes, one hop: a request that
// has come to a node which does not serve its slots goes on to the node that does.
//
//	client ─► node ──Call──► Peers ══ link: envelopes, answers in any order ══► owner
//	                          ◄─Answer─
//
// A link is a connection to another node's peer listener. Each request travels
// whole, as the client sent it, behind an envelope that says for whom it is.
//
// The bytes of envelopes are in envelope.go, those by which two nodes come to
// trust each other in handshake.go. Both are pure; package proxy has the
// receiving side of them.
package forward

import (
	"errors"
	"time"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/proxy/loop"
)

// Errors of an Answer.
var (
	// ErrUnreachable: the request has not left this node whole, so nothing was done.
	ErrUnreachable = errors.New("node cannot be reached")
	// ErrLost: it has left and no answer came; nobody knows whether it was carried out.
	ErrLost = errors.New("no answer from the node")
	// ErrProtocol: the other side sent what cannot be understood. As with ErrLost,
	// nobody knows whether the request was carried out.
	ErrProtocol = errors.New("node answered with something else")
	// ErrBusy: too much waits for that node already; nothing was done.
	ErrBusy = errors.New("too much waits for the node")
	// ErrTooLarge: the request, or what is said about it, is larger than what a
	// link carries; nothing was done, and trying again does not help.
	ErrTooLarge = errors.New("request cannot be forwarded")
)

// SlotEpoch is a slot that a request is for, and the epoch of its owner as the
// sender knows it: a receiver that serves the slot in an older epoch is behind.
type SlotEpoch struct {
	Slot  uint16
	Epoch int64
}

// Call is a request on its way to another node. It may be used again, for any
// node, once Done was called; that saves allocations.
type Call struct {
	// Message is the Kafka request after its size, header and body, in parts that
	// are sent as they are. They stay as they are until Done.
	Message [][]byte

	Slots      []SlotEpoch   // that the receiver must serve, all of them; none: whatever it serves. At most MaxSlots
	Stream     uint64        // the client connection. Calls of one stream to one node arrive in the order of Send
	Listener   string        // by which the client came; at most MaxNameBytes, as the next two
	RemoteAddr string        // of the client
	Principal  string        // "User:ANONYMOUS" without authentication
	Timeout    time.Duration // for the answer; then ErrLost, or ErrUnreachable if it has not left. 0: ten minutes
	Begin      time.Duration // in which it has to be begun: if it has not left by then ErrUnreachable, later NotServed. 0: Timeout

	// Loop is that of the client's connection, the same for all calls of a stream:
	// its link then lives there too, and Done is called there, so that a request and
	// its answer need no other goroutine. nil: some loop of the Sender's own.
	Loop *loop.Loop

	// Done is called exactly once, on any goroutine; it must not block. It owns
	// the Answer's Buf.
	Done func(*Call, Answer)

	link linkCall
}

// Status says what became of a request at the other node. Its values are on the wire.
type Status uint8

const (
	// Answered: Message is the Kafka response, header and body.
	Answered Status = iota
	// Silent: carried out, and there is no response (Produce with acks=0).
	Silent
	// NotServed: the other node does not serve all the slots, and has done nothing.
	NotServed
	// Dropped: the request is at fault in a way that closes the client's connection. Err says why.
	Dropped
	// Failed: there is no answer. Err says why. It is never on the wire.
	Failed
)

// Answer is what a Call ends with.
type Answer struct {
	Status  Status
	Message []byte         // in Buf; without the size
	Buf     *buffer.Buffer // to be released by Done's caller when Message is not needed any more; nil without Message
	Err     error
}

// Sender sends calls. Peers is the one that is real.
type Sender interface {
	// Send sends a call to a node; this node is one as well. Any goroutine. It does not block.
	//
	// What keeps the order of a producer: if nothing was done of a call (ErrUnreachable,
	// ErrBusy, NotServed by a node that goes on to refuse the stream), nothing is done
	// either of the later calls of its stream to that node that were sent before its Done
	// had returned. It is not so for those of which Begin says how long they may wait, and
	// of those that were abandoned. Done may be called from within Send.
	Send(node int32, c *Call)
	// Cancel asks for an answer now: a long poll answers with what it has. Done
	// comes all the same. Any goroutine; once Done was called it does nothing, nor does
	// it before Send has returned, perhaps. The Call is not sent again meanwhile.
	Cancel(c *Call)
	// Abandon is Cancel of a call that nobody waits for any more, nor for those behind it
	// in its stream that ask for the same: if nothing of it has left, nothing will, and
	// it ends with ErrUnreachable.
	Abandon(c *Call)
}
