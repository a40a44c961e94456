package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// CreateDelegationToken: v0-3
//
//	v2: flexible
//	v3: owner and requester (KIP-373)
//
// Tokens belong to authenticated clients, and nobody is authenticated: all four APIs
// of tokens say DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, as Kafka does on a PLAINTEXT
// listener whether tokens are enabled or not (KafkaApis.allowTokenRequests).

// The principal of everybody who is not authenticated.
const (
	principalType = "User"
	anonymous     = "ANONYMOUS"
)

func (h *Handlers) createDelegationToken(r *proxy.Request, q *kmsg.CreateDelegationTokenRequest) {
	resp := q.ResponseKind().(*kmsg.CreateDelegationTokenResponse)
	resp.ErrorCode = int16(protocol.DelegationTokenRequestNotAllowed)
	resp.PrincipalType, resp.PrincipalName = principalType, anonymous
	if owner := deref(q.OwnerPrincipalName); owner != "" {
		resp.PrincipalType, resp.PrincipalName = deref(q.OwnerPrincipalType), owner
	}
	resp.TokenRequesterPrincipalType, resp.TokenRequesterPrincipalName = principalType, anonymous
	resp.IssueTimestamp, resp.ExpiryTimestamp, resp.MaxTimestamp = -1, -1, -1
	resp.HMAC = []byte{}
	h.respond(r, resp)
}
