package clients

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// full tells that the long run is on: every kind of member, not one of each
// library and protocol.
var full = os.Getenv("QUIRE_CONFORMANCE_FULL") == "true"

// Of every member that can be told so: rebalances are noticed soon, and a
// session outlasts a slow restart.
const (
	memberHeartbeat = 200 * time.Millisecond
	memberSession   = 20 * time.Second
)

// memberOptions is what one member of a group is started with. Every member
// reads from the earliest offset where none is committed, and commits after
// each record or poll.
type memberOptions struct {
	group, topic string
	instance     string // static member when not ""
	assignor     string // the kind's own name for it
	java         string // more of a Java client's configuration, a line each
}

// A memberKind is one way to be a member: a client library with one assignor
// and one group protocol.
type memberKind struct {
	library  string
	protocol string // classic or consumer
	assignor string
	static   bool // knows group.instance.id
	start    func(t *testing.T, o memberOptions) *member
	short    bool // part of the short run
}

func (k memberKind) String() string { return k.library + "/" + k.protocol + "/" + k.assignor }

func (k memberKind) join(t *testing.T, group, topic, instance string) *member {
	t.Helper()
	return k.start(t, memberOptions{group: group, topic: topic, instance: instance, assignor: k.assignor})
}

// memberKinds is every kind that the group tests run.
var memberKinds = slices.Concat(franzMembers, librdkafkaMembers, saramaMembers, javaMembers, scriptMembers)

// eachKind runs a test for every kind of member of this run that it accepts.
// The tests wait for servers and clients most of the time, so they run beside
// each other.
func eachKind(t *testing.T, accept func(memberKind) bool, test func(t *testing.T, k memberKind)) {
	for _, k := range memberKinds {
		if !accept(k) || !(k.short || full) {
			continue
		}
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			test(t, k)
		})
	}
}

// position is one record of a topic.
type position struct {
	partition int32
	offset    int64
}

// A member is what a test sees of a running member of a group. Its callbacks
// report to it from the client's goroutines.
type member struct {
	name string
	stop func() error // ends the client as its users do: a dynamic member leaves
	once sync.Once

	mu         sync.Mutex
	assigned   map[int32]bool
	rebalances int // assignments and revocations that changed something
	read       map[position]int
	failure    error
}

func newMember(t *testing.T, name string) *member {
	m := &member{name: name, assigned: map[int32]bool{}, read: map[position]int{}}
	t.Cleanup(func() { m.leave() })
	return m
}

func (m *member) assign(partitions ...int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(partitions) > 0 {
		m.rebalances++
	}
	for _, p := range partitions {
		if m.assigned[p] {
			m.failLocked(fmt.Errorf("partition %d is assigned twice", p))
		}
		m.assigned[p] = true
	}
}

func (m *member) revoke(partitions ...int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(partitions) > 0 {
		m.rebalances++
	}
	for _, p := range partitions {
		delete(m.assigned, p)
	}
}

func (m *member) record(partition int32, offset int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.assigned[partition] {
		m.failLocked(fmt.Errorf("record %d of partition %d, which is not assigned", offset, partition))
	}
	m.read[position{partition, offset}]++
}

func (m *member) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failLocked(err)
}

func (m *member) failLocked(err error) {
	if m.failure == nil {
		m.failure = err
	}
}

func (m *member) err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failure
}

// partitions returns what is assigned, sorted.
func (m *member) partitions() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.assigned))
}

func (m *member) changes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rebalances
}

// leave stops the client once; a failure to stop is one of the member.
func (m *member) leave() {
	m.once.Do(func() {
		if err := m.stop(); err != nil {
			m.fail(fmt.Errorf("stop: %w", err))
		}
	})
}

// mustLeave fails the test unless the member was well and ends well.
func mustLeave(t *testing.T, members ...*member) {
	t.Helper()
	for _, m := range members {
		m.leave()
		if err := m.err(); err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
	}
}

// groupTimeout bounds one step of a group: some rebalances, on a machine whose
// two cores start Java programs.
const groupTimeout = 90 * time.Second

// await returns when cond holds, and fails the test when it does not within
// groupTimeout or a member fails first; state describes it then.
func await(t *testing.T, what string, members []*member, cond func() bool, state func() string) {
	t.Helper()
	deadline := time.NewTimer(groupTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		for _, m := range members {
			if err := m.err(); err != nil {
				t.Fatalf("%s, waiting for %s: %v", m.name, what, err)
			}
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("no %s after %s: %s", what, groupTimeout, state())
		}
	}
}

