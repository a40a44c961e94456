package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/quirelog/quire/coordinator/group"
)

// franzMember is a member of a group that counts what it is told and reads.
type franzMember struct {
	*kgo.Client
	told atomic.Int64 // calls that gave or took partitions; one that changes nothing may come late
	held atomic.Int64 // partitions
	mu   sync.Mutex
	seen map[string]int
}

// newMember joins a group and reads until the test ends or leave is called.
func (s *server) newMember(group string, opts ...kgo.Opt) (m *franzMember, leave func()) {
	s.t.Helper()
	m = &franzMember{seen: make(map[string]int)}
	tell := func(sign int64) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, p map[string][]int32) {
			n := int64(0)
			for _, partitions := range p {
				n += int64(len(partitions))
			}
			if n > 0 {
				m.told.Add(1)
				m.held.Add(sign * n)
			}
		}
	}
	m.Client = s.franz(append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(tell(1)), kgo.OnPartitionsRevoked(tell(-1)), kgo.OnPartitionsLost(tell(-1)),
		kgo.RebalanceTimeout(20 * time.Second), kgo.HeartbeatInterval(100 * time.Millisecond), kgo.MetadataMinAge(50 * time.Millisecond), kgo.FetchMaxWait(100 * time.Millisecond),
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

// until waits for what a client does in its own time. It looks again and again,
// since what is waited for is another program's state, which raises no event here.
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
		"cooperative":       nil,
		"range":             {kgo.Balancers(kgo.RangeBalancer())},
		"round robin":       {kgo.Balancers(kgo.RoundRobinBalancer())},
		"sticky":            {kgo.Balancers(kgo.StickyBalancer())},
		"v0.11":             {kgo.MaxVersions(kversion.V0_11_0()), kgo.Balancers(kgo.RangeBalancer())},
		"v2.1":              {kgo.MaxVersions(kversion.V2_1_0())},
		"v3.0":              {kgo.MaxVersions(kversion.V3_0_0())},
		"consumer protocol": {kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer())},
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
			ctx := context.Background()
			adm := kadm.NewClient(s.franz())
			// They join one after the other, so partitions change hands before what was read
			// of them is committed, and a commit in the middle of that is refused.
			until(t, "everything is read and committed", func() bool {
				for _, m := range members {
					_ = m.CommitUncommittedOffsets(ctx)
				}
				committed, err := adm.FetchOffsets(ctx, "g")
				check(t, err)
				var sum int64
				committed.Each(func(o kadm.OffsetResponse) { sum += o.At })
				if sum > n {
					t.Fatalf("committed offsets add up to %d, and there are %d records", sum, n)
				}
				return sum == n
			})
			seen := make(map[string]bool)
			for _, m := range members {
				m.mu.Lock()
				for v := range m.seen {
					seen[v] = true
				}
				m.mu.Unlock()
			}
			if len(seen) != n {
				t.Errorf("%d of %d records were read", len(seen), n)
			}
			for i, m := range members {
				leaves[i]()
				m.Close()
			}
			// Who comes later begins where they ended.
			late, _ := s.newMember("g", opts...)
			until(t, "the late member has its partitions", func() bool { return late.held.Load() > 0 })
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

// TestFranzGroupOutlivesTheCoordinator restarts everything but the data under
// live members: orderly, and beside a coordinator that does not know that
// another has taken its place. No member is told anything, and each goes on to
// commit what it reads.
func TestFranzGroupOutlivesTheCoordinator(t *testing.T) {
	for name, orderly := range map[string]bool{"stopped": true, "fenced": false} {
		for protocol, opts := range map[string][]kgo.Opt{
			"classic":  nil,
			"consumer": {kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer())},
		} {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				s := newServer(t, restarts)
				s.createTopic("orders", 6)
				ctx := context.Background()
				var members []*franzMember
				for range 3 {
					m, _ := s.newMember("g", opts...)
					members = append(members, m)
				}
				adm := kadm.NewClient(s.franz(kgo.RetryTimeout(time.Minute)))
				until(t, "the group is stable", func() bool { return s.stableWith("g", 3) })
				until(t, "the members know", func() bool {
					all, least := int64(0), int64(6)
					for _, m := range members {
						all, least = all+m.held.Load(), min(least, m.held.Load())
					}
					return all == 6 && least > 0
				})
				const n = 300
				s.fill(n)
				read := func() (all int) {
					for _, m := range members {
						all += m.read()
					}
					return all
				}
				until(t, "the records are read", func() bool { return read() == n })
				for _, m := range members {
					check(t, m.CommitUncommittedOffsets(ctx))
				}
				before := s.generation("g")
				var told [3]int64
				for i, m := range members {
					told[i] = m.told.Load()
				}

				s.kill()
				old := s.coord
				if orderly {
					check(t, old.Close())
				}
				s.start()
				if !orderly {
					t.Cleanup(func() { check(t, old.Close()) })
				}

				w := s.franz(kgo.DefaultProduceTopic("orders"))
				for i := range n {
					check(t, w.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint("after ", i))).FirstErr())
				}
				until(t, "the records after are read", func() bool { return read() == 2*n })
				for _, m := range members {
					check(t, m.CommitUncommittedOffsets(ctx))
				}
				if after := s.generation("g"); after != before {
					t.Errorf("the group was at %v and is at %v", before, after)
				}
				for i, m := range members {
					if now := m.told.Load(); now != told[i] {
						t.Errorf("member %d was told of %d changes, then of %d", i, told[i], now)
					}
				}
				committed, err := adm.FetchOffsets(ctx, "g")
				check(t, err)
				var sum int64
				committed.Each(func(o kadm.OffsetResponse) { sum += o.At })
				if sum != 2*n {
					t.Errorf("committed offsets add up to %d, want %d", sum, 2*n)
				}
				if !orderly {
					if _, ok := old.Groups().Owner("g"); !ok {
						t.Error("the old coordinator knows no owner")
					}
					got := make(chan error, 1)
					old.Groups().Heartbeat("g", &group.HeartbeatRequest{}, func(err error) { got <- err })
					if err := <-got; err != nil && !errors.Is(err, group.ErrNotCoordinator) {
						t.Errorf("the old coordinator answers a heartbeat with %v", err)
					}
				}
			})
		}
	}
}

// stableWith says whether a group of either protocol is stable with so many members.
func (s *server) stableWith(id string, members int) bool {
	g := s.generation(id)
	return g.state == group.Stable && g.members == members
}

// generation is what a rebalance changes of a group.
func (s *server) generation(id string) (g generation) {
	done := make(chan struct{})
	s.coord.Groups().Describe(id, func(d *group.Description, err error) {
		if err == nil {
			g.state, g.members = d.State, len(d.Members)
			for _, m := range d.Members {
				g.assignments += fmt.Sprintf("%s=%x ", m.MemberID, m.Assignment)
			}
		}
		close(done)
	})
	<-done
	consumer := make(chan struct{})
	s.coord.Groups().DescribeConsumer(id, func(d *group.ConsumerDescription, err error) {
		if err == nil {
			g = generation{state: d.State, members: len(d.Members), epoch: d.Epoch}
			for _, m := range d.Members {
				g.assignments += fmt.Sprintf("%s@%d=%v ", m.MemberID, m.MemberEpoch, m.Assignment)
			}
		}
		close(consumer)
	})
	<-consumer
	return g
}

type generation struct {
	state       group.State
	members     int
	epoch       int32
	assignments string
}
