package api

import (
	"cmp"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
)

// ListGroups: v0-5
//
//	v1: throttle time
//	v3: flexible
//	v4: states, and a filter of them (KIP-518)
//	v5: types, and a filter of them (KIP-848)
//
// Only the groups of this node are listed: clients ask every node. Filters do
// not look at upper and lower case; an empty one lets everything pass.

func (h *Handlers) listGroups(p *parked, q *kmsg.ListGroupsRequest) {
	if !p.wait() {
		return
	}
	resp := q.ResponseKind().(*kmsg.ListGroupsResponse)
	keep := func(g coordinator.ListedGroup) bool {
		return passes(q.StatesFilter, string(g.State)) && passes(q.TypesFilter, string(g.Type))
	}
	h.c.Coordinator.Groups().List(keep, func(groups []coordinator.ListedGroup, err error) {
		resp.ErrorCode = int16(groupErrors.code(err))
		slices.SortFunc(groups, func(a, b coordinator.ListedGroup) int { return cmp.Compare(a.ID, b.ID) })
		resp.Groups = make([]kmsg.ListGroupsResponseGroup, len(groups))
		for i := range groups {
			g, out := &groups[i], &resp.Groups[i]
			out.Default()
			out.Group, out.ProtocolType = g.ID, g.ProtocolType
			out.GroupState, out.GroupType = string(g.State), string(g.Type)
		}
		p.respond(resp)
	})
}

func passes(filter []string, name string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, name) })
}
