package api

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// Metadata: v0-13
//
//	v0: an empty list asks for all topics; from v1 on null does, and an empty list for none
//	v1: rack, controller, is_internal
//	v2: cluster id
//	v4: the request says whether topics may be created; before, they always may
//	v5: offline replicas
//	v6: a listener that a leader lacks is LISTENER_NOT_FOUND, before: LEADER_NOT_AVAILABLE
//	v7: leader epoch
//	v8: authorized operations (of the cluster up to v10)
//	v9: flexible
//	v10: topic ids (KIP-516), in requests from v12 on; before, one id or null name is
//	    the error of all topics, and no broker is told
//	v12: where one topic is asked for by its id, those asked for by name are left out
//	v13: top-level error
//
// A topic that is created on demand is made before the answer leaves, so that
// clients need not come back for it.

const (
	// metadataInline is how many partitions are answered on the loop, and
	// metadataListed how many topics are put in order there; more take a worker.
	metadataInline = 2048
	metadataListed = 512

	// authorizedTopic and authorizedCluster are what everybody may do while
	// there is no authorizer: bit n is operation n of Kafka's AclOperation.
	authorizedTopic   = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	authorizedCluster = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12
)

func (h *Handlers) metadata(r *proxy.Request, q *kmsg.MetadataRequest) {
	m := metadataAnswer{h: h, q: q, resp: q.ResponseKind().(*kmsg.MetadataResponse), listener: r.Listener()}
	byID := slices.ContainsFunc(q.Topics, func(t kmsg.MetadataRequestTopic) bool { return t.TopicID != [16]byte{} })
	if q.Version < 12 && (byID || slices.ContainsFunc(q.Topics, func(t kmsg.MetadataRequestTopic) bool { return t.Topic == nil })) {
		m.resp.ControllerID = -1
		for i := range q.Topics {
			m.refuse(q.Topics[i].Topic, q.Topics[i].TopicID, protocol.InvalidRequest)
		}
		h.respond(r, m.resp)
		return
	}
	if byID {
		q.Topics = slices.DeleteFunc(q.Topics, func(t kmsg.MetadataRequestTopic) bool { return t.TopicID == [16]byte{} })
	}
	m.brokers, m.resp.ControllerID = h.brokers(r.Listener())
	for _, b := range m.brokers {
		out := kmsg.NewMetadataResponseBroker()
		out.NodeID, out.Host, out.Port, out.Rack = b.id, b.host, b.port, b.rack
		m.resp.Brokers = append(m.resp.Brokers, out)
	}
	m.resp.ClusterID = kmsg.StringPtr(h.c.Coordinator.ClusterID())
	if q.IncludeClusterAuthorizedOperations {
		m.resp.AuthorizedOperations = authorizedCluster
	}

	all := q.Topics == nil || q.Version == 0 && len(q.Topics) == 0
	if all && h.c.Coordinator.NumTopics() > metadataListed {
		r.Go(func() {
			m.topics = h.c.Coordinator.Topics()
			m.answer(r)
		})
		return
	}
	if all {
		m.topics = h.c.Coordinator.Topics()
	} else {
		m.find()
	}
	partitions := 0
	for _, t := range m.topics {
		partitions += int(t.Partitions)
	}
	switch {
	case len(m.missing) > 0:
		r.GoSlow(func() {
			ctx, cancel := h.timeout(defaultTimeout)
			defer cancel()
			m.create(ctx)
			m.answer(r)
		})
	case partitions > metadataInline:
		r.Go(func() { m.answer(r) })
	default:
		m.answer(r)
	}
}

// metadataAnswer is a Metadata answer in the making.
type metadataAnswer struct {
	h        *Handlers
	q        *kmsg.MetadataRequest
	resp     *kmsg.MetadataResponse
	listener string
	brokers  []broker
	topics   []*coordinator.Topic // to be described
	missing  []string             // to be created
}

