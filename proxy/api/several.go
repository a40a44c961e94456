package api

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/proxy/forward"
)

// shared makes a row's handler of two. here answers with what this node serves.
// several has all nodes answer that serve some of what is asked; it is for clients that
// were given one address for everything, and runs on the loop once the request
// is decoded and its topics are known.
func shared[Q kmsg.Request](here func(*Handlers, *proxy.Request), several func(*Handlers, *proxy.Request, Q)) func(*Handlers, *proxy.Request) {
	return func(h *Handlers, r *proxy.Request) {
		if !h.spreads(r) {
			here(h, r)
			return
		}
		q := kmsg.RequestForKey(r.Key).(Q)
		if len(r.Body) <= inlineBytes {
			if !h.decode(r, q) {
				return
			}
			if len(h.topicsToFind(q)) == 0 {
				several(h, r, q)
				return
			}
		}
		t := &tied{r: r}
		reads, closed := true, false // the worker has r; the connection is gone. With t.mu
		r.OnClose(func() {
			t.mu.Lock()
			closed = reads
			t.mu.Unlock()
			if !closed && t.end() {
				r.NoResponse()
			}
		})
		r.GoSlow(func() {
			err := h.parse(r, q)
			if err == nil {
				h.findTopics(h.topicsToFind(q))
			}
			t.mu.Lock()
			reads = false
			gone := closed
			t.mu.Unlock()
			if gone {
				r.NoResponse()
				return
			}
			t.post(func() {
				if !t.end() {
					return
				}
				r.OnClose(nil)
				if err != nil {
					r.Drop(err)
					return
				}
				several(h, r, q)
			})
		})
	}
}

// spreads says whether a request of several items is to be answered by all nodes
// that serve some of them. Clients that know nodes ask each of them themselves; it is
// only records that they may not know how to delete at another node than the
// one which they have asked first.
func (h *Handlers) spreads(r *proxy.Request) bool {
	return h.routes(r) && !protocol.NamesGroup(r.Key, r.Version) && (h.proxied(r.Listener()) || r.Key == keyDeleteRecords)
}

const keyDeleteRecords = 21

// partTimeout is how long a node may take to answer its part of a request that
// has no timeout of its own.
const partTimeout = 10 * time.Second

// answers is what a node says of some items of a request, and where it belongs.
type answers struct {
	n int // items that it is about
	// put notes the k-th, which is about item i of the request, and returns its code.
	put func(k, i int) int16
}

// take notes answers about items, and returns those that are none since another
// node serves the item, or will in a moment. Any goroutine, as far as put is.
func (a answers) take(items []int) (again []int) {
	if a.n != len(items) {
		return items // that is no answer to what was asked
	}
	for k, i := range items {
		switch protocol.Code(a.put(k, i)) {
		case protocol.NotLeaderOrFollower, protocol.NotCoordinator, protocol.CoordinatorLoadInProgress:
			again = append(again, i)
		}
	}
	return again
}

// several says how a request of several items is answered, beside what splitting says.
type several struct {
	slots []int // by item
	reads bool
	wait  time.Duration
	// part makes a request for some of the items.
	part func(items []int) kmsg.Request
	// here has this node answer such a request.
	here func(q kmsg.Request, reply func(kmsg.Response))
	// answers finds the items of part in the response.
	answers func(resp kmsg.Response) answers
	// refuse notes a code for an item.
	refuse func(item int, why error)
	// whole is the response that all of that is noted in.
	whole kmsg.Response
}

// answerSeveral has each item of r answered by who serves it, and answers r. Loop only.
func (h *Handlers) answerSeveral(r *proxy.Request, s several) {
	if len(s.slots) == 0 {
		h.respond(r, s.whole)
		return
	}
	if s.wait == 0 {
		s.wait = maxRouteWait
	}
	h.split(r, splitting{
		slots: s.slots, wait: s.wait, timeout: max(min(s.wait, maxRouteWait), partTimeout), reads: s.reads,
		here: func(items []int, done func(again []int)) {
			q := s.part(items)
			q.SetVersion(r.Version)
			s.here(q, func(resp kmsg.Response) { done(s.answers(resp).take(items)) })
		},
		part: s.part,
		take: func(items []int, resp kmsg.Response) []int { return s.answers(resp).take(items) },
		refuse: func(items []int, why error) {
			for _, i := range items {
				s.refuse(i, why)
			}
		},
		respond: func() { h.respond(r, s.whole) },
	})
}

// groupSlots are the slots of groups.
func groupSlots[T any](groups []T, id func(*T) string) []int {
	slots := make([]int, len(groups))
	for i := range groups {
		slots[i] = coordinator.SlotOf(id(&groups[i]))
	}
	return slots
}

