package group

import (
	"encoding/binary"
	"maps"
	"slices"
)

// sendClassic lets a member of the classic protocol send what it would.
func (m *model) sendClassic(c *modelMember) {
	switch {
	case c.joins:
		if m.eager {
			c.has, c.told = partitionSet{}, partitionSet{}
		} else {
			// What it was told and has not taken yet, a cooperative member gives up.
			for p := range c.told.minus(c.has) {
				delete(c.told, p)
			}
		}
		protocol := map[bool]string{true: "range", false: "cooperative-sticky"}[m.eager]
		r := &JoinGroupRequest{
			MemberID: c.id, InstanceID: c.instance, ClientID: "classic",
			SessionTimeout: modelSession, RebalanceTimeout: modelRebalance,
			ProtocolType: consumerProtocolType, RequireKnownMember: true, SupportsSkipAssignment: true,
			Protocols: []Protocol{{protocol, encodeSubscription(c.names, c.has.named())}},
			Topics:    m.topics,
		}
		m.event(c, func(ticket Ticket, e *Effects) { m.g.JoinGroup(m.now, ticket, r, e) })
	case c.syncs:
		r := &SyncGroupRequest{
			MemberID: c.id, InstanceID: c.instance, Generation: c.epoch,
			RequireProtocol: true, ProtocolType: consumerProtocolType, ProtocolName: c.protocol,
			Assignments: m.lead(c),
		}
		m.event(c, func(ticket Ticket, e *Effects) { m.g.SyncGroup(m.now, ticket, r, e) })
	default:
		c.speaks(m.now)
		m.readClassicError(c, m.g.Heartbeat(m.now, &HeartbeatRequest{c.id, c.instance, c.epoch}))
	}
}

func (m *model) readClassicError(c *modelMember, err error) {
	switch err {
	case nil:
	case ErrRebalanceInProgress, ErrUnavailable:
		c.joins, c.syncs = true, false
	case ErrIllegalGeneration:
		id := c.id
		c.drop()
		c.id = id
	case ErrUnknownMember, ErrFencedInstance:
		c.drop()
		c.id = ""
	default:
		m.t.Fatalf("%s: %v", c.id, err)
	}
}

func (m *model) readJoin(c *modelMember, r *JoinGroupResponse) {
	if r.Err == ErrMemberIDRequired {
		c.id = r.MemberID
		return
	}
	if r.Err != nil {
		m.readClassicError(c, r.Err)
		return
	}
	if c.id == r.MemberID && r.Generation < c.shown {
		m.t.Fatalf("%s goes back from generation %d to %d", c.id, c.shown, r.Generation)
	}
	c.id, c.epoch, c.protocol = r.MemberID, r.Generation, r.ProtocolName
	c.joins, c.syncs, c.lost = false, true, 0
	c.leads = nil
	if r.LeaderID == r.MemberID && !r.SkipAssignment {
		c.leads = r.Members
	}
}

func (m *model) readSync(c *modelMember, r *SyncGroupResponse) {
	if r.Err != nil {
		m.readClassicError(c, r.Err)
		return
	}
	c.syncs, c.lost = false, 0
	assigned, err := decodeConsumerAssignment(r.Assignment)
	if len(r.Assignment) > 0 && err != nil {
		m.t.Fatalf("%s gets an assignment that cannot be read: %q", c.id, r.Assignment)
	}
	c.told, c.shown = m.resolved(assigned.assigned), c.epoch
	if c.lapsed {
		c.lapsed = false
		c.has = c.has.minus(c.has.minus(c.told))
	}
}

// resolved is what a client makes of names: partitions of topics that exist.
func (m *model) resolved(named []namedPartitions) partitionSet {
	set := partitionSet{}
	for _, tp := range named {
		if t, ok := m.topics.Topic(tp.topic); ok {
			for _, p := range tp.partitions {
				set[namedPartition{t.Name, t.ID, p}] = true
			}
		}
	}
	return set
}

// lead assigns as a leader does: evenly and, if cooperative, without giving
// anybody what another one has still to give up.
func (m *model) lead(c *modelMember) []MemberAssignment {
	if c.leads == nil {
		return nil
	}
	topics := slices.SortedFunc(maps.Values(m.topics.byName), func(a, b Topic) int { return compareTopicIDs(a.ID, b.ID) })
	owner := map[namedPartition]string{}
	members := make([]subscriber, len(c.leads))
	slices.SortFunc(c.leads, func(a, b JoinedMember) int { return slices.Compare([]byte(a.MemberID), []byte(b.MemberID)) })
	for i, j := range c.leads {
		s, err := decodeConsumerSubscription(j.Metadata)
		if err != nil {
			m.t.Fatal(err)
		}
		members[i] = subscriber{id: j.MemberID, instance: j.InstanceID}
		for t := range topics {
			if slices.Contains(s.topics, topics[t].Name) {
				members[i].topics = append(members[i].topics, t)
			}
		}
		owned := m.resolved(s.owned)
		for p := range owned {
			owner[p] = j.MemberID
		}
		members[i].previous = makeAssignment(owned.list())
	}
	result := make([]MemberAssignment, len(members))
	for i, target := range assignUniform(members, topics) {
		set := m.identified(target)
		for p := range set {
			if o := owner[p]; o != "" && o != members[i].id {
				delete(set, p)
			}
		}
		result[i] = MemberAssignment{members[i].id, encodeConsumerAssignment(1, set.named())}
	}
	return result
}

// encodeSubscription writes a ConsumerProtocolSubscription of version 3.
func encodeSubscription(topics []string, owned []namedPartitions) []byte {
	b := []byte{0, 3}
	b = binary.BigEndian.AppendUint32(b, uint32(len(topics)))
	for _, name := range topics {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name...)
	}
	b = append(b, 0xff, 0xff, 0xff, 0xff) // no user data
	assigned := encodeConsumerAssignment(0, owned)
	b = append(b, assigned[2:len(assigned)-4]...)
	b = append(b, 0xff, 0xff, 0xff, 0xff) // no generation
	return append(b, 0xff, 0xff)          // no rack
}
