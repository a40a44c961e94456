package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/storage/meta"
)

// setConfig sets configs of a group beside those that it has; "" takes one away.
func setConfig(ctx context.Context, c *coordinator.Coordinator, id string, configs ...string) error {
	return c.Groups().AlterConfig(ctx, id, false, func(now map[string]string) (map[string]string, error) {
		for i := 0; i < len(configs); i += 2 {
			now[configs[i]] = configs[i+1]
			if configs[i+1] == "" {
				delete(now, configs[i])
			}
		}
		return now, nil
	})
}

// beat is a heartbeat of a member of the consumer protocol that says nothing, or
// joins.
func beat(t *testing.T, c *coordinator.Coordinator, id, member string, epoch int32) *group.ConsumerHeartbeatResponse {
	t.Helper()
	r := &group.ConsumerHeartbeatRequest{MemberID: member, MemberEpoch: epoch, RequireMemberID: true, RebalanceTimeout: -1, ClientID: "test", ClientHost: "/127.0.0.1"}
	if epoch == 0 {
		r.RebalanceTimeout, r.SubscribedTopicNames, r.OwnedTopicPartitions = time.Minute, []string{"orders"}, []group.TopicPartitions{}
	}
	return await(t, func(reply func(*group.ConsumerHeartbeatResponse)) { c.Groups().ConsumerHeartbeat(id, r, reply) })
}

const (
	sessionTimeout    = "consumer.session.timeout.ms"
	heartbeatInterval = "consumer.heartbeat.interval.ms"
)

// TestGroupConfigs: what is set for a group holds for it alone, at once and in the
// next process, whether or not the group was there.
func TestGroupConfigs(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s meta.Store) {
		ctx := t.Context()
		c := openLoaded(t, s)
		if err := setConfig(ctx, c, "later/\x00ü", heartbeatInterval, "6000"); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"g", "other"} {
			if a := beat(t, c, id, "m", 0); a.Err != nil || a.MemberEpoch != 1 {
				t.Fatalf("joined %+v", a)
			}
		}
		interval := func(c *coordinator.Coordinator, id, member string) time.Duration {
			t.Helper()
			epoch := int32(1)
			if member != "m" {
				epoch = 0
			}
			a := beat(t, c, id, member, epoch)
			if a.Err != nil {
				t.Fatal(a.Err)
			}
			return a.HeartbeatInterval
		}
		if err := setConfig(ctx, c, "g", heartbeatInterval, "7000", sessionTimeout, "50000"); err != nil {
			t.Fatal(err)
		}
		look := func(c *coordinator.Coordinator, when string) {
			t.Helper()
			if d := interval(c, "g", "m"); d != 7*time.Second {
				t.Errorf("%s the interval of the group is %s", when, d)
			}
			if d := interval(c, "other", "m"); d != 5*time.Second {
				t.Errorf("%s that of another is %s", when, d)
			}
			if got := c.Groups().Configured(); !slices.Equal(got, []string{"g", "later/\x00ü"}) {
				t.Errorf("%s groups with configs are %q", when, got)
			}
			if got := c.Groups().Config("g"); !maps.Equal(got, map[string]string{heartbeatInterval: "7000", sessionTimeout: "50000"}) {
				t.Errorf("%s the group has %v", when, got)
			}
		}
		look(c, "at once")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = openLoaded(t, s)
		look(c, "after a restart")
		if d := interval(c, "later/\x00ü", "new"); d != 6*time.Second {
			t.Errorf("a group that came after its config is told %s", d)
		}
		if err := setConfig(ctx, c, "g", heartbeatInterval, "", sessionTimeout, ""); err != nil {
			t.Fatal(err)
		}
		if d := interval(c, "g", "m"); d != 5*time.Second {
			t.Errorf("without configs it is told %s", d)
		}
		if got := c.Groups().Configured(); len(got) != 1 {
			t.Errorf("in the end groups with configs are %q", got)
		}
	})
}

func TestGroupConfigsAreChecked(t *testing.T) {
	t.Parallel()
	c := openLoaded(t, newMem(t), func(c *coordinator.Config) {
		c.Groups.Group.ConsumerHeartbeatInterval = 3 * time.Second // below the least of its own
		c.Groups.MaxConsumerHeartbeatInterval = 50 * time.Second
	})
	for _, tc := range []struct {
		configs []string
		wrong   string // "": nothing
	}{
		{[]string{heartbeatInterval, "3000"}, ""},
		{[]string{heartbeatInterval, " 50000 ", sessionTimeout, "60000"}, ""},
		{[]string{heartbeatInterval, "2999"}, "group.consumer.max.heartbeat.interval.ms allow 3000 to 50000"},
		{[]string{heartbeatInterval, "50001"}, "allow 3000 to 50000"},
		{[]string{sessionTimeout, "44999"}, "allow 45000 to 60000"},
		{[]string{sessionTimeout, "60001"}, "allow 45000 to 60000"},
		{[]string{heartbeatInterval, "45000"}, "consumer.session.timeout.ms=45000 is not more than"},
		{[]string{heartbeatInterval, "5s"}, "not a number"},
		{[]string{heartbeatInterval, "99999999999"}, "not a number"},
		{[]string{"share.session.timeout.ms", "45000"}, "no group config"},
	} {
		configs := make(map[string]string)
		for i := 0; i < len(tc.configs); i += 2 {
			configs[tc.configs[i]] = tc.configs[i+1]
		}
		err := c.Groups().AlterConfig(t.Context(), "g", true, func(map[string]string) (map[string]string, error) { return configs, nil })
		if tc.wrong == "" && err != nil || tc.wrong != "" && (!errors.Is(err, coordinator.ErrInvalidConfig) || !strings.Contains(err.Error(), tc.wrong)) {
			t.Errorf("%v: %v, want %q", tc.configs, err, tc.wrong)
		}
	}
	if got := c.Groups().Configured(); got != nil {
		t.Errorf("asked whether it is valid, %q have configs", got)
	}
	if err := setConfig(t.Context(), c, "", sessionTimeout, "50000"); !errors.Is(err, group.ErrInvalidGroupID) {
		t.Errorf("a group without id: %v", err)
	}
}

