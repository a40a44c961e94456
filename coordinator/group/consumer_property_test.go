package group

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestConsumerInvariants drives a consumer group with members that behave as
// real clients do, over a network that loses answers, a store whose writes fail
// or have an outcome that nobody knows, and a coordinator that crashes. It holds
// after every event:
//
//   - no partition is with two live members, by what they were told and have not
//     given up;
//   - epochs never go back, neither the group's nor what a member is told;
//   - every ticket is answered exactly once, and only with what is durable;
//   - a record loads as the group that wrote it;
//   - no member is fenced that lost at most one answer in a row, and none is
//     unknown whose session has not ended, whatever was loaded meanwhile.
//
// In the end, when heartbeats flow, every member has its target, the targets
// share every partition out evenly, and heartbeats write nothing, nor do they where
// the group is loaded next.
func TestConsumerInvariants(t *testing.T) {
	checkTimes(t, modelRuns, func(t *rapid.T) { runModel(t, false) })
}

// modelRuns times as many checks as rapid makes by itself: the rarest planted
// fault took a thousand.
const modelRuns = 15

// checkTimes is rapid.Check with so many times the checks. (Calls of rapid.Check one
// after the other would all make the same ones where the seed is given.)
func checkTimes(t *testing.T, times int, property func(*rapid.T)) {
	t.Helper()
	checks := flag.Lookup("rapid.checks")
	usual := checks.Value.String()
	n, err := strconv.Atoi(usual)
	if err != nil {
		t.Fatal(err)
	}
	if err := checks.Value.Set(strconv.Itoa(n * times)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { checks.Value.Set(usual) })
	rapid.Check(t, property)
}

// TestConversionInvariants is the same with members of the classic protocol, so
// that the group is converted both ways time and again.
func TestConversionInvariants(t *testing.T) {
	checkTimes(t, modelRuns, func(t *rapid.T) { runModel(t, true) })
}

func runModel(t *rapid.T, classic bool) {
	m := newModel(t, classic)
	t.Repeat(map[string]func(*rapid.T){
		"":        m.check,
		"start":   m.start,
		"act":     m.act,
		"act2":    m.act,
		"act3":    m.act,
		"act4":    m.act,
		"receive": m.receive,
		"lose":    m.lose,
		"apply":   m.apply,
		"leave":   m.leave,
		"write":   m.write,
		"write2":  m.write,
		"topics":  m.changeTopics,
		"time":    m.pass,
		"crash":   m.crash,
	})
	m.settle()
}

// partition is a partition by its topic's name, as classic clients see it.
type namedPartition struct {
	topic     string
	id        TopicID
	partition int32
}

type partitionSet map[namedPartition]bool

func (s partitionSet) minus(o partitionSet) partitionSet {
	rest := partitionSet{}
	for p := range s {
		if !o[p] {
			rest[p] = true
		}
	}
	return rest
}

func (s partitionSet) sorted() []namedPartition {
	return slices.SortedFunc(maps.Keys(s), func(a, b namedPartition) int {
		if d := compareTopicIDs(a.id, b.id); d != 0 {
			return d
		}
		return int(a.partition) - int(b.partition)
	})
}

func (s partitionSet) list() []TopicPartitions {
	list := []TopicPartitions{}
	for _, p := range s.sorted() {
		list = append(list, TopicPartitions{p.id, []int32{p.partition}})
	}
	return list
}

func (s partitionSet) named() []namedPartitions {
	var list []namedPartitions
	for _, p := range s.sorted() {
		list = append(list, namedPartitions{p.topic, []int32{p.partition}})
	}
	return list
}

// fakeTopics is a Topics.
type fakeTopics struct {
	revision uint64
	byName   map[string]Topic
	ids      byte
	// madeAgain are those that have the name of one that was deleted. Members of the
	// classic protocol know topics by name: what one was told of the first it takes
	// for the second, and no coordinator can keep it from that.
	madeAgain map[TopicID]bool
	deleted   map[string]bool
}

func newFakeTopics() *fakeTopics {
	return &fakeTopics{revision: 1, byName: map[string]Topic{}, madeAgain: map[TopicID]bool{}, deleted: map[string]bool{}}
}

func (f *fakeTopics) Revision() uint64 { return f.revision }

func (f *fakeTopics) Topic(name string) (Topic, bool) { t, ok := f.byName[name]; return t, ok }

func (f *fakeTopics) TopicByID(id TopicID) (Topic, bool) {
	for _, t := range f.byName {
		if t.ID == id {
			return t, true
		}
	}
	return Topic{}, false
}

