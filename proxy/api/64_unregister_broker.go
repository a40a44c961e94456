package api

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// UnregisterBroker: v0
//
// A node is registered while it lives and no longer: one that has gone is not, and one that
// lives would be back at once.

func (h *Handlers) unregisterBroker(r *proxy.Request, q *kmsg.UnregisterBrokerRequest) {
	resp := q.ResponseKind().(*kmsg.UnregisterBrokerResponse)
	if _, live := h.c.Coordinator.Node(q.BrokerID); live {
		err := fmt.Errorf("broker %d is alive: stop it, and it is registered no longer: %w", q.BrokerID, errRequest)
		resp.ErrorCode, resp.ErrorMessage = int16(adminErrors.code(err)), text(err)
	} else {
		resp.ErrorCode, resp.ErrorMessage = int16(protocol.BrokerIDNotRegistered), message(protocol.BrokerIDNotRegistered)
	}
	h.respond(r, resp)
}
