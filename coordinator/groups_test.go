package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/offsets"
	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/mem"
)

// session is so long that no member's ends in the pauses of a busy machine.
const session = 5 * time.Minute

// Calls of the groups, waited for.

func join(t *testing.T, c *coordinator.Coordinator, id, member string) *group.JoinGroupResponse {
	t.Helper()
	return joinFor(t, c, id, member, session)
}

// joinFor is join with a session of its own.
func joinFor(t *testing.T, c *coordinator.Coordinator, id, member string, session time.Duration) *group.JoinGroupResponse {
	t.Helper()
	return await(t, func(reply func(*group.JoinGroupResponse)) {
		c.Groups().Join(id, &group.JoinGroupRequest{
			MemberID: member, ClientID: "test", ClientHost: "/127.0.0.1", SessionTimeout: session, RebalanceTimeout: session,
			ProtocolType: "consumer", Protocols: []group.Protocol{{Name: "range", Metadata: subscription("orders")}},
		}, reply)
	})
}

func syncGroup(t *testing.T, c *coordinator.Coordinator, id, member string, generation int32, assignments ...group.MemberAssignment) *group.SyncGroupResponse {
	t.Helper()
	return await(t, func(reply func(*group.SyncGroupResponse)) {
		c.Groups().Sync(id, &group.SyncGroupRequest{MemberID: member, Generation: generation, Assignments: assignments}, reply)
	})
}

func heartbeat(t *testing.T, c *coordinator.Coordinator, id, member string, generation int32) error {
	t.Helper()
	return await(t, func(reply func(error)) {
		c.Groups().Heartbeat(id, &group.HeartbeatRequest{MemberID: member, Generation: generation}, reply)
	})
}

func commit(t *testing.T, c *coordinator.Coordinator, id string, who group.CommitIdentity, p offsets.Partition, offset int64) error {
	t.Helper()
	return await(t, func(reply func(error)) {
		c.Groups().Commit(id, &who, []coordinator.NewCommit{{Partition: p, Offset: offset, LeaderEpoch: -1, CommitTime: -1, Retention: -1}}, nil, reply)
	})
}

// fetch returns the committed offset of a partition, -1 if there is none.
func fetch(t *testing.T, c *coordinator.Coordinator, id string, p offsets.Partition) (int64, error) {
	t.Helper()
	type answer struct {
		offset int64
		err    error
	}
	a := await(t, func(reply func(answer)) {
		c.Groups().Fetch(id, &group.CommitIdentity{Epoch: -1}, func(committed coordinator.Committed, err error) {
			a := answer{-1, err}
			if err == nil {
				if o, ok := committed.Get(p); ok {
					a.offset = o.Offset
				}
			}
			reply(a)
		})
	})
	return a.offset, a.err
}

func describe(t *testing.T, c *coordinator.Coordinator, id string) (*group.Description, error) {
	t.Helper()
	var err error
	d := await(t, func(reply func(*group.Description)) {
		c.Groups().Describe(id, func(d *group.Description, e error) { err = e; reply(d) })
	})
	return d, err
}

func listGroups(t *testing.T, c *coordinator.Coordinator) ([]coordinator.ListedGroup, error) {
	t.Helper()
	var err error
	all := await(t, func(reply func([]coordinator.ListedGroup)) {
		c.Groups().List(func(coordinator.ListedGroup) bool { return true }, func(all []coordinator.ListedGroup, e error) { err = e; reply(all) })
	})
	return all, err
}

func deleteGroup(t *testing.T, c *coordinator.Coordinator, id string) error {
	t.Helper()
	return await(t, func(reply func(error)) { c.Groups().Delete(id, reply) })
}

// await returns what a call replies with, which it does once.
func await[T any](t *testing.T, call func(reply func(T))) T {
	t.Helper()
	replies := make(chan T, 2)
	call(func(v T) { replies <- v })
	select {
	case v := <-replies:
		return v
	case <-time.After(patience):
		t.Fatal("no reply")
	}
	panic("unreachable")
}

// subscription is the metadata of a consumer (ConsumerProtocolSubscription v0).
func subscription(topics ...string) []byte {
	b := []byte{0, 0, 0, 0, 0, byte(len(topics))}
	for _, name := range topics {
		b = append(append(b, 0, byte(len(name))), name...)
	}
	return append(b, 0xff, 0xff, 0xff, 0xff)
}

var nobody = group.CommitIdentity{Epoch: -1}

// openLoaded opens a coordinator and waits until its groups are loaded.
func openLoaded(t *testing.T, s meta.Store, configure ...func(*coordinator.Config)) *coordinator.Coordinator {
	t.Helper()
	c := open(t, s, configure...)
	loaded(t, c)
	return c
}

func loaded(t *testing.T, c *coordinator.Coordinator) {
	t.Helper()
	eventually(t, "all groups are loaded", func() bool { _, err := listGroups(t, c); return err == nil })
}

func partition(topic *coordinator.Topic, n int32) offsets.Partition {
	return offsets.Partition{Topic: topic.ID, Partition: n}
}

func TestSlotOf(t *testing.T) {
	// The slot of a group is part of its keys: these never change.
	for id, want := range map[string]int{"": 961, "g": 874, "orders-service": 528, "\x00\xff": 615} {
		if got := coordinator.SlotOf(id); got != want {
			t.Errorf("slot of %q is %d, want %d", id, got, want)
		}
	}
	var used [coordinator.NumSlots]int
	for i := range 100 * coordinator.NumSlots {
		used[coordinator.SlotOf(fmt.Sprint("group-", i))]++
	}
	for slot, n := range used {
		if n < 50 || n > 160 {
			t.Errorf("slot %d has %d groups of 100 on average", slot, n)
		}
	}
}

