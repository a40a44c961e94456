package api

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/proxy/forward"
)

// refusing is two nodes that share all slots. It ends each call from within Send.
type refusing struct {
	*scripted
	why error
}

func (p *refusing) Route(slot int) coordinator.Route {
	return coordinator.Route{Node: 2 + int32(slot%2), Epoch: 1}
}

func (p *refusing) Send(_ int32, c *forward.Call) { failCall(c, p.why) }

// TestCallsThatEndAtOnce: a request for several nodes is answered once, with a code
// that a client of its version tries again with, where none of them takes its part.
func TestCallsThatEndAtOnce(t *testing.T) {
	for _, tc := range []struct {
		why     error
		timeout int32
		want    protocol.Code
	}{
		{forward.ErrTooLarge, 30_000, protocol.MessageTooLarge},
		{forward.ErrUnreachable, 1, protocol.NotLeaderOrFollower},
		{forward.ErrBusy, 1, protocol.NotLeaderOrFollower},
	} {
		p := &refusing{&scripted{t: t, changed: make(chan struct{})}, tc.why}
		s := newServer(t, func(o *options) {
			o.config.Peers, o.config.router = p, p
			o.config.ProxyListeners = func(string) bool { return true }
		})
		topic := s.createTopic("orders", 64)
		c := s.dial()
		q := produceOne(3, topic, 0, makeBatch(t, batch.Plain, "a"))
		q.TimeoutMillis = tc.timeout
		for partition := range topic.Partitions {
			if coordinator.PartitionSlot(topic.ID, partition)%2 != coordinator.PartitionSlot(topic.ID, 0)%2 {
				more := produceOne(3, topic, partition, makeBatch(t, batch.Plain, "b"))
				q.Topics[0].Partitions = append(q.Topics[0].Partitions, more.Topics[0].Partitions...)
				break
			}
		}
		for _, got := range do[*kmsg.ProduceResponse](c, q).Topics[0].Partitions {
			wantCode(t, tc.why.Error(), got.ErrorCode, tc.want)
		}
	}
}

// TestLineRestsForItsHead: who is behind the head of the queue has its answer after
// it, so its deadline does not end the rest.
func TestLineRestsForItsHead(t *testing.T) {
	now := time.Now()
	h := new(Handlers)
	h.waits.init(nil)
	l := &line{queue: []*routedProduce{{deadline: now.Add(time.Hour)}, {deadline: now.Add(-time.Hour)}}}
	l.restLocked(h)
	if !l.waiting.due.After(now) {
		t.Errorf("the head of the queue is looked at again %v ago", now.Sub(l.waiting.due))
	}
}
