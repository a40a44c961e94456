package group

import (
	"fmt"
	"testing"
	"time"
)

// crowd makes n members join a group at once and sync; it returns the group,
// the member ids and how many bytes were written.
func crowd(t testing.TB, n int) (g *Group, ids []string, written int) {
	uuids := 0
	config := Config{InitialRebalanceDelay: 3 * time.Second, NewUUID: func() string { uuids++; return fmt.Sprint(uuids) }}.WithDefaults()
	g = New("g", &config)
	now := time.Unix(1_000_000, 0)
	var e Effects
	metadata := make([]byte, 1000)
	join := func(i int, id string) {
		g.JoinGroup(now, Ticket(i), &JoinGroupRequest{MemberID: id, ClientID: "c", SessionTimeout: 10 * time.Second, RebalanceTimeout: time.Minute,
			ProtocolType: "consumer", Protocols: []Protocol{{"range", metadata}}, RequireKnownMember: true}, &e)
	}
	for i := range n {
		join(i, "")
	}
	pending := e.Replies
	e = Effects{}
	for i, r := range pending {
		join(i, r.Response.(*JoinGroupResponse).MemberID)
	}
	for g.State() == PreparingRebalance {
		now, _ = g.Deadline()
		g.Tick(now, &e)
	}
	joined := e.Replies
	e = Effects{}
	if len(joined) != n {
		t.Fatalf("%d of %d joined", len(joined), n)
	}
	if waited := now.Sub(time.Unix(1_000_000, 0)); waited > 6*time.Second {
		t.Fatalf("the first generation took %s", waited)
	}
	for _, r := range joined {
		j := r.Response.(*JoinGroupResponse)
		sync := &SyncGroupRequest{MemberID: j.MemberID, Generation: j.Generation}
		for _, m := range j.Members {
			sync.Assignments = append(sync.Assignments, MemberAssignment{m.MemberID, []byte(m.MemberID)})
		}
		g.SyncGroup(now, r.Ticket, sync, &e)
		written += len(e.Write.Record)
		ids = append(ids, j.MemberID)
		if e.Write.Seq != 0 {
			g.Written(now, e.Write.Seq, nil, &e)
			e.Write = Write{}
		}
	}
	if len(e.Replies) != n || g.State() != Stable {
		t.Fatalf("%d of %d synced, %s", len(e.Replies), n, g.State())
	}
	for _, r := range e.Replies {
		if s := r.Response.(*SyncGroupResponse); s.Err != nil || len(s.Assignment) == 0 {
			t.Fatalf("synced with %v, %q", s.Err, s.Assignment)
		}
	}
	return g, ids, written
}

// TestManyJoinAtOnce: 500 members get into one generation, which is written
// once, their common metadata in it once.
func TestManyJoinAtOnce(t *testing.T) {
	_, _, written := crowd(t, 500)
	if written == 0 || written > 500*100 {
		t.Errorf("%d bytes written for 500 members", written)
	}
}

