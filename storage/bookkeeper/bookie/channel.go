package bookie

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

const (
	// maxWriteOps and maxWriteBytes bound what goes into one writev.
	maxWriteOps   = 512
	maxWriteBytes = 1 << 20
	// maxFreeOps is how many ops a channel keeps for reuse.
	maxFreeOps = 4096
	// While a bookie owes answers to adds, further ones wait until it gives some, but
	// for no longer than gatherFor, and no more than gatherBytes: what it gets at once
	// it syncs at once, and that costs it little more than one add by itself. More than
	// that it may as well take in while it syncs.
	gatherFor   = time.Millisecond
	gatherBytes = 16 << 10
	// maxTries bounds how often a request is repeated because connections broke
	// before any answer.
	maxTries = 6
)

// channel is one connection to the bookie, through all its replacements, and the
// requests that go over it. Its goroutine, run, owns the connection: it dials,
// writes what is queued, and ends the requests of a connection that broke. A second
// one, for each connection, reads.
type channel struct {
	c    *Client
	wake chan struct{}

	// writing is held by who writes to conn. It is taken before mu, or under it without
	// waiting.
	writing sync.Mutex

	mu       sync.Mutex
	closed   bool
	asleep   bool  // the writer waits for wake, with nothing to do
	gathers  bool  // the writer waits for wake, or for gathered to be many, or old
	gathered int   // bytes of the queue meanwhile
	queue    []*op // from head on: not sent
	head     int
	table    table    // sent, or being sent, over conn
	owed     int      // adds of the table
	conn     net.Conn // nil if there is none
	direct   *direct  // of conn, nil if it has none
	left     *op      // an add that conn took a part of, or nothing yet
	answered bool     // conn brought an answer
	reason   error    // why the client closed conn
	serial   uint64
	earliest time.Duration // no deadline, and no end of patience, is before it
	heardAt  time.Duration // last answer to an add
	free     []*op
}

func newChannel(c *Client) *channel {
	return &channel{c: c, wake: make(chan struct{}, 1), earliest: never}
}

func (ch *channel) connected() bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.conn != nil
}

// enqueueAdd takes a reference to p. It is false if the channel is closed.
func (ch *channel) enqueueAdd(p *Packet, now, timeout time.Duration, h AddHandler, tag uint64) bool {
	ch.mu.Lock()
	if ch.closed {
		ch.mu.Unlock()
		return false
	}
	var o *op
	if n := len(ch.free); n > 0 {
		o, ch.free = ch.free[n-1], ch.free[:n-1]
	} else {
		o = new(op)
	}
	p.Retain()
	*o = op{
		key: key{op: wire.OpAdd, ledger: p.ledger, entry: p.entry}, started: now,
		deadline: now + timeout, patience: now + 2*max(timeout, ch.c.cfg.AddTimeout),
		packet: p, handler: h, tag: tag,
	}
	ch.c.addCount.Add(1)
	due := ch.watch(o)
	if !ch.mayWrite(p.Bytes()) {
		ch.put(o, due)
		return true
	}
	ch.writeNow(o)
	ch.c.clock.arm(due)
	return true
}

func (ch *channel) enqueueRead(o *op, now, timeout time.Duration) bool {
	ch.mu.Lock()
	if ch.closed {
		ch.mu.Unlock()
		return false
	}
	o.started, o.deadline, o.patience = now, now+timeout, now+2*max(timeout, ch.c.cfg.ReadTimeout)
	ch.c.readCount.Add(1)
	ch.put(o, ch.watch(o))
	return true
}

// watch returns when the clock has to look at o. The lock is held.
func (ch *channel) watch(o *op) (due time.Duration) {
	due = o.deadline
	if o.packet != nil && ch.c.cfg.Stalled != nil {
		due = min(due, o.started+ch.c.cfg.StallAfter)
	}
	ch.earliest = min(ch.earliest, due)
	return due
}

