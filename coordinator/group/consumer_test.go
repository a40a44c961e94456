package group

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// beat sends a heartbeat to g and makes it durable at once.
func beat(t testing.TB, g *Group, now time.Time, r *ConsumerHeartbeatRequest, topics Topics) *ConsumerHeartbeatResponse {
	var e Effects
	g.ConsumerHeartbeat(now, 1, r, topics, &e)
	if seq := e.Write.Seq; seq != 0 {
		g.Written(now, seq, nil, &e)
	}
	if len(e.Replies) != 1 || e.Replies[0].Response.(*ConsumerHeartbeatResponse).Err != nil {
		t.Fatalf("%+v is answered %+v", r, e.Replies)
	}
	return e.Replies[0].Response.(*ConsumerHeartbeatResponse)
}

// crowded is a group of n members that all have what they shall have.
func crowded(t testing.TB, n, topics, partitions int) (*Group, []*ConsumerHeartbeatRequest, *fakeTopics, time.Time) {
	config := Config{NewUUID: func() string { return "u" }}.WithDefaults()
	view := newFakeTopics()
	var names []string
	for i := range topics {
		names = append(names, fmt.Sprint("t", i))
		view.create(names[i], int32(partitions/topics))
	}
	now := time.Unix(1_000_000, 0)
	g := New("g", &config)
	requests := make([]*ConsumerHeartbeatRequest, n)
	for i := range requests {
		requests[i] = &ConsumerHeartbeatRequest{MemberID: fmt.Sprintf("%05d", i), RequireMemberID: true, RebalanceTimeout: time.Minute,
			SubscribedTopicNames: names, OwnedTopicPartitions: []TopicPartitions{}}
		beat(t, g, now, requests[i], view)
		requests[i].RebalanceTimeout, requests[i].SubscribedTopicNames, requests[i].OwnedTopicPartitions = -1, nil, nil
	}
	for range 4 {
		for _, r := range requests {
			r.MemberEpoch = g.consumer.byID[r.MemberID].epoch
			r.OwnedTopicPartitions = append([]TopicPartitions{}, g.consumer.byID[r.MemberID].assigned...)
			r.MemberEpoch = beat(t, g, now, r, view).MemberEpoch
			r.OwnedTopicPartitions = nil
		}
	}
	if g.State() != Stable {
		t.Fatalf("the group is %s", g.State())
	}
	return g, requests, view, now
}

// TestManyMembers: 500 members that come one after the other share 1,000 partitions.
func TestManyMembers(t *testing.T) {
	g, _, _, now := crowded(t, 500, 10, 1000)
	for _, m := range g.consumer.members {
		if n := m.assigned.Count(); n != 2 {
			t.Errorf("%s has %d partitions", m.id, n)
		}
	}
	checkConsumer(t, g.consumer)
	record := g.appendRecord(nil)
	if limit := 128 << 10; len(record) > limit {
		t.Errorf("the record has %d bytes, more than %d", len(record), limit)
	}
	again, err := Load("g", g.config, record, now)
	if err != nil {
		t.Fatal(err)
	}
	if again.State() != Stable {
		t.Errorf("loaded it is %s", again.State())
	}
}

// TestConsumerHeartbeatDoesNotAllocate: of a member that has what it shall have.
func TestConsumerHeartbeatDoesNotAllocate(t *testing.T) {
	g, requests, view, now := crowded(t, 3, 1, 6)
	e := &Effects{Replies: make([]Reply, 0, 1)}
	seq := g.log.seq
	allocations := testing.AllocsPerRun(100, func() {
		now = now.Add(time.Second)
		for _, r := range requests {
			e.Reset()
			g.ConsumerHeartbeat(now, 1, r, view, e)
			if len(e.Replies) != 1 {
				t.Fatal("no answer")
			}
			if _, ok := g.ConsumerHeartbeatAtRest(now, r, view); !ok {
				t.Fatal("not at rest")
			}
		}
	})
	if allocations != 0 {
		t.Errorf("three heartbeats allocate %v times", allocations)
	}
	if g.log.seq != seq {
		t.Error("heartbeats write")
	}
}

