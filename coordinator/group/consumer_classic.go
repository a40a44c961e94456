package group

import (
	"slices"
	"time"
)

// Members of the classic protocol live on in a consumer group that they were
// converted with, or join it (KIP-848, "Upgrading"). What they send is
// translated: their generation is their member epoch, JoinGroup reconciles,
// SyncGroup tells the assignment, and Heartbeat asks them to join again when
// there is a step to make. Nothing of theirs is parked.

func (c *consumer) joinClassic(now time.Time, ticket Ticket, r *JoinGroupRequest, e *Effects) {
	if err := c.tryJoinClassic(now, ticket, r, e); err != nil {
		e.reply(ticket, &JoinGroupResponse{Err: err, Generation: -1, MemberID: r.MemberID})
	}
}

// tryJoinClassic follows GroupMetadataManager.classicGroupJoinToConsumerGroup.
func (c *consumer) tryJoinClassic(now time.Time, ticket Ticket, r *JoinGroupRequest, e *Effects) error {
	m := c.byID[r.MemberID]
	var holder *consumerMember
	if r.InstanceID != "" {
		holder = c.instances[r.InstanceID]
	}
	if m == nil && holder == nil && len(c.members) >= c.g.config.ConsumerMaxSize {
		return ErrMaxSizeReached
	}
	protocols := distinct(r.Protocols)
	if r.ProtocolType != consumerProtocolType || !c.supportsClassic(protocols, m, holder) {
		return ErrInconsistentProtocol
	}
	subscription, err := decodeConsumerSubscription(protocols[0].Metadata)
	if err != nil {
		return ErrInconsistentProtocol
	}

	switch {
	case r.InstanceID == "" && r.MemberID == "" && r.RequireKnownMember:
		e.reply(ticket, &JoinGroupResponse{
			Err: ErrMemberIDRequired, Generation: -1, MemberID: r.ClientID + "-" + c.g.config.NewUUID()})
		return nil
	case r.InstanceID == "" && m == nil:
		// Ids that were given out are not remembered: whoever brings one may join.
		id := r.MemberID
		if id == "" {
			id = r.ClientID + "-" + c.g.config.NewUUID()
		}
		m = c.join(id, "")
	case r.InstanceID == "":
	case r.MemberID == "" && holder == nil:
		m = c.join(r.InstanceID+"-"+c.g.config.NewUUID(), r.InstanceID)
	case r.MemberID == "":
		m = c.replace(now, holder, r.InstanceID+"-"+c.g.config.NewUUID())
	case holder == nil:
		return ErrUnknownMember
	case holder != m:
		return ErrFencedInstance
	}

	m.clientID, m.clientHost = r.ClientID, r.ClientHost
	m.rack = subscription.rack
	m.rebalanceTimeout = max(r.RebalanceTimeout, minRebalanceTimeout)
	m.classic = &classicSide{sessionTimeout: r.SessionTimeout, protocols: protocols, version: subscription.version}
	c.g.change()
	if c.resubscribe(m, uniqueNames(subscription.topics), "") {
		c.bump()
	}
	c.refresh(now, r.Topics)
	c.assign()
	c.reconcile(m, identify(subscription.owned, r.Topics))
	m.rebalance, m.join = time.Time{}, time.Time{}
	c.renew(now, m)
	c.wait(&m.sync, now.Add(m.rebalanceTimeout))

	joined := &JoinGroupResponse{
		Generation:   m.epoch,
		ProtocolType: consumerProtocolType,
		ProtocolName: protocols[0].Name,
		MemberID:     m.id,
	}
	c.answer(ticket, joined, e)
	// The joining process may have taken the place of the last member of the
	// consumer protocol.
	c.downgrade(now, false, e)
	return nil
}

// join makes a new member.
func (c *consumer) join(id, instance string) *consumerMember {
	m := &consumerMember{id: id, instance: instance}
	c.add(m)
	c.bump()
	return m
}

// supportsClassic tells whether one of the protocols is offered by every other
// classic member. The joining one may be m or take the place of holder.
func (c *consumer) supportsClassic(protocols []Protocol, m, holder *consumerMember) bool {
	return slices.ContainsFunc(protocols, func(p Protocol) bool {
		for _, other := range c.members {
			if other.classic == nil || other == m || other == holder {
				continue
			}
			if !slices.ContainsFunc(other.classic.protocols, func(o Protocol) bool { return o.Name == p.Name }) {
				return false
			}
		}
		return true
	})
}

