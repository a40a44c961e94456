package group

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestClassicStories runs testdata/classic/*.txt. A story is events, one per
// line; below each, indented, what the group does. A line that begins with #
// is for the reader.
//
//	join a protocols=range     client a joins; its client id is a
//		a: MEMBER_ID_REQUIRED member=a-1
//
// Clients remember the member id, generation and protocol they were told, as
// real ones do; id=, gen=, instance= and so on say otherwise. The first argument
// of join, sync, heartbeat, leave and commit is the client. wait passes time
// and ticks whenever a deadline comes. Writes are durable at once, unless
// "writes by hand": then written and failed end the one in flight. crash loads
// the group from the last durable record.
func TestClassicStories(t *testing.T) {
	runStories(t, "testdata/classic/*.txt", tell)
}

// story is a group and the clients that talk to it.
type story struct {
	narration
	t       *testing.T
	config  Config
	id      string
	g       *Group
	now     time.Time
	start   time.Time
	uuids   int
	clients map[string]*storyClient
	tickets map[Ticket]string
	last    Ticket
	state   string
	record  []byte // the last durable one
	flight  Write
	byHand  bool
}

type storyClient struct {
	name, memberID, instance string
	generation               int32
	protocolType, protocol   string
}

// tell runs a story and returns it with what really happens.
func tell(t *testing.T, text string) string {
	s := &story{t: t, id: "g", clients: map[string]*storyClient{}, tickets: map[Ticket]string{}}
	s.start = time.Unix(1_000_000, 0)
	s.now = s.start
	s.config = Config{InitialRebalanceDelay: 0}.WithDefaults()
	s.config.NewUUID = func() string { s.uuids++; return strconv.Itoa(s.uuids) }
	return s.narrate(text, s.event)
}

// event does one line.
func (s *story) event(verb, who string, args map[string]string) {
	if verb == "config" {
		s.configure(args)
		return
	}
	if s.g == nil {
		s.g = New(s.id, &s.config)
		s.state = s.describeState()
	}
	var e Effects
	switch verb {
	case "join":
		s.join(who, args, &e)
	case "sync":
		s.sync(who, args, &e)
	case "heartbeat":
		c := s.client(who, args)
		s.say("%s: %s", who, errorName(s.g.Heartbeat(s.now, &HeartbeatRequest{c.memberID, c.instance, c.generation})))
	case "leave":
		s.leave(who, args, &e)
	case "commit":
		id := CommitIdentity{Epoch: -1}
		if who != "" {
			c := s.client(who, args)
			id = CommitIdentity{c.memberID, c.instance, c.generation, true}
		}
		s.say("%s", errorName(s.g.CheckCommit(s.now, &id)))
	case "wait":
		s.wait(args, who)
		return
	case "written":
		s.finish(nil)
		return
	case "failed":
		if who == "too-large" {
			s.finish(ErrMaxSizeReached)
		} else {
			s.finish(errors.New("the store is away"))
		}
		return
	case "crash":
		s.load()
		return
	case "unload":
		s.g.Unload(&e)
	case "delete":
		s.g.Delete(s.now, s.ticket("delete"), &e)
	case "describe":
		s.describe()
	case "expiry":
		x := s.g.Expiry()
		switch {
		case x.Never:
			s.say("never")
		case x.EmptySince.IsZero():
			s.say("since each commit")
		default:
			s.say("since %s", x.EmptySince.Sub(s.start))
		}
	case "subscribed":
		s.say("%v", s.g.SubscribedTo(who))
	case "offset-delete":
		s.say("%s", errorName(s.g.CheckOffsetDelete()))
	default:
		s.t.Fatalf("unknown event %q", verb)
	}
	s.effects(&e)
}

func (s *story) configure(args map[string]string) {
	for key, value := range args {
		switch key {
		case "delay":
			s.config.InitialRebalanceDelay = duration(s.t, value)
		case "max":
			s.config.MaxSize = number(s.t, value)
		case "group":
			s.id = strings.Trim(value, `"`)
		case "writes":
			s.byHand = value == "by-hand"
		default:
			s.t.Fatalf("unknown setting %s", key)
		}
	}
}

// client is what the client knows, as args correct it.
func (s *story) client(name string, args map[string]string) storyClient {
	known := s.clients[name]
	if known == nil {
		known = &storyClient{name: name, generation: -1}
		s.clients[name] = known
	}
	if i, ok := args["instance"]; ok {
		known.instance = i
	}
	c := *known
	if id, ok := args["id"]; ok {
		c.memberID = id
	}
	if gen, ok := args["gen"]; ok {
		c.generation = int32(number(s.t, gen))
	}
	return c
}

func (s *story) ticket(who string) Ticket {
	s.last++
	s.tickets[s.last] = who
	return s.last
}

func arg(args map[string]string, key, otherwise string) string {
	if v, ok := args[key]; ok {
		return v
	}
	return otherwise
}

func (s *story) join(who string, args map[string]string, e *Effects) {
	c := s.client(who, args)
	version := number(s.t, arg(args, "v", "9"))
	r := &JoinGroupRequest{
		MemberID: c.memberID, InstanceID: c.instance, ClientID: who, ClientHost: "/" + who,
		SessionTimeout:         duration(s.t, arg(args, "session", "10s")),
		RebalanceTimeout:       duration(s.t, arg(args, "rebalance", "60s")),
		ProtocolType:           strings.Trim(arg(args, "type", "consumer"), `"`),
		RequireKnownMember:     version >= 4,
		SupportsSkipAssignment: version >= 9,
	}
	for _, p := range strings.FieldsFunc(arg(args, "protocols", "range"), func(r rune) bool { return r == ',' }) {
		name, topics, _ := strings.Cut(p, ":")
		r.Protocols = append(r.Protocols, Protocol{name, subscription(topics)})
	}
	s.g.JoinGroup(s.now, s.ticket(who), r, e)
}

// subscription is ConsumerProtocol metadata with the topics t+u, or the one byte
// "?" for what cannot be read.
func subscription(topics string) []byte {
	if topics == "?" {
		return []byte("?")
	}
	names := strings.FieldsFunc(topics, func(r rune) bool { return r == '+' })
	b := []byte{0, 1, 0, 0, 0, byte(len(names))}
	for _, name := range names {
		b = append(append(b, 0, byte(len(name))), name...)
	}
	return append(b, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0)
}

func (s *story) sync(who string, args map[string]string, e *Effects) {
	c := s.client(who, args)
	r := &SyncGroupRequest{MemberID: c.memberID, InstanceID: c.instance, Generation: c.generation, RequireProtocol: number(s.t, arg(args, "v", "5")) >= 5}
	if r.RequireProtocol {
		r.ProtocolType, r.ProtocolName = strings.Trim(arg(args, "type", c.protocolType), `"`), strings.Trim(arg(args, "protocol", c.protocol), `"`)
	}
	for _, a := range strings.FieldsFunc(args["assign"], func(r rune) bool { return r == ',' }) {
		name, what, _ := strings.Cut(a, ":")
		id := name
		if known := s.clients[name]; known != nil {
			id = known.memberID
		}
		r.Assignments = append(r.Assignments, MemberAssignment{id, []byte(what)})
	}
	s.g.SyncGroup(s.now, s.ticket(who), r, e)
}

func (s *story) leave(who string, args map[string]string, e *Effects) {
	r := &LeaveGroupRequest{}
	for _, name := range strings.Split(who, ",") {
		c := s.client(name, args)
		r.Members = append(r.Members, LeavingMember{c.memberID, c.instance})
		s.clients[name] = &storyClient{name: name, instance: c.instance, generation: -1}
	}
	s.g.LeaveGroup(s.now, s.ticket(who), r, e)
}

// wait passes time; clients named with heartbeats= send one every 3 s. What
// they hear is said when it is news.
func (s *story) wait(args map[string]string, who string) {
	end := s.now.Add(duration(s.t, who))
	var beating []string
	if names := args["heartbeats"]; names != "" {
		beating = strings.Split(names, ",")
	}
	beat := s.now.Add(3 * time.Second)
	heard := map[string]error{}
	for s.now.Before(end) {
		next := end
		if d, ok := s.g.Deadline(); ok && d.Before(next) {
			next = d
		}
		if len(beating) > 0 && beat.Before(next) {
			next = beat
		}
		s.now = next
		if next.Equal(beat) {
			beat = beat.Add(3 * time.Second)
			for _, name := range beating {
				c := s.client(name, nil)
				err := s.g.Heartbeat(s.now, &HeartbeatRequest{c.memberID, c.instance, c.generation})
				if last, ok := heard[name]; err != nil && !(ok && last == err) {
					s.say("%s %s: %s", s.now.Sub(s.start), name, errorName(err))
				}
				heard[name] = err
			}
		}
		var e Effects
		s.g.Tick(s.now, &e)
		if d, ok := s.g.Deadline(); ok && !d.After(s.now) {
			s.t.Fatalf("the deadline %s is not after %s", d.Sub(s.start), s.now.Sub(s.start))
		}
		if !e.Empty() || s.state != s.describeState() {
			s.say("%s", s.now.Sub(s.start))
		}
		s.effects(&e)
	}
}

func (s *story) load() {
	s.flight = Write{}
	clear(s.tickets)
	if s.record == nil {
		s.g = New(s.id, &s.config)
	} else {
		g, err := Load(s.id, &s.config, s.record, s.now)
		if err != nil {
			s.t.Fatal(err)
		}
		s.g = g
	}
	s.state = s.describeState()
	s.say("-> %s", s.state)
}

func (s *story) finish(err error) {
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

// effects carries out what the group asks for and says it.
func (s *story) effects(e *Effects) {
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
	if now := s.describeState(); now != s.state {
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

func (s *story) describeState() string { return describeState(s.g) }

func describeState(g *Group) string {
	c := g.classic
	names := make([]string, len(c.members))
	for i, m := range c.members {
		names[i] = m.id
		if m.id == c.leader {
			names[i] += "*"
		}
	}
	return fmt.Sprintf("%s gen=%d members=%s", c.state, c.generation, strings.Join(names, ","))
}

func (s *story) reply(who string, response any) {
	c := s.clients[who]
	switch r := response.(type) {
	case *JoinGroupResponse:
		c.memberID = r.MemberID
		if r.Err != nil {
			s.say("%s: %s member=%s", who, errorName(r.Err), r.MemberID)
			break
		}
		c.generation, c.protocolType, c.protocol = r.Generation, r.ProtocolType, r.ProtocolName
		line := fmt.Sprintf("%s: joined gen=%d %s/%s leader=%s member=%s", who, r.Generation, r.ProtocolType, r.ProtocolName, r.LeaderID, r.MemberID)
		if len(r.Members) > 0 {
			names := make([]string, len(r.Members))
			for i, m := range r.Members {
				names[i] = m.MemberID
				if m.InstanceID != "" {
					names[i] += "(" + m.InstanceID + ")"
				}
			}
			line += " members=" + strings.Join(names, ",")
		}
		if r.SkipAssignment {
			line += " skip"
		}
		s.say("%s", line)
	case *SyncGroupResponse:
		if r.Err != nil {
			s.say("%s: %s", who, errorName(r.Err))
			break
		}
		s.say("%s: synced %s/%s %q", who, r.ProtocolType, r.ProtocolName, r.Assignment)
	case *LeaveGroupResponse:
		if r.Err != nil {
			s.say("%s: %s", who, errorName(r.Err))
			break
		}
		for _, m := range r.Members {
			s.say("%s: left %s %s", who, strings.TrimSuffix(m.MemberID+"/"+m.InstanceID, "/"), errorName(m.Err))
		}
	case *DeleteResponse:
		s.say("%s: %s", who, errorName(r.Err))
	default:
		s.t.Fatalf("a response of type %T", response)
	}
}

func (s *story) describe() {
	d, err := s.g.Describe()
	if err != nil {
		s.say("%s", errorName(err))
		return
	}
	s.say("%s %s/%s", d.State, d.ProtocolType, d.ProtocolName)
	for _, m := range d.Members {
		s.say("%s %q %s %s metadata=%d assignment=%q", m.MemberID, m.InstanceID, m.ClientID, m.ClientHost, len(m.Metadata), m.Assignment)
	}
}

var errorNames = map[error]string{
	nil:                      "ok",
	ErrUnavailable:           "COORDINATOR_NOT_AVAILABLE",
	ErrNotCoordinator:        "NOT_COORDINATOR",
	ErrIllegalGeneration:     "ILLEGAL_GENERATION",
	ErrInconsistentProtocol:  "INCONSISTENT_GROUP_PROTOCOL",
	ErrInvalidGroupID:        "INVALID_GROUP_ID",
	ErrUnknownMember:         "UNKNOWN_MEMBER_ID",
	ErrInvalidSessionTimeout: "INVALID_SESSION_TIMEOUT",
	ErrRebalanceInProgress:   "REBALANCE_IN_PROGRESS",
	ErrNonEmptyGroup:         "NON_EMPTY_GROUP",
	ErrGroupNotFound:         "GROUP_ID_NOT_FOUND",
	ErrMemberIDRequired:      "MEMBER_ID_REQUIRED",
	ErrMaxSizeReached:        "GROUP_MAX_SIZE_REACHED",
	ErrFencedInstance:        "FENCED_INSTANCE_ID",
}

func errorName(err error) string {
	if name, ok := errorNames[err]; ok {
		return name
	}
	return err.Error()
}

func duration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func number(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRecordsAreTheSameAgain: what is loaded writes what was read.
func TestRecordsAreTheSameAgain(t *testing.T) {
	config := Config{NewUUID: func() string { return "u" }}.WithDefaults()
	g := New("g", &config)
	var e Effects
	now := time.Unix(1_000_000, 0)
	g.JoinGroup(now, 1, &JoinGroupRequest{ClientID: "a", SessionTimeout: 10 * time.Second, ProtocolType: "consumer",
		Protocols: []Protocol{{"range", []byte("x")}, {"sticky", []byte("y")}}}, &e)
	g.SyncGroup(now, 2, &SyncGroupRequest{MemberID: "a-u", Generation: 1, Assignments: []MemberAssignment{{"a-u", []byte("0")}}}, &e)
	again, err := Load("g", &config, e.Write.Record, now)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.appendRecord(nil); !bytes.Equal(got, e.Write.Record) {
		t.Errorf("loaded and written again: %q, was %q", got, e.Write.Record)
	}
}

// TestNamelessProtocol: what a client may call its protocol, a loaded group knows.
func TestNamelessProtocol(t *testing.T) {
	config := Config{NewUUID: func() string { return "u" }}.WithDefaults()
	g := New("g", &config)
	var e Effects
	now := time.Unix(1_000_000, 0)
	g.JoinGroup(now, 1, &JoinGroupRequest{ClientID: "a", SessionTimeout: 10 * time.Second, ProtocolType: "connect", Protocols: []Protocol{{"", []byte("x")}}}, &e)
	g.SyncGroup(now, 2, &SyncGroupRequest{MemberID: "a-u", Generation: 1, Assignments: []MemberAssignment{{"a-u", []byte("0")}}}, &e)
	again, err := Load("g", &config, e.Write.Record, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Heartbeat(now, &HeartbeatRequest{MemberID: "a-u", Generation: 1}); err != nil || again.State() != Stable {
		t.Errorf("the member that beats hears %v, the group is %s", err, again.State())
	}
}
