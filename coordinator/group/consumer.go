package group

import (
	"cmp"
	"slices"
	"time"
)

// consumer is a group of the KIP-848 protocol. Three kinds of epochs drive it:
//
//	group epoch     grows when members, subscriptions or topics change
//	target epoch    the group epoch that the target assignment was made for
//	member epochs   the target epoch that each member has reached
//
// Members come to their target one by one, at their own heartbeats (reconcile.go);
// nobody stops for the others.
type consumer struct {
	g *Group

	epoch       int32
	targetEpoch int32

	members   []*consumerMember // by id, ascending
	byID      map[string]*consumerMember
	instances map[string]*consumerMember // static members by instance id

	// topics are the existing topics that the group subscribes to, as it last saw
	// them. The target assignment is made of them and of nothing else.
	topics map[TopicID]Topic
	// names counts the members that subscribe to a topic by name, regexes those
	// that do by expression.
	names   map[string]int
	regexes map[string]*topicRegex

	// seen is the revision that topics are of, once fresh is set; regexSeen and
	// regexAt are the revision and time of the last matching of expressions.
	fresh           bool
	seen, regexSeen uint64
	regexAt         time.Time

	owners map[topicPartition]*consumerMember // see reconcile

	emptySince time.Time // if there is no member
}

// leftEpoch is the epoch of a static member that has left to come back (KIP-848:
// a heartbeat of epoch -2). It keeps what it has until its session ends.
const leftEpoch = -2

// consumerMember is one member, of either protocol.
type consumerMember struct {
	id, instance, rack   string // instance and rack are "" if it has none
	clientID, clientHost string // as of its last request; durable with the next change
	rebalanceTimeout     time.Duration
	assignor             string   // "" if it leaves that to others
	names                []string // subscribed topics, ascending, each once
	regex                string   // subscribed expression, "" if none

	// classic is set while the member speaks the classic protocol.
	classic *classicSide

	epoch, previousEpoch int32
	state                memberState
	assigned, revoking   Assignment // what it has and shall keep; what it has to give up
	target               Assignment

	// Times at which the member is removed, zero if it is not waited for: session
	// without any request; rebalance without having given up what it must; join
	// and sync without having joined or synced, if it is classic.
	session, rebalance, join, sync time.Time

	// steady is the answer to a heartbeat that changes nothing.
	steady *ConsumerHeartbeatResponse

	// repeats is how many answers more tell the assignment though nobody asks:
	// the one that told it first may be lost, and not every client says so.
	repeats int
}

// classicSide is what a member of the classic protocol has in addition.
type classicSide struct {
	sessionTimeout time.Duration
	protocols      []Protocol // at least one; the first is the one it is told to use
	version        int16      // of its ConsumerProtocolSubscription
}

func newConsumer(g *Group) *consumer {
	return &consumer{
		g:         g,
		byID:      make(map[string]*consumerMember),
		instances: make(map[string]*consumerMember),
		topics:    make(map[TopicID]Topic),
		names:     make(map[string]int),
		regexes:   make(map[string]*topicRegex),
		owners:    make(map[topicPartition]*consumerMember),
	}
}

// state is Empty, Assigning, Reconciling or Stable.
func (c *consumer) state() State {
	switch {
	case len(c.members) == 0:
		return Empty
	case c.epoch > c.targetEpoch:
		return Assigning
	}
	for _, m := range c.members {
		if !c.reconciled(m) {
			return Reconciling
		}
	}
	return Stable
}

// isEmpty says whether the group has no member.
func (c *consumer) isEmpty() bool { return len(c.members) == 0 }

// bump starts a new group epoch, for which the next heartbeat or join makes a
// target. Changes that come before it does share the epoch.
func (c *consumer) bump() {
	if c.epoch == c.targetEpoch {
		c.epoch++
	}
	c.g.change()
}

// answer replies to ticket when everything that the group has decided so far is
// durable. Any answer may rest on any earlier change: a member is given a
// partition because another one gave it up.
func (c *consumer) answer(ticket Ticket, ok response, e *Effects) {
	log := &c.g.log
	switch {
	case log.dirty:
		c.g.withhold(log.seq+1, ticket, ok)
	case log.seq > log.done:
		c.g.withhold(log.seq, ticket, ok)
	default:
		e.reply(ticket, ok)
	}
}

// add makes m a member.
func (c *consumer) add(m *consumerMember) {
	i, _ := slices.BinarySearchFunc(c.members, m.id, compareMemberID)
	c.members = slices.Insert(c.members, i, m)
	c.byID[m.id] = m
	if m.instance != "" {
		c.instances[m.instance] = m
	}
	c.subscribe(m.names, m.regex)
	c.own(m, m.assigned)
	c.own(m, m.revoking)
}

// remove ends a membership; what the member had is free.
func (c *consumer) remove(now time.Time, m *consumerMember) {
	i, _ := slices.BinarySearchFunc(c.members, m.id, compareMemberID)
	c.members = slices.Delete(c.members, i, i+1)
	delete(c.byID, m.id)
	if c.instances[m.instance] == m {
		delete(c.instances, m.instance)
	}
	c.unsubscribe(m.names, m.regex)
	// Nobody may subscribe to its topics any more. They are looked up in the epoch that
	// begins without it: who loads the group later must not find that they have changed.
	c.fresh = false
	c.disown(m, m.assigned)
	c.disown(m, m.revoking)
	if len(c.members) == 0 {
		c.emptySince = now
	}
}

