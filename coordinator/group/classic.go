package group

import (
	"math"
	"slices"
	"time"
)

// classic is a group of the classic protocol, with the states, transitions and
// order of checks of Kafka's ClassicGroup and GroupMetadataManager:
//
//	        first member                    all joined, or time is up
//	Empty ──────────────► PreparingRebalance ────────────────────────► CompletingRebalance
//	  ▲                     │   ▲      ▲                                  │        │
//	  └─────────────────────┘   │      └──────────────────────────────────┘        │
//	     nobody is left         │       somebody comes, goes or does not sync      │
//	                            │                                                  ▼
//	                            └─────────────────────────────────────────────── Stable
//	                              somebody comes or goes          the leader's assignment is durable
//
// A generation begins with CompletingRebalance, when the parked joins are
// answered, and is stored when its leader has synced. If that write fails or
// the process ends before it, nobody has seen an assignment of that generation,
// and the group goes on from the one before.
type classic struct {
	g     *Group
	state State

	generation   int32
	protocolType string
	protocolName string // of the generation; "" before the first and when Empty
	leader       string // member id; "" without members
	emptySince   time.Time

	// members are in the order of their coming; byID and byInstance find them.
	members    []*member
	byID       map[string]*member
	byInstance map[string]*member
	supporters map[string]int // protocol name → how many members offer it
	joining    int            // members with a parked join

	// pending are member ids given out and not joined with yet (KIP-394), until when.
	pending map[string]time.Time

	// joinDeadline ends PreparingRebalance. In the first rebalance of an empty
	// group (initial) it is the delay after the newest member came, lastCame, but
	// never later than initialEnd.
	joinDeadline time.Time
	initial      bool
	lastCame     time.Time
	initialEnd   time.Time

	// syncDeadline is when members that mustSync are dropped; zero if none must.
	syncDeadline time.Time
	// syncSeq is the write with the leader's assignment, 0 before it has synced.
	syncSeq uint64
	// emptySeq is the write that says the group is Empty.
	emptySeq uint64
	// room is how many members a record could hold when one could not hold all;
	// 0: as many as are allowed.
	room int

	// topics caches what the members subscribe to; nil is not known.
	topics *subscriptions
}

// member is one member of a classic group.
type member struct {
	id, instance         string
	clientID, clientHost string
	session, rebalance   time.Duration
	protocols            []Protocol
	assignment           []byte

	// deadline is when the session ends. It does not while a request of the
	// member is parked, except for a member that isNew: a client that gave up
	// leaves no other trace.
	deadline time.Time
	isNew    bool // has never been in a generation
	mustSync bool // has not synced in this generation

	join, sync parked
}

// parked is a request that waits.
type parked struct {
	ticket  Ticket
	waiting bool
}

// minRebalanceTimeout keeps a client's 0 from making a deadline that is always
// over.
const minRebalanceTimeout = time.Millisecond

// retryRebalance is the least time until a rebalance that nobody joined is
// looked at again.
const retryRebalance = time.Second

func newClassic(g *Group) *classic { return &classic{g: g, state: Empty} }

// blank says whether c is as newClassic made it.
func (c *classic) blank() bool {
	return c.state == Empty && c.generation == 0 && c.protocolType == "" && len(c.pending) == 0
}

// die refuses everything from now on.
func (c *classic) die() { c.state = Dead }

// add puts m into the group, whose state does not change.
func (c *classic) add(m *member) {
	if c.byID == nil {
		c.byID = map[string]*member{}
		c.supporters = map[string]int{}
	}
	c.members = append(c.members, m)
	c.byID[m.id] = m
	if m.instance != "" {
		if c.byInstance == nil {
			c.byInstance = map[string]*member{}
		}
		c.byInstance[m.instance] = m
	}
	if c.leader == "" {
		c.leader = m.id
	}
	c.count(m, 1)
}

// remove takes m out, answers what of it waits with err, and makes the eldest
// member leader if it was m.
func (c *classic) remove(m *member, err error, e *Effects) {
	at := slices.Index(c.members, m)
	c.members = slices.Delete(c.members, at, at+1)
	c.dismiss(m, err, e)
	c.forget(m)
}

