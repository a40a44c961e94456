package proxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/proxy/forward"
)

// relay forwards requests to node 1 as a handler does that serves nothing itself.
type relay struct{ peers *forward.Peers }

type relayed struct {
	forward.Call
	r       *Request
	message [1][]byte
	answer  [1][]byte
	buf     *buffer.Buffer
	release func()
}

func (h *relay) Accepts(key, version int16) bool         { return true }
func (h *relay) FlexibleRequest(key, version int16) bool { return version >= 9 }

func (h *relay) Handle(r *Request) {
	c, _ := r.Scratch.(*relayed)
	if c == nil {
		c = new(relayed)
		c.Done = func(_ *forward.Call, a forward.Answer) {
			if a.Status != forward.Answered {
				c.r.Drop(fmt.Errorf("%d: %w", a.Status, a.Err))
				return
			}
			c.answer[0], c.buf = a.Message, a.Buf
			c.r.Respond(Response{Parts: c.answer[:], Release: c.release})
		}
		c.release = func() { c.buf.Release() }
		r.Scratch = c
	}
	c.r = r
	c.message[0] = r.Message
	c.Message, c.Stream, c.Loop, c.Timeout = c.message[:], r.Conn.ID(), r.Conn.Loop(), time.Minute
	c.Listener, c.RemoteAddr, c.Principal = r.Listener(), r.RemoteAddr(), "User:ANONYMOUS"
	h.peers.Send(1, &c.Call)
}

// answered is what answerAsAsked answers with, as much of it as is asked for.
var answered = make([]byte, 8<<20)

// answerAsAsked answers with as many bytes as the first four of the body say.
func answerAsAsked(r *Request) {
	parts, _ := r.Scratch.(*[2][]byte)
	if parts == nil {
		parts = &[2][]byte{make([]byte, 4)}
		r.Scratch = parts
	}
	binary.BigEndian.PutUint32(parts[0], uint32(r.CorrelationID))
	parts[1] = answered[:binary.BigEndian.Uint32(r.Body)]
	r.Respond(Response{Parts: parts[:]})
}

// TestOwnerProcess is the owner of the benchmarks below, in a process of its own.
func TestOwnerProcess(t *testing.T) {
	if os.Getenv("QUIRE_BENCH_OWNER") == "" {
		return
	}
	s, err := New(Config{
		Listeners: []Listener{
			{Name: "PEER", Address: "127.0.0.1:0", Peer: &PeerAuth{Self: identity(1), Secret: peerSecret}},
			{Name: "PLAINTEXT", Address: "127.0.0.1:0"},
		},
		Handler: testHandler(answerAsAsked),
	})
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve()
	fmt.Printf("%s %s\n", s.Addr("PEER"), s.Addr("PLAINTEXT"))
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(usedCPU().Nanoseconds())
	}
	s.Close()
}

// usedCPU is the processor time of this process.
func usedCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ways are an owner in a process of its own and a node here that forwards to it.
type ways struct {
	addresses map[string]string // of both, for clients
	ask       io.Writer         // the owner for its processor time
	answers   *bufio.Reader
}

// cpu is the processor time of the owner, the node that forwards and the client.
func (w *ways) cpu(b *testing.B) time.Duration {
	var owner int64
	fmt.Fprintln(w.ask)
	if _, err := fmt.Fscanln(w.answers, &owner); err != nil {
		b.Fatal(err)
	}
	return time.Duration(owner) + usedCPU()
}

func newWays(b *testing.B) *ways {
	owner := exec.Command(os.Args[0], "-test.run=^TestOwnerProcess$")
	owner.Env = append(os.Environ(), "QUIRE_BENCH_OWNER=1")
	stdin, err := owner.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := owner.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stdin.Close()
		owner.Wait()
	})
	answers := bufio.NewReader(out)
	line, err := answers.ReadString('\n')
	var peer, direct string
	if _, err := fmt.Sscan(line, &peer, &direct); err != nil {
		b.Fatal(line, err)
	}
	if err != nil {
		b.Fatal(err)
	}
	h := new(relay)
	h.peers, err = forward.New(forward.Config{Self: identity(2), Secret: peerSecret,
		Nodes: func(node int32) (string, string, bool) { return peer, identity(1).Incarnation, true }})
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(Config{Listeners: []Listener{{Address: "127.0.0.1:0"}}, Handler: h})
	if err != nil {
		b.Fatal(err)
	}
	go s.Serve()
	b.Cleanup(func() {
		s.Close()
		h.peers.Close(context.Background())
	})
	return &ways{map[string]string{"direct": direct, "forwarded": s.Addr("").String()}, stdin, answers}
}

// BenchmarkForwarded sends Produce frames to their owner, and to another node
// that forwards them. Depth 1 is the latency of a request, 5 is what producers do.
func BenchmarkForwarded(b *testing.B) {
	w := newWays(b)
	for _, conns := range []int{1, 50} {
		for _, size := range []int{1 << 10, 16 << 10} {
			for _, depth := range []int{1, 5} {
				for way := range w.addresses {
					b.Run(fmt.Sprintf("conns=%d/size=%d/depth=%d/%s", conns, size, depth, way), func(b *testing.B) {
						w.flood(b, way, conns, depth, frame(0, 3, 1, make([]byte, size)), 0)
					})
				}
			}
		}
	}
}

// BenchmarkForwardedAnswers asks for large answers one after the other, as consumers of
// old records do.
func BenchmarkForwardedAnswers(b *testing.B) {
	w := newWays(b)
	for _, size := range []int{64 << 10, 1 << 20, 8 << 20} {
		for way := range w.addresses {
			b.Run(fmt.Sprintf("size=%d/%s", size, way), func(b *testing.B) {
				w.flood(b, way, 1, 1, frame(1, 3, 1, binary.BigEndian.AppendUint32(nil, uint32(size))), size)
			})
		}
	}
}

// flood sends b.N requests by some connections, with some in flight on each, to be
// answered with so many bytes.
func (w *ways) flood(b *testing.B, way string, conns, depth int, request []byte, answerBytes int) {
	b.ReportAllocs()
	b.SetBytes(int64(len(request) + answerBytes))
	each := max(1, b.N/conns)
	var dialed []net.Conn
	for range conns {
		c, err := net.Dial("tcp", w.addresses[way])
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		dialed = append(dialed, c)
	}
	began := w.cpu(b)
	b.ResetTimer()
	var clients sync.WaitGroup
	for _, c := range dialed {
		clients.Go(func() {
			in := bufio.NewReader(c)
			var answer [8]byte
			rest := make([]byte, answerBytes)
			for sent, got := 0, 0; got < each; got++ {
				for ; sent < each && sent-got < depth; sent++ {
					if _, err := c.Write(request); err != nil {
						b.Error(err)
						return
					}
				}
				if _, err := io.ReadFull(in, answer[:]); err != nil {
					b.Error(err)
					return
				}
				if n := binary.BigEndian.Uint32(answer[:]); n != uint32(4+answerBytes) {
					b.Errorf("an answer of %d bytes", n)
					return
				}
				if _, err := io.ReadFull(in, rest); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	b.StopTimer()
	b.ReportMetric(float64(w.cpu(b)-began)/float64(max(1, b.N/conns)*conns), "cpu-ns/op")
}
