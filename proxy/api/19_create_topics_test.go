package api

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
)

func newCreateTopics(version int16, names ...string) *kmsg.CreateTopicsRequest {
	q := kmsg.NewPtrCreateTopicsRequest()
	q.Version, q.TimeoutMillis = version, 30000
	for _, n := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = n, 2, 1
		q.Topics = append(q.Topics, t)
	}
	return q
}

func TestCreateTopicsEveryVersion(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	for v := int16(0); v <= 7; v++ {
		name := string(rune('a' + v))
		q := newCreateTopics(v, name)
		q.Topics[0].Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: "retention.ms", Value: kmsg.StringPtr("1000")}}
		resp := do[*kmsg.CreateTopicsResponse](c, q)
		out := &resp.Topics[0]
		wantCode(t, "CreateTopics", out.ErrorCode, protocol.None)
		made := s.coord.Topic(name)
		if made == nil || made.Partitions != 2 || made.Config["retention.ms"] != "1000" {
			t.Fatalf("v%d: made %+v", v, made)
		}
		if v >= 5 {
			if out.NumPartitions != 2 || out.ReplicationFactor != 1 || len(out.Configs) < 20 || out.ConfigErrorCode != 0 {
				t.Errorf("v%d: %d partitions, %d replicas, %d configs", v, out.NumPartitions, out.ReplicationFactor, len(out.Configs))
			}
			at := slices.IndexFunc(out.Configs, func(c kmsg.CreateTopicsResponseTopicConfig) bool { return c.Name == "retention.ms" })
			if at < 0 || *out.Configs[at].Value != "1000" || out.Configs[at].Source != 1 {
				t.Errorf("v%d: retention.ms is told as %+v", v, out.Configs[at])
			}
		}
		if v >= 7 && out.TopicID != made.ID {
			t.Errorf("v%d: id %x", v, out.TopicID)
		}
		wantCode(t, "again", do[*kmsg.CreateTopicsResponse](c, q).Topics[0].ErrorCode, protocol.TopicAlreadyExists)
	}
}

