package api

import (
	"bytes"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/protocol"
)

// JoinGroup: v0-9
//
//	v0: no rebalance timeout; the session timeout is it
//	v2: throttle time
//	v4: a member without an id is given one and joins again with it (KIP-394)
//	v5: instance ids (KIP-345)
//	v6: flexible
//	v7: protocol type; a protocol that is not chosen is null, before: "", which
//	    is how kmsg writes null there
//	v8: reason
//	v9: skip_assignment (KIP-814)
//
// The answer comes when the group has its members.

func (h *Handlers) joinGroup(p *parked, q *kmsg.JoinGroupRequest) {
	r := &group.JoinGroupRequest{
		MemberID: q.MemberID, InstanceID: deref(q.InstanceID),
		ClientID: strings.Clone(p.r.ClientID), ClientHost: clientHost(p.r),
		SessionTimeout:         millis(q.SessionTimeoutMillis),
		RebalanceTimeout:       millis(q.RebalanceTimeoutMillis),
		ProtocolType:           q.ProtocolType,
		Protocols:              make([]group.Protocol, len(q.Protocols)),
		RequireKnownMember:     q.Version >= 4,
		SupportsSkipAssignment: q.Version >= 9,
	}
	if q.Version == 0 {
		r.RebalanceTimeout = r.SessionTimeout
	}
	for i := range q.Protocols {
		r.Protocols[i] = group.Protocol{Name: q.Protocols[i].Name, Metadata: bytes.Clone(q.Protocols[i].Metadata)}
	}
	id, version := q.Group, q.Version
	p.refuse = func(code protocol.Code) kmsg.Response {
		return joinResponse(version, code, &group.JoinGroupResponse{Generation: -1, MemberID: r.MemberID})
	}
	if !p.wait() {
		return
	}
	h.c.Coordinator.Groups().Join(id, r, func(a *group.JoinGroupResponse) {
		if p.elsewhere(a.Err) {
			return
		}
		p.respond(joinResponse(version, groupErrors.code(a.Err), a))
	})
}

func joinResponse(version int16, code protocol.Code, a *group.JoinGroupResponse) kmsg.Response {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.Version = version
	resp.ErrorCode = int16(code)
	resp.Generation = a.Generation
	resp.LeaderID, resp.MemberID = a.LeaderID, a.MemberID
	resp.SkipAssignment = a.SkipAssignment
	if code == protocol.None {
		resp.ProtocolType, resp.Protocol = &a.ProtocolType, &a.ProtocolName
	}
	resp.Members = make([]kmsg.JoinGroupResponseMember, len(a.Members))
	for i := range a.Members {
		m := &resp.Members[i]
		m.Default()
		m.MemberID, m.InstanceID, m.ProtocolMetadata = a.Members[i].MemberID, instance(a.Members[i].InstanceID), a.Members[i].Metadata
	}
	return resp
}

// deref is a string that may be null.
func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// instance is an instance id as clients see it: no id is null.
func instance(id string) *string {
	if id == "" {
		return nil
	}
	return &id
}

// millis is a duration as requests have it.
func millis(ms int32) time.Duration { return time.Duration(ms) * time.Millisecond }
