package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/proxy/loop"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("proxy: server closed")

// Server accepts connections on its listeners and hands their requests to its Handler.
type Server struct {
	cfg     Config
	metrics *metrics
	budget  budget // of clients
	peers   budget // of other nodes
	workers *workers
	slow    *workers       // for GoSlow
	working sync.WaitGroup // goroutines of both: a job of one may make one for the other

	epoll    loop.Group   // for listeners without TLS; nil if there are none, or no epoll
	portable loop.Group   // for the others
	loops    []*loop.Loop // of both

	listeners []net.Listener // as in cfg.Listeners
	acceptors sync.WaitGroup
	serving   chan error

	ids      atomic.Uint64 // of connections
	leaving  atomic.Bool
	shakes   warning // about TLS handshakes
	refusals warning // about nodes that are not let in
	draining atomic.Bool
	stop     sync.Once
	stopped  chan struct{} // closed when Shutdown or Close is done

	mu    sync.Mutex
	conns int // until closed
	links int // the same of those from other nodes, which conns does not count
	// uncounted are connections that are no client's, or not yet; see maxUncounted.
	uncounted int
	perIP     map[ipKey]int
	live      int           // until closed and answered
	parted    chan struct{} // closed when conns is 0 and they are to leave; nil before
	empty     chan struct{} // closed when live is 0 and nothing is accepted any more; nil before
}

// ipKey is a client's address, or zero for unix sockets.
type ipKey netip.Addr

func keyOf(a net.Addr) ipKey {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return ipKey{}
	}
	ip, _ := netip.AddrFromSlice(t.IP)
	return ipKey(ip.Unmap())
}

// loopState is what the connections of a loop share. Loop only.
type loopState struct {
	conns map[*Conn]struct{}
	free  []*Request
	idle  []*stream // for reuse
	chunk chunk
	parts [][]byte
	still standstill
	// endWait is for how long what comes after a silence waits; see silence.go.
	endWait time.Duration
}

// maxFreeRequests bounds the requests that a loop keeps for reuse.
const maxFreeRequests = 1024

func (s *loopState) newRequest() *Request {
	n := len(s.free)
	if n == 0 {
		return new(Request)
	}
	r := s.free[n-1]
	s.free = s.free[:n-1]
	return r
}

func (s *loopState) recycle(r *Request) {
	r.release()
	r.state.Store(requestWaits)
	if len(s.free) < maxFreeRequests {
		s.free = append(s.free, r)
	}
}

// New listens on all addresses. Serve then accepts.
func New(cfg Config) (*Server, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg:     cfg,
		serving: make(chan error, len(cfg.Listeners)),
		stopped: make(chan struct{}),
		perIP:   make(map[ipKey]int),
	}
	s.workers, s.slow = newWorkers(cfg.Workers, &s.working), newWorkers(cfg.Workers, &s.working)
	s.budget.max, s.peers.max = cfg.MaxInflightBytes, cfg.MaxInflightBytes
	if err := s.open(); err != nil {
		s.closeListeners()
		s.closeLoops()
		return nil, err
	}
	var err error
	if s.metrics, err = newMetrics(cfg.Registerer, s); err != nil {
		s.closeListeners()
		s.closeLoops()
		return nil, err
	}
	return s, nil
}

func (s *Server) open() error {
	for _, l := range s.cfg.Listeners {
		ln, err := listen(l)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, ln)
	}
	return s.startLoops()
}

func (s *Server) startLoops() error {
	lc := loop.Config{Loops: s.cfg.Loops, Now: s.cfg.now, KeepAlive: s.cfg.PeerTimeout}
	for _, l := range s.cfg.Listeners {
		if (l.TLS != nil || s.cfg.Portable) && s.portable == nil {
			s.portable = loop.Portable(lc)
			s.loops = append(s.loops, s.portable.Loops()...)
		}
		if l.TLS == nil && !s.cfg.Portable && s.epoll == nil {
			g, err := loop.Epoll(lc)
			if errors.Is(err, loop.ErrUnsupported) {
				s.cfg.Portable = true
				return s.startLoops()
			}
			if err != nil {
				return err
			}
			s.epoll = g
			s.loops = append(s.loops, g.Loops()...)
		}
	}
	for _, l := range s.loops {
		state := &loopState{
			endWait: defaultEndWait,
			conns:   make(map[*Conn]struct{}),
			chunk:   chunk{size: sharedChunkBytes, minSpace: minSharedSpace},
			parts:   make([][]byte, 0, partsPerWrite+1),
		}
		l.Local = state
		l.Post(&loop.Task{Run: func() { state.still.begin(l) }})
	}
	return nil
}

