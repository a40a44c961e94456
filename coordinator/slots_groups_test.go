package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/offsets"
	"github.com/quirelog/quire/storage/meta"
)

// serving returns the node that serves a group, nil if none does.
func serving(id string, all ...*member) *member {
	for _, m := range all {
		if m.Route(coordinator.SlotOf(id)).Here {
			return m
		}
	}
	return nil
}

// asked asks whoever serves a group until it does not send the caller elsewhere,
// as nodes do for their clients.
func asked(t *testing.T, id string, all []*member, ask func(m *member) error) error {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		m := serving(id, all...)
		if m == nil {
			continue
		}
		if err := ask(m); !errors.Is(err, group.ErrNotCoordinator) && !errors.Is(err, offsets.ErrNotOwner) {
			return err
		}
	}
	t.Fatalf("nobody serves %s", id)
	return nil
}

// Thousands of groups on three nodes keep their generations and offsets when
// nodes drain, die and come back, and nobody is told anything but to ask elsewhere.
func TestGroupsMove(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b", "d")
		topic := create(t, all[0].Coordinator, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
		time.Sleep(time.Second)
		const n = 1000
		members := make([]string, n)
		for i := range n {
			id := fmt.Sprint("g", i)
			m := serving(id, all...)
			j := join(t, m.Coordinator, id, "")
			if a := syncGroup(t, m.Coordinator, id, j.MemberID, 1); a.Err != nil {
				t.Fatal(a.Err)
			}
			if err := commit(t, m.Coordinator, id, group.CommitIdentity{MemberID: j.MemberID, Epoch: 1}, partition(topic, 0), int64(i)); err != nil {
				t.Fatal(err)
			}
			members[i] = j.MemberID
		}
		look := func(when string) {
			t.Helper()
			for i := range n {
				id := fmt.Sprint("g", i)
				if err := asked(t, id, all, func(m *member) error { return heartbeat(t, m.Coordinator, id, members[i], 1) }); err != nil {
					t.Fatalf("%s: heartbeat of %s: %v", when, id, err)
				}
				if err := asked(t, id, all, func(m *member) error {
					o, err := fetch(t, m.Coordinator, id, partition(topic, 0))
					if err == nil && o != int64(i) {
						t.Errorf("%s: %s has committed %d", when, id, o)
					}
					return err
				}); err != nil {
					t.Fatalf("%s: fetch of %s: %v", when, id, err)
				}
			}
		}
		look("before")
		var draining sync.WaitGroup
		draining.Go(func() {
			if err := all[1].Drain(t.Context()); err != nil {
				t.Error(err)
			}
		})
		look("while one drains")
		draining.Wait()
		look("when it has drained")
		if err := all[1].Close(); err != nil {
			t.Error(err)
		}
		all[1] = c.start("b")
		look("while it comes back")
		// Its slots come back to it while members beat.
		for range 5 {
			time.Sleep(2 * time.Second)
			look("while slots come back")
		}
		c.kill(all[2])
		all = all[:2]
		time.Sleep(3 * time.Second)
		look("when one has died")
		for i := range n {
			id := fmt.Sprint("g", i)
			if err := asked(t, id, all, func(m *member) error {
				return commit(t, m.Coordinator, id, group.CommitIdentity{MemberID: members[i], Epoch: 1}, partition(topic, 0), int64(i+1))
			}); err != nil {
				t.Fatalf("commit of %s: %v", id, err)
			}
		}
	})
}

// startWithClock starts a node whose wall clock is ahead by what it returns.
func startWithClock(c *cluster, name string) (m *member, ahead *atomic.Int64) {
	ahead = new(atomic.Int64)
	return c.start(name, func(config *coordinator.Config) {
		config.Clock = func() (time.Duration, time.Time) {
			return time.Since(c.began) + time.Second, time.Now().Add(time.Duration(ahead.Load()))
		}
	}), ahead
}

// A commit that waits for the proof that this node owns the group's slot is not
// overtaken by a later one that finds the lease valid again: it would undo it.
func TestCommitsKeepTheirOrderBehindAProof(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, set := startWithClock(c, "a")
		c.settle(a)
		topic := create(t, a.Coordinator, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
		if err := commit(t, a.Coordinator, "g", group.CommitIdentity{Epoch: -1}, partition(topic, 0), 1); err != nil {
			t.Fatal(err)
		}
		a.link.cut()
		set.Store(int64(time.Hour)) // the lease is over, as far as the node knows
		answers := make(chan error, 2)
		for offset := range int64(2) {
			a.Groups().Commit("g", &group.CommitIdentity{Epoch: -1}, []coordinator.NewCommit{{Partition: partition(topic, 0), Offset: 2 + offset, LeaderEpoch: -1, CommitTime: -1, Retention: -1}}, nil,
				func(err error) { answers <- err })
			synctest.Wait()
			set.Store(0) // it is not
			if !coordinator.LeaseValid(a.Coordinator) {
				t.Fatal("the lease is not valid again")
			}
		}
		a.link.heal()
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Fatal(err)
			}
		}
		if o, err := fetch(t, a.Coordinator, "g", partition(topic, 0)); err != nil || o != 3 {
			t.Errorf("committed is %d (%v), the last one was 3", o, err)
		}
	})
}

