package api

import (
	"fmt"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
)

func TestDescribeCluster(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	for v := int16(0); v <= 2; v++ {
		q := kmsg.NewPtrDescribeClusterRequest()
		q.Version, q.EndpointType, q.IncludeClusterAuthorizedOperations = v, 1, true
		resp := do[*kmsg.DescribeClusterResponse](c, q)
		if resp.ErrorCode != 0 || resp.ClusterID != s.coord.ClusterID() || resp.ControllerID != 1 || resp.ClusterAuthorizedOperations != authorizedCluster {
			t.Errorf("v%d: %+v", v, resp)
		}
		if len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != 1 || resp.Brokers[0].Host != "127.0.0.1" || resp.Brokers[0].Port == 0 || *resp.Brokers[0].Rack != "r1" || resp.Brokers[0].IsFenced {
			t.Errorf("v%d: brokers %+v", v, resp.Brokers)
		}
		if v == 0 {
			continue
		}
		q.EndpointType = 2
		wantCode(t, "controllers", do[*kmsg.DescribeClusterResponse](c, q).ErrorCode, protocol.MismatchedEndpointType)
		q.EndpointType = 3
		wantCode(t, "unknown type", do[*kmsg.DescribeClusterResponse](c, q).ErrorCode, protocol.UnsupportedEndpointType)
	}
}

func TestDescribeTopicPartitions(t *testing.T) {
	s := newServer(t)
	ids := map[string][16]byte{}
	for i, name := range []string{"a", "b", "c"} {
		ids[name] = s.createTopic(name, int32(i+2)).ID
	}
	c := s.dial()
	type cursor = kmsg.DescribeTopicPartitionsRequestCursor
	ask := func(limit int32, at *cursor, names ...string) *kmsg.DescribeTopicPartitionsResponse {
		q := kmsg.NewPtrDescribeTopicPartitionsRequest()
		q.ResponsePartitionLimit, q.Cursor = limit, at
		for _, n := range names {
			q.Topics = append(q.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: n})
		}
		return do[*kmsg.DescribeTopicPartitionsResponse](c, q)
	}
	show := func(resp *kmsg.DescribeTopicPartitionsResponse) string {
		out := ""
		for _, t := range resp.Topics {
			out += *t.Topic
			if t.ErrorCode != 0 {
				out += "!" + protocol.Code(t.ErrorCode).Name()
			}
			for _, p := range t.Partitions {
				out += fmt.Sprint(p.Partition)
			}
			out += " "
		}
		if n := resp.NextCursor; n != nil {
			out += fmt.Sprintf("→%s%d", n.Topic, n.Partition)
		}
		return out
	}
	for _, tc := range []struct {
		what  string
		limit int32
		at    *cursor
		names []string
		want  string
	}{
		{"all", 2000, nil, nil, "a01 b012 c0123 "},
		{"named, in order, once", 2000, nil, []string{"c", "a", "c"}, "a01 c0123 "},
		{"unknown and bad names", 2000, nil, []string{"b", "aa", "a b"}, "a b!INVALID_TOPIC_EXCEPTION aa!UNKNOWN_TOPIC_OR_PARTITION b012 "},
		{"first page", 4, nil, nil, "a01 b01 →b2"},
		{"second page", 4, &cursor{Topic: "b", Partition: 2}, nil, "b2 c012 →c3"},
		{"last page", 4, &cursor{Topic: "c", Partition: 3}, nil, "c3 "},
		{"page that ends with a topic", 2, nil, nil, "a01 →b0"},
		{"limit of nothing", 0, nil, nil, "a0 →a1"},
		{"cursor at a topic that is gone", 2000, &cursor{Topic: "aa", Partition: 1}, nil, "b012 c0123 "},
		{"cursor that was not asked for", 2000, &cursor{Topic: "b"}, []string{"a", "c"}, "a!INVALID_REQUEST c!INVALID_REQUEST "},
		{"negative cursor", 2000, &cursor{Topic: "a", Partition: -1}, []string{"a"}, "a!INVALID_REQUEST "},
		{"cursor behind the last partition", 2000, &cursor{Topic: "a", Partition: 7}, []string{"a", "b"}, "a b012 "},
		{"cursor at the end of numbers", 2000, &cursor{Topic: "a", Partition: math.MaxInt32}, []string{"a", "b"}, "a b012 "},
	} {
		if got := show(ask(tc.limit, tc.at, tc.names...)); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.what, got, tc.want)
		}
	}
	topic := ask(2000, nil, "b").Topics[0]
	p := &topic.Partitions[0]
	if topic.TopicID != ids["b"] || p.LeaderID != 1 || len(p.Replicas) != 1 || len(p.ISR) != 1 || p.EligibleLeaderReplicas == nil || p.LastKnownELR == nil {
		t.Errorf("partition %+v of %x", p, topic.TopicID)
	}
}