// TestGroupsOutliveTheProcess: a group goes on in its generation, with its
// assignment and its offsets, in the next process.
func TestGroupsOutliveTheProcess(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s meta.Store) {
		c := openLoaded(t, s)
		topic := create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 2, ReplicationFactor: 1})[0]
		j := join(t, c, "g", "")
		if j.Err != nil || j.Generation != 1 || j.LeaderID != j.MemberID {
			t.Fatalf("joined %+v", j)
		}
		if a := syncGroup(t, c, "g", j.MemberID, 1, group.MemberAssignment{MemberID: j.MemberID, Assignment: []byte("mine")}); a.Err != nil || string(a.Assignment) != "mine" {
			t.Fatalf("synced %+v", a)
		}
		me := group.CommitIdentity{MemberID: j.MemberID, Epoch: 1}
		for i := range int64(10) {
			if err := commit(t, c, "g", me, partition(topic, 1), i); err != nil {
				t.Fatal(err)
			}
		}
		if err := commit(t, c, "simple", nobody, partition(topic, 0), 77); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}

		c = openLoaded(t, s)
		if err := heartbeat(t, c, "g", j.MemberID, 1); err != nil {
			t.Errorf("heartbeat after the restart: %v", err)
		}
		if a := syncGroup(t, c, "g", j.MemberID, 1); a.Err != nil || string(a.Assignment) != "mine" {
			t.Errorf("sync after the restart: %+v", a)
		}
		if o, err := fetch(t, c, "g", partition(topic, 1)); err != nil || o != 9 {
			t.Errorf("the committed offset is %d (%v)", o, err)
		}
		if o, err := fetch(t, c, "simple", partition(topic, 0)); err != nil || o != 77 {
			t.Errorf("the simple group's offset is %d (%v)", o, err)
		}
		if err := commit(t, c, "g", me, partition(topic, 1), 10); err != nil {
			t.Errorf("commit after the restart: %v", err)
		}
		all, err := listGroups(t, c)
		if err != nil || len(all) != 2 {
			t.Errorf("groups are %v (%v)", all, err)
		}
	})
}

// gate lets requests of a metadata store wait, or fail, by their key.
type gate struct {
	meta.Store
	mu   sync.Mutex
	shut map[string]chan struct{} // by part of the key
}

func newGate(s meta.Store) *gate { return &gate{Store: s, shut: make(map[string]chan struct{})} }

// close makes requests of keys with this part wait until open is called.
func (g *gate) close(part string) (open func()) {
	ch := make(chan struct{})
	g.mu.Lock()
	g.shut[part] = ch
	g.mu.Unlock()
	return sync.OnceFunc(func() {
		g.mu.Lock()
		delete(g.shut, part)
		g.mu.Unlock()
		close(ch)
	})
}

func (g *gate) wait(ctx context.Context, key string) error {
	g.mu.Lock()
	var ch chan struct{}
	for part, shut := range g.shut {
		if strings.Contains(key, part) {
			ch = shut
		}
	}
	g.mu.Unlock()
	if ch == nil {
		return nil
	}
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%q: %w", key, meta.ErrUnavailable)
	}
}

func (g *gate) Get(ctx context.Context, key string) (meta.KV, error) {
	if err := g.wait(ctx, key); err != nil {
		return meta.KV{}, err
	}
	return g.Store.Get(ctx, key)
}

func (g *gate) List(ctx context.Context, prefix string, f func(meta.KV) bool) (meta.Revision, error) {
	if err := g.wait(ctx, prefix); err != nil {
		return 0, err
	}
	return g.Store.List(ctx, prefix, f)
}

func (g *gate) Txn(ctx context.Context, conds []meta.Cond, ops []meta.Op) (meta.Revision, bool, error) {
	for _, op := range ops {
		if err := g.wait(ctx, op.Key); err != nil {
			return 0, false, err
		}
	}
	return g.Store.Txn(ctx, conds, ops)
}

// TestNotLoadedIsNotEmpty: before a slot is loaded nobody learns anything of
// its groups, and members that heartbeat are kept quiet.
func TestNotLoadedIsNotEmpty(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"not claimed": "/own/", "records": "/g/", "offsets": "/o/"} {
		t.Run(name, func(t *testing.T) {
			s := newGate(newMem(t))
			c := openLoaded(t, s)
			topic := create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
			j := join(t, c, "g", "")
			if a := syncGroup(t, c, "g", j.MemberID, 1); a.Err != nil {
				t.Fatal(a.Err)
			}
			if err := commit(t, c, "g", group.CommitIdentity{MemberID: j.MemberID, Epoch: 1}, partition(topic, 0), 5); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}

			openGate := s.close(key)
			if key == "/own/" {
				// Opening reads the owners; claiming writes them.
				openGate()
				s.Store = &noTxn{Store: s.Store, part: key, shut: &atomic.Bool{}}
				s.Store.(*noTxn).shut.Store(true)
				openGate = func() { s.Store.(*noTxn).shut.Store(false) }
			}
			c = open(t, s, func(c *coordinator.Config) { c.Groups.LoadWait = 20 * time.Millisecond })
			if _, err := fetch(t, c, "g", partition(topic, 0)); !errors.Is(err, group.ErrNotLoaded) {
				t.Errorf("fetch: %v", err)
			}
			if err := commit(t, c, "g", nobody, partition(topic, 0), 1); !errors.Is(err, group.ErrNotLoaded) {
				t.Errorf("commit: %v", err)
			}
			if _, err := describe(t, c, "g"); !errors.Is(err, group.ErrNotLoaded) {
				t.Errorf("describe: %v", err)
			}
			if _, err := listGroups(t, c); !errors.Is(err, group.ErrNotLoaded) {
				t.Errorf("list: %v", err)
			}
			if err := deleteGroup(t, c, "g"); !errors.Is(err, group.ErrNotLoaded) {
				t.Errorf("delete: %v", err)
			}
			if err := heartbeat(t, c, "g", j.MemberID, 1); err != nil {
				t.Errorf("heartbeat: %v", err)
			}
			if a := syncGroup(t, c, "g", j.MemberID, 1); !errors.Is(a.Err, group.ErrNotLoaded) {
				t.Errorf("sync: %v", a.Err)
			}
			if a := join(t, c, "g", j.MemberID); !errors.Is(a.Err, group.ErrNotLoaded) {
				t.Errorf("join: %v", a.Err)
			}
			if node, ok := c.Groups().Owner("g"); !ok || node != c.Self().ID {
				t.Errorf("the owner is %d, %v", node, ok)
			}
			openGate()
			loaded(t, c)
			if o, err := fetch(t, c, "g", partition(topic, 0)); err != nil || o != 5 {
				t.Errorf("the committed offset is %d (%v)", o, err)
			}
			if err := heartbeat(t, c, "g", j.MemberID, 1); err != nil {
				t.Errorf("heartbeat: %v", err)
			}
		})
	}
}

