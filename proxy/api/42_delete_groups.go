package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/proxy"
)

// DeleteGroups: v0-3
//
//	v2: flexible
//	v3: error messages
//
// A group is deleted with what it has committed, if it has no members.

func (h *Handlers) deleteGroups(p *parked, q *kmsg.DeleteGroupsRequest) {
	if p.wait() {
		h.deletedGroups(q, p.respond)
	}
}

func (h *Handlers) deletedGroups(q *kmsg.DeleteGroupsRequest, reply func(kmsg.Response)) {
	resp := q.ResponseKind().(*kmsg.DeleteGroupsResponse)
	resp.Groups = make([]kmsg.DeleteGroupsResponseGroup, len(q.Groups))
	each(len(q.Groups), func() { reply(resp) }, func(i int, done func()) {
		out := &resp.Groups[i]
		out.Default()
		out.Group = q.Groups[i]
		h.c.Coordinator.Groups().Delete(q.Groups[i], func(err error) {
			out.ErrorCode, out.ErrorMessage = int16(groupErrors.code(err)), text(err)
			done()
		})
	})
}

func (h *Handlers) deleteGroupsOfMany(r *proxy.Request, q *kmsg.DeleteGroupsRequest) {
	whole := q.ResponseKind().(*kmsg.DeleteGroupsResponse)
	whole.Groups = make([]kmsg.DeleteGroupsResponseGroup, len(q.Groups))
	h.answerSeveral(r, several{
		slots: groupSlots(q.Groups, itself), whole: whole,
		part: func(items []int) kmsg.Request {
			part := *q
			part.Groups = chosen(q.Groups, items)
			return &part
		},
		here: func(q kmsg.Request, reply func(kmsg.Response)) {
			h.deletedGroups(q.(*kmsg.DeleteGroupsRequest), reply)
		},
		answers: func(resp kmsg.Response) answers {
			part := resp.(*kmsg.DeleteGroupsResponse)
			return answers{len(part.Groups), func(k, i int) int16 {
				whole.Groups[i] = part.Groups[k]
				return part.Groups[k].ErrorCode
			}}
		},
		refuse: func(i int, why error) {
			out := &whole.Groups[i]
			out.Default()
			out.Group = q.Groups[i]
			out.ErrorCode, out.ErrorMessage = int16(groupErrors.code(why)), text(why)
		},
	})
}