// A node goes by limits of its own for what another one has let in.
func TestGroupConfigsOfOtherLimits(t *testing.T) {
	t.Parallel()
	s := newMem(t)
	c := openLoaded(t, s, func(c *coordinator.Config) { c.Groups.MaxConsumerHeartbeatInterval = 40 * time.Second })
	if err := setConfig(t.Context(), c, "g", heartbeatInterval, "40000"); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openLoaded(t, s)
	if a := beat(t, c, "g", "m", 0); a.Err != nil || a.HeartbeatInterval != 15*time.Second {
		t.Errorf("the member is told %+v", a)
	}
	if got := c.Groups().Config("g")[heartbeatInterval]; got != "40000" {
		t.Errorf("what was set is told as %q", got)
	}
}

// A config that was set on one node holds on whichever node the group is, in the order in
// which nodes have set it.
func TestGroupConfigsInACluster(t *testing.T) {
	// Sleeps are of the clock of the cluster's bubble: they wait for nothing, time passes.
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b", "d")
		create(t, all[0].Coordinator, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})
		time.Sleep(time.Second)
		const n = 30
		for i := range n {
			id := fmt.Sprint("g", i)
			if a := beat(t, serving(id, all...).Coordinator, id, "m", 0); a.Err != nil {
				t.Fatal(a.Err)
			}
			for round, m := range all {
				if err := setConfig(t.Context(), m.Coordinator, id, heartbeatInterval, fmt.Sprint(6000+1000*round)); err != nil {
					t.Fatal(err)
				}
			}
		}
		look := func(when string) {
			t.Helper()
			for i := range n {
				id := fmt.Sprint("g", i)
				if err := asked(t, id, all, func(m *member) error {
					a := beat(t, m.Coordinator, id, "m", 1)
					if a.Err == nil && a.HeartbeatInterval != 8*time.Second {
						t.Errorf("%s: %s is told %s", when, id, a.HeartbeatInterval)
					}
					return a.Err
				}); err != nil {
					t.Fatalf("%s: %v", when, err)
				}
				for _, m := range all {
					if got := m.Groups().Config(id)[heartbeatInterval]; got != "8000" {
						t.Errorf("%s: %s knows %s of %s", when, m.name, got, id)
					}
				}
			}
		}
		time.Sleep(time.Second)
		look("when all have heard")
		c.kill(all[2])
		all = all[:2]
		time.Sleep(20 * time.Second)
		look("when one has died")
	})
}

// TestConsumerHeartbeatNow: as TestHeartbeatNow.
func TestConsumerHeartbeatNow(t *testing.T) {
	t.Parallel()
	c := openLoaded(t, newMem(t))
	create(t, c, coordinator.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})
	if a := beat(t, c, "g", "m", 0); a.Err != nil {
		t.Fatal(a.Err)
	}
	quiet := group.ConsumerHeartbeatRequest{MemberID: "m", MemberEpoch: 1, RequireMemberID: true, RebalanceTimeout: -1, ClientID: "test", ClientHost: "/127.0.0.1"}
	var told *group.ConsumerHeartbeatResponse
	eventually(t, "the group has nothing to do", func() (ok bool) {
		told, ok = c.Groups().ConsumerHeartbeatNow("g", &quiet)
		if !ok {
			// Members are told their assignment more than once.
			beat(t, c, "g", "m", 1)
		}
		return ok
	})
	if told.Err != nil || told.MemberID != "m" || told.MemberEpoch != 1 || told.Assignment != nil || told.HeartbeatInterval != 5*time.Second {
		t.Errorf("told %+v", told)
	}
	who, else1 := "n", "orders"
	for what, r := range map[string]group.ConsumerHeartbeatRequest{
		"of nobody":          {MemberID: "n", MemberEpoch: 1},
		"of another epoch":   {MemberID: "m", MemberEpoch: 2},
		"that leaves":        {MemberID: "m", MemberEpoch: -1},
		"that joins":         {MemberID: "m", MemberEpoch: 0},
		"as another process": {MemberID: "m", MemberEpoch: 1, InstanceID: &who},
		"that says a regex":  {MemberID: "m", MemberEpoch: 1, SubscribedTopicRegex: &else1},
		"that owns nothing":  {MemberID: "m", MemberEpoch: 1, OwnedTopicPartitions: []group.TopicPartitions{}},
	} {
		r.RebalanceTimeout, r.ClientID, r.ClientHost = -1, "test", "/127.0.0.1"
		if a, ok := c.Groups().ConsumerHeartbeatNow("g", &r); ok {
			t.Errorf("a heartbeat %s is answered %+v at once", what, a)
		}
	}
	if _, ok := c.Groups().ConsumerHeartbeatNow("other", &quiet); ok {
		t.Error("a group that is not there was answered at once")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Groups().ConsumerHeartbeatNow("g", &quiet); ok {
		t.Error("a coordinator that is closed answers at once")
	}
}
