package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/storage"
)

// DescribeProducers: v0

func (h *Handlers) describeProducers(r *proxy.Request, q *kmsg.DescribeProducersRequest) {
	h.describedProducers(r, q, func(resp kmsg.Response) { h.respond(r, resp) })
}

// describedProducers answers with the logs of this node.
func (h *Handlers) describedProducers(r *proxy.Request, q *kmsg.DescribeProducersRequest, reply func(kmsg.Response)) {
	resp := q.ResponseKind().(*kmsg.DescribeProducersResponse)
	r.GoSlow(func() {
		ctx, cancel := h.timeout(defaultTimeout)
		defer cancel()
		for i := range q.Topics {
			out := kmsg.NewDescribeProducersResponseTopic()
			out.Topic = q.Topics[i].Topic
			for _, partition := range q.Topics[i].Partitions {
				out.Partitions = append(out.Partitions, h.describeProducersOf(ctx, out.Topic, partition))
			}
			resp.Topics = append(resp.Topics, out)
		}
		reply(resp)
	})
}

func (h *Handlers) describeProducersOfMany(r *proxy.Request, q *kmsg.DescribeProducersRequest) {
	whole := q.ResponseKind().(*kmsg.DescribeProducersResponse)
	asked := partitionsAsked(h, q.Topics,
		func(t *kmsg.DescribeProducersRequestTopic) (string, *[]int32) { return t.Topic, &t.Partitions },
		func(p *int32) int32 { return *p },
		func(t *kmsg.DescribeProducersResponseTopic, name string) { t.Default(); t.Topic = name },
		func(t *kmsg.DescribeProducersResponseTopic) *[]kmsg.DescribeProducersResponseTopicPartition {
			return &t.Partitions
		})
	whole.Topics = asked.told
	h.answerSeveral(r, several{
		slots: asked.slots, reads: true, whole: whole,
		part: func(items []int) kmsg.Request {
			part := *q
			part.Topics = asked.some(items)
			return &part
		},
		here: func(q kmsg.Request, reply func(kmsg.Response)) {
			h.describedProducers(r, q.(*kmsg.DescribeProducersRequest), reply)
		},
		answers: func(resp kmsg.Response) answers {
			return asked.answers(resp.(*kmsg.DescribeProducersResponse).Topics, func(p *kmsg.DescribeProducersResponseTopicPartition) int16 { return p.ErrorCode })
		},
		refuse: func(i int, why error) {
			p := asked.out(i)
			p.Default()
			p.Partition = *asked.ask(i)
			p.ErrorCode, p.ErrorMessage = int16(dataErrors.code(why)), text(why)
		},
	})
}

func (h *Handlers) describeProducersOf(ctx context.Context, topic string, partition int32) kmsg.DescribeProducersResponseTopicPartition {
	out := kmsg.NewDescribeProducersResponseTopicPartition()
	out.Partition = partition
	t, err := h.namedTopic(topic)
	var l *storage.Log
	if err == nil {
		l, err = h.openLog(ctx, t, partition)
	}
	if err != nil {
		out.ErrorCode, out.ErrorMessage = int16(dataErrors.code(err)), text(err)
		return out
	}
	for _, p := range l.Producers() {
		a := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		a.ProducerID, a.ProducerEpoch = p.ProducerID, int32(p.ProducerEpoch)
		a.LastSequence, a.LastTimestamp = p.LastSequence, p.LastTimestamp
		a.CoordinatorEpoch, a.CurrentTxnStartOffset = p.CoordinatorEpoch, p.TxnStartOffset
		out.ActiveProducers = append(out.ActiveProducers, a)
	}
	return out
}
