package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator/group"
)

// ConsumerGroupDescribe: v0-1 (KIP-848)
//
//	v1: member types: 0 classic, 1 consumer (KIP-1099)
//
// A classic group is GROUP_ID_NOT_FOUND, which makes tools ask DescribeGroups.

func (h *Handlers) consumerGroupDescribe(p *parked, q *kmsg.ConsumerGroupDescribeRequest) {
	if !p.wait() {
		return
	}
	resp := q.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
	resp.Groups = make([]kmsg.ConsumerGroupDescribeResponseGroup, len(q.Groups))
	each(len(q.Groups), func() { p.respond(resp) }, func(i int, done func()) {
		out := &resp.Groups[i]
		out.Default()
		out.Group = q.Groups[i]
		h.c.Coordinator.Groups().DescribeConsumer(q.Groups[i], func(d *group.ConsumerDescription, err error) {
			out.ErrorCode, out.ErrorMessage = int16(groupErrors.code(err)), text(err)
			if err == nil {
				setConsumerDescription(out, d)
				if q.IncludeAuthorizedOperations {
					out.AuthorizedOperations = authorizedGroup
				}
			}
			done()
		})
	})
}

func setConsumerDescription(out *kmsg.ConsumerGroupDescribeResponseGroup, d *group.ConsumerDescription) {
	out.State, out.Epoch, out.AssignmentEpoch, out.AssignorName = string(d.State), d.Epoch, d.AssignmentEpoch, d.Assignor
	out.Members = make([]kmsg.ConsumerGroupDescribeResponseGroupMember, len(d.Members))
	for i := range d.Members {
		m, o := &d.Members[i], &out.Members[i]
		o.Default()
		o.MemberID, o.InstanceID, o.RackID = m.MemberID, instance(m.InstanceID), instance(m.RackID)
		o.ClientID, o.ClientHost = m.ClientID, m.ClientHost
		o.MemberEpoch = m.MemberEpoch
		o.SubscribedTopics, o.SubscribedTopicRegex = m.SubscribedTopicNames, &m.SubscribedTopicRegex // never null
		o.Assignment, o.TargetAssignment = describedAssignment(m.Assignment), describedAssignment(m.Target)
		o.MemberType = consumerMember
		if m.Classic {
			o.MemberType = classicMember
		}
	}
}

// The member types of ConsumerGroupDescribe.
const (
	classicMember  = 0
	consumerMember = 1
)

func describedAssignment(partitions []group.DescribedPartitions) kmsg.Assignment {
	var out kmsg.Assignment
	for i := range partitions {
		p := kmsg.NewAssignmentTopicPartition()
		p.TopicID, p.Topic, p.Partitions = partitions[i].Topic, partitions[i].Name, partitions[i].Partitions
		out.TopicPartitions = append(out.TopicPartitions, p)
	}
	return out
}