// put queues o, which is due then, and unlocks.
func (ch *channel) put(o *op, due time.Duration) {
	ch.queue = append(ch.queue, o)
	wake := ch.asleep
	if ch.gathers {
		if o.packet != nil {
			ch.gathered += o.packet.Bytes()
		}
		wake = o.packet == nil || ch.gathered >= gatherBytes
	}
	if wake {
		ch.asleep, ch.gathers = false, false
	}
	ch.mu.Unlock()
	ch.c.clock.arm(due)
	if wake {
		ch.poke()
	}
}

func (ch *channel) poke() {
	select {
	case ch.wake <- struct{}{}:
	default:
	}
}

// idle says whether nothing is queued, in which case the next put wakes the caller.
func (ch *channel) idle() bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.asleep, ch.gathers = ch.head == len(ch.queue), false
	return ch.asleep
}

// wait returns for how long the queue may wait for more. The lock is held.
func (ch *channel) wait(now time.Duration) time.Duration {
	if ch.owed == 0 || ch.left != nil || ch.head == len(ch.queue) {
		return 0
	}
	ch.gathered = 0
	for _, o := range ch.queue[ch.head:] {
		if o.packet == nil { // a read
			return 0
		}
		if ch.gathered += o.packet.Bytes(); ch.gathered >= gatherBytes {
			return 0
		}
	}
	return ch.queue[ch.head].started + gatherFor - now
}

// take moves what is to be written next from the queue to the table and to batch, or
// returns for how long that may wait for more. Of requests with the same key the later
// ones are chained to the first.
func (ch *channel) take(batch []*op, now time.Duration) ([]*op, time.Duration) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.gathers = false
	if wait := ch.wait(now); wait > 0 {
		ch.gathers = true
		return batch, wait
	}
	bytes := 0
	if ch.left != nil {
		bytes = ch.left.packet.Bytes() - ch.left.sent
		batch = append(batch, ch.left)
		ch.left = nil
	}
	for ch.head < len(ch.queue) && len(batch) < maxWriteOps && bytes < maxWriteBytes {
		o := ch.queue[ch.head]
		ch.queue[ch.head] = nil
		ch.head++
		if o.over { // a read that was canceled
			continue
		}
		if first := ch.table.get(o.key); first != nil {
			for first.next != nil {
				first = first.next
			}
			first.next = o
			continue
		}
		ch.enter(o)
		if o.packet != nil {
			bytes += o.packet.Bytes()
		} else {
			bytes += len(o.frame)
		}
		batch = append(batch, o)
	}
	switch {
	case ch.head == len(ch.queue):
		ch.queue, ch.head = ch.queue[:0], 0
	case ch.head > 1024 && ch.head > len(ch.queue)/2:
		n := copy(ch.queue, ch.queue[ch.head:])
		clear(ch.queue[n:])
		ch.queue, ch.head = ch.queue[:n], 0
	}
	ch.asleep = len(batch) == 0 && ch.head == len(ch.queue)
	return batch, 0
}

// enter puts o, which is about to be written, into the table. The lock is held.
func (ch *channel) enter(o *op) {
	ch.serial++
	o.serial, o.sent, o.pending, o.writing = ch.serial, 0, true, true
	ch.table.put(o)
	if o.packet != nil {
		ch.owed++
	}
}

// written says that the bytes of batch are no longer needed by the writer.
func (ch *channel) written(batch []*op) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for i, o := range batch {
		o.writing = false
		ch.drop(o)
		batch[i] = nil
	}
}

// end decides the outcome of o. The lock is held.
func (ch *channel) end(o *op, err error) outcome {
	r := o.outcome(err)
	o.over = true
	o.handler = nil
	ch.drop(o)
	return r
}

// drop gives back what nobody needs of an op that is over. The lock is held.
func (ch *channel) drop(o *op) {
	if !o.over || o.writing {
		return
	}
	if o.packet != nil {
		n := int64(o.packet.Bytes())
		o.packet.Release()
		o.packet = nil
		ch.c.budget.give(n)
	}
	if !o.pending && o.call == nil && len(ch.free) < maxFreeOps {
		ch.free = append(ch.free, o)
	}
}