// TestConfigure: a group goes by another config from each member's next heartbeat on.
func TestConfigure(t *testing.T) {
	g, requests, view, now := crowded(t, 1, 1, 1)
	r := requests[0]
	told := func() time.Duration {
		t.Helper()
		a, ok := g.ConsumerHeartbeatAtRest(now, r, view)
		if !ok {
			t.Fatal("not at rest")
		}
		return a.HeartbeatInterval
	}
	if d := told(); d != 5*time.Second {
		t.Fatalf("the interval is %s", d)
	}
	own := *g.config
	own.ConsumerHeartbeatInterval, own.ConsumerSessionTimeout = 7*time.Second, 50*time.Second
	g.Configure(&own)
	var e Effects
	now = now.Add(44 * time.Second)
	if g.Tick(now, &e); g.State() != Stable {
		t.Fatalf("after 44 s it is %s", g.State())
	}
	if d := told(); d != 7*time.Second {
		t.Errorf("then the interval is %s", d)
	}
	now = now.Add(49 * time.Second)
	if g.Tick(now, &e); g.State() != Stable {
		t.Errorf("after 49 s of a session of 50 it is %s", g.State())
	}
	now = now.Add(time.Second)
	if g.Tick(now, &e); g.State() != Empty {
		t.Errorf("after 50 s of a session of 50 it is %s", g.State())
	}
}

func BenchmarkConsumerHeartbeatAtRest(b *testing.B) {
	g, requests, view, now := crowded(b, 500, 10, 1000)
	i := 0
	for b.Loop() {
		if _, ok := g.ConsumerHeartbeatAtRest(now, requests[i%len(requests)], view); !ok {
			b.Fatal("not at rest")
		}
		i++
	}
}

func BenchmarkConsumerHeartbeat(b *testing.B) {
	g, requests, view, now := crowded(b, 500, 10, 1000)
	var e Effects
	i := 0
	for b.Loop() {
		e.Reset()
		g.ConsumerHeartbeat(now, 1, requests[i%len(requests)], view, &e)
		i++
	}
}

// BenchmarkConsumerJoin500 is 500 members that join one after the other, each of
// which makes a target for all.
func BenchmarkConsumerJoin500(b *testing.B) {
	for b.Loop() {
		crowded(b, 500, 10, 1000)
	}
}

func TestTopicRegex(t *testing.T) {
	for _, expression := range []string{"a", "a|b", "(?i)A.*", "^a$", "[a-c]+", `\pL+`, strings.Repeat("a", maxRegexBytes), "x{1,249}"} {
		if _, err := compileTopicRegex(expression); err != nil {
			t.Errorf("%.20q: %v", expression, err)
		}
	}
	for _, expression := range []string{"(", "a)", "a)|(b", "*", "(?=a)", `(a)\1`, "a{1001}", strings.Repeat("a", maxRegexBytes+1), "(" + strings.Repeat("x{500}", 20) + ")"} {
		if _, err := compileTopicRegex(expression); err != ErrInvalidRegex {
			t.Errorf("%.20q: %v", expression, err)
		}
	}
	for _, c := range []struct {
		expression, name string
		want             bool
	}{
		{"a|b", "a", true}, {"a|b", "ab", false}, {"a|ab", "ab", true}, {"a", "xa", false}, {"^a.*", "abc", true},
		{"(?i)A", "a", true}, {"", "a", false}, {"a.c", "a.c", true}, {"a.c", "abc", true}, {"(?m)a$", "a", true},
	} {
		pattern, err := compileTopicRegex(c.expression)
		if err != nil {
			t.Fatal(err)
		}
		if got := (&topicRegex{pattern: pattern}).matches(c.name); got != c.want {
			t.Errorf("%q matches %q: %v", c.expression, c.name, got)
		}
	}
}