func TestCreateTopicsChecks(t *testing.T) {
	s := newServer(t, func(o *options) { o.coord.NumPartitions = 3 })
	s.createTopic("a.b", 1)
	c := s.dial()
	config := func(name string, value *string) func(*kmsg.CreateTopicsRequestTopic) {
		return func(t *kmsg.CreateTopicsRequestTopic) {
			t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: name, Value: value})
		}
	}
	assign := func(replicas ...[]int32) func(*kmsg.CreateTopicsRequestTopic) {
		return func(t *kmsg.CreateTopicsRequestTopic) {
			t.NumPartitions, t.ReplicationFactor = -1, -1
			for i, r := range replicas {
				a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
				a.Partition, a.Replicas = int32(i), r
				t.ReplicaAssignment = append(t.ReplicaAssignment, a)
			}
		}
	}
	for _, tc := range []struct {
		what    string
		version int16
		name    string
		change  func(*kmsg.CreateTopicsRequestTopic)
		want    protocol.Code
	}{
		{"default partitions", 4, "n1", func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions, t.ReplicationFactor = -1, -1 }, protocol.None},
		{"default partitions of old", 3, "n4", func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions = -1 }, protocol.None},
		{"default replicas of the oldest", 0, "n5", func(t *kmsg.CreateTopicsRequestTopic) { t.ReplicationFactor = -1 }, protocol.None},
		{"the controllers'", 7, "__cluster_metadata", nil, protocol.InvalidRequest},
		{"config twice", 7, "n6", func(t *kmsg.CreateTopicsRequestTopic) {
			config("retention.ms", kmsg.StringPtr("soon"))(t)
			config("retention.ms", kmsg.StringPtr("1"))(t)
		}, protocol.None},
		{"no partitions", 7, "x", func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions = 0 }, protocol.InvalidPartitions},
		{"negative partitions", 7, "x", func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions = -2 }, protocol.InvalidPartitions},
		{"too many partitions", 7, "x", func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions = 1 << 30 }, protocol.InvalidPartitions},
		{"no replicas", 7, "x", func(t *kmsg.CreateTopicsRequestTopic) { t.ReplicationFactor = 0 }, protocol.InvalidReplicationFactor},
		{"three replicas on one node", 7, "n2", func(t *kmsg.CreateTopicsRequestTopic) { t.ReplicationFactor = 3 }, protocol.None},
		{"bad name", 7, "a b", nil, protocol.InvalidTopicException},
		{"empty name", 7, "", nil, protocol.InvalidTopicException},
		{"dot", 7, ".", nil, protocol.InvalidTopicException},
		{"collides", 7, "a_b", nil, protocol.InvalidTopicException},
		{"exists", 7, "a.b", nil, protocol.TopicAlreadyExists},
		{"unknown config", 7, "x", config("no.such.config", kmsg.StringPtr("1")), protocol.InvalidConfig},
		{"bad config", 7, "x", config("retention.ms", kmsg.StringPtr("soon")), protocol.InvalidConfig},
		{"null config", 7, "x", config("retention.ms", nil), protocol.InvalidConfig},
		{"assigned", 7, "n3", assign([]int32{1}, []int32{1}), protocol.None},
		{"assigned and counted", 7, "x", func(t *kmsg.CreateTopicsRequestTopic) {
			assign([]int32{1})(t)
			t.NumPartitions = 1
		}, protocol.InvalidRequest},
		{"assigned to nobody", 7, "x", assign([]int32{}), protocol.InvalidReplicaAssignment},
		{"assigned to a stranger", 7, "x", assign([]int32{9}), protocol.InvalidReplicaAssignment},
		{"assigned twice to one", 7, "x", assign([]int32{1, 1}), protocol.InvalidReplicaAssignment},
		{"partition twice", 7, "x", func(t *kmsg.CreateTopicsRequestTopic) {
			assign([]int32{1}, []int32{1})(t)
			t.ReplicaAssignment[1].Partition = 0
		}, protocol.InvalidReplicaAssignment},
		{"partition left out", 7, "x", func(t *kmsg.CreateTopicsRequestTopic) {
			assign([]int32{1}, []int32{1})(t)
			t.ReplicaAssignment[1].Partition = 2
		}, protocol.InvalidReplicaAssignment},
	} {
		q := newCreateTopics(tc.version, tc.name)
		if tc.change != nil {
			tc.change(&q.Topics[0])
		}
		for _, validate := range []bool{true, false} {
			if q.ValidateOnly = validate; validate && tc.version < 1 {
				continue
			}
			out := &do[*kmsg.CreateTopicsResponse](c, q).Topics[0]
			wantCode(t, tc.what, out.ErrorCode, tc.want)
			if out.Topic != tc.name || tc.want != protocol.None && out.ErrorMessage == nil {
				t.Errorf("%s: topic %q, message %v", tc.what, out.Topic, out.ErrorMessage)
			}
			if validate && (out.TopicID != [16]byte{} || tc.want == protocol.None && s.coord.Topic(tc.name) != nil) {
				t.Errorf("%s: it was made by a validation", tc.what)
			}
		}
	}
	if n := s.coord.Topic("n1").Partitions; n != 3 {
		t.Errorf("the default is %d partitions", n)
	}
	q := newCreateTopics(7, "twice", "single", "twice")
	resp := do[*kmsg.CreateTopicsResponse](c, q)
	if len(resp.Topics) != 2 {
		t.Fatalf("%d answers to three topics of two names", len(resp.Topics))
	}
	wantCode(t, "twice", resp.Topics[0].ErrorCode, protocol.InvalidRequest)
	wantCode(t, "single", resp.Topics[1].ErrorCode, protocol.None)
}