// TestAwaitLoaded: when it returns, every slot answers.
func TestAwaitLoaded(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"/g/", "/o/"} {
		s := newGate(newMem(t))
		openGate := s.close(key)
		c := open(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := c.Groups().AwaitLoaded(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: with a slot that cannot be read: %v", key, err)
		}
		openGate()
		ctx, cancel = context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := c.Groups().AwaitLoaded(ctx); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if all, err := listGroups(t, c); err != nil || len(all) != 0 {
			t.Errorf("%s: %v, %v", key, all, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.Groups().AwaitLoaded(t.Context()); err == nil {
			t.Errorf("%s: loaded after Close", key)
		}
	}
}

// noTxn refuses changes of keys with a part.
type noTxn struct {
	meta.Store
	part string
	shut *atomic.Bool
}

func (s *noTxn) Txn(ctx context.Context, conds []meta.Cond, ops []meta.Op) (meta.Revision, bool, error) {
	for _, op := range ops {
		if s.shut.Load() && strings.Contains(op.Key, s.part) {
			return 0, false, fmt.Errorf("%q: %w", op.Key, meta.ErrUnavailable)
		}
	}
	return s.Store.Txn(ctx, conds, ops)
}

// TestMetadataStoreAway: while the metadata store does not answer, heartbeats and
// fetches of offsets go on and commits fail in time; then all is as before.
func TestMetadataStoreAway(t *testing.T) {
	t.Parallel()
	s := newGate(newMem(t))
	c := openLoaded(t, s, func(c *coordinator.Config) { c.Groups.CommitTimeout = time.Second / 2 })
	topic := create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
	j := join(t, c, "g", "")
	if a := syncGroup(t, c, "g", j.MemberID, 1); a.Err != nil {
		t.Fatal(a.Err)
	}
	me := group.CommitIdentity{MemberID: j.MemberID, Epoch: 1}
	if err := commit(t, c, "g", me, partition(topic, 0), 5); err != nil {
		t.Fatal(err)
	}
	back := s.close("/")
	defer back()
	err := commit(t, c, "g", me, partition(topic, 0), 6)
	if !errors.Is(err, offsets.ErrUnavailable) && !errors.Is(err, offsets.ErrUnknownOutcome) {
		t.Errorf("commit: %v", err)
	}
	if err := heartbeat(t, c, "g", j.MemberID, 1); err != nil {
		t.Errorf("heartbeat: %v", err)
	}
	if o, err := fetch(t, c, "g", partition(topic, 0)); err != nil || o != 5 {
		t.Errorf("the committed offset is %d (%v)", o, err)
	}
	// A rebalance cannot end: who leads it is told so and joins again.
	k := join(t, c, "g", j.MemberID)
	if k.Err != nil {
		t.Fatal(k.Err)
	}
	if a := syncGroup(t, c, "g", j.MemberID, k.Generation); !errors.Is(a.Err, group.ErrUnavailable) {
		t.Errorf("sync: %v", a.Err)
	}
	back()
	eventually(t, "the group is stable again", func() bool {
		k = join(t, c, "g", j.MemberID)
		return k.Err == nil && syncGroup(t, c, "g", j.MemberID, k.Generation).Err == nil
	})
	me.Epoch = k.Generation
	eventually(t, "a commit is taken again", func() bool { return commit(t, c, "g", me, partition(topic, 0), 7) == nil })
	if o, err := fetch(t, c, "g", partition(topic, 0)); err != nil || o != 7 {
		t.Errorf("the committed offset is %d (%v)", o, err)
	}
}

// ownedBy is the record of a slot that a node owns.
func ownedBy(c *coordinator.Coordinator) string {
	return fmt.Sprintf(`{"v":1,"node":%d,"inc":%q,"epoch":9}`, c.Self().ID, c.Self().Incarnation)
}

// TestLostSlot: once another node owns a slot, waiting requests and all that
// come later are sent there, and nothing is written any more.
func TestLostSlot(t *testing.T) {
	t.Parallel()
	s := newMem(t)
	first := openLoaded(t, s, named("first"), still)
	topic := create(t, first, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
	j := join(t, first, "g", "")
	if a := syncGroup(t, first, "g", j.MemberID, 1); a.Err != nil {
		t.Fatal(a.Err)
	}
	// The second node leaves a live owner alone.
	second := open(t, s, named("second"))
	if node, ok := second.Groups().Owner("g"); !ok || node != first.Self().ID {
		t.Fatalf("the second node takes %d for the owner (%v)", node, ok)
	}
	if _, err := fetch(t, second, "g", partition(topic, 0)); !errors.Is(err, group.ErrNotCoordinator) {
		t.Errorf("the second node answers a fetch with %v", err)
	}
	// A member that waits for others is told when the slot goes.
	parked := make(chan *group.JoinGroupResponse, 1)
	first.Groups().Join("g", &group.JoinGroupRequest{SessionTimeout: session, RebalanceTimeout: session, ProtocolType: "consumer",
		Protocols: []group.Protocol{{Name: "range"}}}, func(a *group.JoinGroupResponse) { parked <- a })
	if err := heartbeat(t, first, "g", j.MemberID, 1); !errors.Is(err, group.ErrRebalanceInProgress) {
		t.Errorf("heartbeat while a member joins: %v", err)
	}
	key := fmt.Sprintf("quire/test/own/%04d", coordinator.SlotOf("g"))
	record := ownedBy(second)
	if _, ok, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put(key, []byte(record))}); err != nil || !ok {
		t.Fatal(err)
	}
	select {
	case a := <-parked:
		if !errors.Is(a.Err, group.ErrNotCoordinator) {
			t.Errorf("the waiting member is told %v", a.Err)
		}
	case <-time.After(patience):
		t.Fatal("the waiting member is told nothing")
	}
	if err := commit(t, first, "g", nobody, partition(topic, 0), 1); !errors.Is(err, group.ErrNotCoordinator) {
		t.Errorf("commit: %v", err)
	}
	if err := heartbeat(t, first, "g", j.MemberID, 1); !errors.Is(err, group.ErrNotCoordinator) {
		t.Errorf("heartbeat: %v", err)
	}
	eventually(t, "the first node knows the owner", func() bool {
		node, ok := first.Groups().Owner("g")
		return ok && node == second.Self().ID
	})
	if _, err := listGroups(t, first); err != nil {
		t.Errorf("the first node lists the groups of its other slots: %v", err)
	}
}

// TestDeadOwnerIsReplaced: the slots of a node that is gone are claimed by who is left.
func TestDeadOwnerIsReplaced(t *testing.T) {
	t.Parallel()
	s := newMem(t)
	first := openLoaded(t, s, named("first"))
	topic := create(t, first, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
	if err := commit(t, first, "g", nobody, partition(topic, 0), 3); err != nil {
		t.Fatal(err)
	}
	second := open(t, s, named("second"))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second node serves the group", func() bool {
		o, err := fetch(t, second, "g", partition(topic, 0))
		if err == nil && o != 3 {
			t.Fatalf("the committed offset is %d", o)
		}
		return err == nil
	})
}

