package proxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/quirelog/quire/proxy/loop"
)

func testCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Listeners with and without TLS, on IPv4, IPv6 and a unix socket, in one server.
func TestListeners(t *testing.T) {
	path := t.TempDir() + "/s"
	c := Config{
		Loops: 2,
		Listeners: []Listener{
			{Name: "PLAIN", Address: "127.0.0.1:0"},
			{Name: "TLS", Address: "127.0.0.1:0", TLS: &tls.Config{Certificates: []tls.Certificate{testCertificate(t)}}},
			{Name: "SIX", Network: "tcp6", Address: "[::1]:0"},
			{Name: "UNIX", Network: "unix", Address: path},
		},
	}
	names := make(chan string, 1)
	remotes := make(chan string, 1)
	s := start(t, c, func(r *Request) {
		if r.Key == 3 {
			names <- r.Conn.Listener
			remotes <- r.Conn.RemoteAddr
		}
		echo(r)
	})
	for _, l := range c.Listeners {
		t.Run(l.Name, func(t *testing.T) {
			a := s.Addr(l.Name)
			nc, err := net.Dial(a.Network(), a.String())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(patience))
			cl := &client{nc, t}
			if l.TLS != nil {
				cl.Conn = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
			}
			cl.send(frame(3, 3, 1, nil))
			if name := <-names; name != l.Name {
				t.Errorf("the request came from listener %s", name)
			}
			if remote, want := <-remotes, nc.LocalAddr().String(); want != "" && want != "@" && remote != want {
				t.Errorf("the client is %s, not %s", remote, want)
			}
			cl.receive()
			for _, size := range []int{0, 100, 20 << 10, 300 << 10, 3 << 20} {
				go cl.Write(frame(0, 3, int32(size), pattern(size, 1)))
				if corr, body := cl.receive(); corr != int32(size) || !bytes.Equal(body, pattern(size, 1)) {
					t.Fatalf("%d bytes came back as %d", size, len(body))
				}
			}
			// The owed answer comes before the end here as well.
			cl.send(frame(0, 3, 9, pattern(5<<20, 1)))
			cl.closeWrite()
			if corr, body := cl.receive(); corr != 9 || len(body) != 5<<20 {
				t.Fatal("the last answer is cut")
			}
			cl.wantEnd()
		})
	}
	if s.Addr("none") != nil {
		t.Error("an address of a listener that there is not")
	}
}

func TestPlainClientOfTLSListener(t *testing.T) {
	core, lines := observer.New(zapcore.WarnLevel)
	s := start(t, Config{Log: zap.New(core), Listeners: []Listener{{
		Address: "127.0.0.1:0", TLS: &tls.Config{Certificates: []tls.Certificate{testCertificate(t)}},
	}}}, echo)
	// One that only looks, then two of clients.
	dial(t, s).Close()
	rejected := func() float64 { return value(t, s.metrics.rejected.WithLabelValues("tls")) }
	for i, first := range [][]byte{frame(3, 3, 1, nil), []byte("PROXY TCP4 1.1.1.1 1.1.1.1 0 0\r\n")} {
		cl := dial(t, s)
		cl.send(first)
		for {
			if _, err := cl.Read(make([]byte, 100)); err != nil {
				break
			}
		}
		// The client's end of it may be over first.
		eventually(t, "it is counted as without TLS, and the first is spoken of", func() bool { return rejected() == float64(i+1) && lines.Len() > 0 })
	}
	eventually(t, "the connections are gone", func() bool { return s.connCount() == 0 })
	if got := rejected(); got != 2 {
		t.Errorf("%v are counted as without TLS", got)
	}
	hint, _ := lines.All()[0].ContextMap()["hint"].(string)
	if lines.Len() != 1 || !strings.Contains(hint, "security.protocol=SSL") {
		t.Errorf("logged: %v", lines.All())
	}
}

