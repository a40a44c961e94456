package bookie

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

const (
	readerBytes = 64 << 10
	// maxAnswers is how many answers of adds are looked up under one lock.
	maxAnswers = 128
)

// serve writes and reads until the connection is over, and returns why.
func (ch *channel) serve(conn net.Conn) error {
	over := make(chan error, 1)
	go func() {
		err := ch.read(conn)
		hangUp(conn)
		over <- err
	}()
	writeErr := ch.write(conn, over)
	hangUp(conn)
	readErr := <-over
	// Who failed first did not fail because of the other's closing the connection.
	if readErr == nil || errors.Is(readErr, net.ErrClosed) && writeErr != nil {
		return writeErr
	}
	return readErr
}

// write writes what is queued until the connection is over. It leaves what the
// reader said in over.
func (ch *channel) write(conn net.Conn, over chan error) error {
	w := newVector(conn)
	batch := make([]*op, 0, maxWriteOps)
	// The timer is not set anew while it runs: that costs more than to look once too often.
	timer, runs := time.NewTimer(never), false
	defer timer.Stop()
	for {
		var wait time.Duration
		ch.writing.Lock()
		batch, wait = ch.take(batch[:0], ch.c.now())
		if len(batch) == 0 {
			ch.writing.Unlock()
			if wait > 0 && !runs {
				timer.Reset(wait)
				runs = true
			}
			select {
			case <-ch.wake:
				continue
			case <-timer.C:
				runs = false
				continue
			case err := <-over:
				over <- err
				return nil
			}
		}
		for _, o := range batch {
			if o.packet == nil {
				w.add(o.frame)
				continue
			}
			head := o.packet.head
			w.add(head[min(o.sent, len(head)):])
			w.add(o.packet.body[max(o.sent-len(head), 0):])
		}
		err := w.flush()
		ch.written(batch)
		ch.writing.Unlock()
		if err != nil {
			return err
		}
	}
}

// vector gathers slices and writes them: with writev to a TCP connection, with
// few records to a TLS one.
type vector struct {
	conn   net.Conn
	base   [][]byte    // the backing of bufs, which a write consumes
	bufs   net.Buffers // what is left of base in a write
	joined []byte      // for TLS; nil if the connection takes writev
}

// joinBytes is up to which length slices are joined for TLS, which copies anyway.
const joinBytes = 16 << 10

func newVector(conn net.Conn) *vector {
	w := &vector{conn: conn}
	if _, ok := conn.(*net.TCPConn); !ok {
		w.joined = make([]byte, 0, 4*joinBytes)
	}
	return w
}

func (w *vector) add(b []byte) {
	if len(b) > 0 {
		w.base = append(w.base, b)
	}
}

func (w *vector) flush() error {
	defer func() {
		clear(w.base)
		w.base = w.base[:0]
	}()
	if w.joined == nil {
		w.bufs = net.Buffers(w.base)
		_, err := w.bufs.WriteTo(w.conn)
		w.bufs = nil
		return err
	}
	for _, b := range w.base {
		if len(w.joined)+len(b) > cap(w.joined) {
			if err := w.flushJoined(); err != nil {
				return err
			}
		}
		if len(b) > joinBytes {
			if err := w.flushJoined(); err != nil {
				return err
			}
			if _, err := w.conn.Write(b); err != nil {
				return err
			}
			continue
		}
		w.joined = append(w.joined, b...)
	}
	return w.flushJoined()
}

func (w *vector) flushJoined() error {
	if len(w.joined) == 0 {
		return nil
	}
	_, err := w.conn.Write(w.joined)
	w.joined = w.joined[:0]
	return err
}

// reader reads the answers of one connection.
type reader struct {
	ch       *channel
	r        *bufio.Reader
	answers  []wire.Response // of adds, not looked up yet
	outcomes []outcome
	replies  []AddReply // room for report
	heard    bool       // an answer
}

func (ch *channel) read(conn net.Conn) error {
	var from io.Reader = conn
	ch.mu.Lock()
	if ch.direct != nil {
		from = ch.direct
	}
	ch.mu.Unlock()
	r := &reader{ch: ch, r: bufio.NewReaderSize(from, readerBytes), answers: make([]wire.Response, 0, maxAnswers)}
	for {
		if err := r.next(); err != nil {
			return err
		}
	}
}

