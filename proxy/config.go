package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Config is what a Server is made of. Handler and at least one Listener must
// be given; of everything else the zero value means the default.
type Config struct {
	Listeners []Listener
	Handler   Handler

	// Log gets a line at debug level for each connection opened and closed,
	// and warnings. nil means none.
	Log *zap.Logger

	// Registerer gets the metrics. nil means that none are kept.
	Registerer prometheus.Registerer

	// Loops is how many event loops there are; 0 means one per processor.
	Loops int

	// Portable uses net.Conn for all listeners, not only for those with TLS.
	Portable bool

	// Workers is how many goroutines run what was given to Request.Go, and how many what
	// was given to Request.GoSlow; 0 means 64.
	Workers int

	Limits

	now       func() time.Time // replaced by tests
	leaveTime time.Duration    // the same
	peersNow  func() time.Time // the same: when requests of other nodes come
}

// Listener is an address that clients connect to.
type Listener struct {
	Name    string      // as in advertised.listeners
	Network string      // "tcp", "tcp4", "tcp6" or "unix"; empty means "tcp"
	Address string      // host:port, or a path
	TLS     *tls.Config // nil means plain text
	Peer    *PeerAuth   // not nil: it is other nodes that connect, and forward requests

	// ProxyProtocol makes every connection begin with a PROXY protocol header,
	// before TLS; nil means none.
	ProxyProtocol *ProxyProtocol

	limits connLimits
}

// connLimits are those of a connection that comes by a listener.
type connLimits struct {
	slots, inflightBytes, unsentBytes, frameBytes int
}

// Limits bound what clients can make the server hold. A client over a limit
// is not read from until it is back at half of it, unless said otherwise. 0
// means the default.
type Limits struct {
	// MaxFrameBytes is the largest request; a larger one closes the
	// connection. Kafka's socket.request.max.bytes; 100 MiB.
	MaxFrameBytes int

	// MaxClientIDBytes is the longest client id; a longer one closes the
	// connection. 32,767, the most that the protocol can say.
	MaxClientIDBytes int

	// MaxSlotsPerConn is how many requests of a connection may wait for
	// their answers to leave; 64.
	MaxSlotsPerConn int

	// MaxInflightBytesPerConn is how many bytes of requests of a connection
	// may wait for their answers to leave; 16 MiB. A single request may be larger.
	MaxInflightBytesPerConn int

	// MaxUnsentBytesPerConn is how many bytes of answers of a connection may
	// wait for the client to read; 4 MiB. A single answer may be larger.
	MaxUnsentBytesPerConn int

	// MaxInflightBytes is how many bytes of requests all connections of clients may
	// hold, those being received included, and all of other nodes once more. Kafka's
	// queued.max.request.bytes; 512 MiB. One connection at a time may exceed it to
	// finish its frame.
	MaxInflightBytes int64

	// MaxConnections is how many connections there may be; one more is closed
	// at once. Kafka's max.connections; no limit but the descriptors.
	MaxConnections int

	// MaxConnectionsPerIP is the same for one address. Kafka's
	// max.connections.per.ip; no limit. Unix sockets do not count.
	MaxConnectionsPerIP int

	// IdleTimeout closes connections on which nothing happens and for which
	// nothing is under way, and those whose client reads nothing of what
	// waits for it. Kafka's connections.max.idle.ms; 10 min, negative is never.
	IdleTimeout time.Duration

	// FrameTimeout is how long a started frame may take for each further
	// MinFrameProgressBytes, or 1 MiB while other connections wait for memory; else the
	// connection is closed. 30 s and 4 KiB.
	FrameTimeout          time.Duration
	MinFrameProgressBytes int

	// DrainTimeout is how long a connection that is about to close may take
	// to answer what it has received and to send it; 10 s.
	DrainTimeout time.Duration

	// PeerTimeout is after how long without an answer a client's system is
	// taken for gone; 60 s.
	PeerTimeout time.Duration
}

var errConfig = errors.New("invalid server configuration")

func (c *Config) fill() error {
	if c.Handler == nil {
		return fmt.Errorf("%w: no handler", errConfig)
	}
	if len(c.Listeners) == 0 {
		return fmt.Errorf("%w: no listener", errConfig)
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.now == nil {
		c.now = time.Now
	}
	setDefault(&c.Workers, 64)
	setDefault(&c.leaveTime, defaultLeaveTime)
	if c.peersNow == nil {
		c.peersNow = time.Now
	}
	l := &c.Limits
	setDefault(&l.MaxFrameBytes, 100<<20)
	setDefault(&l.MaxClientIDBytes, math.MaxInt16)
	setDefault(&l.MaxSlotsPerConn, 64)
	setDefault(&l.MaxInflightBytesPerConn, 16<<20)
	setDefault(&l.MaxUnsentBytesPerConn, 4<<20)
	setDefault(&l.MaxInflightBytes, 512<<20)
	setDefault(&l.MaxConnections, math.MaxInt)
	setDefault(&l.MaxConnectionsPerIP, math.MaxInt)
	if l.IdleTimeout == 0 {
		l.IdleTimeout = 10 * time.Minute
	} else if l.IdleTimeout < 0 {
		l.IdleTimeout = math.MaxInt64 / 2
	}
	setDefault(&l.FrameTimeout, 30*time.Second)
	setDefault(&l.MinFrameProgressBytes, 4<<10)
	setDefault(&l.DrainTimeout, 10*time.Second)
	setDefault(&l.PeerTimeout, 60*time.Second)
	c.Listeners = slices.Clone(c.Listeners)
	for i := range c.Listeners {
		ln := &c.Listeners[i]
		ln.limits = connLimits{l.MaxSlotsPerConn, l.MaxInflightBytesPerConn, l.MaxUnsentBytesPerConn, l.MaxFrameBytes}
		if ln.Peer != nil {
			if err := ln.fillPeer(l.MaxFrameBytes); err != nil {
				return err
			}
		}
	}
	return nil
}

// setDefault replaces what is not positive.
func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}
