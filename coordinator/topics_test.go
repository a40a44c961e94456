package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
)

// "Legal names are 1 to 249 characters of [a-zA-Z0-9._-], not . and ..";
// __cluster_metadata cannot be made, Kafka's other internal topics can.
func TestTopicNames(t *testing.T) {
	c := open(t, newMem(t))
	for name, ok := range map[string]bool{
		"a": true, "A.b_c-9": true, "...": true, "-": true, "_": true, strings.Repeat("x", 249): true,
		"__consumer_offsets": true, "__transaction_state": true,
		"": false, ".": false, "..": false, strings.Repeat("x", 250): false, "__cluster_metadata": false,
		"a b": false, "a/b": false, "a\x00": false, "ä": false, "a,b": false, "a\xff": false, "a:b": false,
	} {
		_, errs := c.CreateTopics(t.Context(), []coordinator.NewTopic{{Name: name, Partitions: 1, ReplicationFactor: 1}}, false)
		if ok && errs[0] != nil {
			t.Errorf("%q: %v", name, errs[0])
		}
		if !ok && !errors.Is(errs[0], coordinator.ErrInvalidTopicName) {
			t.Errorf("%q: %v, want ErrInvalidTopicName", name, errs[0])
		}
		if ok != (c.Topic(name) != nil) {
			t.Errorf("%q: found %v", name, c.Topic(name))
		}
	}
}

// "'.'/'_' collisions (a.b vs a_b) are INVALID_TOPIC_EXCEPTION on create", in
// whatever order and by whatever node they are made; the same name again is
// TOPIC_ALREADY_EXISTS.
func TestTopicNamesCollide(t *testing.T) {
	s := newMem(t)
	c, other := open(t, s), open(t, s, named("other"))
	create(t, c, coordinator.NewTopic{Name: "a.b_c", Partitions: 1, ReplicationFactor: 1})
	for _, by := range []*coordinator.Coordinator{c, other} {
		for name, want := range map[string]error{
			"a.b_c": coordinator.ErrTopicExists, "a_b.c": coordinator.ErrInvalidTopicName,
			"a_b_c": coordinator.ErrInvalidTopicName, "a.b.c": coordinator.ErrInvalidTopicName,
		} {
			_, errs := by.CreateTopics(t.Context(), []coordinator.NewTopic{{Name: name, Partitions: 1, ReplicationFactor: 1}}, false)
			if !errors.Is(errs[0], want) {
				t.Errorf("%q beside a.b_c: %v, want %v", name, errs[0], want)
			}
			if name != "a.b_c" && by.Topic(name) != nil {
				t.Errorf("%q is found as %q", name, by.Topic(name).Name)
			}
		}
	}
	// In one request the first is made.
	made, errs := c.CreateTopics(t.Context(), []coordinator.NewTopic{{Name: "x.y", Partitions: 1, ReplicationFactor: 1}, {Name: "x_y", Partitions: 1, ReplicationFactor: 1}, {Name: "x.y", Partitions: 1, ReplicationFactor: 1}}, false)
	if made[0] == nil || !errors.Is(errs[1], coordinator.ErrInvalidTopicName) || !errors.Is(errs[2], coordinator.ErrTopicExists) {
		t.Errorf("x.y, x_y and x.y in one request: %v", errs)
	}
	create(t, c, coordinator.NewTopic{Name: "a.bc", Partitions: 1, ReplicationFactor: 1})
}

