package api

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/proxy"
)

// DescribeClientQuotas: v0-1
//
//	v1: flexible
//
// No quota is enforced, so that none is kept (AlterClientQuotas): every filter that is
// sound finds nothing. What is not sound is refused as in Kafka (ClientQuotasImage).

// The entity types of quotas, ClientQuotaEntity.java.
const (
	quotaUser     = "user"
	quotaClientID = "client-id"
	quotaIP       = "ip"
)

func (h *Handlers) describeClientQuotas(r *proxy.Request, q *kmsg.DescribeClientQuotasRequest) {
	resp := q.ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	if err := checkQuotaFilter(q.Components); err != nil {
		resp.ErrorCode, resp.ErrorMessage = int16(adminErrors.code(err)), text(err)
	} else {
		resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{} // null with an error only
	}
	h.respond(r, resp)
}

func checkQuotaFilter(components []kmsg.DescribeClientQuotasRequestComponent) error {
	seen := make(map[string]bool)
	for i := range components {
		c := &components[i]
		switch {
		case c.EntityType == "":
			return fmt.Errorf("a component of the filter has no entity type: %w", errRequest)
		case seen[c.EntityType]:
			return fmt.Errorf("the filter has entity type %q twice: %w", c.EntityType, errRequest)
		case c.EntityType != quotaUser && c.EntityType != quotaClientID && c.EntityType != quotaIP:
			return fmt.Errorf("quotas of entity type %.100q: %w", c.EntityType, errNotOffered)
		}
		seen[c.EntityType] = true
		switch c.MatchType {
		case kmsg.QuotasMatchTypeExact:
			if c.Match == nil {
				return fmt.Errorf("an exact match of a %s needs its name: %w", c.EntityType, errRequest)
			}
		case kmsg.QuotasMatchTypeDefault, kmsg.QuotasMatchTypeAny:
			if c.Match != nil {
				return fmt.Errorf("only an exact match of a %s has a name: %w", c.EntityType, errRequest)
			}
		default:
			return fmt.Errorf("match type %d is not known: %w", int8(c.MatchType), errRequest)
		}
	}
	if seen[quotaIP] && len(seen) > 1 {
		return fmt.Errorf("quotas of an ip do not go with those of users and client ids: %w", errRequest)
	}
	return nil
}
