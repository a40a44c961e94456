package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// Heartbeat: v0-4
//
//	v1: throttle time
//	v3: instance ids (KIP-345)
//	v4: flexible
//
// It is the request of a cluster at rest: every member sends one in some seconds.
// So it is answered on the loop unless its group is busy.

// heartbeatScratch is what heartbeats of one pooled proxy.Request use in turn.
type heartbeatScratch struct {
	q     kmsg.HeartbeatRequest
	resp  kmsg.HeartbeatResponse
	out   []byte
	parts [1][]byte

	consumer     kmsg.ConsumerGroupHeartbeatRequest // likewise, of the protocol of KIP-848
	consumerResp kmsg.ConsumerGroupHeartbeatResponse
	ask          group.ConsumerHeartbeatRequest
	host         []byte
}

func heartbeatScratchOf(r *proxy.Request) *heartbeatScratch {
	s, _ := r.Scratch.(*heartbeatScratch)
	if s == nil {
		s = new(heartbeatScratch)
		r.Scratch = s
	}
	return s
}

// respond answers without an allocation.
func (s *heartbeatScratch) respond(r *proxy.Request, resp kmsg.Response) {
	s.out = protocol.AppendResponseHeader(s.out[:0], r.CorrelationID, protocol.FlexibleResponse(r.Key, r.Version))
	s.out = resp.AppendTo(s.out)
	s.parts[0] = s.out
	r.Respond(proxy.Response{Parts: s.parts[:]})
}

func (h *Handlers) heartbeat(r *proxy.Request) {
	if len(r.Body) > inlineBytes || !h.servesGroup(r) || !h.heartbeatNow(r) {
		waiting((*Handlers).heartbeatLater)(h, r)
	}
}

// heartbeatNow answers at once, or returns false and has done nothing: also for
// what cannot be read.
func (h *Handlers) heartbeatNow(r *proxy.Request) bool {
	s := heartbeatScratchOf(r)
	q := &s.q
	// Its strings alias the frame, which outlives them: nothing keeps them.
	defer func() { *q = kmsg.HeartbeatRequest{} }()
	q.Version = r.Version
	if protocol.CheckRequest(r.Key, r.Version, r.Body) != nil || q.UnsafeReadFrom(r.Body) != nil {
		return false
	}
	err, ok := h.c.Coordinator.Groups().HeartbeatNow(q.Group, &group.HeartbeatRequest{
		MemberID: q.MemberID, InstanceID: deref(q.InstanceID), Generation: q.Generation,
	})
	if !ok {
		return false
	}
	s.resp = kmsg.HeartbeatResponse{Version: r.Version, ErrorCode: int16(groupErrors.code(err))}
	s.respond(r, &s.resp)
	return true
}

func (h *Handlers) heartbeatLater(p *parked, q *kmsg.HeartbeatRequest) {
	if !p.wait() {
		return
	}
	resp := q.ResponseKind().(*kmsg.HeartbeatResponse)
	r := &group.HeartbeatRequest{MemberID: q.MemberID, InstanceID: deref(q.InstanceID), Generation: q.Generation}
	h.c.Coordinator.Groups().Heartbeat(q.Group, r, func(err error) {
		if p.elsewhere(err) {
			return
		}
		resp.ErrorCode = int16(groupErrors.code(err))
		p.respond(resp)
	})
}
