package proxy

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

var loopback = &ProxyProtocol{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}

// onEachProxied runs f on every kind of listener, behind load balancers. secure
// begins TLS where the listener has it.
func onEachProxied(t *testing.T, f func(t *testing.T, c Config, secure func(*client) *client)) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.Listeners[0].ProxyProtocol = loopback
		f(t, c, func(cl *client) *client { return cl })
	})
	t.Run("tls", func(t *testing.T) {
		c := Config{Loops: 2, Listeners: []Listener{{
			Name: "SSL", Address: "127.0.0.1:0", ProxyProtocol: loopback,
			TLS: &tls.Config{Certificates: []tls.Certificate{testCertificate(t)}},
		}}}
		f(t, c, func(cl *client) *client {
			return &client{tls.Client(cl.Conn, &tls.Config{InsecureSkipVerify: true}), cl.t}
		})
	})
}

// value is that of a counter or a gauge.
func value(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	m := families[0].GetMetric()[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// told is a handler that tells where requests come from.
func told(remotes chan<- string) testHandler {
	return func(r *Request) {
		remotes <- r.RemoteAddr()
		echo(r)
	}
}

func TestPPClients(t *testing.T) {
	onEachProxied(t, func(t *testing.T, c Config, secure func(*client) *client) {
		remotes := make(chan string, 1)
		s := start(t, c, told(remotes))
		for _, header := range []struct {
			bytes  []byte
			remote string // empty: the socket's
			check  bool
		}{
			{[]byte("PROXY TCP4 203.0.113.7 192.0.2.1 51234 9092\r\n"), ppFour.String(), false},
			{[]byte("PROXY UNKNOWN\r\n"), "", false},
			{ppV2(ppProxy, 0x11, ppBlock(ppFour), true), ppFour.String(), false},
			{ppV2(ppProxy, 0x21, ppBlock(ppSix), false), ppSix.String(), false},
			{ppV2(ppProxy, 0x00, nil, false), "", false},
			{ppV2(ppLocal, 0x00, nil, false), "", true},
		} {
			want := header.remote
			cl := dial(t, s)
			if want == "" {
				// Of a unix socket the kinds of loops say different things.
				if want = cl.LocalAddr().String(); c.Listeners[0].Network == "unix" {
					want = s.listeners[0].Addr().String()
					if c.Portable {
						want = "@"
					}
				}
			}
			// In one write with what follows, where that can be.
			cl.send(header.bytes)
			cl = secure(cl)
			for i := range 3 {
				cl.send(frame(3, 3, int32(i), nil))
				if got := <-remotes; got != want {
					t.Errorf("%q: the client is %s, want %s", header.bytes, got, want)
				}
				cl.receive()
			}
			counted, uncounted := 1, 0
			if header.check {
				counted, uncounted = 0, 1
			}
			s.mu.Lock()
			if s.conns != counted || s.uncounted != uncounted || int(value(t, s.metrics.clients.connections)) != counted {
				t.Errorf("%q: %d connections, %d not counted", header.bytes, s.conns, s.uncounted)
			}
			s.mu.Unlock()
			cl.Close()
			eventually(t, "the connection is forgotten", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.conns == 0 && s.uncounted == 0 && s.live == 0 && len(s.perIP) == 0
			})
		}
	})
}

// A header and a request in one segment, and both in single bytes.
func TestPPBytes(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.Listeners[0].ProxyProtocol = loopback
		remotes := make(chan string, 1)
		s := start(t, c, told(remotes))
		for _, header := range [][]byte{[]byte("PROXY TCP4 203.0.113.7 192.0.2.1 51234 9092\r\n"), ppV2(ppProxy, 0x11, ppBlock(ppFour), true)} {
			all := append(bytes.Clone(header), frame(3, 3, 7, pattern(100, 1))...)
			for _, n := range []int{len(all), 1} {
				cl := dial(t, s)
				for part := range slices.Chunk(all, n) {
					cl.send(part)
				}
				if got := <-remotes; got != ppFour.String() {
					t.Errorf("the client is %s", got)
				}
				if corr, body := cl.receive(); corr != 7 || !bytes.Equal(body, pattern(100, 1)) {
					t.Errorf("answer %d of %d bytes", corr, len(body))
				}
				cl.Close()
			}
		}
	})
}

