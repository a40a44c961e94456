package bookie

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
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

	// Stalled, if not nil, is called when the bookie has owed an answer to an add for
	// StallAfter and given none to any add over the same connection meanwhile, and
	// then several times in each StallAfter for as long as that lasts. A connection that
	// cannot be made counts alike. Calls come one at a time from a goroutine of the
	// client with none of its locks held, and must not block.
	Stalled    func(metadata.BookieID)
	StallAfter time.Duration // default 1 s

	// MaxFrameBytes is the bookie's nettyMaxFrameSizeBytes; default 5 MiB.
	MaxFrameBytes int

	// MaxBytesInFlight bounds the adds under way to the bookie: more are refused
	// with ErrOverloaded. Default 64 MiB.
	MaxBytesInFlight int64
	// Pressure, if not nil, is called with true when more than half of
	// MaxBytesInFlight are under way and with false when less than a quarter are
	// again: who appends should wait meanwhile. Calls come one at a time from a
	// goroutine of the client, never from within Add, and must not block.
	Pressure func(bookie metadata.BookieID, high bool)

	// Observe, if not nil, hears of every request that ended: how long after it
	// was made, and its outcome. It must not block.
	Observe func(bookie metadata.BookieID, op wire.Op, elapsed time.Duration, err error)
}

// AddHandler hears the outcome of adds. Its type must be comparable.
type AddHandler interface {
	// Added is called for each add that Client.Add took, from a goroutine of the
	// client and never from within Add. Bookies answer in bursts, after each sync of
	// the journal: what comes at once for one handler is told with one call, in the order
	// in which the bookie gave it. replies is the client's again when Added returns. It
	// must not block and not call Client.Close; it may call everything else.
	Added(bookie metadata.BookieID, replies []AddReply)
}

// AddReply is the outcome of an add.
type AddReply struct {
	Entry int64
	Tag   uint64 // what Add was given
	Err   error
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

const (
	defaultConnections      = 2
	defaultTimeout          = 2 * time.Second
	defaultConnectTimeout   = time.Second
	defaultStallAfter       = time.Second
	defaultMaxBytesInFlight = 64 << 20
)

func (cfg Config) withDefaults() Config {
	if cfg.Resolve == nil {
		cfg.Resolve = func(id metadata.BookieID) (string, error) { return string(id), nil }
	}
	cfg.AddConnections = cmp.Or(max(cfg.AddConnections, 0), defaultConnections)
	cfg.ReadConnections = cmp.Or(max(cfg.ReadConnections, 0), defaultConnections)
	cfg.AddTimeout = cmp.Or(cfg.AddTimeout, defaultTimeout)
	cfg.ReadTimeout = cmp.Or(cfg.ReadTimeout, defaultTimeout)
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, defaultConnectTimeout)
	cfg.ConnectGrace = cmp.Or(cfg.ConnectGrace, defaultConnectTimeout)
	cfg.StallAfter = cmp.Or(cfg.StallAfter, defaultStallAfter)
	cfg.MaxFrameBytes = cmp.Or(cfg.MaxFrameBytes, wire.DefaultMaxFrameBytes)
	cfg.MaxBytesInFlight = cmp.Or(cfg.MaxBytesInFlight, defaultMaxBytesInFlight)
	return cfg
}

