package api

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
)

// DeleteTopics: v0-6
//
//	v1: throttle time
//	v3: TOPIC_DELETION_DISABLED, before: INVALID_REQUEST
//	v4: flexible
//	v5: error message
//	v6: by name or by id
//
// The topic's record goes first, so that nobody finds the topic any more; its
// logs and their ledgers go after it.

func (h *Handlers) deleteTopics(r *proxy.Request, q *kmsg.DeleteTopicsRequest) {
	resp := q.ResponseKind().(*kmsg.DeleteTopicsResponse)
	asked := q.Topics
	if q.Version < 6 {
		asked = make([]kmsg.DeleteTopicsRequestTopic, len(q.TopicNames))
		for i := range asked {
			asked[i].Topic = &q.TopicNames[i]
		}
	}
	r.Go(func() {
		ctx, cancel := h.timeoutMillis(q.TimeoutMillis)
		defer cancel()
		seen := make(map[[16]byte]bool, len(asked))
		for i := range asked {
			out := kmsg.NewDeleteTopicsResponseTopic()
			out.Topic, out.TopicID = asked[i].Topic, asked[i].TopicID
			t, err := h.deletedTopic(&asked[i], q.Version)
			if err == nil && seen[t.ID] {
				err = fmt.Errorf("topic %q is named twice: %w", t.Name, errRequest)
			}
			if err == nil {
				seen[t.ID] = true
				out.Topic, out.TopicID = &t.Name, t.ID
				err = h.deleteTopic(ctx, t)
			}
			out.ErrorCode, out.ErrorMessage = int16(adminErrors.code(err)), text(err)
			if out.Topic == nil && q.Version < 6 {
				out.Topic = kmsg.StringPtr("")
			}
			resp.Topics = append(resp.Topics, out)
		}
		h.respond(r, resp)
	})
}

// deletedTopic finds the topic that is to go.
func (h *Handlers) deletedTopic(asked *kmsg.DeleteTopicsRequestTopic, version int16) (*coordinator.Topic, error) {
	byID := asked.TopicID != [16]byte{}
	if byID == (asked.Topic != nil) {
		return nil, fmt.Errorf("a topic is deleted by its name or by its id, by one of them: %w", errRequest)
	}
	if h.c.TopicDeletionDisabled {
		if version < 3 {
			return nil, fmt.Errorf("delete.topic.enable is false: %w", errRequest)
		}
		return nil, errDeletionDisabled
	}
	if byID {
		if t := h.c.Coordinator.TopicByID(asked.TopicID); t != nil {
			return t, nil
		}
		return nil, coordinator.ErrUnknownTopicID
	}
	if t := h.c.Coordinator.Topic(*asked.Topic); t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("topic %q: %w", *asked.Topic, coordinator.ErrUnknownTopic)
}

func (h *Handlers) deleteTopic(ctx context.Context, t *coordinator.Topic) error {
	if err := h.c.Coordinator.DeleteTopic(ctx, t.Name, t.ID); err != nil {
		return err
	}
	// The topic is gone for good. Ledgers that stay behind after an error
	// here belong to no topic and are collected as such.
	if err := h.c.Store.DeleteLogs(ctx, t.ID, t.Partitions); err != nil {
		h.c.Logger.Warn("delete the logs of a deleted topic", zap.String("topic", t.Name), zap.Error(err))
	}
	return nil
}