// A commit whose client goes while it waits for the proof that this node owns the group's
// slot is not begun: the client may have committed something newer by another node.
func TestCommitsOfWhoIsGoneAreNotBegun(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, set := startWithClock(c, "a")
		c.settle(a)
		topic := create(t, a.Coordinator, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
		a.link.cut()
		set.Store(int64(time.Hour)) // the lease is over, as far as the node knows
		var wanted [3]atomic.Bool
		answers := make([]chan error, len(wanted))
		for i := range wanted {
			wanted[i].Store(true)
			answers[i] = make(chan error, 1)
			a.Groups().Commit("g", &group.CommitIdentity{Epoch: -1}, []coordinator.NewCommit{{Partition: partition(topic, 0), Offset: int64(7 - i), LeaderEpoch: -1, CommitTime: -1, Retention: -1}},
				wanted[i].Load, func(err error) { answers[i] <- err })
		}
		synctest.Wait()
		wanted[1].Store(false)
		wanted[2].Store(false)
		a.link.heal()
		for i, answer := range answers {
			err := <-answer
			if i == 0 && err != nil || i > 0 && !errors.Is(err, group.ErrNotCoordinator) {
				t.Errorf("commit %d: %v", i, err)
			}
		}
		if o, err := fetch(t, a.Coordinator, "g", partition(topic, 0)); err != nil || o != 7 {
			t.Errorf("committed is %d (%v), the only one that somebody waited for was 7", o, err)
		}
	})
}

// What waits for other members is sent elsewhere when its slot goes, what waits
// for the metadata store is answered before.
func TestHandoverAnswers(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b")
		topic := create(t, all[0].Coordinator, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
		time.Sleep(time.Second)
		m := serving("g", all...)
		j := join(t, m.Coordinator, "g", "")
		if a := syncGroup(t, m.Coordinator, "g", j.MemberID, 1); a.Err != nil {
			t.Fatal(a.Err)
		}
		joining := make(chan error, 1)
		m.Groups().Join("g", &group.JoinGroupRequest{SessionTimeout: session, RebalanceTimeout: session, ProtocolType: "consumer",
			Protocols: []group.Protocol{{Name: "range"}}}, func(a *group.JoinGroupResponse) { joining <- a.Err })
		time.Sleep(time.Millisecond)
		committed := make(chan error, 100)
		for i := range int64(cap(committed)) {
			m.Groups().Commit("g", &group.CommitIdentity{MemberID: j.MemberID, Epoch: 1}, []coordinator.NewCommit{{Partition: partition(topic, 0), Offset: i, CommitTime: -1, Retention: -1}}, nil, func(err error) { committed <- err })
		}
		if err := m.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-joining; !errors.Is(err, group.ErrNotCoordinator) {
			t.Errorf("who joins is told %v", err)
		}
		for range cap(committed) {
			if err := <-committed; err != nil {
				t.Errorf("a commit that was let in: %v", err)
			}
		}
		if err := heartbeat(t, m.Coordinator, "g", j.MemberID, 1); !errors.Is(err, group.ErrNotCoordinator) {
			t.Errorf("a heartbeat after that: %v", err)
		}
		if _, ok := m.Groups().HeartbeatNow("g", &group.HeartbeatRequest{MemberID: j.MemberID, Generation: 1}); ok {
			t.Error("a heartbeat after that is answered at once")
		}
		var o int64
		if err := asked(t, "g", all, func(m *member) (err error) {
			o, err = fetch(t, m.Coordinator, "g", partition(topic, 0))
			return err
		}); err != nil || o != int64(cap(committed)-1) {
			t.Errorf("the next owner says %d (%v)", o, err)
		}
	})
}