func TestListenErrors(t *testing.T) {
	handler := testHandler(echo)
	reg := prometheus.NewRegistry()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	path := t.TempDir() + "/s"
	forgotten, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(Config{Handler: handler, Listeners: []Listener{{Name: "A", Network: "unix", Address: path}}})
	if err == nil || !strings.Contains(err.Error(), "listener A") {
		t.Errorf("on a socket in use: %v", err)
	}
	// A process that was killed leaves its socket in the file system.
	forgotten.(*net.UnixListener).SetUnlinkOnClose(false)
	forgotten.Close()
	s, err := New(Config{Handler: handler, Listeners: []Listener{{Network: "unix", Address: path}}})
	if err != nil {
		t.Errorf("on a socket left behind: %v", err)
	} else {
		s.Close()
	}
	for name, c := range map[string]Config{
		"port in use":       {Handler: handler, Listeners: []Listener{{Address: "127.0.0.1:0"}, {Address: ln.Addr().String()}}},
		"no handler":        {Listeners: []Listener{{Address: "127.0.0.1:0"}}},
		"no listener":       {Handler: handler},
		"no such network":   {Handler: handler, Listeners: []Listener{{Network: "carrier pigeon", Address: "x"}}},
		"no such address":   {Handler: handler, Listeners: []Listener{{Address: "127.0.0.1:99999"}}},
		"unlistenable unix": {Handler: handler, Listeners: []Listener{{Network: "unix", Address: "/nonexistent/s"}}},
	} {
		c.Registerer = reg
		if s, err := New(c); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		}
	}
	// What failed has left nothing behind.
	s, err = New(Config{Handler: handler, Registerer: reg, Listeners: []Listener{{Address: "127.0.0.1:0"}}})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := Config{Registerer: reg, Listeners: []Listener{{Address: "127.0.0.1:0"}}, Limits: Limits{MaxConnections: 1}}
	s := start(t, c, echo)
	cl := dial(t, s)
	for i := range 3 {
		cl.send(frame(3, 3, int32(i), nil))
		cl.receive()
	}
	dial(t, s).wantEnd()
	value := func(name string) float64 {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() != name {
				continue
			}
			m := f.GetMetric()[0]
			switch {
			case m.Counter != nil:
				return m.Counter.GetValue()
			case m.Gauge != nil:
				return m.Gauge.GetValue()
			default:
				return float64(m.Histogram.GetSampleCount())
			}
		}
		return -1
	}
	for name, want := range map[string]float64{
		"quire_kafka_requests_total":        3,
		"quire_connections":                 1,
		"quire_connections_paused":          0,
		"quire_connections_rejected_total":  1,
		"quire_kafka_request_seconds":       3,
		"quire_network_read_bytes_total":    3 * float64(len(frame(3, 3, 0, nil))),
		"quire_network_written_bytes_total": 3 * 8,
		"quire_request_bytes":               0,
		"quire_worker_queue":                0,
		"quire_accept_errors_total":         0,
	} {
		// The loop counts a request, and gives up what it held, after its answer has left.
		eventually(t, fmt.Sprintf("%s is %v", name, want), func() bool { return value(name) == want })
	}
	if _, err := New(Config{Registerer: reg, Handler: testHandler(echo), Listeners: c.Listeners}); err == nil {
		t.Error("a second server registered the same metrics")
	}
	s.Close()
	if families, _ := reg.Gather(); len(families) != 0 {
		t.Errorf("%d metrics are left after Close", len(families))
	}
}

// silentSock is a socket whose peer's system answers no more.
type silentSock struct {
	loop.Sock
	silent time.Duration
}

func (s *silentSock) Silent() (bool, time.Duration) { return true, s.silent }

func TestPeerThatVanished(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		clk := &clock{t: time.Unix(1000, 0)}
		c.now = clk.now
		c.PeerTimeout = time.Minute
		c.Loops = 1
		s := start(t, c, echo)
		cl := dial(t, s)
		sock := new(silentSock)
		cl.send(frame(3, 3, 1, nil))
		cl.receive()
		s.onLoops(func(st *loopState) {
			for conn := range st.conns {
				sock.Sock = conn.sock
				conn.sock = sock
			}
		})
		cl.send(frame(3, 3, 2, nil))
		cl.receive()
		for range 4 {
			clk.advance(s, 15*time.Second)
			cl.send(frame(3, 3, 3, nil))
			cl.receive()
		}
		s.onLoops(func(*loopState) { sock.silent = 50 * time.Second })
		eventually(t, "the connection is closed", func() bool {
			clk.advance(s, 15*time.Second)
			return s.connCount() == 0
		})
		cl.wantEnd()
	})
}

func TestClientThatNeverReadsIsClosed(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		clk := &clock{t: time.Unix(1000, 0)}
		c.now = clk.now
		s := start(t, c, large)
		cl := dial(t, s)
		cl.send(frame(3, 3, 1, nil))
		eventually(t, "the answer fills the socket", func() bool { return s.blockedConns() == 1 })
		clk.advance(s, s.cfg.IdleTimeout/2)
		if s.connCount() != 1 {
			t.Fatal("closed too early")
		}
		eventually(t, "the connection is closed", func() bool {
			clk.advance(s, s.cfg.IdleTimeout)
			return s.connCount() == 0
		})
	})
}

// More functions than workers: all run, none more than once, never more at a time.
func TestWorkersAreBounded(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.Workers = 3
		running := make(chan bool, 3)
		s := start(t, c, func(r *Request) {
			r.Go(func() {
				select {
				case running <- true:
				default:
					t.Error("more than 3 functions at a time")
				}
				// The work of a worker: long enough that the others would
				// overtake the limit if nothing held them.
				time.Sleep(time.Millisecond)
				<-running
				echo(r)
			})
		})
		var cls []*client
		for range 20 {
			cl := dial(t, s)
			for i := range 5 {
				cl.send(frame(int16(i), 3, int32(i), nil))
			}
			cls = append(cls, cl)
		}
		for _, cl := range cls {
			for i := range 5 {
				if corr, _ := cl.receive(); corr != int32(i) {
					t.Fatalf("answer to %d", corr)
				}
			}
		}
	})
}

