package proxy

import (
	"encoding/binary"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/proxy/loop"
)

// Where bytes are read to.
//
// Between frames a connection reads into a chunk, as much as there is, and
// frames that are whole in it are handed on where they lie; they share the
// chunk by its reference count: from 1 to 16 KB, one read for many frames
// costs less CPU than two reads for each. A frame that is not whole gets a buffer of
// its own: what has come of it is moved there, and all the rest is read
// straight into it, so of a large frame a chunk's worth is copied at most.
//
// After each read nothing of a connection remains in a chunk but what is
// referenced. So all connections of an epoll loop share one chunk, and an idle
// connection holds no buffer at all. A net.Conn has to be given its space
// before bytes come, so there each connection has a small chunk of its own.
//
// A small Produce frame is copied out of the chunk: its batches may stay in a
// log's cache for long, and would pin a chunk that otherwise held requests of no interest.
// So is whatever comes from another node: what is parked there lies beside the
// requests of all its other clients.
const (
	sharedChunkBytes = 64 << 10
	minSharedSpace   = 16 << 10
	ownChunkBytes    = 4 << 10
	minOwnSpace      = 1 << 10

	// copyBelowBytes bounds what a kept frame pins: its chunk is at most 8 times as large.
	copyBelowBytes = sharedChunkBytes / 8

	// bulkSpace is what is read before the size of a frame is known, when
	// the frame before was large: the next one is likely to be, and what is
	// read too early has to be moved.
	bulkSpace = 4 << 10

	// firstFrameBytes is what is allocated for a frame on the word of its
	// size alone. From there on the buffer grows by frameGrowth when it is full, so a
	// client has to send a quarter of what it makes the server hold.
	firstFrameBytes = 1 << 20
	frameGrowth     = 4
)

// chunk is a buffer that is filled from the front by one read after another.
type chunk struct {
	b        *buffer.Buffer
	used     int
	size     int
	minSpace int
}

func (k *chunk) space() []byte {
	if k.b == nil || k.size-k.used < k.minSpace {
		k.release()
		k.b = buffer.Get(k.size)
	}
	return k.b.B[k.used:]
}

func (k *chunk) release() {
	if k.b != nil {
		k.b.Release()
		k.b, k.used = nil, 0
	}
}

// input is the reading half of a connection: it cuts frames.
type input struct {
	conn  *Conn
	chunk *chunk
	own   chunk // what chunk points at, if it is not shared

	head  [4]byte // the size of the frame under way
	headN int     // how many bytes of head are there
	frame *buffer.Buffer
	got   int // bytes in frame

	// What was read and cannot be cut yet, since a limit is reached: the
	// connection is paused meanwhile.
	rest   []byte
	restOf *buffer.Buffer

	bulk       bool
	discarding bool
	first      bool // no frame was whole yet

	// Progress of a frame that is not whole: how much of it was there when.
	mark    time.Time
	markGot int
}

func (in *input) init(c *Conn) {
	in.conn, in.first = c, true
	if c.sock.HoldsSpace() {
		in.own = chunk{size: ownChunkBytes, minSpace: minOwnSpace}
		in.chunk = &in.own
	} else {
		in.chunk = &c.state.chunk
	}
}

func (in *input) size() int { return int(int32(binary.BigEndian.Uint32(in.head[:]))) }

// partial says whether a frame has begun and is not whole.
func (in *input) partial() bool { return in.headN > 0 }

func (in *input) space() []byte {
	if in.conn.paused != 0 {
		return nil
	}
	if in.frame != nil && !in.discarding {
		return in.frame.B[in.got:]
	}
	p := in.chunk.space()
	if in.bulk {
		p = p[:min(len(p), bulkSpace)]
	}
	return p
}

func (in *input) filled(n int) {
	c, now := in.conn, in.conn.loop.Now()
	c.heard(now)
	c.active = now
	c.traffic.bytesIn.Add(float64(n))
	switch {
	case in.discarding || c.ending:
	case in.frame != nil:
		in.got += n
		in.assemble()
	default:
		b := in.chunk.b
		p := b.B[in.chunk.used:][:n]
		in.chunk.used += n
		in.cut(b, p)
	}
}

// cut makes requests of the frames in p, which lies in b.
func (in *input) cut(b *buffer.Buffer, p []byte) {
	c := in.conn
	for {
		if in.headN < len(in.head) {
			if in.headN == 0 && len(p) > 0 {
				in.started()
			}
			n := copy(in.head[in.headN:], p)
			in.headN += n
			p = p[n:]
			if in.headN < len(in.head) {
				if n > 0 {
					c.watch(c.server.cfg.FrameTimeout)
				}
				return
			}
		}
		size := in.size()
		if size < minFrameBytes || size > c.maxFrameBytes {
			in.badSize(size)
			return
		}
		whole := len(p) >= size
		need := size
		if !whole {
			need = min(size, firstFrameBytes)
		}
		if !in.reserve(need) {
			if len(p) > 0 {
				b.Retain()
				in.rest, in.restOf = p, b
			}
			return
		}
		if !whole {
			in.frame = buffer.Get(need)
			in.got = copy(in.frame.B, p)
			in.bulk = size > sharedChunkBytes
			c.watch(c.server.cfg.FrameTimeout)
			in.assemble()
			return
		}
		in.headN, in.bulk, in.first = 0, false, false
		frame := p[:size:size]
		p = p[size:]
		if size < copyBelowBytes && (c.link != nil || binary.BigEndian.Uint16(frame) == keyProduce) {
			own := buffer.Get(size)
			copy(own.B, frame)
			c.accept(own, own.B)
		} else {
			b.Retain()
			c.accept(b, frame)
		}
		if c.ending || c.closed {
			return
		}
	}
}

