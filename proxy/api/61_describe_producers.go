package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/storage"
)

// DescribeProducers: v0

func (h *Handlers) describeProducers(r *proxy.Request, q *kmsg.DescribeProducersRequest) {
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
		h.respond(r, resp)
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