// removeAll is remove for every member that gone says is so.
func (c *classic) removeAll(gone func(*member) bool, err error, e *Effects) (removed bool) {
	var left []*member
	c.members = slices.DeleteFunc(c.members, func(m *member) bool {
		if !gone(m) {
			return false
		}
		left = append(left, m)
		return true
	})
	for _, m := range left {
		c.dismiss(m, err, e)
		c.forget(m)
	}
	return len(left) > 0
}

// dismiss answers with err whatever waits for a member that is no more.
func (c *classic) dismiss(m *member, err error, e *Effects) {
	c.answerJoin(m, &JoinGroupResponse{Err: err, Generation: -1}, e)
	c.answerSync(m, &SyncGroupResponse{Err: err}, e)
	c.g.withdraw(m.id, err, e)
}

// forget undoes add, but for c.members.
func (c *classic) forget(m *member) {
	delete(c.byID, m.id)
	if m.instance != "" {
		delete(c.byInstance, m.instance)
	}
	c.count(m, -1)
	if c.leader == m.id {
		c.leader = ""
		if len(c.members) > 0 {
			c.leader = c.members[0].id
		}
	}
}

// count adds n to the supporters of m's protocols.
func (c *classic) count(m *member, n int) {
	for _, p := range m.protocols {
		if c.supporters[p.Name] += n; c.supporters[p.Name] == 0 {
			delete(c.supporters, p.Name)
		}
	}
	c.topics = nil
}

// check finds the member that a request names, as ClassicGroup.validateMember.
func (c *classic) check(id, instance string) (*member, error) {
	if instance != "" {
		switch m := c.byInstance[instance]; {
		case m == nil:
			return nil, ErrUnknownMember
		case m.id != id:
			return nil, ErrFencedInstance
		}
	}
	if m := c.byID[id]; m != nil {
		return m, nil
	}
	return nil, ErrUnknownMember
}

// checkGeneration is check for requests of a generation.
func (c *classic) checkGeneration(id, instance string, generation int32) (*member, error) {
	if c.state == Dead {
		return nil, ErrUnavailable
	}
	m, err := c.check(id, instance)
	if err != nil {
		return nil, err
	}
	if generation != c.generation {
		return nil, ErrIllegalGeneration
	}
	return m, nil
}

// renew starts m's session at now.
func (c *classic) renew(now time.Time, m *member) {
	m.deadline = now.Add(m.session)
	c.g.due(m.deadline)
}

// answerJoin answers m's parked join, if there is one.
func (c *classic) answerJoin(m *member, r *JoinGroupResponse, e *Effects) {
	if m.join.waiting {
		c.joining--
		e.reply(m.join.ticket, r)
		m.join = parked{}
	}
}

// answerSync answers m's parked sync, if there is one.
func (c *classic) answerSync(m *member, r *SyncGroupResponse, e *Effects) {
	if m.sync.waiting {
		e.reply(m.sync.ticket, r)
		m.sync = parked{}
	}
}

// parkJoin makes ticket wait for the next generation. A request that waited
// already is of a connection that its client has given up.
func (c *classic) parkJoin(m *member, ticket Ticket, e *Effects) {
	c.answerJoin(m, &JoinGroupResponse{Err: ErrRebalanceInProgress, Generation: -1, MemberID: m.id}, e)
	c.joining++
	m.join = parked{ticket, true}
}

func (c *classic) parkSync(m *member, ticket Ticket, e *Effects) {
	c.answerSync(m, &SyncGroupResponse{Err: ErrRebalanceInProgress}, e)
	m.sync = parked{ticket, true}
}

// release answers every parked request with err.
func (c *classic) release(err error, e *Effects) {
	for _, m := range c.members {
		c.answerJoin(m, &JoinGroupResponse{Err: err, Generation: -1, MemberID: m.id}, e)
		c.answerSync(m, &SyncGroupResponse{Err: err}, e)
	}
}

// rebalance begins or, if one has begun, completes a rebalance that everybody
// has joined.
func (c *classic) rebalance(now time.Time, e *Effects) {
	if c.state == PreparingRebalance {
		c.tryCompleteJoin(now, e)
		return
	}
	c.prepareRebalance(now, ErrRebalanceInProgress, e)
}

