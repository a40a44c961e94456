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
