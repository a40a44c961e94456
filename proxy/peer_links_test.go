package proxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/quirelog/quire/proxy/forward"
)

// Who is not let in hears why, and so do the operators of both sides.
func TestLinkRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*forward.Config)
		want   error
	}{
		"secret":  {func(c *forward.Config) { c.Secret = []byte("some other secret bytes") }, forward.ErrSecret},
		"cluster": {func(c *forward.Config) { c.Self.Cluster = "another" }, forward.ErrCluster},
		"node": {func(c *forward.Config) {
			nodes := c.Nodes
			c.Nodes = func(int32) (string, string, bool) { return nodes(1) }
		}, forward.ErrOtherNode},
		"process": {func(c *forward.Config) {
			nodes := c.Nodes
			c.Nodes = func(n int32) (string, string, bool) {
				a, _, ok := nodes(n)
				return a, "an older incarnation", ok
			}
		}, forward.ErrOtherNode},
		"own id": {func(c *forward.Config) { c.Self.Node = 1 }, forward.ErrOtherNode},
	} {
		t.Run(name, func(t *testing.T) {
			onBothLoops(t, func(t *testing.T, cfg Config) {
				there, here := observed(), observed()
				cfg.Log = there.log
				s := start(t, cfg, echo)
				p := peers(t, s, c.change, func(c *forward.Config) { c.Log = here.log })
				node := int32(1)
				if name == "node" {
					node = 7
				}
				cl := call(t, 1, frame(0, 3, 0, nil))
				p.Send(node, &cl.Call)
				a := cl.answer()
				if !errors.Is(a.Err, forward.ErrUnreachable) || !errors.Is(a.Err, c.want) {
					t.Errorf("ended with %d, %v", a.Status, a.Err)
				}
				if n := here.count("no link to a node"); n != 1 {
					t.Errorf("%d warnings of the node that dials", n)
				}
				eventually(t, "a warning of the node that is dialled", func() bool { return there.count("somebody is not let in as a node") == 1 })
			})
		})
	}
}

type logs struct {
	log  *zap.Logger
	seen *observer.ObservedLogs
}

func observed() logs {
	core, seen := observer.New(zap.WarnLevel)
	return logs{zap.New(core), seen}
}

func (l logs) count(message string) int { return l.seen.FilterMessage(message).Len() }

// What is no node is not let in, and told so once.
func TestLinkGarbage(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		told := observed()
		c.Log = told.log
		s := start(t, c, echo)
		for _, bytes := range [][]byte{
			frame(18, 3, 1, nil),
			[]byte("\x00\x00\x00\x0a\x7f\xe0123456789"),
			[]byte("\x00\x00\x00\x0a\x7f\xe8123456789"),
			[]byte("GET / HTTP/1.1\r\n\r\n"),
			binary.BigEndian.AppendUint32(nil, forward.MaxHandshakeBytes+1),
		} {
			cl := dial(t, s)
			cl.send(bytes)
			if _, err := io.Copy(io.Discard, cl); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%q: the connection stays", bytes)
			}
			cl.Close()
		}
		if n := told.count("somebody is not let in as a node"); n != 1 {
			t.Errorf("%d warnings", n)
		}
		eventually(t, "all connections are gone", func() bool { return connections(s) == 0 })
	})
}

// Who says nothing, or not enough, is let go after a while; a node may be silent for ever.
func TestLinkSilence(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		var ahead atomic.Int64
		c.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		s := start(t, c, echo)
		p := peers(t, s)
		one := call(t, 1, frame(0, 3, 0, nil))
		p.Send(1, &one.Call)
		one.want(0, nil)
		eventually(t, "the answer is known to be written", func() bool {
			written := true
			s.onLoops(func(st *loopState) {
				for c := range st.conns {
					if c.out.blocked {
						written = false
					}
				}
			})
			return written
		})
		silent, slow := dial(t, s), dial(t, s)
		slow.send([]byte{0, 0})
		eventually(t, "three connections", func() bool { return connections(s) == 3 })
		for range 3 {
			ahead.Add(int64(handshakeTimeout))
			s.onLoops(func(*loopState) {})
		}
		silent.wantEnd()
		slow.wantEnd()
		ahead.Add(int64(24 * time.Hour))
		s.onLoops(func(*loopState) {})
		two := call(t, 1, frame(0, 3, 1, nil))
		p.Send(1, &two.Call)
		two.want(1, nil)
		eventually(t, "only the node's connection is left", func() bool { return connections(s) == 1 })
	})
}

