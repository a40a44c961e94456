package group

import (
	"time"
)

// Type is one of the two protocols; the names are those of ListGroups v5.
type Type string

const (
	Classic  Type = "classic"
	Consumer Type = "consumer"
)

// State is a group's state, by the name that DescribeGroups and ListGroups give it.
type State string

// The states of Kafka's ClassicGroupState and ConsumerGroupState.
const (
	Empty               State = "Empty"
	PreparingRebalance  State = "PreparingRebalance"
	CompletingRebalance State = "CompletingRebalance"
	Stable              State = "Stable"
	Dead                State = "Dead"
	Assigning           State = "Assigning"
	Reconciling         State = "Reconciling"
)

// Group is one consumer group. It is owned by one goroutine; no method may be
// called from another.
//
// Exactly one of classic and consumer is set. A conversion replaces one by the
// other; the writes and the replies that wait for them belong to the Group and
// outlive it.
type Group struct {
	id     string
	config *Config

	classic  *classic
	consumer *consumer

	// deadline is no later than the first thing that time alone changes; zero
	// if there is none. Renewing a session moves that thing, not the deadline:
	// Tick finds nothing to do then and looks for the next.
	deadline time.Time

	log writes
}

// New returns a group that nobody has joined: the Empty classic group of no
// protocol type, which is also what a simple group (offsets only) is.
func New(id string, config *Config) *Group {
	g := &Group{id: id, config: config}
	g.classic = newClassic(g)
	return g
}

// Configure lets the group go by another config from now on. Sessions that run
// end when they would have; the next heartbeat of each member starts one by config.
func (g *Group) Configure(config *Config) { g.config = config }

// ID is the group id.
func (g *Group) ID() string { return g.id }

// Type is the protocol that the group speaks now.
func (g *Group) Type() Type {
	if g.consumer != nil {
		return Consumer
	}
	return Classic
}

// State is the group's state now.
func (g *Group) State() State {
	if g.consumer != nil {
		return g.consumer.state()
	}
	return g.classic.state
}

// ProtocolType is "consumer", "connect" or what else the members say; "" for a
// simple group.
func (g *Group) ProtocolType() string {
	if g.consumer != nil {
		return consumerProtocolType
	}
	return g.classic.protocolType
}

// Forgettable says that the group has no record, no member and nothing in
// flight, so that New makes the same again. Offsets are the driver's to know.
func (g *Group) Forgettable() bool {
	return g.consumer == nil && g.classic.blank() && !g.log.stored && g.log.idle()
}

// JoinGroup answers ticket with a *JoinGroupResponse: at once for errors and
// repeated requests, else when the rebalance that it takes part in is complete.
func (g *Group) JoinGroup(now time.Time, ticket Ticket, r *JoinGroupRequest, e *Effects) {
	refuse := func(err error) {
		e.reply(ticket, &JoinGroupResponse{Err: err, Generation: -1, MemberID: r.MemberID})
	}
	switch {
	case g.id == "":
		refuse(ErrInvalidGroupID)
		return
	case r.SessionTimeout < g.config.MinSessionTimeout || r.SessionTimeout > g.config.MaxSessionTimeout:
		refuse(ErrInvalidSessionTimeout)
		return
	case g.consumer != nil && g.consumer.isEmpty():
		g.consumer.becomeClassic(now, false, e)
	}
	if g.consumer != nil {
		g.consumer.joinClassic(now, ticket, r, e)
	} else {
		g.classic.join(now, ticket, r, e)
	}
	g.flush(e)
}

// SyncGroup answers ticket with a *SyncGroupResponse: at once for errors and in
// a stable group, else when the leader's assignment is durable.
func (g *Group) SyncGroup(now time.Time, ticket Ticket, r *SyncGroupRequest, e *Effects) {
	switch {
	case g.id == "":
		e.reply(ticket, &SyncGroupResponse{Err: ErrInvalidGroupID})
	case g.consumer != nil:
		g.consumer.syncClassic(now, ticket, r, e)
	default:
		g.classic.sync(now, ticket, r, e)
	}
	g.flush(e)
}

// Heartbeat renews a classic member's session. It answers at once, changes
// nothing durable and does not allocate.
func (g *Group) Heartbeat(now time.Time, r *HeartbeatRequest) error {
	switch {
	case g.id == "":
		return ErrInvalidGroupID
	case g.consumer != nil:
		return g.consumer.heartbeatClassic(now, r)
	}
	return g.classic.heartbeat(now, r)
}

// LeaveGroup answers ticket with a *LeaveGroupResponse: at once, or when what
// the leave changed is durable.
func (g *Group) LeaveGroup(now time.Time, ticket Ticket, r *LeaveGroupRequest, e *Effects) {
	switch {
	case g.id == "":
		e.reply(ticket, &LeaveGroupResponse{Err: ErrInvalidGroupID})
	case g.consumer != nil:
		g.consumer.leaveClassic(now, ticket, r, e)
	default:
		g.classic.leave(now, ticket, r, e)
	}
	g.flush(e)
}

