package group

import (
	"slices"
	"strings"
	"time"
)

// ConsumerHeartbeatRequest is ConsumerGroupHeartbeat v0–v1. A nil pointer or
// slice is Kafka's null: absent, or as it was at the last heartbeat. It is read,
// and the strings in it kept.
type ConsumerHeartbeatRequest struct {
	MemberID string
	// MemberEpoch is 0 to join or join again, -1 to leave, -2 for a static member
	// that will come back, else the epoch that the member was told last.
	MemberEpoch int32
	// RequireMemberID (v1+): the client makes its member id (KIP-1082). Before,
	// one that joins with "" is given one.
	RequireMemberID      bool
	InstanceID, RackID   *string
	ClientID, ClientHost string
	RebalanceTimeout     time.Duration // negative: absent
	SubscribedTopicNames []string
	SubscribedTopicRegex *string
	ServerAssignor       *string
	OwnedTopicPartitions []TopicPartitions
}

// ConsumerHeartbeatResponse with an error has nothing else but MemberID.
type ConsumerHeartbeatResponse struct {
	Err               error
	MemberID          string
	MemberEpoch       int32
	HeartbeatInterval time.Duration
	// Assignment is all that the member shall have now; nil is Kafka's null: as
	// it was told last.
	Assignment *Assignment

	joins bool // it answers a heartbeat of epoch 0
}

func (r *ConsumerHeartbeatResponse) refused(err error) response {
	if err == ErrMaxSizeReached && !r.joins {
		// That the group has become too large is no fault of who is in it, and the end
		// of a client that is told so.
		err = ErrUnavailable
	}
	return &ConsumerHeartbeatResponse{Err: err, MemberID: r.MemberID}
}

// check refuses requests that contradict themselves
// (throwIfConsumerGroupHeartbeatRequestIsInvalid).
func (r *ConsumerHeartbeatRequest) check(assignors []string) error {
	blank := func(s *string) bool { return s != nil && strings.TrimSpace(*s) == "" }
	known := r.MemberEpoch != 0 || r.RequireMemberID
	if known && blank(&r.MemberID) || blank(r.InstanceID) || blank(r.RackID) {
		return ErrInvalidRequest
	}
	switch {
	case r.MemberEpoch < leftEpoch,
		r.MemberEpoch == leftEpoch && r.InstanceID == nil,
		r.MemberEpoch == 0 && r.RebalanceTimeout < 0,
		r.MemberEpoch == 0 && (r.OwnedTopicPartitions == nil || len(r.OwnedTopicPartitions) > 0),
		r.MemberEpoch == 0 && r.SubscribedTopicNames == nil && r.SubscribedTopicRegex == nil:
		return ErrInvalidRequest
	}
	if r.ServerAssignor != nil && !slices.Contains(assignors, *r.ServerAssignor) {
		return ErrUnsupportedAssignor
	}
	return nil
}

// full tells whether the request says everything, as a client does that has lost
// an answer: it is told everything in turn.
func (r *ConsumerHeartbeatRequest) full() bool {
	return r.MemberEpoch == 0 ||
		r.RebalanceTimeout >= 0 && r.OwnedTopicPartitions != nil &&
			(r.SubscribedTopicNames != nil || r.SubscribedTopicRegex != nil)
}

// maxRepeats is how often an assignment is told again to a client that has not
// answered to it. The answer that told it may be lost, and librdkafka sends a
// heartbeat that timed out once more as it was, instead of a full one (KIP-848):
// it would never learn what it is to give up, or has been given in the epoch that
// it knows. Being told the same twice changes nothing for a client.
const maxRepeats = 3