// A node that is cut off tells nobody what its memory says, but that all is well to
// members that beat, for as long as no other owner can have expired them; when the
// store can be asked it knows better.
func TestZombie(t *testing.T) {
	// Sleeps are of the clock of the cluster's bubble: they wait for nothing, time passes.
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b")
		topic := create(t, all[0].Coordinator, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
		time.Sleep(time.Second)
		zombie := serving("g", all...)
		const lease, session = 10 * time.Second, 10 * time.Second
		j := joinFor(t, zombie.Coordinator, "g", "", session)
		if a := syncGroup(t, zombie.Coordinator, "g", j.MemberID, 1); a.Err != nil {
			t.Fatal(a.Err)
		}
		me := group.CommitIdentity{MemberID: j.MemberID, Epoch: 1}
		if err := commit(t, zombie.Coordinator, "g", me, partition(topic, 0), 1); err != nil {
			t.Fatal(err)
		}
		zombie.link.cut()
		cut := time.Now()
		// As long as its lease lasts its memory is right.
		if o, err := fetch(t, zombie.Coordinator, "g", partition(topic, 0)); err != nil || o != 1 {
			t.Errorf("at first: %d (%v)", o, err)
		}
		var other *member
		eventually(t, "the other serves the group", func() bool {
			if err := heartbeat(t, zombie.Coordinator, "g", j.MemberID, 1); err != nil {
				t.Fatalf("heartbeat: %v", err)
			}
			for _, m := range all {
				if m != zombie && m.Route(coordinator.SlotOf("g")).Here {
					other = m
				}
			}
			return other != nil
		})
		if err := commit(t, other.Coordinator, "g", me, partition(topic, 0), 2); err != nil {
			t.Fatal(err)
		}
		ask := func(want error) {
			t.Helper()
			if o, err := fetch(t, zombie.Coordinator, "g", partition(topic, 0)); !errors.Is(err, want) {
				t.Errorf("fetch: %d, %v", o, err)
			}
			if _, err := describe(t, zombie.Coordinator, "g"); !errors.Is(err, want) {
				t.Errorf("describe: %v", err)
			}
			if err := commit(t, zombie.Coordinator, "g", group.CommitIdentity{MemberID: "stale", Epoch: 1}, partition(topic, 0), 3); !errors.Is(err, want) {
				t.Errorf("commit: %v", err)
			}
			if a := syncGroup(t, zombie.Coordinator, "g", j.MemberID, 1); !errors.Is(a.Err, want) {
				t.Errorf("sync: %v", a.Err)
			}
			if err := heartbeat(t, zombie.Coordinator, "g", "stale", 1); !errors.Is(err, want) {
				t.Errorf("heartbeat of somebody: %v", err)
			}
		}
		if _, ok := zombie.Groups().HeartbeatNow("g", &group.HeartbeatRequest{MemberID: j.MemberID, Generation: 1}); ok {
			t.Error("a heartbeat is answered at once")
		}
		ask(group.ErrUnavailable)
		// The other owner has loaded the group once the lease was over, and waits for the
		// member for its session from then on.
		time.Sleep(time.Until(cut.Add(lease + session)))
		if err := heartbeat(t, zombie.Coordinator, "g", j.MemberID, 1); !errors.Is(err, group.ErrUnavailable) {
			t.Errorf("heartbeat after a lease and a session: %v", err)
		}
		zombie.link.heal()
		ask(group.ErrNotCoordinator)
		if err := heartbeat(t, zombie.Coordinator, "g", j.MemberID, 1); !errors.Is(err, group.ErrNotCoordinator) {
			t.Errorf("heartbeat when the store can be asked: %v", err)
		}
	})
}

