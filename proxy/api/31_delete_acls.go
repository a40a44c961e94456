package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// DeleteAcls: v0-3
//
//	v1: pattern types (KIP-290)
//	v2: flexible
//	v3: resource type USER (KIP-373)
//
// Refused as DescribeAcls is, one result for each filter.

func (h *Handlers) deleteACLs(r *proxy.Request, q *kmsg.DeleteACLsRequest) {
	resp := q.ResponseKind().(*kmsg.DeleteACLsResponse)
	resp.Results = make([]kmsg.DeleteACLsResponseResult, len(q.Filters))
	for i := range resp.Results {
		out := &resp.Results[i]
		out.ErrorCode, out.ErrorMessage = int16(protocol.SecurityDisabled), noAuthorizer
	}
	h.respond(r, resp)
}