// TestConsumerProtocolVersions: what each version of a client writes.
func TestConsumerProtocolVersions(t *testing.T) {
	topics := "\x00\x00\x00\x02\x00\x01a\x00\x01b"
	none := "\xff\xff\xff\xff"
	owned := "\x00\x00\x00\x01\x00\x01a\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x07"
	for version, blob := range map[int16]string{
		0: "\x00\x00" + topics + none,
		1: "\x00\x01" + topics + "\x00\x00\x00\x01u" + owned,
		2: "\x00\x02" + topics + none + owned + "\x00\x00\x00\x05",
		3: "\x00\x03" + topics + none + owned + "\x00\x00\x00\x05\x00\x01r",
		4: "\x00\x04" + topics + none + owned + "\x00\x00\x00\x05\x00\x01r and more",
	} {
		s, err := decodeConsumerSubscription([]byte(blob))
		if err != nil || s.version != version || !slices.Equal(s.topics, []string{"a", "b"}) {
			t.Errorf("version %d: %+v, %v", version, s, err)
		}
		if version >= 1 && (len(s.owned) != 1 || s.owned[0].topic != "a" || !slices.Equal(s.owned[0].partitions, []int32{0, 7})) {
			t.Errorf("version %d owns %v", version, s.owned)
		}
		if version >= 3 && s.rack != "r" {
			t.Errorf("version %d is of rack %q", version, s.rack)
		}
		for n := range len(blob) {
			if _, err := decodeConsumerSubscription([]byte(blob[:n])); err == nil && version < 4 {
				t.Errorf("version %d is read from its first %d bytes", version, n)
			}
		}
	}
	for _, blob := range []string{"", "\xff\xff" + topics + none, "\x00\x00\xff\xff\xff\xff" + none, "\x00\x00\x7f\xff\xff\xff", "\x00\x00\x00\x00\x00\x01\xff\xff" + none} {
		if _, err := decodeConsumerSubscription([]byte(blob)); err == nil {
			t.Errorf("%q is read", blob)
		}
	}
	assigned := []namedPartitions{{"a", []int32{1, 2}}, {"b", nil}}
	a, err := decodeConsumerAssignment(encodeConsumerAssignment(9, assigned))
	if err != nil || a.hasUserData || writeNamed(a.assigned[:1]) != "a:1+2" || len(a.assigned) != 2 {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := decodeConsumerAssignment([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01u")); err != nil || !a.hasUserData {
		t.Errorf("%+v, %v", a, err)
	}
}

// FuzzConsumerProtocol: any bytes give blobs or errors, and no more than they say.
func FuzzConsumerProtocol(f *testing.F) {
	f.Add(encodeSubscription([]string{"a", "b"}, []namedPartitions{{"a", []int32{0, 1}}}))
	f.Add(encodeConsumerAssignment(1, []namedPartitions{{"a", []int32{0, 1}}}))
	f.Fuzz(func(t *testing.T, blob []byte) {
		if s, err := decodeConsumerSubscription(blob); err == nil && len(s.topics) > len(blob) {
			t.Fatalf("%d topics in %d bytes", len(s.topics), len(blob))
		}
		a, err := decodeConsumerAssignment(blob)
		if err != nil {
			return
		}
		again, err := decodeConsumerAssignment(encodeConsumerAssignment(3, a.assigned))
		if err != nil || writeNamed(again.assigned) != writeNamed(a.assigned) {
			t.Fatalf("%v written again is %v, %v", a.assigned, again.assigned, err)
		}
	})
}

// recordsOfStories are the records that consumer groups of stories end with.
func recordsOfStories(t testing.TB) [][]byte {
	g, _, _, _ := crowded(t, 3, 2, 6)
	records := [][]byte{g.appendRecord(nil)}
	config := Config{Upgrade: true, NewUUID: func() string { return "u" }}.WithDefaults()
	now := time.Unix(1_000_000, 0)
	view := newFakeTopics()
	view.create("a", 4)
	mixed := New("g", &config)
	regex, instance := "a.*", "i"
	beat(t, mixed, now, &ConsumerHeartbeatRequest{MemberID: "m", RebalanceTimeout: time.Minute, InstanceID: &instance, RackID: &instance,
		SubscribedTopicRegex: &regex, OwnedTopicPartitions: []TopicPartitions{}}, view)
	var e Effects
	mixed.JoinGroup(now, 2, &JoinGroupRequest{MemberID: "c", SessionTimeout: time.Minute, RebalanceTimeout: time.Minute,
		ProtocolType: "consumer", Protocols: []Protocol{{"range", encodeSubscription([]string{"a"}, nil)}}, Topics: view}, &e)
	e.Reset()
	mixed.Written(now, 2, nil, &e)
	beat(t, mixed, now, &ConsumerHeartbeatRequest{MemberID: "m", MemberEpoch: 1, RebalanceTimeout: -1}, view)
	return append(records, mixed.appendRecord(nil))
}

// FuzzLoadConsumer: any bytes give a group or an error. A group lives: members
// come and go, and what it writes can be loaded again.
func FuzzLoadConsumer(f *testing.F) {
	for _, record := range recordsOfStories(f) {
		f.Add(record)
	}
	config := Config{Upgrade: true, Downgrade: true, NewUUID: func() string { return "u" }}.WithDefaults()
	now := time.Unix(1_000_000, 0)
	view := newFakeTopics()
	view.create("a", 4)
	f.Fuzz(func(t *testing.T, record []byte) {
		g, err := Load("g", &config, record, now)
		if err != nil {
			if !errors.Is(err, ErrCorruptRecord) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		if g.Type() != Consumer {
			return
		}
		checkConsumer(t, g.consumer)
		if _, err := Load("g", &config, g.appendRecord(nil), now); err != nil {
			t.Fatalf("written again it is corrupt: %v", err)
		}
		if _, err := g.DescribeConsumer(view); err != nil {
			t.Fatal(err)
		}
		g.SubscribedTo("a")
		var e Effects
		g.ConsumerHeartbeat(now, 1, &ConsumerHeartbeatRequest{MemberID: "new", RebalanceTimeout: time.Minute,
			SubscribedTopicNames: []string{"a"}, OwnedTopicPartitions: []TopicPartitions{}}, view, &e)
		for range 20 {
			if g.consumer != nil {
				checkConsumer(t, g.consumer)
			}
			if seq := e.Write.Seq; seq != 0 {
				e.Reset()
				g.Written(now, seq, nil, &e)
			} else if d, ok := g.Deadline(); ok {
				e.Reset()
				g.Tick(d, &e)
			}
		}
	})
}

// TestLoadRefusesConsumer names what a group's own rules would not have made.
func TestLoadRefusesConsumer(t *testing.T) {
	config := Config{}.WithDefaults()
	set := func(partitions ...int32) Assignment { return Assignment{{TopicID{1}, partitions}} }
	build := func(change func(c *consumer, a, b *consumerMember)) []byte {
		g := New("g", &config)
		c := newConsumer(g)
		g.classic, g.consumer = nil, c
		c.epoch, c.targetEpoch = 3, 3
		c.topics[TopicID{1}] = Topic{"t", TopicID{1}, 4}
		a := &consumerMember{id: "a", instance: "i", epoch: 3, previousEpoch: 2, assigned: set(0, 1), target: set(0, 1)}
		b := &consumerMember{id: "b", epoch: 2, previousEpoch: 1, state: memberUnrevoked, assigned: set(2), revoking: set(3), target: set(2),
			classic: &classicSide{sessionTimeout: time.Second, protocols: []Protocol{{"range", encodeSubscription([]string{"t"}, nil)}}}}
		c.members = []*consumerMember{a, b}
		change(c, a, b)
		return g.appendRecord(nil)
	}
	if _, err := Load("g", &config, build(func(c *consumer, a, b *consumerMember) {}), time.Unix(0, 0)); err != nil {
		t.Fatalf("a sound record: %v", err)
	}
	for name, change := range map[string]func(c *consumer, a, b *consumerMember){
		"target after the group":       func(c *consumer, a, b *consumerMember) { c.targetEpoch = 4 },
		"negative epoch":               func(c *consumer, a, b *consumerMember) { c.targetEpoch = -1 },
		"member without id":            func(c *consumer, a, b *consumerMember) { a.id = "" },
		"two of one id":                func(c *consumer, a, b *consumerMember) { b.id = "a" },
		"two of one instance":          func(c *consumer, a, b *consumerMember) { b.instance = "i" },
		"member after the target":      func(c *consumer, a, b *consumerMember) { a.epoch = 4 },
		"previous after present":       func(c *consumer, a, b *consumerMember) { a.previousEpoch = 4 },
		"unknown epoch":                func(c *consumer, a, b *consumerMember) { a.epoch = -1 },
		"left but dynamic":             func(c *consumer, a, b *consumerMember) { a.instance, a.epoch, a.previousEpoch = "", -2, -2 },
		"unknown state":                func(c *consumer, a, b *consumerMember) { a.state = memberStates },
		"nothing to revoke":            func(c *consumer, a, b *consumerMember) { b.revoking = nil },
		"revoking when stable":         func(c *consumer, a, b *consumerMember) { a.revoking = set(9) },
		"two members of one partition": func(c *consumer, a, b *consumerMember) { b.assigned = set(1) },
		"has what it gives up":         func(c *consumer, a, b *consumerMember) { b.revoking = set(2) },
		"no protocol":                  func(c *consumer, a, b *consumerMember) { b.classic.protocols = nil },
		"no session":                   func(c *consumer, a, b *consumerMember) { b.classic.sessionTimeout = 0 },
		"metadata that is not read":    func(c *consumer, a, b *consumerMember) { b.classic.protocols[0].Metadata = []byte("x") },
		"names out of order":           func(c *consumer, a, b *consumerMember) { a.names = []string{"b", "a"} },
		"topic without partitions":     func(c *consumer, a, b *consumerMember) { a.target = set() },
	} {
		if _, err := Load("g", &config, build(change), time.Unix(0, 0)); !errors.Is(err, ErrCorruptRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	record := build(func(c *consumer, a, b *consumerMember) {})
	for n := range record {
		if _, err := Load("g", &config, record[:n], time.Unix(0, 0)); err == nil {
			t.Errorf("it loads from its first %d bytes", n)
		}
	}
}

// TestStoriesAreRead: a story that nobody told would pass with any text.
func TestStoriesAreRead(t *testing.T) {
	files, _ := filepath.Glob("testdata/consumer/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "\n\t") {
			t.Errorf("%s says nothing of what happens", file)
		}
	}
}
