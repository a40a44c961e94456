package group

import "time"

// A group changes its protocol when the first member of the other one comes
// while it is empty, and while it has members as far as the migration policy
// allows (group.consumer.migration.policy): the first heartbeat of the consumer
// protocol makes a classic group of consumers a consumer group, whose classic
// members live on in it; the end of its last member of the consumer protocol
// makes it classic again. Its epoch goes on as generation and back.

// becomeConsumer replaces a classic group by a consumer group with the same
// members, for a member that is about to join with r. Nothing has changed if it
// returns an error.
//
// Requests that are parked in the classic group are answered that it rebalances:
// their members join again, into the consumer group. Members that have never
// been in a generation are not taken over, since not all of them know their id.
func (g *Group) becomeConsumer(now time.Time, r *ConsumerHeartbeatRequest, topics Topics, e *Effects) error {
	old := g.classic
	if old.state == Dead {
		return ErrUnavailable
	}
	c := newConsumer(g)
	c.epoch, c.targetEpoch = old.generation, old.generation
	if len(old.members) > 0 {
		if !g.config.Upgrade || old.protocolType != consumerProtocolType {
			return ErrGroupNotFound
		}
		for _, m := range old.members {
			if m.isNew {
				continue
			}
			converted, err := fromClassic(m, old)
			if err != nil {
				return ErrGroupNotFound
			}
			c.add(converted)
		}
		if err := c.takeOver(old, topics); err != nil {
			return ErrGroupNotFound
		}
		size := len(c.members)
		if size > g.config.ConsumerMaxSize {
			return ErrGroupNotFound
		}
		returns := c.byID[r.MemberID] != nil || r.InstanceID != nil && c.instances[*r.InstanceID] != nil
		if size == g.config.ConsumerMaxSize && !returns {
			return ErrMaxSizeReached
		}
	}
	old.release(ErrRebalanceInProgress, e)
	g.classic, g.consumer = nil, c
	g.deadline = time.Time{}
	for _, m := range c.members {
		c.renew(now, m)
	}
	g.change()
	return nil
}

// fromClassic makes a member of one of a classic group, without partitions.
func fromClassic(m *member, old *classic) (*consumerMember, error) {
	subscription, err := m.subscription(old)
	if err != nil {
		return nil, err
	}
	preferred, err := decodeConsumerSubscription(m.protocols[0].Metadata)
	if err != nil {
		return nil, err
	}
	return &consumerMember{
		id: m.id, instance: m.instance, rack: subscription.rack,
		clientID: m.clientID, clientHost: m.clientHost,
		rebalanceTimeout: m.rebalance,
		names:            uniqueNames(subscription.topics),
		classic:          &classicSide{sessionTimeout: m.session, protocols: m.protocols, version: preferred.version},
		epoch:            old.generation,
		previousEpoch:    old.generation,
	}, nil
}

// subscription is what m last joined with, for the generation's protocol.
func (m *member) subscription(of *classic) (consumerSubscription, error) {
	if of.protocolName == "" {
		return decodeConsumerSubscription(m.protocols[0].Metadata)
	}
	return decodeConsumerSubscription(m.metadata(of.protocolName))
}

// takeOver makes c's members owners of what they may have. That is what the
// leader assigned them, unless they have joined again since: then it is what they
// said in that join, because no later assignment has been shown to them. A member
// of which it is not clear which is the case comes last.
func (c *consumer) takeOver(old *classic, topics Topics) error {
	var unclear []*member
	for _, m := range old.members {
		to := c.byID[m.id]
		if to == nil {
			continue
		}
		var told consumerProtocolAssignment
		if len(m.assignment) > 0 {
			var err error
			if told, err = decodeConsumerAssignment(m.assignment); err != nil {
				return err
			}
		}
		if told.hasUserData {
			// The client's own assignor keeps state in its assignments (Kafka Streams
			// does); its members cannot do with the server's.
			return errMalformedBlob
		}
		if old.state == Stable || old.state == PreparingRebalance && !m.join.waiting && len(m.assignment) > 0 {
			to.assigned = c.unowned(told.assigned, topics)
			to.target = to.assigned
			c.own(to, to.assigned)
		} else {
			unclear = append(unclear, m)
		}
	}
	for _, m := range unclear {
		subscription, err := m.subscription(old)
		if err != nil {
			return err
		}
		to := c.byID[m.id]
		to.assigned = c.unowned(subscription.owned, topics)
		to.target = to.assigned
		c.own(to, to.assigned)
	}
	return nil
}

// unowned returns the existing partitions of a list that nobody owns yet.
func (c *consumer) unowned(named []namedPartitions, topics Topics) Assignment {
	var list []TopicPartitions
	for _, tp := range named {
		t, ok := topics.Topic(tp.topic)
		if !ok {
			continue
		}
		var partitions []int32
		for _, p := range tp.partitions {
			if p >= 0 && p < t.Partitions && c.owners[topicPartition{t.ID, p}] == nil {
				partitions = append(partitions, p)
			}
		}
		list = append(list, TopicPartitions{t.ID, partitions})
	}
	return makeAssignment(list)
}

// removed follows the removal of members, and tells whether the group became
// classic by it. It then rebalances in the generation that its members know, for
// which their heartbeats say so: a new epoch would fence them instead.
func (c *consumer) removed(now time.Time, e *Effects) bool {
	if c.downgrade(now, true, e) {
		return true
	}
	c.bump()
	return false
}

// downgrade makes the group classic if only classic members are left and the
// policy allows it, and tells whether it did. They keep their places, and rebalance
// if a member has left, or one of them has not what it shall have.
func (c *consumer) downgrade(now time.Time, left bool, e *Effects) bool {
	if len(c.members) == 0 || len(c.members) > c.g.config.MaxSize || !c.g.config.Downgrade {
		return false
	}
	for _, m := range c.members {
		if m.classic == nil {
			return false
		}
	}
	c.becomeClassic(now, left, e)
	return true
}

// becomeClassic replaces c by a classic group with c's members, all of which are
// classic, which then rebalances if it is not settled; or by an empty one.
func (c *consumer) becomeClassic(now time.Time, left bool, e *Effects) {
	g := c.g
	to := newClassic(g)
	to.generation = c.epoch
	to.protocolType = consumerProtocolType
	to.emptySince = c.emptySince
	settled := !left && c.state() == Stable
	for _, m := range c.members {
		to.add(&member{
			id: m.id, instance: m.instance,
			clientID: m.clientID, clientHost: m.clientHost,
			session: m.classic.sessionTimeout, rebalance: max(m.rebalanceTimeout, minRebalanceTimeout),
			protocols:  m.classic.protocols,
			assignment: encodeConsumerAssignment(m.classic.version, c.named(m.assigned.union(m.revoking))),
		})
	}
	g.consumer, g.classic = nil, to
	g.deadline = time.Time{}
	if len(to.members) == 0 {
		return
	}
	to.state = Stable
	to.protocolName = to.selectProtocol()
	for _, m := range to.members {
		to.renew(now, m)
	}
	g.change()
	if !settled {
		to.prepareRebalance(now, ErrRebalanceInProgress, e)
	}
}