func listen(l Listener) (net.Listener, error) {
	network := l.Network
	if network == "" {
		network = "tcp"
	}
	ln, err := loop.Listen(network, l.Address)
	if err != nil && network == "unix" && forgotten(l.Address) {
		if os.Remove(l.Address) == nil {
			ln, err = loop.Listen(network, l.Address)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", l.Name, err)
	}
	if l.TLS != nil {
		return tls.NewListener(ln, l.TLS), nil
	}
	return ln, nil
}

// forgotten says whether path is a socket that nobody listens on, as a killed process leaves behind.
func forgotten(path string) bool {
	if fi, err := os.Stat(path); err != nil || fi.Mode()&os.ModeSocket == 0 {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return false
	}
	return true
}

// Addr returns the address of the listener called name, nil if there is none.
// Any goroutine.
func (s *Server) Addr(name string) net.Addr {
	for i, l := range s.cfg.Listeners {
		if l.Name == name {
			return s.listeners[i].Addr()
		}
	}
	return nil
}

// Serve accepts connections until Shutdown or Close, and returns
// ErrServerClosed when that is done. It is called once.
func (s *Server) Serve() error {
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.acceptors.Add(len(s.listeners))
	s.mu.Unlock()
	for i := range s.listeners {
		go func() {
			defer s.acceptors.Done()
			s.serving <- s.accept(&s.cfg.Listeners[i], s.listeners[i])
		}()
	}
	for range s.listeners {
		if err := <-s.serving; !s.draining.Load() {
			s.Close()
			return err
		}
	}
	<-s.stopped
	return ErrServerClosed
}

func (s *Server) accept(l *Listener, ln net.Listener) error {
	group := s.epoll
	if l.TLS != nil || s.cfg.Portable {
		group = s.portable
	}
	var warned time.Time // last; one line a second says enough
	a := loop.Accept{
		Admit: func(remote net.Addr) bool { return s.admit(l, remote) },
		Open:  func(sock loop.Sock) loop.Handler { return (*events)(s.newConn(l, sock, "", false)) },
	}
	if l.ProxyProtocol != nil {
		a = s.behindProxy(l)
	}
	a.Failed = func(err error, retry time.Duration) {
		s.metrics.acceptErrors.Inc()
		if time.Since(warned) < time.Second {
			return
		}
		warned = time.Now()
		s.cfg.Log.Warn("cannot accept connections", zap.String("listener", l.Name),
			zap.Error(err), zap.Duration("retry_in", retry))
	}
	err := group.Serve(ln, a)
	return fmt.Errorf("listener %s: %w", l.Name, err)
}

// admit counts a connection, if there may be one more.
func (s *Server) admit(l *Listener, remote net.Addr) bool {
	ip := keyOf(remote)
	s.mu.Lock()
	defer s.mu.Unlock()
	reason := ""
	switch {
	case s.draining.Load():
		reason = "shutdown"
	case l.Peer != nil:
		if s.links >= l.Peer.MaxLinks {
			reason = "max.links"
		}
	case s.conns >= s.cfg.MaxConnections:
		reason = "max.connections"
	case ip != ipKey{} && s.perIP[ip] >= s.cfg.MaxConnectionsPerIP:
		reason = "max.connections.per.ip"
	}
	if reason != "" {
		s.metrics.rejected.WithLabelValues(reason).Inc()
		s.cfg.Log.Debug("connection rejected", zap.String("listener", l.Name),
			zap.Stringer("remote", remote), zap.String("reason", reason))
		return false
	}
	s.live++
	if l.Peer != nil {
		s.links++
		s.metrics.peers.connections.Inc()
		return true
	}
	s.conns++
	if (ip != ipKey{}) {
		s.perIP[ip]++
	}
	s.metrics.clients.connections.Inc()
	return true
}

// closedConn uncounts a connection whose socket is gone.
func (s *Server) closedConn(c *Conn) {
	if ce := s.cfg.Log.Check(zap.DebugLevel, "connection closed"); ce != nil {
		ce.Write(zap.String("listener", c.Listener), zap.String("remote", c.RemoteAddr),
			zap.String("client_software", c.SoftwareName), zap.String("client_version", c.SoftwareVersion),
			zap.Duration("open", c.loop.Now().Sub(c.opened)), zap.NamedError("reason", c.why))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.link != nil:
		s.links--
		c.traffic.connections.Dec()
		return
	case c.local:
		s.uncounted--
		return
	}
	c.traffic.connections.Dec()
	s.conns--
	if s.perIP[c.ip]--; s.perIP[c.ip] <= 0 {
		delete(s.perIP, c.ip)
	}
	s.checkParted()
}

// handshakeFailed tells why a client could not begin, which most clients do not.
// One that left without a word has only looked whether somebody listens.
func (s *Server) handshakeFailed(c *Conn, err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return
	}
	s.metrics.rejected.WithLabelValues("tls").Inc()
	n := s.shakes.due()
	if n == 0 {
		return
	}
	hint := ""
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		hint = "these are no bytes of TLS; does the client have security.protocol=SSL?"
		if text := guess([4]byte(record.RecordHeader[:])); text != "" {
			hint = text
		}
	}
	s.cfg.Log.Warn("closed a connection without TLS", zap.String("listener", c.Listener), zap.String("remote", c.RemoteAddr),
		zap.Error(err), zap.String("hint", hint), zap.Int("closed", n))
}

