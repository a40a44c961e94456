package api

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/proxy"
)

// UpdateFeatures: v0-2
//
//	v1: upgrade types, validate only (KIP-778)
//	v2: the answer has one error for all (KIP-1022)
//
// The one feature is group.version, and its level is a matter of configuration
// (group.coordinator.rebalance.protocols): to set the level that it has
// succeeds, everything else is INVALID_UPDATE_VERSION.

// The upgrade types, FeatureUpdate.java.
const (
	featureUpgrade         = 1
	featureSafeDowngrade   = 2
	featureUnsafeDowngrade = 3
)

func (h *Handlers) updateFeatures(r *proxy.Request, q *kmsg.UpdateFeaturesRequest) {
	resp := q.ResponseKind().(*kmsg.UpdateFeaturesResponse)
	for i := range q.FeatureUpdates {
		in := &q.FeatureUpdates[i]
		err := h.updateFeature(in, q.Version)
		if q.Version >= 2 {
			if err != nil {
				resp.ErrorCode, resp.ErrorMessage = int16(adminErrors.code(err)), text(err)
				break
			}
			continue
		}
		out := kmsg.NewUpdateFeaturesResponseResult()
		out.Feature, out.ErrorCode, out.ErrorMessage = in.Feature, int16(adminErrors.code(err)), text(err)
		resp.Results = append(resp.Results, out)
	}
	h.respond(r, resp)
}

func (h *Handlers) updateFeature(u *kmsg.UpdateFeaturesRequestFeatureUpdate, version int16) error {
	upgrade := u.UpgradeType
	if version == 0 {
		upgrade = featureUpgrade
		if u.AllowDowngrade {
			upgrade = featureSafeDowngrade
		}
	}
	now := int16(0)
	if h.c.Coordinator.Groups().ServesConsumerProtocol() {
		now = groupVersionMax
	}
	refused := func(why string) error {
		return fmt.Errorf("version %d of feature %.100q: %s: %w", u.MaxVersionLevel, u.Feature, why, errFeature)
	}
	switch level := u.MaxVersionLevel; {
	case upgrade < featureUpgrade || upgrade > featureUnsafeDowngrade:
		return refused(fmt.Sprintf("upgrade type %d is not known", upgrade))
	case level < 0:
		return refused("a version cannot be less than 0")
	case u.Feature != groupVersionFeature && level > 0:
		return refused("this broker does not know the feature")
	case u.Feature != groupVersionFeature:
		return nil // off, as it was
	case level > groupVersionMax:
		return refused(fmt.Sprintf("this broker knows versions 0 to %d", groupVersionMax))
	case level < now && upgrade == featureUpgrade:
		return refused("a downgrade needs an upgrade type that allows it")
	case level > now && upgrade != featureUpgrade:
		return refused("a downgrade cannot raise it")
	case level != now:
		return refused("it is set by group.coordinator.rebalance.protocols")
	}
	return nil
}
