package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/offsets"
	"github.com/quirelog/quire/protocol"
)

// OffsetDelete: v0 (KIP-496), never flexible
//
// An error of the group is that of the answer, which then names no partitions.
// The group is not looked at if none of the partitions exists (KafkaApis).

func (h *Handlers) offsetDelete(p *parked, q *kmsg.OffsetDeleteRequest) {
	resp := q.ResponseKind().(*kmsg.OffsetDeleteResponse)
	resp.Topics = make([]kmsg.OffsetDeleteResponseTopic, len(q.Topics))
	var partitions []offsets.Partition
	var topics []string
	var outs []*kmsg.OffsetDeleteResponseTopicPartition // of partitions
	for i := range q.Topics {
		asked, out := &q.Topics[i], &resp.Topics[i]
		out.Topic = asked.Topic
		out.Partitions = make([]kmsg.OffsetDeleteResponseTopicPartition, len(asked.Partitions))
		topic := h.c.Coordinator.Topic(asked.Topic)
		for j := range asked.Partitions {
			o := &out.Partitions[j]
			o.Partition = asked.Partitions[j].Partition
			if topic == nil || o.Partition < 0 || o.Partition >= topic.Partitions {
				o.ErrorCode = int16(protocol.UnknownTopicOrPartition)
				continue
			}
			partitions = append(partitions, offsets.Partition{Topic: topic.ID, Partition: o.Partition})
			topics = append(topics, topic.Name)
			outs = append(outs, o)
		}
	}
	if !p.wait() {
		return
	}
	// Other requests about offsets take the empty id for a group like others
	// (GroupCoordinatorService.deleteOffsets).
	if q.Group == "" {
		resp.ErrorCode, resp.Topics = int16(protocol.InvalidGroupID), nil
		p.respond(resp)
		return
	}
	if len(partitions) == 0 {
		p.respond(resp)
		return
	}
	h.c.Coordinator.Groups().DeleteOffsets(q.Group, partitions, topics, func(errs []error, err error) {
		if p.elsewhere(err) {
			return
		}
		if err != nil {
			resp.ErrorCode, resp.Topics = int16(groupErrors.code(err)), nil
		}
		for i, err := range errs {
			outs[i].ErrorCode = int16(groupErrors.code(err))
		}
		p.respond(resp)
	})
}