func TestLinksAreCounted(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		c.Listeners[0].Peer.MaxLinks = 2
		c.MaxConnections = 1
		s := start(t, c, echo)
		one, two := dial(t, s), dial(t, s)
		eventually(t, "two connections", func() bool { return connections(s) == 2 })
		dial(t, s).wantEnd()
		one.Close()
		two.Close()
		eventually(t, "no connections", func() bool { return connections(s) == 0 })
		if n := s.connCount(); n != 0 {
			t.Errorf("%d connections of clients", n)
		}
	})
}

// A link over a limit is not read from until it is back at half of it; the
// other side says that it is busy instead of waiting without end.
func TestLinkLimits(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		c.Listeners[0].Peer.MaxRequestsPerLink = 10
		var h handled
		s := start(t, c, h.add)
		p := peers(t, s, func(c *forward.Config) { c.MaxCallsPerLink = 30 })
		var calls []*called
		for i := range 30 {
			cl := call(t, uint64(i), frame(0, 3, int32(i), nil))
			calls = append(calls, cl)
			p.Send(1, &cl.Call)
		}
		over := call(t, 99, frame(0, 3, 99, nil))
		p.Send(1, &over.Call)
		if a := over.answer(); !errors.Is(a.Err, forward.ErrBusy) {
			t.Errorf("the 31st call ended with %d, %v", a.Status, a.Err)
		}
		eventually(t, "the link is paused", func() bool { return s.pausedConns() == 1 })
		// The last frame of the handshake counts as long as it has not left.
		if n := h.count(); n < 9 || n > 10 {
			t.Errorf("%d requests are handled", n)
		}
		for i, cl := range calls {
			eventually(t, "the next is handled", func() bool { return h.count() > i })
			echo(h.take(int32(i)))
			cl.want(int32(i), nil)
		}
	})
}

// A request that the node does not take is no reason to lose the others.
func TestLinkTooLarge(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		c.MaxFrameBytes = 10_000
		s := start(t, c, echo)
		p := peers(t, s)
		for range 2 { // before and after the link is up
			small, large := call(t, 1, frame(0, 3, 1, make([]byte, 9000))), call(t, 1, frame(0, 3, 2, make([]byte, 10_000)))
			p.Send(1, &large.Call)
			p.Send(1, &small.Call)
			if a := large.answer(); !errors.Is(a.Err, forward.ErrTooLarge) {
				t.Errorf("ended with %d, %v", a.Status, a.Err)
			}
			small.want(1, make([]byte, 9000))
		}
	})
}

// A node that comes back as another process is found again; what was under way is lost.
func TestLinkToRestartedNode(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		var h handled
		var mu sync.Mutex
		first := start(t, c, h.add)
		address, incarnation := first.Addr("PEER").String(), identity(1).Incarnation
		p := peers(t, first, func(c *forward.Config) {
			c.Nodes = func(int32) (string, string, bool) {
				mu.Lock()
				defer mu.Unlock()
				return address, incarnation, incarnation != ""
			}
		})
		one := call(t, 1, frame(0, 3, 1, nil))
		p.Send(1, &one.Call)
		eventually(t, "it is handled", func() bool { return h.count() == 1 })

		auth := *c.Listeners[0].Peer
		auth.Self.Incarnation = "second"
		c.Listeners = []Listener{{Name: "PEER", Address: "127.0.0.1:0", Peer: &auth}}
		c.Handler = testHandler(echo)
		second, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		go second.Serve()
		defer second.Close()
		mu.Lock()
		address, incarnation = second.Addr("PEER").String(), "second"
		mu.Unlock()
		p.Recheck()
		if a := one.answer(); !errors.Is(a.Err, forward.ErrLost) {
			t.Errorf("ended with %d, %v", a.Status, a.Err)
		}
		echo(h.take(1))
		two := call(t, 1, frame(0, 3, 2, nil))
		p.Send(1, &two.Call)
		two.want(2, nil)

		// It is not registered any more.
		mu.Lock()
		incarnation = ""
		mu.Unlock()
		p.Recheck()
		eventually(t, "the link is closed", func() bool { return connections(second) == 0 })
		three := call(t, 1, frame(0, 3, 3, nil))
		p.Send(1, &three.Call)
		if a := three.answer(); !errors.Is(a.Err, forward.ErrUnreachable) {
			t.Errorf("ended with %d, %v", a.Status, a.Err)
		}
	})
}