// ConsumerHeartbeat joins, keeps, moves on or ends a membership of the KIP-848
// protocol. It answers ticket with a *ConsumerHeartbeatResponse: at once, or when
// what it tells is durable. topics are the cluster's topics now.
//
// A heartbeat of a member that has its target changes nothing durable and
// allocates nothing.
func (g *Group) ConsumerHeartbeat(now time.Time, ticket Ticket, r *ConsumerHeartbeatRequest, topics Topics, e *Effects) {
	if err := g.consumerHeartbeat(now, ticket, r, topics, e); err != nil {
		e.reply(ticket, &ConsumerHeartbeatResponse{Err: err, MemberID: r.MemberID})
	}
	g.flush(e)
}

func (g *Group) consumerHeartbeat(now time.Time, ticket Ticket, r *ConsumerHeartbeatRequest, topics Topics, e *Effects) error {
	if g.id == "" {
		return ErrInvalidRequest
	}
	if err := r.check(g.config.Assignors); err != nil {
		return err
	}
	if r.SubscribedTopicRegex != nil && *r.SubscribedTopicRegex != "" {
		known := g.consumer != nil && g.consumer.regexes[*r.SubscribedTopicRegex] != nil
		if !known {
			if _, err := compileTopicRegex(*r.SubscribedTopicRegex); err != nil {
				return err
			}
		}
	}
	if g.consumer == nil {
		if r.MemberEpoch != 0 {
			return ErrGroupNotFound
		}
		if err := g.becomeConsumer(now, r, topics, e); err != nil {
			return err
		}
	}
	if r.MemberEpoch < 0 {
		return g.consumer.leave(now, ticket, r, e)
	}
	return g.consumer.heartbeat(now, ticket, r, topics, e)
}

func (c *consumer) heartbeat(now time.Time, ticket Ticket, r *ConsumerHeartbeatRequest, topics Topics, e *Effects) error {
	m, err := c.heartbeatMember(now, r)
	if err != nil {
		return err
	}
	m.clientID, m.clientHost = r.ClientID, r.ClientHost
	if c.update(m, r) {
		c.bump()
	}
	c.refresh(now, topics)
	c.assign()

	owned := r.OwnedTopicPartitions
	if r.MemberEpoch != m.epoch && r.MemberEpoch != 0 {
		// The request is older than the last answer: what it lists is from before
		// the member learned of all that it was given.
		owned = nil
	}
	before := m.assigned
	if c.reconcile(m, owned) {
		c.g.change()
		c.waitForRevocation(now, m)
	}
	c.renew(now, m)

	tell := r.full()
	switch {
	case !m.assigned.Equal(before):
		m.repeats = maxRepeats
		tell = true
	case owned != nil:
		m.repeats = 0 // it answers to what it was told
	case m.repeats > 0:
		m.repeats--
		tell = true
	}
	if tell {
		assigned := m.assigned
		c.answer(ticket, &ConsumerHeartbeatResponse{
			MemberID:          m.id,
			MemberEpoch:       m.epoch,
			HeartbeatInterval: c.g.config.ConsumerHeartbeatInterval,
			Assignment:        &assigned,
			joins:             r.MemberEpoch == 0,
		}, e)
		return nil
	}
	c.answer(ticket, c.steady(m), e)
	return nil
}

// steady is the answer to a member that is told nothing.
func (c *consumer) steady(m *consumerMember) *ConsumerHeartbeatResponse {
	interval := c.g.config.ConsumerHeartbeatInterval
	if m.steady == nil || m.steady.MemberEpoch != m.epoch || m.steady.HeartbeatInterval != interval {
		m.steady = &ConsumerHeartbeatResponse{MemberID: m.id, MemberEpoch: m.epoch, HeartbeatInterval: interval}
	}
	return m.steady
}

