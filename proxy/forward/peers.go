package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/quirelog/quire/proxy/loop"
	"github.com/quirelog/quire/storage/planted"
)

// Config is what Peers are made of. Self, Nodes and one of Secret and TLS must
// be given; of everything else the zero value means the default.
type Config struct {
	Self Identity

	// Nodes says where a node's peer listener is and which process that node is
	// now; not ok if there is no such node. This node is one as well. It is called
	// on any goroutine and does not block.
	Nodes func(node int32) (address, incarnation string, ok bool)

	// Secret is what all nodes of a cluster share, MinSecretBytes at least.
	Secret []byte

	// TLS dials with TLS; it holds a certificate of this node and the authorities
	// of the others'. Without a ServerName the host of the address is verified.
	TLS *tls.Config

	// MaxLinksPerNode is how many connections there may be to one node; 8. There
	// is one per event loop that has something to send.
	MaxLinksPerNode int

	// MaxCallsPerLink is how many calls of a link may be without an answer; one
	// more ends with ErrBusy. 65,536.
	MaxCallsPerLink int

	// MaxQueuedBytesPerLink is how many bytes of calls may wait to be written;
	// then ErrBusy. 128 MiB. A single call may be larger.
	MaxQueuedBytesPerLink int

	// MaxMessageBytes is the largest request; ErrTooLarge. 100 MiB, and never more
	// than what the other side takes.
	MaxMessageBytes int

	// MaxAnswerBytes is the largest answer; a larger one ends the link with
	// ErrProtocol. 256 MiB.
	MaxAnswerBytes int

	// DialTimeout bounds connecting and proving, together; 5 s.
	DialTimeout time.Duration

	// PeerTimeout is after how long without a sign of life from a node's system, or
	// without a byte that it takes while bytes wait, a link is given up; 5 s.
	PeerTimeout time.Duration

	Log        *zap.Logger           // nil: none
	Registerer prometheus.Registerer // nil: no metrics are kept

	portable bool // set by tests: loops of the kind that TLS needs
}

const (
	// longestCall is the timeout of a call that names none.
	longestCall = 10 * time.Minute

	// recheckInterval is how often the links are held against Nodes unasked.
	recheckInterval = time.Second

	// partingTime is how long a node that is not registered any more may still
	// answer what it has: one that has stopped in good order does so at once.
	partingTime = 500 * time.Millisecond
)

var (
	errUnknownNode = errors.New("no such node")
	errClosing     = errors.New("this node is about to end")
	errGone        = errors.New("the node is gone")
)