// TestFencedWithoutKnowing: a node that has lost a slot and has not heard of
// it writes nothing.
func TestFencedWithoutKnowing(t *testing.T) {
	t.Parallel()
	s := newMem(t)
	deaf := &deafStore{Store: s}
	c := openLoaded(t, deaf, still)
	topic := create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
	if err := commit(t, c, "g", nobody, partition(topic, 0), 3); err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf("quire/test/own/%04d", coordinator.SlotOf("g"))
	record := ownedBy(open(t, s, named("second")))
	if _, ok, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put(key, []byte(record))}); err != nil || !ok {
		t.Fatal(err)
	}
	if err := commit(t, c, "g", nobody, partition(topic, 0), 4); !errors.Is(err, offsets.ErrNotOwner) {
		t.Errorf("commit: %v", err)
	}
	// Now it has looked.
	eventually(t, "the node knows that it is not the owner", func() bool {
		_, err := fetch(t, c, "g", partition(topic, 0))
		return errors.Is(err, group.ErrNotCoordinator)
	})
	kv, err := s.Get(t.Context(), key)
	if err != nil || string(kv.Value) != record {
		t.Errorf("the owner is now %s (%v)", kv.Value, err)
	}
}

// deafStore shows no changes of owners.
type deafStore struct{ meta.Store }

func (s *deafStore) Watch(ctx context.Context, prefix string, after meta.Revision) <-chan meta.Events {
	if !strings.HasSuffix(prefix, "/own/") {
		return s.Store.Watch(ctx, prefix, after)
	}
	ch := make(chan meta.Events)
	go func() {
		<-ctx.Done()
		close(ch)
	}()
	return ch
}

// TestFullInbox: a shard that cannot keep up refuses requests, and no more of
// them wait than allowed.
func TestFullInbox(t *testing.T) {
	t.Parallel()
	c := openLoaded(t, newMem(t), func(c *coordinator.Config) { c.Groups.MaxInboxEvents = 2 })
	entered, left := make(chan struct{}), make(chan struct{})
	leave := sync.OnceFunc(func() { close(left) })
	defer leave()
	c.Groups().Describe("g", func(*group.Description, error) { close(entered); <-left })
	<-entered // and the shard stands still
	answers := make(chan error, 3)
	for range 3 {
		c.Groups().Heartbeat("g", &group.HeartbeatRequest{MemberID: "m"}, func(err error) { answers <- err })
	}
	if len(answers) != 1 {
		t.Fatalf("%d requests were refused, want 1", len(answers))
	}
	if err := <-answers; !errors.Is(err, group.ErrUnavailable) {
		t.Errorf("the third is answered %v", err)
	}
	leave()
	for range 2 {
		if err := <-answers; !errors.Is(err, group.ErrUnknownMember) {
			t.Errorf("who waited is answered %v", err)
		}
	}
}

