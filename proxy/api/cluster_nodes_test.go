package api

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/proxy/forward"
	"github.com/quirelog/quire/storage/meta"
)

// TestOwnerDies: a request that waits at a node which dies is answered by the next
// coordinator of its group, with the member and what was committed still there.
func TestOwnerDies(t *testing.T) {
	c := newCluster(t, 3)
	topic := c.nodes[0].createTopic("orders", 1)
	owner := c.nodes[2]
	id := owner.groupOf(0)
	w := c.nodes[0].dialProxy()
	j := w.stable(id)
	q := newCommitRequest(8, id, topic, 0, 42)
	q.MemberID, q.Generation = j.MemberID, j.Generation
	wantCode(t, "commit", w.commit(q), protocol.None)

	// A new member makes the group wait for the one that is there.
	other := c.nodes[1].dialProxy()
	first := do[*kmsg.JoinGroupResponse](other, newJoin(5, id, ""))
	wantCode(t, "join", first.ErrorCode, protocol.MemberIDRequired)
	join := newJoin(5, id, first.MemberID)
	other.send(join)
	until(t, "the group rebalances", func() bool {
		return do[*kmsg.HeartbeatResponse](w, newHeartbeat(4, id, j.MemberID, j.Generation)).ErrorCode == int16(protocol.RebalanceInProgress)
	})
	owner.end(false)
	resp, err := other.receive(join)
	check(t, err)
	// It has never been in a generation, so that nothing of it is stored.
	wantCode(t, "join of a new member", resp.(*kmsg.JoinGroupResponse).ErrorCode, protocol.UnknownMemberID)
	wantCode(t, "heartbeat", do[*kmsg.HeartbeatResponse](w, newHeartbeat(4, id, j.MemberID, j.Generation)).ErrorCode, protocol.None)
	if code, found := other.fetchOffsets(9, id, topic, 0); code != protocol.None || found[0].offset != 42 {
		t.Errorf("%v is committed (%s)", found, code.Name())
	}
	q.Topics[0].Partitions[0].Offset = 43
	wantCode(t, "commit", w.commit(q), protocol.None)
}

// TestClientsThatKnowNodes are told by who does not serve what they ask for, except
// to delete records, which any node has done.
func TestClientsThatKnowNodes(t *testing.T) {
	c := newCluster(t, 2)
	topic := c.nodes[0].createTopic("orders", 1)
	slot := coordinator.PartitionSlot(topic.ID, 0)
	c.owner(slot).dialProxy().produce(topic, 0, "a", "b", "c")
	stranger := c.other(slot).dial()
	for v := int16(0); v <= 11; v++ {
		p := &do[*kmsg.ListOffsetsResponse](stranger, listOffset(v, topic, 0, -1)).Topics[0].Partitions[0]
		wantCode(t, fmt.Sprint("ListOffsets v", v), p.ErrorCode, protocol.NotLeaderOrFollower)
	}
	q := kmsg.NewPtrDeleteRecordsRequest()
	q.Version, q.TimeoutMillis = 2, 10_000
	dt := kmsg.NewDeleteRecordsRequestTopic()
	dt.Topic = "orders"
	dt.Partitions = []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: 2}}
	q.Topics = append(q.Topics, dt)
	if p := &do[*kmsg.DeleteRecordsResponse](stranger, q).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.LowWatermark != 2 {
		t.Errorf("DeleteRecords answers %+v", p)
	}

	id := c.nodes[0].groupOf(0)
	stranger = c.nodes[1].dial()
	wantCode(t, "JoinGroup", do[*kmsg.JoinGroupResponse](stranger, newJoin(5, id, "")).ErrorCode, protocol.NotCoordinator)
	wantCode(t, "Heartbeat", do[*kmsg.HeartbeatResponse](stranger, newHeartbeat(4, id, "me", 1)).ErrorCode, protocol.NotCoordinator)
	wantCode(t, "OffsetCommit", stranger.commit(newCommitRequest(8, id, topic, 0, 1)), protocol.NotCoordinator)
	for v := int16(2); v <= 9; v++ {
		if code, _ := stranger.fetchOffsets(v, id, topic, 0); code != protocol.NotCoordinator {
			t.Errorf("OffsetFetch v%d: %s", v, code.Name())
		}
	}
	wantCode(t, "commit at the owner", c.nodes[0].dial().commit(newCommitRequest(8, id, topic, 0, 1)), protocol.None)
	list := func(cl *client) int {
		resp := do[*kmsg.ListGroupsResponse](cl, &kmsg.ListGroupsRequest{Version: 4})
		wantCode(t, "ListGroups", resp.ErrorCode, protocol.None)
		return len(resp.Groups)
	}
	if at, strangers := list(c.nodes[0].dial()), list(stranger); at != 1 || strangers != 0 {
		t.Errorf("the owner lists %d groups, the other node %d", at, strangers)
	}
}

