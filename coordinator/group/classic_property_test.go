package group

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestClassicInvariants drives a classic group with clients that behave, err and
// lie, with writes that fail or whose outcome nobody knows, with crashes after
// any write and with time that jumps. It holds:
//
//   - every ticket is answered exactly once;
//   - the assignments that members of one generation see are of one SyncGroup of
//     its leader, across crashes;
//   - nobody commits with a generation older than one whose assignments were seen;
//   - what was seen is not forgotten: a loaded group's generation is not below it;
//   - after Tick the deadline lies ahead, and no timer before the deadline;
//   - left alone, the group becomes Empty and answers everybody.
func TestClassicInvariants(t *testing.T) {
	checkTimes(t, 20, classicInvariants)
}

func classicInvariants(t *rapid.T) {
	w := newWorld(t)
	for range 3 {
		t.Repeat(map[string]func(*rapid.T){
			"":          w.check,
			"behave":    w.behave,
			"behave2":   w.behave,
			"behave3":   w.behave,
			"behave4":   w.behave,
			"behave5":   w.behave,
			"join":      w.join,
			"sync":      w.sync,
			"again":     w.again,
			"heartbeat": w.heartbeat,
			"leave":     w.leave,
			"commit":    w.commit,
			"delete":    w.delete,
			"time":      w.pass,
			"write":     w.write,
			"write2":    w.write,
			"crash":     w.crash,
		})
	}
	w.end()
}

type world struct {
	t      *rapid.T
	config Config
	g      *Group
	now    time.Time
	uuids  int

	last Ticket
	open map[Ticket]request

	flight Write
	stored [][]byte // what a crash may find; nil is no record

	clients []*modelClient
	syncs   int

	life int             // how often the group has begun anew
	seen map[seen]string // the SyncGroup whose assignments were shown
	top  map[int]int32   // per life, the greatest generation shown
	high int32           // the greatest generation since the last load or deletion
}

type seen struct {
	life       int
	generation int32
}

type request struct {
	client     *modelClient
	kind       string
	generation int32
	memberID   string
}

type modelClient struct {
	memberID, instance string
	generation         int32
	protocol           string
	roster             []JoinedMember
	next               string // what a client of good will does: join, sync or heartbeat
	waiting            bool   // for the answer to that
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, now: time.Unix(1_000_000, 0), open: map[Ticket]request{}, stored: [][]byte{nil},
		seen: map[seen]string{}, top: map[int]int32{}}
	w.config = Config{
		InitialRebalanceDelay: rapid.SampledFrom([]time.Duration{0, 3 * time.Second}).Draw(t, "delay"),
		MaxSize:               rapid.SampledFrom([]int{2, 3, 100}).Draw(t, "max"),
		NewUUID:               func() string { w.uuids++; return fmt.Sprint(w.uuids) },
	}.WithDefaults()
	w.g = New("g", &w.config)
	for i := range 5 {
		c := &modelClient{generation: -1, next: "join"}
		if i > 2 {
			c.instance = fmt.Sprintf("i%d", i%2) // two of one instance fence each other
		}
		w.clients = append(w.clients, c)
	}
	return w
}

func (w *world) ticket(r request) Ticket {
	w.last++
	w.open[w.last] = r
	return w.last
}

func (w *world) client() *modelClient { return rapid.SampledFrom(w.clients).Draw(w.t, "client") }

// id is mostly the client's own.
func (w *world) id(c *modelClient) (memberID, instance string, generation int32) {
	memberID, instance, generation = c.memberID, c.instance, c.generation
	switch rapid.IntRange(0, 19).Draw(w.t, "lie") {
	case 0:
		memberID = ""
	case 1:
		memberID = w.client().memberID
	case 2:
		instance = rapid.SampledFrom([]string{"", "i0", "i1", "i9"}).Draw(w.t, "instance")
	case 3:
		generation += int32(rapid.IntRange(-2, 2).Draw(w.t, "generation"))
	}
	return
}

// behave lets a client do what it ought to.
func (w *world) behave(t *rapid.T) {
	c := w.client()
	var e Effects
	switch {
	case c.waiting:
		return
	case c.next == "join":
		c.waiting = true
		w.g.JoinGroup(w.now, w.ticket(request{client: c, kind: "join"}), &JoinGroupRequest{
			MemberID: c.memberID, InstanceID: c.instance, ClientID: "c", SessionTimeout: 10 * time.Second, RebalanceTimeout: 20 * time.Second,
			ProtocolType: "consumer", Protocols: []Protocol{{"x", []byte("m")}, {"y", nil}}, RequireKnownMember: true, SupportsSkipAssignment: true,
		}, &e)
	case c.next == "sync":
		c.waiting = true
		w.send(c, c.memberID, c.instance, c.generation, &e)
	default:
		if w.g.Heartbeat(w.now, &HeartbeatRequest{c.memberID, c.instance, c.generation}) != nil {
			c.next = "join"
		}
	}
	w.effects(&e)
}

