package api

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy/forward"
)

// produceCall is what one node is asked to append.
type produceCall struct {
	p       *routedProduce
	node    int32
	parts   []int32 // nil if it is the whole request, until that is unpacked
	whole   bool
	slots   []int
	named   slotSet // slots, of parts
	call    forward.Call
	message [1][]byte
	epochs  []forward.SlotEpoch

	state atomic.Int32 // of the call* constants
	early forward.Answer
}

// A Sender may call Done from within Send, where the line's lock is held.
const (
	callSending int32 = iota
	callSent
	callDone
)

// add adds a part.
func (c *produceCall) add(i int32, slot int) {
	c.parts = append(c.parts, i)
	if c.named.add(slot) {
		c.slots = append(c.slots, slot)
	}
}

// encode makes the request. What it holds of records are slices of the client's frame.
func (c *produceCall) encode() [][]byte {
	p := c.p
	// Parts are in the order of the request, so those of a topic are neighbours.
	runs, last := 0, -1
	for _, i := range c.parts {
		if of := p.parts[i].of; of != last {
			runs, last = runs+1, of
		}
	}
	var e protocol.ProduceRequestEncoder
	e.Begin(p.r.Message[:len(p.r.Message)-len(p.r.Body)], &p.cursor, runs)
	for k := 0; k < len(c.parts); {
		n, of := 1, p.parts[c.parts[k]].of
		for k+n < len(c.parts) && p.parts[c.parts[k+n]].of == of {
			n++
		}
		t := &p.topics[of]
		e.Topic(t.name, t.id, n)
		for _, i := range c.parts[k : k+n] {
			e.Partition(p.parts[i].partition, p.parts[i].records)
		}
		k += n
	}
	return e.End()
}

// sendLocked sends the call as the line's next one.
func (c *produceCall) sendLocked() finished {
	p := c.p
	l, h := p.line, p.h
	for _, slot := range c.slots {
		c.epochs = append(c.epochs, forward.SlotEpoch{Slot: uint16(slot), Epoch: h.route(slot).epoch})
	}
	l.leftLocked(c.slots, c.node)
	c.call.Done = c.done
	h.call(&c.call, p.r, c.epochs, l.streamLocked(), p.timeout()+forwardGrace)
	h.c.Peers.Send(c.node, &c.call)
	if c.state.CompareAndSwap(callSending, callSent) {
		return nil
	}
	return c.backLocked(&c.early)
}

// done takes what became of the call. Any goroutine.
func (c *produceCall) done(_ *forward.Call, a forward.Answer) {
	c.early = a
	if c.state.Swap(callDone) == callSending {
		return // sendLocked takes it
	}
	l := c.p.line
	l.mu.Lock()
	done := c.backLocked(&c.early)
	more := len(l.queue) > 0
	l.mu.Unlock()
	done.run()
	if more {
		l.pump(c.p.h)
	}
}

// backLocked takes what became of the call.
func (c *produceCall) backLocked(a *forward.Answer) finished {
	p := c.p
	l := p.line
	nothing := nothingDone(a)
	l.backLocked(c.slots, nothing)
	var codes answeredCodes
	if a.Status == forward.Answered {
		codes.read(a.Message, p.r.Version)
		if c.whole && codes.err == nil && !codes.failed {
			answer(p.r, a)
			return nil
		}
	}
	if c.whole && (a.Status == forward.Silent || a.Status == forward.Dropped) {
		answer(p.r, a)
		return nil
	}
	defer letGo(a)
	p.unpackLocked(partAway)
	if c.whole {
		c.parts = make([]int32, len(p.parts))
		for i := range c.parts {
			c.parts[i] = int32(i)
		}
	}
	switch {
	case nothing && p.late():
		for _, i := range c.parts {
			p.refuseLocked(i, whyNot(c.node, a))
		}
	case nothing:
		for _, i := range c.parts {
			p.parts[i].state = partWaits
		}
	case a.Status == forward.Answered && codes.err == nil:
		c.takeLocked(a.Message)
	case a.Status == forward.Silent:
		for _, i := range c.parts {
			p.answerLocked(i, protocol.ProducePartition{})
		}
	default:
		why := codes.err
		if why == nil {
			why = whyNot(c.node, a)
		}
		if a.Status == forward.Dropped {
			p.dropped = whyDropped(a)
		}
		for _, i := range c.parts {
			p.refuseLocked(i, why)
		}
	}
	for _, i := range c.parts {
		if p.parts[i].state == partWaits {
			l.spoiled = true
			l.joinLocked(p)
			l.restLocked(p.h)
			break
		}
	}
	if p.left == 0 {
		return finished{p}
	}
	return nil
}

// answeredCodes looks through an answer.
type answeredCodes struct {
	err    error
	failed bool // some partition
}

func (n *answeredCodes) read(message []byte, version int16) {
	var resp protocol.ProduceResponse
	n.err = resp.Parse(message, version)
	for n.err == nil && resp.NextTopic() {
		for resp.NextPartition() {
			n.failed = n.failed || resp.Part.Code != protocol.None
		}
	}
	if n.err == nil {
		n.err = resp.Err()
	}
	if n.err != nil {
		n.err = fmt.Errorf("%w: %w", forward.ErrProtocol, n.err)
	}
}

// takeLocked takes an answer that can be read. It has to be for what was asked,
// in the order in which it was.
func (c *produceCall) takeLocked(message []byte) {
	p := c.p
	var resp protocol.ProduceResponse
	_ = resp.Parse(message, p.r.Version) // it was read before
	k, astray := 0, false
	for resp.NextTopic() {
		for resp.NextPartition() {
			// From what was not asked on nobody knows what is an answer to what.
			if astray = astray || k == len(c.parts) || !p.names(c.parts[k], &resp); astray {
				continue
			}
			i := c.parts[k]
			k++
			switch {
			case resp.Part.Code == codeNotServed && p.late():
				p.refuseLocked(i, errNotServed)
				continue
			case resp.Part.Code == codeNotServed:
				p.parts[i].state = partWaits
				continue
			}
			out := resp.Part
			out.Message = strings.Clone(out.Message)
			out.RecordErrors = slices.Clone(out.RecordErrors)
			for j := range out.RecordErrors {
				out.RecordErrors[j].Message = strings.Clone(out.RecordErrors[j].Message)
			}
			p.answerLocked(i, out)
		}
	}
	if !astray {
		for _, n := range resp.Nodes() {
			n.Host, n.Rack = strings.Clone(n.Host), strings.Clone(n.Rack)
			p.nodes = append(p.nodes, n)
		}
	}
	for _, i := range c.parts[k:] {
		p.refuseLocked(i, fmt.Errorf("node %d: %w: no answer for partition %d", c.node, forward.ErrProtocol, p.parts[i].partition))
	}
}