// assemble looks at a frame in its own buffer after bytes have come.
func (in *input) assemble() {
	c := in.conn
	size := in.size()
	if in.got < len(in.frame.B) {
		return
	}
	if in.got < size {
		need := min(size, frameGrowth*in.got)
		if !c.budget().take(c, need-in.got, false) {
			c.pause(pausedMemory)
			return
		}
		c.held += need - in.got
		grown := buffer.Get(need)
		copy(grown.B, in.frame.B)
		in.frame.Release()
		in.frame = grown
		return
	}
	b := in.frame
	in.frame, in.got, in.headN, in.first = nil, 0, 0, false
	c.accept(b, b.B)
}

// reserve takes n bytes for a frame, or pauses the connection.
func (in *input) reserve(n int) bool {
	c := in.conn
	if c.full(false) {
		c.pause(pausedFull)
		c.giveBack(0) // it may have waited for memory, and those behind it do still
		return false
	}
	if !c.budget().take(c, n, true) {
		c.pause(pausedMemory)
		return false
	}
	c.held += n
	return true
}

// resume goes on with what is there when the connection may read again.
func (in *input) resume() {
	if in.discarding {
		return
	}
	in.mark = in.conn.loop.Now()
	if in.frame != nil {
		in.assemble()
		return
	}
	if in.headN < len(in.head) && in.rest == nil {
		return
	}
	p, b := in.rest, in.restOf
	in.rest, in.restOf = nil, nil
	in.cut(b, p)
	if b != nil {
		b.Release()
	}
}

// started begins to watch the progress of a frame.
func (in *input) started() {
	in.mark, in.markGot = in.conn.loop.Now(), 0
}

// slow says whether a frame makes too little progress. While others wait for memory it
// has to bring more: what is held for it would else keep them out for little.
func (in *input) slow(now time.Time, due func(time.Time, time.Duration) bool) bool {
	l := &in.conn.server.cfg.Limits
	if !in.partial() || in.discarding || in.conn.paused != 0 || !due(in.mark, l.FrameTimeout) {
		return false
	}
	least := l.MinFrameProgressBytes
	if in.conn.budget().waiting.Load() > 0 {
		least = max(least, firstFrameBytes)
	}
	if in.got-in.markGot < least {
		return true
	}
	in.mark, in.markGot = now, in.got
	due(in.mark, l.FrameTimeout)
	return false
}

// discard throws away what is there and what will come.
func (in *input) discard() {
	in.discarding = true
	in.drop()
}

// drop gives up what is there.
func (in *input) drop() {
	if in.restOf != nil {
		in.restOf.Release()
		in.rest, in.restOf = nil, nil
	}
	if in.frame != nil {
		n := len(in.frame.B)
		in.frame.Release()
		in.frame = nil
		in.conn.giveBack(n)
	}
	in.headN = 0
}

// close gives up all memory. The socket no longer reads.
func (in *input) close() {
	in.discarding = true
	in.drop()
	in.own.release()
}

func (in *input) badSize(size int) {
	c := in.conn
	in.headN = 0
	if c.link != nil && !c.link.proven {
		err := fmt.Errorf("%w: %d bytes instead of a handshake", errFrameSize, size)
		c.link.notProven(err)
		c.end(err)
		return
	}
	err := fmt.Errorf("%w: %d bytes, socket.request.max.bytes allows %d", errFrameSize, size, c.maxFrameBytes)
	hint := ""
	if in.first {
		hint = guess(in.head)
	}
	c.server.cfg.Log.Warn("closing a connection that does not send Kafka frames",
		zap.String("listener", c.Listener), zap.String("remote", c.RemoteAddr), zap.Error(err), zap.String("hint", hint))
	c.end(err)
}

// guess says what a client speaks whose first bytes are no size of a frame.
func guess(head [4]byte) string {
	switch string(head[:]) {
	case "GET ", "POST", "PUT ", "HEAD", "DELE", "OPTI", "PATC", "CONN", "TRAC", "PRI ", "HTTP":
		return "these are the first bytes of HTTP; is this the port of another listener?"
	case "PROX", "\r\n\r\n":
		return "these are the first bytes of the PROXY protocol; listener.proxy.protocol names the listeners that expect it"
	}
	if head[0] == 0x16 && head[1] == 3 {
		return "these are the first bytes of TLS; set security.protocol to PLAINTEXT or use the TLS listener"
	}
	return ""
}

var _ loop.Handler = (*events)(nil)
