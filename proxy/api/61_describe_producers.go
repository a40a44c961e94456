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
	r.Go(func() {
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
	whole.Topics = make([]kmsg.DescribeProducersResponseTopic, len(q.Topics))
	at := partitionsOf(len(q.Topics), func(i int) int { return len(q.Topics[i].Partitions) })
	slots := make([]int, len(at))
	for i, p := range at {
		slots[i] = h.partitionSlot(q.Topics[p.topic].Topic, q.Topics[p.topic].Partitions[p.partition])
	}
	for i := range q.Topics {
		whole.Topics[i].Default()
		whole.Topics[i].Topic = q.Topics[i].Topic
		whole.Topics[i].Partitions = make([]kmsg.DescribeProducersResponseTopicPartition, len(q.Topics[i].Partitions))
	}
	out := func(i int) *kmsg.DescribeProducersResponseTopicPartition {
		return &whole.Topics[at[i].topic].Partitions[at[i].partition]
	}
	h.answerSeveral(r, several{
		slots: slots, reads: true, whole: whole,
		part: func(items []int) kmsg.Request {
			part := *q
			part.Topics = nil
			byTopic(at, items, func(topic int) {
				t := q.Topics[topic]
				t.Partitions = nil
				part.Topics = append(part.Topics, t)
			}, func(p partitionAt) {
				t := &part.Topics[len(part.Topics)-1]
				t.Partitions = append(t.Partitions, q.Topics[p.topic].Partitions[p.partition])
			})
			return &part
		},
		here: func(q kmsg.Request, reply func(kmsg.Response)) {
			h.describedProducers(r, q.(*kmsg.DescribeProducersRequest), reply)
		},
		answers: func(resp kmsg.Response) answers {
			var parts []kmsg.DescribeProducersResponseTopicPartition
			for _, t := range resp.(*kmsg.DescribeProducersResponse).Topics {
				parts = append(parts, t.Partitions...)
			}
			return answers{len(parts), func(k, i int) int16 {
				*out(i) = parts[k]
				return parts[k].ErrorCode
			}}
		},
		refuse: func(i int, why error) {
			p := out(i)
			p.Default()
			p.Partition = q.Topics[at[i].topic].Partitions[at[i].partition]
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