// TestUnreadableRecord: a group whose record nobody understands is neither
// empty nor in the way of others, and can be deleted.
func TestUnreadableRecord(t *testing.T) {
	t.Parallel()
	s := newMem(t)
	c := openLoaded(t, s)
	topic := create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
	if err := commit(t, c, "g", nobody, partition(topic, 0), 3); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, record := range []string{"", "\x01\x09", "\x02not zstd", "\x63"} {
		key := fmt.Sprintf("quire/test/g/%04d/g", coordinator.SlotOf("g"))
		if _, ok, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put(key, []byte(record))}); err != nil || !ok {
			t.Fatal(err)
		}
		c = openLoaded(t, s)
		if _, err := fetch(t, c, "g", partition(topic, 0)); !errors.Is(err, group.ErrUnavailable) {
			t.Errorf("%q: fetch: %v", record, err)
		}
		if a := join(t, c, "g", ""); !errors.Is(a.Err, group.ErrUnavailable) {
			t.Errorf("%q: join: %v", record, a.Err)
		}
		if err := commit(t, c, "other", nobody, partition(topic, 0), 3); err != nil {
			t.Errorf("%q: commit of another group: %v", record, err)
		}
		if err := deleteGroup(t, c, "g"); err != nil {
			t.Errorf("%q: delete: %v", record, err)
		}
		if o, err := fetch(t, c, "g", partition(topic, 0)); err != nil || o != -1 {
			t.Errorf("%q: offset of the deleted group is %d (%v)", record, o, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnreadableOffsets: a key that nobody understands keeps back its own group
// and no other of the slot. The log and a metric tell of it.
func TestUnreadableOffsets(t *testing.T) {
	t.Parallel()
	s := newMem(t)
	c := openLoaded(t, s)
	topic := create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
	neighbour := ""
	for i := 0; neighbour == ""; i++ {
		if id := fmt.Sprint("n", i); coordinator.SlotOf(id) == coordinator.SlotOf("g") {
			neighbour = id
		}
	}
	for _, id := range []string{"g", neighbour} {
		if err := commit(t, c, id, nobody, partition(topic, 0), 3); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	prefix := fmt.Sprintf("quire/test/o/%04d/g/", coordinator.SlotOf("g"))
	keys := keysUnder(t, s, prefix)
	if len(keys) != 1 {
		t.Fatalf("the group has the keys %q", keys)
	}
	if _, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put(keys[0], []byte("not offsets"))}); err != nil {
		t.Fatal(err)
	}

	core, log := observer.New(zap.ErrorLevel)
	registry := prometheus.NewRegistry()
	c = openLoaded(t, s, func(c *coordinator.Config) { c.Logger, c.Groups.Registerer = zap.New(core), registry })
	if _, err := fetch(t, c, "g", partition(topic, 0)); !errors.Is(err, group.ErrUnavailable) {
		t.Errorf("fetch: %v, want %v", err, group.ErrUnavailable)
	}
	if err := commit(t, c, "g", nobody, partition(topic, 0), 4); !errors.Is(err, group.ErrUnavailable) {
		t.Errorf("commit: %v, want %v", err, group.ErrUnavailable)
	}
	if o, err := fetch(t, c, neighbour, partition(topic, 0)); err != nil || o != 3 {
		t.Errorf("the neighbour's offset is %d (%v)", o, err)
	}
	if lines := log.FilterField(zap.String("group", "g")).All(); len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0].ContextMap()), keys[0]) {
		t.Errorf("the log does not name the key: %v", lines)
	}
	if n := counter(t, registry, "quire_group_keys_unreadable_total"); n != 1 {
		t.Errorf("%v keys are counted", n)
	}
	if err := deleteGroup(t, c, "g"); err != nil {
		t.Errorf("delete: %v", err)
	}
	if o, err := fetch(t, c, "g", partition(topic, 0)); err != nil || o != -1 {
		t.Errorf("the deleted group's offset is %d (%v)", o, err)
	}
}

// counter is the value of a metric without labels.
func counter(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.Metric[0].Counter.GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// TestHeartbeatNow: a heartbeat is answered on the caller's goroutine where
// somebody is known, and keeps the session; who is not known has to wait.
func TestHeartbeatNow(t *testing.T) {
	t.Parallel()
	var seconds atomic.Int64
	s := newMem(t)
	start := time.Now()
	c := openLoaded(t, s, func(c *coordinator.Config) {
		c.Groups.Now = func() time.Time { return start.Add(time.Duration(seconds.Load()) * time.Second) }
	})
	j := join(t, c, "g", "")
	if a := syncGroup(t, c, "g", j.MemberID, 1); a.Err != nil {
		t.Fatal(a.Err)
	}
	now := func(id, member string, generation int32) error {
		var err error
		eventually(t, "the shard has nothing else to do", func() (ok bool) {
			err, ok = c.Groups().HeartbeatNow(id, &group.HeartbeatRequest{MemberID: member, Generation: generation})
			return ok
		})
		return err
	}
	if err := now("g", j.MemberID, 2); !errors.Is(err, group.ErrIllegalGeneration) {
		t.Errorf("of another generation: %v", err)
	}
	if err := now("g", "nobody", 1); !errors.Is(err, group.ErrUnknownMember) {
		t.Errorf("of nobody: %v", err)
	}
	for range 5 {
		seconds.Add(int64(session/time.Second) - 1)
		if err := now("g", j.MemberID, 1); err != nil {
			t.Fatalf("after %d s: %v", seconds.Load(), err)
		}
	}
	// Silence ends the session; the shard sees it when something makes it look.
	seconds.Add(int64(session/time.Second) + 1)
	if _, err := listGroups(t, c); err != nil {
		t.Fatal(err)
	}
	if err := heartbeat(t, c, "g", j.MemberID, 1); !errors.Is(err, group.ErrUnknownMember) {
		t.Errorf("after silence: %v, want %v", err, group.ErrUnknownMember)
	}
	if err := heartbeat(t, c, "other", "x", 1); !errors.Is(err, group.ErrUnknownMember) {
		t.Errorf("a group that is not there: %v", err)
	}
	if _, ok := c.Groups().HeartbeatNow("other", &group.HeartbeatRequest{MemberID: "x", Generation: 1}); ok {
		t.Error("a group that is not there was answered at once")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Groups().HeartbeatNow("g", &group.HeartbeatRequest{MemberID: j.MemberID, Generation: 1}); ok {
		t.Error("a coordinator that is closed answers at once")
	}
}

// TestHeartbeatsAndAllElse has members beat at once from many goroutines while
// their group is listed, committed to and joined: nobody is lost, and -race sees
// who reads what.
func TestHeartbeatsAndAllElse(t *testing.T) {
	t.Parallel()
	s := newMem(t)
	c := openLoaded(t, s)
	topic := create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
	j := join(t, c, "g", "")
	if a := syncGroup(t, c, "g", j.MemberID, 1); a.Err != nil {
		t.Fatal(a.Err)
	}
	var beating sync.WaitGroup
	done := make(chan struct{})
	var atOnce atomic.Int64
	for range 4 {
		beating.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				err, ok := c.Groups().HeartbeatNow("g", &group.HeartbeatRequest{MemberID: j.MemberID, Generation: 1})
				if ok {
					atOnce.Add(1)
				} else {
					answered := make(chan error, 1)
					c.Groups().Heartbeat("g", &group.HeartbeatRequest{MemberID: j.MemberID, Generation: 1}, func(err error) { answered <- err })
					err = <-answered
				}
				if err != nil {
					t.Errorf("heartbeat: %v", err)
					return
				}
			}
		})
	}
	for i := range int64(200) {
		if err := commit(t, c, "g", group.CommitIdentity{MemberID: j.MemberID, Epoch: 1}, partition(topic, 0), i); err != nil {
			t.Errorf("commit: %v", err)
		}
		if _, err := listGroups(t, c); err != nil {
			t.Errorf("list: %v", err)
		}
	}
	close(done)
	beating.Wait()
	if atOnce.Load() == 0 {
		t.Error("no heartbeat was answered at once")
	}
}