// unchain takes o out of the table, and what waited behind it goes to the queue.
// The lock is held.
func (ch *channel) unchain(o *op) {
	ch.table.remove(o)
	o.pending = false
	if o.key.op == wire.OpAdd {
		ch.owed--
	}
	if next := o.next; next != nil {
		o.next = nil
		ch.requeue(next)
	}
}

// requeue puts o and those chained behind it back. The lock is held.
func (ch *channel) requeue(o *op) {
	for o != nil {
		next := o.next
		o.next = nil
		ch.queue = append(ch.queue, o)
		o = next
	}
	ch.rouse()
}

// rouse wakes the writer if it waits. The lock is held.
func (ch *channel) rouse() {
	if ch.asleep || ch.gathers {
		ch.asleep, ch.gathers = false, false
		ch.poke()
	}
}

// cancelRead ends a read from outside of the client's goroutines.
func (ch *channel) cancelRead(o *op) {
	ch.mu.Lock()
	if o.over {
		ch.mu.Unlock()
		return
	}
	// Still under the lock, so that Close, which takes it, makes the last calls.
	ch.c.clock.report(ch.end(o, ch.c.refuse(ErrCanceled)))
	ch.mu.Unlock()
}

// stallLooks is how often in StallAfter a stall is told while it lasts.
const stallLooks = 5

// expire ends what is past its deadline, closes a connection that owes an answer
// for too long, and returns when to look again and whether adds are stalled.
func (ch *channel) expire(now time.Duration, outcomes []outcome) (next time.Duration, stalled bool, _ []outcome) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if now < ch.earliest {
		return ch.earliest, false, outcomes
	}
	earliest, oldest := never, never // deadline, start of an add
	var err error
	check := func(o *op) {
		switch {
		case o.over:
		case o.deadline > now:
			earliest = min(earliest, o.deadline)
			if o.packet != nil {
				oldest = min(oldest, o.started)
			}
		default:
			if err == nil {
				err = ch.c.refuse(ErrTimeout)
			}
			outcomes = append(outcomes, ch.end(o, err))
		}
	}
	keep := ch.queue[:ch.head]
	for _, o := range ch.queue[ch.head:] {
		if check(o); !o.over {
			keep = append(keep, o)
		}
	}
	clear(ch.queue[len(keep):])
	ch.queue = keep
	for o := range ch.table.all {
		check(o)
		if o.over {
			// Its key stays taken until it is answered.
			if o.patience <= now {
				ch.hangUp(fmt.Errorf("%w for %v", ErrTimeout, now-o.started))
			} else {
				earliest = min(earliest, o.patience)
			}
		}
		for last := o; last.next != nil; {
			next := last.next
			if check(next); next.over {
				last.next, next.next = next.next, nil
				continue
			}
			last = next
		}
	}
	if oldest != never && ch.c.cfg.Stalled != nil {
		after := ch.c.cfg.StallAfter
		if silent := now - max(oldest, ch.heardAt); silent < after {
			earliest = min(earliest, now+after-silent)
		} else {
			stalled = true
			earliest = min(earliest, now+after/stallLooks)
		}
	}
	ch.earliest = earliest
	return earliest, stalled, outcomes
}

// hangUp makes both goroutines of the connection see that it is over, for this
// reason. The lock is held.
func (ch *channel) hangUp(reason error) {
	if ch.conn != nil && ch.reason == nil {
		ch.reason = reason
		hangUp(ch.conn)
	}
}

// close refuses requests from now on. run ends those under way.
func (ch *channel) close() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.closed = true
	ch.hangUp(ErrClosed)
}

// attach makes conn the connection, unless the channel was closed meanwhile.
func (ch *channel) attach(conn net.Conn) bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.closed {
		return false
	}
	ch.conn, ch.direct, ch.answered, ch.reason = conn, newDirect(conn), false, nil
	return true
}

