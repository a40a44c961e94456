package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/storage"
)

// A Produce request whose partitions are not all served here. If one other node
// serves all of it, it goes there as it came and the answer comes back as it is. Else
// it is taken apart: what is served here is appended here, each other node gets one
// request with its partitions, whose records are slices of the client's frame, and the
// answers are joined in the order of the request.
//
// Where a client reaches the nodes itself and understands it (v10 on), it is told who
// leads instead.

const (
	keyProduce = 0

	// codeNotServed is what a node answers, to another node only, for partitions
	// of a request of which it has appended others: nothing of these was or will be appended.
	codeNotServed protocol.Code = 32000

	// forwardGrace is how much longer than its own timeout a request may take
	// on its way to another node and back.
	forwardGrace = time.Second
)

// notServed says that the partition was not appended since this node does not
// serve it after all. It was not looked at by anybody else yet.
func (p *producePart) notServed() bool {
	if p.refused != nil {
		return errors.Is(p.refused, storage.ErrLostOwnership)
	}
	return p.append.Refused && errors.Is(p.append.Err, storage.ErrLostOwnership)
}

// lateLost finds the parts that had their place in a log, but waited for a ledger when
// the log's slot was lost: nothing of them was stored or will be. All are decided. Of
// several batches for one partition the first says what became of all, as those behind a
// batch that is not stored are not either.
func (s *produceRequest) lateLost() bool {
	found := false
	for i := range s.parts {
		p := &s.parts[i]
		if p.lost || p.refused != nil || !errors.Is(p.append.Err, storage.ErrLostOwnership) || errors.Is(p.append.Err, storage.ErrUnknownOutcome) {
			continue
		}
		if p.append.Batch != nil {
			p.append.Batch.Stamp(0, -1) // as its producer has sent it
		}
		p.lost, found = true, true
		s.lost++
	}
	return found
}

// refusedByState says whether p was refused for what the log remembers of its producer,
// which is a reason for the producer to give up.
func (p *producePart) refusedByState() bool {
	if p.refused != nil || p.lost {
		return false
	}
	err := p.failure()
	return errors.Is(err, storage.ErrOutOfSequence) || errors.Is(err, storage.ErrUnknownProducer) || errors.Is(err, storage.ErrProducerEpoch)
}

func (s *produceRequest) doubtful() bool {
	for i := range s.parts {
		if s.parts[i].refusedByState() {
			return true
		}
	}
	return false
}

// prove makes sure of refusals that come from what a log remembers: a node that lost
// the log and has not heard of it remembers too little. It runs on a worker.
func (s *produceRequest) prove() {
	ctx, cancel := s.h.timeoutMillis(int32(s.timeout / time.Millisecond))
	defer cancel()
	for i := range s.parts {
		p := &s.parts[i]
		if !p.refusedByState() {
			continue
		}
		if err := s.h.c.Coordinator.Prove(ctx, coordinator.PartitionSlot(p.topic.ID, p.partition)); err != nil {
			p.append.Err = fmt.Errorf("partition %d: %w: %w", p.partition, storage.ErrLostOwnership, err)
		}
	}
	s.answer()
}

// giveBack finds somebody else for the parts that this node turned out not to serve:
// when they were handed to their logs, and again for others when these have failed. What
// was given back before may have been answered since. True: that was the whole request, s
// is gone.
func (s *produceRequest) giveBack() bool {
	if s.r.Origin != nil {
		s.state.refusals.add(s.r.Origin.Stream)
		for i := range s.parts {
			if p := &s.parts[i]; !p.lost && p.refused == nil && !p.append.Refused && p.append.Batch != nil {
				return false // something was appended, or may yet be
			}
		}
		r := s.r
		s.recycle()
		r.Refuse()
		return true
	}
	l := &s.state.line
	l.mu.Lock()
	defer l.mu.Unlock()
	s.h.heedAstray(s.r)
	p := s.owner
	if p == nil {
		p = s.h.newRoutedProduce(s.r, s.state, s.seq)
		p.unpackLocked(partHere)
		s.owner = p
	}
	late := p.late()
	for i := range s.parts {
		switch q := &s.parts[i]; {
		case !q.lost || q.back:
		case late:
			q.lost = false // and told as NOT_LEADER_OR_FOLLOWER
		default:
			q.back = true
			p.parts[q.index].state = partWaits
		}
	}
	if late {
		return false
	}
	l.joinLocked(p)
	l.restLocked(s.h)
	return false
}