// delayed makes a new group wait for a moment, which begins when all have joined.
func delayed(all *atomic.Bool) func(*coordinator.Config) {
	start := time.Now()
	return func(c *coordinator.Config) {
		c.Groups.Group.InitialRebalanceDelay = time.Millisecond
		c.Groups.Now = func() time.Time {
			if all.Load() {
				return time.Now()
			}
			return start
		}
	}
}

// joining waits until a group has n members.
func joining(t *testing.T, c *coordinator.Coordinator, id string, n int) {
	t.Helper()
	eventually(t, "all have joined", func() bool { d, err := describe(t, c, id); return err == nil && len(d.Members) == n })
}

// TestTooManyMembers: when the record of all is larger than a value may be, the
// newest members are told that the group is full, and no more are let in.
func TestTooManyMembers(t *testing.T) {
	t.Parallel()
	var all atomic.Bool
	c := openLoaded(t, newMem(t), delayed(&all))
	const n = 20
	random := rand.NewChaCha8([32]byte{})
	join := func(member string, reply func(*group.JoinGroupResponse)) {
		metadata := append(subscription("orders"), make([]byte, meta.MaxValueBytes/n+1000)...)
		random.Read(metadata[len(subscription("orders")):])
		c.Groups().Join("g", &group.JoinGroupRequest{MemberID: member, SessionTimeout: session, RebalanceTimeout: session,
			ProtocolType: "consumer", Protocols: []group.Protocol{{Name: "range", Metadata: metadata}}}, reply)
	}
	joined := make(chan *group.JoinGroupResponse, n)
	for range n {
		join("", func(a *group.JoinGroupResponse) { joined <- a })
	}
	joining(t, c, "g", n)
	all.Store(true)
	synced := make(chan error, n)
	for range n {
		select {
		case a := <-joined:
			if a.Err != nil {
				t.Fatal(a.Err)
			}
			c.Groups().Sync("g", &group.SyncGroupRequest{MemberID: a.MemberID, Generation: a.Generation}, func(a *group.SyncGroupResponse) { synced <- a.Err })
		case <-time.After(patience):
			t.Fatal("not everybody has joined")
		}
	}
	full := 0
	for range n {
		if err := <-synced; errors.Is(err, group.ErrMaxSizeReached) || errors.Is(err, group.ErrUnknownMember) {
			full++
		} else if !errors.Is(err, group.ErrUnavailable) && !errors.Is(err, group.ErrRebalanceInProgress) {
			t.Errorf("sync: %v", err)
		}
	}
	if full != n/4 {
		t.Errorf("%d members of %d are refused, want a quarter", full, n)
	}
	d, err := describe(t, c, "g")
	if err != nil || len(d.Members) != n-n/4 {
		t.Errorf("%d members are left (%v)", len(d.Members), err)
	}
}

// TestManyMembers: a group whose record is too long for a value as it is.
func TestManyMembers(t *testing.T) {
	t.Parallel()
	s := newMem(t)
	var all atomic.Bool
	c := openLoaded(t, s, delayed(&all))
	const n = 300
	joined := make(chan *group.JoinGroupResponse, n)
	for i := range n {
		metadata := append(subscription("orders"), strings.Repeat(fmt.Sprintf("member %d of many, ", i), 500)...)
		c.Groups().Join("g", &group.JoinGroupRequest{SessionTimeout: session, RebalanceTimeout: session, ProtocolType: "consumer",
			Protocols: []group.Protocol{{Name: "range", Metadata: metadata}}}, func(a *group.JoinGroupResponse) { joined <- a })
	}
	joining(t, c, "g", n)
	all.Store(true)
	var leader *group.JoinGroupResponse
	for range n {
		select {
		case a := <-joined:
			if a.Err != nil {
				t.Fatal(a.Err)
			}
			if a.LeaderID == a.MemberID {
				leader = a
			}
		case <-time.After(patience):
			t.Fatal("not everybody has joined")
		}
	}
	if len(leader.Members) != n {
		t.Fatalf("the leader has %d members", len(leader.Members))
	}
	if a := syncGroup(t, c, "g", leader.MemberID, leader.Generation); a.Err != nil {
		t.Fatalf("sync: %v", a.Err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openLoaded(t, s)
	d, err := describe(t, c, "g")
	if err != nil {
		t.Fatal(err)
	}
	if d.State != group.Stable || len(d.Members) != n {
		t.Errorf("after the restart the group is %v, %d members", d.State, len(d.Members))
	}
}

// TestExpiry: what nobody has needed for the retention goes, and a group that
// has nothing left with it.
func TestExpiry(t *testing.T) {
	t.Parallel()
	var hours atomic.Int64
	s := newMem(t)
	c := openLoaded(t, s, func(c *coordinator.Config) {
		c.Groups.OffsetsRetention, c.Groups.ExpiryInterval = 24*time.Hour, time.Millisecond
		c.Groups.Now = func() time.Time { return time.Now().Add(time.Duration(hours.Load()) * time.Hour) }
	})
	topic := create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 2, ReplicationFactor: 1})[0]
	if err := commit(t, c, "g", nobody, partition(topic, 0), 3); err != nil {
		t.Fatal(err)
	}
	hours.Store(23)
	if err := commit(t, c, "g", nobody, partition(topic, 1), 4); err != nil {
		t.Fatal(err)
	}
	hours.Store(25)
	eventually(t, "the older offset is gone", func() bool { o, err := fetch(t, c, "g", partition(topic, 0)); return err == nil && o == -1 })
	if o, err := fetch(t, c, "g", partition(topic, 1)); err != nil || o != 4 {
		t.Errorf("the younger offset is %d (%v)", o, err)
	}
	hours.Store(48)
	eventually(t, "the group is gone", func() bool { all, err := listGroups(t, c); return err == nil && len(all) == 0 })
	eventually(t, "its keys are gone", func() bool { return len(keysUnder(t, s, "quire/test/o/")) == 0 })

	// A member that has left, and committed nothing, leaves an empty group behind.
	j := join(t, c, "h", "")
	if a := syncGroup(t, c, "h", j.MemberID, 1); a.Err != nil {
		t.Fatal(a.Err)
	}
	await(t, func(reply func(*group.LeaveGroupResponse)) {
		c.Groups().Leave("h", &group.LeaveGroupRequest{Members: []group.LeavingMember{{MemberID: j.MemberID}}}, reply)
	})
	eventually(t, "the empty group is gone", func() bool { all, err := listGroups(t, c); return err == nil && len(all) == 0 })
	eventually(t, "its record is gone", func() bool { return len(keysUnder(t, s, "quire/test/g/")) == 0 })
}

