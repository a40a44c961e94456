package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// InitProducerId: v0-5, idempotent producers only
//
//	v2: flexible
//	v3: the producer's present id and epoch (KIP-360); looked at for transactions only
//	v4: PRODUCER_FENCED instead of INVALID_PRODUCER_EPOCH
//	v5: KIP-890
//
// A transactional id gets COORDINATOR_NOT_AVAILABLE, which clients retry.
// Without one, a failure is COORDINATOR_LOAD_IN_PROGRESS as in Kafka's
// RPCProducerIdManager: the Java client takes 15 for a reason to look for
// the coordinator of a transactional id that it does not have.

func (h *Handlers) initProducerID(r *proxy.Request, q *kmsg.InitProducerIDRequest) {
	resp := q.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	refuse := func(code protocol.Code) {
		resp.ErrorCode = int16(code)
		h.respond(r, resp)
	}
	if q.Version >= 3 && (q.ProducerID == -1) != (q.ProducerEpoch == -1) {
		refuse(protocol.InvalidRequest)
		return
	}
	if id := q.TransactionalID; id != nil {
		if *id == "" {
			refuse(protocol.InvalidRequest)
		} else {
			refuse(protocol.CoordinatorNotAvailable)
		}
		return
	}
	r.GoSlow(func() {
		ctx, cancel := h.timeout(defaultTimeout)
		defer cancel()
		id, err := h.c.Coordinator.NextProducerID(ctx)
		if err != nil {
			refuse(producerIDErrors.code(err))
			return
		}
		resp.ProducerID, resp.ProducerEpoch = id, 0
		h.respond(r, resp)
	})
}
