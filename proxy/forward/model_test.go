package forward

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quirelog/quire/protocol/buffer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// request returns a Kafka request of some bytes.
func request(corr uint32, bytes int) []byte {
	b := make([]byte, 8+bytes)
	binary.BigEndian.PutUint32(b[4:], corr)
	for i := range bytes {
		b[8+i] = byte(i + int(corr))
	}
	return b
}

// unreliable is a node that answers as it likes, over connections that end
// anywhere. It notes which calls it has had.
type unreliable struct {
	t    *testing.T
	ln   net.Listener
	cuts bool // connections end, and garbage comes

	mu   sync.Mutex
	rand *rand.Rand
	seen map[uint64][]uint32 // correlation ids by stream, in order of arrival
	done sync.WaitGroup
}

func newUnreliable(t *testing.T, seed uint64, cuts bool) *unreliable {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &unreliable{t: t, ln: ln, cuts: cuts, rand: rand.New(rand.NewPCG(seed, 0)), seen: map[uint64][]uint32{}}
	u.done.Go(u.accept)
	return u
}

func (u *unreliable) close() {
	u.ln.Close()
	u.done.Wait()
}

func (u *unreliable) n(n int) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.rand.IntN(n)
}

func (u *unreliable) accept() {
	for {
		c, err := u.ln.Accept()
		if err != nil {
			return
		}
		u.done.Go(func() {
			defer c.Close()
			if u.cuts {
				c = &cutConn{Conn: c, left: 1 << u.n(18)}
			}
			if err := u.shake(c); err == nil {
				u.serve(c)
			}
		})
	}
}

// cutConn ends after some bytes in either direction.
type cutConn struct {
	net.Conn
	mu   sync.Mutex
	left int
}

func (c *cutConn) take(n int) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(n, c.left)
	c.left -= n
	return n, c.left == 0
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n, end := c.take(n); end {
		c.Close()
		return n, io.EOF
	}
	return n, err
}

func (c *cutConn) Write(p []byte) (int, error) {
	n, end := c.take(len(p))
	n, err := c.Conn.Write(p[:n])
	if end {
		c.Close()
		return n, io.ErrClosedPipe
	}
	return n, err
}

func (u *unreliable) shake(c net.Conn) error {
	a := Acceptor{Self: nodeOne, Secret: secret, MaxMessageBytes: 1 << 20}
	for {
		frame, err := readHandshake(c)
		if err != nil {
			return err
		}
		reply, done, err := a.Receive(frame)
		if _, werr := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(reply))), reply...)); werr != nil {
			return werr
		}
		if err != nil || done {
			return err
		}
	}
}

func (u *unreliable) serve(c net.Conn) {
	var owed [][]byte            // answers
	refused := map[uint64]bool{} // streams
	leaving := false
	for {
		var head [4]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		if call, _, err := ParseCancel(frame); err == nil {
			// What is asked for comes at once.
			i := slices.IndexFunc(owed, func(a []byte) bool { return binary.BigEndian.Uint64(a[4:]) == call })
			if i >= 0 {
				if _, err := c.Write(owed[i]); err != nil {
					return
				}
				owed = slices.Delete(owed, i, i+1)
			}
			continue
		}
		e, err := ParseEnvelope(frame, nil)
		if err != nil {
			u.t.Errorf("%v: %x", err, frame)
			return
		}
		corr := binary.BigEndian.Uint32(e.Request[4:])
		if !bytes.Equal(e.Request, request(corr, len(e.Request)-8)) {
			u.t.Errorf("request %d came as something else", corr)
		}
		if u.cuts && u.n(40) == 0 {
			refused[e.Stream] = true
		}
		answer := make([]byte, AnswerBytes, 1<<10)
		status := Answered
		switch {
		case leaving, refused[e.Stream]:
			status = NotServed
		case u.n(10) == 0:
			status = Silent
		}
		if status != NotServed {
			u.mu.Lock()
			u.seen[e.Stream] = append(u.seen[e.Stream], corr)
			u.mu.Unlock()
		}
		rest := 0
		if status == Answered {
			rest = 4 + u.n(3)*u.n(40<<10)
			answer = binary.BigEndian.AppendUint32(answer, corr)
			answer = append(answer, make([]byte, rest-4)...)
		}
		PutAnswer(answer, e.Call, status, rest)
		owed = append(owed, answer)
		switch k := u.n(100); {
		case u.cuts && k == 0:
			c.Write([]byte("\x00\x00\x00\x09garbage!!"))
		case u.cuts && k == 1:
			var bye [AnswerBytes]byte
			PutGoAway(bye[:])
			if _, err := c.Write(bye[:]); err != nil || u.n(2) == 0 {
				return
			}
			leaving = true
		case u.cuts && k == 2:
			c.Write(answer) // twice
		}
		for len(owed) > 0 && u.n(3) > 0 {
			i := u.n(len(owed))
			if _, err := c.Write(owed[i]); err != nil {
				return
			}
			owed = slices.Delete(owed, i, i+1)
		}
	}
}