// awaitShared returns when the members together hold every partition once, each
// its share.
func awaitShared(t *testing.T, partitions int, members ...*member) {
	t.Helper()
	held := func() string {
		var b strings.Builder
		for _, m := range members {
			fmt.Fprintf(&b, "%s %v ", m.name, m.partitions())
		}
		return b.String()
	}
	await(t, "fair assignment", members, func() bool {
		seen := map[int32]bool{}
		for _, m := range members {
			parts := m.partitions()
			if len(parts) < partitions/len(members) || len(parts) > (partitions+len(members)-1)/len(members) {
				return false
			}
			for _, p := range parts {
				if seen[p] {
					return false
				}
				seen[p] = true
			}
		}
		return len(seen) == partitions
	}, held)
}

// A stream is a topic that grows evenly while a group reads it.
type stream struct {
	topic      string
	partitions int32
	end        int64 // of each partition
}

func newStream(t *testing.T, partitions int32) *stream {
	t.Helper()
	return &stream{topic: newTopic(t, partitions), partitions: partitions}
}

// grow adds n records to each partition.
func (s *stream) grow(t *testing.T, n int) {
	t.Helper()
	var records []*kgo.Record
	for p := range s.partitions {
		for i := range n {
			records = append(records, &kgo.Record{Partition: p, Value: []byte(strconv.FormatInt(s.end+int64(i), 10))})
		}
	}
	produce(t, s.topic, records)
	s.end += int64(n)
}

// awaitRead returns when all records of the stream were read, from offset from
// on, and the group has committed its end.
func (s *stream) awaitRead(t *testing.T, group string, from int64, members ...*member) {
	t.Helper()
	counts := func() map[position]int {
		all := map[position]int{}
		for _, m := range members {
			m.mu.Lock()
			for p, n := range m.read {
				all[p] += n
			}
			m.mu.Unlock()
		}
		return all
	}
	want := int(s.end-from) * int(s.partitions)
	await(t, fmt.Sprintf("%d records", want), members, func() bool { return len(counts()) >= want },
		func() string { return fmt.Sprintf("%d records", len(counts())) })
	a := admin(t)
	var committed map[int32]int64
	await(t, fmt.Sprintf("commits of offset %d", s.end), members, func() bool {
		committed = committedOffsets(t, a, group, s.topic)
		for p := range s.partitions {
			if committed[p] != s.end {
				return false
			}
		}
		return true
	}, func() string { return fmt.Sprint(committed) })
	for p, n := range counts() {
		if n != 1 || p.offset < from || p.offset >= s.end {
			t.Fatalf("record %d of partition %d was read %d times; want each of %d to %d once", p.offset, p.partition, n, from, s.end-1)
		}
	}
}

func committedOffsets(t *testing.T, a *kadm.Client, group, topic string) map[int32]int64 {
	t.Helper()
	fetched, err := a.FetchOffsets(step(t), group)
	if err != nil {
		t.Fatalf("committed offsets of %s: %v", group, err)
	}
	offsets := map[int32]int64{}
	for p, o := range fetched[topic] {
		if o.Err != nil {
			t.Fatalf("committed offset of %s-%d in %s: %v", topic, p, group, o.Err)
		}
		offsets[p] = o.At
	}
	return offsets
}

// awaitListed returns when the group is listed as wanted says.
func awaitListed(t *testing.T, group, what string, wanted func(kmsg.ListGroupsResponseGroup) bool) {
	t.Helper()
	client := franzClient(t)
	var found kmsg.ListGroupsResponseGroup
	await(t, what, nil, func() bool {
		resp, err := kmsg.NewPtrListGroupsRequest().RequestWith(step(t), client)
		if err != nil {
			t.Fatal(err)
		}
		for _, found = range resp.Groups {
			if found.Group == group {
				return wanted(found)
			}
		}
		return false
	}, func() string { return fmt.Sprintf("%+v", found) })
}

func awaitState(t *testing.T, group, state string) {
	t.Helper()
	awaitListed(t, group, state+" group", func(g kmsg.ListGroupsResponseGroup) bool { return g.GroupState == state })
}

// awaitType returns when the group is listed as classic or consumer.
func awaitType(t *testing.T, group, kind string) {
	t.Helper()
	awaitListed(t, group, kind+" group", func(g kmsg.ListGroupsResponseGroup) bool { return g.GroupType == kind })
}

// A group through its life: it starts, grows, shrinks, ends and starts again.
// Every record is read once and every commit is found again.
func TestGroupLife(t *testing.T) {
	const partitions, more = 6, 10
	eachKind(t, func(memberKind) bool { return true }, func(t *testing.T, k memberKind) {
		s, group := newStream(t, partitions), topicName(t)
		s.grow(t, more)

		first := k.join(t, group, s.topic, "")
		awaitShared(t, partitions, first)
		s.awaitRead(t, group, 0, first)

		second := k.join(t, group, s.topic, "")
		awaitShared(t, partitions, first, second)
		s.grow(t, more)
		s.awaitRead(t, group, 0, first, second)

		mustLeave(t, first)
		awaitShared(t, partitions, second)
		s.grow(t, more)
		s.awaitRead(t, group, 0, first, second)

		mustLeave(t, second)
		awaitState(t, group, "Empty")
		from := s.end
		s.grow(t, more)
		third := k.join(t, group, s.topic, "")
		s.awaitRead(t, group, from, third)
		mustLeave(t, third)
	})
}

