package bookie

import (
	"sync"
	"sync/atomic"

	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// Buffer is the owner of an entry's bytes, *buffer.Buffer in practice.
type Buffer interface {
	Retain()
	Release()
}

// Packet is an entry made ready for the wire, the same for all its replicas. It is
// counted: NewPacket gives the caller one reference, a Client takes its own for
// as long as it needs the bytes. Any goroutine may use it.
type Packet struct {
	ledger, entry int64
	flags         wire.Flags

	head []byte // the frame up to body
	body []byte
	buf  Buffer

	refs atomic.Int32
	room [192]byte // for head, unless it is longer
}

var packets = sync.Pool{New: func() any { return new(Packet) }}

// NewPacket encodes an add of the entry whose payload is head, which is copied,
// then body, which must not change until the last reference to the packet is
// gone. buf, if not nil, is the owner of body: the packet retains it meanwhile.
// For lac and length see wire.Codec.AppendAdd.
func NewPacket(c *wire.Codec, flags wire.Flags, entry, lac, length int64, head, body []byte, buf Buffer) *Packet {
	p := packets.Get().(*Packet)
	p.ledger, p.entry, p.flags = c.Ledger(), entry, flags
	p.head = c.AppendAdd(p.room[:0], flags, entry, lac, length, head, body)
	p.body, p.buf = body, buf
	if buf != nil {
		buf.Retain()
	}
	p.refs.Store(1)
	return p
}

// Bytes is the size of the frame.
func (p *Packet) Bytes() int { return len(p.head) + len(p.body) }

// Ledger and Entry are what the packet adds.
func (p *Packet) Ledger() int64 { return p.ledger }

// Entry is the id of the entry.
func (p *Packet) Entry() int64 { return p.entry }

// Retain adds a reference. Only a holder may call it.
func (p *Packet) Retain() {
	if p.refs.Add(1) <= 1 {
		panic("bookie: Retain of a packet that was released")
	}
}

// Release drops a reference.
func (p *Packet) Release() {
	switch n := p.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("bookie: Release of a packet that was released")
	}
	if p.buf != nil {
		p.buf.Release()
	}
	p.head, p.body, p.buf = nil, nil, nil
	packets.Put(p)
}
