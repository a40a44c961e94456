package api

import (
	"cmp"
	"regexp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// ApiVersions: v0-5
//
//	v0: a version above the maximum is answered in the v0 format with
//	    UNSUPPORTED_VERSION and the range of ApiVersions itself (KIP-511)
//	v1: throttle time
//	v3: flexible, but the response header stays v0; software name and version
//	v4: supported features may have a minimum of 0 (KAFKA-17011)
//	v5: the client may name the cluster and node it means to reach (KIP-1242)
//
// The one feature is group.version: 1 is the consumer group protocol (KIP-848).
// Of the others that 4.x clients read, none is served.

// softwareName is what a client may call itself and its version, KIP-511.
var softwareName = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

func (h *Handlers) apiVersions(r *proxy.Request) {
	if row := h.rows[r.Key]; r.Version > row.max || r.Version < 0 {
		resp := kmsg.NewPtrApiVersionsResponse()
		resp.ErrorCode = int16(protocol.UnsupportedVersion)
		resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{row.advertised()}
		h.respond(r, resp)
		return
	}
	q := kmsg.NewPtrApiVersionsRequest()
	if !h.decode(r, q) {
		return
	}
	resp := q.ResponseKind().(*kmsg.ApiVersionsResponse)
	if code := h.checkApiVersions(r.Listener(), q); code != protocol.None {
		resp.ErrorCode = int16(code)
		h.respond(r, resp)
		return
	}
	if r.Version >= 3 {
		r.Conn.SoftwareName = q.ClientSoftwareName
		r.Conn.SoftwareVersion = q.ClientSoftwareVersion
	}
	for _, row := range h.rows {
		resp.ApiKeys = append(resp.ApiKeys, row.advertised())
	}
	slices.SortFunc(resp.ApiKeys, func(a, b kmsg.ApiVersionsResponseApiKey) int { return cmp.Compare(a.ApiKey, b.ApiKey) })
	h.addFeatures(resp)
	h.respond(r, resp)
}

// addFeatures tells the finalized features. Since a level of 0 means that the
// feature is off, the range of levels begins there, which versions before 4
// cannot say (KAFKA-17011).
func (h *Handlers) addFeatures(resp *kmsg.ApiVersionsResponse) {
	resp.FinalizedFeaturesEpoch = 0
	if resp.Version >= 4 {
		f := kmsg.NewApiVersionsResponseSupportedFeature()
		f.Name, f.MaxVersion = groupVersionFeature, groupVersionMax
		resp.SupportedFeatures = append(resp.SupportedFeatures, f)
	}
	if h.c.Coordinator.Groups().ServesConsumerProtocol() {
		f := kmsg.NewApiVersionsResponseFinalizedFeature()
		f.Name, f.MaxVersionLevel, f.MinVersionLevel = groupVersionFeature, groupVersionMax, groupVersionMax
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, f)
	}
}

const (
	groupVersionFeature = "group.version"
	groupVersionMax     = 1
)

func (h *Handlers) checkApiVersions(listener string, q *kmsg.ApiVersionsRequest) protocol.Code {
	if q.Version >= 3 && (!softwareName.MatchString(q.ClientSoftwareName) || !softwareName.MatchString(q.ClientSoftwareVersion)) {
		return protocol.InvalidRequest
	}
	if q.Version < 5 {
		return protocol.None
	}
	if (q.ClusterID == nil) != (q.NodeID == -1) {
		return protocol.InvalidRequest
	}
	if q.ClusterID != nil && (*q.ClusterID != h.c.Coordinator.ClusterID() || !h.knownAs(listener, q.NodeID)) {
		return protocol.RebootstrapRequired
	}
	return protocol.None
}