// detach ends the requests of a connection that is over. A connection that broke
// before any answer told nothing about them (a bookie that restarts accepts and
// resets connections before it serves), and they may be repeated as they are: if
// there is time, they go back to the queue. A batch read is not repeated: it may be
// what an old bookie broke the connection for, which says nothing of its health.
func (ch *channel) detach(cause error) {
	now := ch.c.now()
	ch.mu.Lock()
	answered, owed, batch := ch.answered, ch.table.count > 0, false
	for o := range ch.table.all {
		batch = batch || o.key.op == wire.OpBatchRead
	}
	ch.conn, ch.direct = nil, nil
	ch.mu.Unlock()
	// Who writes by itself sees that the connection is closed, and may have a reason.
	ch.writing.Lock()
	ch.mu.Lock()
	if ch.left != nil {
		ch.left.writing = false
		ch.drop(ch.left)
		ch.left = nil
	}
	if ch.reason != nil {
		cause = ch.reason
	}
	ch.mu.Unlock()
	ch.writing.Unlock()
	patient := false
	switch {
	case answered || !owed:
		ch.c.health.lost(now)
	case batch:
		patient = true
	default:
		ch.c.health.mute(now)
		_, _, patient = ch.c.health.wait(now, ch.c.cfg.ConnectGrace)
	}
	err := fmt.Errorf("bookie %s: %w: %w", ch.c.id, ErrBroken, cause)
	var outcomes []outcome

	ch.mu.Lock()
	if ch.closed {
		patient, err = false, ch.c.refuse(ErrClosed)
	}
	sent := make([]*op, 0, ch.table.count)
	for o := range ch.table.all {
		sent = append(sent, o)
	}
	slices.SortFunc(sent, func(a, b *op) int { return cmp.Compare(a.serial, b.serial) })
	queued := slices.Clone(ch.queue[ch.head:])
	clear(ch.queue)
	ch.queue, ch.head = ch.queue[:0], 0
	for _, o := range sent {
		switch {
		case o.over:
			ch.unchain(o)
			ch.drop(o)
		case patient && o.tries < maxTries && o.key.op != wire.OpBatchRead:
			o.tries++
			behind := o.next
			o.next = nil
			ch.unchain(o)
			ch.requeue(o)
			ch.requeue(behind)
		default:
			ch.unchain(o)
			outcomes = append(outcomes, ch.end(o, err))
		}
	}
	ch.queue = append(ch.queue, queued...)
	ch.mu.Unlock()
	ch.c.report(outcomes, nil)
}

// failQueue ends what is queued.
func (ch *channel) failQueue(err error) {
	var outcomes []outcome
	ch.mu.Lock()
	for _, o := range ch.queue[ch.head:] {
		if !o.over {
			outcomes = append(outcomes, ch.end(o, err))
		}
	}
	clear(ch.queue)
	ch.queue, ch.head = ch.queue[:0], 0
	ch.mu.Unlock()
	ch.c.report(outcomes, nil)
}

// run is the channel's goroutine.
func (ch *channel) run() {
	for ch.rest() {
		conn, err := ch.c.dial()
		if err != nil {
			ch.c.health.dialFailed(ch.c.now(), err)
			continue
		}
		if !ch.attach(conn) {
			hangUp(conn)
			break
		}
		ch.detach(ch.serve(conn))
	}
	ch.failQueue(ch.c.refuse(ErrClosed))
}

// rest waits until there is something to send and it is time to dial. Meanwhile,
// once the outage is no longer young, requests fail. False: the client was closed.
func (ch *channel) rest() bool {
	for {
		if ch.c.ctx.Err() != nil {
			return false
		}
		wait, cause, patient := ch.c.health.wait(ch.c.now(), ch.c.cfg.ConnectGrace)
		if !patient && wait > 0 {
			if cause == nil {
				cause = errors.New("it closes connections without an answer")
			}
			ch.failQueue(fmt.Errorf("bookie %s: %w: %w", ch.c.id, ErrRefused, cause))
		}
		idle := ch.idle()
		if !idle && wait <= 0 {
			return true
		}
		var timer *time.Timer
		var due <-chan time.Time
		if !idle {
			timer = time.NewTimer(wait)
			due = timer.C
		}
		select {
		case <-ch.c.ctx.Done():
		case <-ch.wake:
		case <-due:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}
