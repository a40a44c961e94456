package groupcheck

import (
	"fmt"
	"slices"
	"strings"
)

// Members follows which members of a group live and what they hold, as their
// libraries say. Feed it every event of the group in order.
type Members struct {
	group   Group
	live    map[string]map[Partition]bool
	joining map[string]bool // that have asked to join and were not told their share since
	settled bool
	since   int64 // when it settled
}

// NewMembers returns a group without members.
func NewMembers(g Group) *Members {
	return &Members{group: g, live: map[string]map[Partition]bool{}, joining: map[string]bool{}}
}

// Live says whether the run wants the member to be in the group.
func (m *Members) Live(member string) bool { return m.live[member] != nil }

// Names are the live members, sorted.
func (m *Members) Names() []string {
	var names []string
	for name := range m.live {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Settled says whether the live members hold all partitions among themselves,
// as evenly as every assignor shares out one topic, since the last of them came
// or went, and none of them waits for a rebalance that it has asked for: one whose
// answer was lost with a server goes on when its member asks again. Groups need at
// least as many partitions as members for that.
func (m *Members) Settled() bool { return m.settled }

// Apply takes one event.
func (m *Members) Apply(e Event) {
	held := m.live[e.Member]
	switch e.Kind {
	case Joined:
		m.live[e.Member], m.settled = map[Partition]bool{}, false
	case Left, Silenced:
		delete(m.live, e.Member)
		delete(m.joining, e.Member)
		m.settled = false
	case Joins:
		if held != nil {
			m.joining[e.Member], m.settled = true, false
		}
	case Told:
		delete(m.joining, e.Member)
	case Assigned:
		if held != nil {
			for _, p := range e.Partitions {
				held[p] = true
			}
			m.settle(e.At)
		}
	case Revoked, Lost:
		if held != nil && len(e.Partitions) > 0 {
			for _, p := range e.Partitions {
				delete(held, p)
			}
			m.settled = false
		}
	}
}

func (m *Members) settle(at int64) {
	if !m.settled && len(m.joining) == 0 && m.Shared() {
		m.settled, m.since = true, at
	}
}

// Shared says whether the live members hold all partitions, evenly.
func (m *Members) Shared() bool {
	covered := map[Partition]bool{}
	fewest, most := len(m.group.Partitions), 0
	for _, held := range m.live {
		fewest, most = min(fewest, len(held)), max(most, len(held))
		for p := range held {
			if covered[p] {
				return false
			}
			covered[p] = true
		}
	}
	return len(covered) == len(m.group.Partitions) && fewest >= 1 && most <= fewest+1
}

// describe says who holds what.
func (m *Members) describe() string {
	var parts []string
	for _, name := range m.Names() {
		var held []string
		for p := range m.live[name] {
			held = append(held, p.String())
		}
		slices.Sort(held)
		parts = append(parts, fmt.Sprintf("%s holds %v", name, held))
	}
	return fmt.Sprintf("%s; the group has %d partitions", strings.Join(parts, ", "), len(m.group.Partitions))
}