// unreachable is a way to other nodes on which some calls do not leave, as over a link to
// a node that is about to end.
type unreachable struct {
	forward.Sender
	left atomic.Int32 // calls that do not
}

func (u *unreachable) Send(node int32, c *forward.Call) {
	if u.left.Add(-1) >= 0 {
		c.Done(c, forward.Answer{Status: forward.Failed, Err: fmt.Errorf("node %d: %w: it is about to end", node, forward.ErrUnreachable)})
		return
	}
	u.Sender.Send(node, c)
}

func unreliably(p *forward.Peers) forward.Sender { return &unreachable{Sender: p} }

// TestAskedUntilAnswered: what is asked of several nodes is not given up since one of them
// cannot be reached for a moment.
func TestAskedUntilAnswered(t *testing.T) {
	c := newCluster(t, 2, func(o *options) {
		o.config.Broker = []BrokerConfig{{Name: "log.dirs", Value: "x"}}
		o.way = unreliably
	})
	n, other := c.nodes[0], c.nodes[1]
	topic := n.createTopic("orders", 8)
	for p := range topic.Partitions {
		n.dialProxy().produce(topic, p, "a")
	}
	id := other.groupOf(0)
	way := n.handler.c.Peers.(*unreachable)
	r := n.dialProxy()
	wantCode(t, "commit", r.commit(newCommitRequest(8, id, topic, 0, 1)), protocol.None)
	for name, ask := range map[string]func() int16{
		"ListGroups": func() int16 { return do[*kmsg.ListGroupsResponse](r, &kmsg.ListGroupsRequest{Version: 4}).ErrorCode },
		"DescribeLogDirs": func() int16 {
			return do[*kmsg.DescribeLogDirsResponse](r, &kmsg.DescribeLogDirsRequest{Version: 4}).ErrorCode
		},
		"DescribeGroups": func() int16 {
			q := kmsg.NewPtrDescribeGroupsRequest()
			q.Version, q.Groups = 5, []string{id}
			return do[*kmsg.DescribeGroupsResponse](r, q).Groups[0].ErrorCode
		},
		"ListOffsets": func() int16 {
			worst := int16(0)
			for p := range topic.Partitions {
				part := &do[*kmsg.ListOffsetsResponse](r, listOffset(7, topic, p, -1)).Topics[0].Partitions[0]
				worst = max(worst, part.ErrorCode)
			}
			return worst
		},
		"OffsetFetch": func() int16 {
			code, _ := r.fetchOffsets(9, id, topic, 0)
			return int16(code)
		},
		"DescribeConfigs of a broker": func() int16 {
			q := kmsg.NewPtrDescribeConfigsRequest()
			q.Version = 4
			res := kmsg.NewDescribeConfigsRequestResource()
			res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeBroker, fmt.Sprint(other.id)
			q.Resources = append(q.Resources, res)
			return do[*kmsg.DescribeConfigsResponse](r, q).Resources[0].ErrorCode
		},
	} {
		way.left.Store(3)
		wantCode(t, name, ask(), protocol.None)
		if left := way.left.Load(); left >= 0 {
			t.Errorf("%s: nobody was asked", name)
		}
	}
}

