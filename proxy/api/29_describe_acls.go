package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// DescribeAcls: v0-3
//
//	v1: pattern types (KIP-290)
//	v2: flexible
//	v3: resource type USER (KIP-373)
//
// There is no authorizer: everybody may do everything, and no ACL is kept. All three APIs
// of ACLs say SECURITY_DISABLED, whatever the filter (AclApis).

// noAuthorizer is the text of SECURITY_DISABLED.
var noAuthorizer = kmsg.StringPtr("no authorizer is configured on this broker")

func (h *Handlers) describeACLs(r *proxy.Request, q *kmsg.DescribeACLsRequest) {
	resp := q.ResponseKind().(*kmsg.DescribeACLsResponse)
	resp.ErrorCode, resp.ErrorMessage = int16(protocol.SecurityDisabled), noAuthorizer
	h.respond(r, resp)
}
