package group

// memberState is where a member is on its way to its target
// (org.apache.kafka.coordinator.group.modern.MemberState).
//
//	          target moved
//	Stable ──────────────────► Unrevoked    told to give partitions up; has the
//	  ▲  ▲                       │          epoch that it had
//	  │  └──── all is free ──────┤
//	  │                          ▼ gave them up: epoch of the target
//	  └───── became free ──── Unreleased    waits for partitions that other
//	                                        members have not given up
type memberState uint8

const (
	memberStable memberState = iota
	memberUnrevoked
	memberUnreleased
	memberStates // their number
)

// reconcile moves a member one step towards its target
// (class CurrentAssignmentBuilder) and tells whether anything about it changed.
//
// owned is what the client says it has; nil means that it did not say, so it may
// still have all it was told. A partition is in a member's assigned or revoking
// set from the moment it may learn of it to the moment it says it has given it up,
// or is removed; owners holds that member. Nobody is assigned a partition that
// another one is the owner of: this is why no two members have the same one. It
// holds as far as a list of what a client has is its word, that it will not take
// what it was told before and has not in the list.
func (c *consumer) reconcile(m *consumerMember, owned []TopicPartitions) bool {
	epoch := m.epoch
	switch m.state {
	case memberStable:
		if m.epoch == c.targetEpoch {
			return false
		}
	case memberUnrevoked:
		if owned == nil || m.revoking.containsAny(owned) {
			return false
		}
		// The step after may find yet more to revoke, because the target has moved
		// on since. It is a new step, with a time of its own, so it has an epoch of
		// its own; the target's is at least this one.
		epoch++
		c.disown(m, m.revoking)
		m.revoking = nil
	case memberUnreleased:
		if m.epoch == c.targetEpoch && !c.hasFreed(m) {
			return false
		}
	}

	kept, revoked := m.assigned.split(m.target)
	if len(revoked) > 0 && (owned == nil || revoked.containsAny(owned)) {
		m.setEpoch(epoch)
		m.state = memberUnrevoked
		m.assigned = kept
		m.revoking = revoked
		return true
	}
	c.disown(m, revoked)
	_, missing := m.target.split(kept)
	free, held := c.partFree(m, missing)
	c.own(m, free)
	m.assigned = kept.union(free)
	m.setEpoch(c.targetEpoch)
	m.state = memberStable
	if held {
		m.state = memberUnreleased
	}
	return true
}

// reconciled tells whether the member has what the current target gives it.
func (c *consumer) reconciled(m *consumerMember) bool {
	return m.state == memberStable && m.epoch == c.targetEpoch
}

// setEpoch keeps the epoch before, by which a member is known whose answer was lost.
func (m *consumerMember) setEpoch(epoch int32) {
	if epoch != m.epoch {
		m.previousEpoch = m.epoch
		m.epoch = epoch
	}
}

// topicPartition is one partition.
type topicPartition struct {
	topic     TopicID
	partition int32
}

// own makes m the owner of partitions that nobody else owns.
func (c *consumer) own(m *consumerMember, set Assignment) {
	for _, tp := range set {
		for _, p := range tp.Partitions {
			c.owners[topicPartition{tp.Topic, p}] = m
		}
	}
}

// disown ends m's ownership of partitions.
func (c *consumer) disown(m *consumerMember, set Assignment) {
	for _, tp := range set {
		for _, p := range tp.Partitions {
			if key := (topicPartition{tp.Topic, p}); c.owners[key] == m {
				delete(c.owners, key)
			}
		}
	}
}

// partFree returns the partitions of set that m may have now, and whether
// another member still holds one of the others.
func (c *consumer) partFree(m *consumerMember, set Assignment) (free Assignment, held bool) {
	for _, tp := range set {
		var partitions []int32
		for _, p := range tp.Partitions {
			if o := c.owners[topicPartition{tp.Topic, p}]; o == nil || o == m {
				partitions = append(partitions, p)
			} else {
				held = true
			}
		}
		if partitions != nil {
			free = append(free, TopicPartitions{tp.Topic, partitions})
		}
	}
	return free, held
}

// hasFreed tells whether a partition that m waits for has become free.
func (c *consumer) hasFreed(m *consumerMember) bool {
	for _, tp := range m.target {
		for _, p := range tp.Partitions {
			if c.owners[topicPartition{tp.Topic, p}] == nil {
				return true
			}
		}
	}
	return false
}