// TestBrokersByName: every node can be asked for its own configuration by way of
// any other, and the one node that clients of one address know is whoever answers.
func TestBrokersByName(t *testing.T) {
	c := newCluster(t, 2, func(o *options) { o.config.Broker = []BrokerConfig{{Name: "log.dirs", Value: "x"}} })
	q := kmsg.NewPtrDescribeConfigsRequest()
	q.Version = 4
	for _, name := range []string{"0", "1", "2", "3", "x"} {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeBroker, name
		q.Resources = append(q.Resources, r)
	}
	for _, n := range c.nodes {
		for i, out := range do[*kmsg.DescribeConfigsResponse](n.dialProxy(), q).Resources {
			want := protocol.None
			if i > 2 {
				want = protocol.InvalidRequest
			}
			wantCode(t, "broker "+out.ResourceName, out.ErrorCode, want)
			if out.ResourceName != q.Resources[i].ResourceName || want == protocol.None && len(out.Configs) != 1 {
				t.Errorf("broker %s is described by %+v", q.Resources[i].ResourceName, out)
			}
		}
	}
}

// deaf is a metadata store whose watches of topics bring nothing.
type deaf struct{ meta.Store }

func (d deaf) Watch(ctx context.Context, prefix string, after meta.Revision) <-chan meta.Events {
	if !strings.HasSuffix(prefix, "/t/") {
		return d.Store.Watch(ctx, prefix, after)
	}
	events := make(chan meta.Events)
	go func() {
		<-ctx.Done()
		close(events)
	}()
	return events
}

// TestTopicsOfOtherNodes: what was done through one node is known to another, also before
// the watch has brought it.
func TestTopicsOfOtherNodes(t *testing.T) {
	c := newCluster(t, 2, func(o *options) { o.config.AutoCreateTopics = false })
	n := c.add(func(o *options) {
		o.config.AutoCreateTopics = false
		o.coord.Meta = deaf{c.meta}
	})
	c.settle()
	for i := range 20 {
		name := fmt.Sprint("topic", i)
		topic := c.nodes[i%2].createTopic(name, 1)
		r := n.dialProxy()
		switch i % 4 {
		case 0:
			wantCode(t, "ListOffsets", do[*kmsg.ListOffsetsResponse](r, listOffset(7, topic, 0, -1)).Topics[0].Partitions[0].ErrorCode, protocol.None)
		case 1:
			wantCode(t, "OffsetCommit", r.commit(newCommitRequest(8+int16(i%3), fmt.Sprint("g", i), topic, 0, 1)), protocol.None)
		case 2:
			q := kmsg.NewPtrMetadataRequest()
			q.Version = 12
			mt := kmsg.NewMetadataRequestTopic()
			mt.TopicID = topic.ID
			q.Topics = append(q.Topics, mt)
			wantCode(t, "Metadata", do[*kmsg.MetadataResponse](r, q).Topics[0].ErrorCode, protocol.None)
		case 3:
			describe := func() int16 {
				q := kmsg.NewPtrDescribeConfigsRequest()
				q.Version = 4
				dr := kmsg.NewDescribeConfigsRequestResource()
				dr.ResourceType, dr.ResourceName, dr.ConfigNames = kmsg.ConfigResourceTypeTopic, name, []string{"retention.ms"}
				q.Resources = append(q.Resources, dr)
				out := do[*kmsg.DescribeConfigsResponse](r, q).Resources[0]
				if out.ErrorCode == 0 && *out.Configs[0].Value != "1234567" {
					t.Errorf("retention.ms is %s", *out.Configs[0].Value)
				}
				return out.ErrorCode
			}
			_, err := c.nodes[0].coord.AlterTopicConfig(t.Context(), name, false, func(m map[string]string) (map[string]string, error) {
				m["retention.ms"] = "1234567"
				return m, nil
			})
			check(t, err)
			wantCode(t, "DescribeConfigs", describe(), protocol.None)
			check(t, c.nodes[0].coord.DeleteTopic(t.Context(), name, topic.ID))
			wantCode(t, "DescribeConfigs of a topic that is gone", describe(), protocol.UnknownTopicOrPartition)
		}
	}
}

