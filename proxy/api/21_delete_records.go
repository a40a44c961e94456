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
		h.respond(r, resp)
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
