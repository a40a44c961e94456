package bookietest

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"

	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// versionThreeTag is what requests of version 3 begin with, the tag of their
// header; here START_TLS is all that is understood of them.
const versionThreeTag = 1<<3 | 2

// conn is a client's connection.
type conn struct {
	p   *process
	raw *net.TCPConn
	rw  net.Conn // raw, or TLS over it; the reader's until out has something

	prefix [wire.LengthBytes]byte // the reader's
	room   []byte                 // the reader's, for frames that are not kept

	// Under the bookie's lock:
	out    []byte // what is to be written
	closed bool
}

func newConn(p *process, raw *net.TCPConn) *conn {
	c := &conn{p: p, raw: raw, rw: raw}
	if p.b.cfg.Discard {
		c.room = make([]byte, 1<<20)
	}
	return c
}

// reset ends the connection without a word.
func (c *conn) reset() {
	c.raw.SetLinger(0)
	c.raw.Close()
}

// over forgets the connection.
func (c *conn) over() {
	c.reset()
	c.p.b.mu.Lock()
	c.closed = true
	delete(c.p.conns, c)
	c.p.b.moved.Broadcast()
	c.p.b.mu.Unlock()
}

// read reads requests until the connection ends.
func (c *conn) read() {
	defer c.over()
	in := bufio.NewReaderSize(c.rw, 64<<10)
	first := true
	for {
		frame, err := c.frame(in)
		if err != nil {
			return
		}
		c.p.b.mu.Lock()
		alive := c.p.await(func() bool { return true })
		c.p.b.mu.Unlock()
		if !alive {
			return
		}
		if first && len(frame) > 0 && frame[0] == versionThreeTag {
			if !c.startTLS(frame) {
				return
			}
			in.Reset(c.rw)
			continue
		}
		first = false
		r, err := wire.ParseRequest(frame)
		if err != nil {
			return
		}
		if r.Op == wire.OpBatchRead && c.p.b.cfg.NoBatchRead {
			c.p.b.note(r)
			return
		}
		if c.p.b.cfg.Discard && r.Op == wire.OpAdd {
			c.discard(in, r)
			continue
		}
		if !c.dispatch(r) {
			return
		}
	}
}

// frame reads a frame, into memory of its own unless adds are discarded.
func (c *conn) frame(in *bufio.Reader) ([]byte, error) {
	if _, err := io.ReadFull(in, c.prefix[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(c.prefix[:])
	if int64(n) > int64(c.p.b.cfg.MaxFrameBytes-wire.LengthBytes) {
		return nil, wire.ErrMalformed
	}
	if c.p.b.cfg.Discard && int(n) <= len(c.room) {
		_, err := io.ReadFull(in, c.room[:n])
		return c.room[:n], err
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(in, frame)
	return frame, err
}

// startTLS answers START_TLS; false ends the connection.
func (c *conn) startTLS(frame []byte) bool {
	request, err := wire.ParseStartTLS(frame)
	if err != nil {
		return false
	}
	if c.p.b.cfg.TLS == nil {
		const badRequest = 404 // EBADREQ of version 3
		_, err := c.raw.Write(wire.AppendStartTLSResponse(nil, request.TxnID, badRequest))
		return err == nil
	}
	if _, err := c.raw.Write(wire.AppendStartTLSResponse(nil, request.TxnID, wire.OK)); err != nil {
		return false
	}
	secure := tls.Server(c.raw, c.p.b.cfg.TLS)
	if err := secure.Handshake(); err != nil {
		return false
	}
	c.p.b.mu.Lock()
	c.rw = secure
	c.p.b.mu.Unlock()
	return true
}

// dispatch hands a request to its pool, unless a fault says otherwise; false ends
// the connection.
func (c *conn) dispatch(r wire.Request) bool {
	f := c.p.b.note(r)
	t := task{c: c, r: r}
	switch {
	case f == nil:
	case f.Until != nil:
		c.p.wg.Go(func() {
			select {
			case <-f.Until:
				c.p.enqueue(t)
			case <-c.p.stopped:
			}
		})
		return true
	case f.DropRequest:
		return true
	case f.Disconnect:
		return false
	case f.DropReply:
		t.silent = true
	case f.Code != wire.OK:
		c.p.b.mu.Lock()
		c.answer(response(r, f.Code), errorBody(r))
		c.p.b.mu.Unlock()
		return true
	}
	c.p.enqueue(t)
	return true
}

func (p *process) enqueue(t task) {
	pool := Normal
	if t.r.Flags&(wire.HighPriority|wire.DoFencing) != 0 {
		pool = High
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.pools[pool] = append(p.pools[pool], t)
	p.b.moved.Broadcast()
}

// answer queues an answer. The bookie's lock is held.
func (c *conn) answer(r wire.Response, body []byte) {
	if !c.closed {
		c.out = wire.AppendResponse(c.out, r, body)
		c.p.b.moved.Broadcast()
	}
}

// write writes what is queued until the connection ends.
func (c *conn) write() {
	b := c.p.b
	var out []byte
	for {
		b.mu.Lock()
		alive := c.p.await(func() bool { return len(c.out) > 0 || c.closed })
		if !alive || c.closed {
			b.mu.Unlock()
			return
		}
		out, c.out = c.out, out[:0]
		rw := c.rw
		b.mu.Unlock()
		if _, err := rw.Write(out); err != nil {
			c.raw.Close()
			return
		}
	}
}

// discard acknowledges the add r and those that wait behind it in the buffer.
func (c *conn) discard(in *bufio.Reader, r wire.Request) {
	c.p.b.mu.Lock()
	c.out = wire.AppendResponse(c.out, response(r, wire.OK), nil)
	if in.Buffered() == 0 || len(c.out) > 16<<10 {
		c.p.b.moved.Broadcast()
	}
	c.p.b.mu.Unlock()
}