// next reads one answer. Those of adds are gathered while more of them wait in
// the buffer: bookies send them in bursts, after each sync of the journal.
func (r *reader) next() error {
	const headBytes = wire.LengthBytes + wire.ResponseBytes
	head, err := r.r.Peek(headBytes)
	if err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(head))
	if n < wire.ResponseBytes || n > int64(r.ch.c.cfg.MaxFrameBytes-wire.LengthBytes) {
		return fmt.Errorf("%w: answer of %d bytes", wire.ErrMalformed, n)
	}
	answer, err := wire.ParseResponse(head[wire.LengthBytes:])
	if err != nil {
		return err
	}
	if _, err := r.r.Discard(headBytes); err != nil {
		return err
	}
	if !r.heard || r.ch.c.health.failed.Load() {
		r.heard = true
		r.ch.heard()
	}
	body := int(n - wire.ResponseBytes)
	if answer.Op != wire.OpAdd {
		return r.answerRead(answer, body)
	}
	if body > 0 {
		return fmt.Errorf("%w: answer of an add with %d bytes more", wire.ErrMalformed, body)
	}
	r.answers = append(r.answers, answer)
	if len(r.answers) < maxAnswers && r.moreAdds() {
		return nil
	}
	return r.answerAdds()
}

// moreAdds says whether the next answer is there and one of an add.
func (r *reader) moreAdds() bool {
	if r.r.Buffered() < wire.LengthBytes+wire.ResponseBytes {
		return false
	}
	head, err := r.r.Peek(wire.LengthBytes + wire.HeaderBytes)
	return err == nil && wire.Op(head[wire.LengthBytes+1]) == wire.OpAdd
}

// answerAdds calls the handlers of the adds whose answers were gathered.
func (r *reader) answerAdds() error {
	var stray error
	now := r.ch.c.now()
	r.ch.mu.Lock()
	r.ch.heardAt = now
	for _, a := range r.answers {
		k := key{op: a.Op, ledger: a.Ledger, entry: a.Entry}
		o := r.ch.table.get(k)
		if o == nil {
			stray = unasked(a)
			break
		}
		r.ch.unchain(o)
		if o.over {
			r.ch.drop(o)
			continue
		}
		r.outcomes = append(r.outcomes, r.ch.end(o, r.err(a)))
	}
	if r.ch.gathers {
		r.ch.rouse()
	}
	r.ch.mu.Unlock()
	r.answers = r.answers[:0]
	r.replies = r.ch.c.report(r.outcomes, r.replies)
	r.outcomes = r.outcomes[:0]
	return stray
}

// answerRead reads the body of a read's answer and calls its handler.
func (r *reader) answerRead(a wire.Response, body int) error {
	k := key{op: a.Op, ledger: a.Ledger, entry: a.Entry}
	if a.Op == wire.OpBatchRead {
		id, err := r.r.Peek(wire.RequestIDBytes)
		if err != nil || body < wire.RequestIDBytes {
			return errors.Join(err, fmt.Errorf("%w: answer of a batch read with %d bytes", wire.ErrMalformed, body))
		}
		k.entry = int64(binary.BigEndian.Uint64(id))
	}
	r.ch.mu.Lock()
	o := r.ch.table.get(k)
	wanted := o != nil && !o.over
	r.ch.mu.Unlock()
	if o == nil {
		return unasked(a)
	}
	var buf *buffer.Buffer
	if wanted && a.Code == wire.OK {
		buf = buffer.Get(body)
		if _, err := io.ReadFull(r.r, buf.B); err != nil {
			buf.Release()
			return err
		}
	} else if _, err := r.r.Discard(body); err != nil {
		return err
	}

	r.ch.mu.Lock()
	r.ch.unchain(o)
	// Meanwhile it may have been canceled.
	wanted = !o.over
	var out outcome
	if wanted {
		out = r.ch.end(o, r.err(a))
	}
	r.ch.mu.Unlock()
	switch {
	case !wanted:
		if buf != nil {
			buf.Release()
		}
	case buf == nil:
		r.ch.c.report(append(r.outcomes[:0], out), nil)
	default:
		c := r.ch.c
		c.readCount.Add(-1)
		err := out.call.answer(c.id, buf)
		if c.cfg.Observe != nil {
			c.cfg.Observe(c.id, out.key.op, c.now()-out.started, err)
		}
	}
	return nil
}

// err is what a handler is told for the code of an answer.
func (r *reader) err(a wire.Response) error {
	if a.Code == wire.OK {
		return nil
	}
	return fmt.Errorf("bookie %s: %v of ledger %d, entry %d: %w", r.ch.c.id, a.Op, a.Ledger, a.Entry, a.Code)
}

// unasked: an answer without a question could be taken for one to the next
// question like it, so the connection is given up.
func unasked(a wire.Response) error {
	return fmt.Errorf("%w: answer to %v of ledger %d, entry %d, which was not asked for", wire.ErrMalformed, a.Op, a.Ledger, a.Entry)
}

// heard says that the bookie answers.
func (ch *channel) heard() {
	ch.mu.Lock()
	ch.answered = true
	ch.mu.Unlock()
	ch.c.health.heard()
}