// topicsToFind are the topics that this node may only not have heard of yet.
func (s *produceRequest) topicsToFind() (refs []topicRef) {
	walk := s.cursor
	for walk.NextTopic() {
		ref := topicRef{id: walk.TopicID, name: walk.Topic}
		for walk.NextPartition() {
			ref.partitions = max(ref.partitions, walk.Partition+1)
		}
		if len(refs) < maxFound && !s.h.knows(ref) {
			ref.name = strings.Clone(ref.name) // it is remembered
			refs = append(refs, ref)
		}
	}
	return refs
}

// routeProduce takes over a request unless all of it is served here. It is called
// while the connection's next request is not handled yet.
func (h *Handlers) routeProduce(s *produceRequest) bool {
	if s.acks < -1 || s.acks > 1 {
		return false
	}
	l := &s.state.line
	slots := l.scratch[:0]
	here, blocked, several := true, false, false
	node := int32(-1)
	l.mu.Lock()
	l.seq++
	s.seq = l.seq
	walk := s.cursor
	for walk.NextTopic() {
		t := h.producedTopic(&walk, s.version)
		for walk.NextPartition() {
			if t == nil || walk.Partition < 0 || walk.Partition >= t.Partitions {
				continue
			}
			slot := coordinator.PartitionSlot(t.ID, walk.Partition)
			route := h.route(slot)
			to := route.node
			if route.here {
				to = h.self
			}
			several = several || len(slots) > 0 && to != node
			node, here = to, here && route.here
			blocked = blocked || l.blockedLocked(slot, to)
			slots = append(slots, slot)
		}
	}
	l.scratch = slots
	idle := l.idleLocked() && !blocked
	if here && idle {
		l.mu.Unlock()
		return false
	}
	if !here {
		h.heedAstray(s.r)
	}
	p := h.newRoutedProduce(s.r, s.state, s.seq)
	if idle && !several && node >= 0 && !p.tells {
		slices.Sort(slots)
		c := &produceCall{p: p, node: node, slots: slices.Clone(slices.Compact(slots)), whole: true}
		c.message[0] = s.r.Message
		c.call.Message = c.message[:]
		done := c.sendLocked()
		l.mu.Unlock()
		done.run()
		return true
	}
	p.unpackLocked(partWaits)
	l.joinLocked(p)
	l.mu.Unlock()
	l.pump(h)
	return true
}

// producedTopic returns the topic at which a cursor stands, nil if there is none.
func (h *Handlers) producedTopic(p *protocol.ProduceRequest, version int16) *coordinator.Topic {
	if version >= 13 {
		return h.c.Coordinator.TopicByID(p.TopicID)
	}
	return h.c.Coordinator.Topic(p.Topic)
}

// routedProduce is a request that is not, or not only, appended here. Its fields are
// guarded by the line's mu but for those that never change.
type routedProduce struct {
	h        *Handlers
	r        *proxy.Request
	state    *connState
	line     *line // state's
	seq      uint64
	deadline time.Time // for finding somebody who serves it
	tells    bool      // who leads is told, not asked
	cursor   protocol.ProduceRequest

	queued  bool
	topics  []produceTopic // with parts, empty until it is unpacked
	parts   []routedPart
	left    int // parts that are not answered
	nodes   []protocol.Node
	dropped error // why a node wants the connection closed
}

// routedPart is one partition of it.
type routedPart struct {
	topic     *coordinator.Topic // nil: unknown
	of        int                // which of the request's topics
	partition int32
	slot      int // -1: of a partition that does not exist; whoever comes first tells
	records   []byte
	state     partState
	out       protocol.ProducePartition
}

type partState uint8

const (
	partWaits partState = iota // to be sent
	partHere                   // being appended here
	partAway                   // with another node
	partDone                   // out is its answer
)

