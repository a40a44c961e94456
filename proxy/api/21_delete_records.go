package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
)

// DeleteRecords: v0-2
//
//	v2: flexible
//
// Offset -1 means the high watermark. The answer's low watermark is the new
// log start.

func (h *Handlers) deleteRecords(r *proxy.Request, q *kmsg.DeleteRecordsRequest) {
	h.deletedRecords(r, q, func(resp kmsg.Response) { h.respond(r, resp) })
}

// deletedRecords deletes in the logs of this node.
func (h *Handlers) deletedRecords(r *proxy.Request, q *kmsg.DeleteRecordsRequest, reply func(kmsg.Response)) {
	resp := q.ResponseKind().(*kmsg.DeleteRecordsResponse)
	r.Go(func() {
		ctx, cancel := h.timeoutMillis(q.TimeoutMillis)
		defer cancel()
		for i := range q.Topics {
			in := &q.Topics[i]
			out := kmsg.NewDeleteRecordsResponseTopic()
			out.Topic = in.Topic
			t := h.c.Coordinator.Topic(in.Topic)
			for _, p := range in.Partitions {
				d := kmsg.NewDeleteRecordsResponseTopicPartition()
				d.Partition = p.Partition
				start, err := h.deleteRecordsBefore(ctx, t, p.Partition, p.Offset)
				d.LowWatermark, d.ErrorCode = start, int16(dataErrors.code(err))
				out.Partitions = append(out.Partitions, d)
			}
			resp.Topics = append(resp.Topics, out)
		}
		reply(resp)
	})
}

func (h *Handlers) deleteRecordsOfMany(r *proxy.Request, q *kmsg.DeleteRecordsRequest) {
	whole := q.ResponseKind().(*kmsg.DeleteRecordsResponse)
	whole.Topics = make([]kmsg.DeleteRecordsResponseTopic, len(q.Topics))
	at := partitionsOf(len(q.Topics), func(i int) int { return len(q.Topics[i].Partitions) })
	slots := make([]int, len(at))
	for i, p := range at {
		slots[i] = h.partitionSlot(q.Topics[p.topic].Topic, q.Topics[p.topic].Partitions[p.partition].Partition)
	}
	for i := range q.Topics {
		whole.Topics[i].Default()
		whole.Topics[i].Topic = q.Topics[i].Topic
		whole.Topics[i].Partitions = make([]kmsg.DeleteRecordsResponseTopicPartition, len(q.Topics[i].Partitions))
	}
	out := func(i int) *kmsg.DeleteRecordsResponseTopicPartition {
		return &whole.Topics[at[i].topic].Partitions[at[i].partition]
	}
	h.answerSeveral(r, several{
		// To delete what is deleted changes nothing.
		slots: slots, reads: true, wait: wanted(q.TimeoutMillis), whole: whole,
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
			h.deletedRecords(r, q.(*kmsg.DeleteRecordsRequest), reply)
		},
		answers: func(resp kmsg.Response) answers {
			var parts []kmsg.DeleteRecordsResponseTopicPartition
			for _, t := range resp.(*kmsg.DeleteRecordsResponse).Topics {
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
			p.Partition = q.Topics[at[i].topic].Partitions[at[i].partition].Partition
			p.LowWatermark, p.ErrorCode = -1, int16(dataErrors.code(why))
		},
	})
}

func (h *Handlers) deleteRecordsBefore(ctx context.Context, t *coordinator.Topic, partition int32, offset int64) (int64, error) {
	l, err := h.openLog(ctx, t, partition)
	if err != nil {
		return -1, err
	}
	start, err := l.DeleteRecords(ctx, offset)
	if err != nil {
		return -1, err
	}
	return start, nil
}