// away is a metadata store that can be out of reach.
type away struct {
	meta.Store
	gone atomic.Bool
}

func (a *away) err() error {
	if a.gone.Load() {
		return meta.ErrUnavailable
	}
	return nil
}

func (a *away) Get(ctx context.Context, key string) (meta.KV, error) {
	if err := a.err(); err != nil {
		return meta.KV{}, err
	}
	return a.Store.Get(ctx, key)
}

func (a *away) List(ctx context.Context, prefix string, f func(meta.KV) bool) (meta.Revision, error) {
	if err := a.err(); err != nil {
		return 0, err
	}
	return a.Store.List(ctx, prefix, f)
}

func (a *away) Txn(ctx context.Context, conds []meta.Cond, ops []meta.Op) (meta.Revision, bool, error) {
	if err := a.err(); err != nil {
		return 0, false, err
	}
	return a.Store.Txn(ctx, conds, ops)
}

func (a *away) KeepAlive(ctx context.Context, id meta.LeaseID) (int64, error) {
	if err := a.err(); err != nil {
		return 0, err
	}
	return a.Store.KeepAlive(ctx, id)
}

// stuck is a metadata store that does not answer for a key.
type stuck struct {
	meta.Store
	key    string
	asked  atomic.Int32
	answer chan struct{}
}

func (s *stuck) Get(ctx context.Context, key string) (meta.KV, error) {
	if strings.HasSuffix(key, s.key) {
		s.asked.Add(1)
		select {
		case <-s.answer:
		case <-ctx.Done():
			return meta.KV{}, meta.ErrUnavailable
		}
	}
	return s.Store.Get(ctx, key)
}

// TestWorkersWhileMetadataIsSlow: however many clients wait for the metadata store, what
// others read from disk, or have converted, does not wait behind them.
func TestWorkersWhileMetadataIsSlow(t *testing.T) {
	c := newCluster(t, 0)
	store := &stuck{Store: c.meta, key: "/nextproducerid", answer: make(chan struct{})}
	n := c.add(func(o *options) { o.coord.Meta = store })
	c.settle()
	topic := n.createTopic("orders", 1)
	r := n.dial()
	r.produce(topic, 0, "a")
	q := kmsg.NewPtrInitProducerIDRequest()
	q.Version, q.ProducerID, q.ProducerEpoch = 4, -1, -1
	var waiting []*client
	for range 2 * clusterWorkers {
		cl := n.dial()
		cl.send(q)
		waiting = append(waiting, cl)
	}
	until(t, "the metadata store is asked", func() bool { return store.asked.Load() > 0 })
	if part := do[*kmsg.FetchResponse](r, fetchOne(1, topic, 0, 0)).Topics[0].Partitions[0]; len(part.RecordBatches) == 0 {
		t.Errorf("a fetch whose records are converted gets %+v", part)
	}
	do[*kmsg.DescribeLogDirsResponse](r, &kmsg.DescribeLogDirsRequest{Version: 4})
	close(store.answer)
	for _, cl := range waiting {
		resp, err := cl.receive(q)
		check(t, err)
		wantCode(t, "InitProducerId", resp.(*kmsg.InitProducerIDResponse).ErrorCode, protocol.None)
	}
}

