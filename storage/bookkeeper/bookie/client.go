package bookie

import (
	"crypto/tls"
	"time"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// Config says how to talk to a bookie. A zero field takes the default.
type Config struct {
	// Resolve returns the address, host:port, that the bookie has now. It is
	// asked before each dial, from a goroutine of the client. Default: the
	// bookie's id.
	Resolve func(metadata.BookieID) (string, error)
	// TLS, if not nil, is spoken after START_TLS on every connection. A
	// ServerName that is empty becomes the host that was dialed.
	TLS *tls.Config

	AddConnections  int // default 2
	ReadConnections int // default 2

	AddTimeout     time.Duration // default 2 s
	ReadTimeout    time.Duration // default 2 s
	ConnectTimeout time.Duration // of the dial and of TLS; default 1 s
	// ConnectGrace is how long after a bookie was last heard from requests
	// wait for it to come back, which a bookie that restarts does: it refuses,
	// then accepts and resets, connections before it serves. After that requests
	// fail at once between dials. Default 1 s; negative: none.
	ConnectGrace time.Duration

	// MaxFrameBytes is the bookie's nettyMaxFrameSizeBytes; default 5 MiB.
	MaxFrameBytes int

	// MaxBytesInFlight bounds the adds under way to the bookie: more are refused
	// with ErrOverloaded. Default 64 MiB.
	MaxBytesInFlight int64
	// Pressure, if not nil, is called with true when more than half of
	// MaxBytesInFlight are under way and with false when less than a quarter are
	// again: who appends should wait meanwhile. Calls come one at a time in turn, from
	// a goroutine of the client or from within Add, and must not block or call the client.
	Pressure func(bookie metadata.BookieID, high bool)

	// Observe, if not nil, hears of every request that ended: how long after it
	// was made, and its outcome. It must not block.
	Observe func(bookie metadata.BookieID, op wire.Op, elapsed time.Duration, err error)
}

// AddHandler hears the outcome of adds.
type AddHandler interface {
	// Added is called once for each add that Client.Add took, from a goroutine
	// of the client and never from within Add. It must not block and not
	// call Client.Close; it may call everything else. Answers come in the order in which the
	// bookie gives them. tag is what Add was given.
	Added(bookie metadata.BookieID, entry int64, tag uint64, err error)
}

// ReadRequest is what Read asks for.
type ReadRequest struct {
	Codec *wire.Codec // of the ledger
	// Entry is the entry to read, or wire.LastEntry for the last that the
	// bookie has, acknowledged or not.
	Entry int64
	// Flags: DoFencing fences the ledger; with it or HighPriority the request goes
	// over the connection of its own.
	Flags   wire.Flags
	Timeout time.Duration // 0: Config.ReadTimeout
}

// ReadReply is the outcome of a Read.
type ReadReply struct {
	Bookie metadata.BookieID
	// Entry is what was asked for, checked by the codec, if Err is nil. Of a
	// read of wire.LastEntry its LastAddConfirmed is what the bookie knows of it.
	Entry wire.Entry
	// Buf holds Entry.Payload; who gets the reply releases it. nil if Err is not.
	Buf *buffer.Buffer
	Err error
}

// BatchRequest is what ReadBatch asks for: consecutive entries from First on, at
// least one, then as many as the bookie has of MaxEntries (0: no limit) while the
// answer stays within MaxBytes and the bookie's own limit.
type BatchRequest struct {
	Codec      *wire.Codec
	First      int64
	MaxEntries int
	MaxBytes   int
	Flags      wire.Flags
	Timeout    time.Duration
}

// BatchReply is the outcome of a ReadBatch.
type BatchReply struct {
	Bookie metadata.BookieID
	// Entries are those from First on that the bookie had and whose digests are
	// right. The slice and its payloads lie in Buf or last as long as the reply.
	Entries []wire.Entry
	Buf     *buffer.Buffer // who gets the reply releases it; nil if Err is not
	Err     error          // of the first entry; later ones that are bad end Entries
}

// Stats are a client's gauges.
type Stats struct {
	Adds        int   // under way
	Reads       int   // under way
	AddBytes    int64 // of the adds under way
	Connections int   // open
}
