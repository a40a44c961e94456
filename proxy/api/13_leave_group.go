package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator/group"
)

// LeaveGroup: v0-5
//
//	v1: throttle time
//	v3: many members, each with its own code (KIP-345); before, the one
//	    member's code is that of the answer
//	v4: flexible
//	v5: reason

func (h *Handlers) leaveGroup(p *parked, q *kmsg.LeaveGroupRequest) {
	if !p.wait() {
		return
	}
	r := new(group.LeaveGroupRequest)
	if q.Version < 3 {
		r.Members = []group.LeavingMember{{MemberID: q.MemberID}}
	}
	for i := range q.Members {
		r.Members = append(r.Members, group.LeavingMember{MemberID: q.Members[i].MemberID, InstanceID: deref(q.Members[i].InstanceID)})
	}
	resp := q.ResponseKind().(*kmsg.LeaveGroupResponse)
	h.c.Coordinator.Groups().Leave(q.Group, r, func(a *group.LeaveGroupResponse) {
		if p.elsewhere(a.Err) {
			return
		}
		resp.ErrorCode = int16(groupErrors.code(a.Err))
		for i := range a.Members {
			m := kmsg.NewLeaveGroupResponseMember()
			m.MemberID, m.InstanceID = a.Members[i].MemberID, instance(a.Members[i].InstanceID)
			m.ErrorCode = int16(groupErrors.code(a.Members[i].Err))
			if resp.Version < 3 && resp.ErrorCode == 0 {
				resp.ErrorCode = m.ErrorCode
			}
			resp.Members = append(resp.Members, m)
		}
		p.respond(resp)
	})
}