// A node has a link to itself, if it wants one.
func TestLinkToItself(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		s := start(t, c, echo)
		p := peers(t, s, func(c *forward.Config) { c.Self = identity(1) })
		cl := call(t, 1, frame(0, 3, 1, []byte("body")))
		cl.Loop = s.loops[0]
		p.Send(1, &cl.Call)
		cl.want(1, []byte("body"))
	})
}

func TestCallTimesOut(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		drained := make(chan bool)
		s := start(t, c, func(r *Request) {
			r.OnDrain(func() {
				close(drained)
				echo(r)
			})
		})
		p := peers(t, s)
		for {
			cl := call(t, 1, frame(1, 3, 1, nil))
			cl.Timeout = 50 * time.Millisecond
			p.Send(1, &cl.Call)
			a := cl.answer()
			if errors.Is(a.Err, forward.ErrUnreachable) {
				continue // it has not left in that time
			}
			if !errors.Is(a.Err, forward.ErrLost) {
				t.Errorf("ended with %d, %v", a.Status, a.Err)
			}
			break
		}
		<-drained // the node does not wait for what nobody waits for
	})
}

// Links over TLS need no secret, and no other certificate will do.
func TestLinkTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	c := Config{
		Listeners: []Listener{{Name: "PEER", Address: "127.0.0.1:0", Peer: &PeerAuth{Self: identity(1)},
			TLS: &tls.Config{Certificates: []tls.Certificate{ours.certificate}, ClientCAs: ours.pool, ClientAuth: tls.RequireAndVerifyClientCert}}},
		Loops: 2,
		Log:   zaptest.NewLogger(t),
	}
	s := start(t, c, echo)
	secure := func(a authority) func(c *forward.Config) {
		return func(c *forward.Config) {
			c.Secret = nil
			c.TLS = &tls.Config{Certificates: []tls.Certificate{a.certificate}, RootCAs: ours.pool}
		}
	}
	p := peers(t, s, secure(ours))
	for i, n := range []int{0, 100, 20 << 10, 3 << 20} {
		cl := call(t, uint64(i), frame(0, 3, int32(i), pattern(n, i)))
		cl.Loop = s.loops[0]
		p.Send(1, &cl.Call)
		cl.want(int32(i), pattern(n, i))
	}
	cl := call(t, 1, frame(0, 3, 1, nil))
	peers(t, s, secure(theirs)).Send(1, &cl.Call)
	if a := cl.answer(); !errors.Is(a.Err, forward.ErrUnreachable) {
		t.Errorf("with another certificate: %d, %v", a.Status, a.Err)
	}
	for _, bad := range []Listener{
		{Peer: &PeerAuth{Self: identity(1)}},
		{Peer: &PeerAuth{Self: identity(1)}, TLS: &tls.Config{}},
		{Peer: &PeerAuth{Self: identity(1), Secret: []byte("short")}},
	} {
		if _, err := New(Config{Handler: testHandler(echo), Listeners: []Listener{bad}}); !errors.Is(err, errConfig) {
			t.Errorf("a listener that lets in everybody: %v", err)
		}
	}
}

// authority is a certificate that has signed itself, for 127.0.0.1.
type authority struct {
	certificate tls.Certificate
	pool        *x509.CertPool
}

func newAuthority(t *testing.T) authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return authority{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool}
}

