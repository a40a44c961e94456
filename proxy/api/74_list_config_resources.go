package api

import (
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// ListConfigResources: v0-1
//
//	v0: subscriptions of client metrics only; then called ListClientMetricsResources (KIP-1000)
//	v1: any type, all if the list is empty (KIP-1142)
//
// Nothing receives metrics of clients: that type has no resources. Of groups those are
// listed that have configs of their own.

// listedTypes are the types that have resources, or could have.
var listedTypes = []int8{
	int8(kmsg.ConfigResourceTypeTopic), int8(kmsg.ConfigResourceTypeBroker), int8(kmsg.ConfigResourceTypeBrokerLogger),
	int8(kmsg.ConfigResourceTypeClientMetrics), int8(kmsg.ConfigResourceTypeGroupConfig),
}

func (h *Handlers) listConfigResources(r *proxy.Request, q *kmsg.ListConfigResourcesRequest) {
	resp := q.ResponseKind().(*kmsg.ListConfigResourcesResponse)
	if q.Version == 0 {
		h.respond(r, resp)
		return
	}
	wanted := func(t kmsg.ConfigResourceType) bool {
		return len(q.ResourceTypes) == 0 || slices.Contains(q.ResourceTypes, int8(t))
	}
	for _, t := range q.ResourceTypes {
		if !slices.Contains(listedTypes, t) {
			resp.ErrorCode = int16(protocol.UnsupportedVersion)
			h.respond(r, resp)
			return
		}
	}
	add := func(t kmsg.ConfigResourceType, name string) {
		resp.ConfigResources = append(resp.ConfigResources, kmsg.ListConfigResourcesResponseConfigResource{Name: name, Type: int8(t)})
	}
	brokers, _ := h.brokers(r.Listener())
	for _, t := range []kmsg.ConfigResourceType{kmsg.ConfigResourceTypeBrokerLogger, kmsg.ConfigResourceTypeBroker} {
		if !wanted(t) {
			continue
		}
		for _, b := range brokers {
			add(t, strconv.Itoa(int(b.id)))
		}
	}
	topics, groups := wanted(kmsg.ConfigResourceTypeTopic), wanted(kmsg.ConfigResourceTypeGroupConfig)
	if !topics && !groups {
		h.respond(r, resp)
		return
	}
	r.Go(func() {
		if topics {
			for _, t := range h.c.Coordinator.Topics() {
				add(kmsg.ConfigResourceTypeTopic, t.Name)
			}
		}
		if groups {
			for _, id := range h.c.Coordinator.Groups().Configured() {
				add(kmsg.ConfigResourceTypeGroupConfig, id)
			}
		}
		h.respond(r, resp)
	})
}