func TestDeleteTopics(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	for v := int16(0); v <= 6; v++ {
		topic := s.createTopic("orders", 2)
		c.produce(topic, 0, "a")
		q := kmsg.NewPtrDeleteTopicsRequest()
		q.Version, q.TimeoutMillis = v, 30000
		q.TopicNames = []string{"orders", "nope"}
		q.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: kmsg.StringPtr("orders")}, {Topic: kmsg.StringPtr("nope")}}
		resp := do[*kmsg.DeleteTopicsResponse](c, q)
		wantCode(t, "DeleteTopics", resp.Topics[0].ErrorCode, protocol.None)
		wantCode(t, "unknown", resp.Topics[1].ErrorCode, protocol.UnknownTopicOrPartition)
		if s.coord.Topic("orders") != nil {
			t.Fatalf("v%d: the topic is still there", v)
		}
		p := do[*kmsg.ProduceResponse](c, produceOne(9, topic, 0, makeBatch(t, batch.Plain, "a")))
		wantCode(t, "produce after it", p.Topics[0].Partitions[0].ErrorCode, protocol.UnknownTopicOrPartition)
		again := s.createTopic("orders", 1)
		if base := c.produce(again, 0, "a"); base != 0 || again.ID == topic.ID {
			t.Errorf("v%d: made again it goes on at %d", v, base)
		}
		p = do[*kmsg.ProduceResponse](c, produceOne(13, topic, 0, makeBatch(t, batch.Plain, "a")))
		wantCode(t, "produce by the old id", p.Topics[0].Partitions[0].ErrorCode, protocol.UnknownTopicID)

		if v == 6 {
			str := kmsg.StringPtr
			q.Topics = []kmsg.DeleteTopicsRequestTopic{
				{TopicID: topic.ID}, {Topic: str("orders"), TopicID: again.ID}, {}, {TopicID: again.ID}, {Topic: str("orders")},
				{Topic: str("nope")}, {Topic: str("nope")},
			}
			resp = do[*kmsg.DeleteTopicsResponse](c, q)
			wanted := []protocol.Code{protocol.UnknownTopicID, protocol.InvalidRequest, protocol.InvalidRequest, protocol.InvalidRequest, protocol.InvalidRequest, protocol.InvalidRequest}
			if len(resp.Topics) != len(wanted) {
				t.Fatalf("%d answers: %+v", len(resp.Topics), resp.Topics)
			}
			for i, want := range wanted {
				wantCode(t, "by id", resp.Topics[i].ErrorCode, want)
			}
			if s.coord.Topic("orders") == nil {
				t.Fatal("a topic that is named twice is deleted")
			}
			q.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: again.ID}}
			resp = do[*kmsg.DeleteTopicsResponse](c, q)
			wantCode(t, "by id", resp.Topics[0].ErrorCode, protocol.None)
			if *resp.Topics[0].Topic != "orders" || resp.Topics[0].TopicID != again.ID {
				t.Errorf("deleted by id: %+v", resp.Topics[0])
			}
			break
		}
		check(t, s.handler.deleteTopic(t.Context(), again))
	}
	s.tier.mu.Lock()
	left := len(s.tier.ledgers)
	s.tier.mu.Unlock()
	if left != 0 {
		t.Errorf("%d ledgers are left of deleted topics", left)
	}
}

func TestDeleteTopicsDisabled(t *testing.T) {
	s := newServer(t, func(o *options) { o.config.TopicDeletionDisabled = true })
	s.createTopic("orders", 1)
	c := s.dial()
	for v, want := range map[int16]protocol.Code{2: protocol.InvalidRequest, 3: protocol.TopicDeletionDisabled, 6: protocol.TopicDeletionDisabled} {
		q := kmsg.NewPtrDeleteTopicsRequest()
		q.Version, q.TopicNames, q.Topics = v, []string{"orders"}, []kmsg.DeleteTopicsRequestTopic{{Topic: kmsg.StringPtr("orders")}}
		wantCode(t, "disabled", do[*kmsg.DeleteTopicsResponse](c, q).Topics[0].ErrorCode, want)
	}
}