// What a handler keeps of where a request comes from stays as it was.
func TestOriginOutlivesTheRequest(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		kept := make(chan string, 1000)
		s := start(t, c, func(r *Request) {
			kept <- r.RemoteAddr() + r.Listener() + r.Origin.Principal
			echo(r)
		})
		p := peers(t, s)
		for i := range 500 {
			cl := call(t, 1, frame(3, 3, 1, bytes.Repeat([]byte{byte(i)}, 500)))
			cl.RemoteAddr = strings.Repeat("x", i)
			p.Send(1, &cl.Call)
			cl.want(1, bytes.Repeat([]byte{byte(i)}, 500))
		}
		for i := range 500 {
			if got, want := <-kept, strings.Repeat("x", i)+"PLAINTEXTUser:alice"; got != want {
				t.Fatalf("it became %q, was %q", got, want)
			}
		}
	})
}

// holding is what lies between two nodes: it can keep what one sends, for as long as it
// likes, also when the sender has hung up.
type holding struct {
	net.Listener
	mu    sync.Mutex
	freed *sync.Cond
	held  bool
	done  sync.WaitGroup
}

func hold(t *testing.T, target string) *holding {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &holding{Listener: ln}
	h.freed = sync.NewCond(&h.mu)
	h.done.Go(func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", target)
			if err != nil {
				t.Error(err)
				from.Close()
				return
			}
			h.done.Go(func() {
				defer to.Close()
				b := make([]byte, 64<<10)
				for {
					n, err := from.Read(b)
					h.mu.Lock()
					for h.held {
						h.freed.Wait()
					}
					h.mu.Unlock()
					if _, werr := to.Write(b[:n]); err != nil || werr != nil {
						return
					}
				}
			})
			h.done.Go(func() {
				defer from.Close()
				_, _ = io.Copy(from, to) // until either is gone
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		h.keep(false)
		h.done.Wait()
	})
	return h
}

// keep begins or ends the holding.
func (h *holding) keep(held bool) {
	h.mu.Lock()
	h.held = held
	h.mu.Unlock()
	h.freed.Broadcast()
}

// lateClock is a clock of the owner that can be set ahead, and with it how late everything is.
func lateClock(c *Config) (ahead *atomic.Int64) {
	ahead = new(atomic.Int64)
	c.peersNow = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	return ahead
}

// givenUp sends a request on a link that is there, and waits until it is given up.
func givenUp(t *testing.T, p *forward.Peers, stream uint64, corr int32) {
	t.Helper()
	for {
		cl := call(t, stream, frame(1, 3, corr, nil))
		cl.Timeout = 50 * time.Millisecond
		p.Send(1, &cl.Call)
		if a := cl.answer(); errors.Is(a.Err, forward.ErrLost) {
			return
		} else if !errors.Is(a.Err, forward.ErrUnreachable) {
			t.Fatalf("request %d ended with %d, %v", corr, a.Status, a.Err)
		} // else it has not left in that time
	}
}

// untilServed sends a request until it is answered. What is refused meanwhile was not begun.
func untilServed(t *testing.T, p *forward.Peers, corr int32, begun chan int32) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		cl := call(t, 1, frame(1, 3, corr, nil))
		p.Send(1, &cl.Call)
		a := cl.answer()
		switch {
		case a.Status == forward.Answered:
			a.Buf.Release()
			if got := <-begun; got != corr {
				t.Errorf("request %d was begun, want %d", got, corr)
			}
			return
		case a.Status != forward.NotServed && !errors.Is(a.Err, forward.ErrUnreachable):
			t.Fatalf("request %d ended with %d, %v", corr, a.Status, a.Err)
		}
	}
	t.Fatalf("request %d is refused again and again", corr)
}

// apart starts a server and node 1's links to it, through what can hold up what is sent.
// begun gets the ids of the requests that the server begins.
func apart(t *testing.T, c Config) (between *holding, p *forward.Peers, begun chan int32) {
	begun = make(chan int32, 100)
	s := start(t, c, func(r *Request) {
		begun <- r.CorrelationID
		echo(r)
	})
	between = hold(t, s.listeners[0].Addr().String())
	p = peers(t, s, func(c *forward.Config) {
		c.Nodes = func(node int32) (string, string, bool) {
			return between.Addr().String(), identity(node).Incarnation, node == 1
		}
	})
	return between, p, begun
}