func (f *fakeTopics) Names() iter.Seq[string] { return maps.Keys(f.byName) }

// create makes a topic or gives it more partitions.
func (f *fakeTopics) create(name string, partitions int32) {
	t, ok := f.byName[name]
	if !ok {
		f.ids++
		t = Topic{Name: name, ID: TopicID{f.ids}}
		f.madeAgain[t.ID] = f.deleted[name]
	}
	t.Partitions = partitions
	f.byName[name] = t
	f.revision++
}

func (f *fakeTopics) remove(name string) {
	delete(f.byName, name)
	f.deleted[name] = true
	f.revision++
}

const (
	modelSession = 45 * time.Second
	// modelRebalance never ends: what ends a member in the model is its session.
	modelRebalance = 24 * time.Hour
)

// model is the group and all around it.
type model struct {
	t       *rapid.T
	classic bool
	eager   bool // classic members give up everything before they join
	config  Config
	now     time.Time
	uuids   int
	topics  *fakeTopics
	g       *Group
	stored  []byte
	flight  Write
	last    Ticket
	open    map[Ticket]*modelMember
	members []*modelMember
	epoch   int32 // the greatest durable one
}

// modelMember is a client.
type modelMember struct {
	id, instance string
	classic      bool
	names        []string
	regex        string

	epoch int32
	// has is what it reads from; told is what it was told to have last. It goes
	// from one to the other in two steps, give up and then take, and says that it
	// has when it is done, or when it says everything.
	has, told partitionSet

	waits  Ticket   // of the request that it has sent, 0 if none
	answer response // that came for it
	lost   int      // answers lost in a row
	full   bool     // it has to say everything
	fresh  bool     // told is new
	sent   partitionSet
	heard  time.Time     // its last request
	pause  time.Duration // the longest before one, since it was answered
	silent bool          // its last heartbeat said nothing
	atRest bool          // and would have been answered as that of a member at rest

	// Of the classic protocol.
	joins    bool // it has to join
	syncs    bool // it has joined and has to sync
	leads    []JoinedMember
	protocol string
	// shown is the generation of the last assignment that it was shown. What a
	// JoinGroup told is forgotten by a crash before that: nobody acts on it.
	shown int32
	// lapsed says that its session ended and it has not been told since what it has.
	// A group of the consumer protocol knows no ids of the past (nor does Kafka's), so
	// such a client may join again by its old id, while others have its partitions,
	// and gives them up when it syncs.
	lapsed bool
}

// holds is what nobody else may have.
func (c *modelMember) holds() partitionSet {
	all := maps.Clone(c.has)
	maps.Copy(all, c.told)
	return all
}

// speaks notes that c sends a request.
func (c *modelMember) speaks(now time.Time) { c.pause, c.heard = max(c.pause, now.Sub(c.heard)), now }

// drop is what a client does that is no member any more.
func (c *modelMember) drop() {
	c.has, c.told, c.sent = partitionSet{}, partitionSet{}, nil
	c.epoch, c.shown, c.pause = 0, 0, 0
	c.joins, c.syncs, c.leads, c.lapsed = c.classic, false, nil, false
}

func newModel(t *rapid.T, classic bool) *model {
	m := &model{
		t: t, classic: classic, now: time.Unix(1_000_000, 0), open: map[Ticket]*modelMember{},
		topics: newFakeTopics(),
	}
	m.eager = rapid.Bool().Draw(t, "eager")
	m.config = Config{
		Upgrade: true, Downgrade: rapid.Bool().Draw(t, "downgrade"),
		NewUUID: func() string { m.uuids++; return fmt.Sprintf("%04d", m.uuids) },
	}.WithDefaults()
	m.topics.create("a", 4)
	m.topics.create("b", 3)
	m.g = New("g", &m.config)
	return m
}

func (m *model) start(t *rapid.T) {
	if len(m.members) >= 6 {
		return
	}
	c := &modelMember{id: m.config.NewUUID(), heard: m.now, classic: m.classic && rapid.Bool().Draw(t, "classic")}
	if c.classic {
		c.id = ""
	}
	c.drop()
	switch rapid.IntRange(0, 5).Draw(t, "subscription") {
	case 0:
		c.names = []string{"a"}
	case 1:
		c.names = []string{"a", "b", "c"}
	case 2:
		if !c.classic {
			c.names, c.regex = []string{}, "a|c.*"
			break
		}
		fallthrough
	default:
		c.names = []string{"a", "b"}
	}
	if rapid.IntRange(0, 2).Draw(t, "static") == 0 {
		instance := fmt.Sprintf("i%d", rapid.IntRange(0, 1).Draw(t, "instance"))
		taken := slices.ContainsFunc(m.members, func(o *modelMember) bool { return o.instance == instance })
		if !taken {
			c.instance = instance
			if m.classic {
				// A classic group does not look at what a static member subscribes to when it comes back.
				c.names, c.regex = []string{"a", "b"}, ""
			}
		}
	}
	m.members = append(m.members, c)
}

