package api

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
)

const (
	// findTimeout bounds how long a request waits for topics that this node does not
	// know to be looked for.
	findTimeout = 2 * time.Second
	// maxFound bounds how many topics one request has looked for: what is made in one
	// go is at most a page of names, and the watch is not far behind.
	maxFound = 512
)

// topicRef is how a request names a topic.
type topicRef struct {
	name       string // empty: by id
	id         [16]byte
	partitions int32 // that the topic should have
	newest     bool  // the request is about what another node may have changed just now
}

// withTopics calls then when the topics that a request names are known as they
// are: what another node has made, and this one does not know of since the watch has
// not brought it, is looked for in the metadata store, once. So a client which
// makes a topic and asks for it by way of another node finds it. What is asked about a
// topic's configuration or its end is looked up in any case.
func (h *Handlers) withTopics(r *proxy.Request, q kmsg.Request, then func()) {
	refs := h.topicsToFind(q)
	if len(refs) == 0 {
		then()
		return
	}
	r.GoSlow(func() {
		h.findTopics(refs)
		then()
	})
}

// topicsToFind are the topics of a request that are to be looked for.
func (h *Handlers) topicsToFind(q kmsg.Request) []topicRef {
	if h.alone() {
		return nil
	}
	var refs []topicRef
	eachTopic(q, func(ref topicRef) {
		if len(refs) < maxFound && (ref.newest || !h.knows(ref)) {
			refs = append(refs, ref)
		}
	})
	return refs
}

func (h *Handlers) knows(ref topicRef) bool {
	var t *coordinator.Topic
	if ref.name == "" {
		t = h.c.Coordinator.TopicByID(ref.id)
	} else {
		t = h.c.Coordinator.Topic(ref.name)
	}
	return t != nil && ref.partitions <= t.Partitions
}

// findTopics looks for topics. Those that are not found, for whatever reason,
// stay as they are known here. It blocks.
func (h *Handlers) findTopics(refs []topicRef) {
	ctx, cancel := h.timeout(findTimeout)
	defer cancel()
	forEach(len(refs), func(i int) {
		if refs[i].name == "" {
			_, _ = h.c.Coordinator.FindTopicByID(ctx, refs[i].id)
		} else if coordinator.CheckTopicName(refs[i].name) == nil {
			_, _ = h.c.Coordinator.FindTopic(ctx, refs[i].name)
		}
	})
}

// eachTopic tells the topics that a request names.
func eachTopic(q kmsg.Request, found func(topicRef)) {
	name := func(topic string, newest bool) { found(topicRef{name: topic, newest: newest}) }
	switch q := q.(type) {
	case *kmsg.ListOffsetsRequest:
		for i := range q.Topics {
			for j := range q.Topics[i].Partitions {
				found(topicRef{name: q.Topics[i].Topic, partitions: q.Topics[i].Partitions[j].Partition + 1})
			}
		}
	case *kmsg.MetadataRequest:
		for i := range q.Topics {
			if q.Topics[i].Topic != nil || q.Topics[i].TopicID != [16]byte{} {
				found(topicRef{name: deref(q.Topics[i].Topic), id: q.Topics[i].TopicID})
			}
		}
	case *kmsg.OffsetCommitRequest:
		for i := range q.Topics {
			t := &q.Topics[i]
			ref := topicRef{name: t.Topic, id: t.TopicID}
			for j := range t.Partitions {
				ref.partitions = max(ref.partitions, t.Partitions[j].Partition+1)
			}
			found(ref)
		}
	case *kmsg.OffsetFetchRequest:
		for i := range q.Groups {
			for j := range q.Groups[i].Topics {
				if t := &q.Groups[i].Topics[j]; q.Version >= 10 {
					found(topicRef{id: t.TopicID})
				}
			}
		}
	case *kmsg.OffsetDeleteRequest:
		for i := range q.Topics {
			name(q.Topics[i].Topic, false)
		}
	case *kmsg.DeleteTopicsRequest:
		for _, topic := range q.TopicNames {
			name(topic, true)
		}
		for i := range q.Topics {
			found(topicRef{name: deref(q.Topics[i].Topic), id: q.Topics[i].TopicID, newest: true})
		}
	case *kmsg.DeleteRecordsRequest:
		for i := range q.Topics {
			for j := range q.Topics[i].Partitions {
				found(topicRef{name: q.Topics[i].Topic, partitions: q.Topics[i].Partitions[j].Partition + 1})
			}
		}
	case *kmsg.OffsetForLeaderEpochRequest:
		for i := range q.Topics {
			name(q.Topics[i].Topic, false)
		}
	case *kmsg.DescribeConfigsRequest:
		for i := range q.Resources {
			if q.Resources[i].ResourceType == kmsg.ConfigResourceTypeTopic {
				name(q.Resources[i].ResourceName, true)
			}
		}
	case *kmsg.AlterConfigsRequest:
		for i := range q.Resources {
			if q.Resources[i].ResourceType == kmsg.ConfigResourceTypeTopic {
				name(q.Resources[i].ResourceName, false)
			}
		}
	case *kmsg.IncrementalAlterConfigsRequest:
		for i := range q.Resources {
			if q.Resources[i].ResourceType == kmsg.ConfigResourceTypeTopic {
				name(q.Resources[i].ResourceName, false)
			}
		}
	case *kmsg.AlterReplicaLogDirsRequest:
		for i := range q.Dirs {
			for j := range q.Dirs[i].Topics {
				name(q.Dirs[i].Topics[j].Topic, false)
			}
		}
	case *kmsg.DescribeLogDirsRequest:
		for i := range q.Topics {
			name(q.Topics[i].Topic, false)
		}
	case *kmsg.CreatePartitionsRequest:
		for i := range q.Topics {
			name(q.Topics[i].Topic, true)
		}
	case *kmsg.ElectLeadersRequest:
		for i := range q.Topics {
			name(q.Topics[i].Topic, false)
		}
	case *kmsg.AlterPartitionAssignmentsRequest:
		for i := range q.Topics {
			name(q.Topics[i].Topic, false)
		}
	case *kmsg.DescribeProducersRequest:
		for i := range q.Topics {
			name(q.Topics[i].Topic, false)
		}
	case *kmsg.DescribeTopicPartitionsRequest:
		for i := range q.Topics {
			name(q.Topics[i].Topic, false)
		}
	}
}

// deleteLogs deletes the logs of a topic that is gone for good. Ledgers that stay
// behind after an error belong to no topic and are collected as such.
func (h *Handlers) deleteLogs(ctx context.Context, t *coordinator.Topic) {
	if err := h.c.Store.DeleteLogs(ctx, t.ID, t.Partitions); err != nil {
		h.c.Logger.Warn("delete the logs of a deleted topic", zap.String("topic", t.Name), zap.Error(err))
	}
}
