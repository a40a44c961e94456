package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// ExpireDelegationToken: v0-2
//
//	v2: flexible
//
// Refused as CreateDelegationToken is.

func (h *Handlers) expireDelegationToken(r *proxy.Request, q *kmsg.ExpireDelegationTokenRequest) {
	resp := q.ResponseKind().(*kmsg.ExpireDelegationTokenResponse)
	resp.ErrorCode, resp.ExpiryTimestamp = int16(protocol.DelegationTokenRequestNotAllowed), -1
	h.respond(r, resp)
}
