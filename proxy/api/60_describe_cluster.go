package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// DescribeCluster: v0-2
//
//	v1: endpoint type (KIP-919): 1 brokers, 2 controllers
//	v2: fenced brokers; there are none: a node that is not alive is not listed

func (h *Handlers) describeCluster(r *proxy.Request, q *kmsg.DescribeClusterRequest) {
	resp := q.ResponseKind().(*kmsg.DescribeClusterResponse)
	code := protocol.None
	if q.Version >= 1 {
		switch q.EndpointType {
		case 1:
		case 2:
			code = protocol.MismatchedEndpointType
		default:
			code = protocol.UnsupportedEndpointType
		}
	}
	if code != protocol.None {
		resp.ErrorCode, resp.ErrorMessage = int16(code), message(code)
		h.respond(r, resp)
		return
	}
	resp.ClusterID = h.c.Coordinator.ClusterID()
	brokers, controller := h.brokers(r.Listener())
	resp.ControllerID = controller
	for _, b := range brokers {
		d := kmsg.NewDescribeClusterResponseBroker()
		d.NodeID, d.Host, d.Port, d.Rack = b.id, b.host, b.port, b.rack
		resp.Brokers = append(resp.Brokers, d)
	}
	if q.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = authorizedCluster
	}
	h.respond(r, resp)
}
