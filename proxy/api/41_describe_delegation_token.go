package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// DescribeDelegationToken: v0-3
//
//	v2: flexible
//	v3: requester of the token (KIP-373)
//
// Refused as CreateDelegationToken is.

func (h *Handlers) describeDelegationToken(r *proxy.Request, q *kmsg.DescribeDelegationTokenRequest) {
	resp := q.ResponseKind().(*kmsg.DescribeDelegationTokenResponse)
	resp.ErrorCode = int16(protocol.DelegationTokenRequestNotAllowed)
	h.respond(r, resp)
}