// find looks for the topics asked for, each once, and answers those that
// neither are there nor are to be created.
func (m *metadataAnswer) find() {
	creates := m.h.c.AutoCreateTopics && (m.q.Version < 4 || m.q.AllowAutoTopicCreation)
	type ref struct {
		id   [16]byte
		name string
	}
	seen := make(map[ref]bool, len(m.q.Topics))
	for i := range m.q.Topics {
		asked := &m.q.Topics[i]
		id := ref{id: asked.TopicID}
		if id == (ref{}) {
			if asked.Topic == nil {
				m.refuse(nil, asked.TopicID, protocol.InvalidRequest)
				continue
			}
			id.name = *asked.Topic
		}
		if seen[id] {
			continue
		}
		seen[id] = true
		var t *coordinator.Topic
		if id.name == "" && asked.TopicID != [16]byte{} {
			if t = m.h.c.Coordinator.TopicByID(asked.TopicID); t == nil {
				m.refuse(nil, asked.TopicID, protocol.UnknownTopicID)
				continue
			}
		} else {
			t = m.h.c.Coordinator.Topic(id.name)
		}
		switch {
		case t != nil:
			m.topics = append(m.topics, t)
		case creates:
			m.missing = append(m.missing, id.name)
		case coordinator.CheckTopicName(id.name) != nil:
			m.refuse(&id.name, asked.TopicID, protocol.InvalidTopicException)
		default:
			m.refuse(&id.name, asked.TopicID, protocol.UnknownTopicOrPartition)
		}
	}
}

// create makes the topics that are missing. It may block.
func (m *metadataAnswer) create(ctx context.Context) {
	topics := make([]coordinator.NewTopic, len(m.missing))
	for i, name := range m.missing {
		topics[i] = coordinator.NewTopic{Name: name, Partitions: -1, ReplicationFactor: -1}
	}
	made, errs := m.h.c.Coordinator.CreateTopics(ctx, topics, false)
	for i := range m.missing {
		t, err := made[i], errs[i]
		if err != nil {
			// Somebody else may have been faster.
			t = m.h.c.Coordinator.Topic(m.missing[i])
		}
		if t != nil {
			m.topics = append(m.topics, t)
		} else {
			m.refuse(&m.missing[i], [16]byte{}, metadataErrors.code(err))
		}
	}
}

func (m *metadataAnswer) refuse(name *string, id [16]byte, code protocol.Code) {
	t := kmsg.NewMetadataResponseTopic()
	t.Topic, t.TopicID = name, id
	if t.Topic == nil && m.q.Version < 12 {
		t.Topic = kmsg.StringPtr("")
	}
	t.ErrorCode = int16(code)
	if name != nil {
		t.IsInternal = isInternal(*name)
	}
	m.resp.Topics = append(m.resp.Topics, t)
}

// answer describes the topics, and sends the answer.
func (m *metadataAnswer) answer(r *proxy.Request) {
	for _, t := range m.topics {
		m.resp.Topics = append(m.resp.Topics, m.describeTopic(t))
	}
	m.h.respond(r, m.resp)
}

func (m *metadataAnswer) describeTopic(t *coordinator.Topic) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	out.Topic = kmsg.StringPtr(t.Name)
	out.TopicID = t.ID
	out.IsInternal = isInternal(t.Name)
	if m.q.IncludeTopicAuthorizedOperations {
		out.AuthorizedOperations = authorizedTopic
	}
	out.Partitions = make([]kmsg.MetadataResponseTopicPartition, t.Partitions)
	for i := range out.Partitions {
		p := &out.Partitions[i]
		p.Default()
		s := m.h.partitionState(m.listener, t, int32(i), m.brokers)
		p.Partition = int32(i)
		p.ErrorCode = int16(s.code)
		if s.code == protocol.ListenerNotFound && m.q.Version < 6 {
			p.ErrorCode = int16(protocol.LeaderNotAvailable)
		}
		p.Leader, p.LeaderEpoch = s.leader, s.epoch
		p.Replicas, p.ISR = s.replicas, s.replicas
	}
	return out
}

// isInternal says whether a topic is Kafka's own (Topic.java).
func isInternal(name string) bool {
	return strings.HasPrefix(name, "__") &&
		(name == "__consumer_offsets" || name == "__transaction_state" || name == "__share_group_state")
}