// again sends a sync a second time, on another connection.
func (w *world) again(t *rapid.T) {
	c := w.client()
	if c.next != "sync" {
		return
	}
	var e Effects
	w.send(c, c.memberID, c.instance, c.generation, &e)
	w.effects(&e)
}

// heard tells a client of good will how its request ended.
func (c *modelClient) heard(err error, then string) {
	c.waiting = false
	c.next = then
	switch err {
	case nil:
	case ErrUnknownMember, ErrFencedInstance, ErrMaxSizeReached:
		c.memberID, c.next = "", "join"
	default:
		c.next = "join"
	}
}

func (w *world) join(t *rapid.T) {
	c := w.client()
	memberID, instance, _ := w.id(c)
	version := rapid.SampledFrom([]int{3, 4, 8, 9}).Draw(t, "version")
	r := &JoinGroupRequest{
		MemberID: memberID, InstanceID: instance, ClientID: "c",
		SessionTimeout:         rapid.SampledFrom([]time.Duration{5 * time.Second, 6 * time.Second, 6 * time.Second, 30 * time.Second}).Draw(t, "session"),
		RebalanceTimeout:       rapid.SampledFrom([]time.Duration{-1, 0, time.Second, 20 * time.Second}).Draw(t, "rebalance"),
		ProtocolType:           rapid.SampledFrom([]string{"consumer", "consumer", "consumer", "connect", ""}).Draw(t, "type"),
		RequireKnownMember:     version >= 4,
		SupportsSkipAssignment: version >= 9,
	}
	for _, name := range rapid.SliceOfN(rapid.SampledFrom([]string{"x", "x", "y", "z"}), 0, 3).Draw(t, "protocols") {
		r.Protocols = append(r.Protocols, Protocol{name, []byte(rapid.SampledFrom([]string{"m", "n"}).Draw(t, "metadata"))})
	}
	var e Effects
	w.g.JoinGroup(w.now, w.ticket(request{client: c, kind: "join"}), r, &e)
	w.effects(&e)
}

func (w *world) sync(t *rapid.T) {
	c := w.client()
	memberID, instance, generation := w.id(c)
	var e Effects
	w.send(c, memberID, instance, generation, &e)
	w.effects(&e)
}

// send sends a sync that assigns to everybody whom the client knows of.
func (w *world) send(c *modelClient, memberID, instance string, generation int32, e *Effects) {
	w.syncs++
	r := &SyncGroupRequest{MemberID: memberID, InstanceID: instance, Generation: generation}
	for _, m := range c.roster {
		// leader/generation/number of this request/for whom
		r.Assignments = append(r.Assignments, MemberAssignment{m.MemberID, fmt.Appendf(nil, "%s/%d/%d/%s", memberID, generation, w.syncs, m.MemberID)})
	}
	w.g.SyncGroup(w.now, w.ticket(request{client: c, kind: "sync", generation: generation, memberID: memberID}), r, e)
}

func (w *world) heartbeat(t *rapid.T) {
	r := &HeartbeatRequest{}
	r.MemberID, r.InstanceID, r.Generation = w.id(w.client())
	_ = w.g.Heartbeat(w.now, r)
}

func (w *world) leave(t *rapid.T) {
	r := &LeaveGroupRequest{}
	for range rapid.IntRange(0, 3).Draw(t, "leaving") {
		memberID, instance, _ := w.id(w.client())
		r.Members = append(r.Members, LeavingMember{memberID, instance})
	}
	var e Effects
	w.g.LeaveGroup(w.now, w.ticket(request{kind: "leave"}), r, &e)
	w.effects(&e)
}

func (w *world) commit(t *rapid.T) {
	id := CommitIdentity{EpochIsMember: true}
	id.MemberID, id.InstanceID, id.Epoch = w.id(w.client())
	state := w.g.State()
	if err := w.g.CheckCommit(w.now, &id); err != nil || id.Epoch < 0 {
		return
	}
	if top := w.top[w.life]; id.Epoch < top {
		t.Fatalf("a commit of generation %d passes, members have seen assignments of %d", id.Epoch, top)
	}
	if state != Stable && state != PreparingRebalance {
		t.Fatalf("a commit passes in state %s", state)
	}
}

func (w *world) delete(t *rapid.T) {
	var e Effects
	w.g.Delete(w.now, w.ticket(request{kind: "delete"}), &e)
	w.effects(&e)
}