func TestDescribeLogDirs(t *testing.T) {
	s := newServer(t, func(o *options) { o.config.LogDir = "/data" })
	topic := s.createTopic("orders", 2)
	s.createTopic("other", 1)
	c := s.dial()
	c.produce(topic, 1, "a")
	for v := int16(0); v <= 5; v++ {
		q := kmsg.NewPtrDescribeLogDirsRequest()
		q.Version = v
		resp := do[*kmsg.DescribeLogDirsResponse](c, q)
		if len(resp.Dirs) != 1 || resp.Dirs[0].Dir != "/data" || resp.Dirs[0].ErrorCode != 0 || len(resp.Dirs[0].Topics) != 2 {
			t.Fatalf("v%d: %+v", v, resp)
		}
		ps := resp.Dirs[0].Topics[0].Partitions
		if len(ps) != 2 || ps[0].Size != 0 || ps[1].Size == 0 || ps[1].OffsetLag != 0 || ps[1].IsFuture {
			t.Errorf("v%d: partitions %+v", v, ps)
		}
		if v >= 4 && (resp.Dirs[0].TotalBytes != -1 || resp.Dirs[0].UsableBytes != -1) {
			t.Errorf("v%d: bytes of %+v", v, resp.Dirs[0])
		}
		q.Topics = []kmsg.DescribeLogDirsRequestTopic{{Topic: "orders", Partitions: []int32{1, 7}}, {Topic: "nope", Partitions: []int32{0}}}
		q.Topics = append(q.Topics, kmsg.DescribeLogDirsRequestTopic{Topic: "other"}, kmsg.DescribeLogDirsRequestTopic{Topic: "other", Partitions: []int32{1}})
		resp = do[*kmsg.DescribeLogDirsResponse](c, q)
		if ts := resp.Dirs[0].Topics; len(ts) != 1 || len(ts[0].Partitions) != 1 || ts[0].Partitions[0].Partition != 1 {
			t.Errorf("v%d: asked for one, told of %+v", v, ts)
		}
	}
}

func TestDescribeProducers(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 2)
	c := s.dial()
	h := batch.Plain
	h.ProducerID, h.ProducerEpoch, h.BaseSequence = 77, 3, 0
	resp := do[*kmsg.ProduceResponse](c, produceOne(9, topic, 0, makeBatch(t, h, "a", "b")))
	wantCode(t, "produce", resp.Topics[0].Partitions[0].ErrorCode, protocol.None)
	q := kmsg.NewPtrDescribeProducersRequest()
	q.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "orders", Partitions: []int32{0, 1, 2}}, {Topic: "nope", Partitions: []int32{0}}, {Topic: "a b", Partitions: []int32{0}}}
	d := do[*kmsg.DescribeProducersResponse](c, q)
	ps := d.Topics[0].Partitions
	if len(ps[0].ActiveProducers) != 1 || len(ps[1].ActiveProducers) != 0 {
		t.Fatalf("producers are %+v", ps)
	}
	p := ps[0].ActiveProducers[0]
	if p.ProducerID != 77 || p.ProducerEpoch != 3 || p.LastSequence != 1 || p.CurrentTxnStartOffset != -1 {
		t.Errorf("the producer is %+v", p)
	}
	wantCode(t, "partition", ps[2].ErrorCode, protocol.UnknownTopicOrPartition)
	wantCode(t, "topic", d.Topics[1].Partitions[0].ErrorCode, protocol.UnknownTopicOrPartition)
	wantCode(t, "impossible topic", d.Topics[2].Partitions[0].ErrorCode, protocol.InvalidTopicException)
}

func TestInitProducerID(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	str := kmsg.StringPtr
	seen := map[int64]bool{}
	for v := int16(0); v <= 5; v++ {
		for _, tc := range []struct {
			what  string
			txn   *string
			id    int64
			epoch int16
			want  protocol.Code
		}{
			{"new", nil, -1, -1, protocol.None},
			{"again", nil, 5, 1, protocol.None},
			{"id without epoch", nil, 5, -1, protocol.InvalidRequest},
			{"epoch without id", nil, -1, 5, protocol.InvalidRequest},
			{"no transactional id", str(""), -1, -1, protocol.InvalidRequest},
			{"transactional", str("t"), -1, -1, protocol.CoordinatorNotAvailable},
		} {
			want := tc.want
			if v < 3 && tc.txn == nil {
				want = protocol.None // id and epoch are not sent
			}
			q := kmsg.NewPtrInitProducerIDRequest()
			q.Version, q.TransactionalID, q.TransactionTimeoutMillis = v, tc.txn, 60000
			q.ProducerID, q.ProducerEpoch = tc.id, tc.epoch
			resp := do[*kmsg.InitProducerIDResponse](c, q)
			wantCode(t, tc.what, resp.ErrorCode, want)
			if want != protocol.None {
				if resp.ProducerID != -1 || resp.ProducerEpoch != -1 {
					t.Errorf("v%d %s: %+v", v, tc.what, resp)
				}
				continue
			}
			if resp.ProducerEpoch != 0 || resp.ProducerID < 0 || seen[resp.ProducerID] {
				t.Errorf("v%d %s: id %d epoch %d", v, tc.what, resp.ProducerID, resp.ProducerEpoch)
			}
			seen[resp.ProducerID] = true
		}
	}
}