// "partitions/rf -1 = broker default; partitions 0 or < -1 is INVALID_PARTITIONS;
// rf 0 or < -1 is INVALID_REPLICATION_FACTOR". A replication factor above the
// number of nodes is accepted and told back.
func TestTopicCounts(t *testing.T) {
	c := open(t, newMem(t), func(c *coordinator.Config) {
		c.NumPartitions, c.DefaultReplicationFactor, c.MaxPartitionsPerTopic = 3, 2, 50
	})
	for i, test := range []struct {
		partitions int32
		rf         int16
		want       error
		made       coordinator.Topic
	}{
		{1, 1, nil, coordinator.Topic{Partitions: 1, ReplicationFactor: 1}},
		{-1, -1, nil, coordinator.Topic{Partitions: 3, ReplicationFactor: 2}},
		{50, 3, nil, coordinator.Topic{Partitions: 50, ReplicationFactor: 3}},
		{51, 1, coordinator.ErrInvalidPartitions, coordinator.Topic{}},
		{0, 1, coordinator.ErrInvalidPartitions, coordinator.Topic{}},
		{-2, 1, coordinator.ErrInvalidPartitions, coordinator.Topic{}},
		{1, 0, coordinator.ErrInvalidReplication, coordinator.Topic{}},
		{1, -2, coordinator.ErrInvalidReplication, coordinator.Topic{}},
	} {
		name := fmt.Sprint("t", i)
		made, errs := c.CreateTopics(t.Context(), []coordinator.NewTopic{{Name: name, Partitions: test.partitions, ReplicationFactor: test.rf}}, false)
		if !errors.Is(errs[0], test.want) {
			t.Errorf("%d partitions, factor %d: %v, want %v", test.partitions, test.rf, errs[0], test.want)
		}
		if test.want == nil && (made[0].Partitions != test.made.Partitions || made[0].ReplicationFactor != test.made.ReplicationFactor) {
			t.Errorf("%d partitions, factor %d: made %+v", test.partitions, test.rf, made[0])
		}
		if test.want != nil && c.Topic(name) != nil {
			t.Errorf("%d partitions, factor %d: made", test.partitions, test.rf)
		}
	}
}

// A request's topics fail one by one, each with its own error, in order.
func TestCreateTopicsFailsEach(t *testing.T) {
	c := open(t, newMem(t), func(c *coordinator.Config) { c.MaxTopics = 3 })
	createOne(t, c, "old")
	made, errs := c.CreateTopics(t.Context(), []coordinator.NewTopic{
		{Name: "new", Partitions: 1, ReplicationFactor: 1},
		{Name: "old", Partitions: 1, ReplicationFactor: 1},
		{Name: "?", Partitions: 1, ReplicationFactor: 1},
		{Name: "config", Partitions: 1, ReplicationFactor: 1, Config: map[string]string{"no.such": "1"}},
		{Name: "new2", Partitions: 1, ReplicationFactor: 1},
	}, false)
	for i, want := range []error{nil, coordinator.ErrTopicExists, coordinator.ErrInvalidTopicName, coordinator.ErrInvalidConfig, nil} {
		if !errors.Is(errs[i], want) || (want == nil) != (made[i] != nil) {
			t.Errorf("topic %d: %v, %v, want %v", i, made[i], errs[i], want)
		}
	}
	if _, errs := c.CreateTopics(t.Context(), []coordinator.NewTopic{{Name: "new3", Partitions: 1, ReplicationFactor: 1}}, false); !errors.Is(errs[0], coordinator.ErrPolicy) {
		t.Errorf("a topic beyond the limit: %v, want ErrPolicy", errs[0])
	}
	if made, errs := c.CreateTopics(t.Context(), nil, false); len(made)+len(errs) != 0 {
		t.Errorf("no topics: %v, %v", made, errs)
	}
}

// "validate_only: do all checks, create nothing, return no topic id".
func TestCreateTopicsValidateOnly(t *testing.T) {
	s := newMem(t)
	c := openLoaded(t, s) // the claiming of slots is over: nothing else writes
	createOne(t, c, "old")
	_, before := list(t, s)
	made, errs := c.CreateTopics(t.Context(), []coordinator.NewTopic{
		{Name: "new", Partitions: -1, ReplicationFactor: -1, Config: map[string]string{"retention.ms": "5"}},
		{Name: "old", Partitions: 1, ReplicationFactor: 1},
		{Name: "new2", Partitions: 0, ReplicationFactor: 1},
	}, true)
	if errs[0] != nil || made[0].ID != [16]byte{} || made[0].Partitions != 1 || made[0].Config["retention.ms"] != "5" {
		t.Errorf("new topic: %+v, %v", made[0], errs[0])
	}
	if !errors.Is(errs[1], coordinator.ErrTopicExists) || !errors.Is(errs[2], coordinator.ErrInvalidPartitions) {
		t.Errorf("errors %v", errs)
	}
	if _, after := list(t, s); after != before || c.Topic("new") != nil {
		t.Errorf("something was made: revision %d after %d", after, before)
	}
}