// left forgets a connection that is closed and owes no answers.
func (s *Server) left() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live--
	s.checkEmpty()
}

func (s *Server) checkEmpty() {
	if s.live == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

func (s *Server) checkParted() {
	if s.conns == 0 && s.parted != nil {
		close(s.parted)
		s.parted = nil
	}
}

// Shutdown closes each connection when nothing is under way on it, as far as its client
// lets that happen within a second, while it goes on to serve and to accept; parked
// requests answer early (Request.OnDrain). Then it stops accepting, lets requests that
// have been received be answered, sends all answers and closes. If ctx ends first it
// closes as Close does and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.leave(ctx)
	empty := s.drain()
	s.onConns(func(c *Conn) { c.end(errShutdown) })
	var err error
	select {
	case <-empty:
	case <-ctx.Done():
		err = fmt.Errorf("proxy: shutdown: %w", ctx.Err())
	}
	s.Close()
	return err
}

// leave returns when all clients are gone, after leaveTime, or with ctx.
func (s *Server) leave(ctx context.Context) {
	parted := make(chan struct{})
	s.mu.Lock()
	s.leaving.Store(true)
	s.parted = parted
	s.checkParted()
	s.mu.Unlock()
	s.onConns((*Conn).leave)
	late := time.NewTimer(s.cfg.leaveTime)
	defer late.Stop()
	select {
	case <-parted:
	case <-late.C:
	case <-ctx.Done():
	}
}

// onConns has f called on the loop of each connection.
func (s *Server) onConns(f func(*Conn)) {
	for _, l := range s.loops {
		l.Post(&loop.Task{Run: func() {
			for c := range l.Local.(*loopState).conns {
				f(c)
			}
		}})
	}
}

// drain stops accepting. What it returns is closed when no connection is left.
func (s *Server) drain() <-chan struct{} {
	s.mu.Lock()
	s.draining.Store(true)
	s.mu.Unlock()
	s.closeListeners()
	s.acceptors.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	empty := make(chan struct{})
	s.empty = empty
	s.checkEmpty()
	return empty
}

// Close closes everything now. It still waits, for DrainTimeout at most, for
// the Handler to answer what it has been given; those answers are not sent.
func (s *Server) Close() error {
	s.stop.Do(func() {
		defer close(s.stopped)
		empty := s.drain()
		s.onConns(func(c *Conn) { c.close(errServerClose) })
		late := time.NewTimer(s.cfg.DrainTimeout)
		defer late.Stop()
		select {
		case <-empty:
		case <-late.C:
			s.cfg.Log.Warn("requests are not answered at the end of the server")
		}
		s.workers.end()
		s.slow.end()
		s.working.Wait()
		s.closeLoops()
		for _, l := range s.loops {
			l.Local.(*loopState).chunk.release()
		}
		s.metrics.unregister()
	})
	<-s.stopped
	return nil
}

func (s *Server) closeListeners() {
	for _, ln := range s.listeners {
		ln.Close()
	}
}

func (s *Server) closeLoops() {
	for _, g := range []loop.Group{s.epoll, s.portable} {
		if g != nil {
			g.Close()
		}
	}
}