// ConsumerHeartbeatAtRest is ConsumerHeartbeat for the request of a cluster at
// rest: one that says nothing, of a member that has what it is to have, in a group
// in which nothing is to be done. It renews the member's session, changes nothing
// else and allocates nothing. False: it has done nothing.
func (g *Group) ConsumerHeartbeatAtRest(now time.Time, r *ConsumerHeartbeatRequest, topics Topics) (*ConsumerHeartbeatResponse, bool) {
	c := g.consumer
	if c == nil || !g.log.idle() || r.MemberEpoch <= 0 || !r.empty() ||
		c.epoch != c.targetEpoch || c.stale(now, topics) {
		return nil, false
	}
	m := c.byID[r.MemberID]
	if m == nil || m.classic != nil || m.epoch != r.MemberEpoch || !c.reconciled(m) || m.repeats > 0 ||
		m.clientID != r.ClientID || m.clientHost != r.ClientHost {
		return nil, false
	}
	if r.InstanceID != nil && (*r.InstanceID == "" || c.instances[*r.InstanceID] != m) {
		return nil, false
	}
	c.renew(now, m)
	return c.steady(m), true
}

// empty says that the request says nothing but whose it is.
func (r *ConsumerHeartbeatRequest) empty() bool {
	return r.RackID == nil && r.RebalanceTimeout < 0 && r.SubscribedTopicNames == nil && r.SubscribedTopicRegex == nil &&
		r.ServerAssignor == nil && r.OwnedTopicPartitions == nil
}

// heartbeatMember finds the member that a heartbeat is of, or makes it one that joins.
func (c *consumer) heartbeatMember(now time.Time, r *ConsumerHeartbeatRequest) (*consumerMember, error) {
	m := c.byID[r.MemberID]
	var instance string
	if r.InstanceID != nil {
		instance = *r.InstanceID
	}
	holder := c.instances[instance]
	joins := r.MemberEpoch == 0
	switch {
	case !joins && instance != "" && holder == nil, !joins && instance == "" && m == nil:
		return nil, ErrUnknownMember
	case !joins && instance != "" && holder.id != r.MemberID:
		return nil, ErrFencedInstance
	case !joins && m.classic != nil:
		return nil, ErrUnknownMember
	case !joins:
		return m, m.checkHeartbeatEpoch(r)

	case instance != "" && holder != nil && holder.id != r.MemberID:
		// A process comes back under a new member id. It gets what the one before
		// had, if that one has left or speaks the other protocol, which has no way
		// to say so.
		if holder.classic == nil && holder.epoch != leftEpoch {
			return nil, ErrUnreleasedInstance
		}
		if m != nil {
			return nil, ErrInvalidRequest // the id of yet another member
		}
		return c.replace(now, holder, c.newMemberID(r.MemberID)), nil

	case m != nil && m.instance != instance && instance != "":
		return nil, ErrInvalidRequest
	case m != nil:
		// It says that it has nothing. Kafka refuses the id until the session of
		// its former life ends; then a client that was fenced, or whose leaving was
		// lost, would do nothing for that long.
		c.reset(m)
		return m, nil

	case len(c.members) >= c.g.config.ConsumerMaxSize:
		return nil, ErrMaxSizeReached
	}
	m = &consumerMember{id: c.newMemberID(r.MemberID), instance: instance}
	c.add(m)
	c.bump()
	return m, nil
}

func (c *consumer) newMemberID(wanted string) string {
	if wanted == "" {
		return c.g.config.NewUUID()
	}
	return wanted
}

// checkHeartbeatEpoch follows throwIfConsumerGroupMemberEpochIsInvalid: a member
// may come with its previous epoch if the answer that told it the present one was
// lost, which shows in that it has nothing but what is its own. (For Kafka that is
// not what it has still to give up. But an answer may be lost that brings a new
// epoch and tells a member to give up more.)
func (m *consumerMember) checkHeartbeatEpoch(r *ConsumerHeartbeatRequest) error {
	if r.MemberEpoch == m.epoch {
		return nil
	}
	if r.MemberEpoch < m.epoch && r.MemberEpoch == m.previousEpoch && r.OwnedTopicPartitions != nil &&
		containsAll(m.assigned, m.revoking, r.OwnedTopicPartitions) {
		return nil
	}
	return ErrFencedMemberEpoch
}