// TestNothingFromMemoryWithoutLease: a node whose lease may be over, and that cannot ask,
// tells neither the end of a log nor what is committed, nor a producer that its sequence is
// wrong; and does again when it can ask.
func TestNothingFromMemoryWithoutLease(t *testing.T) {
	var skew atomic.Int64
	c := newCluster(t, 1)
	store := &away{Store: c.meta}
	n := c.add(func(o *options) {
		o.coord.Meta = store
		o.coord.Clock = func() (time.Duration, time.Time) {
			now := time.Now().Add(time.Duration(skew.Load()))
			return time.Duration(now.UnixNano()), now
		}
	})
	c.settle()
	id := n.groupOf(0)
	topic := n.createTopic("orders", 64)
	partition := int32(0)
	for !n.coord.Route(coordinator.PartitionSlot(topic.ID, partition)).Here {
		partition++
	}
	r := n.dial()
	r.produce(topic, partition, "a")
	wantCode(t, "commit", r.commit(newCommitRequest(8, id, topic, 0, 7)), protocol.None)
	ends := func() (codes [3]protocol.Code) {
		codes[0] = protocol.Code(do[*kmsg.ListOffsetsResponse](r, listOffset(7, topic, partition, -1)).Topics[0].Partitions[0].ErrorCode)
		q := kmsg.NewPtrOffsetForLeaderEpochRequest()
		q.Version, q.ReplicaID = 4, -1
		qt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		qt.Topic = "orders"
		qt.Partitions = []kmsg.OffsetForLeaderEpochRequestTopicPartition{{Partition: partition, CurrentLeaderEpoch: -1}}
		q.Topics = append(q.Topics, qt)
		codes[1] = protocol.Code(do[*kmsg.OffsetForLeaderEpochResponse](r, q).Topics[0].Partitions[0].ErrorCode)
		codes[2], _ = r.fetchOffsets(9, id, topic, 0)
		return codes
	}
	if got := ends(); got != [3]protocol.Code{} {
		t.Fatalf("with a lease: %v", got)
	}
	parts := func(v int16) (parts bool) {
		q := fetchOne(v, topic, partition, 5)
		q.Topics[0].Partitions[0].LastFetchedEpoch = 0
		part := do[*kmsg.FetchResponse](r, q).Topics[0].Partitions[0]
		if code := protocol.Code(part.ErrorCode); code != protocol.None && code != protocol.NotLeaderOrFollower {
			t.Errorf("a fetch v%d of a client that knows more: %s", v, code.Name())
		}
		return part.DivergingEpoch.EndOffset >= 0
	}
	for _, v := range []int16{12, 16} {
		if !parts(v) {
			t.Errorf("a fetch v%d is not told where the logs part", v)
		}
	}
	send := func(sequence int32) int16 {
		h := batch.Plain
		h.ProducerID, h.ProducerEpoch, h.BaseSequence = 77, 0, sequence
		q := produceOne(9, topic, partition, makeBatch(t, h, "b"))
		return do[*kmsg.ProduceResponse](r, q).Topics[0].Partitions[0].ErrorCode
	}
	gap := func() int16 { return send(5) }
	wantCode(t, "the first batch", send(0), protocol.None)
	wantCode(t, "a gap with a lease", gap(), protocol.OutOfOrderSequenceNumber)
	store.gone.Store(true)
	skew.Store(int64(time.Hour))
	wantCode(t, "a gap without a lease", gap(), protocol.NotLeaderOrFollower)
	for i, got := range ends() {
		if got == protocol.None || !got.Retriable() {
			t.Errorf("question %d without a lease: %s", i, got.Name())
		}
	}
	for _, v := range []int16{12, 16} {
		if parts(v) {
			t.Errorf("a fetch v%d is told where the logs part without a lease", v)
		}
	}
	store.gone.Store(false)
	until(t, "the node tells again", func() bool { return ends() == [3]protocol.Code{} })
	if !parts(12) {
		t.Error("a fetch is not told where the logs part any more")
	}
	wantCode(t, "a gap that was asked about", gap(), protocol.OutOfOrderSequenceNumber)
}
