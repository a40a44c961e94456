package clients

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var franzBalancers = map[string]kgo.GroupBalancer{
	"range":              kgo.RangeBalancer(),
	"roundrobin":         kgo.RoundRobinBalancer(),
	"sticky":             kgo.StickyBalancer(),
	"cooperative-sticky": kgo.CooperativeStickyBalancer(),
}

var franzMembers = []memberKind{
	{library: "franz-go", protocol: "classic", assignor: "range", static: true, start: startFranz, short: true},
	{library: "franz-go", protocol: "classic", assignor: "roundrobin", static: true, start: startFranz, short: true},
	{library: "franz-go", protocol: "classic", assignor: "sticky", static: true, start: startFranz, short: true},
	{library: "franz-go", protocol: "classic", assignor: "cooperative-sticky", static: true, start: startFranz, short: true},
	// Not static: at this version the last heartbeat, with epoch -2, does not
	// say the instance id, and is refused for that.
	{library: "franz-go", protocol: "consumer", assignor: "range", start: startFranz848, short: true},
	{library: "franz-go", protocol: "consumer", assignor: "uniform", start: startFranz848, short: true},
}

func startFranz(t *testing.T, o memberOptions) *member {
	return startFranzWith(t, o, kgo.Balancers(franzBalancers[o.assignor]), kgo.HeartbeatInterval(memberHeartbeat), kgo.SessionTimeout(memberSession))
}

// startFranz848 names the server's assignor by the balancer that stands for
// it: anything sticky is uniform.
func startFranz848(t *testing.T, o memberOptions) *member {
	balancer := kgo.RangeBalancer()
	if o.assignor == "uniform" {
		balancer = kgo.CooperativeStickyBalancer()
	}
	return startFranzWith(t, o, kgo.ServerSideBalancer(), kgo.Balancers(balancer))
}

func startFranzWith(t *testing.T, o memberOptions, opts ...kgo.Opt) *member {
	t.Helper()
	m := newMember(t, "franz-go "+o.instance)
	if o.instance != "" {
		opts = append(opts, kgo.InstanceID(o.instance))
	}
	revoke := func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { m.revoke(parts[o.topic]...) }
	client, err := kgo.NewClient(append(opts,
		kgo.SeedBrokers(broker.Addr()), kgo.ConsumerGroup(o.group), kgo.ConsumeTopics(o.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.FetchMaxWait(250*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { m.assign(parts[o.topic]...) }),
		kgo.OnPartitionsRevoked(revoke), kgo.OnPartitionsLost(revoke))...)
	if err != nil {
		t.Fatal(err)
	}
	stop := background(func(ctx context.Context) {
		for ctx.Err() == nil {
			fetches := client.PollFetches(ctx)
			for _, e := range fetches.Errors() {
				if !errors.Is(e.Err, context.Canceled) {
					m.fail(e.Err)
				}
			}
			fetches.EachRecord(func(r *kgo.Record) { m.record(r.Partition, r.Offset) })
			if fetches.NumRecords() > 0 {
				if err := client.CommitUncommittedOffsets(ctx); err != nil && ctx.Err() == nil {
					m.fail(err)
				}
			}
		}
	})
	m.stop = func() error {
		stop()
		ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
		defer cancel()
		err := client.LeaveGroupContext(ctx) // a classic static member stays
		client.Close()
		return err
	}
	return m
}
