package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/proxy"
)

// ConsumerGroupDescribe: v0-1 (KIP-848)
//
//	v1: member types: 0 classic, 1 consumer (KIP-1099)
//
// A classic group is GROUP_ID_NOT_FOUND, which makes tools ask DescribeGroups.

func (h *Handlers) consumerGroupDescribe(p *parked, q *kmsg.ConsumerGroupDescribeRequest) {
	if p.wait() {
		h.describedConsumerGroups(q, p.respond)
	}
}

func (h *Handlers) describedConsumerGroups(q *kmsg.ConsumerGroupDescribeRequest, reply func(kmsg.Response)) {
	resp := q.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
	resp.Groups = make([]kmsg.ConsumerGroupDescribeResponseGroup, len(q.Groups))
	each(len(q.Groups), func() { reply(resp) }, func(i int, done func()) {
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

func (h *Handlers) consumerGroupDescribeOfMany(r *proxy.Request, q *kmsg.ConsumerGroupDescribeRequest) {
	whole := q.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
	whole.Groups = make([]kmsg.ConsumerGroupDescribeResponseGroup, len(q.Groups))
	h.answerSeveral(r, several{
		slots: groupSlots(q.Groups, itself), reads: true, whole: whole,
		part: func(items []int) kmsg.Request {
			part := *q
			part.Groups = chosen(q.Groups, items)
			return &part
		},
		here: func(q kmsg.Request, reply func(kmsg.Response)) {
			h.describedConsumerGroups(q.(*kmsg.ConsumerGroupDescribeRequest), reply)
		},
		answers: func(resp kmsg.Response) answers {
			part := resp.(*kmsg.ConsumerGroupDescribeResponse)
			return answers{len(part.Groups), func(k, i int) int16 {
				whole.Groups[i] = part.Groups[k]
				return part.Groups[k].ErrorCode
			}}
		},
		refuse: func(i int, why error) {
			out := &whole.Groups[i]
			out.Default()
			out.Group = q.Groups[i]
			out.ErrorCode, out.ErrorMessage = int16(groupErrors.code(why)), text(why)
		},
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