// CheckCommit says whether id may commit offsets now: nil, or the error of
// every partition. It renews the session of a classic member, as Kafka does in
// Stable and PreparingRebalance. It is for groups that exist; CheckCommitUnknown
// is for others.
func (g *Group) CheckCommit(now time.Time, id *CommitIdentity) error {
	if g.consumer != nil {
		return g.consumer.checkCommit(now, id)
	}
	return g.classic.checkCommit(now, id)
}

// CheckCommitUnknown is CheckCommit for a group that has neither record,
// members nor offsets: a simple consumer may create it.
func CheckCommitUnknown(id *CommitIdentity) error {
	switch {
	case id.Epoch < 0:
		return nil
	case id.EpochIsMember:
		return ErrGroupNotFound
	}
	return ErrIllegalGeneration
}

// CheckFetch says whether id may fetch offsets now. Classic groups let
// everybody; members of the consumer protocol name their epoch (OffsetFetch v9+).
func (g *Group) CheckFetch(now time.Time, id *CommitIdentity) error {
	if g.consumer != nil {
		return g.consumer.checkFetch(now, id)
	}
	if g.classic.state == Dead {
		return ErrGroupNotFound
	}
	return nil
}

// CheckDelete says whether DeleteGroups may delete the group: nil,
// ErrNonEmptyGroup or ErrGroupNotFound.
func (g *Group) CheckDelete() error {
	switch g.State() {
	case Empty:
		return nil
	case Dead:
		return ErrGroupNotFound
	}
	return ErrNonEmptyGroup
}

// Delete asks for the record's deletion and answers ticket with a
// *DeleteResponse when it is durable. Until then the group is Dead and requests
// of members are answered ErrUnavailable. After it the group is as New made it,
// and Forgettable.
func (g *Group) Delete(now time.Time, ticket Ticket, e *Effects) {
	if err := g.CheckDelete(); err != nil {
		e.reply(ticket, &DeleteResponse{Err: err})
		return
	}
	if g.consumer != nil {
		g.consumer.becomeClassic(now, false, e)
	}
	g.classic.die()
	g.withhold(g.change(), ticket, &DeleteResponse{})
	g.flush(e)
}

// CheckOffsetDelete says whether OffsetDelete may touch the group at all;
// topics that it is subscribed to are refused one by one (SubscribedTo).
func (g *Group) CheckOffsetDelete() error {
	switch g.State() {
	case Dead:
		return ErrGroupNotFound
	case Empty:
		return nil
	}
	if g.ProtocolType() != consumerProtocolType {
		return ErrNonEmptyGroup
	}
	return nil
}

// SubscribedTo says whether a member subscribes to the topic. A group of
// consumers whose subscriptions cannot be read counts as subscribed to everything.
func (g *Group) SubscribedTo(topic string) bool {
	if g.consumer != nil {
		return g.consumer.subscribedTo(topic)
	}
	return g.classic.subscribedTo(topic)
}

// Expiry says from when the retention of the group's offsets counts (KIP-211).
type Expiry struct {
	// Never: none expires now.
	Never bool
	// EmptySince: offsets expire the retention after this time; if zero, each
	// expires the retention after its own commit, unless SubscribedTo its topic.
	EmptySince time.Time
}

// Expiry returns the rule that holds now.
func (g *Group) Expiry() Expiry {
	if g.consumer != nil {
		return g.consumer.expiry()
	}
	return g.classic.expiry()
}

// Tick does what is due at now: sessions, rebalances and delays that end. It is
// called when Deadline has come; earlier is harmless, later delays things.
func (g *Group) Tick(now time.Time, e *Effects) {
	if g.deadline.IsZero() || now.Before(g.deadline) {
		return
	}
	g.deadline = time.Time{}
	if g.consumer != nil {
		g.consumer.tick(now, e)
	} else {
		g.classic.tick(now, e)
	}
	g.flush(e)
}

// Deadline is when Tick is due next; false if time alone changes nothing. It
// may change with each event and is after the time of the last Tick.
func (g *Group) Deadline() (time.Time, bool) { return g.deadline, !g.deadline.IsZero() }

// due makes Tick come at t or before.
func (g *Group) due(t time.Time) {
	if g.deadline.IsZero() || t.Before(g.deadline) {
		g.deadline = t
	}
}

// Unload ends the group in memory, because another node owns it: every waiting
// request is answered ErrNotCoordinator. No other method may be called after.
func (g *Group) Unload(e *Effects) {
	g.failWithheld(ErrNotCoordinator, e)
	if g.consumer != nil {
		g.consumer.unload(e)
	} else {
		g.classic.release(ErrNotCoordinator, e)
		g.classic.die()
	}
	g.deadline = time.Time{}
}