func (m *model) any(t *rapid.T) *modelMember {
	if len(m.members) == 0 {
		// Rapid's way to say that this action is not possible now: it draws
		// another one, and the test goes on.
		t.Skip("nobody is there")
	}
	return rapid.SampledFrom(m.members).Draw(t, "member")
}

// act lets a member send what it would.
func (m *model) act(t *rapid.T) { m.send(m.any(t)) }

func (m *model) send(c *modelMember) {
	if c.waits != 0 {
		return
	}
	if c.classic {
		m.sendClassic(c)
		return
	}
	r := &ConsumerHeartbeatRequest{
		MemberID: c.id, MemberEpoch: c.epoch, RequireMemberID: true, RebalanceTimeout: -1, ClientID: "c",
	}
	if c.instance != "" {
		r.InstanceID = &c.instance
	}
	if c.epoch == 0 || c.full {
		r.RebalanceTimeout = modelRebalance
		r.SubscribedTopicNames = c.names
		r.SubscribedTopicRegex = &c.regex
	}
	done := maps.Equal(c.has, c.told) && (c.sent == nil || !maps.Equal(c.sent, c.has))
	if c.epoch == 0 || c.full || done {
		// What it says is its word: what is not in the list it will not take.
		c.told = maps.Clone(c.has)
		r.OwnedTopicPartitions = c.has.list()
		c.sent = maps.Clone(c.has)
	}
	m.event(c, func(ticket Ticket, e *Effects) {
		c.silent = r.empty()
		c.atRest = consumerHeartbeat(m.t, m.g, m.now, ticket, r, m.topics, e)
	})
}

// consumerHeartbeat is ConsumerHeartbeat, with which ConsumerHeartbeatAtRest is to
// agree where it answers; it says whether it did.
func consumerHeartbeat(t interface{ Fatalf(string, ...any) }, g *Group, now time.Time, ticket Ticket, r *ConsumerHeartbeatRequest, topics Topics, e *Effects) bool {
	told, atRest := g.ConsumerHeartbeatAtRest(now, r, topics)
	before := len(e.Replies)
	g.ConsumerHeartbeat(now, ticket, r, topics, e)
	if atRest && (len(e.Replies) != before+1 || e.Write.Seq != 0 || !reflect.DeepEqual(e.Replies[before].Response, response(told))) {
		t.Fatalf("at rest %+v is answered %+v, else %+v", r, told, e)
	}
	return atRest
}

// event runs one event, with a ticket if it is a request of c.
func (m *model) event(c *modelMember, run func(Ticket, *Effects)) {
	m.last++
	if c != nil {
		c.waits = m.last
		c.speaks(m.now)
		m.open[m.last] = c
	}
	var e Effects
	run(m.last, &e)
	m.effects(&e)
}

func (m *model) effects(e *Effects) {
	for _, c := range m.members {
		c.lapsed = c.lapsed || c.classic && c.epoch != 0 && m.g.consumer != nil && m.g.consumer.byID[c.id] == nil
	}
	for _, r := range e.Replies {
		c, waiting := m.open[r.Ticket]
		if !waiting {
			m.t.Fatalf("ticket %d is answered again: %+v", r.Ticket, r.Response)
		}
		delete(m.open, r.Ticket)
		if c.waits == r.Ticket {
			c.answer = r.Response
		}
	}
	if e.Reload {
		if len(m.open) > 0 {
			m.t.Fatalf("a reload while tickets wait: %v", m.open)
		}
		m.load()
		return
	}
	if e.Write.Seq == 0 {
		return
	}
	if m.flight.Seq != 0 {
		m.t.Fatal("two writes in flight")
	}
	m.flight = e.Write
	g, err := Load("g", &m.config, e.Write.Record, m.now)
	if err != nil {
		m.t.Fatalf("a record that cannot be loaded: %v", err)
	}
	if again := g.appendRecord(nil); g.Type() == Consumer && !bytes.Equal(again, e.Write.Record) {
		m.t.Fatalf("a record that changes when loaded:\n%q\n%q", e.Write.Record, again)
	}
}

