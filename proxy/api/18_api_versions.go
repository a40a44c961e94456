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
// No feature is finalized: those that 4.x clients read (transaction.version,
// group.version, ...) are told when they are served.

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
	if code := h.checkApiVersions(q); code != protocol.None {
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
	h.respond(r, resp)
}

func (h *Handlers) checkApiVersions(q *kmsg.ApiVersionsRequest) protocol.Code {
	if q.Version >= 3 && (!softwareName.MatchString(q.ClientSoftwareName) || !softwareName.MatchString(q.ClientSoftwareVersion)) {
		return protocol.InvalidRequest
	}
	if q.Version < 5 {
		return protocol.None
	}
	if (q.ClusterID == nil) != (q.NodeID == -1) {
		return protocol.InvalidRequest
	}
	if q.ClusterID != nil && (*q.ClusterID != h.c.Coordinator.ClusterID() || q.NodeID != h.c.Coordinator.Self().ID) {
		return protocol.RebootstrapRequired
	}
	return protocol.None
}
