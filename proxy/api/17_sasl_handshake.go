package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// SaslHandshake: v0-1, never flexible
//
//	v1: what follows is wrapped in SaslAuthenticate (KIP-152)
//
// No listener asks for SASL. As on a PLAINTEXT listener of Kafka, a client that
// begins it all the same is told ILLEGAL_SASL_STATE and no mechanism, which
// it reports as a wrong security.protocol.

func (h *Handlers) saslHandshake(r *proxy.Request, q *kmsg.SASLHandshakeRequest) {
	resp := q.ResponseKind().(*kmsg.SASLHandshakeResponse)
	resp.ErrorCode = int16(protocol.IllegalSASLState)
	h.respond(r, resp)
}
