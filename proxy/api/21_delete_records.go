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
	r.GoSlow(func() {
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
	asked := partitionsAsked(h, q.Topics,
		func(t *kmsg.DeleteRecordsRequestTopic) (string, *[]kmsg.DeleteRecordsRequestTopicPartition) {
			return t.Topic, &t.Partitions
		},
		func(p *kmsg.DeleteRecordsRequestTopicPartition) int32 { return p.Partition },
		func(t *kmsg.DeleteRecordsResponseTopic, name string) { t.Default(); t.Topic = name },
		func(t *kmsg.DeleteRecordsResponseTopic) *[]kmsg.DeleteRecordsResponseTopicPartition {
			return &t.Partitions
		})
	whole.Topics = asked.told
	h.answerSeveral(r, several{
		// To delete what is deleted changes nothing.
		slots: asked.slots, reads: true, wait: wanted(q.TimeoutMillis), whole: whole,
		part: func(items []int) kmsg.Request {
			part := *q
			part.Topics = asked.some(items)
			return &part
		},
		here: func(q kmsg.Request, reply func(kmsg.Response)) {
			h.deletedRecords(r, q.(*kmsg.DeleteRecordsRequest), reply)
		},
		answers: func(resp kmsg.Response) answers {
			return asked.answers(resp.(*kmsg.DeleteRecordsResponse).Topics, func(p *kmsg.DeleteRecordsResponseTopicPartition) int16 { return p.ErrorCode })
		},
		refuse: func(i int, why error) {
			p := asked.out(i)
			p.Default()
			p.Partition = asked.ask(i).Partition
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
