package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// ElectLeaders: v0-2
//
//	v0: preferred leaders only
//	v1: unclean elections (KIP-460), top-level error
//	v2: flexible
//
// Every partition has a leader, and it is the first of the replicas that Metadata
// names, the preferred one: no election is ever needed. Null topics ask for all;
// then partitions without news are left out, which leaves their topics alone (ReplicationControlManager).

// The election types, ElectionType.java.
const (
	electPreferred = 0
	electUnclean   = 1
)

func (h *Handlers) electLeaders(r *proxy.Request, q *kmsg.ElectLeadersRequest) {
	resp := q.ResponseKind().(*kmsg.ElectLeadersResponse)
	refused := protocol.None
	if len(q.Topics) > 0 || q.Topics == nil {
		if q.ElectionType != electPreferred && q.ElectionType != electUnclean {
			refused = protocol.InvalidRequest
		}
	}
	resp.ErrorCode = int16(refused)
	if q.Topics == nil && refused == protocol.None {
		for _, t := range h.c.Coordinator.Topics() {
			out := kmsg.NewElectLeadersResponseTopic()
			out.Topic = t.Name
			resp.Topics = append(resp.Topics, out)
		}
	}
	for i := range q.Topics {
		in := &q.Topics[i]
		out := kmsg.NewElectLeadersResponseTopic()
		out.Topic = in.Topic
		out.Partitions = make([]kmsg.ElectLeadersResponseTopicPartition, len(in.Partitions))
		t := h.c.Coordinator.Topic(in.Topic)
		for j, partition := range in.Partitions {
			code := protocol.ElectionNotNeeded
			switch {
			case refused != protocol.None:
				code = refused
			case t == nil || partition < 0 || partition >= t.Partitions:
				code = protocol.UnknownTopicOrPartition
			}
			p := &out.Partitions[j]
			p.Default()
			p.Partition, p.ErrorCode, p.ErrorMessage = partition, int16(code), message(code)
		}
		resp.Topics = append(resp.Topics, out)
	}
	h.respond(r, resp)
}
