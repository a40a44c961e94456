package group

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestConsumerStories runs testdata/consumer/*.txt, which read as those of the
// classic protocol do (TestClassicStories). hb is a ConsumerGroupHeartbeat: the
// first one of a client joins with names=, regex= and so on, later ones say only
// what they are given; ack is hb that owns what the client was told last. A
// client's member id is its name unless id= says otherwise, and it remembers the
// epoch that it was told. join, sync, heartbeat and leave are the classic
// protocol's; the client remembers the generation. topics a=3 makes a topic, or
// gives it partitions; a=0 deletes it.
//
// An assignment is written a:0+1,b:2; a heartbeat that tells none says "same".
func TestConsumerStories(t *testing.T) {
	runStories(t, "testdata/consumer/*.txt", tellConsumer)
}

var consumerErrorNames = map[error]string{
	ErrUnsupportedVersion:  "UNSUPPORTED_VERSION",
	ErrInvalidRequest:      "INVALID_REQUEST",
	ErrFencedMemberEpoch:   "FENCED_MEMBER_EPOCH",
	ErrUnreleasedInstance:  "UNRELEASED_INSTANCE_ID",
	ErrUnsupportedAssignor: "UNSUPPORTED_ASSIGNOR",
	ErrStaleMemberEpoch:    "STALE_MEMBER_EPOCH",
	ErrInvalidRegex:        "INVALID_REGULAR_EXPRESSION",
}

func consumerErrorName(err error) string {
	if name, ok := consumerErrorNames[err]; ok {
		return name
	}
	return errorName(err)
}

// tale is a consumer group and the clients that talk to it.
type tale struct {
	narration
	t          *testing.T
	config     Config
	topics     *fakeTopics
	g          *Group
	now, start time.Time
	uuids      int
	clients    map[string]*taleClient
	tickets    map[Ticket]string
	last       Ticket
	state      string
	record     []byte
	flight     Write
	byHand     bool
}

type taleClient struct {
	id, instance string
	epoch        int32
	protocol     string
	told         []TopicPartitions
}

func tellConsumer(t *testing.T, text string) string {
	s := &tale{
		t: t, clients: map[string]*taleClient{}, tickets: map[Ticket]string{},
		topics: newFakeTopics(), start: time.Unix(1_000_000, 0),
	}
	s.now = s.start
	s.config = Config{Upgrade: true, Downgrade: true}.WithDefaults()
	s.config.NewUUID = func() string { s.uuids++; return strconv.Itoa(s.uuids) }
	s.g = New("g", &s.config)
	s.state = s.describe()
	return s.narrate(text, s.event)
}

func (s *tale) event(verb, who string, args map[string]string) {
	var e Effects
	switch verb {
	case "config":
		s.configure(args)
	case "topics":
		for _, name := range slices.Sorted(maps.Keys(args)) {
			if n := number(s.t, args[name]); n > 0 {
				s.topics.create(name, int32(n))
			} else {
				s.topics.remove(name)
			}
		}
	case "changed":
		s.g.TopicsChanged(s.now, s.topics, &e)
	case "hb":
		s.beat(who, args, &e)
	case "ack":
		args["owned"] = s.partitions(s.client(who).told)
		s.beat(who, args, &e)
	case "join":
		s.join(who, args, &e)
	case "sync":
		c := s.client(who)
		r := &SyncGroupRequest{MemberID: c.id, InstanceID: c.instance, Generation: c.epoch,
			RequireProtocol: true, ProtocolType: consumerProtocolType, ProtocolName: c.protocol}
		for name, what := range args {
			r.Assignments = append(r.Assignments, MemberAssignment{s.client(name).id, encodeConsumerAssignment(1, s.named(what))})
		}
		s.g.SyncGroup(s.now, s.ticket(who), r, &e)
	case "heartbeat":
		c := s.client(who)
		s.say("%s: %s", who, consumerErrorName(s.g.Heartbeat(s.now, &HeartbeatRequest{c.id, c.instance, c.epoch})))
	case "leave":
		c := s.client(who)
		s.g.LeaveGroup(s.now, s.ticket(who), &LeaveGroupRequest{Members: []LeavingMember{{arg(args, "id", c.id), c.instance}}}, &e)
	case "commit", "fetch":
		id := CommitIdentity{Epoch: -1, EpochIsMember: arg(args, "v", "9") >= "9"}
		if who != "" {
			id.MemberID, id.Epoch = s.client(who).id, s.client(who).epoch
		}
		if epoch, ok := args["epoch"]; ok {
			id.Epoch = int32(number(s.t, epoch))
		}
		check := map[string]func(time.Time, *CommitIdentity) error{"commit": s.g.CheckCommit, "fetch": s.g.CheckFetch}[verb]
		s.say("%s", consumerErrorName(check(s.now, &id)))
	case "wait":
		s.wait(args, who)
	case "written":
		s.finish(nil)
	case "failed":
		if who == "too-large" {
			s.finish(ErrMaxSizeReached)
		} else {
			s.finish(errors.New("the store is away"))
		}
	case "crash":
		s.load()
	case "unload":
		s.g.Unload(&e)
	case "delete":
		s.g.Delete(s.now, s.ticket("delete"), &e)
	case "describe":
		s.describeMembers()
	case "expiry":
		if x := s.g.Expiry(); x.EmptySince.IsZero() {
			s.say("since each commit")
		} else {
			s.say("since %s", x.EmptySince.Sub(s.start))
		}
	case "subscribed":
		s.say("%v", s.g.SubscribedTo(who))
	case "offset-delete":
		s.say("%s", consumerErrorName(s.g.CheckOffsetDelete()))
	default:
		s.t.Fatalf("unknown event %q", verb)
	}
	s.effects(&e)
}

func (s *tale) configure(args map[string]string) {
	for key, value := range args {
		switch key {
		case "writes":
			s.byHand = value == "by-hand"
		case "migration":
			s.config.Upgrade = value == "bidirectional" || value == "upgrade"
			s.config.Downgrade = value == "bidirectional" || value == "downgrade"
		case "max":
			s.config.ConsumerMaxSize = number(s.t, value)
		case "assignors":
			s.config.Assignors = strings.Split(value, "+")
		default:
			s.t.Fatalf("unknown setting %s", key)
		}
	}
}

func (s *tale) client(name string) *taleClient {
	if s.clients[name] == nil {
		s.clients[name] = &taleClient{id: name}
	}
	return s.clients[name]
}

func (s *tale) ticket(who string) Ticket {
	s.last++
	s.tickets[s.last] = who
	return s.last
}

func (s *tale) beat(who string, args map[string]string, e *Effects) {
	c := s.client(who)
	r := &ConsumerHeartbeatRequest{MemberID: arg(args, "id", c.id), MemberEpoch: c.epoch, RequireMemberID: true, RebalanceTimeout: -1}
	joins := map[string]string{"names": "a", "rebalance": "60s", "owned": ""}
	if epoch, ok := args["epoch"]; ok {
		r.MemberEpoch = int32(number(s.t, epoch))
	}
	if _, full := args["full"]; r.MemberEpoch != 0 && !full {
		clear(joins)
	}
	for key, value := range joins {
		if _, given := args[key]; !given && (key != "names" || args["regex"] == "") {
			args[key] = value
		}
	}
	for key, value := range args {
		switch key {
		case "id", "epoch", "full":
		case "instance":
			c.instance = value
			r.InstanceID = &value
		case "rack":
			r.RackID = &value
		case "rebalance":
			if value != "null" {
				r.RebalanceTimeout = duration(s.t, value)
			}
		case "names":
			if value != "null" {
				r.SubscribedTopicNames = append([]string{}, strings.FieldsFunc(value, func(r rune) bool { return r == '+' })...)
			}
		case "regex":
			r.SubscribedTopicRegex = &value
		case "assignor":
			r.ServerAssignor = &value
		case "v":
			r.RequireMemberID = value != "0"
		case "owned":
			if value != "null" {
				r.OwnedTopicPartitions = append([]TopicPartitions{}, identify(s.named(value), s.topics)...)
			}
		default:
			s.t.Fatalf("unknown argument %s", key)
		}
	}
	consumerHeartbeat(s.t, s.g, s.now, s.ticket(who), r, s.topics, e)
}

func (s *tale) join(who string, args map[string]string, e *Effects) {
	c := s.client(who)
	if i, ok := args["instance"]; ok {
		c.instance = i
	}
	r := &JoinGroupRequest{
		MemberID: arg(args, "id", c.id), InstanceID: c.instance, ClientID: who,
		SessionTimeout:   duration(s.t, arg(args, "session", "30s")),
		RebalanceTimeout: duration(s.t, arg(args, "rebalance", "60s")),
		ProtocolType:     arg(args, "type", "consumer"), RequireKnownMember: true, SupportsSkipAssignment: true, Topics: s.topics,
	}
	if r.MemberID == who {
		r.MemberID = ""
	}
	metadata := encodeSubscription(strings.Split(arg(args, "names", "a"), "+"), s.named(args["owned"]))
	if args["metadata"] == "bad" {
		metadata = metadata[:3]
	}
	for _, name := range strings.Split(arg(args, "protocols", "range"), ",") {
		r.Protocols = append(r.Protocols, Protocol{name, metadata})
	}
	s.g.JoinGroup(s.now, s.ticket(who), r, e)
}

// named reads a:0+1,b:2.
func (s *tale) named(text string) []namedPartitions {
	var list []namedPartitions
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		name, partitions, _ := strings.Cut(part, ":")
		tp := namedPartitions{topic: name}
		for _, p := range strings.Split(partitions, "+") {
			tp.partitions = append(tp.partitions, int32(number(s.t, p)))
		}
		list = append(list, tp)
	}
	return list
}

func (s *tale) partitions(list []TopicPartitions) string {
	var named []namedPartitions
	for _, tp := range list {
		name := "gone"
		if t, ok := s.topics.TopicByID(tp.Topic); ok {
			name = t.Name
		}
		if name != "gone" {
			named = append(named, namedPartitions{name, tp.Partitions})
		}
	}
	return writeNamed(named)
}

func writeNamed(list []namedPartitions) string {
	parts := make([]string, len(list))
	for i, tp := range list {
		numbers := make([]string, len(tp.partitions))
		for j, p := range tp.partitions {
			numbers[j] = strconv.Itoa(int(p))
		}
		parts[i] = tp.topic + ":" + strings.Join(numbers, "+")
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// wait passes time; clients named with heartbeats= send one every 3 s.
func (s *tale) wait(args map[string]string, who string) {
	end := s.now.Add(duration(s.t, who))
	beating := strings.FieldsFunc(args["heartbeats"], func(r rune) bool { return r == ',' })
	beat := s.now.Add(3 * time.Second)
	for s.now.Before(end) {
		next := end
		if d, ok := s.g.Deadline(); ok && d.Before(next) {
			next = d
		}
		if len(beating) > 0 && beat.Before(next) {
			next = beat
		}
		s.now = next
		if len(beating) > 0 && next.Equal(beat) {
			beat = beat.Add(3 * time.Second)
			for _, name := range beating {
				var e Effects
				c := s.client(name)
				s.g.ConsumerHeartbeat(s.now, s.ticket(name+" at "+s.now.Sub(s.start).String()),
					&ConsumerHeartbeatRequest{MemberID: c.id, MemberEpoch: c.epoch, RequireMemberID: true, RebalanceTimeout: -1}, s.topics, &e)
				if len(e.Replies) == 1 {
					if r := e.Replies[0].Response.(*ConsumerHeartbeatResponse); r.Err == nil && r.Assignment == nil && r.MemberEpoch == c.epoch {
						delete(s.tickets, e.Replies[0].Ticket)
						e.Replies = nil
					}
				}
				s.effects(&e)
			}
		}
		var e Effects
		s.g.Tick(s.now, &e)
		if !e.Empty() || s.state != s.describe() {
			s.say("%s", s.now.Sub(s.start))
		}
		s.effects(&e)
	}
}

func (s *tale) load() {
	s.flight = Write{}
	clear(s.tickets)
	if s.record == nil {
		s.g = New("g", &s.config)
	} else {
		g, err := Load("g", &s.config, s.record, s.now)
		if err != nil {
			s.t.Fatal(err)
		}
		s.g = g
	}
	s.state = s.describe()
	s.say("-> %s", s.state)
}

func (s *tale) finish(err error) {
	if s.flight.Seq == 0 {
		s.t.Fatal("no write is in flight")
	}
	if err == nil {
		s.record = s.flight.Record
	}
	var e Effects
	seq := s.flight.Seq
	s.flight = Write{}
	s.g.Written(s.now, seq, err, &e)
	s.effects(&e)
}

func (s *tale) effects(e *Effects) {
	replies := slices.Clone(e.Replies)
	slices.SortStableFunc(replies, func(a, b Reply) int { return int(a.Ticket) - int(b.Ticket) })
	for _, r := range replies {
		who, waiting := s.tickets[r.Ticket]
		if !waiting {
			s.t.Fatalf("ticket %d is answered twice", r.Ticket)
		}
		delete(s.tickets, r.Ticket)
		s.reply(who, r.Response)
	}
	if e.Reload {
		s.say("reload")
		s.load()
		return
	}
	if now := s.describe(); now != s.state {
		s.state = now
		s.say("-> %s", now)
	}
	if e.Write.Seq == 0 {
		return
	}
	if s.flight.Seq != 0 {
		s.t.Fatal("two writes in flight")
	}
	s.flight = e.Write
	if s.byHand {
		s.say("write %d", e.Write.Seq)
		return
	}
	s.finish(nil)
}

func (s *tale) reply(who string, answer any) {
	name, _, _ := strings.Cut(who, " ")
	c := s.client(name)
	switch r := answer.(type) {
	case *ConsumerHeartbeatResponse:
		switch {
		case r.Err != nil:
			s.say("%s: %s", who, consumerErrorName(r.Err))
			return
		case r.MemberEpoch < 0:
			s.say("%s: left, epoch %d", who, r.MemberEpoch)
			s.clients[name] = &taleClient{id: name, instance: c.instance}
			return
		}
		told := "same"
		if r.Assignment != nil {
			c.told = *r.Assignment
			told = s.partitions(c.told)
			if told == "" {
				told = "nothing"
			}
		}
		if r.MemberID != c.id {
			told += " member=" + r.MemberID
		}
		c.id, c.epoch = r.MemberID, r.MemberEpoch
		s.say("%s: epoch %d, %s", who, r.MemberEpoch, told)
	case *JoinGroupResponse:
		c.id = r.MemberID
		if r.Err != nil {
			s.say("%s: %s member=%s", who, consumerErrorName(r.Err), r.MemberID)
			return
		}
		c.epoch, c.protocol = r.Generation, r.ProtocolName
		s.say("%s: joined gen=%d %s leader=%s member=%s members=%d", who, r.Generation, r.ProtocolName, r.LeaderID, r.MemberID, len(r.Members))
	case *SyncGroupResponse:
		if r.Err != nil {
			s.say("%s: %s", who, consumerErrorName(r.Err))
			return
		}
		var a consumerProtocolAssignment
		if len(r.Assignment) > 0 {
			var err error
			if a, err = decodeConsumerAssignment(r.Assignment); err != nil {
				s.t.Fatal(err)
			}
		}
		s.say("%s: synced %s %q", who, r.ProtocolName, writeNamed(a.assigned))
	case *LeaveGroupResponse:
		for _, m := range r.Members {
			s.say("%s: left %s %s", who, m.MemberID, consumerErrorName(m.Err))
		}
	case *DeleteResponse:
		s.say("%s: %s", who, consumerErrorName(r.Err))
	default:
		s.t.Fatalf("a response of type %T", answer)
	}
}

func (s *tale) describe() string {
	if s.g.consumer == nil {
		return "classic " + describeState(s.g)
	}
	c := s.g.consumer
	names := make([]string, len(c.members))
	for i, m := range c.members {
		names[i] = m.id
	}
	return fmt.Sprintf("%s epoch=%d/%d members=%s", s.g.State(), c.epoch, c.targetEpoch, strings.Join(names, ","))
}

func (s *tale) describeMembers() {
	d, err := s.g.DescribeConsumer(s.topics)
	if err != nil {
		s.say("%s", consumerErrorName(err))
		return
	}
	s.say("%s epoch=%d target=%d %s", d.State, d.Epoch, d.AssignmentEpoch, d.Assignor)
	write := func(list []DescribedPartitions) string {
		named := make([]namedPartitions, len(list))
		for i, p := range list {
			named[i] = namedPartitions{p.Name, p.Partitions}
		}
		return writeNamed(named)
	}
	for _, m := range d.Members {
		s.say("%s %q rack=%q epoch=%d names=%s regex=%q has=%s target=%s classic=%v",
			m.MemberID, m.InstanceID, m.RackID, m.MemberEpoch, strings.Join(m.SubscribedTopicNames, "+"), m.SubscribedTopicRegex,
			write(m.Assignment), write(m.Target), m.Classic)
	}
}
