package api

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/proxy/forward"
)

// scripted is another node that serves everything, whose answers a test gives.
type scripted struct {
	t        *testing.T
	sent     chan *forward.Call
	canceled chan *forward.Call

	mu      sync.Mutex
	changed chan struct{}
	epoch   int64
}

func newScripted(t *testing.T, change ...func(*Config)) (*scripted, *server) {
	p := &scripted{t: t, sent: make(chan *forward.Call, 100), canceled: make(chan *forward.Call, 100), changed: make(chan struct{}), epoch: 1}
	s := newServer(t, func(o *options) {
		o.config.Peers, o.config.router = p, p
		o.config.ProxyListeners = func(string) bool { return true }
		o.config.freshTime = time.Hour
		for _, f := range change {
			f(&o.config)
		}
	})
	return p, s
}

// TestSplitEndsWithItsConnection: a client that sends nothing more, as one of a node that
// is about to end, does not lose its answer since nobody serves what it asks for.
func TestSplitEndsWithItsConnection(t *testing.T) {
	p, s := newScripted(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	q := listOffset(7, topic, 0, -1)
	c.send(q)
	check(t, c.conn.(*net.TCPConn).CloseWrite())
	answered := make(chan struct{})
	var refusing sync.WaitGroup
	refusing.Go(func() {
		for {
			select {
			case call := <-p.sent:
				call.Done(call, forward.Answer{Status: forward.NotServed})
			case <-answered:
				return
			}
		}
	})
	defer refusing.Wait()
	defer close(answered)
	resp, err := c.receive(q)
	check(t, err)
	wantCode(t, "ListOffsets", resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].ErrorCode, protocol.NotLeaderOrFollower)
}

// Send implements forward.Sender.
func (p *scripted) Send(_ int32, c *forward.Call) { p.sent <- c }

// Cancel implements forward.Sender.
func (p *scripted) Cancel(c *forward.Call) { p.canceled <- c }

// Abandon implements forward.Sender.
func (p *scripted) Abandon(c *forward.Call) { p.canceled <- c }

// Route implements router.
func (p *scripted) Route(int) coordinator.Route {
	p.mu.Lock()
	defer p.mu.Unlock()
	return coordinator.Route{Node: 2, Epoch: p.epoch}
}

// RoutesChanged implements router.
func (p *scripted) RoutesChanged() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// next is the next call, which must be for a group's slot.
func (p *scripted) next(group string) *forward.Call {
	p.t.Helper()
	select {
	case c := <-p.sent:
		p.mu.Lock()
		defer p.mu.Unlock()
		want := forward.SlotEpoch{Slot: uint16(coordinator.SlotOf(group)), Epoch: p.epoch}
		if len(c.Slots) != 1 || c.Slots[0] != want {
			p.t.Errorf("the call is for %v, want %v", c.Slots, want)
		}
		return c
	case <-time.After(time.Minute):
		p.t.Fatal("no call within a minute")
		return nil
	}
}

// move changes the epoch of all routes.
func (p *scripted) move() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epoch++
	close(p.changed)
	p.changed = make(chan struct{})
}

// gone waits until nobody wants the answer to a call any more, which may be said twice.
func (p *scripted) gone(c *forward.Call) {
	for <-p.canceled != c {
	}
}

// correlation is the id of the request of a call.
func correlation(c *forward.Call) int32 {
	head, err := protocol.PeekRequestHeader(c.Message[0])
	if err != nil {
		return -1
	}
	return head.CorrelationID
}

// answer ends a call with a response.
func (p *scripted) answer(c *forward.Call, resp kmsg.Response) {
	message := protocol.AppendResponseHeader(nil, correlation(c), protocol.FlexibleResponse(resp.Key(), resp.GetVersion()))
	message = resp.AppendTo(message)
	buf := buffer.Get(len(message))
	c.Done(c, forward.Answer{Status: forward.Answered, Message: append(buf.B[:0], message...), Buf: buf})
}

func refuseCall(c *forward.Call) { c.Done(c, forward.Answer{Status: forward.NotServed}) }

func failCall(c *forward.Call, why error) {
	c.Done(c, forward.Answer{Status: forward.Failed, Err: why})
}

