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
	h.epochEnds(r, q, func(resp kmsg.Response) { h.respond(r, resp) })
}

// epochEnds answers with the logs of this node.
func (h *Handlers) epochEnds(r *proxy.Request, q *kmsg.OffsetForLeaderEpochRequest, reply func(kmsg.Response)) {
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
	answer := func(ctx context.Context) (proved bool) {
		for i := range q.Topics {
			for j := range q.Topics[i].Partitions {
				in, out := &q.Topics[i].Partitions[j], &resp.Topics[i].Partitions[j]
				*out = noEpochEnd(in.Partition)
				l, err := h.openLog(ctx, topics[i], in.Partition)
				if err == nil && q.Version >= 2 {
					err = checkEpoch(l, in.CurrentLeaderEpoch)
				}
				if err != nil && topics[i] != nil && ctx == h.noTime {
					return false // the log may have been closed meanwhile, and is to be opened
				}
				if err != nil {
					out.ErrorCode = int16(dataErrors.code(err))
					continue
				}
				epoch, end := l.EpochEnd(in.LeaderEpoch)
				// The end of the last epoch is the end of the log, as in ListOffsets.
				if err := h.prove(ctx, coordinator.PartitionSlot(topics[i].ID, in.Partition)); err != nil {
					if ctx == h.noTime {
						return false
					}
					out.ErrorCode = int16(dataErrors.code(err))
					continue
				}
				out.LeaderEpoch, out.EndOffset = epoch, end
			}
		}
		return true
	}
	if !blocks && answer(h.noTime) {
		reply(resp)
		return
	}
	r.GoSlow(func() {
		ctx, cancel := h.timeout(defaultTimeout)
		defer cancel()
		answer(ctx)
		reply(resp)
	})
}

func noEpochEnd(partition int32) kmsg.OffsetForLeaderEpochResponseTopicPartition {
	p := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
	p.Partition, p.LeaderEpoch, p.EndOffset = partition, -1, -1
	return p
}

func (h *Handlers) offsetForLeaderEpochOfMany(r *proxy.Request, q *kmsg.OffsetForLeaderEpochRequest) {
	whole := q.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	asked := partitionsAsked(h, q.Topics,
		func(t *kmsg.OffsetForLeaderEpochRequestTopic) (string, *[]kmsg.OffsetForLeaderEpochRequestTopicPartition) {
			return t.Topic, &t.Partitions
		},
		func(p *kmsg.OffsetForLeaderEpochRequestTopicPartition) int32 { return p.Partition },
		func(t *kmsg.OffsetForLeaderEpochResponseTopic, name string) { t.Default(); t.Topic = name },
		func(t *kmsg.OffsetForLeaderEpochResponseTopic) *[]kmsg.OffsetForLeaderEpochResponseTopicPartition {
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
			h.epochEnds(r, q.(*kmsg.OffsetForLeaderEpochRequest), reply)
		},
		answers: func(resp kmsg.Response) answers {
			return asked.answers(resp.(*kmsg.OffsetForLeaderEpochResponse).Topics, func(p *kmsg.OffsetForLeaderEpochResponseTopicPartition) int16 { return p.ErrorCode })
		},
		refuse: func(i int, why error) {
			*asked.out(i) = noEpochEnd(asked.ask(i).Partition)
			asked.out(i).ErrorCode = int16(dataErrors.code(why))
		},
	})
}