// list returns everything in a store.
func list(t *testing.T, s meta.Store) (map[string]string, meta.Revision) {
	t.Helper()
	facts := make(map[string]string)
	rev, err := s.List(t.Context(), "", func(kv meta.KV) bool { facts[kv.Key] = string(kv.Value); return true })
	if err != nil {
		t.Fatal(err)
	}
	return facts, rev
}

// A topic is found at once by who made it, by name and id, and soon by others;
// its id is a random UUID (KIP-516).
func TestTopicIsFound(t *testing.T) {
	onBoth(t, func(t *testing.T, s meta.Store) {
		a, b := open(t, s), open(t, s, named("b"))
		seen := make(map[[16]byte]bool)
		for i := range 200 {
			name := fmt.Sprintf("topic.%d", i)
			made := createOne(t, a, name)
			if !reflect.DeepEqual(a.Topic(name), made) || a.TopicByID(made.ID) != a.Topic(name) {
				t.Fatalf("%s was made and is not found", name)
			}
			if seen[made.ID] || made.ID[6]>>4 != 4 || made.ID[8]>>6 != 2 {
				t.Fatalf("id %x", made.ID)
			}
			seen[made.ID] = true
			eventually(t, name+" is on the other node", func() bool { return reflect.DeepEqual(b.Topic(name), made) })
			if b.TopicByID(made.ID) != b.Topic(name) {
				t.Fatalf("%s has another topic at its id", name)
			}
		}
		all := b.Topics()
		if len(all) != 200 {
			t.Fatalf("%d topics", len(all))
		}
		for i := 1; i < len(all); i++ {
			if all[i-1].Name >= all[i].Name {
				t.Fatalf("%s before %s", all[i-1].Name, all[i].Name)
			}
		}
		if a.Topic("none") != nil || a.Topic("none.") != nil || a.Topic(strings.Repeat(".", 300)) != nil || a.TopicByID([16]byte{}) != nil {
			t.Error("found what does not exist")
		}
	})
}

// A restart finds everything as it was; many topics make few transactions.
func TestTopicsRestart(t *testing.T) {
	onBoth(t, func(t *testing.T, s meta.Store) {
		const topics = 5_000
		counted := &faulty{Store: s}
		var mu sync.Mutex
		txns := 0
		c := open(t, counted)
		counted.set(func(ctx context.Context, conds []meta.Cond, ops []meta.Op, do txn) (meta.Revision, bool, error) {
			mu.Lock()
			txns++
			mu.Unlock()
			return do(ctx, conds, ops)
		})
		var asked []coordinator.NewTopic
		for i := range topics {
			asked = append(asked, coordinator.NewTopic{
				Name: fmt.Sprintf("topic.%d", i), Partitions: int32(i%7 + 1), ReplicationFactor: int16(i%3 + 1),
				Config: map[string]string{"retention.ms": fmt.Sprint(i % 3), "cleanup.policy": "compact"},
			})
		}
		made := create(t, c, asked...)
		if txns > topics/64+8 {
			t.Errorf("%d transactions for %d topics, 64 fit into one", txns, topics)
		}
		configs := make(map[any]bool)
		for i, topic := range made {
			configs[topic.LogConfig] = true
			if topic.Name != asked[i].Name || topic.Partitions != asked[i].Partitions || !maps.Equal(topic.Config, asked[i].Config) {
				t.Fatalf("topic %d is %+v, asked for was %+v", i, topic, asked[i])
			}
		}
		if len(configs) != 3 {
			t.Errorf("%d parsed configs, want one for each of 3 different ones", len(configs))
		}
		before := c.Topics()
		c.Close()
		c = open(t, s)
		if after := c.Topics(); !reflect.DeepEqual(after, before) {
			t.Errorf("%d topics after a restart, %d before, or not the same", len(after), len(before))
		}
		for _, topic := range made {
			if got := c.TopicByID(topic.ID); got == nil || got.Name != topic.Name {
				t.Fatalf("%s is not found by its id", topic.Name)
			}
		}
	})
}

