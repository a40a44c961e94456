package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/offsets"
	"github.com/quirelog/quire/protocol"
)

// OffsetCommit: v0-10
//
//	v0: from the days when offsets were ZooKeeper's; stored as any other
//	v1: generation and member; the client's time of the commit
//	v2: the client's retention, in the place of the time (to v4)
//	v3: throttle time
//	v6: leader epoch (KIP-320)
//	v7: instance ids (KIP-345)
//	v8: flexible
//	v9: member epochs of the consumer protocol (KIP-848)
//	v10: topic ids in the place of names
//
// A partition that does not exist, or metadata that is too long, is the
// partition's error; what the group does not allow is that of all others.

func (h *Handlers) offsetCommit(p *parked, q *kmsg.OffsetCommitRequest) {
	resp := q.ResponseKind().(*kmsg.OffsetCommitResponse)
	resp.Topics = make([]kmsg.OffsetCommitResponseTopic, len(q.Topics))
	var commits []coordinator.NewCommit
	for i := range q.Topics {
		asked, out := &q.Topics[i], &resp.Topics[i]
		out.Default()
		out.Topic, out.TopicID = asked.Topic, asked.TopicID
		out.Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(asked.Partitions))
		topic, missing := h.topicOf(q.Version >= 10, asked.Topic, asked.TopicID)
		for j := range asked.Partitions {
			a, o := &asked.Partitions[j], &out.Partitions[j]
			o.Default()
			o.Partition = a.Partition
			switch {
			case topic == nil:
				o.ErrorCode = int16(missing)
			case a.Partition < 0 || a.Partition >= topic.Partitions:
				o.ErrorCode = int16(protocol.UnknownTopicOrPartition)
			case len(deref(a.Metadata)) > h.c.MaxOffsetMetadataBytes:
				o.ErrorCode = int16(protocol.OffsetMetadataTooLarge)
			default:
				commits = append(commits, newCommit(q, a, topic.ID))
			}
		}
	}
	if !p.wait() {
		return
	}
	if len(commits) == 0 {
		p.respond(resp)
		return
	}
	who := group.CommitIdentity{MemberID: q.MemberID, InstanceID: deref(q.InstanceID), Epoch: q.Generation, EpochIsMember: q.Version >= 9}
	if q.Version == 0 {
		who = group.CommitIdentity{Epoch: -1}
	}
	h.c.Coordinator.Groups().Commit(q.Group, &who, commits, p.wanted, func(err error) {
		if p.elsewhere(err) {
			return
		}
		if code := int16(groupErrors.code(err)); code != 0 {
			for i := range resp.Topics {
				for j := range resp.Topics[i].Partitions {
					if o := &resp.Topics[i].Partitions[j]; o.ErrorCode == 0 {
						o.ErrorCode = code
					}
				}
			}
		}
		p.respond(resp)
	})
}

func newCommit(q *kmsg.OffsetCommitRequest, a *kmsg.OffsetCommitRequestTopicPartition, topic offsets.TopicID) coordinator.NewCommit {
	c := coordinator.NewCommit{
		Partition: offsets.Partition{Topic: topic, Partition: a.Partition},
		Offset:    a.Offset, LeaderEpoch: -1, Metadata: deref(a.Metadata),
		CommitTime: -1, Retention: -1,
	}
	if q.Version >= 6 {
		c.LeaderEpoch = a.LeaderEpoch
	}
	if q.Version == 1 {
		c.CommitTime = a.Timestamp
	}
	if q.Version >= 2 && q.Version <= 4 {
		c.Retention = q.RetentionTimeMillis
	}
	return c
}

// topicOf finds a topic by its id or its name. Without one it returns the code
// that says so.
func (h *Handlers) topicOf(byID bool, name string, id [16]byte) (*coordinator.Topic, protocol.Code) {
	if byID {
		return h.c.Coordinator.TopicByID(id), protocol.UnknownTopicID
	}
	return h.c.Coordinator.Topic(name), protocol.UnknownTopicOrPartition
}
