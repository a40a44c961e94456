package api

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
)

// AlterPartitionReassignments: v0-1
//
//	v1: the request says whether the replication factor may change (KIP-860)
//
// Who leads a partition is not chosen by hand, and its bytes lie with the ledger
// tier. To assign a partition the replicas that it has is done at once; others are
// refused, since they would never come true. As no reassignment is ever under
// way, there is none to cancel.

func (h *Handlers) alterPartitionReassignments(r *proxy.Request, q *kmsg.AlterPartitionAssignmentsRequest) {
	resp := q.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	resp.AllowReplicationFactorChange = q.AllowReplicationFactorChange
	brokers, _ := h.brokers(r.Listener())
	for i := range q.Topics {
		in := &q.Topics[i]
		out := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		out.Topic = in.Topic
		out.Partitions = make([]kmsg.AlterPartitionAssignmentsResponseTopicPartition, len(in.Partitions))
		t := h.c.Coordinator.Topic(in.Topic)
		for j := range in.Partitions {
			err := h.reassign(r.Listener(), t, &in.Partitions[j], brokers, q.Version < 1 || q.AllowReplicationFactorChange)
			p := &out.Partitions[j]
			p.Default()
			p.Partition = in.Partitions[j].Partition
			p.ErrorCode, p.ErrorMessage = int16(adminErrors.code(err)), text(err)
		}
		resp.Topics = append(resp.Topics, out)
	}
	h.respond(r, resp)
}

// reassign says what is wrong with the replicas that a partition should have.
func (h *Handlers) reassign(listener string, t *coordinator.Topic, p *kmsg.AlterPartitionAssignmentsRequestTopicPartition, brokers []broker, resize bool) error {
	switch {
	case t == nil:
		return coordinator.ErrUnknownTopic
	case p.Partition < 0 || p.Partition >= t.Partitions:
		return fmt.Errorf("partition %d of topic %q: %w", p.Partition, t.Name, errUnknownPartition)
	case p.Replicas == nil:
		return errNoReassignment
	}
	if err := h.checkReplicas(listener, [][]int32{p.Replicas}); err != nil {
		return err
	}
	now := h.partitionState(listener, t, p.Partition, brokers).replicas
	switch {
	case slices.Equal(p.Replicas, now):
		return nil
	case !resize && len(p.Replicas) != len(now):
		return fmt.Errorf("partition %d of topic %q has %d replicas, and the request does not allow to change that: %w",
			p.Partition, t.Name, len(now), coordinator.ErrInvalidReplication)
	}
	return fmt.Errorf("partition %d of topic %q has the replicas %v, which are not chosen by hand: %w",
		p.Partition, t.Name, now, coordinator.ErrInvalidAssignment)
}