// identify turns names into ids. Topics that do not exist are left out: nobody
// has a partition of them. It returns nil, not known, only without topics.
func identify(named []namedPartitions, topics Topics) []TopicPartitions {
	if topics == nil {
		return nil
	}
	list := make([]TopicPartitions, 0, len(named))
	for _, tp := range named {
		if t, ok := topics.Topic(tp.topic); ok {
			list = append(list, TopicPartitions{t.ID, tp.partitions})
		}
	}
	return list
}

// syncClassic follows classicGroupSyncToConsumerGroup.
func (c *consumer) syncClassic(now time.Time, ticket Ticket, r *SyncGroupRequest, e *Effects) {
	refuse := func(err error) { e.reply(ticket, &SyncGroupResponse{Err: err}) }
	m, err := c.classicMember(r.MemberID, r.InstanceID, r.Generation)
	if err != nil {
		refuse(err)
		return
	}
	protocol := m.classic.protocols[0].Name
	if r.RequireProtocol && (r.ProtocolType != consumerProtocolType || r.ProtocolName != protocol) {
		refuse(ErrInconsistentProtocol)
		return
	}
	if m.epoch < c.epoch && m.state != memberUnrevoked {
		c.askToJoin(now, m)
		refuse(ErrRebalanceInProgress)
		return
	}
	m.sync = time.Time{}
	c.renew(now, m)
	c.answer(ticket, &SyncGroupResponse{
		ProtocolType: consumerProtocolType,
		ProtocolName: protocol,
		Assignment:   encodeConsumerAssignment(m.classic.version, c.named(m.assigned)),
	}, e)
}

// heartbeatClassic follows classicGroupHeartbeatToConsumerGroup: the member joins
// again when the group has moved on, when it has partitions to give up, and when
// all that it waits for has become free.
func (c *consumer) heartbeatClassic(now time.Time, r *HeartbeatRequest) error {
	m, err := c.classicMember(r.MemberID, r.InstanceID, r.Generation)
	if err != nil {
		return err
	}
	c.renew(now, m)
	if m.epoch < c.epoch || m.state == memberUnrevoked || m.state == memberUnreleased && !c.waits(m) {
		c.askToJoin(now, m)
		return ErrRebalanceInProgress
	}
	return nil
}

// classicMember finds the member that a classic request is of.
func (c *consumer) classicMember(id, instance string, generation int32) (*consumerMember, error) {
	m, err := c.member(id, instance)
	switch {
	case err != nil:
		return nil, err
	case m.classic == nil:
		return nil, ErrUnknownMember
	case generation != m.epoch:
		return nil, ErrIllegalGeneration
	}
	return m, nil
}

// askToJoin starts the time within which the member has to join, once.
func (c *consumer) askToJoin(now time.Time, m *consumerMember) {
	if m.join.IsZero() {
		c.wait(&m.join, now.Add(m.rebalanceTimeout))
	}
}

// leaveClassic follows classicGroupLeaveToConsumerGroup. An admin may remove a
// static member of either protocol by its instance id.
func (c *consumer) leaveClassic(now time.Time, ticket Ticket, r *LeaveGroupRequest, e *Effects) {
	left := &LeaveGroupResponse{Members: make([]LeftMember, len(r.Members))}
	removed := false
	for i, leaving := range r.Members {
		left.Members[i] = LeftMember{MemberID: leaving.MemberID, InstanceID: leaving.InstanceID}
		byAdmin := leaving.MemberID == "" && leaving.InstanceID != ""
		id := leaving.MemberID
		if holder := c.instances[leaving.InstanceID]; byAdmin && holder != nil {
			id = holder.id
		}
		m, err := c.member(id, leaving.InstanceID)
		if err == nil && m.classic == nil && !byAdmin {
			err = ErrUnknownMember
		}
		if err != nil {
			left.Members[i].Err = err
			continue
		}
		c.remove(now, m)
		removed = true
	}
	if removed {
		c.g.change()
	}
	c.answer(ticket, left, e)
	if removed {
		c.removed(now, e)
	}
}

// waits tells whether another member still holds a partition of m's target.
func (c *consumer) waits(m *consumerMember) bool {
	for _, tp := range m.target {
		for _, p := range tp.Partitions {
			if o := c.owners[topicPartition{tp.Topic, p}]; o != nil && o != m {
				return true
			}
		}
	}
	return false
}

// named turns ids into names, by the topics that the group subscribes to. Others
// do not exist any more or are about to be given up.
func (c *consumer) named(set Assignment) []namedPartitions {
	list := make([]namedPartitions, 0, len(set))
	for _, tp := range set {
		if t, ok := c.topics[tp.Topic]; ok {
			list = append(list, namedPartitions{t.Name, tp.Partitions})
		}
	}
	return list
}