// A node that is cut off does not keep a member of the consumer protocol alive for ever:
// the group's next owner has given its partitions to others by then.
func TestZombieOfTheConsumerProtocol(t *testing.T) {
	// Sleeps are of the clock of the cluster's bubble: they wait for nothing, time passes.
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b")
		create(t, all[0].Coordinator, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})
		time.Sleep(time.Second)
		beat := func(m *member, q *group.ConsumerHeartbeatRequest) *group.ConsumerHeartbeatResponse {
			t.Helper()
			return await(t, func(reply func(*group.ConsumerHeartbeatResponse)) { m.Groups().ConsumerHeartbeat("g", q, reply) })
		}
		join := func(m *member, id string) *group.ConsumerHeartbeatResponse {
			t.Helper()
			return beat(m, &group.ConsumerHeartbeatRequest{
				MemberID: id, RequireMemberID: true, RebalanceTimeout: time.Minute, SubscribedTopicNames: []string{"orders"}, OwnedTopicPartitions: []group.TopicPartitions{},
			})
		}
		zombie := serving("g", all...)
		first := join(zombie, "m")
		if first.Err != nil {
			t.Fatal(first.Err)
		}
		nothingNew := &group.ConsumerHeartbeatRequest{MemberID: "m", MemberEpoch: first.MemberEpoch, RebalanceTimeout: -1}
		eventually(t, "the member is told nothing new", func() bool { return beat(zombie, nothingNew).Assignment == nil })
		if r, ok := zombie.Groups().ConsumerHeartbeatNow("g", nothingNew); !ok || r.Err != nil {
			t.Errorf("a heartbeat at rest: %+v, %v", r, ok)
		}
		zombie.link.cut()
		time.Sleep(20 * time.Second) // its lease is over, the sessions of the members are not
		if r := beat(zombie, nothingNew); r.Err != nil {
			t.Errorf("heartbeat when the lease is over: %v", r.Err)
		}
		other := all[0]
		if other == zombie {
			other = all[1]
		}
		eventually(t, "the other serves the group", func() bool { return other.Route(coordinator.SlotOf("g")).Here })
		time.Sleep(46 * time.Second)
		if r := join(other, "n"); r.Err != nil || r.Assignment == nil || len(*r.Assignment) != 1 {
			t.Fatalf("another member is told %+v", r)
		}
		if _, ok := zombie.Groups().ConsumerHeartbeatNow("g", nothingNew); ok {
			t.Error("a heartbeat is answered at once")
		}
		if r := beat(zombie, nothingNew); !errors.Is(r.Err, group.ErrUnavailable) {
			t.Errorf("the member whose partition another has is told %+v", r)
		}
		zombie.link.heal()
		if r := beat(zombie, nothingNew); !errors.Is(r.Err, group.ErrNotCoordinator) {
			t.Errorf("heartbeat when the store can be asked: %+v", r)
		}
	})
}

// While the metadata store is away nobody is expired, whatever members are told: those
// that live are in their groups after it, and one that has gone has a session from then on.
func TestMembersOutliveTheMetadataStore(t *testing.T) {
	// Sleeps are of the clock of the cluster's bubble: they wait for nothing, time passes.
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startAll("a")[0]
		create(t, a.Coordinator, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})
		time.Sleep(time.Second)
		classic := map[string]string{}
		for _, id := range []string{"beats", "silent"} {
			j := joinFor(t, a.Coordinator, id, "", 10*time.Second)
			if s := syncGroup(t, a.Coordinator, id, j.MemberID, 1); s.Err != nil {
				t.Fatal(s.Err)
			}
			classic[id] = j.MemberID
		}
		consumer := func(q *group.ConsumerHeartbeatRequest) *group.ConsumerHeartbeatResponse {
			t.Helper()
			return await(t, func(reply func(*group.ConsumerHeartbeatResponse)) {
				a.Groups().ConsumerHeartbeat("new", q, reply)
			})
		}
		first := consumer(&group.ConsumerHeartbeatRequest{
			MemberID: "m", RequireMemberID: true, RebalanceTimeout: time.Minute, SubscribedTopicNames: []string{"orders"}, OwnedTopicPartitions: []group.TopicPartitions{},
		})
		if first.Err != nil {
			t.Fatal(first.Err)
		}
		a.link.cut()
		began := time.Now()
		told := map[error]int{}
		for time.Since(began) < 2*time.Minute {
			told[heartbeat(t, a.Coordinator, "beats", classic["beats"], 1)]++
			consumer(&group.ConsumerHeartbeatRequest{MemberID: "m", MemberEpoch: first.MemberEpoch, RebalanceTimeout: -1})
			time.Sleep(3 * time.Second)
		}
		if told[nil] < 3 || told[group.ErrUnavailable] < 3 || len(told) != 2 {
			t.Errorf("while the store is away heartbeats are answered %v", told)
		}
		a.link.heal()
		eventually(t, "the node is sure of itself", func() bool { return coordinator.LeaseValid(a.Coordinator) })
		eventually(t, "a member that beats is in its group", func() bool { return heartbeat(t, a.Coordinator, "beats", classic["beats"], 1) == nil })
		eventually(t, "one of the new protocol is too", func() bool {
			r := consumer(&group.ConsumerHeartbeatRequest{MemberID: "m", MemberEpoch: first.MemberEpoch, RebalanceTimeout: -1})
			if r.Err != nil && !errors.Is(r.Err, group.ErrNotLoaded) {
				t.Fatal(r.Err)
			}
			return r.Err == nil && r.MemberEpoch == first.MemberEpoch
		})
		members := func(id string) int {
			d, err := describe(t, a.Coordinator, id)
			if err != nil {
				t.Fatal(err)
			}
			return len(d.Members)
		}
		time.Sleep(5 * time.Second)
		if members("silent") != 1 {
			t.Error("a member was expired before it could be heard")
		}
		time.Sleep(6 * time.Second)
		if members("silent") != 0 {
			t.Error("a member that has gone is there for longer than its session")
		}
	})
}