// TestExpirySparesWhatIsBeingCommitted: an empty group without offsets is removed, but not
// with the offset that is on its way to the store.
func TestExpirySparesWhatIsBeingCommitted(t *testing.T) {
	t.Parallel()
	s := newGate(newMem(t))
	c := openLoaded(t, s, func(c *coordinator.Config) { c.Groups.ExpiryInterval = time.Hour })
	topic := create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
	j := join(t, c, "g", "")
	if a := syncGroup(t, c, "g", j.MemberID, 1); a.Err != nil {
		t.Fatal(a.Err)
	}
	await(t, func(reply func(*group.LeaveGroupResponse)) {
		c.Groups().Leave("g", &group.LeaveGroupRequest{Members: []group.LeavingMember{{MemberID: j.MemberID}}}, reply)
	})
	openGate := s.close("/o/")
	committed := make(chan error, 1)
	c.Groups().Commit("g", &nobody, []coordinator.NewCommit{{Partition: partition(topic, 0), Offset: 7, LeaderEpoch: -1, CommitTime: -1, Retention: -1}}, nil, func(err error) { committed <- err })
	coordinator.Expire(c)
	openGate()
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	// Whatever the sweep has asked for is done before this.
	eventually(t, "another commit is taken", func() bool {
		return commit(t, c, "g", nobody, offsets.Partition{Topic: topic.ID, Partition: 1}, 1) == nil
	})
	if o, err := fetch(t, c, "g", partition(topic, 0)); err != nil || o != 7 {
		t.Errorf("the committed offset is %d (%v)", o, err)
	}
}

// TestExpiryFindsLateCommits: a commit that was given up and executed all the same makes a
// group, which expires as any other.
func TestExpiryFindsLateCommits(t *testing.T) {
	t.Parallel()
	var hours atomic.Int64
	g := newGate(newMem(t))
	s := &faulty{Store: g}
	c := openLoaded(t, s, func(c *coordinator.Config) {
		c.Groups.CommitTimeout, c.Groups.OffsetsRetention, c.Groups.ExpiryInterval = 100*time.Millisecond, 24*time.Hour, time.Hour
		c.Groups.Now = func() time.Time { return time.Now().Add(time.Duration(hours.Load()) * time.Hour) }
	})
	topic := createOne(t, c, "orders")
	looked := make(chan func(), 1)
	s.set(func(ctx context.Context, conds []meta.Cond, ops []meta.Op, do txn) (meta.Revision, bool, error) {
		if _, _, err := do(ctx, conds, ops); err != nil {
			return 0, false, err
		}
		s.set(nil)
		looked <- g.close("/seq/") // nobody can find out what has become of it
		return 0, false, meta.ErrUnknownOutcome
	})
	if err := commit(t, c, "g", nobody, partition(topic, 0), 7); !errors.Is(err, offsets.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	(<-looked)()
	eventually(t, "the offset is known", func() bool { o, err := fetch(t, c, "g", partition(topic, 0)); return err == nil && o == 7 })
	coordinator.Expire(c)
	if all, err := listGroups(t, c); err != nil || len(all) != 1 {
		t.Errorf("groups are %v (%v)", all, err)
	}
	hours.Store(25)
	coordinator.Expire(c)
	eventually(t, "its keys are gone", func() bool { return len(keysUnder(t, s, "quire/test/o/")) == 0 })
}

func keysUnder(t *testing.T, s meta.Store, prefix string) (found []string) {
	t.Helper()
	_, err := s.List(t.Context(), prefix, func(kv meta.KV) bool { found = append(found, kv.Key); return true })
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestDeletedTopicTakesItsOffsets: the topic that is made again under the name
// begins without any.
func TestDeletedTopicTakesItsOffsets(t *testing.T) {
	t.Parallel()
	s := newMem(t)
	c := openLoaded(t, s)
	topics := create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1}, coordinator.NewTopic{Name: "kept", Partitions: 1, ReplicationFactor: 1})
	for _, id := range []string{"g", "h"} {
		for _, topic := range topics {
			if err := commit(t, c, id, nobody, partition(topic, 0), 3); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.DeleteTopic(t.Context(), "orders", topics[0].ID); err != nil {
		t.Fatal(err)
	}
	again := create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
	if o, err := fetch(t, c, "g", partition(again, 0)); err != nil || o != -1 {
		t.Errorf("offset of the new topic is %d (%v)", o, err)
	}
	eventually(t, "the offsets are gone", func() bool { return len(keysUnder(t, s, "quire/test/o/")) == 2 })
	for _, id := range []string{"g", "h"} {
		if o, err := fetch(t, c, id, partition(topics[1], 0)); err != nil || o != 3 {
			t.Errorf("offset of the other topic is %d (%v)", o, err)
		}
	}
}

// TestDeleteGroup takes the offsets along, and nothing of them comes back.
func TestDeleteGroup(t *testing.T) {
	t.Parallel()
	s := newMem(t)
	c := openLoaded(t, s)
	topic := create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})[0]
	if err := deleteGroup(t, c, "g"); !errors.Is(err, group.ErrGroupNotFound) {
		t.Errorf("delete of no group: %v", err)
	}
	j := join(t, c, "g", "")
	if a := syncGroup(t, c, "g", j.MemberID, 1); a.Err != nil {
		t.Fatal(a.Err)
	}
	if err := commit(t, c, "g", group.CommitIdentity{MemberID: j.MemberID, Epoch: 1}, partition(topic, 0), 3); err != nil {
		t.Fatal(err)
	}
	if err := deleteGroup(t, c, "g"); !errors.Is(err, group.ErrNonEmptyGroup) {
		t.Errorf("delete of a group with a member: %v", err)
	}
	await(t, func(reply func(*group.LeaveGroupResponse)) {
		c.Groups().Leave("g", &group.LeaveGroupRequest{Members: []group.LeavingMember{{MemberID: j.MemberID}}}, reply)
	})
	if err := deleteGroup(t, c, "g"); err != nil {
		t.Errorf("delete: %v", err)
	}
	if keys := append(keysUnder(t, s, "quire/test/g/"), keysUnder(t, s, "quire/test/o/")...); len(keys) > 0 {
		t.Errorf("what is left: %q", keys)
	}
	if o, err := fetch(t, c, "g", partition(topic, 0)); err != nil || o != -1 {
		t.Errorf("offset of the deleted group is %d (%v)", o, err)
	}
	if _, err := describe(t, c, "g"); !errors.Is(err, group.ErrGroupNotFound) {
		t.Errorf("describe: %v", err)
	}
}