func TestHeartbeatDoesNotAllocate(t *testing.T) {
	g, ids, _ := crowd(t, 10)
	now, _ := g.Deadline()
	now = now.Add(-time.Second)
	r := &HeartbeatRequest{MemberID: ids[3], Generation: 1}
	if n := testing.AllocsPerRun(100, func() {
		now = now.Add(time.Millisecond)
		if err := g.Heartbeat(now, r); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a heartbeat allocates %v times", n)
	}
}

// TestHeartbeatsMoveNoDeadline: a timer per group is enough only if heartbeats
// leave it alone.
func TestHeartbeatsMoveNoDeadline(t *testing.T) {
	g, ids, _ := crowd(t, 3)
	before, _ := g.Deadline()
	for _, id := range ids {
		if err := g.Heartbeat(before.Add(-time.Second), &HeartbeatRequest{MemberID: id, Generation: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if after, _ := g.Deadline(); after != before {
		t.Errorf("the deadline moved from %s to %s", before, after)
	}
}

func BenchmarkHeartbeat(b *testing.B) {
	g, ids, _ := crowd(b, 500)
	now, _ := g.Deadline()
	now = now.Add(-time.Second)
	r := &HeartbeatRequest{Generation: 1}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.MemberID = ids[i%len(ids)]
		if err := g.Heartbeat(now, r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJoin500(b *testing.B) {
	for b.Loop() {
		crowd(b, 500)
	}
}

// TestGenerationStartsAgain: after the greatest int32 comes 1, never a negative.
func TestGenerationStartsAgain(t *testing.T) {
	g, ids, _ := crowd(t, 1)
	g.classic.generation = 1<<31 - 1
	var e Effects
	g.LeaveGroup(time.Unix(1_000_100, 0), 1, &LeaveGroupRequest{Members: []LeavingMember{{MemberID: ids[0]}}}, &e)
	if g.classic.generation != 1 || g.State() != Empty {
		t.Errorf("generation %d, %s", g.classic.generation, g.State())
	}
}

// TestReadTopics: the client's metadata, cut anywhere or lying about lengths.
func TestReadTopics(t *testing.T) {
	for _, c := range []struct {
		metadata string
		topics   int
		ok       bool
	}{
		{"\x00\x00\x00\x00\x00\x02\x00\x01a\x00\x02bc", 2, true},
		{"\x00\x03\x00\x00\x00\x00", 0, true},
		{"\xff\xff\x00\x00\x00\x00", 0, false},
		{"\x00\x00\xff\xff\xff\xff", 0, false},
		{"\x00\x00\x7f\xff\xff\xff\x00\x01a", 1, false},
		{"\x00\x00\x00\x00\x00\x01\xff\xff", 0, false},
		{"\x00\x00\x00\x00\x00\x01\x00\x05a", 0, false},
		{"\x00\x00\x00\x00\x00", 0, false},
		{"", 0, false},
	} {
		topics := map[string]struct{}{}
		if ok := readTopics([]byte(c.metadata), topics); ok != c.ok || len(topics) != c.topics {
			t.Errorf("%q: %v, %v", c.metadata, ok, topics)
		}
	}
}

// TestForgettable: what a driver may drop is as New makes it again.
func TestForgettable(t *testing.T) {
	config := Config{NewUUID: func() string { return "u" }}.WithDefaults()
	g := New("g", &config)
	now := time.Unix(1_000_000, 0)
	var e Effects
	is := func(want bool, when string) {
		t.Helper()
		if g.Forgettable() != want {
			t.Errorf("%s: %v", when, !want)
		}
	}
	join := func(id string) {
		g.JoinGroup(now, 1, &JoinGroupRequest{MemberID: id, ClientID: "a", SessionTimeout: 10 * time.Second, ProtocolType: "consumer",
			Protocols: []Protocol{{Name: "range"}}, RequireKnownMember: true}, &e)
	}
	is(true, "new")
	join("")
	is(false, "with a pending member")
	now = now.Add(time.Minute)
	g.Tick(now, &e)
	is(true, "after its session")
	join("")
	join("a-u")
	is(false, "with a member")
	g.LeaveGroup(now, 2, &LeaveGroupRequest{Members: []LeavingMember{{MemberID: "a-u"}}}, &e)
	is(false, "with a write in flight")
	g.Written(now, 1, nil, &e)
	is(false, "with a record")
	g.Delete(now, 3, &e)
	is(false, "being deleted")
	g.Written(now, 2, nil, &e)
	is(true, "deleted")
	if g.ID() != "g" || g.Type() != Classic {
		t.Errorf("%s, %s", g.ID(), g.Type())
	}
}

// TestCommitToUnknownGroup: only nobody may create a group by a commit.
func TestCommitToUnknownGroup(t *testing.T) {
	for _, c := range []struct {
		id   CommitIdentity
		want error
	}{
		{CommitIdentity{Epoch: -1}, nil},
		{CommitIdentity{MemberID: "a", Epoch: -1}, nil},
		{CommitIdentity{MemberID: "a", Epoch: 0}, ErrIllegalGeneration},
		{CommitIdentity{MemberID: "a", Epoch: 3, EpochIsMember: true}, ErrGroupNotFound},
	} {
		if err := CheckCommitUnknown(&c.id); err != c.want {
			t.Errorf("%+v: %v", c.id, err)
		}
	}
}

// TestAnybodyFetches: a classic group lets everybody fetch, unless it is being deleted.
func TestAnybodyFetches(t *testing.T) {
	config := Config{}.WithDefaults()
	g := New("g", &config)
	if err := g.CheckFetch(time.Unix(0, 0), &CommitIdentity{MemberID: "x", Epoch: 9}); err != nil {
		t.Error(err)
	}
	var e Effects
	g.Delete(time.Unix(0, 0), 1, &e)
	if err := g.CheckFetch(time.Unix(0, 0), &CommitIdentity{Epoch: -1}); err != ErrGroupNotFound {
		t.Error(err)
	}
}
