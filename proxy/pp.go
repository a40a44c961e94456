package proxy

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/proxy/loop"
)

// ProxyProtocol is how connections of a listener begin that come through a load
// balancer: with a header that names the client. It is required, since the
// protocol forbids to guess: who may leave it out can send one of his own making.
type ProxyProtocol struct {
	// Trusted are the addresses whose headers are believed. A connection from
	// elsewhere is closed before a byte is read. Unix sockets are always trusted:
	// the rights of the file say who may connect.
	Trusted []netip.Prefix
}

// maxUncounted bounds the connections that are not clients': those whose header
// has not come, and the checks of load balancers. max.connections does not
// count them, so that a server that is full is not taken for one that is down.
const maxUncounted = 4096

// warnEvery is the time between two warnings of one kind about the connections
// of a listener.
const warnEvery = 10 * time.Second

// trusts says whether a header from remote is believed.
func (p *ProxyProtocol) trusts(remote net.Addr) bool {
	ip := netip.Addr(keyOf(remote))
	if !ip.IsValid() {
		return true
	}
	for _, network := range p.Trusted {
		if network.Contains(ip) {
			return true
		}
	}
	return false
}

// behind is a listener whose connections begin with a header.
type behind struct {
	server             *Server
	listener           *Listener
	untrusted, headers warning
}

// behindProxy says what becomes of the connections of such a listener.
func (s *Server) behindProxy(l *Listener) loop.Accept {
	b := &behind{server: s, listener: l}
	return loop.Accept{
		Admit:    b.admit,
		Preamble: func(remote net.Addr) loop.Preamble { return &ppConn{behind: b, socket: remote} },
	}
}

// admit lets trusted connections in, to be counted once it is known whose they are.
func (b *behind) admit(remote net.Addr) bool {
	s := b.server
	if !b.listener.ProxyProtocol.trusts(remote) {
		s.metrics.rejected.WithLabelValues("proxy.protocol.trusted.networks").Inc()
		if n := b.untrusted.due(); n > 0 {
			s.cfg.Log.Warn("refused a connection to a listener behind load balancers that does not come from one of them: proxy.protocol.trusted.networks lists them",
				zap.String("listener", b.listener.Name), zap.Stringer("remote", remote), zap.Int("refused", n))
		}
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() || s.uncounted >= maxUncounted {
		s.metrics.rejected.WithLabelValues("proxy.protocol").Inc()
		return false
	}
	s.uncounted++
	return true
}

// ppConn is a connection until its header is whole.
type ppConn struct {
	ppHeader
	*behind
	socket net.Addr // the load balancer's end
}

func (p *ppConn) Space() []byte              { return p.space() }
func (p *ppConn) Filled(n int) (bool, error) { return p.filled(n) }

// RemoteAddr is the client's address, or the socket's if the header names none.
func (p *ppConn) RemoteAddr() net.Addr {
	if p.source.IsValid() {
		return net.TCPAddrFromAddrPort(p.source)
	}
	return p.socket
}

// Open makes a connection of it, if there may be one more.
func (p *ppConn) Open(sock loop.Sock) loop.Handler {
	s := p.server
	if !p.local {
		s.forgetUncounted()
		if !s.admit(p.listener, sock.RemoteAddr()) {
			return nil
		}
	} else if !s.admitCheck() {
		return nil
	}
	return (*events)(s.newConn(p.listener, sock, p.socket.String(), p.local))
}

// Failed tells of a header that did not come. Who connects and leaves without a word
// has only looked whether somebody listens.
func (p *ppConn) Failed(err error) {
	s := p.server
	s.forgetUncounted()
	if errors.Is(err, loop.ErrStopped) || p.n == 0 && !errors.Is(err, loop.ErrPreambleTimeout) {
		return
	}
	s.metrics.rejected.WithLabelValues("proxy.protocol").Inc()
	if n := p.headers.due(); n > 0 {
		s.cfg.Log.Warn("closed a connection that does not begin with a PROXY protocol header, as those of this listener must (send-proxy-v2 in HAProxy)",
			zap.String("listener", p.listener.Name), zap.Stringer("remote", p.socket), zap.Int("bytes", p.n), zap.Error(err), zap.Int("closed", n))
	}
}

// admitCheck lets a load balancer's own connection in. It stays among those
// that are not counted.
func (s *Server) admitCheck() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		s.uncounted--
		return false
	}
	s.live++
	return true
}

func (s *Server) forgetUncounted() {
	s.mu.Lock()
	s.uncounted--
	s.mu.Unlock()
}

// warning spaces the lines that tell of the same thing.
type warning struct {
	mu    sync.Mutex
	last  time.Time
	since int // events since then
}

// due counts an event. It returns how many are to be told of now, most often none.
func (w *warning) due() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since++
	now := time.Now()
	if !w.last.IsZero() && now.Sub(w.last) < warnEvery {
		return 0
	}
	n := w.since
	w.last, w.since = now, 0
	return n
}