// sent is what the model knows of a call.
type sent struct {
	Call
	corr  uint32
	index int // in its stream
	ends  []Answer
	// endedAt is how many calls of the stream had been sent when Done was called.
	endedAt int
}

// Whatever the other side does: Done is called once, of each call; what is said
// of it is true; and no call overtakes another of its stream, also when that is sent again.
func TestPeersModel(t *testing.T) {
	for _, portable := range []bool{false, true} {
		for seed := range uint64(60) {
			t.Run(fmt.Sprintf("portable=%v/seed=%d", portable, seed), func(t *testing.T) { model(t, seed, portable) })
		}
	}
}

func model(t *testing.T, seed uint64, portable bool) {
	before := buffer.InUseBytes()
	u := newUnreliable(t, seed, seed%4 != 0)
	r := rand.New(rand.NewPCG(seed, 1))
	var registered sync.Mutex
	away := false
	p, err := New(Config{
		Self: nodeTwo, Secret: secret, portable: portable, MaxCallsPerLink: 20 + r.IntN(100),
		PeerTimeout: time.Second,
		Nodes: func(node int32) (string, string, bool) {
			registered.Lock()
			defer registered.Unlock()
			return u.ln.Addr().String(), nodeOne.Incarnation, node == 1 && !away
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	streams := make([][]*sent, 1+r.IntN(4))
	count := make([]int, len(streams)) // calls of which Send has returned
	send := func(s int) {
		mu.Lock()
		c := &sent{index: len(streams[s])}
		c.corr = uint32(s<<16 | c.index)
		streams[s] = append(streams[s], c)
		mu.Unlock()
		whole := request(c.corr, r.IntN(4)*r.IntN(20<<10))
		cut := r.IntN(len(whole))
		c.Message, c.Stream = [][]byte{whole[:cut], whole[cut:]}, uint64(s)
		c.Timeout = time.Duration(1+r.IntN(500)) * time.Millisecond
		all.Add(1)
		c.Done = func(_ *Call, a Answer) {
			if a.Buf != nil {
				a.Buf.Release()
			}
			for _, m := range c.Message {
				clear(m) // they are the caller's again
			}
			mu.Lock()
			c.ends = append(c.ends, a)
			c.endedAt = max(count[s], c.index+1)
			mu.Unlock()
			all.Done()
		}
		p.Send(1, &c.Call)
		mu.Lock()
		count[s]++
		mu.Unlock()
		if r.IntN(10) == 0 {
			p.Cancel(&c.Call)
		}
	}
	for range 50 + r.IntN(300) {
		send(r.IntN(len(streams)))
		switch r.IntN(60) {
		case 0:
			mu.Lock()
			s := streams[r.IntN(len(streams))]
			mu.Unlock()
			for _, c := range s {
				p.Cancel(&c.Call)
			}
		case 1:
			registered.Lock()
			away = !away
			registered.Unlock()
			p.Recheck()
		case 2:
			time.Sleep(time.Millisecond) // lets the other side get on
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	if r.IntN(2) == 0 {
		cancel() // gives up what is under way
	}
	err = p.Close(ctx)
	cancel()
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	all.Wait()
	send(0) // after the end
	all.Wait()
	u.close()
	for s, calls := range streams {
		check(t, calls, u.seen[uint64(s)])
	}
	if n := buffer.InUseBytes(); n != before {
		t.Errorf("%d bytes of buffers leaked", n-before)
	}
}

// check holds what was said of the calls of a stream against what the node has seen.
func check(t *testing.T, calls []*sent, seen []uint32) {
	had := map[uint32]bool{}
	last := -1
	for _, corr := range seen {
		index := int(corr & 0xFFFF)
		if had[corr] {
			t.Errorf("call %d came twice", index)
		}
		had[corr] = true
		if index < last {
			t.Errorf("call %d came behind %d", index, last)
		}
		last = index
	}
	for _, c := range calls {
		if len(c.ends) != 1 {
			t.Errorf("call %d has ended %d times: %v", c.index, len(c.ends), c.ends)
			continue
		}
		a := c.ends[0]
		nothingDone := errors.Is(a.Err, ErrUnreachable) || errors.Is(a.Err, ErrBusy) || a.Status == NotServed
		switch {
		case nothingDone && had[c.corr]:
			t.Errorf("call %d ended with %v, and came", c.index, a.Err)
		case a.Status <= Silent && !had[c.corr]:
			t.Errorf("call %d was answered, and never came", c.index)
		case a.Status == Failed && !nothingDone && !errors.Is(a.Err, ErrLost) && !errors.Is(a.Err, ErrProtocol):
			t.Errorf("call %d ended with %v", c.index, a.Err)
		}
		if nothingDone {
			for _, later := range calls[c.index+1 : c.endedAt] {
				if had[later.corr] {
					t.Errorf("call %d came although nothing was done of %d (%v), before it", later.index, c.index, a.Err)
				}
			}
		}
	}
}

// A call that was not sent to a node which leaves does not reach the one that listens
// there next before an older one that was refused.
func TestLeavingKeepsTheOrder(t *testing.T) {
	for _, portable := range []bool{false, true} {
		t.Run(fmt.Sprintf("portable=%v", portable), func(t *testing.T) { leavingKeepsTheOrder(t, portable) })
	}
}

func leavingKeepsTheOrder(t *testing.T, portable bool) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p, err := New(Config{
		Self: nodeTwo, Secret: secret, portable: portable,
		Nodes: func(node int32) (string, string, bool) {
			return ln.Addr().String(), nodeOne.Incarnation, node == 1
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	u := &unreliable{t: t}
	accept := func() net.Conn {
		c, err := ln.Accept()
		if err == nil {
			err = u.shake(c)
		}
		if err != nil {
			t.Error(err)
		}
		return c
	}
	type ended struct {
		corr uint32
		Answer
	}
	ends := make(chan ended, 3)
	send := func(corr uint32) {
		p.Send(1, &Call{
			Message: [][]byte{request(corr, 10)}, Stream: 7, Timeout: patience,
			Done: func(_ *Call, a Answer) {
				if a.Buf != nil {
					a.Buf.Release()
				}
				ends <- ended{corr, a}
			},
		})
	}
	send(1)
	c := accept()
	defer c.Close()
	read := func(c net.Conn) Envelope {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(patience))
		var head [4]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			t.Fatal(err)
		}
		frame := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(c, frame); err != nil {
			t.Fatal(err)
		}
		e, err := ParseEnvelope(frame, nil)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	first := read(c)
	var b [AnswerBytes]byte
	PutGoAway(b[:])
	if _, err := c.Write(b[:]); err != nil {
		t.Fatal(err)
	}
	link := p.all()[0]
	// A link tells nobody that it has heard this, so its state is polled.
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		link.turns.Lock()
		leaving := link.leaving
		link.turns.Unlock()
		if leaving {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the link has not heard that the node leaves")
		}
	}
	send(2)
	PutAnswer(b[:], first.Call, NotServed, 0)
	if _, err := c.Write(b[:]); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		e := <-ends
		if e.corr == 1 && e.Status != NotServed || e.corr == 2 && !errors.Is(e.Err, ErrUnreachable) {
			t.Errorf("call %d ended with %d, %v", e.corr, e.Status, e.Err)
		}
	}
	// All of it again, in order; until the old connection is gone nothing is taken.
	accepted := make(chan net.Conn, 1)
	go func() { accepted <- accept() }()
	var next net.Conn
	for next == nil {
		send(1)
		select {
		case next = <-accepted:
		case e := <-ends:
			if !errors.Is(e.Err, ErrUnreachable) {
				t.Fatalf("call %d ended with %d, %v", e.corr, e.Status, e.Err)
			}
		}
	}
	defer next.Close()
	if e := read(next); !bytes.Equal(e.Request, request(1, 10)) {
		t.Errorf("the next connection brings %x first", e.Request)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-ends
}
