package group

import "time"

// sync is SyncGroup. The leader's request ends the wait of all: what it assigns
// is written, and shown when that is durable.
func (c *classic) sync(now time.Time, ticket Ticket, r *SyncGroupRequest, e *Effects) {
	refuse := func(err error) { e.reply(ticket, &SyncGroupResponse{Err: err}) }
	if r.RequireProtocol && (r.ProtocolType == "" || r.ProtocolName == "") {
		refuse(ErrInconsistentProtocol)
		return
	}
	m, err := c.checkGeneration(r.MemberID, r.InstanceID, r.Generation)
	switch {
	case err != nil:
		refuse(err)
	case r.RequireProtocol && (r.ProtocolType != c.protocolType || r.ProtocolName != c.protocolName):
		refuse(ErrInconsistentProtocol)
	case c.state == PreparingRebalance:
		refuse(ErrRebalanceInProgress)
	case c.state == Stable:
		m.mustSync = false
		c.renew(now, m)
		e.reply(ticket, c.synced(m))
	default:
		m.mustSync = false
		c.parkSync(m, ticket, e)
		// A leader that repeats its request while the first is being written
		// changes nothing: one generation has one assignment.
		if m.id == c.leader && c.syncSeq == 0 {
			c.assign(r.Assignments)
			c.syncSeq = c.g.change()
		}
	}
}

// assign gives every member what the leader says, or nothing. Ids that are no
// members are passed over.
func (c *classic) assign(assignments []MemberAssignment) {
	for _, m := range c.members {
		m.assignment = nil
	}
	for _, a := range assignments {
		if m := c.byID[a.MemberID]; m != nil {
			m.assignment = a.Assignment
		}
	}
}

// synced is the stable group's answer to m.
func (c *classic) synced(m *member) *SyncGroupResponse {
	return &SyncGroupResponse{ProtocolType: c.protocolType, ProtocolName: c.protocolName, Assignment: m.assignment}
}

// heartbeat renews the session and tells of a rebalance.
func (c *classic) heartbeat(now time.Time, r *HeartbeatRequest) error {
	m, err := c.checkGeneration(r.MemberID, r.InstanceID, r.Generation)
	if err != nil {
		return err
	}
	c.renew(now, m)
	if c.state == PreparingRebalance {
		return ErrRebalanceInProgress
	}
	return nil
}
