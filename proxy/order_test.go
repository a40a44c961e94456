package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"github.com/quirelog/quire/proxy/loop"
)

func task(f func()) *loop.Task { return &loop.Task{Run: f} }

func TestEchoSizes(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		s := start(t, c, echo)
		cl := dial(t, s)
		sizes := []int{0, 1, 100, 1 << 10, 4 << 10, 16 << 10, 60 << 10, 64 << 10, 65 << 10, 1 << 20, 1<<20 + 1, 5 << 20, 17 << 20}
		for i, n := range sizes {
			for _, key := range []int16{0, 3} {
				body := pattern(n, i)
				go cl.Write(frame(key, int16(i%10), int32(i), body))
				corr, got := cl.receive()
				if corr != int32(i) || !bytes.Equal(got, body) {
					t.Fatalf("request of %d bytes came back as %d with %d bytes", n, corr, len(got))
				}
			}
		}
	})
}

// Answers leave in the order of requests, whatever the order of completion,
// however the bytes are cut.
func TestPipelinedOrder(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		const batch, rounds = 16, 20
		var mu sync.Mutex
		var held []*Request
		s := start(t, c, func(r *Request) {
			mu.Lock()
			held = append(held, r)
			if len(held) < batch {
				mu.Unlock()
				return
			}
			all := held
			held = nil
			mu.Unlock()
			go func() {
				for i := range all {
					// 7 and 16 have no common divisor: every one, out of order.
					echo(all[i*7%batch])
				}
			}()
		})
		cl := dial(t, s)
		var stream []byte
		for i := range batch * rounds {
			stream = append(stream, frame(0, 3, int32(i), pattern(i*211%9000, i))...)
		}
		go func() {
			for len(stream) > 0 {
				n := min(len(stream), 1+len(stream)%7777)
				if _, err := cl.Write(stream[:n]); err != nil {
					return
				}
				stream = stream[n:]
			}
		}()
		for i := range batch * rounds {
			corr, got := cl.receive()
			if corr != int32(i) || !bytes.Equal(got, pattern(i*211%9000, i)) {
				t.Fatalf("answer %d is to request %d, of %d bytes", i, corr, len(got))
			}
		}
	})
}

// handled records the order of handling.
type handled struct {
	mu   sync.Mutex
	reqs map[int32]*Request
	log  []string
}

func (h *handled) add(r *Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reqs == nil {
		h.reqs = make(map[int32]*Request)
	}
	h.reqs[r.CorrelationID] = r
	h.log = append(h.log, fmt.Sprint(r.CorrelationID))
}

func (h *handled) note(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, s)
}

func (h *handled) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.log)
}

func (h *handled) take(corr int32) *Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.reqs[corr]
	delete(h.reqs, corr)
	return r
}

// settled waits until everything that was sent has been read, and the
// loops have nothing left to do.
func settled(s *Server, requests int) {
	for {
		var n int
		var mu sync.Mutex
		s.onLoops(func(st *loopState) {
			mu.Lock()
			defer mu.Unlock()
			for c := range st.conns {
				n += int(c.ring.end)
			}
		})
		if n >= requests {
			s.onLoops(func(*loopState) {})
			return
		}
	}
}

// Produce overlaps with Produce and OffsetCommit with OffsetCommit, nothing else.
func TestOnlyOneKindOverlaps(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		var h handled
		s := start(t, c, h.add)
		cl := dial(t, s)
		keys := []int16{0, 0, 3, 0, 0, 1, 1, 8, 8, 0, 8}
		for i, k := range keys {
			cl.send(frame(k, 3, int32(i), nil))
		}
		settled(s, len(keys))
		want := func(n int) {
			t.Helper()
			eventually(t, fmt.Sprintf("%d requests handled", n), func() bool { return h.count() >= n })
			s.onLoops(func(*loopState) {})
			if got := h.count(); got != n {
				t.Fatalf("%d requests are handled, want %d", got, n)
			}
		}
		want(2) // both Produce, not the Metadata behind
		echo(h.take(1))
		want(2)
		echo(h.take(0))
		want(3) // Metadata alone
		echo(h.take(2))
		want(5) // the next two Produce
		h.take(3).NoResponse()
		echo(h.take(4))
		want(6)
		echo(h.take(5))
		want(7)
		echo(h.take(6))
		want(9) // two commits, not the Produce behind
		echo(h.take(8))
		want(9)
		echo(h.take(7))
		want(10)
		echo(h.take(9))
		want(11)
		echo(h.take(10))
		for _, corr := range []int32{0, 1, 2, 4, 5, 6, 7, 8, 9, 10} {
			if got, _ := cl.receive(); got != corr {
				t.Fatalf("got the answer to %d, want %d", got, corr)
			}
		}
	})
}

// After Go nothing is handled until its function has returned, even if the
// request has been answered before.
func TestGoIsBarrier(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		var h handled
		answered, proceed := make(chan bool), make(chan bool)
		s := start(t, c, func(r *Request) {
			h.note(fmt.Sprint(r.CorrelationID))
			if r.CorrelationID != 1 {
				echo(r)
				return
			}
			r.Go(func() {
				echo(r)
				close(answered)
				<-proceed
				h.note("returned")
			})
		})
		cl := dial(t, s)
		for i := range 4 {
			cl.send(frame(0, 3, int32(i), nil))
		}
		<-answered
		for i := range 2 {
			if got, _ := cl.receive(); got != int32(i) {
				t.Fatalf("got the answer to %d, want %d", got, i)
			}
		}
		settled(s, 4)
		if n := h.count(); n != 2 {
			t.Fatalf("%d requests were handled before the function returned", n)
		}
		close(proceed)
		cl.receive()
		cl.receive()
		h.mu.Lock()
		defer h.mu.Unlock()
		if got := fmt.Sprint(h.log); got != "[0 1 returned 2 3]" {
			t.Fatalf("order was %s", got)
		}
	})
}

// The scratch of a request survives its reuse, and nothing else does.
func TestRequestReuse(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		c.Loops = 1
		s := start(t, c, func(r *Request) {
			n, _ := r.Scratch.(*int)
			if n == nil {
				n = new(int)
				r.Scratch = n
			}
			*n++
			if r.onClose != nil || r.onDrain != nil {
				panic("hooks survived")
			}
			r.OnClose(func() {})
			r.OnDrain(func() {})
			r.Respond(Response{Parts: [][]byte{binary.BigEndian.AppendUint32(nil, uint32(*n))}})
		})
		cl := dial(t, s)
		eventually(t, "a scratch is used for the third time", func() bool {
			cl.send(frame(3, 3, 0, nil))
			n, _ := cl.receive()
			return n == 3
		})
	})
}