// prepareRebalance goes to PreparingRebalance, from any other live state.
// Parked syncs are answered with err, and members learn by their heartbeat.
func (c *classic) prepareRebalance(now time.Time, err error, e *Effects) {
	refusal := &SyncGroupResponse{Err: err}
	for _, m := range c.members {
		if c.state == CompletingRebalance {
			m.assignment = nil
			if m.sync.waiting { // its session has stood still
				c.renew(now, m)
				c.answerSync(m, refusal, e)
			}
		}
		m.mustSync = false
	}
	c.syncDeadline, c.syncSeq = time.Time{}, 0
	c.initial = c.state == Empty
	c.state = PreparingRebalance
	if c.initial {
		delay := c.g.config.InitialRebalanceDelay
		if delay <= 0 {
			c.completeJoin(now, e)
			return
		}
		c.lastCame, c.initialEnd = now, now.Add(max(c.rebalanceTimeout(), delay))
		c.joinBy(now.Add(delay))
		return
	}
	c.joinBy(now.Add(c.rebalanceTimeout()))
	c.tryCompleteJoin(now, e)
}

func (c *classic) joinBy(t time.Time) {
	c.joinDeadline = t
	c.g.due(t)
}

// rebalanceTimeout is the longest of the members'.
func (c *classic) rebalanceTimeout() time.Duration {
	longest := minRebalanceTimeout
	for _, m := range c.members {
		longest = max(longest, m.rebalance)
	}
	return longest
}

// tryCompleteJoin completes the join phase when everybody has joined, except in
// the first rebalance, which waits for those it does not know.
func (c *classic) tryCompleteJoin(now time.Time, e *Effects) {
	if c.state == PreparingRebalance && !c.initial && c.joining == len(c.members) && len(c.pending) == 0 {
		c.completeJoin(now, e)
	}
}

// joinTimeout is the end of joinDeadline.
func (c *classic) joinTimeout(now time.Time, e *Effects) {
	if c.initial {
		until := c.lastCame.Add(c.g.config.InitialRebalanceDelay)
		if c.initialEnd.Before(until) {
			until = c.initialEnd
		}
		if now.Before(until) {
			c.joinBy(until)
			return
		}
	}
	c.completeJoin(now, e)
}

// completeJoin drops the dynamic members that have not joined and begins the
// next generation with the others. Static members stay until their session ends.
func (c *classic) completeJoin(now time.Time, e *Effects) {
	c.joinDeadline = time.Time{}
	c.removeAll(func(m *member) bool { return m.instance == "" && !m.join.waiting }, ErrUnknownMember, e)
	if len(c.members) > 0 && !c.electLeader() {
		c.joinBy(now.Add(max(c.rebalanceTimeout(), retryRebalance)))
		return
	}
	if c.generation == math.MaxInt32 {
		c.generation = 0
	}
	c.generation++
	if len(c.members) == 0 {
		c.state = Empty
		c.room = 0
		c.protocolName = ""
		c.emptySince = now
		c.emptySeq = c.g.change()
		return
	}
	c.protocolName = c.selectProtocol()
	c.topics = nil
	c.state = CompletingRebalance
	for _, m := range c.members {
		c.answerJoin(m, c.joined(m), e)
		m.isNew, m.mustSync = false, true
		c.renew(now, m)
	}
	c.syncDeadline = now.Add(c.rebalanceTimeout())
	c.g.due(c.syncDeadline)
}

// joined is what a member of the current generation learns.
func (c *classic) joined(m *member) *JoinGroupResponse {
	r := &JoinGroupResponse{
		Generation:   c.generation,
		ProtocolType: c.protocolType,
		ProtocolName: c.protocolName,
		LeaderID:     c.leader,
		MemberID:     m.id,
	}
	if m.id == c.leader {
		r.Members = c.roster()
	}
	return r
}

// roster is the leader's view of the members.
func (c *classic) roster() []JoinedMember {
	roster := make([]JoinedMember, len(c.members))
	for i, m := range c.members {
		roster[i] = JoinedMember{m.id, m.instance, m.metadata(c.protocolName)}
	}
	return roster
}

// metadata is what m says for a protocol.
func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

// electLeader makes sure that the leader has joined; false if nobody has.
func (c *classic) electLeader() bool {
	if m := c.byID[c.leader]; m != nil && m.join.waiting {
		return true
	}
	for _, m := range c.members {
		if m.join.waiting {
			c.leader = m.id
			return true
		}
	}
	return false
}