// TestNothingIsLeftOfRefusedRequests: requests for groups that do not exist make none.
func TestNothingIsLeftOfRefusedRequests(t *testing.T) {
	t.Parallel()
	c := openLoaded(t, newMem(t))
	for i := range 100 {
		id := fmt.Sprint("g", i)
		if err := heartbeat(t, c, id, "m", 1); !errors.Is(err, group.ErrUnknownMember) {
			t.Errorf("heartbeat: %v", err)
		}
		if a := join(t, c, id, "m"); !errors.Is(a.Err, group.ErrUnknownMember) {
			t.Errorf("join: %v", a.Err)
		}
		if a := syncGroup(t, c, id, "m", 1); !errors.Is(a.Err, group.ErrUnknownMember) {
			t.Errorf("sync: %v", a.Err)
		}
		if err := commit(t, c, id, group.CommitIdentity{MemberID: "m", Epoch: 1}, offsets.Partition{}, 1); !errors.Is(err, group.ErrIllegalGeneration) {
			t.Errorf("commit: %v", err)
		}
	}
	if all, err := listGroups(t, c); err != nil || len(all) > 0 {
		t.Errorf("groups are %v (%v)", all, err)
	}
	if err := heartbeat(t, c, strings.Repeat("x", 5000), "m", 1); !errors.Is(err, group.ErrInvalidGroupID) {
		t.Errorf("heartbeat of a group with a long id: %v", err)
	}
}

// TestSessionsEnd: time passes for groups without anybody asking.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	c := openLoaded(t, newMem(t), func(c *coordinator.Config) { c.Groups.Group.MinSessionTimeout = time.Millisecond })
	j := await(t, func(reply func(*group.JoinGroupResponse)) {
		c.Groups().Join("g", &group.JoinGroupRequest{SessionTimeout: 20 * time.Millisecond, RebalanceTimeout: time.Second, ProtocolType: "consumer",
			Protocols: []group.Protocol{{Name: "range"}}}, reply)
	})
	if j.Err != nil {
		t.Fatal(j.Err)
	}
	eventually(t, "the silent member is removed", func() bool { d, err := describe(t, c, "g"); return err == nil && d.State == group.Empty })
}

// TestCloseAnswersWhoWaitsForLoading: a list of groups, too.
func TestCloseAnswersWhoWaitsForLoading(t *testing.T) {
	t.Parallel()
	s := newGate(newMem(t))
	defer s.close("/g/")()
	c := open(t, s, func(c *coordinator.Config) { c.Groups.LoadWait = patience })
	const n = 8
	answers := make(chan error, 2*n)
	for range n {
		c.Groups().List(func(coordinator.ListedGroup) bool { return true }, func(_ []coordinator.ListedGroup, err error) { answers <- err })
		c.Groups().Delete("g", func(err error) { answers <- err })
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range cap(answers) {
		select {
		case <-answers:
		case <-time.After(patience):
			t.Fatal("who waited is not answered")
		}
	}
}

// TestCloseAnswersEverybody: who waits for other members is answered, too.
func TestCloseAnswersEverybody(t *testing.T) {
	t.Parallel()
	c := openLoaded(t, mem.New(nil), func(c *coordinator.Config) { c.Groups.Group.InitialRebalanceDelay = time.Hour })
	answers := make(chan error, 10)
	for i := range cap(answers) {
		c.Groups().Join(fmt.Sprint("g", i), &group.JoinGroupRequest{SessionTimeout: session, RebalanceTimeout: session, ProtocolType: "consumer",
			Protocols: []group.Protocol{{Name: "range"}}}, func(a *group.JoinGroupResponse) { answers <- a.Err })
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range cap(answers) {
		select {
		case err := <-answers:
			if !errors.Is(err, group.ErrNotCoordinator) {
				t.Errorf("who waited is answered %v", err)
			}
		case <-time.After(patience):
			t.Fatal("who waited is not answered")
		}
	}
	if err := heartbeat(t, c, "g0", "m", 1); !errors.Is(err, group.ErrUnavailable) {
		t.Errorf("heartbeat after the end: %v", err)
	}
}