// However many functions wait for a long time, others that do not are run.
func TestSlowWorkersKeepNobodyWaiting(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.Workers = 2
		hold := make(chan bool)
		s := start(t, c, func(r *Request) {
			if r.Key == 1 {
				r.GoSlow(func() { <-hold; echo(r) })
			} else {
				r.Go(func() { echo(r) })
			}
		})
		var slow []*client
		for range 5 {
			cl := dial(t, s)
			cl.send(frame(1, 3, 1, nil))
			slow = append(slow, cl)
		}
		eventually(t, "some wait for others", func() bool { return s.slow.length() == 3 })
		cl := dial(t, s)
		cl.send(frame(2, 3, 2, nil))
		cl.receive()
		close(hold)
		for _, cl := range slow {
			cl.receive()
		}
	})
}

// A function given to Go runs even if its client is gone.
func TestGoRunsAfterClose(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.Workers = 1
		hold, ran := make(chan bool), make(chan bool, 1)
		s := start(t, c, func(r *Request) {
			if r.Key == 1 {
				r.Go(func() { <-hold; r.NoResponse() })
			} else {
				r.Go(func() { ran <- true; echo(r) })
			}
		})
		first, second := dial(t, s), dial(t, s)
		first.send(frame(1, 3, 1, nil))
		settled(s, 1)
		second.send(frame(2, 3, 1, nil))
		eventually(t, "the second waits", func() bool { return s.workers.length() == 1 })
		first.Close()
		second.Close()
		close(hold)
		<-ran
	})
}

// heldConn keeps what is written until it is told to send it, all at once.
type heldConn struct {
	net.Conn
	hold bool
	b    []byte
}

func (c *heldConn) Write(b []byte) (int, error) {
	if c.hold {
		c.b = append(c.b, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// The end of a TLS stream may come together with its last bytes, while the
// connection is over its limits. Go's TLS reports both at once up to TLS 1.2.
func TestTLSEndWithLastBytes(t *testing.T) {
	s := start(t, Config{
		Listeners: []Listener{{Address: "127.0.0.1:0", TLS: &tls.Config{Certificates: []tls.Certificate{testCertificate(t)}}}},
		Limits:    Limits{MaxSlotsPerConn: 2},
	}, func(r *Request) { r.After(time.Millisecond, func() { echo(r) }) })
	for range 20 {
		nc := &heldConn{Conn: dial(t, s).Conn}
		tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		nc.hold = true
		cl := &client{tc, t}
		const requests = 10
		var all []byte
		for i := range requests {
			all = append(all, frame(3, 3, int32(i), nil)...)
		}
		cl.send(all)
		cl.closeWrite()
		// CloseWrite has made further writes fail, which this one is not for TLS.
		nc.SetDeadline(time.Now().Add(patience))
		if _, err := nc.Conn.Write(nc.b); err != nil {
			t.Fatal(err)
		}
		for i := range requests {
			if corr, _ := cl.receive(); corr != int32(i) {
				t.Fatalf("answer to %d, want %d", corr, i)
			}
		}
		cl.wantEnd()
		nc.Conn.Close()
	}
}

// Whole frames that wait for memory are served although the stream has ended.
func TestTLSEndWhileMemoryIsOut(t *testing.T) {
	parked := make(chan *Request, 1)
	s := start(t, Config{
		Listeners: []Listener{{Address: "127.0.0.1:0", TLS: &tls.Config{Certificates: []tls.Certificate{testCertificate(t)}}}},
		Limits:    Limits{MaxInflightBytes: 200 << 10},
	}, func(r *Request) {
		if r.Key == 1 {
			parked <- r
		} else {
			echo(r)
		}
	})
	secure := func(nc net.Conn) *client {
		tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		return &client{tc, t}
	}
	secure(dial(t, s).Conn).send(frame(1, 3, 1, make([]byte, 200<<10)))
	r := <-parked
	secure(dial(t, s).Conn).send(frame(3, 3, 1, make([]byte, 50<<10))[:100])
	eventually(t, "one exceeds the budget", func() bool { return s.budget.over.Load() != nil })
	nc := &heldConn{Conn: dial(t, s).Conn}
	cl := secure(nc)
	nc.hold = true
	cl.send(frame(3, 3, 7, nil))
	cl.closeWrite()
	nc.SetDeadline(time.Now().Add(patience))
	if _, err := nc.Conn.Write(nc.b); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another waits", func() bool { return s.budget.waiting.Load() == 1 })
	s.onLoops(func(*loopState) {})
	echo(r)
	if corr, _ := cl.receive(); corr != 7 {
		t.Fatalf("answer to %d", corr)
	}
	cl.wantEnd()
}
