package api

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// DescribeTopicPartitions: v0
//
// Topics come by name, at most a page of partitions at a time; the cursor names
// the first partition of the next page (KIP-966).

// describedPartitions is the longest page, max.request.partition.size.limit.
const describedPartitions = 2000

func (h *Handlers) describeTopicPartitions(r *proxy.Request, q *kmsg.DescribeTopicPartitionsRequest) {
	r.Go(func() { h.respond(r, h.describePage(r.Listener(), q)) })
}

func (h *Handlers) describePage(listener string, q *kmsg.DescribeTopicPartitionsRequest) *kmsg.DescribeTopicPartitionsResponse {
	resp := q.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	names := make([]string, 0, len(q.Topics))
	for i := range q.Topics {
		names = append(names, q.Topics[i].Topic)
	}
	all := len(names) == 0
	if all {
		for _, t := range h.c.Coordinator.Topics() {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)

	first := int32(0) // partition of the first topic
	if c := q.Cursor; c != nil {
		at, found := slices.BinarySearch(names, c.Topic)
		if c.Partition < 0 || !found && !all {
			for _, name := range names {
				resp.Topics = append(resp.Topics, describeRefused(name, protocol.InvalidRequest))
			}
			return resp
		}
		names = names[at:]
		if found {
			first = c.Partition
		}
	}

	brokers, _ := h.brokers(listener)
	left := min(max(q.ResponsePartitionLimit, 1), describedPartitions)
	for _, name := range names {
		if left == 0 {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: first}
			return resp
		}
		t := h.c.Coordinator.Topic(name)
		if t == nil {
			code := protocol.UnknownTopicOrPartition
			if coordinator.CheckTopicName(name) != nil {
				code = protocol.InvalidTopicException
			}
			resp.Topics = append(resp.Topics, describeRefused(name, code))
			first = 0
			continue
		}
		n := min(max(t.Partitions-first, 0), left)
		end := first + n
		resp.Topics = append(resp.Topics, h.describeTopic(listener, t, first, end, brokers))
		left -= n
		if end < t.Partitions {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: end}
			return resp
		}
		first = 0
	}
	return resp
}

func describeRefused(name string, code protocol.Code) kmsg.DescribeTopicPartitionsResponseTopic {
	t := kmsg.NewDescribeTopicPartitionsResponseTopic()
	t.Topic = kmsg.StringPtr(name)
	t.ErrorCode = int16(code)
	t.IsInternal = isInternal(name)
	if code == protocol.UnknownTopicOrPartition {
		t.AuthorizedOperations = authorizedTopic
	}
	return t
}

func (h *Handlers) describeTopic(listener string, t *coordinator.Topic, from, to int32, brokers []broker) kmsg.DescribeTopicPartitionsResponseTopic {
	out := kmsg.NewDescribeTopicPartitionsResponseTopic()
	out.Topic, out.TopicID = kmsg.StringPtr(t.Name), t.ID
	out.IsInternal = isInternal(t.Name)
	out.AuthorizedOperations = authorizedTopic
	for i := from; i < to; i++ {
		s := h.partitionState(listener, t, i, brokers)
		p := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		p.Partition, p.ErrorCode = i, int16(s.code)
		p.LeaderID, p.LeaderEpoch = s.leader, s.epoch
		p.Replicas, p.ISR = s.replicas, s.replicas
		// Nullable in the schema, but Java's admin client (3.9, 4.3) walks
		// both lists without looking.
		p.EligibleLeaderReplicas, p.LastKnownELR = []int32{}, []int32{}
		out.Partitions = append(out.Partitions, p)
	}
	return out
}
