package api

import (
	"errors"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/proxy"
)

// DescribeGroups: v0-6
//
//	v1: throttle time
//	v3: authorized operations
//	v4: instance ids (KIP-345)
//	v5: flexible
//	v6: error message; a group that does not exist is GROUP_ID_NOT_FOUND,
//	    before: a Dead group without an error (KIP-1043)
//
// A group of the consumer protocol does not exist here: tools look for it with
// ConsumerGroupDescribe first.

// authorizedGroup is what everybody may do while there is no authorizer: bit n is
// operation n of Kafka's AclOperation.
const authorizedGroup = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11

func (h *Handlers) describeGroups(p *parked, q *kmsg.DescribeGroupsRequest) {
	if p.wait() {
		h.describedGroups(q, p.respond)
	}
}

func (h *Handlers) describedGroups(q *kmsg.DescribeGroupsRequest, reply func(kmsg.Response)) {
	resp := q.ResponseKind().(*kmsg.DescribeGroupsResponse)
	resp.Groups = make([]kmsg.DescribeGroupsResponseGroup, len(q.Groups))
	each(len(q.Groups), func() { reply(resp) }, func(i int, done func()) {
		out := &resp.Groups[i]
		out.Default()
		out.Group = q.Groups[i]
		h.c.Coordinator.Groups().Describe(q.Groups[i], func(d *group.Description, err error) {
			setDescription(out, q, d, err)
			done()
		})
	})
}

func (h *Handlers) describeGroupsOfMany(r *proxy.Request, q *kmsg.DescribeGroupsRequest) {
	whole := q.ResponseKind().(*kmsg.DescribeGroupsResponse)
	whole.Groups = make([]kmsg.DescribeGroupsResponseGroup, len(q.Groups))
	h.answerSeveral(r, several{
		slots: groupSlots(q.Groups, itself), reads: true, whole: whole,
		part: func(items []int) kmsg.Request {
			part := *q
			part.Groups = chosen(q.Groups, items)
			return &part
		},
		here: func(q kmsg.Request, reply func(kmsg.Response)) {
			h.describedGroups(q.(*kmsg.DescribeGroupsRequest), reply)
		},
		answers: func(resp kmsg.Response) answers {
			part := resp.(*kmsg.DescribeGroupsResponse)
			return answers{len(part.Groups), func(k, i int) int16 {
				whole.Groups[i] = part.Groups[k]
				return part.Groups[k].ErrorCode
			}}
		},
		refuse: func(i int, why error) {
			out := &whole.Groups[i]
			out.Default()
			out.Group = q.Groups[i]
			setDescription(out, q, nil, why)
		},
	})
}

func setDescription(out *kmsg.DescribeGroupsResponseGroup, q *kmsg.DescribeGroupsRequest, d *group.Description, err error) {
	if errors.Is(err, group.ErrGroupNotFound) {
		out.State = string(group.Dead)
		if q.Version < 6 {
			err = nil
		}
	}
	if err != nil {
		code := groupErrors.code(err)
		out.ErrorCode, out.ErrorMessage = int16(code), message(code)
		return
	}
	if q.IncludeAuthorizedOperations {
		out.AuthorizedOperations = authorizedGroup
	}
	if d == nil {
		return
	}
	out.State, out.ProtocolType, out.Protocol = string(d.State), d.ProtocolType, d.ProtocolName
	out.Members = make([]kmsg.DescribeGroupsResponseGroupMember, len(d.Members))
	for i := range d.Members {
		m, o := &d.Members[i], &out.Members[i]
		o.Default()
		o.MemberID, o.InstanceID = m.MemberID, instance(m.InstanceID)
		o.ClientID, o.ClientHost = m.ClientID, m.ClientHost
		o.ProtocolMetadata, o.MemberAssignment = m.Metadata, m.Assignment
	}
}

// each begins n things by start, which calls done when its thing is over,
// and calls finish when all are.
func each(n int, finish func(), start func(i int, done func())) {
	var left atomic.Int64
	left.Store(int64(n) + 1)
	done := func() {
		if left.Add(-1) == 0 {
			finish()
		}
	}
	for i := range n {
		start(i, done)
	}
	done()
}