// A static member that comes back within its session keeps what it had, and
// nobody else learns of it (KIP-345).
func TestGroupStaticMember(t *testing.T) {
	const partitions, more = 4, 5
	eachKind(t, func(k memberKind) bool { return k.static }, func(t *testing.T, k memberKind) {
		s, group := newStream(t, partitions), topicName(t)
		stays := k.join(t, group, s.topic, "stays")
		awaitShared(t, partitions, stays)
		returns := k.join(t, group, s.topic, "returns")
		awaitShared(t, partitions, stays, returns)
		s.grow(t, more)
		s.awaitRead(t, group, 0, stays, returns)

		before, had := stays.changes(), returns.partitions()
		mustLeave(t, returns)
		again := k.join(t, group, s.topic, "returns")
		await(t, "assignment of the returning member", []*member{stays, again},
			func() bool { return len(again.partitions()) > 0 }, func() string { return fmt.Sprint(again.partitions()) })
		if got := again.partitions(); !slices.Equal(got, had) {
			t.Errorf("the returning member has %v, had %v", got, had)
		}
		s.grow(t, more)
		s.awaitRead(t, group, 0, stays, returns, again)
		if after := stays.changes(); after != before {
			t.Errorf("the other member was rebalanced: %d changes of its assignment, %d before", after, before)
		}
		mustLeave(t, stays, again)
	})
}

// Members of several libraries share one group with the assignor that all of
// them have, each decoding what another one's leader assigned.
func TestGroupOfManyLibraries(t *testing.T) {
	t.Parallel()
	var kinds []memberKind
	for _, name := range []string{"franz-go/classic/range", "librdkafka/classic/range", "sarama/classic/range", "kafka-python/classic/range", "java-4.3.1/classic/range"} {
		kinds = append(kinds, kindNamed(t, name))
	}
	s, group := newStream(t, 10), topicName(t)
	s.grow(t, 5)
	var members []*member
	for _, k := range kinds {
		members = append(members, k.join(t, group, s.topic, ""))
		awaitShared(t, int(s.partitions), members...)
		s.grow(t, 5)
		s.awaitRead(t, group, 0, members...)
	}
	// The leader leaves first, so every library leads once.
	for i := range members[:len(members)-1] {
		mustLeave(t, members[i])
		awaitShared(t, int(s.partitions), members[i+1:]...)
		s.grow(t, 5)
		s.awaitRead(t, group, 0, members...)
	}
	mustLeave(t, members[len(members)-1])
}

// A group moves from the classic protocol to that of KIP-848 and back while it
// is read, one member at a time. Left out is librdkafka 2.11 with
// cooperative-sticky, whose members never give up what they are told to in a
// converted group, on Kafka either.
func TestGroupConversion(t *testing.T) {
	for _, pair := range [][2]string{
		{"librdkafka/classic/range", "franz-go/consumer/uniform"},
		{"sarama/classic/range", "librdkafka/consumer/uniform"},
		{"franz-go/classic/cooperative-sticky", "java-4.3.1/consumer/uniform"},
		{"java-4.3.1/classic/range", "franz-go/consumer/range"},
	} {
		t.Run(strings.ReplaceAll(pair[0]+" to "+pair[1], "/", " "), func(t *testing.T) {
			t.Parallel()
			classic, consumer := kindNamed(t, pair[0]), kindNamed(t, pair[1])
			s, group := newStream(t, 6), topicName(t)
			var all []*member
			settle := func(now ...*member) {
				t.Helper()
				awaitShared(t, int(s.partitions), now...)
				s.grow(t, 5)
				s.awaitRead(t, group, 0, all...)
			}
			join := func(k memberKind) *member {
				t.Helper()
				m := k.join(t, group, s.topic, "")
				all = append(all, m)
				return m
			}
			a := join(classic)
			settle(a)
			b := join(classic)
			settle(a, b)
			c := join(consumer)
			settle(a, b, c)
			awaitType(t, group, "consumer")
			mustLeave(t, a)
			settle(b, c)
			mustLeave(t, b)
			settle(c)
			d := join(consumer)
			settle(c, d)
			e := join(classic)
			settle(c, d, e)
			mustLeave(t, c)
			settle(d, e)
			awaitType(t, group, "consumer")
			mustLeave(t, d)
			settle(e)
			awaitType(t, group, "classic")
			mustLeave(t, e)
		})
	}
}

func kindNamed(t *testing.T, name string) memberKind {
	t.Helper()
	for _, k := range memberKinds {
		if k.String() == name {
			return k
		}
	}
	t.Fatalf("no kind of member is called %s", name)
	return memberKind{}
}

// background runs a member's loop until stop, which waits for its end.
func background(loop func(ctx context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { loop(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}