// receive lets a member read its answer.
func (m *model) receive(t *rapid.T) {
	c := m.any(t)
	if c.answer != nil {
		m.read(c)
	}
}

func (m *model) read(c *modelMember) {
	answer := c.answer
	c.answer, c.waits = nil, 0
	switch r := answer.(type) {
	case *ConsumerHeartbeatResponse:
		m.readHeartbeat(c, r)
	case *JoinGroupResponse:
		m.readJoin(c, r)
	case *SyncGroupResponse:
		m.readSync(c, r)
	default:
		m.t.Fatalf("a response of type %T", answer)
	}
}

func (m *model) readHeartbeat(c *modelMember, r *ConsumerHeartbeatResponse) {
	switch r.Err {
	case nil:
		if r.MemberEpoch < c.epoch {
			m.t.Fatalf("%s goes back from epoch %d to %d", c.id, c.epoch, r.MemberEpoch)
		}
		c.epoch = r.MemberEpoch
		if r.Assignment != nil {
			c.told, c.fresh = m.identified(*r.Assignment), true
		} else if c.full {
			m.t.Fatalf("%s said everything and is not told its assignment", c.id)
		}
		c.lost, c.full, c.pause = 0, false, 0
	case ErrUnavailable:
		c.full = true
		c.lost++
	case ErrFencedMemberEpoch:
		if c.lost < 2 {
			m.t.Fatalf("%s is fenced at epoch %d", c.id, c.epoch)
		}
		c.drop()
	case ErrUnknownMember, ErrGroupNotFound:
		if c.pause < modelSession && c.lost < 2 {
			m.t.Fatalf("%s is unknown: %v", c.id, r.Err)
		}
		c.drop()
	case ErrUnreleasedInstance:
		c.drop()
	default:
		m.t.Fatalf("%s: %v", c.id, r.Err)
	}
}

func (m *model) identified(a Assignment) partitionSet {
	set := partitionSet{}
	for _, tp := range a {
		name := ""
		if t, ok := m.topics.TopicByID(tp.Topic); ok {
			name = t.Name
		}
		for _, p := range tp.Partitions {
			set[namedPartition{name, tp.Topic, p}] = true
		}
	}
	return set
}

// lose loses an answer, or a request whose answer is late.
func (m *model) lose(t *rapid.T) {
	c := m.any(t)
	if c.waits != 0 && rapid.IntRange(0, 2).Draw(t, "lose") == 0 {
		m.loseAnswer(c)
	}
}

func (m *model) loseAnswer(c *modelMember) {
	c.waits, c.answer = 0, nil
	c.lost++
	c.full = true
	if c.classic {
		c.joins, c.syncs = c.joins || c.syncs, false
	}
}

// apply takes one of the two steps from what a member has to what it was told.
func (m *model) apply(t *rapid.T) { m.step(m.any(t)) }

func (m *model) step(c *modelMember) {
	if surplus := c.has.minus(c.told); len(surplus) > 0 {
		c.has = c.has.minus(surplus)
		if c.classic && !m.eager {
			c.joins = true // a cooperative member tells by joining that it gave up
		}
		return
	}
	c.has = maps.Clone(c.told)
	if c.fresh {
		c.fresh, c.sent = false, nil // it says that it is done, also if nothing is new
	}
}

// leave ends a member, with or without a word.
func (m *model) leave(t *rapid.T) {
	c := m.any(t)
	if rapid.IntRange(0, 1).Draw(t, "stay") == 0 {
		return
	}
	m.members = slices.DeleteFunc(m.members, func(o *modelMember) bool { return o == c })
	quiet := rapid.Bool().Draw(t, "quietly") || c.id == ""
	c.drop()
	switch {
	case quiet:
	case c.classic:
		m.event(&modelMember{}, func(ticket Ticket, e *Effects) {
			m.g.LeaveGroup(m.now, ticket, &LeaveGroupRequest{Members: []LeavingMember{{MemberID: c.id}}}, e)
		})
	default:
		r := &ConsumerHeartbeatRequest{MemberID: c.id, MemberEpoch: -1, RebalanceTimeout: -1}
		if c.instance != "" {
			r.InstanceID = &c.instance
			r.MemberEpoch = rapid.SampledFrom([]int32{-1, -2}).Draw(t, "forGood")
		}
		m.event(&modelMember{}, func(ticket Ticket, e *Effects) { m.g.ConsumerHeartbeat(m.now, ticket, r, m.topics, e) })
	}
}