func (w *world) pass(t *rapid.T) {
	jump := rapid.SampledFrom([]time.Duration{-time.Minute, time.Millisecond, time.Second, 5 * time.Second, time.Minute, 10 * time.Minute, 0}).Draw(t, "jump")
	if d, ok := w.g.Deadline(); ok && jump == 0 {
		jump = d.Sub(w.now)
	}
	w.now = w.now.Add(jump)
	w.tick()
}

func (w *world) tick() {
	var e Effects
	w.g.Tick(w.now, &e)
	if d, ok := w.g.Deadline(); ok && !d.After(w.now) {
		w.t.Fatalf("at %s the deadline is %s", w.now, d)
	}
	w.effects(&e)
}

// write ends the write in flight: it is stored, or not, or nobody knows.
func (w *world) write(t *rapid.T) {
	if w.flight.Seq == 0 {
		return
	}
	w.finish(rapid.SampledFrom([]string{"stored", "stored", "stored", "not stored", "unknown"}).Draw(t, "outcome"))
}

func (w *world) finish(outcome string) {
	wr := w.flight
	w.flight = Write{}
	var err error
	switch outcome {
	case "stored":
		w.stored = [][]byte{wr.Record}
		if wr.Delete {
			w.life++
			w.high = 0
		}
	case "unknown":
		w.stored = append(w.stored, wr.Record)
		err = errors.New("timed out")
	default:
		err = errors.New("not stored")
	}
	var e Effects
	w.g.Written(w.now, wr.Seq, err, &e)
	w.effects(&e)
}

// crash loads the group from anything that the store may hold, the write in
// flight included, or hands it over.
func (w *world) crash(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "crash") > 0 {
		return
	}
	if rapid.Bool().Draw(t, "gracefully") {
		w.unload()
	}
	found := w.stored
	if w.flight.Seq != 0 {
		found = append(slices.Clone(found), w.flight.Record)
	}
	record := found[rapid.IntRange(0, len(found)-1).Draw(t, "found")]
	w.stored = [][]byte{record}
	w.flight = Write{}
	for _, q := range w.open {
		if q.client != nil { // its connection is closed, and it tries again
			q.client.waiting = false
		}
	}
	clear(w.open)
	if record == nil {
		w.g = New("g", &w.config)
		w.life++
		w.high = 0
		return
	}
	g, err := Load("g", &w.config, record, w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.g = g
	w.high = g.classic.generation
	if top := w.top[w.life]; w.high < top {
		t.Fatalf("loaded at generation %d, members have seen assignments of %d", w.high, top)
	}
}

func (w *world) unload() {
	var e Effects
	w.g.Unload(&e)
	w.effects(&e)
	if len(w.open) > 0 {
		w.t.Fatalf("not answered at the end: %v", w.open)
	}
}

func (w *world) effects(e *Effects) {
	for _, r := range e.Replies {
		q, waiting := w.open[r.Ticket]
		if !waiting {
			w.t.Fatalf("ticket %d is answered again: %+v", r.Ticket, r.Response)
		}
		delete(w.open, r.Ticket)
		w.reply(q, r.Response)
	}
	if e.Reload {
		w.t.Fatal("a classic group asks for a reload")
	}
	if e.Write.Seq == 0 {
		return
	}
	if w.flight.Seq != 0 {
		w.t.Fatal("two writes in flight")
	}
	w.flight = e.Write
	if e.Write.Delete {
		return
	}
	g, err := Load("g", &w.config, e.Write.Record, w.now)
	if err != nil {
		w.t.Fatalf("a record that cannot be loaded: %v", err)
	}
	if again := g.appendRecord(nil); g.classic.state != PreparingRebalance && !bytes.Equal(again, e.Write.Record) {
		w.t.Fatalf("a record that changes when loaded: %q, %q", e.Write.Record, again)
	}
}

func (w *world) reply(q request, response any) {
	switch r := response.(type) {
	case *JoinGroupResponse:
		if q.kind != "join" {
			w.t.Fatalf("a %s is answered as a join", q.kind)
		}
		if q.client.memberID = r.MemberID; r.Err == ErrMemberIDRequired {
			q.client.heard(nil, "join")
		} else {
			q.client.heard(r.Err, "sync")
		}
		if r.Err != nil {
			if r.Generation != -1 || r.LeaderID != "" || r.Members != nil {
				w.t.Fatalf("an error with more: %+v", r)
			}
			return
		}
		if r.Generation > w.g.classic.generation {
			w.t.Fatalf("joined a generation to come: %d", r.Generation)
		}
		if w.g.State() == Stable && r.Generation == w.g.classic.generation {
			w.durable(r.MemberID)
		}
		q.client.generation, q.client.protocol, q.client.roster = r.Generation, r.ProtocolName, r.Members
	case *SyncGroupResponse:
		if q.kind != "sync" {
			w.t.Fatalf("a %s is answered as a sync", q.kind)
		}
		q.client.heard(r.Err, "heartbeat")
		if r.Err == nil {
			w.assigned(q, string(r.Assignment))
		}
	case *LeaveGroupResponse, *DeleteResponse:
	default:
		w.t.Fatalf("a response of type %T", response)
	}
}