// Client talks to one bookie. Its methods may be called from any goroutine.
type Client struct {
	id       metadata.BookieID
	cfg      Config
	epoch    time.Time // what times are counted from
	adds     []*channel
	reads    []*channel
	high     *channel
	channels []*channel // all of them

	budget budget
	health health
	clock  clock

	addCount, readCount atomic.Int64
	batchIDs            atomic.Int64

	ctx    context.Context // done when the client is closed
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New makes a client; it connects when there is something to ask.
func New(id metadata.BookieID, cfg Config) *Client {
	c := &Client{id: id, cfg: cfg.withDefaults(), epoch: time.Now()}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.budget = budget{bookie: id, limit: c.cfg.MaxBytesInFlight, watched: c.cfg.Pressure != nil, changed: c.clock.poke}
	for range c.cfg.AddConnections {
		c.adds = append(c.adds, newChannel(c))
	}
	for range c.cfg.ReadConnections {
		c.reads = append(c.reads, newChannel(c))
	}
	c.high = newChannel(c)
	c.channels = append(append(append(c.channels, c.adds...), c.reads...), c.high)
	c.clock.init()
	c.wg.Go(c.keepTime)
	for _, ch := range c.channels {
		c.wg.Go(ch.run)
	}
	return c
}

// ID returns the bookie's id.
func (c *Client) ID() metadata.BookieID { return c.id }

// now is the time since the client was made, which all its times are.
func (c *Client) now() time.Duration { return time.Since(c.epoch) }

// Add sends an add of p. If Add returns nil, h hears the outcome; else (ErrClosed,
// ErrOverloaded) it does not, and nothing was sent. A timeout of 0 is
// Config.AddTimeout.
func (c *Client) Add(p *Packet, timeout time.Duration, h AddHandler, tag uint64) error {
	if err := c.budget.take(int64(p.Bytes())); err != nil {
		return err
	}
	ch := c.high
	if p.flags&wire.HighPriority == 0 {
		ch = pick(c.adds, p.ledger)
	}
	if !ch.enqueueAdd(p, c.now(), cmp.Or(timeout, c.cfg.AddTimeout), h, tag) {
		c.budget.give(int64(p.Bytes()))
		return c.refuse(ErrClosed)
	}
	return nil
}

// Read reads one entry. If Read returns no error, done is called once, from a
// goroutine of the client; it must not block and not call Close. ErrClosed.
func (c *Client) Read(r ReadRequest, done func(ReadReply)) (*Call, error) {
	call := &Call{codec: r.Codec, done: done}
	call.op.key = key{op: wire.OpRead, ledger: r.Codec.Ledger(), entry: r.Entry}
	call.op.frame = wire.AppendRead(call.room[:0], r.Flags, r.Codec.Ledger(), r.Entry, r.Codec.MasterKey())
	return c.send(call, r.Flags, r.Timeout)
}

// ReadBatch reads consecutive entries with one request, which bookies before
// 4.17.0 answer by closing the connection (BP-62): it ends with ErrBroken then, at
// once, and so may other reads under way. For done see Read.
func (c *Client) ReadBatch(r BatchRequest, done func(BatchReply)) (*Call, error) {
	call := &Call{codec: r.Codec, doneBatch: done, first: r.First, most: max(r.MaxEntries, 0)}
	b := wire.Batch{
		First: r.First, RequestID: c.batchIDs.Add(1),
		MaxEntries: int32(min(max(r.MaxEntries, 0), math.MaxInt32)),
		// A frame that is larger than the client's limit would end the connection.
		MaxBytes: int64(min(r.MaxBytes, c.cfg.MaxFrameBytes-wire.LengthBytes)),
	}
	call.op.key = key{op: wire.OpBatchRead, ledger: r.Codec.Ledger(), entry: b.RequestID}
	call.op.frame = wire.AppendBatchRead(call.room[:0], r.Flags, r.Codec.Ledger(), b, r.Codec.MasterKey())
	return c.send(call, r.Flags, r.Timeout)
}

func (c *Client) send(call *Call, flags wire.Flags, timeout time.Duration) (*Call, error) {
	call.ch = c.high
	if flags&(wire.DoFencing|wire.HighPriority) == 0 {
		call.ch = pick(c.reads, call.op.key.ledger)
	}
	call.op.call = call
	if !call.ch.enqueueRead(&call.op, c.now(), cmp.Or(timeout, c.cfg.ReadTimeout)) {
		return nil, c.refuse(ErrClosed)
	}
	return call, nil
}

func pick(channels []*channel, ledger int64) *channel {
	return channels[uint64(ledger)%uint64(len(channels))]
}

// refuse names the bookie in an error.
func (c *Client) refuse(err error) error { return fmt.Errorf("bookie %s: %w", c.id, err) }

// Reachable says whether the bookie was heard from since a dial or a connection
// last failed. It is true of a bookie that was not tried yet.
func (c *Client) Reachable() bool { return !c.health.failed.Load() }

// Stats returns the gauges as they are now.
func (c *Client) Stats() Stats {
	s := Stats{Adds: int(c.addCount.Load()), Reads: int(c.readCount.Load()), AddBytes: c.budget.used.Load()}
	for _, ch := range c.channels {
		if ch.connected() {
			s.Connections++
		}
	}
	return s
}

// Close closes the connections, fails what is under way with ErrClosed and returns
// when the last handler has. It may be called more than once.
func (c *Client) Close() {
	for _, ch := range c.channels {
		ch.close()
	}
	c.cancel()
	c.wg.Wait()
	c.report(c.clock.takeLate(), nil)
}