// Limits are those of the clients, not of the load balancer that all come from;
// and its checks pass when the server is full.
func TestPPLimits(t *testing.T) {
	onEachProxied(t, func(t *testing.T, c Config, secure func(*client) *client) {
		c.MaxConnectionsPerIP = 1
		c.MaxConnections = 2
		s := start(t, c, echo)
		from := func(header []byte) *client {
			cl := dial(t, s)
			cl.send(header)
			return secure(cl)
		}
		served := func(cl *client) *client {
			t.Helper()
			cl.send(frame(3, 3, 1, nil))
			cl.receive()
			return cl
		}
		first := served(from(ppV2(ppProxy, 0x11, ppBlock(ppFour), false)))
		again := from(ppV2(ppProxy, 0x11, ppBlock(ppFour), false))
		_, _ = again.Write(frame(3, 3, 1, nil))
		again.wantEnd()
		served(from(ppV2(ppProxy, 0x21, ppBlock(ppSix), false)))
		third := from(ppV2(ppProxy, 0x11, ppBlock(netip.MustParseAddrPort("203.0.113.8:1")), false))
		_, _ = third.Write(frame(3, 3, 1, nil))
		third.wantEnd()
		for range 3 {
			served(from(ppV2(ppLocal, 0x00, nil, false)))
		}
		for reason, want := range map[string]float64{"max.connections": 1, "max.connections.per.ip": 1, "proxy.protocol": 0} {
			if got := value(t, s.metrics.rejected.WithLabelValues(reason)); got != want {
				t.Errorf("%v rejected for %s, want %v", got, reason, want)
			}
		}
		first.Close()
		eventually(t, "the first is forgotten", func() bool { return s.connCount() == 1 })
		served(from(ppV2(ppProxy, 0x11, ppBlock(ppFour), false)))
	})
}

// Attempts to be somebody else.
func TestPPSpoofing(t *testing.T) {
	forged := ppV2(ppProxy, 0x11, ppBlock(ppFour), true)
	line := []byte("PROXY TCP4 203.0.113.7 192.0.2.1 51234 9092\r\n")
	unserved := func(t *testing.T) testHandler {
		return func(r *Request) {
			t.Errorf("a request was served, of %s", r.RemoteAddr())
			echo(r)
		}
	}
	t.Run("from an untrusted network", func(t *testing.T) {
		for _, portable := range []bool{false, true} {
			core, lines := observer.New(zapcore.WarnLevel)
			s := start(t, Config{Portable: portable, Log: zap.New(core), Listeners: []Listener{{
				Name: "EXTERNAL", Address: "127.0.0.1:0",
				ProxyProtocol: &ProxyProtocol{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
			}}}, unserved(t))
			const attempts = 3
			for range attempts {
				cl := dial(t, s)
				_, _ = cl.Write(append(bytes.Clone(forged), frame(3, 3, 1, nil)...))
				cl.wantEnd()
			}
			eventually(t, "all are refused", func() bool {
				return value(t, s.metrics.rejected.WithLabelValues("proxy.protocol.trusted.networks")) == attempts
			})
			if lines.Len() != 1 || lines.FilterField(zap.String("listener", "EXTERNAL")).Len() != 1 {
				t.Errorf("logged: %v", lines.All())
			}
		}
	})
	t.Run("without a trusted network", func(t *testing.T) {
		s := start(t, Config{Listeners: []Listener{{Address: "127.0.0.1:0", ProxyProtocol: &ProxyProtocol{}}}}, unserved(t))
		cl := dial(t, s)
		_, _ = cl.Write(append(bytes.Clone(forged), frame(3, 3, 1, nil)...))
		cl.wantEnd()
	})
	t.Run("on a listener without", func(t *testing.T) {
		onEachKind(t, func(t *testing.T, c Config) {
			s := start(t, c, unserved(t))
			for _, header := range [][]byte{forged, line} {
				cl := dial(t, s)
				_, _ = cl.Write(append(bytes.Clone(header), frame(3, 3, 1, nil)...))
				cl.wantEnd()
			}
		})
	})
	t.Run("without a header", func(t *testing.T) {
		onEachProxied(t, func(t *testing.T, c Config, secure func(*client) *client) {
			core, lines := observer.New(zapcore.WarnLevel)
			c.Log = zap.New(core)
			s := start(t, c, unserved(t))
			for range 2 {
				cl := secure(dial(t, s))
				_, _ = cl.Write(frame(3, 3, 1, nil))
				cl.wantEnd()
			}
			eventually(t, "both are counted", func() bool {
				return value(t, s.metrics.rejected.WithLabelValues("proxy.protocol")) == 2
			})
			eventually(t, "one line is logged", func() bool { return lines.Len() == 1 })
		})
	})
	t.Run("a header of the client's behind that of the load balancer", func(t *testing.T) {
		onEachProxied(t, func(t *testing.T, c Config, secure func(*client) *client) {
			s := start(t, c, unserved(t))
			for _, header := range [][]byte{forged, line} {
				cl := dial(t, s)
				cl.send(ppV2(ppProxy, 0x21, ppBlock(ppSix), true))
				cl = secure(cl)
				_, _ = cl.Write(append(bytes.Clone(header), frame(3, 3, 1, nil)...))
				cl.wantEnd()
			}
		})
	})
	t.Run("damaged", func(t *testing.T) {
		onEachProxied(t, func(t *testing.T, c Config, secure func(*client) *client) {
			s := start(t, c, unserved(t))
			cl := dial(t, s)
			damaged := bytes.Clone(forged)
			damaged[ppFixedBytes] ^= 1
			cl.send(damaged)
			cl = secure(cl)
			_, _ = cl.Write(frame(3, 3, 1, nil))
			cl.wantEnd()
		})
	})
}

// Who takes too long over the header is closed, however steadily the bytes come.
func TestPPSlow(t *testing.T) {
	onEachProxied(t, func(t *testing.T, c Config, secure func(*client) *client) {
		clk := &clock{t: time.Unix(1000, 0)}
		c.now = clk.now
		s := start(t, c, echo)
		waiting := func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.uncounted
		}
		silent, slow := dial(t, s), dial(t, s)
		header := ppV2(ppProxy, 0x11, ppBlock(ppFour), true)
		for i := range 4 {
			slow.send(header[i : i+1])
			eventually(t, "both wait", func() bool { return waiting() == 2 })
			clk.advance(s, time.Second)
		}
		if waiting() != 2 {
			t.Fatal("closed too early")
		}
		eventually(t, "both are closed", func() bool {
			clk.advance(s, time.Second)
			return waiting() == 0
		})
		silent.wantEnd()
		slow.wantEnd()
		// The clock stands still now: what is in time is served.
		cl := dial(t, s)
		cl.send(header)
		cl = secure(cl)
		cl.send(frame(3, 3, 1, nil))
		cl.receive()
		clk.advance(s, time.Minute)
		cl.send(frame(3, 3, 2, nil))
		cl.receive()
	})
}

