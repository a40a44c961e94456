package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy/forward"
	"github.com/quirelog/quire/storage"
)

// A Fetch request of which some partitions are served elsewhere. Sessions live
// here, at the node that the client talks to; each other node is asked for its
// partitions as a full fetch without a session, and waits for their logs as this
// node does for its own. Once there is enough, or max_wait has passed, the nodes that
// have not answered are asked for what they have, and all of it is joined: records
// are sent on from where they arrived.
//
// A partition that nobody serves waits for somebody who does. If there is none until
// max_wait has passed, it is answered as one without news. Where a client reaches the
// nodes itself and understands it (v16 on), it is told who leads instead.

const (
	// fetchJoinTime is how long nodes may take to answer once nobody waits for
	// data any more. Their disks may be slow.
	fetchJoinTime = 5 * time.Second
	// leastFetchBytes is what a node may answer with at least, as far as the
	// request allows it at all.
	leastFetchBytes = 64 << 10
)

// fetchAway is what a request has to do with other nodes. It outlives the
// request: an answer that comes too late is dropped.
type fetchAway struct {
	mu      sync.Mutex
	s       *fetchRequest // nil once the request is over
	retry   bool          // what nobody serves is to be looked at again
	waiting routeWait

	// Of whoever owns the request.
	calls []*fetchCall
	lists bool // waiting is listed
	share int  // bytes of records that each node may give
	bytes int  // that calls have brought, as counted in Handlers.fetched
	joins bool // no call waits for data any more
}

// fetchCall is what one node is asked for.
type fetchCall struct {
	away  *fetchAway
	node  int32
	parts []*fetchPart
	waits bool // may wait for data
	named slotSet
	call  forward.Call

	// Under away.mu.
	arrived bool
	left    bool // nobody waits for it
	answer  forward.Answer

	taken bool // of whoever owns the request: answer was looked at
}

// topicsToFind are the topics that this node may only not have heard of yet.
func (s *fetchRequest) topicsToFind() (refs []topicRef) {
	for i := range s.parts {
		a := &s.parts[i].ask
		ref := topicRef{partitions: a.partition + 1}
		if s.version >= 13 {
			ref.id = a.id
		} else {
			ref.name = a.topic
		}
		if t := s.parts[i].topic; (t == nil || a.partition >= t.Partitions) && len(refs) < maxFound && !s.h.knows(ref) {
			ref.name = strings.Clone(ref.name) // it is remembered
			refs = append(refs, ref)
		}
	}
	return refs
}

// fetchRoute says where the partition of a request is to be read: here is false
// if it was given to fetchAway, or refused.
func (s *fetchRequest) fetchRoute(p *fetchPart) (here bool) {
	if !s.h.routes(s.r) || s.h.serves(coordinator.PartitionSlot(p.topic.ID, p.ask.partition)) {
		return true
	}
	s.lose(p)
	return false
}

// tells says that the client is told who leads a partition that is not served here.
func (s *fetchRequest) tells() bool { return s.h.tells(s.r, 16) }

// lose gives a partition that is not served here to whoever does.
func (s *fetchRequest) lose(p *fetchPart) {
	if p.log != nil {
		p.log.Unwait(&p.waiter)
		p.log = nil
	}
	s.h.heedAstray(s.r)
	if s.tells() {
		p.refused = storage.ErrLostOwnership
		return
	}
	if s.away == nil {
		s.away = &fetchAway{s: s, retry: true}
		s.away.waiting.wake = s.away.look
	}
	p.away, p.call, p.out = true, nil, protocol.FetchPartition{}
}

// lost says whether an error is that of a log that another node serves by now, and
// gives the partition away if it is.
func (s *fetchRequest) lost(p *fetchPart, err error) bool {
	if !errors.Is(err, storage.ErrLostOwnership) || s.q.ReplicaID >= 0 || !s.h.routes(s.r) {
		return false
	}
	if s.tells() {
		s.h.heedAstray(s.r)
		return false
	}
	s.lose(p)
	s.away.waitFor(s)
	return true
}

// proveEnd makes sure that this node serves a partition before its client is told what
// checkEpochs has found, that its log and this one part: a node that was cut off knows
// less of the log than the one that leads it by now, and the client would go back to where
// it has been. That an offset is beyond the end the log itself proves. Without a proof err
// becomes ErrLostOwnership. Where ctx is nil it does not wait for one: false, and a
// worker has to.
func (s *fetchRequest) proveEnd(ctx context.Context, p *fetchPart, err *error) bool {
	if !p.diverging.Known && !errors.Is(*err, storage.ErrOffsetOutOfRange) {
		return true
	}
	wait := ctx
	if wait == nil {
		wait = s.h.noTime
	}
	unproved := s.h.prove(wait, coordinator.PartitionSlot(p.topic.ID, p.ask.partition))
	if unproved != nil && ctx != nil {
		p.diverging = protocol.EpochEnd{}
		*err = fmt.Errorf("%w: %w", storage.ErrLostOwnership, unproved)
	}
	return unproved == nil || ctx != nil
}

