package proxy

import (
	"encoding/binary"
	"time"
)

const (
	// partsPerWrite and bytesPerWrite bound what is gathered for one writev.
	partsPerWrite = 512
	bytesPerWrite = 1 << 20

	// writeBytesPerTurn is what a connection may write before the others of
	// its loop have their turn.
	writeBytesPerTurn = 4 << 20
)

// output is the writing half of a connection: where it is in the answer at
// the head of the ring.
type output struct {
	part    int // 0 is the size, part i is Parts[i-1]
	off     int // in that part
	done    int // bytes of the answer that have left
	blocked bool
	moved   time.Time // when bytes last left, or had to wait
	sent    bool      // something has left that may not have been acknowledged
}

func (o *output) rewind() { o.part, o.off, o.done = 0, 0, 0 }

// flush sends what is ready, in order.
func (c *Conn) flush() {
	if c.holds() {
		return
	}
	for total := 0; !c.out.blocked && !c.closed && !c.lingering; {
		parts, want, hurry := c.gather()
		if want == 0 {
			c.advance(0)
			return
		}
		n, err := c.sock.Writev(parts, hurry)
		clear(parts)
		if err != nil {
			c.close(err)
			return
		}
		c.moved(n)
		if n < want {
			c.out.blocked = true
			break
		}
		if total += n; total >= writeBytesPerTurn {
			c.loop.Post(&c.again)
			return
		}
	}
	if c.out.blocked {
		c.giveUpFrames()
	}
}

// giveUpFrames lets go of the frames of requests that are answered. Without it
// clients that do not read would hold the budget of all.
func (c *Conn) giveUpFrames() {
	for i := c.first; i != c.handled; i++ {
		if r := c.at(i); r.state.Load() == requestReady {
			c.giveUpFrame(r)
		}
	}
}

// written is called when a write that had to wait has gone on.
func (c *Conn) written(n int) {
	c.out.blocked = false
	c.moved(n)
	c.turn()
}

func (c *Conn) moved(n int) {
	now := c.loop.Now()
	c.active, c.out.moved = now, now
	c.traffic.bytesOut.Add(float64(n))
	if !c.out.sent {
		c.out.sent = true
		c.watch(c.server.cfg.PeerTimeout / 4)
	}
	c.unsent.Add(int64(-n))
	c.advance(n)
}

// gather lists the bytes of the ready answers at the head of the ring, and says
// whether somebody waits for one of them. The list is the loop's, until the next call.
func (c *Conn) gather() (parts [][]byte, bytes int, hurry bool) {
	parts = c.state.parts[:0]
	part, off := c.out.part, c.out.off
	for i := c.first; i != c.handled && bytes < bytesPerWrite; i++ {
		r := c.at(i)
		if r.state.Load() != requestReady {
			break
		}
		if r.bytes == 0 {
			continue
		}
		hurry = hurry || awaits(r.Key)
		if part == 0 {
			binary.BigEndian.PutUint32(r.prefix[:], uint32(r.bytes-4))
			parts = append(parts, r.prefix[off:r.prefixBytes])
			bytes += r.prefixBytes - off
			part, off = 1, 0
		}
		for ; part <= len(r.resp.Parts) && len(parts) < partsPerWrite; part++ {
			if p := r.resp.Parts[part-1][off:]; len(p) > 0 {
				parts = append(parts, p)
				bytes += len(p)
			}
			off = 0
		}
		if len(parts) >= partsPerWrite {
			break
		}
		part = 0
	}
	return parts, bytes, hurry
}

// advance forgets the answers that n more bytes complete, and those that have none.
func (c *Conn) advance(n int) {
	o := &c.out
	for c.len() > 0 && c.first != c.handled {
		r := c.head()
		switch r.state.Load() {
		case requestReady:
		case requestDropped:
			c.why = r.why
			c.linger()
			c.discard()
			return
		default:
			return
		}
		if left := r.bytes - o.done; n < left {
			o.done += n
			for n > 0 {
				p := r.prefixBytes
				if o.part > 0 {
					p = len(r.resp.Parts[o.part-1])
				}
				if n < p-o.off {
					o.off += n
					return
				}
				n -= p - o.off
				o.part, o.off = o.part+1, 0
			}
			return
		} else {
			n -= left
		}
		o.rewind()
		c.finish(c.pop())
	}
}
