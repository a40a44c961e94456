package api

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
)

// CreateTopics: v0-7
//
//	v1: validate only, error message
//	v2: throttle time
//	v4: -1 partitions or replicas mean the broker's default (KIP-464); taken in all versions
//	v5: flexible; the answer tells partitions, replication factor and configs (KIP-525)
//	v6: strict controller mutation quotas
//	v7: topic ids
//
// An assignment is checked; its number of replicas counts and its nodes do not, for
// who leads a partition is not chosen by hand.

func (h *Handlers) createTopics(r *proxy.Request, q *kmsg.CreateTopicsRequest) {
	r.GoSlow(func() {
		ctx, cancel := h.timeoutMillis(q.TimeoutMillis)
		defer cancel()
		h.respond(r, h.createdTopics(ctx, r.Listener(), q))
	})
}

func (h *Handlers) createdTopics(ctx context.Context, listener string, q *kmsg.CreateTopicsRequest) *kmsg.CreateTopicsResponse {
	resp := q.ResponseKind().(*kmsg.CreateTopicsResponse)
	named := make(map[string]int, len(q.Topics))
	for i := range q.Topics {
		named[q.Topics[i].Topic]++
	}
	topics := make([]*coordinator.Topic, len(q.Topics))
	errs := make([]error, len(q.Topics))
	var (
		wanted []coordinator.NewTopic
		place  []int // of wanted, in q.Topics
	)
	for i := range q.Topics {
		in := &q.Topics[i]
		if named[in.Topic] > 1 {
			errs[i] = fmt.Errorf("topic %q is named twice: %w", in.Topic, errRequest)
			continue
		}
		n, err := h.newTopic(listener, in)
		if err != nil {
			errs[i] = err
			continue
		}
		wanted, place = append(wanted, n), append(place, i)
	}
	if len(wanted) > 0 {
		made, failed := h.c.Coordinator.CreateTopics(ctx, wanted, q.Version >= 1 && q.ValidateOnly)
		for k, i := range place {
			topics[i], errs[i] = made[k], failed[k]
		}
	}
	answered := make(map[string]bool, len(named))
	for i := range q.Topics {
		// As in Kafka, a topic named twice is answered once.
		if name := q.Topics[i].Topic; !answered[name] {
			answered[name] = true
			resp.Topics = append(resp.Topics, h.createdTopic(q, i, topics[i], errs[i]))
		}
	}
	return resp
}

func (h *Handlers) createdTopic(q *kmsg.CreateTopicsRequest, i int, t *coordinator.Topic, err error) kmsg.CreateTopicsResponseTopic {
	out := kmsg.NewCreateTopicsResponseTopic()
	out.Topic = q.Topics[i].Topic
	out.NumPartitions, out.ReplicationFactor = -1, -1
	if err != nil {
		out.ErrorCode, out.ErrorMessage = int16(adminErrors.code(err)), text(err)
		// Null would say that the settings may not be seen.
		out.Configs = []kmsg.CreateTopicsResponseTopicConfig{}
		return out
	}
	if !q.ValidateOnly {
		out.TopicID = t.ID
	}
	out.NumPartitions, out.ReplicationFactor = t.Partitions, t.ReplicationFactor
	if q.Version < 5 {
		return out
	}
	for _, c := range h.c.Coordinator.DescribeTopicConfig(t) {
		e := kmsg.NewCreateTopicsResponseTopicConfig()
		e.Name, e.Value, e.Source = c.Name, &c.Value, int8(c.Source)
		out.Configs = append(out.Configs, e)
	}
	return out
}

// newTopic checks what only a request can have wrong; the coordinator checks the rest.
func (h *Handlers) newTopic(listener string, in *kmsg.CreateTopicsRequestTopic) (coordinator.NewTopic, error) {
	n := coordinator.NewTopic{Name: in.Topic, Partitions: in.NumPartitions, ReplicationFactor: in.ReplicationFactor}
	if in.Topic == metadataTopic {
		return n, fmt.Errorf("topic %q is the controllers': %w", in.Topic, errRequest)
	}
	if len(in.Configs) > 0 {
		n.Config = make(map[string]string, len(in.Configs))
	}
	for _, c := range in.Configs {
		if c.Value == nil {
			return n, fmt.Errorf("topic %q: config %q has no value: %w", in.Topic, c.Name, coordinator.ErrInvalidConfig)
		}
		n.Config[c.Name] = *c.Value // As in Kafka, the last one counts.
	}
	if len(in.ReplicaAssignment) > 0 {
		if n.Partitions != -1 || n.ReplicationFactor != -1 {
			return n, fmt.Errorf("topic %q: with an assignment, partitions and replication factor must be -1: %w", in.Topic, errRequest)
		}
		return h.assignedTopic(listener, in, n)
	}
	return n, nil
}

// assignedTopic takes partitions and replication factor from an assignment,
// which must name each partition from 0 on once and as many replicas for each.
func (h *Handlers) assignedTopic(listener string, in *kmsg.CreateTopicsRequestTopic, n coordinator.NewTopic) (coordinator.NewTopic, error) {
	replicas := make([][]int32, len(in.ReplicaAssignment))
	for _, a := range in.ReplicaAssignment {
		if a.Partition < 0 || int(a.Partition) >= len(replicas) || replicas[a.Partition] != nil {
			return n, fmt.Errorf("topic %q: partitions must be assigned from 0 on, each once, and %d is not: %w",
				in.Topic, a.Partition, coordinator.ErrInvalidAssignment)
		}
		replicas[a.Partition] = append([]int32{}, a.Replicas...)
	}
	if err := h.checkReplicas(listener, replicas); err != nil {
		return n, fmt.Errorf("topic %q: %w", in.Topic, err)
	}
	n.Partitions, n.ReplicationFactor = int32(len(replicas)), int16(len(replicas[0]))
	return n, nil
}

// checkReplicas checks a manual assignment of partitions to nodes, which clients of
// a listener may know by other ids.
func (h *Handlers) checkReplicas(listener string, replicas [][]int32) error {
	live := map[int32]bool{h.idFor(listener): true, spareNode: h.proxied(listener)}
	for _, n := range h.c.Coordinator.Nodes() {
		live[n.ID] = true
	}
	for _, nodes := range replicas {
		if len(nodes) == 0 || len(nodes) != len(replicas[0]) {
			return fmt.Errorf("every partition needs the same number of replicas: %w", coordinator.ErrInvalidAssignment)
		}
		seen := make(map[int32]bool, len(nodes))
		for _, id := range nodes {
			if !live[id] {
				return fmt.Errorf("node %d is not known: %w", id, coordinator.ErrInvalidAssignment)
			}
			if seen[id] {
				return fmt.Errorf("node %d is named twice for one partition: %w", id, coordinator.ErrInvalidAssignment)
			}
			seen[id] = true
		}
	}
	return nil
}
