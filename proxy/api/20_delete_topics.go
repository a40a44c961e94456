package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

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
// logs and their ledgers go after it. A topic that is named twice, be it by its name and by
// its id, is not deleted (ControllerApis).

func (h *Handlers) deleteTopics(r *proxy.Request, q *kmsg.DeleteTopicsRequest) {
	resp := q.ResponseKind().(*kmsg.DeleteTopicsResponse)
	asked := q.Topics
	if q.Version < 6 {
		asked = make([]kmsg.DeleteTopicsRequestTopic, len(q.TopicNames))
		for i := range asked {
			asked[i].Topic = &q.TopicNames[i]
		}
	}
	r.GoSlow(func() {
		ctx, cancel := h.timeoutMillis(q.TimeoutMillis)
		defer cancel()
		topics, errs := h.deletedTopics(asked, q.Version)
		answered := make(map[deletion]bool, len(asked))
		for i := range asked {
			as := deletionOf(&asked[i])
			if answered[as] {
				continue
			}
			answered[as] = true
			out := kmsg.NewDeleteTopicsResponseTopic()
			out.Topic, out.TopicID = asked[i].Topic, asked[i].TopicID
			t, err := topics[i], errs[i]
			if err == nil {
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

// deletion is how a request names a topic.
type deletion struct {
	name string
	id   [16]byte
}

func deletionOf(asked *kmsg.DeleteTopicsRequestTopic) deletion {
	return deletion{deref(asked.Topic), asked.TopicID}
}

// deletedTopics finds the topics that are to go, each with what forbids it.
func (h *Handlers) deletedTopics(asked []kmsg.DeleteTopicsRequestTopic, version int16) ([]*coordinator.Topic, []error) {
	topics, errs := make([]*coordinator.Topic, len(asked)), make([]error, len(asked))
	times := make(map[deletion]int, len(asked))
	named := make(map[[16]byte]int, len(asked))
	for i := range asked {
		times[deletionOf(&asked[i])]++
		if topics[i], errs[i] = h.deletedTopic(&asked[i], version); errs[i] == nil {
			named[topics[i].ID]++
		}
	}
	for i := range asked {
		if errs[i] == nil && named[topics[i].ID] > 1 || times[deletionOf(&asked[i])] > 1 && !errors.Is(errs[i], errDeletionDisabled) {
			errs[i] = fmt.Errorf("topic %q is named twice: %w", deref(asked[i].Topic), errRequest)
		}
	}
	return topics, errs
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
	h.deleteLogs(ctx, t)
	return nil
}