func TestCreatePartitions(t *testing.T) {
	s := newServer(t)
	s.createTopic("orders", 2)
	c := s.dial()
	ask := func(v int16, topic string, count int32, validate bool, assignment [][]int32) protocol.Code {
		q := kmsg.NewPtrCreatePartitionsRequest()
		q.Version, q.TimeoutMillis, q.ValidateOnly = v, 30000, validate
		qt := kmsg.NewCreatePartitionsRequestTopic()
		qt.Topic, qt.Count = topic, count
		for _, r := range assignment {
			qt.Assignment = append(qt.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: r})
		}
		q.Topics = append(q.Topics, qt)
		out := &do[*kmsg.CreatePartitionsResponse](c, q).Topics[0]
		if (out.ErrorMessage == nil) != (out.ErrorCode == 0) || out.Topic != topic {
			t.Errorf("the answer is %+v", out)
		}
		return protocol.Code(out.ErrorCode)
	}
	for _, tc := range []struct {
		what       string
		topic      string
		count      int32
		validate   bool
		assignment [][]int32
		want       protocol.Code
		after      int32
	}{
		{"as many", "orders", 2, false, nil, protocol.InvalidPartitions, 2},
		{"fewer", "orders", 1, false, nil, protocol.InvalidPartitions, 2},
		{"negative", "orders", -1, false, nil, protocol.InvalidPartitions, 2},
		{"too many", "orders", 1 << 30, false, nil, protocol.InvalidPartitions, 2},
		{"unknown", "nope", 4, false, nil, protocol.UnknownTopicOrPartition, 2},
		{"assignment too short", "orders", 4, false, [][]int32{{1}}, protocol.InvalidReplicaAssignment, 2},
		{"assignment to a stranger", "orders", 3, false, [][]int32{{7}}, protocol.InvalidReplicaAssignment, 2},
		{"validated", "orders", 4, true, nil, protocol.None, 2},
		{"grown", "orders", 4, false, nil, protocol.None, 4},
		{"grown with assignment", "orders", 5, false, [][]int32{{1}}, protocol.None, 5},
	} {
		if code := ask(3, tc.topic, tc.count, tc.validate, tc.assignment); code != tc.want {
			t.Errorf("%s: %s, want %s", tc.what, code.Name(), tc.want.Name())
		}
		if n := s.coord.Topic("orders").Partitions; n != tc.after {
			t.Errorf("%s: %d partitions after it", tc.what, n)
		}
	}
	for v := int16(0); v <= 3; v++ {
		if code := ask(v, "orders", 6+int32(v), false, nil); code != protocol.None {
			t.Errorf("v%d: %s", v, code.Name())
		}
	}
	c.produce(&coordinator.Topic{Name: "orders"}, 8, "to a new partition")
}

func TestDeleteRecords(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 2)
	s.createTopic("table", 1, "cleanup.policy", "compact")
	c := s.dial()
	c.produce(topic, 0, "a", "b")
	c.produce(topic, 0, "c", "d")
	for v := int16(0); v <= 2; v++ {
		for _, tc := range []struct {
			what   string
			topic  string
			offset int64
			want   protocol.Code
			start  int64
		}{
			{"to one", "orders", 1, protocol.None, 1},
			{"back", "orders", 0, protocol.None, 1},
			{"beyond the end", "orders", 5, protocol.OffsetOutOfRange, -1},
			{"negative", "orders", -2, protocol.OffsetOutOfRange, -1},
			{"unknown", "nope", 1, protocol.UnknownTopicOrPartition, -1},
			{"compacted", "table", 0, protocol.PolicyViolation, -1},
		} {
			q := kmsg.NewPtrDeleteRecordsRequest()
			q.Version, q.TimeoutMillis = v, 30000
			q.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: tc.topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: tc.offset}}}}
			p := &do[*kmsg.DeleteRecordsResponse](c, q).Topics[0].Partitions[0]
			wantCode(t, tc.what, p.ErrorCode, tc.want)
			if p.LowWatermark != tc.start {
				t.Errorf("v%d %s: low watermark %d, want %d", v, tc.what, p.LowWatermark, tc.start)
			}
		}
	}
	// The batch that holds the start is served whole.
	p := &do[*kmsg.FetchResponse](c, fetchOne(11, topic, 0, 1)).Topics[0].Partitions[0]
	if got := values(t, p.RecordBatches); p.LogStartOffset != 1 || len(got) != 4 {
		t.Errorf("after it, the log starts at %d with %v", p.LogStartOffset, got)
	}
	q := kmsg.NewPtrDeleteRecordsRequest()
	q.Version, q.TimeoutMillis = 2, 30000
	q.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "orders", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: -1}}}}
	if p := &do[*kmsg.DeleteRecordsResponse](c, q).Topics[0].Partitions[0]; p.LowWatermark != 4 {
		t.Errorf("all: low watermark %d", p.LowWatermark)
	}
}
