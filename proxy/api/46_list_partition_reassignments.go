package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/proxy"
)

// ListPartitionReassignments: v0
//
// None is ever under way (AlterPartitionReassignments). As in Kafka, partitions
// that do not exist are not an error.

func (h *Handlers) listPartitionReassignments(r *proxy.Request, q *kmsg.ListPartitionReassignmentsRequest) {
	h.respond(r, q.ResponseKind())
}
