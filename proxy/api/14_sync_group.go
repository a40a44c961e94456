package api

import (
	"bytes"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/protocol"
)

// SyncGroup: v0-5
//
//	v1: throttle time
//	v3: instance ids (KIP-345)
//	v4: flexible
//	v5: protocol type and name, which have to be there before anything else is looked
//	    at (KafkaApis), and to be the group's (KIP-559)
//
// The answer comes when the leader's assignment is durable.

func (h *Handlers) syncGroup(p *parked, q *kmsg.SyncGroupRequest) {
	r := &group.SyncGroupRequest{
		MemberID: q.MemberID, InstanceID: deref(q.InstanceID), Generation: q.Generation,
		RequireProtocol: q.Version >= 5, ProtocolType: deref(q.ProtocolType), ProtocolName: deref(q.Protocol),
		Assignments: make([]group.MemberAssignment, len(q.GroupAssignment)),
	}
	for i := range q.GroupAssignment {
		r.Assignments[i] = group.MemberAssignment{MemberID: q.GroupAssignment[i].MemberID, Assignment: bytes.Clone(q.GroupAssignment[i].MemberAssignment)}
	}
	id, version := q.Group, q.Version
	p.refuse = func(code protocol.Code) kmsg.Response {
		return syncResponse(version, code, new(group.SyncGroupResponse))
	}
	unnamed := version >= 5 && (q.ProtocolType == nil || q.Protocol == nil)
	if !p.wait() {
		return
	}
	if unnamed {
		p.respond(p.refuse(protocol.InconsistentGroupProtocol))
		return
	}
	h.c.Coordinator.Groups().Sync(id, r, func(a *group.SyncGroupResponse) {
		if p.elsewhere(a.Err) {
			return
		}
		p.respond(syncResponse(version, syncCode(a.Err), a))
	})
}

// syncCode is the code of a SyncGroup answer. While a group is loaded members are
// told to join again: clients of old do not know the code for it
// (GroupCoordinator.handleSyncGroup).
func syncCode(err error) protocol.Code {
	if errors.Is(err, group.ErrNotLoaded) {
		return protocol.RebalanceInProgress
	}
	return groupErrors.code(err)
}

func syncResponse(version int16, code protocol.Code, a *group.SyncGroupResponse) kmsg.Response {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.Version = version
	resp.ErrorCode = int16(code)
	if code == protocol.None {
		resp.ProtocolType, resp.Protocol = &a.ProtocolType, &a.ProtocolName
	}
	resp.MemberAssignment = a.Assignment
	return resp
}