// look has what nobody served looked at again. Any goroutine.
func (a *fetchAway) look() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.retry = true
	if a.s != nil {
		a.s.wakeUp()
	}
}

// routeAway finds out who serves the partitions that nobody was asked for yet, and
// asks. Loop, or the worker that has the request.
func (s *fetchRequest) routeAway() {
	a := s.away
	if a == nil {
		return
	}
	s.takeAnswers()
	a.mu.Lock()
	retry := a.retry
	a.retry = false
	a.mu.Unlock()
	if retry && !a.joins {
		s.h.waits.remove(&a.waiting)
		a.lists = false
		a.waiting.changed = s.h.router.RoutesChanged()
		s.ask()
	}
	for i := range s.parts {
		if s.parts[i].nowhere() {
			a.waitFor(s)
			break
		}
	}
}

// ask sends calls for the partitions that are nowhere, to who serves them.
func (s *fetchRequest) ask() {
	a := s.away
	var calls []*fetchCall
	for i := range s.parts {
		p := &s.parts[i]
		if !p.nowhere() {
			continue
		}
		slot := coordinator.PartitionSlot(p.topic.ID, p.ask.partition)
		to := s.h.route(slot)
		if to.here {
			// The worker comes back with its log, and the request waits for that too.
			p.away, s.unopened = false, true
			continue
		}
		if to.node < 0 {
			continue
		}
		at := slices.IndexFunc(calls, func(c *fetchCall) bool { return c.node == to.node })
		if at < 0 {
			at = len(calls)
			calls = append(calls, &fetchCall{away: a, node: to.node})
		}
		c := calls[at]
		c.parts = append(c.parts, p)
		p.call = c
		if c.named.add(slot) {
			c.call.Slots = append(c.call.Slots, forward.SlotEpoch{Slot: uint16(slot), Epoch: to.epoch})
		}
	}
	if len(calls) == 0 {
		return
	}
	a.calls = append(a.calls, calls...)
	a.share = s.share()
	for _, c := range calls {
		s.send(c, a.share)
	}
}

// maxHere is what this node's partitions may give.
func (s *fetchRequest) maxHere() int {
	if s.away == nil || s.away.share == 0 {
		return s.maxBytes
	}
	return s.away.share
}

// share is what each of the nodes that have to do with a request may answer with.
func (s *fetchRequest) share() int {
	nodes := len(s.away.calls)
	for i := range s.parts {
		if p := &s.parts[i]; !p.away && p.refused == nil {
			nodes++
			break
		}
	}
	share := max(s.maxBytes/max(nodes, 1), leastFetchBytes)
	return min(share, s.maxBytes, max(s.h.fetchRoom(), leastFetchBytes))
}

func (s *fetchRequest) send(c *fetchCall, share int) {
	wait := max(time.Until(s.deadline), 0)
	if s.maxWait <= 0 {
		wait = 0
	}
	c.waits = wait > 0
	q := protocol.FetchRequest{
		MaxWaitMillis: int32(wait / time.Millisecond), MinBytes: int32(min(s.minBytes, share)), MaxBytes: int32(share),
		IsolationLevel: s.q.IsolationLevel, RackID: s.q.RackID,
	}
	asks := make([]protocol.FetchAsk, len(c.parts))
	for i, p := range c.parts {
		asks[i] = protocol.FetchAsk{Topic: p.ask.topic, ID: p.ask.id, FetchRequestPartition: protocol.FetchRequestPartition{
			Partition: p.ask.partition, CurrentLeaderEpoch: p.ask.currentEpoch, FetchOffset: p.ask.offset,
			LastFetchedEpoch: p.ask.lastFetchedEpoch, LogStartOffset: -1, MaxBytes: p.ask.maxBytes,
		}}
	}
	header := s.r.Message[:len(s.r.Message)-len(s.r.Body)]
	message := make([]byte, 0, len(header)+64+40*len(asks))
	message = protocol.AppendFetchRequest(append(message, header...), s.version, &q, asks)
	c.call.Message = [][]byte{message}
	c.call.Done = c.done
	// A stream of its own: a call for a partition that a node has come to serve does not
	// wait there behind the one that waits for data of others.
	s.h.call(&c.call, s.r, c.call.Slots, newStream(), wait+2*fetchJoinTime)
	s.h.c.Peers.Send(c.node, &c.call)
}

// done takes what became of the call. Any goroutine.
func (c *fetchCall) done(_ *forward.Call, a forward.Answer) {
	c.away.mu.Lock()
	defer c.away.mu.Unlock()
	s := c.away.s
	if s == nil || c.left {
		letGo(&a)
		return
	}
	c.arrived, c.answer = true, a
	s.wakeUp()
}

// takeAnswers looks at the answers that have arrived.
func (s *fetchRequest) takeAnswers() {
	a := s.away
	for _, c := range a.calls {
		a.mu.Lock()
		arrived := c.arrived
		a.mu.Unlock()
		if arrived && !c.taken {
			c.taken = true
			s.take(c)
		}
	}
}

