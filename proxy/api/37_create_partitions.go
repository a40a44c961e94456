package api

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
)

// CreatePartitions: v0-3
//
//	v2: flexible
//	v3: strict controller mutation quotas
//
// An assignment is checked and otherwise ignored: who leads a partition is not
// chosen by hand.

func (h *Handlers) createPartitions(r *proxy.Request, q *kmsg.CreatePartitionsRequest) {
	resp := q.ResponseKind().(*kmsg.CreatePartitionsResponse)
	r.GoSlow(func() {
		ctx, cancel := h.timeoutMillis(q.TimeoutMillis)
		defer cancel()
		named := make(map[string]int, len(q.Topics))
		for i := range q.Topics {
			named[q.Topics[i].Topic]++
		}
		for i := range q.Topics {
			in := &q.Topics[i]
			out := kmsg.NewCreatePartitionsResponseTopic()
			out.Topic = in.Topic
			var err error
			switch n := named[in.Topic]; {
			case n == 0:
				continue // As in Kafka, a topic named twice is answered once.
			case n > 1:
				named[in.Topic] = 0
				err = fmt.Errorf("topic %q is named twice: %w", in.Topic, errRequest)
			default:
				err = h.growTopic(ctx, r.Listener(), in, q.ValidateOnly)
			}
			out.ErrorCode, out.ErrorMessage = int16(adminErrors.code(err)), text(err)
			resp.Topics = append(resp.Topics, out)
		}
		h.respond(r, resp)
	})
}

func (h *Handlers) growTopic(ctx context.Context, listener string, in *kmsg.CreatePartitionsRequestTopic, validateOnly bool) error {
	t := h.c.Coordinator.Topic(in.Topic)
	if t == nil {
		return fmt.Errorf("topic %q: %w", in.Topic, coordinator.ErrUnknownTopic)
	}
	if in.Count <= t.Partitions {
		return fmt.Errorf("topic %q has %d partitions, which %d would not raise: %w",
			in.Topic, t.Partitions, in.Count, coordinator.ErrInvalidPartitions)
	}
	if in.Assignment != nil {
		if int64(len(in.Assignment)) != int64(in.Count)-int64(t.Partitions) {
			return fmt.Errorf("topic %q grows by %d partitions and %d are assigned: %w",
				in.Topic, int64(in.Count)-int64(t.Partitions), len(in.Assignment), coordinator.ErrInvalidAssignment)
		}
		replicas := make([][]int32, len(in.Assignment))
		for i := range in.Assignment {
			replicas[i] = in.Assignment[i].Replicas
		}
		if err := h.checkReplicas(listener, replicas); err != nil {
			return fmt.Errorf("topic %q: %w", in.Topic, err)
		}
	}
	return h.c.Coordinator.GrowTopic(ctx, in.Topic, in.Count, validateOnly)
}
