package api

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
)

// viaProxy is a node as the clients of one address see it.
func (n *clusterNode) viaProxy() *server { return &server{t: n.t, addr: n.proxy} }

// TestMembersStayWhileGroupMoves: nobody rebalances, and nobody's commit is lost or goes back,
// when a stable group moves from node to node; and a rebalance that it moves in the middle
// of ends with everybody in it.
func TestMembersStayWhileGroupMoves(t *testing.T) {
	for name, opts := range map[string][]kgo.Opt{
		"classic":  {kgo.Balancers(kgo.CooperativeStickyBalancer())},
		"range":    {kgo.Balancers(kgo.RangeBalancer())},
		"consumer": {kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer())},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3)
			c.t = t
			topic := c.nodes[0].createTopic("orders", 6)
			var slots []int
			for p := range topic.Partitions {
				slots = append(slots, coordinator.PartitionSlot(topic.ID, p))
			}
			// A group of a slot of its own: a reader of a partition that never stays for as long as
			// a Fetch waits gets nothing.
			id := "group"
			for slices.Contains(slots, coordinator.SlotOf(id)) {
				id += "'"
			}
			slots = slices.Insert(slots, 0, coordinator.SlotOf(id))
			var members []*franzMember
			join := func() {
				s := c.nodes[len(members)%3].viaProxy()
				s.t = t
				m, _ := s.newMember(id, opts...)
				members = append(members, m)
			}
			read := func() (n int) {
				for _, m := range members {
					n += m.read()
				}
				return n
			}
			join()
			join()
			joined := func() bool { return c.assigned(id) == len(members) }
			until(t, "both members have partitions", joined)
			until(t, "both members know", func() bool {
				one, two := members[0].held.Load(), members[1].held.Load()
				_, of := members[0].GroupMetadata()
				_, other := members[1].GroupMetadata()
				return one > 0 && two > 0 && one+two == int64(topic.Partitions) && of == other
			})
			before := make([]int64, len(members))
			for i, m := range members {
				before[i] = m.told.Load()
			}
			_, generation := members[0].GroupMetadata()

			stop := c.moveAbout(slots[0])
			s := c.nodes[1].viaProxy()
			s.t = t
			s.fill(300)
			until(t, "everything is read", func() bool { return read() >= 300 })
			for _, m := range members {
				for range 10 {
					check(t, m.CommitUncommittedOffsets(t.Context()))
				}
			}
			stop()
			for i, m := range members {
				if now := m.told.Load(); now != before[i] {
					t.Errorf("member %d was told of %d rebalances while nobody came or went", i, now-before[i])
				}
			}
			if _, now := members[0].GroupMetadata(); now != generation {
				t.Errorf("the generation went from %d to %d while nobody came or went", generation, now)
			}

			// And now in the middle of rebalances.
			stop = c.moveAbout(slots...)
			for range 3 {
				join()
			}
			until(t, "all members have partitions", joined)
			stop()
			until(t, "all members have partitions", joined)
			s.fillMore(300, 300)
			until(t, "everything is read", func() bool { return read() >= 600 })
			for _, m := range members {
				check(t, m.CommitUncommittedOffsets(t.Context()))
			}
			adm := kadm.NewClient(s.franz())
			fetched, err := adm.FetchOffsets(t.Context(), id)
			check(t, err)
			sum := int64(0)
			fetched.Each(func(o kadm.OffsetResponse) { sum += o.At })
			if sum != 600 {
				t.Errorf("%d records are committed, 600 were read", sum)
			}
		})
	}
}

// assigned is how many members of a group have partitions that nobody else has.
func (c *cluster) assigned(id string) int {
	adm := kadm.NewClient(c.nodes[0].viaProxy().franz())
	if d, err := adm.DescribeGroups(c.t.Context(), id); err == nil && d[id].State == "Stable" && d[id].Err == nil && len(d[id].Members) > 0 {
		n, seen := 0, make(map[int32]bool)
		for _, m := range d[id].Members {
			if a, ok := m.Assigned.AsConsumer(); ok && len(a.Topics) == 1 {
				n++
				for _, p := range a.Topics[0].Partitions {
					if seen[p] {
						c.t.Errorf("partition %d is assigned twice", p)
					}
					seen[p] = true
				}
			}
		}
		if len(seen) == 6 {
			return n
		}
	}
	q := kmsg.NewPtrConsumerGroupDescribeRequest()
	q.Groups = []string{id}
	resp := do[*kmsg.ConsumerGroupDescribeResponse](c.nodes[0].dialProxy(), q)
	if g := &resp.Groups[0]; g.ErrorCode == 0 && g.State == "Stable" {
		n := 0
		for i := range g.Members {
			if len(g.Members[i].Assignment.TopicPartitions) > 0 {
				n++
			}
		}
		return n
	}
	return 0
}

// fillMore is fill from a number on.
func (s *server) fillMore(from, n int) {
	s.t.Helper()
	w := s.franz(kgo.DefaultProduceTopic("orders"))
	var failed atomic.Int64
	for i := range n {
		w.Produce(context.Background(), kgo.StringRecord(fmt.Sprint(from+i)), func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Add(1)
			}
		})
	}
	check(s.t, w.Flush(context.Background()))
	if n := failed.Load(); n > 0 {
		s.t.Errorf("%d records were not stored", n)
	}
}