// newRoutedProduce makes a routed request of r.
func (h *Handlers) newRoutedProduce(r *proxy.Request, state *connState, seq uint64) *routedProduce {
	p := &routedProduce{h: h, r: r, state: state, line: &state.line, seq: seq}
	if err := p.cursor.Parse(r.Body, r.Version); err != nil {
		panic("api: a Produce request that was read is malformed: " + err.Error())
	}
	p.deadline = r.Received.Add(min(p.timeout(), maxRouteWait))
	p.tells = h.tells(r, 10)
	return p
}

// late says that there is no more time to find somebody who serves it.
func (p *routedProduce) late() bool { return !time.Now().Before(p.deadline) }

// timeout is the request's own.
func (p *routedProduce) timeout() time.Duration {
	if ms := p.cursor.TimeoutMillis; ms > 0 {
		return min(time.Duration(ms)*time.Millisecond, maxTimeout)
	}
	return defaultTimeout
}

// unpackLocked lists the partitions.
func (p *routedProduce) unpackLocked(state partState) {
	if p.parts != nil {
		return
	}
	walk := p.cursor
	p.parts = make([]routedPart, 0, walk.Partitions)
	for walk.NextTopic() {
		p.topics = append(p.topics, produceTopic{walk.Topic, walk.TopicID, walk.TopicPartitions})
		t := p.h.producedTopic(&walk, p.r.Version)
		for walk.NextPartition() {
			part := routedPart{topic: t, of: len(p.topics) - 1, partition: walk.Partition, slot: -1, records: walk.Records, state: state}
			if t != nil && part.partition >= 0 && part.partition < t.Partitions {
				part.slot = coordinator.PartitionSlot(t.ID, part.partition)
			}
			p.parts = append(p.parts, part)
		}
	}
	p.left = len(p.parts)
}

// names says whether an answer is about a part.
func (p *routedProduce) names(i int32, resp *protocol.ProduceResponse) bool {
	t := &p.topics[p.parts[i].of]
	if p.r.Version >= 13 {
		if resp.TopicID != t.id {
			return false
		}
	} else if resp.Topic != t.name {
		return false
	}
	return resp.Part.Partition == p.parts[i].partition
}

// answerLocked notes the answer to a part.
func (p *routedProduce) answerLocked(i int32, out protocol.ProducePartition) {
	part := &p.parts[i]
	part.state = partDone
	part.out = out
	part.out.Partition = part.partition
	if part.topic != nil {
		p.line.heedLocked(part.topic.ID, p.r.Received, &part.out)
	}
	p.left--
}

// refuseLocked answers a part with an error.
func (p *routedProduce) refuseLocked(i int32, err error) {
	p.answerLocked(i, protocol.ProducePartition{
		Code: dataErrors.code(err), Message: err.Error(), BaseOffset: -1, LogAppendTime: -1, LogStartOffset: -1,
	})
}

// advanceLocked sends on what can be of the request, which is the head of the queue. It
// says whether the queue goes on. It lets go of the lock meanwhile.
func (p *routedProduce) advanceLocked() (next bool) {
	l, h := p.line, p.h
	late := p.late()
	l.waiting.changed = h.router.RoutesChanged()
	var here []int32
	var calls []*produceCall
	var nobody, blocked bool
	for i := range p.parts {
		part := &p.parts[i]
		if part.state != partWaits {
			continue
		}
		to := route{node: h.self, here: true}
		if part.slot >= 0 {
			to = h.route(part.slot)
		}
		switch {
		case part.slot >= 0 && l.blockedLocked(part.slot, to.node):
			blocked = true
		case to.here:
			part.state = partHere
			here = append(here, int32(i))
		case to.node < 0 && !late:
			nobody = true
		case to.node < 0:
			p.refuseLocked(int32(i), errNotServed)
		case p.tells:
			p.refuseLocked(int32(i), errNotServed)
			part.out.Leader = h.leaderHint(p.r.Listener(), part.topic, part.partition)
			p.nodes = h.addNode(p.nodes, part.out.Leader.NodeID, p.r.Listener())
		default:
			part.state = partAway
			calls = p.addTo(calls, to.node, int32(i))
		}
	}
	if !nobody && !blocked {
		l.leaveLocked(p)
	}
	if len(here)+len(calls) > 0 {
		l.waiting.attempts = 0
	}
	var done finished
	for _, c := range calls {
		c.call.Message = c.encode()
		done.add(c.sendLocked())
	}
	if p.left == 0 && len(calls) == 0 { // else the last call back has answered it
		done.add(finished{p})
	}
	if nobody {
		l.restLocked(h)
	}
	if len(here) > 0 {
		l.working++
	}
	l.mu.Unlock()
	done.run()
	if len(here) > 0 {
		p.appendHere(here)
	}
	l.mu.Lock()
	return !nobody && !blocked
}