// Callers that come together share transactions. Of several who make the same
// topic one succeeds and the others are told that it exists; all of them find it then.
func TestConcurrentCreators(t *testing.T) {
	onBoth(t, func(t *testing.T, s meta.Store) {
		const callers, topics = 50, 40
		nodes := []*coordinator.Coordinator{open(t, s, named("a")), open(t, s, named("b"))}
		var mu sync.Mutex
		winners := make(map[string][]*coordinator.Topic)
		var wg sync.WaitGroup
		for caller := range callers {
			wg.Go(func() {
				c := nodes[caller%len(nodes)]
				for _, i := range rand.Perm(topics) {
					name := fmt.Sprint("topic-", i)
					made, errs := c.CreateTopics(t.Context(), []coordinator.NewTopic{{Name: name, Partitions: 1, ReplicationFactor: 1}}, false)
					if errs[0] != nil && !errors.Is(errs[0], coordinator.ErrTopicExists) {
						t.Errorf("%s: %v", name, errs[0])
					}
					if c.Topic(name) == nil {
						t.Errorf("%s is not found after %v", name, errs[0])
					}
					if made[0] != nil {
						mu.Lock()
						winners[name] = append(winners[name], made[0])
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		for i := range topics {
			name := fmt.Sprint("topic-", i)
			if len(winners[name]) != 1 {
				t.Fatalf("%s was made %d times", name, len(winners[name]))
			}
			for _, c := range nodes {
				eventually(t, name+" is the winner's everywhere", func() bool {
					got := c.Topic(name)
					return got != nil && got.ID == winners[name][0].ID && got.Revision == winners[name][0].Revision
				})
			}
		}
	})
}

// While one transaction is in flight everything that comes waits for the next
// ones together.
func TestCreatorsShareTransactions(t *testing.T) {
	f := &faulty{Store: newMem(t)}
	c := open(t, f)
	const callers = 400
	hold, held := make(chan struct{}), make(chan struct{}, callers)
	var mu sync.Mutex
	var sizes []int
	f.set(func(ctx context.Context, conds []meta.Cond, ops []meta.Op, do txn) (meta.Revision, bool, error) {
		mu.Lock()
		sizes = append(sizes, len(conds))
		mu.Unlock()
		held <- struct{}{}
		<-hold
		return do(ctx, conds, ops)
	})
	var wg sync.WaitGroup
	createAsync := func(i int) {
		wg.Go(func() {
			if _, errs := c.CreateTopics(t.Context(), []coordinator.NewTopic{{Name: fmt.Sprint(i), Partitions: 1, ReplicationFactor: 1}}, false); errs[0] != nil {
				t.Error(errs[0])
			}
		})
	}
	// Four transactions of one topic fill what may be in flight.
	for i := range 4 {
		createAsync(i)
		<-held
	}
	for i := 4; i < callers; i++ {
		createAsync(i)
	}
	eventually(t, "all are queued", func() bool { return coordinator.Queued(c) == callers-4 })
	close(hold)
	wg.Wait()
	if want := 4 + (callers-4+63)/64; len(sizes) > want+4 {
		t.Errorf("%d callers made transactions of %v topics, want about %d transactions", callers, sizes, want)
	}
}

// A transaction whose outcome is not known is looked at before anything is said:
// made topics are told as made, with their revision, others are made then, and
// somebody else's topic is never taken for ours.
func TestCreateTopicsUnknownOutcome(t *testing.T) {
	for _, executed := range []bool{true, false} {
		f := &faulty{Store: newMem(t)}
		c := open(t, f)
		for n := 1; n <= 4; n++ {
			f.unknown(n, executed)
			name := fmt.Sprint("t", n)
			made := createOne(t, c, name)
			kv, err := f.Get(t.Context(), "quire/test/t/"+name)
			if err != nil || kv.Modified != made.Revision || c.Topic(name) == nil {
				t.Errorf("executed %v, %d times: made at %d, stored as %+v, %v", executed, n, made.Revision, kv, err)
			}
		}
		f.unknown(1000, false)
		_, errs := c.CreateTopics(t.Context(), []coordinator.NewTopic{{Name: "never", Partitions: 1, ReplicationFactor: 1}}, false)
		if !errors.Is(errs[0], coordinator.ErrUnavailable) {
			t.Errorf("never an answer: %v, want ErrUnavailable", errs[0])
		}
	}
	f := &faulty{Store: newMem(t)}
	c, other := open(t, f), open(t, f.Store, named("other"))
	f.set(func(ctx context.Context, conds []meta.Cond, ops []meta.Op, do txn) (meta.Revision, bool, error) {
		f.set(nil)
		createOne(t, other, "theirs")
		return 0, false, meta.ErrUnknownOutcome
	})
	_, errs := c.CreateTopics(t.Context(), []coordinator.NewTopic{{Name: "theirs", Partitions: 1, ReplicationFactor: 1}, {Name: "ours", Partitions: 1, ReplicationFactor: 1}}, false)
	if !errors.Is(errs[0], coordinator.ErrTopicExists) || errs[1] != nil {
		t.Errorf("another node's topic and ours: %v", errs)
	}
	if c.Topic("theirs").ID != other.Topic("theirs").ID {
		t.Error("two ids")
	}
}

// Without metadata creation fails with ErrUnavailable, and lookups go on.
func TestTopicsWithoutMetadata(t *testing.T) {
	f := &faulty{Store: newMem(t)}
	c := open(t, f)
	old := createOne(t, c, "old")
	for _, cause := range []error{meta.ErrUnavailable, meta.ErrNoSpace, errors.Join(meta.ErrNoSpace, meta.ErrUnknownOutcome)} {
		f.set(func(context.Context, []meta.Cond, []meta.Op, txn) (meta.Revision, bool, error) {
			return 0, false, cause
		})
		_, errs := c.CreateTopics(t.Context(), []coordinator.NewTopic{{Name: "new", Partitions: 1, ReplicationFactor: 1}}, false)
		_, alter := c.AlterTopicConfig(t.Context(), "old", false, func(m map[string]string) (map[string]string, error) { return m, nil })
		for i, err := range []error{errs[0], c.DeleteTopic(t.Context(), "old", old.ID), c.GrowTopic(t.Context(), "old", 2, false), alter} {
			if !errors.Is(err, coordinator.ErrUnavailable) || !errors.Is(err, cause) {
				t.Errorf("call %d with %v: %v, want ErrUnavailable", i, cause, err)
			}
		}
	}
	if c.Topic("old") != old {
		t.Error("a topic is lost")
	}
	// A caller does not wait longer than its context.
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	f.set(func(context.Context, []meta.Cond, []meta.Op, txn) (meta.Revision, bool, error) {
		cancel()
		<-release
		return 0, false, meta.ErrUnavailable
	})
	_, errs := c.CreateTopics(ctx, []coordinator.NewTopic{{Name: "new", Partitions: 1, ReplicationFactor: 1}}, false)
	if !errors.Is(errs[0], coordinator.ErrUnavailable) || !errors.Is(errs[0], context.Canceled) {
		t.Errorf("impatient caller: %v, want ErrUnavailable", errs[0])
	}
	close(release)
	c.Close()
	if _, errs := c.CreateTopics(t.Context(), []coordinator.NewTopic{{Name: "new", Partitions: 1, ReplicationFactor: 1}}, false); !errors.Is(errs[0], coordinator.ErrUnavailable) {
		t.Errorf("after Close: %v, want ErrUnavailable", errs[0])
	}
}

// "unknown name 3, unknown id 100"; a topic made again has a new id.
func TestDeleteTopic(t *testing.T) {
	onBoth(t, func(t *testing.T, s meta.Store) {
		c, other := open(t, s), open(t, s, named("other"))
		first := createOne(t, c, "a.b")
		eventually(t, "the other node has it", func() bool { return other.Topic("a.b") != nil })
		for name, want := range map[string]error{"a_b": coordinator.ErrUnknownTopic, "none": coordinator.ErrUnknownTopic, "?": coordinator.ErrUnknownTopic} {
			if err := c.DeleteTopic(t.Context(), name, first.ID); !errors.Is(err, want) {
				t.Errorf("deletion of %q: %v, want %v", name, err, want)
			}
		}
		if err := c.DeleteTopic(t.Context(), "a.b", [16]byte{1}); !errors.Is(err, coordinator.ErrUnknownTopicID) || c.Topic("a.b") == nil {
			t.Errorf("deletion of another id: %v, want ErrUnknownTopicID", err)
		}
		if err := c.DeleteTopic(t.Context(), "a.b", first.ID); err != nil {
			t.Fatal(err)
		}
		if c.Topic("a.b") != nil || c.TopicByID(first.ID) != nil {
			t.Error("a deleted topic is found")
		}
		facts, _ := list(t, s)
		for key := range facts {
			if strings.HasPrefix(key, "quire/test/t") {
				t.Errorf("%s is left", key)
			}
		}
		eventually(t, "the other node has lost it", func() bool { return other.Topic("a.b") == nil && other.TopicByID(first.ID) == nil })
		second := createOne(t, c, "a_b")
		if second.ID == first.ID {
			t.Error("the same id again")
		}
		if err := c.DeleteTopic(t.Context(), "a_b", first.ID); !errors.Is(err, coordinator.ErrUnknownTopicID) {
			t.Errorf("deletion by the old id: %v, want ErrUnknownTopicID", err)
		}
	})
}

// A deletion or change whose outcome is not known is looked at; what it was to
// bring about counts once.
func TestChangeUnknownOutcome(t *testing.T) {
	for _, executed := range []bool{true, false} {
		for n := 1; n <= 3; n++ {
			f := &faulty{Store: newMem(t)}
			c := open(t, f)
			topic := createOne(t, c, "a")
			f.unknown(n, executed)
			if err := c.GrowTopic(t.Context(), "a", 5, false); err != nil || c.Topic("a").Partitions != 5 {
				t.Errorf("grow, executed %v: %v, %+v", executed, err, c.Topic("a"))
			}
			f.unknown(n, executed)
			altered, err := c.AlterTopicConfig(t.Context(), "a", false, func(m map[string]string) (map[string]string, error) {
				if len(m) > 0 {
					t.Errorf("change is called again on %v", m)
				}
				m["retention.ms"] = "1"
				return m, nil
			})
			if err != nil || altered.Config["retention.ms"] != "1" || !reflect.DeepEqual(c.Topic("a"), altered) {
				t.Errorf("alter, executed %v: %v, %+v", executed, err, altered)
			}
			f.unknown(n, executed)
			if err := c.DeleteTopic(t.Context(), "a", topic.ID); err != nil || c.Topic("a") != nil {
				t.Errorf("delete, executed %v: %v", executed, err)
			}
		}
	}
}

// "count == current or lower is INVALID_PARTITIONS; unknown 3; validate_only honoured".
func TestGrowTopic(t *testing.T) {
	c := open(t, newMem(t), func(c *coordinator.Config) { c.MaxPartitionsPerTopic = 10 })
	create(t, c, coordinator.NewTopic{Name: "a", Partitions: 3, ReplicationFactor: 1})
	for _, test := range []struct {
		name         string
		count        int32
		validateOnly bool
		want         error
		after        int32
	}{
		{"a", 3, false, coordinator.ErrInvalidPartitions, 3},
		{"a", 2, false, coordinator.ErrInvalidPartitions, 3},
		{"a", -1, false, coordinator.ErrInvalidPartitions, 3},
		{"a", 11, false, coordinator.ErrInvalidPartitions, 3},
		{"a", 11, true, coordinator.ErrInvalidPartitions, 3},
		{"b", 5, false, coordinator.ErrUnknownTopic, 3},
		{"a", 5, true, nil, 3},
		{"a", 5, false, nil, 5},
		{"a", 10, false, nil, 10},
	} {
		if err := c.GrowTopic(t.Context(), test.name, test.count, test.validateOnly); !errors.Is(err, test.want) {
			t.Errorf("%s to %d: %v, want %v", test.name, test.count, err, test.want)
		}
		if got := c.Topic("a").Partitions; got != test.after {
			t.Errorf("%s to %d: a has %d partitions, want %d", test.name, test.count, got, test.after)
		}
	}
}

// Changes by many callers on two nodes all count: each adds its own key once.
func TestAlterTopicConfigConcurrently(t *testing.T) {
	onBoth(t, func(t *testing.T, s meta.Store) {
		nodes := []*coordinator.Coordinator{open(t, s, named("a")), open(t, s, named("b"))}
		create(t, nodes[0], coordinator.NewTopic{Name: "a", Partitions: 1, ReplicationFactor: 1, Config: map[string]string{"leader.replication.throttled.replicas": "0:0"}})
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				_, err := nodes[i%2].AlterTopicConfig(t.Context(), "a", false, func(m map[string]string) (map[string]string, error) {
					m["leader.replication.throttled.replicas"] += fmt.Sprintf(",%d:%d", i+1, i+1)
					return m, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, c := range nodes {
			eventually(t, "all changes are there", func() bool {
				return strings.Count(c.Topic("a").Config["leader.replication.throttled.replicas"], ",") == 20
			})
		}
	})
}

func TestAlterTopicConfig(t *testing.T) {
	c := open(t, newMem(t))
	before := createOne(t, c, "a")
	alter := func(validateOnly bool, config map[string]string, err error) (*coordinator.Topic, error) {
		return c.AlterTopicConfig(t.Context(), "a", validateOnly, func(m map[string]string) (map[string]string, error) {
			if m == nil {
				t.Error("change gets a nil map")
			}
			return config, err
		})
	}
	if _, err := alter(false, map[string]string{"retention.ms": "x"}, nil); !errors.Is(err, coordinator.ErrInvalidConfig) {
		t.Errorf("bad value: %v, want ErrInvalidConfig", err)
	}
	own := errors.New("change says no")
	if _, err := alter(false, nil, own); !errors.Is(err, own) {
		t.Errorf("change's own error: %v", err)
	}
	if got, err := alter(true, map[string]string{"retention.ms": "1"}, nil); err != nil || got.Config["retention.ms"] != "1" {
		t.Errorf("validateOnly: %+v, %v", got, err)
	}
	if c.Topic("a") != before {
		t.Error("the topic was changed")
	}
	got, err := alter(false, map[string]string{"retention.ms": "1"}, nil)
	if err != nil || !reflect.DeepEqual(c.Topic("a"), got) || got.LogConfig.RetentionAge.Milliseconds() != 1 || got.ID != before.ID {
		t.Errorf("alter: %+v, %v", got, err)
	}
	if before.Config != nil {
		t.Error("the topic of before was changed")
	}
	if got, err := alter(false, nil, nil); err != nil || got.Config != nil || got.LogConfig != before.LogConfig {
		t.Errorf("back to the defaults: %+v, %v", got, err)
	}
	if _, err := c.AlterTopicConfig(t.Context(), "b", false, nil); !errors.Is(err, coordinator.ErrUnknownTopic) {
		t.Errorf("unknown topic: %v", err)
	}
}

// Two nodes that create, delete, grow and look at the same few topics at random
// agree with the store, and each with itself at every step.
func TestTopicsConverge(t *testing.T) {
	s := newMem(t)
	nodes := []*coordinator.Coordinator{open(t, s, named("a")), open(t, s, named("b"))}
	names := []string{"a.b", "a_b", "c", "d", "e"}
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			c := nodes[worker%2]
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			var last meta.Revision // of what this worker did or saw
			for range 300 {
				name := names[random.IntN(len(names))]
				seen := c.Topic(name)
				if seen != nil {
					last = max(last, seen.Revision)
				}
				var err error
				switch random.IntN(4) {
				case 0, 1:
					var made []*coordinator.Topic
					var errs []error
					made, errs = c.CreateTopics(t.Context(), []coordinator.NewTopic{{Name: name, Partitions: 1, ReplicationFactor: 1}}, false)
					if made[0] != nil && made[0].Revision <= last && worker < 2 {
						// Revisions of one worker's own changes only rise.
						t.Errorf("%s was made at %d after %d", name, made[0].Revision, last)
					}
					err = errs[0]
				case 2:
					if seen != nil {
						err = c.DeleteTopic(t.Context(), name, seen.ID)
					}
				case 3:
					if seen != nil {
						err = c.GrowTopic(t.Context(), name, seen.Partitions+1, false)
					}
				}
				if errors.Is(err, coordinator.ErrUnavailable) || errors.Is(err, coordinator.ErrInvalidConfig) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	facts, _ := list(t, s)
	stored := 0
	for key := range facts {
		if strings.HasPrefix(key, "quire/test/t/") {
			stored++
		}
		if key, ok := strings.CutPrefix(key, "quire/test/tid/"); ok && facts["quire/test/t/"+facts["quire/test/tid/"+key]] == "" {
			t.Errorf("id %s is of no topic", key)
		}
	}
	for _, c := range nodes {
		eventually(t, "the nodes agree", func() bool {
			return len(c.Topics()) == stored && reflect.DeepEqual(c.Topics(), nodes[0].Topics())
		})
	}
	if fresh := open(t, s, named("c")); !reflect.DeepEqual(fresh.Topics(), nodes[0].Topics()) {
		t.Error("a fresh node sees other topics")
	}
}

// When the history that the watch needs is gone, everything is listed again.
func TestTopicsAfterCompaction(t *testing.T) {
	s, err := etcd.OpenEmbedded(t.Context(), etcd.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cut := &cuttable{Store: s}
	a := open(t, cut, named("a"))
	b := open(t, s, named("b"))
	gone := createOne(t, b, "gone")
	createOne(t, b, "grown")
	eventually(t, "the first node follows", func() bool { return len(a.Topics()) == 2 })
	cut.cut()
	if err := b.DeleteTopic(t.Context(), "gone", gone.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.GrowTopic(t.Context(), "grown", 2, false); err != nil {
		t.Fatal(err)
	}
	made := createOne(t, b, "made")
	createOne(t, a, "own")
	cut.mend()
	eventually(t, "the first node has caught up", func() bool {
		return a.Topic("gone") == nil && a.TopicByID(gone.ID) == nil && a.Topic("grown").Partitions == 2 && a.Topic("made") != nil && a.TopicByID(made.ID) != nil
	})
	if a.Topic("own") == nil {
		t.Error("its own topic is lost")
	}
	createOne(t, b, "later")
	eventually(t, "the first node follows again", func() bool { return a.Topic("later") != nil })
}

// cuttable is a store whose watches stop bringing anything, and end in
// ErrCompacted when they are mended.
type cuttable struct {
	meta.Store
	mu     sync.Mutex
	mended chan struct{} // not nil: cut
}

func (c *cuttable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mended = make(chan struct{})
}

func (c *cuttable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.mended)
}

func (c *cuttable) state() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mended
}

func (c *cuttable) Watch(ctx context.Context, prefix string, after meta.Revision) <-chan meta.Events {
	events := make(chan meta.Events)
	go func() {
		defer close(events)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		begun := c.state()
		for e := range c.Store.Watch(ctx, prefix, after) {
			if mended := c.state(); mended != begun {
				select {
				case <-mended:
					events <- meta.Events{Err: meta.ErrCompacted}
				case <-ctx.Done():
				}
				return
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return events
}