// durable checks that a member that was told it is in the stable generation will
// be found after a crash.
func (w *world) durable(memberID string) {
	for _, record := range w.stored {
		g, err := Load("g", &w.config, record, w.now)
		if err != nil || g.classic.byID[memberID] == nil {
			w.t.Fatalf("%s is told that it is a member, and is not in the record %q (%v)", memberID, record, err)
		}
	}
}

// assigned checks what one member sees against what others saw.
func (w *world) assigned(q request, assignment string) {
	if q.generation != w.g.classic.generation {
		w.t.Fatalf("an assignment of generation %d in %d", q.generation, w.g.classic.generation)
	}
	w.top[w.life] = max(w.top[w.life], q.generation)
	if assignment == "" {
		return
	}
	part := strings.Split(assignment, "/")
	if part[1] != fmt.Sprint(q.generation) {
		w.t.Fatalf("generation %d gets the assignment %s", q.generation, assignment)
	}
	if m := w.g.classic.byID[q.memberID]; m.instance == "" && part[3] != q.memberID {
		w.t.Fatalf("%s gets the assignment %s", q.memberID, assignment)
	}
	at := seen{w.life, q.generation}
	if was, ok := w.seen[at]; ok && was != part[0]+part[2] {
		w.t.Fatalf("generation %d gets assignments of %s and %s", q.generation, was, part[0]+part[2])
	}
	w.seen[at] = part[0] + part[2]
}

// check holds what is true between any two events.
func (w *world) check(t *rapid.T) {
	c := w.g.classic
	if c.generation < w.high {
		t.Fatalf("generation %d after %d", c.generation, w.high)
	}
	w.high = c.generation
	parked, supporters := 0, map[string]int{}
	deadline, ticking := w.g.Deadline()
	before := func(what string, at time.Time) {
		if !at.IsZero() && (!ticking || at.Before(deadline)) {
			t.Fatalf("%s ends at %s, the deadline is %s", what, at, deadline)
		}
	}
	for _, m := range c.members {
		if c.byID[m.id] != m || m.instance != "" && c.byInstance[m.instance] != m {
			t.Fatalf("member %s is not found", m.id)
		}
		if m.join.waiting {
			parked++
		}
		if m.join.waiting && c.state != PreparingRebalance || m.sync.waiting && c.state != CompletingRebalance {
			t.Fatalf("%s waits in state %s: %+v", m.id, c.state, m)
		}
		for _, p := range m.protocols {
			supporters[p.Name]++
		}
		if m.expires() {
			before("the session of "+m.id, m.deadline)
		}
	}
	before("the join phase", c.joinDeadline)
	before("the sync phase", c.syncDeadline)
	for id, until := range c.pending {
		before("the pending "+id, until)
	}
	if parked != c.joining || fmt.Sprint(supporters) != fmt.Sprint(c.supporters) && len(supporters)+len(c.supporters) > 0 {
		t.Fatalf("%d joins wait, counted %d; protocols %v, counted %v", parked, c.joining, supporters, c.supporters)
	}
	if len(c.byID) != len(c.members) || (c.byID[c.leader] == nil) != (len(c.members) == 0) || (c.leader == "") != (len(c.members) == 0) {
		t.Fatalf("%d members, %d by id, leader %q", len(c.members), len(c.byID), c.leader)
	}
	switch {
	case (c.state == Empty || c.state == Dead) && len(c.members) > 0, (c.state == Stable || c.state == CompletingRebalance) && len(c.members) == 0:
		t.Fatalf("%s with %d members", c.state, len(c.members))
	case (c.state == Stable || c.state == CompletingRebalance) && supporters[c.protocolName] != len(c.members):
		t.Fatalf("%q is not every member's protocol: %v", c.protocolName, supporters)
	case c.state == PreparingRebalance && c.joinDeadline.IsZero():
		t.Fatal("a rebalance without end")
	}
}

// end leaves the group alone until nothing more happens.
func (w *world) end() {
	for range 1000 {
		if w.flight.Seq != 0 {
			w.finish("stored")
		} else if d, ok := w.g.Deadline(); ok {
			if d.After(w.now) {
				w.now = d
			}
			w.tick()
		} else {
			break
		}
		w.check(w.t)
	}
	if len(w.open) > 0 || w.g.State() != Empty {
		w.t.Fatalf("left alone the group is %s, not answered: %v", describeState(w.g), w.open)
	}
}
