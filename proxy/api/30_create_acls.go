package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// CreateAcls: v0-3
//
//	v1: pattern types (KIP-290)
//	v2: flexible
//	v3: resource type USER (KIP-373)
//
// Refused as DescribeAcls is, one result for each ACL.

func (h *Handlers) createACLs(r *proxy.Request, q *kmsg.CreateACLsRequest) {
	resp := q.ResponseKind().(*kmsg.CreateACLsResponse)
	resp.Results = make([]kmsg.CreateACLsResponseResult, len(q.Creations))
	for i := range resp.Results {
		out := &resp.Results[i]
		out.ErrorCode, out.ErrorMessage = int16(protocol.SecurityDisabled), noAuthorizer
	}
	h.respond(r, resp)
}
