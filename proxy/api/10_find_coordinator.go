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
// The address is that of the listener by which the client came. A transactional id has
// the coordinator that a group of that name has; it knows no transactions, which
// it tells tools that ask (DescribeTransactions), and lets no producer begin one
// (InitProducerId). There is no coordinator of share groups: their keys get
// COORDINATOR_NOT_AVAILABLE, which clients retry.

// The key types of FindCoordinator.
const (
	coordinatorOfGroups       = 0
	coordinatorOfTransactions = 1
	coordinatorOfShares       = 2
)

func (h *Handlers) findCoordinator(r *proxy.Request, q *kmsg.FindCoordinatorRequest) {
	resp := q.ResponseKind().(*kmsg.FindCoordinatorResponse)
	if q.Version < 4 {
		b, code := h.coordinatorOf(r, q, q.CoordinatorKey)
		resp.ErrorCode = int16(code)
		resp.ErrorMessage = coordinatorMessage(q.Version, code)
		resp.NodeID, resp.Host, resp.Port = b.id, b.host, b.port
		h.respond(r, resp)
		return
	}
	resp.Coordinators = make([]kmsg.FindCoordinatorResponseCoordinator, len(q.CoordinatorKeys))
	for i, key := range q.CoordinatorKeys {
		b, code := h.coordinatorOf(r, q, key)
		c := &resp.Coordinators[i]
		c.Default()
		c.Key = key
		c.NodeID, c.Host, c.Port = b.id, b.host, b.port
		c.ErrorCode = int16(code)
		c.ErrorMessage = coordinatorMessage(q.Version, code)
	}
	h.respond(r, resp)
}

// coordinatorMessage is never null: without an error it is "NONE" for one key,
// and empty where there are many (FindCoordinatorResponse.java).
func coordinatorMessage(version int16, code protocol.Code) *string {
	switch {
	case code != protocol.None:
		return message(code)
	case version < 4:
		return kmsg.StringPtr("NONE")
	default:
		return kmsg.StringPtr("")
	}
}

// coordinatorOf returns the node that coordinates a key, as clients of the
// request's listener reach it; with a code, no node.
func (h *Handlers) coordinatorOf(r *proxy.Request, q *kmsg.FindCoordinatorRequest, key string) (broker, protocol.Code) {
	none := broker{id: -1, port: -1}
	switch {
	case q.CoordinatorType < coordinatorOfGroups || q.CoordinatorType > coordinatorOfShares,
		q.CoordinatorType == coordinatorOfShares && q.Version < 6:
		return none, protocol.InvalidRequest
	case q.CoordinatorType == coordinatorOfShares:
		return none, protocol.CoordinatorNotAvailable
	}
	if h.proxied(r.Listener()) {
		e, ok := h.virtualEndpoint(r.Listener())
		if !ok {
			return none, protocol.CoordinatorNotAvailable
		}
		return broker{id: virtualNode, host: e.Host, port: e.Port}, protocol.None
	}
	id, ok := h.c.Coordinator.Groups().Owner(key)
	if !ok {
		return none, protocol.CoordinatorNotAvailable
	}
	node, ok := h.c.Coordinator.Node(id)
	if !ok {
		return none, protocol.CoordinatorNotAvailable
	}
	e, ok := node.Listeners[r.Listener()]
	if !ok {
		return none, protocol.CoordinatorNotAvailable
	}
	return broker{id: id, host: e.Host, port: e.Port}, protocol.None
}