// selectProtocol is the protocol that most members like best among those that
// all offer; of equals, the one that the eldest members vote for.
func (c *classic) selectProtocol() string {
	votes := map[string]int{}
	best := ""
	for _, m := range c.members {
		for _, p := range m.protocols {
			if c.supporters[p.Name] == len(c.members) {
				votes[p.Name]++
				break
			}
		}
	}
	for _, m := range c.members {
		for _, p := range m.protocols {
			if votes[p.Name] > votes[best] {
				best = p.Name
			}
		}
	}
	return best
}

// tick does what is due: sessions first, since they decide who is waited for.
func (c *classic) tick(now time.Time, e *Effects) {
	over := func(t time.Time) bool { return !t.IsZero() && !t.After(now) }
	forgotten := false
	for id, until := range c.pending {
		if over(until) {
			delete(c.pending, id)
			forgotten = true
		}
	}
	expired := c.removeAll(func(m *member) bool { return m.expires() && over(m.deadline) }, ErrUnknownMember, e)
	switch {
	case expired && (c.state == Stable || c.state == CompletingRebalance):
		c.rebalance(now, e)
	case expired || forgotten:
		c.tryCompleteJoin(now, e)
	}
	if c.state == PreparingRebalance && over(c.joinDeadline) {
		c.joinTimeout(now, e)
	}
	if over(c.syncDeadline) {
		c.syncTimeout(now, e)
	}
	c.schedule()
}

// expires says whether m's session can end now.
func (m *member) expires() bool { return m.isNew || !m.join.waiting && !m.sync.waiting }

// syncTimeout drops the members that have not synced in time, the leader among
// them, and lets the others join again.
func (c *classic) syncTimeout(now time.Time, e *Effects) {
	c.syncDeadline = time.Time{}
	if c.removeAll(func(m *member) bool { return m.mustSync }, ErrUnknownMember, e) {
		c.prepareRebalance(now, ErrRebalanceInProgress, e)
	}
}

// schedule tells the group of every deadline.
func (c *classic) schedule() {
	for _, t := range []time.Time{c.joinDeadline, c.syncDeadline} {
		if !t.IsZero() {
			c.g.due(t)
		}
	}
	for _, until := range c.pending {
		c.g.due(until)
	}
	for _, m := range c.members {
		if m.expires() {
			c.g.due(m.deadline)
		}
	}
}

// written makes the group Stable if the write holds its leader's assignment.
func (c *classic) written(now time.Time, seq uint64, e *Effects) {
	if c.state == CompletingRebalance && c.syncSeq != 0 && c.syncSeq <= seq {
		c.state = Stable
		e.Rebalances++
		for _, m := range c.members {
			if m.sync.waiting {
				c.renew(now, m)
				c.answerSync(m, c.synced(m), e)
			}
		}
	}
}

// writeFailed: an assignment that is not stored must not be seen, so everybody
// joins again. Nobody depends on the other writes but those who were refused.
func (c *classic) writeFailed(now time.Time, seq uint64, why error, e *Effects) {
	if c.state != CompletingRebalance || c.syncSeq == 0 || c.syncSeq > seq {
		return
	}
	if why == ErrMaxSizeReached {
		c.shed(e)
	}
	c.prepareRebalance(now, ErrUnavailable, e)
}

// shedShare of the members go when the record of all does not fit.
const shedShare = 4

// shed drops the newest members, and lets no more in than are left until the
// group is Empty: the record of all of them is too large to be stored, so the
// group would rebalance for ever. It may take some generations.
func (c *classic) shed(e *Effects) {
	c.room = len(c.members) - max(1, len(c.members)/shedShare)
	gone := make(map[*member]bool)
	for _, m := range c.members[c.room:] {
		gone[m] = true
	}
	c.removeAll(func(m *member) bool { return gone[m] }, ErrMaxSizeReached, e)
}

// maxSize is how many members there may be.
func (c *classic) maxSize() int {
	if c.room > 0 {
		return min(c.room, c.g.config.MaxSize)
	}
	return c.g.config.MaxSize
}

func (c *classic) describe() *Description {
	d := &Description{State: c.state, ProtocolType: c.protocolType, Members: make([]MemberDescription, len(c.members))}
	if c.state == Stable {
		d.ProtocolName = c.protocolName
	}
	for i, m := range c.members {
		d.Members[i] = MemberDescription{MemberID: m.id, InstanceID: m.instance, ClientID: m.clientID, ClientHost: m.clientHost}
		if c.state == Stable {
			d.Members[i].Metadata, d.Members[i].Assignment = m.metadata(c.protocolName), m.assignment
		}
	}
	return d
}
