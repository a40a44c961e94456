package bookie

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// byHand is a channel without goroutines whose writer sleeps, on a connection with
// small buffers; the other end is the result.
func byHand(t *testing.T) (*channel, *net.TCPConn) {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.DialTCP("tcp", nil, listener.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	peer, err := listener.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	if err := errors.Join(conn.SetWriteBuffer(8<<10), peer.SetReadBuffer(8<<10)); err != nil {
		t.Fatal(err)
	}
	c := &Client{cfg: Config{MaxFrameBytes: 1 << 20}, budget: budget{limit: 1 << 30}, epoch: time.Now()}
	c.clock.init()
	ch := newChannel(c)
	if !ch.attach(conn) || ch.direct == nil || !ch.idle() {
		t.Fatal("the channel is not ready")
	}
	return ch, peer
}

// addByHand returns the frame.
func (ch *channel) addByHand(t *testing.T, entry int64, body []byte, owner Buffer, h AddHandler) []byte {
	t.Helper()
	p := NewPacket(codec(1), 0, entry, entry-1, 1<<30, nil, body, owner)
	defer p.Release()
	if err := ch.c.budget.take(int64(p.Bytes())); err != nil {
		t.Fatal(err)
	}
	ch.enqueueAdd(p, 0, long, h, 0)
	return append(bytes.Clone(p.head), p.body...)
}

func (ch *channel) wantBytes(t *testing.T, peer io.Reader, want ...[]byte) {
	t.Helper()
	all := bytes.Join(want, nil)
	got := make([]byte, len(all))
	if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, all) {
		t.Fatalf("%v; %d bytes are not what was sent", err, len(got))
	}
}

func TestAddIsWrittenByWhoMakesIt(t *testing.T) {
	ch, peer := byHand(t)
	h := make(answers, 2)
	first := ch.addByHand(t, 0, []byte("first"), nil, h)
	if len(ch.queue) != 0 || len(ch.wake) != 0 || ch.owed != 1 {
		t.Fatalf("%d are queued, the writer was woken %d times, %d are owed", len(ch.queue), len(ch.wake), ch.owed)
	}
	ch.wantBytes(t, peer, first)
	ch.addByHand(t, 1, []byte("second"), nil, h)
	if len(ch.queue) != 1 || len(ch.wake) != 1 {
		t.Errorf("an answer is owed: %d are queued, the writer was woken %d times", len(ch.queue), len(ch.wake))
	}
	ch.idle()
	large := make([]byte, directBytes)
	r := &reader{ch: ch, answers: []wire.Response{{Op: wire.OpAdd, Ledger: 1}}}
	if err := r.answerAdds(); err != nil {
		t.Fatal(err)
	}
	<-ch.wake
	if ch.addByHand(t, 2, large, nil, h); len(ch.queue) != 2 {
		t.Error("a long add did not go to the writer")
	}
}

// TestFullConnection has a connection that takes a part of an add: the writer goes on
// where it stopped, before anything else.
func TestFullConnection(t *testing.T) {
	ch, peer := byHand(t)
	junk := bytes.Repeat([]byte("junk"), 256)
	var before []byte
	for {
		// Nobody else writes.
		n, err := ch.direct.write(junk, nil)
		if err != nil {
			t.Fatal(err)
		}
		if before = append(before, junk[:n]...); n < len(junk) {
			break
		}
	}
	var owner held
	h := make(answers, 2)
	body := make([]byte, directBytes/2)
	for i := range body {
		body[i] = byte(i * 7)
	}
	// Of a connection that is full nothing is known but that it takes no more than it has room for.
	first := ch.addByHand(t, 0, body, &owner, h)
	if ch.left == nil || len(ch.wake) != 1 || owner.Load() != 1 {
		t.Fatalf("left %v, woken %d times, %d references", ch.left, len(ch.wake), owner.Load())
	}
	second := ch.addByHand(t, 1, []byte("second"), nil, h)

	over, ended := make(chan error, 1), make(chan error)
	go func() { ended <- ch.write(ch.conn, over) }()
	ch.wantBytes(t, peer, before, first, second)
	over <- io.EOF
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	r := &reader{ch: ch, answers: []wire.Response{{Op: wire.OpAdd, Ledger: 1}, {Op: wire.OpAdd, Ledger: 1, Entry: 1}}}
	if err := r.answerAdds(); err != nil {
		t.Fatal(err)
	}
	h.want(t, nil)
	h.want(t, nil)
	if owner.Load() != 0 || ch.c.budget.used.Load() != 0 {
		t.Errorf("%d references, %d bytes are left", owner.Load(), ch.c.budget.used.Load())
	}
}

// TestPartOfAnAdd is TestFullConnection where the connection has taken a known part.
func TestPartOfAnAdd(t *testing.T) {
	for _, sent := range []int{1, 30, 65, 102} {
		ch, peer := byHand(t)
		h := make(answers, 1)
		p := NewPacket(codec(1), 0, 0, -1, 1<<30, nil, []byte("some bytes of an entry that is not long"), nil)
		if sent >= p.Bytes() {
			t.Fatalf("a frame of %d bytes", p.Bytes())
		}
		frame := append(bytes.Clone(p.head), p.body...)
		ch.left = &op{key: key{op: wire.OpAdd, ledger: 1}, deadline: never, packet: p, handler: h, pending: true, writing: true, sent: sent}
		over, ended := make(chan error, 1), make(chan error)
		go func() { ended <- ch.write(ch.conn, over) }()
		ch.wantBytes(t, peer, frame[sent:])
		over <- io.EOF
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

// TestBrokenUnderAnAdd ends the connection that an add is written to by who makes it,
// and one that has taken a part.
func TestBrokenUnderAnAdd(t *testing.T) {
	for _, part := range []bool{false, true} {
		ch, peer := byHand(t)
		var owner held
		h := make(answers, 1)
		if part {
			for n := 1; n > 0; {
				var err error
				if n, err = ch.direct.write(make([]byte, 1024), nil); err != nil {
					t.Fatal(err)
				}
			}
		} else {
			ch.conn.Close()
		}
		ch.addByHand(t, 0, []byte("body"), &owner, h)
		if ch.owed != 1 || part != (ch.left != nil) || part != (ch.reason == nil) {
			t.Fatalf("%d owed, left %v, reason %v", ch.owed, ch.left, ch.reason)
		}
		peer.Close()
		ch.detach(io.EOF)
		h.want(t, ErrBroken)
		if ch.left != nil || owner.Load() != 0 || ch.c.budget.used.Load() != 0 {
			t.Errorf("left %v, %d references, %d bytes", ch.left, owner.Load(), ch.c.budget.used.Load())
		}
	}
}
