package group

import "time"

// leave is LeaveGroup. The answer waits for the write if the group is Empty
// now: a group whose last member has left must not be loaded with it.
func (c *classic) leave(now time.Time, ticket Ticket, r *LeaveGroupRequest, e *Effects) {
	if c.state == Dead {
		e.reply(ticket, &LeaveGroupResponse{Err: ErrUnavailable})
		return
	}
	answer := &LeaveGroupResponse{Members: make([]LeftMember, len(r.Members))}
	removed := false
	for i, l := range r.Members {
		m, err := c.leaving(l)
		answer.Members[i] = LeftMember{l.MemberID, l.InstanceID, err}
		if m != nil {
			c.remove(m, ErrUnknownMember, e)
			removed = true
		}
	}
	if removed && (c.state == Stable || c.state == CompletingRebalance) {
		c.rebalance(now, e)
	} else {
		c.tryCompleteJoin(now, e)
	}
	if c.state == Empty && c.emptySeq > c.g.log.done {
		c.g.withhold(c.emptySeq, ticket, answer)
		return
	}
	e.reply(ticket, answer)
}

// leaving finds who l is. An instance id alone removes whoever has it; a
// member id not yet joined with is just forgotten.
func (c *classic) leaving(l LeavingMember) (*member, error) {
	if l.MemberID == "" {
		if m := c.byInstance[l.InstanceID]; m != nil && l.InstanceID != "" {
			return m, nil
		}
		return nil, ErrUnknownMember
	}
	if _, pending := c.pending[l.MemberID]; pending {
		delete(c.pending, l.MemberID)
		return nil, nil
	}
	return c.check(l.MemberID, l.InstanceID)
}