// addTo adds a part to the call to a node.
func (p *routedProduce) addTo(calls []*produceCall, node int32, i int32) []*produceCall {
	slot := p.parts[i].slot
	for _, c := range calls {
		if c.node == node {
			c.add(i, slot)
			return calls
		}
	}
	c := &produceCall{p: p, node: node}
	c.add(i, slot)
	return append(calls, c)
}

// appendHere appends some partitions here.
func (p *routedProduce) appendHere(parts []int32) {
	s := p.h.produces.Get().(*produceRequest)
	s.cursor = p.cursor
	s.r, s.frame = p.r, p.r.Frame
	s.version, s.correlation, s.received = p.r.Version, p.r.CorrelationID, p.r.Received
	s.acks = s.cursor.Acks
	s.timeout = time.Duration(s.cursor.TimeoutMillis) * time.Millisecond
	s.owner, s.only, s.state, s.seq = p, parts, p.state, p.seq
	s.begin()
}

// handed says that the partitions of appendHere are with their logs.
func (p *routedProduce) handed() {
	p.line.mu.Lock()
	p.line.working--
	p.line.mu.Unlock()
	p.line.pump(p.h)
}

// appended takes the answers of partitions that were appended here; undecided is the
// code of those that were not decided in time.
func (p *routedProduce) appended(s *produceRequest, undecided protocol.Code) {
	l := p.line
	l.mu.Lock()
	for i := range s.parts {
		if part := &s.parts[i]; !part.lost {
			p.answerLocked(part.index, s.outcome(part, undecided))
		}
	}
	p.nodes = append(p.nodes, s.nodes...)
	done := p.left == 0
	l.mu.Unlock()
	if done {
		p.respond()
	}
}

// finished are requests of which every part is answered, to be run without the lock.
type finished []*routedProduce

func (f *finished) add(more finished) { *f = append(*f, more...) }

func (f finished) run() {
	for _, p := range f {
		p.respond()
	}
}

// respond answers. It is called once, when nothing is left.
func (p *routedProduce) respond() {
	r := p.r
	if p.dropped != nil {
		r.Drop(p.dropped)
		return
	}
	if p.cursor.Acks == 0 {
		for i := range p.parts {
			if out := &p.parts[i].out; out.Code != protocol.None {
				r.Drop(fmt.Errorf("produce with acks=0 to partition %d failed: %s: %s", out.Partition, out.Code.Name(), out.Message))
				return
			}
		}
		r.NoResponse()
		return
	}
	dst := protocol.AppendResponseHeader(make([]byte, 0, 128+64*len(p.parts)), r.CorrelationID, protocol.FlexibleResponse(0, r.Version))
	var e protocol.ProduceEncoder
	e.Begin(dst, r.Version, len(p.topics))
	parts := p.parts
	for i := range p.topics {
		t := &p.topics[i]
		e.Topic(t.name, t.id, t.partitions)
		for j := range parts[:t.partitions] {
			e.Partition(&parts[j].out)
		}
		parts = parts[t.partitions:]
	}
	slices.SortFunc(p.nodes, func(a, b protocol.Node) int { return int(a.ID) - int(b.ID) })
	p.nodes = slices.CompactFunc(p.nodes, func(a, b protocol.Node) bool { return a.ID == b.ID })
	r.Respond(proxy.Response{Parts: [][]byte{e.End(0, p.nodes)}})
}
