package bookie

import (
	"time"

	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// key is what an answer is told by. Of a batch read, entry is the request id.
type key struct {
	op            wire.Op
	ledger, entry int64
}

// op is a request: queued, then on a connection, then over. It is over once its
// outcome is decided, and stays where it is until nobody needs it:
//
//	queue -> pending, in write -> pending -> gone
//	      -> chained behind a pending one of the same key -> queue
//
// All fields are the channel's, under its lock.
type op struct {
	key      key
	started  time.Duration
	deadline time.Duration
	patience time.Duration // when a bookie that owes the answer loses its connection
	serial   uint64        // order of sending on a connection

	// Of an add: the op is reused when it is gone.
	packet  *Packet // nil once released
	sent    int     // bytes that a connection took before the writer came to it
	handler AddHandler
	tag     uint64

	// Of a read: the op is a part of its call.
	call  *Call
	frame []byte

	tries   int  // connections that broke mute under it
	over    bool // its outcome is decided
	pending bool // in the channel's table
	writing bool // the writer has its bytes
	next    *op  // the one chained behind it
	beside  *op  // table
}

// outcome is what a handler is to be told, apart from the op, which may be reused.
type outcome struct {
	key     key
	started time.Duration
	handler AddHandler
	tag     uint64
	call    *Call
	err     error
}

func (o *op) outcome(err error) outcome {
	return outcome{key: o.key, started: o.started, handler: o.handler, tag: o.tag, call: o.call, err: err}
}

// report calls the handlers. No lock may be held. room is for what it gathers on the
// way; it returns that for the next call, empty.
func (c *Client) report(outcomes []outcome, room []AddReply) []AddReply {
	if len(outcomes) == 0 {
		return room
	}
	now := c.now()
	for i := 0; i < len(outcomes); {
		o := &outcomes[i]
		if c.cfg.Observe != nil {
			c.cfg.Observe(c.id, o.key.op, now-o.started, o.err)
		}
		if o.handler == nil {
			c.readCount.Add(-1)
			o.call.fail(c.id, o.err)
			i++
			continue
		}
		room = append(room[:0], AddReply{o.key.entry, o.tag, o.err})
		for i++; i < len(outcomes) && outcomes[i].handler == o.handler; i++ {
			p := &outcomes[i]
			if c.cfg.Observe != nil {
				c.cfg.Observe(c.id, p.key.op, now-p.started, p.err)
			}
			room = append(room, AddReply{p.key.entry, p.tag, p.err})
		}
		c.addCount.Add(-int64(len(room)))
		o.handler.Added(c.id, room)
	}
	clear(outcomes)
	clear(room)
	return room[:0]
}