// take hands an answer's partitions to the request's. What was not answered is
// nowhere again.
func (s *fetchRequest) take(c *fetchCall) {
	k := 0
	var resp protocol.FetchResponse
	if c.answer.Status == forward.Answered && resp.Parse(c.answer.Message, s.version) == nil && resp.Code == protocol.None {
		for resp.NextTopic() {
			for resp.NextPartition() && k < len(c.parts) && resp.Part.Partition == c.parts[k].ask.partition {
				c.parts[k].takeAway(&resp.Part)
				k++
			}
		}
		if resp.Err() != nil {
			k = 0
		}
	}
	again := false
	for i, p := range c.parts {
		if i >= k || p.out.Code == protocol.NotLeaderOrFollower {
			p.call, p.out = nil, protocol.FetchPartition{}
			again = true
		}
	}
	if again {
		// Not at once: who refuses now does so for a while.
		s.away.waitFor(s)
	}
	n := len(c.answer.Message)
	s.away.bytes += n
	s.h.fetched.Add(int64(n))
}

// waitFor lets what is nowhere wait until routes have changed, or for a while.
func (a *fetchAway) waitFor(s *fetchRequest) {
	if a.lists || a.joins {
		return
	}
	a.lists = true
	if a.waiting.changed == nil {
		a.waiting.changed = s.h.router.RoutesChanged()
	}
	a.waiting.deadline = s.deadline.Add(fetchJoinTime) // when the request is over
	s.h.waits.add(&a.waiting)
}

// takeAway notes a partition's part of another node's answer.
func (p *fetchPart) takeAway(out *protocol.FetchPartition) {
	p.out = *out
	p.out.Aborted = slices.Clone(out.Aborted)
	p.out.Records = slices.Clone(out.Records)
	p.out.Snapshot = protocol.EpochEnd{}
}

// nowhere says that nobody is asked for the partition at the moment.
func (p *fetchPart) nowhere() bool { return p.away && p.call == nil }

// answered says that another node has answered for the partition.
func (p *fetchPart) answered() bool { return p.away && p.call != nil && p.call.taken }

// awayBytes is how many bytes of records other nodes have answered with; now says
// that one of them had an error to tell, or that all there is to wait for has come.
func (s *fetchRequest) awayBytes() (bytes int, now bool) {
	waits := false
	for i := range s.parts {
		p := &s.parts[i]
		switch {
		case p.answered():
			for _, r := range p.out.Records {
				bytes += len(r)
			}
			now = now || p.out.Code != protocol.None || p.out.Diverging.Known
		default:
			waits = true
		}
	}
	return bytes, now || !waits
}

// joining says whether answers of other nodes are still to come, and has them come.
// It is asked once the request waits for nothing else.
func (s *fetchRequest) joining() bool {
	a := s.away
	if a == nil {
		return false
	}
	pending := false
	for _, c := range a.calls {
		if c.taken || c.left {
			continue
		}
		pending = true
		if !a.joins && c.waits {
			s.h.c.Peers.Cancel(&c.call)
		}
	}
	if pending && !a.joins {
		a.joins = true
		if s.phase.Load() == fetchParked {
			s.timer.Stop()
			s.timer = s.r.After(fetchJoinTime, s.leaveFunc)
		}
	}
	return pending
}

// leave answers without the nodes that do not. Loop only.
func (s *fetchRequest) leave() {
	if s.phase.Load() != fetchParked {
		return
	}
	s.takeAnswers()
	s.away.leaveCalls()
	s.expire()
}

// leaveCalls waits for no call any more.
func (a *fetchAway) leaveCalls() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.calls {
		if !c.arrived {
			c.left = true
			for _, p := range c.parts {
				p.call = nil
			}
		}
	}
}

// endAway ends what the request has to do with other nodes: nothing of them touches
// it any more. What they have answered is kept.
func (s *fetchRequest) endAway() {
	a := s.away
	if a == nil {
		return
	}
	a.mu.Lock()
	a.s = nil
	a.mu.Unlock()
	s.h.waits.remove(&a.waiting)
	for _, c := range a.calls {
		if !c.arrived {
			s.h.c.Peers.Cancel(&c.call)
		}
	}
}

// dropAway lets go of what other nodes have answered.
func (s *fetchRequest) dropAway() {
	a := s.away
	if a == nil {
		return
	}
	s.endAway()
	for _, c := range a.calls {
		if c.arrived {
			letGo(&c.answer)
		}
	}
	s.h.fetched.Add(-int64(a.bytes))
	s.away = nil
	for i := range s.parts {
		p := &s.parts[i]
		p.away, p.call, p.out = false, nil, protocol.FetchPartition{}
	}
}

// awayOutcome is the part of a partition that is not served here. told is false if
// there is nothing to tell, as nobody serves it.
func (s *fetchRequest) awayOutcome(p *fetchPart) (out protocol.FetchPartition, told bool) {
	if !p.answered() {
		return protocol.FetchPartition{
			Partition: p.ask.partition, HighWatermark: -1, LastStableOffset: -1, LogStartOffset: -1, PreferredReadReplica: -1,
		}, false
	}
	return p.out, true
}
