package group

import (
	"bytes"
	"slices"
	"time"
)

// join is JoinGroup, after the checks that need no group.
func (c *classic) join(now time.Time, ticket Ticket, r *JoinGroupRequest, e *Effects) {
	refuse := func(err error) {
		e.reply(ticket, &JoinGroupResponse{Err: err, Generation: -1, MemberID: r.MemberID})
	}
	protocols := distinct(r.Protocols)
	switch {
	case c.state == Dead:
		refuse(ErrUnavailable)
	case c.blank() && r.MemberID != "":
		refuse(ErrUnknownMember)
	case !c.accepts(r):
		e.reply(ticket, &JoinGroupResponse{Err: ErrMaxSizeReached, Generation: -1})
		if m := c.byID[r.MemberID]; m != nil {
			c.remove(m, ErrMaxSizeReached, e)
			c.tryCompleteJoin(now, e)
		}
	case !c.supports(r.ProtocolType, protocols):
		refuse(ErrInconsistentProtocol)
	case r.MemberID != "":
		c.joinKnown(now, ticket, r, protocols, e)
	case r.InstanceID != "":
		if m := c.byInstance[r.InstanceID]; m != nil {
			c.replace(now, ticket, m, r, protocols, e)
			return
		}
		c.joinNew(now, ticket, r.InstanceID+"-"+c.g.config.NewUUID(), r, protocols, e)
	case !r.RequireKnownMember:
		c.joinNew(now, ticket, r.ClientID+"-"+c.g.config.NewUUID(), r, protocols, e)
	case len(c.pending) >= c.g.config.MaxSize:
		refuse(ErrMaxSizeReached)
	default:
		id := r.ClientID + "-" + c.g.config.NewUUID()
		if c.pending == nil {
			c.pending = map[string]time.Time{}
		}
		c.pending[id] = now.Add(r.SessionTimeout)
		c.g.due(c.pending[id])
		e.reply(ticket, &JoinGroupResponse{Err: ErrMemberIDRequired, Generation: -1, MemberID: id})
	}
}

// distinct drops repetitions of a name; the first counts.
func distinct(protocols []Protocol) []Protocol {
	seen := make(map[string]bool, len(protocols))
	kept := make([]Protocol, 0, len(protocols))
	for _, p := range protocols {
		if !seen[p.Name] {
			seen[p.Name] = true
			kept = append(kept, p)
		}
	}
	return kept
}

// accepts says whether the group has room. While it rebalances those who have
// joined are counted, not the members: a group loaded above its maximum sheds
// the last to join. A static member that comes back takes no room.
func (c *classic) accepts(r *JoinGroupRequest) bool {
	known := c.byID[r.MemberID]
	if r.MemberID == "" && r.InstanceID != "" {
		known = c.byInstance[r.InstanceID]
	}
	switch c.state {
	case PreparingRebalance:
		return known != nil && known.join.waiting || c.joining < c.maxSize()
	case CompletingRebalance, Stable:
		return known != nil || len(c.members) < c.maxSize()
	}
	return true
}

// supports says whether a member with these protocols fits: it offers one that
// all members offer, and the group's type.
func (c *classic) supports(protocolType string, protocols []Protocol) bool {
	if c.state == Empty {
		return protocolType != "" && len(protocols) > 0
	}
	return protocolType == c.protocolType && slices.ContainsFunc(protocols, func(p Protocol) bool {
		return c.supporters[p.Name] == len(c.members)
	})
}

// joinNew adds a member and rebalances.
func (c *classic) joinNew(now time.Time, ticket Ticket, id string, r *JoinGroupRequest, protocols []Protocol, e *Effects) {
	delete(c.pending, id)
	if c.state == PreparingRebalance && c.initial {
		c.lastCame = now
	}
	if len(c.members) == 0 {
		c.protocolType = r.ProtocolType
	}
	m := &member{id: id, instance: r.InstanceID, isNew: true}
	m.describe(r, protocols)
	c.add(m)
	m.deadline = now.Add(c.g.config.NewMemberJoinTimeout)
	c.g.due(m.deadline)
	c.parkJoin(m, ticket, e)
	c.rebalance(now, e)
}

// describe takes over what a join says of its member. The caller keeps the
// count of supporters.
func (m *member) describe(r *JoinGroupRequest, protocols []Protocol) {
	m.clientID, m.clientHost = r.ClientID, r.ClientHost
	m.session, m.rebalance = r.SessionTimeout, max(r.RebalanceTimeout, minRebalanceTimeout)
	m.protocols = protocols
}

// joinKnown is a join with a member id: the answer to ErrMemberIDRequired, part
// of a rebalance, the repetition of a join whose answer was lost, or the wish
// for a rebalance.
func (c *classic) joinKnown(now time.Time, ticket Ticket, r *JoinGroupRequest, protocols []Protocol, e *Effects) {
	refuse := func(err error) {
		e.reply(ticket, &JoinGroupResponse{Err: err, Generation: -1, MemberID: r.MemberID})
	}
	if _, pending := c.pending[r.MemberID]; pending {
		if r.InstanceID != "" { // static members are never pending
			refuse(ErrUnknownMember)
			return
		}
		c.joinNew(now, ticket, r.MemberID, r, protocols, e)
		return
	}
	m, err := c.check(r.MemberID, r.InstanceID)
	if err != nil {
		refuse(err)
		return
	}
	unchanged := slices.EqualFunc(m.protocols, protocols, func(a, b Protocol) bool {
		return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata)
	})
	if unchanged && (c.state == CompletingRebalance || c.state == Stable && m.id != c.leader) {
		e.reply(ticket, c.joined(m))
		return
	}
	c.update(m, r, protocols)
	c.parkJoin(m, ticket, e)
	c.rebalance(now, e)
}

// update is describe for a member that is counted.
func (c *classic) update(m *member, r *JoinGroupRequest, protocols []Protocol) {
	c.count(m, -1)
	m.describe(r, protocols)
	c.count(m, 1)
}

// replace gives a static member's place to the process that joins with its
// instance id and no member id (KIP-345). The old process is fenced. In a stable
// group whose protocol stays, nobody else notices: the newcomer gets the
// generation and then the assignment of the one before.
func (c *classic) replace(now time.Time, ticket Ticket, m *member, r *JoinGroupRequest, protocols []Protocol, e *Effects) {
	c.dismiss(m, ErrFencedInstance, e)
	leader := c.leader
	delete(c.byID, m.id)
	id := r.InstanceID + "-" + c.g.config.NewUUID()
	if leader == m.id {
		c.leader = id
	}
	m.id, m.isNew = id, false
	c.byID[id] = m
	c.update(m, r, protocols)
	c.renew(now, m)

	if c.state != Stable || c.selectProtocol() != c.protocolName {
		// In CompletingRebalance the leader may be assigning to the old member id.
		c.parkJoin(m, ticket, e)
		c.rebalance(now, e)
		return
	}
	answer := c.joined(m)
	if r.SupportsSkipAssignment {
		answer.SkipAssignment = id == c.leader
	} else {
		// A client that does not know of skipping would assign if it were told that it leads.
		answer.LeaderID, answer.Members = leader, nil
	}
	c.g.withhold(c.g.change(), ticket, answer)
}