// TestCommitsThatComeBack: what nobody has served sets out again in its order, and what
// was overtaken is refused.
func TestCommitsThatComeBack(t *testing.T) {
	p, s := newScripted(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	var sent []*kmsg.OffsetCommitRequest
	commit := func(offset int64) {
		q := newCommitRequest(8, "group", topic, 0, offset)
		sent = append(sent, q)
		c.send(q)
	}
	code := func() protocol.Code {
		t.Helper()
		q := sent[0]
		sent = sent[1:]
		resp, err := c.receive(q)
		check(t, err)
		return protocol.Code(resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode)
	}
	ok := func(q *kmsg.OffsetCommitRequest) kmsg.Response { return refusedGroup(q, protocol.None) }
	for offset := range int64(4) {
		commit(offset)
	}
	q := sent
	var calls []*forward.Call
	for i := range 4 {
		calls = append(calls, p.next("group"))
		if correlation(calls[i]) != int32(i)+c.corr-3 {
			t.Fatalf("call %d is of request %d", i, correlation(calls[i]))
		}
	}
	// The third is answered, and the first and the second come back: one before that
	// and one after it. Then the last comes back, and more are sent meanwhile.
	refuseCall(calls[0])
	p.answer(calls[2], ok(q[2]))
	refuseCall(calls[1])
	if a, b, third := code(), code(), code(); a != protocol.NotCoordinator || b != protocol.NotCoordinator || third != protocol.None {
		t.Errorf("the answers are %s, %s and %s", a.Name(), b.Name(), third.Name())
	}
	commit(4)
	late := p.next("group")
	failCall(calls[3], forward.ErrUnreachable)
	commit(5)
	until(t, "the last one waits for those before it", func() bool {
		s.handler.lines.mu.Lock()
		defer s.handler.lines.mu.Unlock()
		return len(s.handler.lines.byConn) == 1 && len(lineOf(s).trips) == 3
	})
	failCall(late, forward.ErrLost)
	p.move()
	for i := range 3 {
		again := p.next("group")
		if want := c.corr - 2 + int32(i); correlation(again) != want {
			t.Errorf("request %d sets out, want %d", correlation(again), want)
		}
		p.answer(again, ok(sent[i]))
	}
	for len(sent) > 0 {
		if got := code(); got != protocol.None {
			t.Errorf("a commit that nobody had served at first: %s", got.Name())
		}
	}
	if n := len(s.handler.lines.byConn); n != 0 {
		t.Errorf("%d lines are left", n)
	}
}

// lineOf is the only line of commits.
func lineOf(s *server) *commitLine {
	for _, l := range s.handler.lines.byConn {
		return l
	}
	return nil
}

// TestTripsOfMembers: what may be done again is, until somebody has answered.
func TestTripsOfMembers(t *testing.T) {
	p, s := newScripted(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Version, fetch.Group = 7, "group"
	fetch.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Version, leave.Group, leave.MemberID = 2, "group", "me"
	deletes := kmsg.NewPtrOffsetDeleteRequest()
	deletes.Group = "group"
	modern := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	modern.Version, modern.Group, modern.MemberID = 1, "group", "me"
	for _, q := range []kmsg.Request{
		newJoin(5, "group", "me"), newSync(5, "group", &kmsg.JoinGroupResponse{MemberID: "me"}), newHeartbeat(4, "group", "me", 1),
		newCommitRequest(8, "group", topic, 0, 1), fetch, leave, deletes, modern,
	} {
		c.send(q)
		for _, why := range []error{forward.ErrUnreachable, forward.ErrLost, forward.ErrBusy, forward.ErrProtocol, nil} {
			call := p.next("group")
			if call.Timeout < forwardTimeout || call.RemoteAddr != c.conn.LocalAddr().String() || call.Listener != listenerName {
				t.Errorf("%s: the call is %+v", kmsg.NameForKey(q.Key()), call)
			}
			switch {
			case why != nil:
				failCall(call, why)
			default:
				refuseCall(call)
			}
		}
		// What does not answer the request is no answer.
		garbage := buffer.Get(3)
		call := p.next("group")
		call.Done(call, forward.Answer{Status: forward.Answered, Message: garbage.B[:3], Buf: garbage})
		p.answer(p.next("group"), refusedGroup(q, protocol.RebalanceInProgress))
		resp, err := c.receive(q)
		check(t, err)
		if want := refusedGroup(q, protocol.RebalanceInProgress).AppendTo(nil); string(resp.AppendTo(nil)) != string(want) {
			t.Errorf("%s is answered by %+v", kmsg.NameForKey(q.Key()), resp)
		}
	}
	// To do this one again might make a second member.
	c.send(newJoin(3, "group", ""))
	failCall(p.next("group"), forward.ErrLost)
	resp, err := c.receive(newJoin(3, "group", ""))
	check(t, err)
	wantCode(t, "a join that was lost", resp.(*kmsg.JoinGroupResponse).ErrorCode, protocol.NotCoordinator)
}

// TestTripEndsWithConnection: nobody is asked for a client that has gone.
func TestTripEndsWithConnection(t *testing.T) {
	p, s := newScripted(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.send(newJoin(5, "group", "me"))
	call := p.next("group")
	check(t, c.conn.Close())
	if canceled := <-p.canceled; canceled != call {
		t.Error("another call is canceled")
	}
	refuseCall(call)
	c = s.dial()
	for offset := range int64(3) {
		c.send(newCommitRequest(8, "group", topic, 0, offset))
	}
	calls := []*forward.Call{p.next("group"), p.next("group"), p.next("group")}
	refuseCall(calls[0])
	check(t, c.conn.Close())
	p.gone(calls[1])
	p.gone(calls[2])
	refuseCall(calls[1])
	p.answer(calls[2], refusedGroup(newCommitRequest(8, "group", topic, 0, 2), protocol.None))
	until(t, "no line is left", func() bool {
		s.handler.lines.mu.Lock()
		defer s.handler.lines.mu.Unlock()
		return len(s.handler.lines.byConn) == 0
	})
	// One that sends nothing more may read on.
	c = s.dial()
	q := newCommitRequest(8, "group", topic, 0, 4)
	c.send(q)
	call = p.next("group")
	check(t, c.conn.(*net.TCPConn).CloseWrite())
	p.gone(call)
	refuseCall(call)
	resp, err := c.receive(q)
	check(t, err)
	wantCode(t, "a commit of one that has hung up", resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode, protocol.CoordinatorNotAvailable)
	if len(p.sent) > 0 {
		t.Error("somebody is asked for a client that has gone")
	}
}

// TestOldRequests: a commit or a join that has come back is not sent again when its client
// may have gone elsewhere.
func TestOldRequests(t *testing.T) {
	const limit = 50 * time.Millisecond
	p, s := newScripted(t, func(c *Config) { c.freshTime = limit })
	topic := s.createTopic("orders", 1)
	c := s.dial()
	modern := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	modern.Version, modern.Group, modern.MemberID = 1, "group", "me"
	for _, q := range []kmsg.Request{
		newCommitRequest(8, "group", topic, 0, 0), newCommitRequest(8, "group", topic, 0, 1), newJoin(5, "group", "me"), modern,
	} {
		c.send(q)
		answered := make(chan kmsg.Response, 1)
		var failed error
		go func() {
			var resp kmsg.Response
			resp, failed = c.receive(q)
			answered <- resp
		}()
		// It comes back as often as it is sent.
		for sent := true; sent; {
			select {
			case call := <-p.sent:
				if call.Begin <= 0 || call.Begin > limit {
					t.Errorf("another node may begin it within %v", call.Begin)
				}
				refuseCall(call)
			case resp := <-answered:
				sent = false
				check(t, failed)
				var code int16
				switch r := resp.(type) {
				case *kmsg.OffsetCommitResponse:
					code = r.Topics[0].Partitions[0].ErrorCode
				case *kmsg.JoinGroupResponse:
					code = r.ErrorCode
				case *kmsg.ConsumerGroupHeartbeatResponse:
					code = r.ErrorCode
				}
				if code := protocol.Code(code); code != protocol.NotCoordinator && code != protocol.CoordinatorNotAvailable {
					t.Errorf("an old %s is answered by %s", kmsg.NameForKey(q.Key()), code.Name())
				}
			}
		}
	}
	if len(p.sent) > 0 {
		t.Error("an old request is sent again")
	}
}

// TestOldBehindAnother: a commit that has waited in its connection, since nobody served
// the request before it, is as old as one that has been sent on in vain.
func TestOldBehindAnother(t *testing.T) {
	const limit = 50 * time.Millisecond
	p, s := newScripted(t, func(c *Config) { c.freshTime = limit })
	topic := s.createTopic("orders", 1)
	c := s.dial()
	beat, commit := kmsg.NewPtrHeartbeatRequest(), newCommitRequest(8, "group", topic, 0, 7)
	beat.Version, beat.Group, beat.MemberID = 4, "group", "me"
	for _, refused := range []bool{true, false} {
		c.send(beat, commit)
		call := p.next("group")
		// Nobody serves it for a while, or another node takes its time.
		for begun := time.Now(); time.Since(begun) <= 2*limit; {
			if refused {
				refuseCall(call)
				call = p.next("group")
			}
		}
		p.answer(call, refusedGroup(beat, protocol.None))
		_, err := c.receive(beat)
		check(t, err)
		answered := make(chan kmsg.Response, 1)
		go func() {
			resp, _ := c.receive(commit)
			answered <- resp
		}()
		select {
		case call := <-p.sent:
			t.Errorf("an old commit is sent on, to be begun within %v", call.Begin)
			p.answer(call, refusedGroup(commit, protocol.None))
			<-answered
		case resp := <-answered:
			wantCode(t, "an old commit", resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode, protocol.CoordinatorNotAvailable)
		}
	}

	p, s = newScripted(t)
	topic = s.createTopic("orders", 1)
	c = s.dial()
	commit = newCommitRequest(8, "group", topic, 0, 7)
	c.send(beat, commit)
	refuseCall(p.next("group"))
	p.answer(p.next("group"), refusedGroup(beat, protocol.None))
	p.answer(p.next("group"), refusedGroup(commit, protocol.None))
	_, err := c.receive(beat)
	check(t, err)
	resp, err := c.receive(commit)
	check(t, err)
	wantCode(t, "a commit that is not old yet", resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode, protocol.None)
}