// A request for a slot that is being loaded is carried out when it is loaded.
func TestRequestsWaitForLoading(t *testing.T) {
	t.Parallel()
	s := newGate(newMem(t))
	openGate := s.close("/g/")
	c := open(t, s, func(c *coordinator.Config) { c.Groups.LoadWait = patience })
	committed := make(chan error, 1)
	c.Groups().Commit("g", &nobody, []coordinator.NewCommit{{Offset: 7, CommitTime: -1, Retention: -1}}, nil, func(err error) { committed <- err })
	listed := make(chan error, 1)
	c.Groups().List(func(coordinator.ListedGroup) bool { return true }, func(all []coordinator.ListedGroup, err error) {
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("%d groups", len(all))
		}
		listed <- err
	})
	select {
	case err := <-committed:
		t.Fatalf("a commit to a slot that is not loaded: %v", err)
	case err := <-listed:
		t.Fatalf("a list of groups that are not loaded: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	openGate()
	if err := <-committed; err != nil {
		t.Error(err)
	}
	if err := <-listed; err != nil && err.Error() != "0 groups" {
		t.Error(err)
	}
}

// What a node that was cut off remembers is no answer when it is registered again and has
// read who owns its slots now, though the shard of the group has yet to be told: it is held
// up, as a busy one is.
func TestRequestsBeforeTheLossIsTold(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b")
		topic := create(t, all[0].Coordinator, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
		zombie := serving("g", all...)
		if err := commit(t, zombie.Coordinator, "g", nobody, partition(topic, 0), 1); err != nil {
			t.Fatal(err)
		}
		goOn := make(chan struct{})
		held := make(chan struct{})
		zombie.Groups().Fetch("g", &nobody, func(coordinator.Committed, error) {
			close(held)
			<-goOn
		})
		<-held
		zombie.link.cut()
		var other *member
		eventually(t, "the other serves the group", func() bool {
			for _, m := range all {
				if m != zombie && m.Route(coordinator.SlotOf("g")).Here {
					other = m
				}
			}
			return other != nil
		})
		if err := commit(t, other.Coordinator, "g", nobody, partition(topic, 0), 2); err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 1)
		zombie.Groups().Fetch("g", &nobody, func(committed coordinator.Committed, err error) {
			if err == nil {
				o, _ := committed.Get(partition(topic, 0))
				err = fmt.Errorf("an answer: %d", o.Offset)
			}
			answered <- err
		})
		heartbeat := make(chan error, 1)
		zombie.Groups().Heartbeat("g", &group.HeartbeatRequest{MemberID: "somebody", Generation: 1}, func(err error) { heartbeat <- err })
		zombie.link.heal()
		eventually(t, "the node is registered again", func() bool { return coordinator.LeaseValid(zombie.Coordinator) })
		if err := zombie.Prove(t.Context(), coordinator.SlotOf("g")); !errors.Is(err, coordinator.ErrNotOwner) {
			t.Errorf("prove: %v", err)
		}
		close(goOn)
		if err := <-answered; !errors.Is(err, group.ErrNotCoordinator) {
			t.Errorf("fetch: %v", err)
		}
		if err := <-heartbeat; !errors.Is(err, group.ErrNotCoordinator) {
			t.Errorf("heartbeat of somebody: %v", err)
		}
	})
}

// slowLists is a metadata store that takes its time to read groups and offsets.
type slowLists struct {
	meta.Store
	takes time.Duration
}

func (s slowLists) List(ctx context.Context, prefix string, f func(meta.KV) bool) (meta.Revision, error) {
	if strings.Contains(prefix, "/g/") || strings.Contains(prefix, "/o/") {
		time.Sleep(s.takes) // the bubble's time
	}
	return s.Store.List(ctx, prefix, f)
}

// Slots are read side by side: where etcd takes 50 ms to answer, the last of all slots
// is ready long before the members of its groups give up.
func TestSlotsAreReadSideBySide(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		const takes, longest = 50 * time.Millisecond, 5 * time.Second
		m := c.start("a", func(c *coordinator.Config) { c.Meta = slowLists{c.Meta, takes} })
		began := time.Now()
		if err := m.Groups().AwaitLoaded(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > longest {
			t.Errorf("the last slot was ready after %s, want %s at most", took, longest)
		}
	})
}