// chosen are some elements of all.
func chosen[T any](all []T, items []int) []T {
	out := make([]T, len(items))
	for k, i := range items {
		out[k] = all[i]
	}
	return out
}

func itself(id *string) string { return *id }

// partitionAt is one partition that a request names: where its topic stands
// there, and where it stands within the topic.
type partitionAt struct{ topic, partition int }

// partitionSlot is the slot of a partition by its topic's name. What does not
// exist has some slot too: any node can say so, but only one is asked.
func (h *Handlers) partitionSlot(topic string, partition int32) int {
	var id [16]byte
	if t := h.c.Coordinator.Topic(topic); t != nil {
		id = t.ID
	}
	return coordinator.PartitionSlot(id, partition)
}

// byTopic calls add for some of the partitions of a request, with begin before the first of
// each topic.
func byTopic(at []partitionAt, items []int, begin func(topic int), add func(partitionAt)) {
	last := -1
	for _, i := range items {
		if p := at[i]; p.topic != last {
			last = p.topic
			begin(last)
		}
		add(at[i])
	}
}

// wanted is wait as a request's timeout says; 0 if it says nothing.
func wanted(ms int32) time.Duration { return millis(max(ms, 0)) }

// askNode asks another node a question of r's client that is for that node, whatever
// it serves, and changes nothing. A node that does not answer is asked again for as long
// as it is live and there is time: it may be about to end, and back in a moment. reply is
// called once, on any goroutine.
func (h *Handlers) askNode(r *proxy.Request, node int32, q kmsg.Request, reply func(kmsg.Response, error)) {
	q.SetVersion(r.Version)
	a := &asking{h: h, reply: reply}
	a.question = newQuestion(node, q, r.ClientID, r.CorrelationID, a.answered)
	a.waiting.deadline, a.waiting.wake = time.Now().Add(partTimeout), a.ask
	h.call(&a.question.call, r, nil, r.Conn.ID(), partTimeout)
	a.ask()
}

// asking is a question that is asked until it is answered.
type asking struct {
	h        *Handlers
	question *splitPart
	waiting  routeWait
	reply    func(kmsg.Response, error)
}

func (a *asking) ask() {
	a.waiting.changed = a.h.router.RoutesChanged()
	a.h.c.Peers.Send(a.question.node, &a.question.call)
}

func (a *asking) answered(resp kmsg.Response, err error) {
	_, live := a.h.c.Coordinator.Node(a.question.node)
	if err == nil || !live || errors.Is(err, forward.ErrTooLarge) || !time.Now().Before(a.waiting.deadline) {
		a.reply(resp, err)
		return
	}
	a.h.waits.add(&a.waiting)
}

// askFor asks another node a question of this node's own, once. The version of q is set.
func (h *Handlers) askFor(node int32, stream uint64, q kmsg.Request, timeout time.Duration, reply func(kmsg.Response, error)) {
	p := newQuestion(node, q, "quire", 0, reply)
	p.call.Stream, p.call.Timeout, p.call.Principal = stream, timeout, principalType+":"+anonymous
	h.c.Peers.Send(node, &p.call)
}

// newQuestion makes the call of a question to a node.
func newQuestion(node int32, q kmsg.Request, clientID string, correlation int32, reply func(kmsg.Response, error)) *splitPart {
	p := &splitPart{node: node, req: q}
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID)).AppendRequest(nil, q, correlation)
	p.call.Message = [][]byte{frame[4:]}
	p.call.Done = func(_ *forward.Call, a forward.Answer) {
		defer letGo(&a)
		if a.Status != forward.Answered {
			reply(nil, whyNot(node, &a))
			return
		}
		reply(p.decode(bytes.Clone(a.Message)))
	}
	return p
}

// prove returns nil if this node serves a slot for certain. A node alone does.
func (h *Handlers) prove(ctx context.Context, slot int) error {
	if h.alone() {
		return nil
	}
	return h.c.Coordinator.Prove(ctx, slot)
}

// allSlots are all slots there are.
var allSlots = func() []int {
	slots := make([]int, coordinator.NumSlots)
	for i := range slots {
		slots[i] = i
	}
	return slots
}()

// watchSlots returns what says whether this node has served slots ever since.
func (h *Handlers) watchSlots(slots []int) (served func() bool) {
	before := make([]route, len(slots))
	for i, slot := range slots {
		before[i] = h.route(slot)
	}
	return func() bool {
		for i, slot := range slots {
			if !before[i].here || h.route(slot) != before[i] {
				return false
			}
		}
		return true
	}
}
