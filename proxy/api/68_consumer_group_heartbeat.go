package api

import (
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator/group"
)

// ConsumerGroupHeartbeat: v0-1 (KIP-848)
//
//	v1: regular expressions; the client makes its member id (KIP-1082)
//
// Null fields mean: as in the heartbeat before. An error names no member.

func (h *Handlers) consumerGroupHeartbeat(p *parked, q *kmsg.ConsumerGroupHeartbeatRequest) {
	r := &group.ConsumerHeartbeatRequest{
		MemberID: q.MemberID, MemberEpoch: q.MemberEpoch, RequireMemberID: q.Version >= 1,
		InstanceID: q.InstanceID, RackID: q.RackID,
		ClientID: strings.Clone(p.r.ClientID), ClientHost: clientHost(p.r),
		RebalanceTimeout:     millis(q.RebalanceTimeoutMillis),
		SubscribedTopicNames: q.SubscribedTopicNames, SubscribedTopicRegex: q.SubscribedTopicRegex,
		ServerAssignor: q.ServerAssignor,
	}
	if q.Topics != nil {
		r.OwnedTopicPartitions = make([]group.TopicPartitions, len(q.Topics))
	}
	for i := range q.Topics {
		r.OwnedTopicPartitions[i] = group.TopicPartitions{Topic: q.Topics[i].TopicID, Partitions: q.Topics[i].Partitions}
	}
	if !p.wait() {
		return
	}
	resp := q.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
	h.c.Coordinator.Groups().ConsumerHeartbeat(q.Group, r, func(a *group.ConsumerHeartbeatResponse) {
		if p.elsewhere(a.Err) {
			return
		}
		code := groupErrors.code(a.Err)
		resp.ErrorCode = int16(code)
		resp.ErrorMessage = text(a.Err)
		if a.Err == nil {
			resp.MemberID = &a.MemberID
		}
		resp.MemberEpoch = a.MemberEpoch
		resp.HeartbeatIntervalMillis = int32(a.HeartbeatInterval / time.Millisecond)
		if a.Assignment != nil {
			resp.Assignment = new(kmsg.ConsumerGroupHeartbeatResponseAssignment)
			for _, t := range *a.Assignment {
				resp.Assignment.Topics = append(resp.Assignment.Topics, kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{TopicID: t.Topic, Partitions: t.Partitions})
			}
		}
		p.respond(resp)
	})
}
