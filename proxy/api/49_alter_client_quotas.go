package api

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/proxy"
)

// AlterClientQuotas: v0-1
//
//	v1: flexible
//
// No quota is enforced, and a quota that is kept and not enforced would be a lie: to set
// one is refused with UNSUPPORTED_VERSION. To remove one succeeds, as it does
// in Kafka for what is not set. What is not sound is refused as in Kafka
// (ClientQuotaControlManager).

func (h *Handlers) alterClientQuotas(r *proxy.Request, q *kmsg.AlterClientQuotasRequest) {
	resp := q.ResponseKind().(*kmsg.AlterClientQuotasResponse)
	for i := range q.Entries {
		in := &q.Entries[i]
		err := alterQuota(in)
		out := kmsg.NewAlterClientQuotasResponseEntry()
		out.ErrorCode, out.ErrorMessage = int16(adminErrors.code(err)), text(err)
		out.Entity = make([]kmsg.AlterClientQuotasResponseEntryEntity, len(in.Entity))
		for j := range in.Entity {
			out.Entity[j].Type, out.Entity[j].Name = in.Entity[j].Type, in.Entity[j].Name
		}
		resp.Entries = append(resp.Entries, out)
	}
	h.respond(r, resp)
}

func alterQuota(in *kmsg.AlterClientQuotasRequestEntry) error {
	seen := make(map[string]bool)
	for i := range in.Ops {
		if seen[in.Ops[i].Key] {
			return fmt.Errorf("quota %.100q is changed twice: %w", in.Ops[i].Key, errRequest)
		}
		seen[in.Ops[i].Key] = true
	}
	limits, err := quotasOf(in.Entity)
	if err != nil {
		return err
	}
	sets := false
	for i := range in.Ops {
		op := &in.Ops[i]
		if op.Remove {
			continue
		}
		sets = true
		limit, ok := limits[op.Key]
		switch {
		case !ok:
			return fmt.Errorf("there is no quota %.100q of this entity: %w", op.Key, errRequest)
		case !(op.Value > 0):
			return fmt.Errorf("quota %s must be greater than 0: %w", op.Key, errRequest)
		case limit != 0 && op.Value > limit:
			return fmt.Errorf("quota %s is at most %.0f: %w", op.Key, limit, errRequest)
		case limit != 0 && math.Mod(op.Value, 1) > 1e-6:
			return fmt.Errorf("quota %s must be a whole number: %w", op.Key, errRequest)
		}
	}
	if sets {
		return fmt.Errorf("quotas: %w", errNotOffered)
	}
	return nil
}

var (
	// The quotas of users and client ids, and of addresses: the most of one that is a
	// whole number, 0 for one that is not (QuotaConfigs.java).
	clientQuotas = map[string]float64{
		"producer_byte_rate": math.MaxInt64, "consumer_byte_rate": math.MaxInt64,
		"request_percentage": 0, "controller_mutation_rate": 0,
	}
	ipQuotas = map[string]float64{"connection_creation_rate": math.MaxInt32}
)

// quotasOf returns the quotas that an entity may have.
func quotasOf(entity []kmsg.AlterClientQuotasRequestEntryEntity) (map[string]float64, error) {
	seen := make(map[string]bool)
	for i := range entity {
		e := &entity[i]
		switch {
		case e.Type != quotaUser && e.Type != quotaClientID && e.Type != quotaIP:
			return nil, fmt.Errorf("there are no quotas of entity type %.100q: %w", e.Type, errRequest)
		case e.Name != nil && *e.Name == "":
			return nil, fmt.Errorf("a %s has no empty name: %w", e.Type, errRequest)
		case e.Name != nil && e.Type == quotaIP && !isAddress(*e.Name):
			return nil, fmt.Errorf("%.100q is not an address: %w", *e.Name, errRequest)
		}
		seen[e.Type] = true
	}
	switch {
	case len(seen) == 0:
		return nil, fmt.Errorf("a quota belongs to an entity: %w", errRequest)
	case !seen[quotaIP]:
		return clientQuotas, nil
	case len(seen) > 1:
		return nil, fmt.Errorf("quotas of an ip do not go with those of users and client ids: %w", errRequest)
	}
	return ipQuotas, nil
}

// isAddress says whether name is an IP address. Kafka takes host names too, and looks
// them up.
func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}