// A connection that is given up before its header is whole leaves nothing behind, and
// a word in the log only if it had begun.
func TestPPGivenUp(t *testing.T) {
	onEachProxied(t, func(t *testing.T, c Config, _ func(*client) *client) {
		core, lines := observer.New(zapcore.WarnLevel)
		c.Log = zap.New(core)
		s := start(t, c, echo)
		for i, part := range []string{"", "PROXY TCP4 203"} {
			cl := dial(t, s)
			cl.send([]byte(part))
			cl.Close()
			eventually(t, "it is forgotten", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.uncounted == 0 && s.conns == 0
			})
			eventually(t, "the log is as expected", func() bool { return lines.Len() == i })
		}
	})
}

// The end of the server does not wait for headers.
func TestPPShutdown(t *testing.T) {
	onEachProxied(t, func(t *testing.T, c Config, secure func(*client) *client) {
		s := start(t, c, echo)
		served := dial(t, s)
		served.send(ppV2(ppLocal, 0, nil, false))
		served = secure(served)
		served.send(frame(3, 3, 1, nil))
		served.receive()
		waits := dial(t, s)
		waits.send([]byte("PROXY "))
		eventually(t, "one waits", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.uncounted == 2
		})
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_, _, _ = served.tryReceive()
			served.Close()
		}()
		if err := s.Shutdown(background(t)); err != nil {
			t.Error(err)
		}
		<-closed
		waits.wantEnd()
	})
}

// Listeners with and without headers, in one server.
func TestPPBesideOthers(t *testing.T) {
	remotes := make(chan string, 1)
	s := start(t, Config{Listeners: []Listener{
		{Name: "INTERNAL", Address: "127.0.0.1:0"},
		{Name: "EXTERNAL", Address: "127.0.0.1:0", ProxyProtocol: loopback},
	}}, told(remotes))
	for name, header := range map[string][]byte{"INTERNAL": nil, "EXTERNAL": ppV2(ppProxy, 0x11, ppBlock(ppFour), false)} {
		nc, err := (&net.Dialer{}).DialContext(background(t), "tcp", s.Addr(name).String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		cl := &client{nc, t}
		cl.send(append(header, frame(3, 3, 1, nil)...))
		want := nc.LocalAddr().String()
		if header != nil {
			want = ppFour.String()
		}
		if got := <-remotes; got != want {
			t.Errorf("%s: the client is %s, want %s", name, got, want)
		}
		cl.receive()
	}
}
