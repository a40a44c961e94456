package api

import (
	"strings"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// ConsumerGroupHeartbeat: v0-1 (KIP-848)
//
//	v1: regular expressions; the client makes its member id (KIP-1082)
//
// Null fields mean: as in the heartbeat before. An error names no member. Nearly all
// are null in nearly all heartbeats, which are answered as those of the classic
// protocol are.

func (h *Handlers) consumerGroupHeartbeat(r *proxy.Request) {
	if len(r.Body) > inlineBytes || !h.servesGroup(r) || !h.consumerGroupHeartbeatNow(r) {
		waiting((*Handlers).consumerGroupHeartbeatLater)(h, r)
	}
}

// consumerGroupHeartbeatNow answers at once, or returns false and has done nothing.
func (h *Handlers) consumerGroupHeartbeatNow(r *proxy.Request) bool {
	s := heartbeatScratchOf(r)
	q, ask := &s.consumer, &s.ask
	// What they point to lies in the frame, which outlives them: nothing keeps it.
	defer func() { *q, *ask = kmsg.ConsumerGroupHeartbeatRequest{}, group.ConsumerHeartbeatRequest{} }()
	q.Version = r.Version
	if protocol.CheckRequest(r.Key, r.Version, r.Body) != nil || q.UnsafeReadFrom(r.Body) != nil || q.Topics != nil {
		return false
	}
	s.host = appendClientHost(s.host[:0], r)
	consumerHeartbeat(ask, q, r.ClientID, unsafe.String(unsafe.SliceData(s.host), len(s.host)))
	a, ok := h.c.Coordinator.Groups().ConsumerHeartbeatNow(q.Group, ask)
	if !ok {
		return false
	}
	s.consumerResp = kmsg.ConsumerGroupHeartbeatResponse{Version: r.Version}
	tellConsumerHeartbeat(&s.consumerResp, a)
	s.respond(r, &s.consumerResp)
	return true
}

// consumerHeartbeat makes what the group is asked, but for what the member has.
func consumerHeartbeat(r *group.ConsumerHeartbeatRequest, q *kmsg.ConsumerGroupHeartbeatRequest, clientID, clientHost string) {
	*r = group.ConsumerHeartbeatRequest{
		MemberID: q.MemberID, MemberEpoch: q.MemberEpoch, RequireMemberID: q.Version >= 1,
		InstanceID: q.InstanceID, RackID: q.RackID,
		ClientID: clientID, ClientHost: clientHost,
		RebalanceTimeout:     millis(q.RebalanceTimeoutMillis),
		SubscribedTopicNames: q.SubscribedTopicNames, SubscribedTopicRegex: q.SubscribedTopicRegex,
		ServerAssignor: q.ServerAssignor,
	}
}

func tellConsumerHeartbeat(resp *kmsg.ConsumerGroupHeartbeatResponse, a *group.ConsumerHeartbeatResponse) {
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
}

func (h *Handlers) consumerGroupHeartbeatLater(p *parked, q *kmsg.ConsumerGroupHeartbeatRequest) {
	r := new(group.ConsumerHeartbeatRequest)
	consumerHeartbeat(r, q, strings.Clone(p.r.ClientID), clientHost(p.r))
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
		tellConsumerHeartbeat(resp, a)
		p.respond(resp)
	})
}
