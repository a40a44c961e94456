package bookie

import (
	"time"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// Client talks to one bookie. Its methods may be called from any goroutine.
type Client struct{}

// Call is a read under way.
type Call struct{}

// New makes a client; it connects when there is something to ask.
func New(id metadata.BookieID, cfg Config) *Client { return nil }

// ID returns the bookie's id.
func (c *Client) ID() metadata.BookieID { return "" }

// Add sends an add of p. If Add returns nil, h hears the outcome; else (ErrClosed,
// ErrOverloaded) it does not, and nothing was sent. A timeout of 0 is
// Config.AddTimeout.
func (c *Client) Add(p *Packet, timeout time.Duration, h AddHandler, tag uint64) error { return nil }

// Read reads one entry. If Read returns no error, done is called once, from a
// goroutine of the client; it must not block and not call Close.
func (c *Client) Read(r ReadRequest, done func(ReadReply)) (*Call, error) { return nil, nil }

// ReadBatch reads consecutive entries with one request, which bookies before
// 4.17.0 answer by closing the connection (BP-62). For done see Read.
func (c *Client) ReadBatch(r BatchRequest, done func(BatchReply)) (*Call, error) { return nil, nil }

// Cancel gives a read up: unless it has ended, done is called with ErrCanceled,
// from a goroutine of the client. An answer that comes later is dropped.
func (c *Call) Cancel() {}

// Reachable says whether the bookie was heard from since a dial last failed.
func (c *Client) Reachable() bool { return false }

// Stats returns the gauges as they are now.
func (c *Client) Stats() Stats { return Stats{} }

// Close closes the connections, fails what is under way with ErrClosed and returns
// when the last handler has.
func (c *Client) Close() {}
