package forward

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
)

// What package planted does to calls. Without its tag nothing calls these.

// produceKey is the API key of Produce, whose answers tell clients what became of
// their records.
const produceKey = 0

func isProduce(c *Call) bool {
	return len(c.Message) > 0 && len(c.Message[0]) >= 4 && binary.BigEndian.Uint16(c.Message[0]) == produceKey
}

// sendTwice sends a copy of the call ahead of it, whose answer nobody gets.
func (p *Peers) sendTwice(to int32, c *Call) {
	if !isProduce(c) {
		return
	}
	l, err := p.linkTo(to, c)
	if err != nil {
		return
	}
	again := &Call{
		Message: [][]byte{bytes.Join(c.Message, nil)}, Slots: slices.Clone(c.Slots), Stream: c.Stream, Listener: c.Listener,
		RemoteAddr: c.RemoteAddr, Principal: c.Principal, Timeout: c.Timeout, Loop: c.Loop,
		Done: func(_ *Call, a Answer) {
			if a.Buf != nil {
				a.Buf.Release()
			}
		},
	}
	p.open.Add(1)
	p.metrics.calls.Inc()
	if l.send(again) != nil {
		p.open.Add(-1)
		p.metrics.calls.Dec()
	}
}

var lastProduced struct {
	sync.Mutex
	answer []byte
}

// mixUp gives a Produce the answer of the one before it, if that looks alike.
func mixUp(c *Call, answer []byte) {
	if !isProduce(c) {
		return
	}
	const correlation = 4
	lastProduced.Lock()
	defer lastProduced.Unlock()
	last := lastProduced.answer
	lastProduced.answer = bytes.Clone(answer)
	if len(last) == len(answer) {
		copy(answer[correlation:], last[correlation:])
	}
}
