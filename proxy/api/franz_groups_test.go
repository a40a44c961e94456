package api

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// franzMember is a member of a group that counts what it is told and reads.
type franzMember struct {
	*kgo.Client
	assigned, revoked, lost atomic.Int64 // calls
	mu                      sync.Mutex
	seen                    map[string]int
}

// newMember joins a group and reads until the test ends or leave is called.
func (s *server) newMember(group string, opts ...kgo.Opt) (m *franzMember, leave func()) {
	s.t.Helper()
	m = &franzMember{seen: make(map[string]int)}
	m.Client = s.franz(append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { m.assigned.Add(1) }),
		kgo.OnPartitionsRevoked(func(context.Context, *kgo.Client, map[string][]int32) { m.revoked.Add(1) }),
		kgo.OnPartitionsLost(func(context.Context, *kgo.Client, map[string][]int32) { m.lost.Add(1) }),
		kgo.RebalanceTimeout(20 * time.Second),
	}, opts...)...)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			fetches := m.PollFetches(ctx)
			m.mu.Lock()
			fetches.EachRecord(func(r *kgo.Record) { m.seen[string(r.Value)]++ })
			m.mu.Unlock()
		}
	})
	leave = sync.OnceFunc(func() {
		cancel()
		done.Wait()
	})
	s.t.Cleanup(leave)
	return m, leave
}

func (m *franzMember) read() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.seen)
}

// until waits for what a client does in its own time.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func (s *server) fill(n int) {
	s.t.Helper()
	w := s.franz(kgo.DefaultProduceTopic("orders"))
	for i := range n {
		w.Produce(context.Background(), kgo.StringRecord(fmt.Sprint(i)), func(_ *kgo.Record, err error) {
			if err != nil {
				s.t.Errorf("produce: %v", err)
			}
		})
	}
	check(s.t, w.Flush(context.Background()))
}

// TestFranzGroup has members read a topic together, commit and come back, with
// every kind of balancer and with clients of every age.
func TestFranzGroup(t *testing.T) {
	for name, opts := range map[string][]kgo.Opt{
		"cooperative":  nil,
		"range":        {kgo.Balancers(kgo.RangeBalancer())},
		"round robin":  {kgo.Balancers(kgo.RoundRobinBalancer())},
		"sticky":       {kgo.Balancers(kgo.StickyBalancer())},
		"v0.11":        {kgo.MaxVersions(kversion.V0_11_0()), kgo.Balancers(kgo.RangeBalancer())},
		"v2.1":         {kgo.MaxVersions(kversion.V2_1_0())},
		"v3.0":         {kgo.MaxVersions(kversion.V3_0_0())},
		"with kip-848": {kgo.WithContext(context.WithValue(context.Background(), "opt_in_kafka_next_gen_balancer_beta", true))},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.createTopic("orders", 6)
			const n = 600
			s.fill(n)
			var members []*franzMember
			var leaves []func()
			for range 3 {
				m, leave := s.newMember("g", opts...)
				members, leaves = append(members, m), append(leaves, leave)
			}
			until(t, "everything is read", func() bool {
				all := 0
				for _, m := range members {
					all += m.read()
				}
				return all >= n
			})
			ctx := context.Background()
			for _, m := range members {
				check(t, m.CommitUncommittedOffsets(ctx))
			}
			adm := kadm.NewClient(s.franz())
			committed, err := adm.FetchOffsets(ctx, "g")
			check(t, err)
			var sum int64
			committed.Each(func(o kadm.OffsetResponse) { sum += o.At })
			if sum != n {
				t.Errorf("committed offsets add up to %d, want %d", sum, n)
			}
			for i, m := range members {
				leaves[i]()
				m.Close()
			}
			// Who comes later begins where they ended.
			late, _ := s.newMember("g", opts...)
			until(t, "the late member has its partitions", func() bool { return late.assigned.Load() > 0 })
			w := s.franz(kgo.DefaultProduceTopic("orders"))
			check(t, w.ProduceSync(ctx, kgo.StringRecord("last")).FirstErr())
			until(t, "the last record is read", func() bool { return late.read() > 0 })
			late.mu.Lock()
			defer late.mu.Unlock()
			if len(late.seen) != 1 || late.seen["last"] != 1 {
				t.Errorf("the late member has read %v", late.seen)
			}
		})
	}
}