func compareMemberID(m *consumerMember, id string) int { return cmp.Compare(m.id, id) }

// subscribe counts one member's subscription.
func (c *consumer) subscribe(names []string, regex string) {
	for _, name := range names {
		c.names[name]++
	}
	if regex == "" {
		return
	}
	r := c.regexes[regex]
	if r == nil {
		// A request's expression has been compiled before it comes here. A record's
		// may have been written under wider limits; it matches nothing then.
		pattern, err := compileTopicRegex(regex)
		if err != nil {
			return
		}
		r = &topicRegex{pattern: pattern, hash: hashNames(nil)}
		c.regexes[regex] = r
	}
	r.members++
}

// unsubscribe takes it back.
func (c *consumer) unsubscribe(names []string, regex string) {
	for _, name := range names {
		if c.names[name]--; c.names[name] == 0 {
			delete(c.names, name)
		}
	}
	if r := c.regexes[regex]; r != nil {
		if r.members--; r.members == 0 {
			delete(c.regexes, regex)
		}
	}
}

// subscribedTo says whether a member subscribes to the topic.
func (c *consumer) subscribedTo(topic string) bool {
	if c.names[topic] > 0 {
		return true
	}
	for _, r := range c.regexes {
		if r.matches(topic) {
			return true
		}
	}
	return false
}

// member returns the member that a classic request or a commit means: by its
// instance id if it gives one, else by its member id.
func (c *consumer) member(id, instance string) (*consumerMember, error) {
	if instance == "" {
		if m := c.byID[id]; m != nil {
			return m, nil
		}
		return nil, ErrUnknownMember
	}
	m := c.instances[instance]
	switch {
	case m == nil:
		return nil, ErrUnknownMember
	case m.id != id:
		return nil, ErrFencedInstance
	}
	return m, nil
}

// checkCommit follows ConsumerGroup.validateOffsetCommit.
func (c *consumer) checkCommit(now time.Time, id *CommitIdentity) error {
	if id.Epoch < 0 && len(c.members) == 0 {
		return nil
	}
	m := c.byID[id.MemberID]
	switch {
	case m == nil:
		return ErrUnknownMember
	case m.classic == nil && !id.EpochIsMember:
		return ErrUnsupportedVersion
	}
	if err := m.checkEpoch(id.Epoch); err != nil {
		return err
	}
	if m.classic != nil {
		c.renew(now, m)
	}
	return nil
}

// checkFetch follows ConsumerGroup.validateOffsetFetch.
func (c *consumer) checkFetch(_ time.Time, id *CommitIdentity) error {
	if id.MemberID == "" && id.Epoch < 0 {
		return nil
	}
	m := c.byID[id.MemberID]
	if m == nil {
		return ErrUnknownMember
	}
	return m.checkEpoch(id.Epoch)
}

func (m *consumerMember) checkEpoch(epoch int32) error {
	switch {
	case epoch == m.epoch:
		return nil
	case m.classic != nil:
		return ErrIllegalGeneration
	}
	return ErrStaleMemberEpoch
}

// expiry: offsets of a group with members expire each for itself unless the
// topic is subscribed to; those of an empty one from when it became empty. (Kafka
// counts from the commit in both cases, and so drops the offsets of a quiet
// partition the moment that its group restarts.)
func (c *consumer) expiry() Expiry {
	if len(c.members) == 0 {
		return Expiry{EmptySince: c.emptySince}
	}
	return Expiry{}
}

// renew starts a member's session again.
func (c *consumer) renew(now time.Time, m *consumerMember) {
	timeout := c.g.config.ConsumerSessionTimeout
	if m.classic != nil {
		timeout = m.classic.sessionTimeout
	}
	c.wait(&m.session, now.Add(timeout))
}

// wait sets one of a member's times.
func (c *consumer) wait(deadline *time.Time, until time.Time) {
	*deadline = until
	c.g.due(until)
}

// waitForRevocation starts or ends the time within which a member must give up
// what it was told to. Classic members have to join in time instead.
func (c *consumer) waitForRevocation(now time.Time, m *consumerMember) {
	m.rebalance = time.Time{}
	if m.state == memberUnrevoked && m.classic == nil {
		c.wait(&m.rebalance, now.Add(m.rebalanceTimeout))
	}
}

// expires returns the first of the member's times, zero if it has none.
func (m *consumerMember) expires() time.Time {
	var first time.Time
	for _, t := range [...]time.Time{m.session, m.rebalance, m.join, m.sync} {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// tick removes the members whose time is over.
func (c *consumer) tick(now time.Time, e *Effects) {
	var late []*consumerMember
	for _, m := range c.members {
		if t := m.expires(); !t.IsZero() && !now.Before(t) {
			late = append(late, m)
		}
	}
	if len(late) > 0 {
		for _, m := range late {
			c.remove(now, m)
		}
		c.g.change()
		if c.removed(now, e) {
			return
		}
	}
	for _, m := range c.members {
		if t := m.expires(); !t.IsZero() {
			c.g.due(t)
		}
	}
}

// written: what waited for the write has been answered.
func (c *consumer) written(time.Time, uint64, *Effects) {}

// writeFailed: members may have been promised nothing of what memory holds now,
// and storage may hold all of it or nothing, so both are read anew.
func (c *consumer) writeFailed(why error, e *Effects) {
	c.g.failWithheld(why, e)
	c.g.log.dirty = false
	e.Reload = true
}

// unload: every waiting reply is the Group's.
func (c *consumer) unload(*Effects) {}