func (c *Config) fill() error {
	if err := c.Self.check(); err != nil {
		return err
	}
	if c.Nodes == nil {
		return errors.New("peers: no Nodes")
	}
	if len(c.Secret) == 0 && c.TLS == nil {
		return errors.New("peers: neither a secret nor TLS")
	}
	if n := len(c.Secret); n > 0 && n < MinSecretBytes {
		return fmt.Errorf("peers: a secret of %d bytes; it needs %d at least", n, MinSecretBytes)
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	for v, d := range map[*int]int{
		&c.MaxLinksPerNode: 8, &c.MaxCallsPerLink: 1 << 16, &c.MaxQueuedBytesPerLink: 128 << 20,
		&c.MaxMessageBytes: 100 << 20, &c.MaxAnswerBytes: 256 << 20,
	} {
		if *v <= 0 {
			*v = d
		}
	}
	for v, d := range map[*time.Duration]time.Duration{&c.DialTimeout: 5 * time.Second, &c.PeerTimeout: 5 * time.Second} {
		if *v <= 0 {
			*v = d
		}
	}
	return nil
}

// Peers is the links of a node to the others.
type Peers struct {
	cfg     Config
	metrics *metrics
	begun   time.Time // zero of the clock that others are told

	own     loop.Group // for calls that name no loop, and for TLS
	ctx     context.Context
	stop    context.CancelFunc // ends dialling
	running sync.WaitGroup     // attempts to connect, and links whose loop has ended

	recheck loop.Task // on the first loop of own

	nodes sync.Map // int32 → *node

	mu      sync.Mutex
	closing bool
	over    bool               // all links have ended
	links   map[*link]struct{} // that have not ended
	empty   chan struct{}      // closed when no call is open; set by Close

	open  atomic.Int64 // calls whose Done is to come
	ended chan struct{}
}

// node is another node, or this one, and the links to it. It is kept when the
// node is gone, so that the order of its calls outlives that.
type node struct {
	id    int32
	mu    sync.Mutex
	links []*link
	of    atomic.Pointer[map[*loop.Loop]*link] // by loop of the client's connection; replaced with mu held

	warnings warnings
}

// New returns Peers without a link: those are made when there is something to send.
func New(cfg Config) (*Peers, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	p := &Peers{cfg: cfg, begun: time.Now(), links: make(map[*link]struct{}), ended: make(chan struct{})}
	var err error
	if p.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	if cfg.TLS == nil && !cfg.portable {
		p.own, err = loop.Epoll(loop.Config{Loops: 1, KeepAlive: cfg.PeerTimeout})
	}
	if p.own == nil && err == nil || errors.Is(err, loop.ErrUnsupported) {
		p.own, err = loop.Portable(loop.Config{KeepAlive: cfg.PeerTimeout}), nil
	}
	if err != nil {
		p.metrics.unregister()
		return nil, err
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.recheck.Run = p.checkAll
	first := p.own.Loops()[0]
	first.Post(&loop.Task{Run: p.tick})
	return p, nil
}

// clock is what this node's clock shows to others; see Transit.
func (p *Peers) clock(now time.Time) time.Duration { return now.Sub(p.begun) }

// tick has the links looked at from time to time. First loop of own only.
func (p *Peers) tick() {
	p.checkAll()
	p.own.Loops()[0].After(recheckInterval, p.tick)
}

// Recheck has all links held against Nodes soon: those to nodes that are gone,
// or are another process now, are closed. Whoever learns that the nodes have
// changed calls it. Any goroutine; it does not block.
func (p *Peers) Recheck() { p.own.Loops()[0].Post(&p.recheck) }

func (p *Peers) checkAll() {
	p.nodes.Range(func(_, v any) bool {
		n := v.(*node)
		_, incarnation, ok := p.cfg.Nodes(n.id)
		n.mu.Lock()
		links := n.links
		n.mu.Unlock()
		for _, l := range links {
			if ok {
				l.only(incarnation)
			} else {
				l.withdraw()
			}
		}
		return true
	})
}

// Send is Sender's.
func (p *Peers) Send(to int32, c *Call) {
	c.link.owner.Store(nil)
	if planted.Is(planted.ForwardTwice) {
		p.sendTwice(to, c)
	}
	p.open.Add(1)
	p.metrics.calls.Inc()
	l, err := p.linkTo(to, c)
	if err == nil {
		err = l.send(c)
	}
	if err != nil {
		p.done(c, Answer{Status: Failed, Err: err})
	}
}

// done ends a call.
func (p *Peers) done(c *Call, a Answer) {
	p.metrics.ended(c, &a)
	c.Done(c, a)
	if p.open.Add(-1) == 0 {
		p.mu.Lock()
		if p.empty != nil && p.open.Load() == 0 {
			close(p.empty)
			p.empty = nil
		}
		p.mu.Unlock()
	}
}

// Cancel is Sender's.
func (p *Peers) Cancel(c *Call) {
	if l := c.link.owner.Load(); l != nil {
		l.cancel(cancellation{id: c.link.id})
	}
}

// Abandon is Sender's.
func (p *Peers) Abandon(c *Call) {
	if l := c.link.owner.Load(); l != nil {
		l.cancel(cancellation{id: c.link.id, abandoned: true})
	}
}

// linkTo returns the link that calls of c's stream take to a node.
func (p *Peers) linkTo(to int32, c *Call) (*link, error) {
	v, ok := p.nodes.Load(to)
	if !ok {
		if _, _, ok := p.cfg.Nodes(to); !ok {
			return nil, fmt.Errorf("%w: node %d: %w", ErrUnreachable, to, errUnknownNode)
		}
		v, _ = p.nodes.LoadOrStore(to, &node{id: to})
	}
	n := v.(*node)
	on := c.Loop
	if on == nil || p.cfg.TLS != nil {
		own := p.own.Loops()
		on = own[c.Stream%uint64(len(own))]
	}
	if of := n.of.Load(); of != nil {
		if l := (*of)[on]; l != nil {
			return l, nil
		}
	}
	return p.newLink(n, on)
}

func (p *Peers) newLink(n *node, on *loop.Loop) (*link, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, errClosing)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	of := make(map[*loop.Loop]*link)
	if old := n.of.Load(); old != nil {
		for k, l := range *old {
			of[k] = l
		}
	}
	l := of[on]
	if l == nil {
		if len(n.links) < p.cfg.MaxLinksPerNode {
			l = newLink(p, n, on)
			n.links = append(n.links, l)
			p.links[l] = struct{}{}
		} else {
			l = n.links[len(of)%len(n.links)]
		}
		of[on] = l
		n.of.Store(&of)
	}
	return l, nil
}

// Close ends all links: as soon as the calls under way have their answers, or
// ctx ends. From the beginning on calls end with ErrUnreachable. It returns ctx's
// error if calls had to be given up. Those with a Loop need it to run until then,
// or to have ended.
func (p *Peers) Close(ctx context.Context) error {
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		<-p.ended
		return nil
	}
	p.closing = true
	empty := make(chan struct{})
	if p.open.Load() == 0 {
		close(empty)
	} else {
		p.empty = empty
	}
	p.mu.Unlock()
	defer close(p.ended)

	for _, l := range p.all() {
		l.refuse(errClosing)
	}
	var err error
	select {
	case <-empty:
	case <-ctx.Done():
		err = fmt.Errorf("peers: %w", ctx.Err())
	}
	p.stop()
	for _, l := range p.all() {
		l.retire()
		<-l.ended
	}
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	p.running.Wait()
	p.own.Close()
	p.metrics.unregister()
	return err
}

// all returns the links that have not ended.
func (p *Peers) all() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.links))
}

// abandon ends the calls of a link whose loop has ended, on a goroutine of its own:
// whoever finds that out may be in the link's turn. Any goroutine.
func (p *Peers) abandon(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.running.Go(l.abandon)
	}
}

func (p *Peers) forget(l *link) {
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

var _ Sender = (*Peers)(nil)