// A request that a network has held for too long is not begun, whether or not somebody
// waits for it, nor what comes behind it on its link; and both nodes go on with another link.
func TestLateRequests(t *testing.T) {
	for name, tooLate := range map[string]func(t *testing.T, p *forward.Peers){
		"given up": func(t *testing.T, p *forward.Peers) { givenUp(t, p, 2, 2) },
		"to be begun soon": func(t *testing.T, p *forward.Peers) {
			old := call(t, 2, frame(1, 3, 2, nil))
			old.Timeout, old.Begin = 24*time.Hour, time.Minute
			p.Send(1, &old.Call)
		},
	} {
		t.Run(name, func(t *testing.T) {
			onBothLoops(t, func(t *testing.T, c Config) {
				ahead := lateClock(&c)
				between, p, begun := apart(t, c)
				untilServed(t, p, 1, begun)
				between.keep(true)
				tooLate(t, p)
				behind := call(t, 3, frame(1, 3, 3, nil))
				behind.Timeout = 24 * time.Hour
				p.Send(1, &behind.Call)
				ahead.Add(int64(time.Hour))
				between.keep(false)
				if a := behind.answer(); a.Status != forward.NotServed && !errors.Is(a.Err, forward.ErrUnreachable) {
					t.Errorf("what comes behind it ends with %d, %v", a.Status, a.Err)
				}
				untilServed(t, p, 4, begun)
				if len(begun) > 0 {
					t.Errorf("request %d was begun too", <-begun)
				}
			})
		})
	}
}

// A request that has waited for another one of its stream until nobody waits for it any
// more is not begun.
func TestOverdueRequests(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		ahead := lateClock(&c)
		begun, first := make(chan int32, 100), make(chan *Request, 1)
		s := start(t, c, func(r *Request) {
			begun <- r.CorrelationID
			if r.CorrelationID == 1 {
				first <- r
				return
			}
			echo(r)
		})
		p := peers(t, s)
		one := call(t, 1, frame(1, 3, 1, nil))
		p.Send(1, &one.Call)
		<-begun
		givenUp(t, p, 1, 2)
		ahead.Add(int64(time.Hour))
		echo(<-first)
		one.want(1, nil)
		untilServed(t, p, 3, begun)
	})
}

// What is left of a standstill is not begun either, whoever waits for it. How late other
// things may be is their own affair.
func TestLateAfterStandstill(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		ahead := lateClock(&c)
		begun := make(chan int32, 100)
		s := start(t, c, func(r *Request) {
			begun <- r.CorrelationID
			echo(r)
		})
		p := peers(t, s)
		untilServed(t, p, 1, begun)
		ahead.Add(int64(2 * lateAfter))
		untilServed(t, p, 2, begun)
		late := call(t, 1, frame(1, 3, 3, nil))
		s.standStill(time.Hour, func() {
			p.Send(1, &late.Call)
			ahead.Add(int64(2 * lateAfter))
		})
		if a := late.answer(); a.Status != forward.NotServed {
			t.Errorf("it ended with %d, %v", a.Status, a.Err)
		}
		untilServed(t, p, 4, begun)
	})
}

// A request that comes late waits for what may come behind it: that nobody asks for it
// any more.
func TestLateAndCancelled(t *testing.T) {
	onBothLoops(t, func(t *testing.T, c Config) {
		ahead := lateClock(&c)
		between, p, begun := apart(t, c)
		untilServed(t, p, 1, begun)
		between.keep(true)
		late, wanted := call(t, 2, frame(2, 3, 2, nil)), call(t, 3, frame(2, 3, 3, nil))
		p.Send(1, &late.Call)
		p.Send(1, &wanted.Call)
		p.Cancel(&late.Call)
		ahead.Add(int64(doubtfulAfter + doubtfulWait))
		between.keep(false)
		if a := late.answer(); a.Status != forward.NotServed {
			t.Errorf("it ended with %d, %v", a.Status, a.Err)
		}
		wanted.want(3, nil)
		if got := <-begun; got != 3 {
			t.Errorf("request %d was begun", got)
		}
	})
}