// write ends the write in flight: it is stored, or not, or nobody knows.
func (m *model) write(t *rapid.T) {
	if m.flight.Seq != 0 {
		m.finish(rapid.SampledFrom([]string{"stored", "stored", "stored", "stored", "not stored", "unknown"}).Draw(t, "outcome"))
	}
}

func (m *model) finish(outcome string) {
	w := m.flight
	m.flight = Write{}
	var err error
	switch outcome {
	case "stored":
		m.store(w)
	case "unknown":
		m.store(w)
		err = errors.New("timed out")
	default:
		err = errors.New("not stored")
	}
	var e Effects
	m.g.Written(m.now, w.Seq, err, &e)
	m.effects(&e)
}

func (m *model) store(w Write) {
	m.stored = w.Record
	g, err := Load("g", &m.config, w.Record, m.now)
	if err != nil {
		m.t.Fatal(err)
	}
	epoch := int32(0)
	if g.consumer != nil {
		epoch = g.consumer.epoch
	} else {
		epoch = g.classic.generation
	}
	if epoch < m.epoch {
		m.t.Fatalf("the group goes back from epoch %d to %d", m.epoch, epoch)
	}
	m.epoch = epoch
}

func (m *model) changeTopics(t *rapid.T) {
	name := rapid.SampledFrom([]string{"a", "b", "c", "cc"}).Draw(t, "topic")
	if topic, ok := m.topics.byName[name]; ok && rapid.Bool().Draw(t, "delete") {
		m.topics.remove(name)
	} else {
		m.topics.create(name, min(topic.Partitions+rapid.Int32Range(1, 3).Draw(t, "more"), 8))
	}
	if rapid.Bool().Draw(t, "tell") {
		m.event(nil, func(_ Ticket, e *Effects) { m.g.TopicsChanged(m.now, m.topics, e) })
	}
}

func (m *model) pass(t *rapid.T) {
	m.now = m.now.Add(rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, 11 * time.Second, 20 * time.Second}).Draw(t, "time"))
	m.tick()
}

func (m *model) tick() {
	m.event(nil, func(_ Ticket, e *Effects) { m.g.Tick(m.now, e) })
	if d, ok := m.g.Deadline(); ok && !d.After(m.now) {
		m.t.Fatalf("after Tick at %s the deadline is %s", m.now, d)
	}
}

// crash loads the group from what is stored, the write in flight or not.
func (m *model) crash(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "crash") > 0 {
		return
	}
	if m.flight.Seq != 0 && rapid.Bool().Draw(t, "stored") {
		m.store(m.flight)
	}
	if rapid.Bool().Draw(t, "unload") {
		var e Effects
		m.g.Unload(&e)
		for _, r := range e.Replies {
			if _, waiting := m.open[r.Ticket]; !waiting {
				t.Fatalf("ticket %d is answered again", r.Ticket)
			}
			delete(m.open, r.Ticket)
		}
		if len(m.open) > 0 {
			t.Fatalf("not answered at the end: %v", m.open)
		}
	}
	clear(m.open)
	m.load()
}

// load forgets the group in memory. Answers on their way are lost.
func (m *model) load() {
	m.flight = Write{}
	for _, c := range m.members {
		if c.waits != 0 && c.answer == nil {
			m.loseAnswer(c)
		}
	}
	if m.stored == nil {
		m.g = New("g", &m.config)
		return
	}
	g, err := Load("g", &m.config, m.stored, m.now)
	if err != nil {
		m.t.Fatal(err)
	}
	m.g = g
	for _, c := range m.members {
		if m.isMember(c) {
			c.heard = m.now // its session begins again
		}
	}
}

// check holds what is true between any two events.
func (m *model) check(t *rapid.T) {
	holders := map[namedPartition]*modelMember{}
	for _, c := range m.members {
		if !m.isMember(c) {
			continue
		}
		for p := range c.holds() {
			byName := m.topics.madeAgain[p.id]
			p.topic = ""
			if o := holders[p]; o != nil && o != c && !(byName && (o.classic || c.classic)) {
				t.Fatalf("%v is with %s and %s", p, o.id, c.id)
			}
			holders[p] = c
		}
	}
	if g := m.g.consumer; g != nil {
		checkConsumer(t, g)
		deadline, ok := m.g.Deadline()
		for _, c := range g.members {
			if at := c.expires(); !at.IsZero() && (!ok || at.Before(deadline)) {
				t.Fatalf("%s ends at %s, the deadline is %s", c.id, at, deadline)
			}
		}
	}
}

