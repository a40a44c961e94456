package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteGroups: v0-3
//
//	v2: flexible
//	v3: error messages
//
// A group is deleted with what it has committed, if it has no members.

func (h *Handlers) deleteGroups(p *parked, q *kmsg.DeleteGroupsRequest) {
	if !p.wait() {
		return
	}
	resp := q.ResponseKind().(*kmsg.DeleteGroupsResponse)
	resp.Groups = make([]kmsg.DeleteGroupsResponseGroup, len(q.Groups))
	each(len(q.Groups), func() { p.respond(resp) }, func(i int, done func()) {
		out := &resp.Groups[i]
		out.Default()
		out.Group = q.Groups[i]
		h.c.Coordinator.Groups().Delete(q.Groups[i], func(err error) {
			out.ErrorCode, out.ErrorMessage = int16(groupErrors.code(err)), text(err)
			done()
		})
	})
}
