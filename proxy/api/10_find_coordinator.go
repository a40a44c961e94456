package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// FindCoordinator: v0-6
//
//	v0: groups only
//	v1: key type (0 group, 1 transaction), error message, throttle time
//	v3: flexible
//	v4: many keys, one answer each (KIP-699)
//	v6: key type 2, share groups
//
// There are no coordinators of groups and transactions here: every key gets
// COORDINATOR_NOT_AVAILABLE, which clients retry.

func (h *Handlers) findCoordinator(r *proxy.Request, q *kmsg.FindCoordinatorRequest) {
	resp := q.ResponseKind().(*kmsg.FindCoordinatorResponse)
	code := protocol.CoordinatorNotAvailable
	if q.CoordinatorType < 0 || q.CoordinatorType > 2 || q.CoordinatorType == 2 && q.Version < 6 {
		code = protocol.InvalidRequest
	}
	if q.Version < 4 {
		resp.ErrorCode = int16(code)
		resp.ErrorMessage = message(code)
		resp.NodeID, resp.Port = -1, -1
		h.respond(r, resp)
		return
	}
	for _, key := range q.CoordinatorKeys {
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		c.Key = key
		c.NodeID, c.Port = -1, -1
		c.ErrorCode = int16(code)
		c.ErrorMessage = message(code)
		resp.Coordinators = append(resp.Coordinators, c)
	}
	h.respond(r, resp)
}
