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

// TestAnswersAstray: an answer of another node counts as far as it is about what was asked,
// in order; what is behind that is of no partition, however it is numbered.
func TestAnswersAstray(t *testing.T) {
	p, s := newScripted(t)
	topics := []*coordinator.Topic{s.createTopic("a", 6), s.createTopic("b", 6)}
	c := s.dial()
	part := func(n int32) kmsg.ProduceResponseTopicPartition {
		out := kmsg.NewProduceResponseTopicPartition()
		out.Partition, out.BaseOffset = n, int64(100+n)
		return out
	}
	for _, v := range []int16{3, 9, 13} {
		q := kmsg.NewPtrProduceRequest()
		q.Version, q.Acks, q.TimeoutMillis = v, -1, 30_000
		for i, partitions := range [][]int32{{0, 5}, {5}} {
			qt := kmsg.NewProduceRequestTopic()
			qt.Topic, qt.TopicID = topics[i].Name, topics[i].ID
			for _, n := range partitions {
				one := produceOne(v, topics[i], n, makeBatch(t, batch.Plain, "x"))
				qt.Partitions = append(qt.Partitions, one.Topics[0].Partitions...)
			}
			q.Topics = append(q.Topics, qt)
		}
		for name, answered := range map[string]struct {
			parts [2][]int32 // by topic
			want  []bool     // told, by partition asked
		}{
			"right":             {[2][]int32{{0, 5}, {5}}, []bool{true, true, true}},
			"another partition": {[2][]int32{{0, 1}, {5}}, []bool{true, false, false}},
			"one is missing":    {[2][]int32{{0}, {5}}, []bool{true, false, false}},
			"one too many":      {[2][]int32{{0, 5}, {5, 4}}, []bool{true, true, true}},
			"nothing":           {[2][]int32{}, []bool{false, false, false}},
		} {
			c.send(q)
			call := <-p.sent
			resp := kmsg.NewPtrProduceResponse()
			resp.Version = v
			for i, parts := range answered.parts {
				rt := kmsg.NewProduceResponseTopic()
				rt.Topic, rt.TopicID = topics[i].Name, topics[i].ID
				for _, n := range parts {
					rt.Partitions = append(rt.Partitions, part(n))
				}
				resp.Topics = append(resp.Topics, rt)
			}
			// A whole request's answer is passed on as it is, the next attempt's is looked at.
			call.Done(call, forward.Answer{Status: forward.NotServed})
			p.answer(<-p.sent, resp)
			got, err := c.receive(q)
			check(t, err)
			k := 0
			for _, gt := range got.(*kmsg.ProduceResponse).Topics {
				for _, gp := range gt.Partitions {
					if told := gp.ErrorCode == 0 && gp.BaseOffset == int64(100+gp.Partition); told != answered.want[k] {
						t.Errorf("v%d, %s: partition %d of %s: %+v", v, name, gp.Partition, gt.Topic, gp)
					}
					k++
				}
			}
			if k != len(answered.want) {
				t.Errorf("v%d, %s: %d partitions are answered", v, name, k)
			}
		}
	}
}
