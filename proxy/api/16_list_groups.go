package api

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// ListGroups: v0-5
//
//	v1: throttle time
//	v3: flexible
//	v4: states, and a filter of them (KIP-518)
//	v5: types, and a filter of them (KIP-848)
//
// Only the groups of this node are listed: clients ask every node, and this node does
// for those that were given one address. Then every slot is asked for by name, so
// that what nobody serves at the moment is an error and not a list without its
// groups. Filters do not look at upper and lower case; an empty one lets everything pass.

func (h *Handlers) listGroups(p *parked, q *kmsg.ListGroupsRequest) {
	var asked []int
	if o := p.r.Origin; o != nil {
		for _, s := range o.Slots {
			asked = append(asked, int(s.Slot))
		}
	}
	if p.wait() {
		h.listedGroups(q, asked, p.respond)
	}
}

// listedGroups lists the groups of this node. Those of the slots that are asked
// for must be among them: it is NOT_COORDINATOR if one is not served from the beginning
// to the end.
func (h *Handlers) listedGroups(q *kmsg.ListGroupsRequest, asked []int, reply func(kmsg.Response)) {
	resp := q.ResponseKind().(*kmsg.ListGroupsResponse)
	served := h.watchSlots(asked)
	keep := func(g coordinator.ListedGroup) bool {
		return passes(q.StatesFilter, string(g.State)) && passes(q.TypesFilter, string(g.Type))
	}
	h.c.Coordinator.Groups().List(keep, func(groups []coordinator.ListedGroup, err error) {
		if err == nil && !served() {
			groups, err = nil, group.ErrNotCoordinator
		}
		resp.ErrorCode = int16(groupErrors.code(err))
		slices.SortFunc(groups, func(a, b coordinator.ListedGroup) int { return cmp.Compare(a.ID, b.ID) })
		resp.Groups = make([]kmsg.ListGroupsResponseGroup, len(groups))
		for i := range groups {
			g, out := &groups[i], &resp.Groups[i]
			out.Default()
			out.Group, out.ProtocolType = g.ID, g.ProtocolType
			out.GroupState, out.GroupType = string(g.State), string(g.Type)
		}
		reply(resp)
	})
}

func (h *Handlers) listGroupsOfMany(r *proxy.Request, q *kmsg.ListGroupsRequest) {
	whole := q.ResponseKind().(*kmsg.ListGroupsResponse)
	var mu sync.Mutex
	listed := make(map[string]kmsg.ListGroupsResponseGroup)
	var failed error
	add := func(resp kmsg.Response) (again bool) {
		part := resp.(*kmsg.ListGroupsResponse)
		mu.Lock()
		defer mu.Unlock()
		switch protocol.Code(part.ErrorCode) {
		case protocol.None:
		case protocol.NotCoordinator, protocol.CoordinatorLoadInProgress:
			return true
		default:
			failed = group.ErrUnavailable
		}
		for _, g := range part.Groups {
			listed[g.Group] = g
		}
		return false
	}
	h.split(r, splitting{
		slots: allSlots, wait: maxRouteWait, timeout: partTimeout, reads: true,
		here: func(items []int, done func(again []int)) {
			h.listedGroups(q, items, func(resp kmsg.Response) {
				if add(resp) {
					done(items)
				} else {
					done(nil)
				}
			})
		},
		part: func([]int) kmsg.Request {
			part := *q
			return &part
		},
		take: func(items []int, resp kmsg.Response) []int {
			if add(resp) {
				return items
			}
			return nil
		},
		refuse: func(_ []int, why error) {
			mu.Lock()
			defer mu.Unlock()
			failed = why
		},
		respond: func() {
			mu.Lock()
			defer mu.Unlock()
			whole.ErrorCode = int16(groupErrors.code(failed))
			if failed == nil {
				for _, id := range slices.Sorted(maps.Keys(listed)) {
					whole.Groups = append(whole.Groups, listed[id])
				}
			}
			h.respond(r, whole)
		},
	})
}

func passes(filter []string, name string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, name) })
}
