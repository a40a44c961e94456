package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/quirelog/quire/protocol"
)

// commitOne commits one partition's offset for nobody in particular.
func (c *client) commitOne(id, topic string, partition int32, offset int64) {
	c.t.Helper()
	q := kmsg.NewPtrOffsetCommitRequest()
	q.Version, q.Group, q.Generation = 8, id, -1
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset = partition, offset
	q.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
	wantCode(c.t, "OffsetCommit", do[*kmsg.OffsetCommitResponse](c, q).Topics[0].Partitions[0].ErrorCode, protocol.None)
}

// lags are the series that a collector of lag gives, sorted.
func lags(t *testing.T, c prometheus.Collector) []string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
			}
			all = append(all, fmt.Sprintf("%s %s %v", strings.TrimPrefix(f.GetName(), "quire_group_lag"), strings.Join(labels, "/"), m.Gauge.GetValue()))
		}
	}
	slices.Sort(all)
	return all
}

func TestGroupLag(t *testing.T) {
	core, seen := observer.New(zap.InfoLevel)
	s := newGroupServer(t, func(o *options) { o.config.Logger = zap.New(core) })
	topic := s.createTopic("orders", 2)
	s.createTopic("idle", 1)
	c := s.dial()
	c.produce(topic, 0, "a", "b", "c")
	c.commitOne("billing", "orders", 0, 1)
	c.commitOne("billing", "orders", 1, 0)
	c.commitOne("audit", "orders", 0, 3)
	c.commitOne("ahead", "orders", 0, 5)
	c.commitOne("unread", "idle", 0, 0) // its log is not open
	c.commitOne("a/b \x00", "orders", 0, 0)
	c.commitOne("\xff", "orders", 0, 0) // which no label can hold

	want := []string{
		" a/b \x00/0/orders 3", " ahead/0/orders -2", " audit/0/orders 0", " billing/0/orders 2", " billing/1/orders 0",
		" unread/0/idle 0", "_left_out  1",
	}
	if got := lags(t, s.handler.GroupLag(100)); !slices.Equal(got, want) {
		t.Errorf("lag is %q, want %q", got, want)
	}
	if n := seen.FilterMessageSnippet("lag").Len(); n != 0 {
		t.Errorf("%d lines about lag, want none", n)
	}

	few := s.handler.GroupLag(2)
	first := lags(t, few)
	if len(first) != 3 || first[2] != "_left_out  5" {
		t.Errorf("of at most two series there are %q", first)
	}
	if again := lags(t, few); !slices.Equal(first, again) {
		t.Errorf("series change between two looks: %q, then %q", first, again)
	}
	if n := seen.FilterMessageSnippet("raise metrics.group.lag.max.series").Len(); n != 1 {
		t.Errorf("%d lines say that some are left out, want one", n)
	}
}

// TestGroupLagOfOtherNodes: each node tells of the groups that it coordinates, wherever
// their partitions are served, and of none that another one coordinates.
func TestGroupLagOfOtherNodes(t *testing.T) {
	c := newCluster(t, 3)
	topic, other := c.nodes[0].createTopic("orders", 12), c.nodes[1].createTopic("payments", 1)
	cl := c.nodes[0].dialProxy()
	for p := range topic.Partitions {
		cl.produce(topic, p, "a", "b", "c")
	}
	cl.produce(other, 0, "a")
	var want [3][]string
	for i, n := range c.nodes {
		for k := range 2 {
			id := n.groupOf(k)
			for p := range topic.Partitions {
				cl.commitOne(id, "orders", p, int64(p%3))
				want[i] = append(want[i], fmt.Sprintf(" %s/%d/orders %d", id, p, 3-p%3))
			}
			cl.commitOne(id, "payments", 0, 0)
			want[i] = append(want[i], fmt.Sprintf(" %s/0/payments 1", id))
		}
	}
	for i, n := range c.nodes {
		want[i] = append(want[i], "_left_out  0")
		slices.Sort(want[i])
		if got := lags(t, n.handler.GroupLag(100)); !slices.Equal(got, want[i]) {
			t.Errorf("node %d tells %q, want %q", n.id, got, want[i])
		}
	}
	few := lags(t, c.nodes[0].handler.GroupLag(20))
	if len(few) != 21 || few[20] != "_left_out  6" {
		t.Errorf("of at most 20 series there are %q", few)
	}
}