// checkConsumer holds what is true of a consumer group in itself.
func checkConsumer(t interface{ Fatalf(string, ...any) }, g *consumer) {
	owned := 0
	for _, c := range g.members {
		for _, set := range []Assignment{c.assigned, c.revoking} {
			for _, tp := range set {
				for _, p := range tp.Partitions {
					owned++
					if g.owners[topicPartition{tp.Topic, p}] != c {
						t.Fatalf("%s has a partition without owning it", c.id)
					}
				}
			}
		}
		if c.epoch != leftEpoch && !c.sound(g.targetEpoch) {
			t.Fatalf("%s is in no state that it could have: %+v, target epoch %d", c.id, c, g.targetEpoch)
		}
		if g.byID[c.id] != c || c.instance != "" && g.instances[c.instance] != c {
			t.Fatalf("%s is not found", c.id)
		}
	}
	if owned != len(g.owners) {
		t.Fatalf("%d partitions are owned, members have %d", len(g.owners), owned)
	}
}

// isMember says whether the group counts c as the member that c believes to be.
func (m *model) isMember(c *modelMember) bool {
	if c.epoch == 0 || c.id == "" || c.lapsed {
		return false
	}
	if m.g.consumer != nil {
		s := m.g.consumer.byID[c.id]
		return s != nil && s.epoch >= c.epoch
	}
	return m.g.classic.byID[c.id] != nil && m.g.classic.generation >= c.epoch
}

// settle lets everything flow and checks where it ends.
func (m *model) settle() {
	for round := range 60 {
		for _, c := range m.members {
			// A leader joins again when it sees other topics, and goes on seeing them.
			c.joins = c.joins || c.classic && (round == 0 || round == 20)
		}
		m.now = m.now.Add(3 * time.Second)
		m.tick()
		for m.flight.Seq != 0 {
			m.finish("stored")
		}
		for _, c := range slices.Clone(m.members) {
			m.send(c)
			for m.flight.Seq != 0 {
				m.finish("stored")
			}
			if c.answer != nil {
				m.read(c)
			}
			m.step(c)
			m.step(c)
			m.check(m.t)
		}
	}
	wanted := partitionSet{}
	same := true
	for _, c := range m.members {
		same = same && slices.Equal(c.names, m.members[0].names) && c.regex == m.members[0].regex
		for _, t := range m.topics.byName {
			subscribed := slices.Contains(c.names, t.Name)
			if c.regex != "" {
				pattern, _ := compileTopicRegex(c.regex)
				subscribed = subscribed || pattern.MatchString(t.Name)
			}
			for p := int32(0); subscribed && p < t.Partitions; p++ {
				wanted[namedPartition{t.Name, t.ID, p}] = true
			}
		}
	}
	has := partitionSet{}
	least, most := 1<<30, 0
	for _, c := range m.members {
		if !m.isMember(c) {
			m.t.Fatalf("%s is no member in the end: %+v", c.id, c)
		}
		maps.Copy(has, c.has)
		least, most = min(least, len(c.has)), max(most, len(c.has))
	}
	if len(m.members) > 0 && !maps.Equal(has, wanted) {
		m.t.Fatalf("in the end %v is read, not %v", has, wanted)
	}
	state := m.g.State()
	if want := map[bool]State{true: Stable, false: Empty}[len(m.members) > 0]; state != want {
		m.t.Fatalf("in the end the group is %s with %d members", state, len(m.members))
	}
	if m.g.consumer == nil {
		return
	}
	if same && most-least > 1 {
		m.t.Fatalf("members that subscribe to the same have between %d and %d partitions", least, most)
	}
	seq := m.g.log.seq
	for _, c := range m.members {
		m.send(c)
		if c.classic {
			continue
		}
		if c.answer == nil {
			m.t.Fatal("a heartbeat that changes nothing waits")
		}
		if told := c.answer.(*ConsumerHeartbeatResponse); c.silent && told.Assignment == nil && !c.atRest {
			m.t.Fatalf("%s is at rest, and its heartbeat was not answered as such", c.id)
		}
		m.read(c)
	}
	if m.g.log.seq != seq {
		m.t.Fatal("heartbeats that change nothing write")
	}
	if m.classic {
		return
	}
	m.load()
	for _, c := range m.members {
		m.send(c)
		if c.answer == nil {
			m.t.Fatal("the group's next owner finds that something has changed")
		}
		m.read(c)
	}
}