// reset makes a member one that has just joined, with its place in the target.
func (c *consumer) reset(m *consumerMember) {
	c.disown(m, m.assigned)
	c.disown(m, m.revoking)
	m.epoch, m.previousEpoch = 0, 0
	m.state = memberStable
	m.assigned, m.revoking = nil, nil
	m.rebalance, m.join, m.sync = time.Time{}, time.Time{}, time.Time{}
	m.steady = nil
	c.g.change()
}

// replace gives the place of a static member to a new member id.
func (c *consumer) replace(now time.Time, old *consumerMember, id string) *consumerMember {
	m := *old
	// What an expression matches stays known, though nobody else has it: nothing that
	// would match it again has changed.
	c.subscribe(m.names, m.regex)
	defer c.unsubscribe(m.names, m.regex)
	c.remove(now, old)
	m.id = id
	m.session = time.Time{}
	c.add(&m)
	c.reset(&m)
	return &m
}

// update takes over what a heartbeat says and tells whether it changes the
// group's subscriptions.
func (c *consumer) update(m *consumerMember, r *ConsumerHeartbeatRequest) bool {
	changed := false
	if m.classic != nil {
		m.classic = nil
		changed = true
	}
	if r.RackID != nil && *r.RackID != m.rack {
		m.rack = *r.RackID
		changed = true
	}
	if r.RebalanceTimeout >= 0 && r.RebalanceTimeout != m.rebalanceTimeout {
		m.rebalanceTimeout = r.RebalanceTimeout
		changed = true
	}
	if r.ServerAssignor != nil && *r.ServerAssignor != m.assignor {
		m.assignor = *r.ServerAssignor
		changed = true
	}
	if changed {
		c.g.change()
	}
	names, regex := m.names, m.regex
	if r.SubscribedTopicNames != nil && !slices.Equal(r.SubscribedTopicNames, m.names) {
		names = uniqueNames(r.SubscribedTopicNames)
	}
	if r.SubscribedTopicRegex != nil {
		regex = *r.SubscribedTopicRegex
	}
	return c.resubscribe(m, names, regex)
}

// resubscribe changes a member's subscription and tells whether it did.
func (c *consumer) resubscribe(m *consumerMember, names []string, regex string) bool {
	if regex == m.regex && slices.Equal(names, m.names) {
		return false
	}
	c.subscribe(names, regex)
	c.unsubscribe(m.names, m.regex)
	m.names, m.regex = names, regex
	c.fresh = false
	return true
}

func uniqueNames(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}

// leave ends a membership, or lets a static member go that will come back.
func (c *consumer) leave(now time.Time, ticket Ticket, r *ConsumerHeartbeatRequest, e *Effects) error {
	var instance string
	if r.InstanceID != nil {
		instance = *r.InstanceID
	}
	m, err := c.member(r.MemberID, instance)
	if err != nil {
		return err
	}
	if m.classic != nil {
		return ErrUnknownMember
	}
	left := &ConsumerHeartbeatResponse{MemberID: m.id, MemberEpoch: r.MemberEpoch}
	if r.MemberEpoch == leftEpoch {
		// The process is gone: it has given up what it was to give up. Its session
		// runs on; who takes its place in time gets the rest.
		c.disown(m, m.revoking)
		m.revoking = nil
		m.rebalance = time.Time{}
		m.epoch, m.previousEpoch = leftEpoch, leftEpoch
		m.state = memberStable
		c.g.change()
		c.answer(ticket, left, e)
		return nil
	}
	c.remove(now, m)
	c.g.change()
	c.answer(ticket, left, e)
	c.removed(now, e)
	return nil
}

// TopicsChanged tells the group that topics were created or deleted or have got
// partitions. It is optional: the next heartbeat sees the same. A driver calls it
// so that groups whose members heartbeat seldom learn of it in their own time.
func (g *Group) TopicsChanged(now time.Time, topics Topics, e *Effects) {
	if g.consumer != nil && !g.consumer.isEmpty() {
		g.consumer.refresh(now, topics)
	}
	g.flush(e)
}
