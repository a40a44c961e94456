package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator/group"
)

// Heartbeat: v0-4
//
//	v1: throttle time
//	v3: instance ids (KIP-345)
//	v4: flexible

func (h *Handlers) heartbeat(p *parked, q *kmsg.HeartbeatRequest) {
	if !p.wait() {
		return
	}
	resp := q.ResponseKind().(*kmsg.HeartbeatResponse)
	r := &group.HeartbeatRequest{MemberID: q.MemberID, InstanceID: deref(q.InstanceID), Generation: q.Generation}
	h.c.Coordinator.Groups().Heartbeat(q.Group, r, func(err error) {
		resp.ErrorCode = int16(groupErrors.code(err))
		p.respond(resp)
	})
}
