package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/storage"
)

// OffsetForLeaderEpoch: v0-4
//
//	v1: the answer names the epoch found
//	v2: the client's current leader epoch (KIP-320), throttle time
//	v3: replica id
//	v4: flexible

func (h *Handlers) offsetForLeaderEpoch(r *proxy.Request, q *kmsg.OffsetForLeaderEpochRequest) {
	resp := q.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	resp.Topics = make([]kmsg.OffsetForLeaderEpochResponseTopic, len(q.Topics))
	topics := make([]*coordinator.Topic, len(q.Topics))
	blocks := false
	for i := range q.Topics {
		in := &q.Topics[i]
		resp.Topics[i] = kmsg.NewOffsetForLeaderEpochResponseTopic()
		resp.Topics[i].Topic = in.Topic
		resp.Topics[i].Partitions = make([]kmsg.OffsetForLeaderEpochResponseTopicPartition, len(in.Partitions))
		t := h.c.Coordinator.Topic(in.Topic)
		topics[i] = t
		for j := range in.Partitions {
			if t != nil && h.c.Store.Log(storage.LogID{Topic: t.ID, Partition: in.Partitions[j].Partition}) == nil {
				blocks = true
			}
		}
	}
	answer := func(ctx context.Context) {
		for i := range q.Topics {
			for j := range q.Topics[i].Partitions {
				in, out := &q.Topics[i].Partitions[j], &resp.Topics[i].Partitions[j]
				out.Default()
				out.Partition = in.Partition
				out.LeaderEpoch, out.EndOffset = -1, -1
				l, err := h.openLog(ctx, topics[i], in.Partition)
				if err == nil && q.Version >= 2 {
					err = checkEpoch(l, in.CurrentLeaderEpoch)
				}
				if err != nil {
					out.ErrorCode = int16(dataErrors.code(err))
					continue
				}
				out.LeaderEpoch, out.EndOffset = l.EpochEnd(in.LeaderEpoch)
			}
		}
		h.respond(r, resp)
	}
	if !blocks {
		answer(h.ctx)
		return
	}
	r.Go(func() {
		ctx, cancel := h.timeout(defaultTimeout)
		defer cancel()
		answer(ctx)
	})
}
