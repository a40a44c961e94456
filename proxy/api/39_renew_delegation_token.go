package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// RenewDelegationToken: v0-2
//
//	v2: flexible
//
// Refused as CreateDelegationToken is.

func (h *Handlers) renewDelegationToken(r *proxy.Request, q *kmsg.RenewDelegationTokenRequest) {
	resp := q.ResponseKind().(*kmsg.RenewDelegationTokenResponse)
	resp.ErrorCode, resp.ExpiryTimestamp = int16(protocol.DelegationTokenRequestNotAllowed), -1
	h.respond(r, resp)
}
