package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// SaslAuthenticate: v0-2
//
//	v1: lifetime of the session (KIP-368)
//	v2: flexible
//
// Refused as SaslHandshake is.

func (h *Handlers) saslAuthenticate(r *proxy.Request, q *kmsg.SASLAuthenticateRequest) {
	resp := q.ResponseKind().(*kmsg.SASLAuthenticateResponse)
	resp.ErrorCode, resp.ErrorMessage = int16(protocol.IllegalSASLState), message(protocol.IllegalSASLState)
	resp.SASLAuthBytes = []byte{}
	h.respond(r, resp)
}
