package api

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
)

func metadataOf(version int16, allow bool, names ...string) *kmsg.MetadataRequest {
	q := kmsg.NewPtrMetadataRequest()
	q.Version, q.AllowAutoTopicCreation = version, allow
	q.Topics = []kmsg.MetadataRequestTopic{}
	for _, n := range names {
		q.Topics = append(q.Topics, kmsg.MetadataRequestTopic{Topic: kmsg.StringPtr(n)})
	}
	return q
}

func topicNames(resp *kmsg.MetadataResponse) []string {
	var out []string
	for _, t := range resp.Topics {
		out = append(out, *t.Topic)
	}
	return out
}

func TestMetadataTellsWhatThereIs(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 3)
	s.createTopic("__consumer_offsets", 1)
	c := s.dial()
	for v := int16(0); v <= 13; v++ {
		resp := do[*kmsg.MetadataResponse](c, metadataOf(v, false, "orders", "orders"))
		if len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != 1 || resp.Brokers[0].Host != "127.0.0.1" || resp.Brokers[0].Port == 0 {
			t.Fatalf("v%d: brokers are %+v", v, resp.Brokers)
		}
		if v >= 1 && (resp.ControllerID != 1 || *resp.Brokers[0].Rack != "r1") {
			t.Errorf("v%d: controller %d, rack %v", v, resp.ControllerID, resp.Brokers[0].Rack)
		}
		if v >= 2 && *resp.ClusterID != s.coord.ClusterID() {
			t.Errorf("v%d: cluster id %q", v, *resp.ClusterID)
		}
		wantCode(t, "top", resp.ErrorCode, protocol.None)
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 3 {
			t.Fatalf("v%d: topics are %+v", v, resp.Topics)
		}
		if v >= 10 && resp.Topics[0].TopicID != topic.ID {
			t.Errorf("v%d: topic id %x", v, resp.Topics[0].TopicID)
		}
		for i, p := range resp.Topics[0].Partitions {
			if p.Partition != int32(i) || p.Leader != 1 || p.ErrorCode != 0 || !slices.Equal(p.Replicas, []int32{1}) || !slices.Equal(p.ISR, p.Replicas) {
				t.Errorf("v%d: partition %d is %+v", v, i, p)
			}
			if v >= 7 && p.LeaderEpoch < 0 {
				t.Errorf("v%d: leader epoch %d", v, p.LeaderEpoch)
			}
		}
	}
	resp := do[*kmsg.MetadataResponse](c, metadataOf(9, false, "__consumer_offsets", "orders"))
	if !resp.Topics[0].IsInternal || resp.Topics[1].IsInternal {
		t.Error("internal topics are not told from others")
	}
}

func TestMetadataOfAllTopics(t *testing.T) {
	s := newServer(t)
	s.createTopic("a", 1)
	s.createTopic("b", 1)
	c := s.dial()
	for v := int16(0); v <= 13; v++ {
		none := do[*kmsg.MetadataResponse](c, metadataOf(v, true))
		all := none
		if v > 0 {
			if len(none.Topics) != 0 {
				t.Errorf("v%d: an empty list is answered with %v", v, topicNames(none))
			}
			q := metadataOf(v, true)
			q.Topics = nil
			all = do[*kmsg.MetadataResponse](c, q)
		}
		if got := topicNames(all); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("v%d: all topics are %v", v, got)
		}
	}
}

func TestMetadataOfManyTopics(t *testing.T) {
	s := newServer(t)
	q := kmsg.NewPtrCreateTopicsRequest()
	q.Version, q.TimeoutMillis = 5, 30_000
	var names []string
	for i := range metadataListed + 1 {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = fmt.Sprintf("topic%04d", i), 1, 1
		q.Topics = append(q.Topics, topic)
		names = append(names, topic.Topic)
	}
	c := s.dial()
	do[*kmsg.CreateTopicsResponse](c, q)
	all := metadataOf(9, true)
	all.Topics = nil
	if got := topicNames(do[*kmsg.MetadataResponse](c, all)); !slices.Equal(got, names) {
		t.Errorf("%d topics are told of %d", len(got), len(names))
	}
}

func TestMetadataCreatesTopics(t *testing.T) {
	for _, tc := range []struct {
		what    string
		enabled bool
		version int16
		allow   bool
		name    string
		want    protocol.Code
	}{
		{"v0 always may", true, 0, false, "new", protocol.None},
		{"v3 always may", true, 3, false, "new", protocol.None},
		{"v4 asked to", true, 4, true, "new", protocol.None},
		{"v4 asked not to", true, 4, false, "new", protocol.UnknownTopicOrPartition},
		{"v13 asked to", true, 13, true, "new", protocol.None},
		{"disabled", false, 13, true, "new", protocol.UnknownTopicOrPartition},
		{"disabled for old clients", false, 0, false, "new", protocol.UnknownTopicOrPartition},
		{"bad name", true, 9, true, "a b", protocol.InvalidTopicException},
		{"bad name, asked not to", true, 9, false, "a b", protocol.InvalidTopicException},
		{"empty name", true, 9, true, "", protocol.InvalidTopicException},
		{"collides", true, 9, true, "taken.name", protocol.InvalidTopicException},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := newServer(t, func(o *options) {
				o.config.AutoCreateTopics = tc.enabled
				o.coord.NumPartitions = 2
			})
			s.createTopic("taken_name", 1)
			resp := do[*kmsg.MetadataResponse](s.dial(), metadataOf(tc.version, tc.allow, tc.name))
			wantCode(t, tc.name, resp.Topics[0].ErrorCode, tc.want)
			made := s.coord.Topic(tc.name)
			if (made != nil) != (tc.want == protocol.None) {
				t.Errorf("the topic made is %+v", made)
			}
			if made != nil && (made.Partitions != 2 || len(resp.Topics[0].Partitions) != 2) {
				t.Errorf("%d partitions made, %d told", made.Partitions, len(resp.Topics[0].Partitions))
			}
		})
	}
}

func TestMetadataByID(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	q := kmsg.NewPtrMetadataRequest()
	q.Version = 12
	name := kmsg.StringPtr("orders")
	q.Topics = []kmsg.MetadataRequestTopic{{TopicID: topic.ID}, {TopicID: [16]byte{1, 2}}, {}, {Topic: name}}
	resp := do[*kmsg.MetadataResponse](c, q)
	if len(resp.Topics) != 2 {
		t.Fatalf("topics are %+v", resp.Topics)
	}
	for i, want := range []protocol.Code{protocol.None, protocol.UnknownTopicID} {
		at := slices.IndexFunc(resp.Topics, func(t kmsg.MetadataResponseTopic) bool { return t.TopicID == q.Topics[i].TopicID })
		if at < 0 {
			t.Fatalf("no answer to %x", q.Topics[i].TopicID)
		}
		got := &resp.Topics[at]
		wantCode(t, "by id", got.ErrorCode, want)
		if known := want == protocol.None; known && *got.Topic != "orders" || !known && got.Topic != nil {
			t.Errorf("%x is answered with %+v", q.Topics[i].TopicID, got)
		}
	}
}

// TestMetadataByIDTooEarly: ids are told from v10 on and may be asked for from v12 on.
func TestMetadataByIDTooEarly(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	name := kmsg.StringPtr("orders")
	for v := int16(10); v <= 12; v++ {
		for _, topics := range [][]kmsg.MetadataRequestTopic{{{TopicID: topic.ID}}, {{Topic: name, TopicID: topic.ID}}, {{Topic: name}, {}}} {
			q := kmsg.NewPtrMetadataRequest()
			q.Version, q.Topics = v, topics
			resp := do[*kmsg.MetadataResponse](c, q)
			if v == 12 {
				if len(resp.Brokers) != 1 || resp.ControllerID != 1 {
					t.Errorf("v%d: %+v", v, resp)
				}
				continue
			}
			if len(resp.Topics) != len(topics) || len(resp.Brokers) != 0 || resp.ControllerID != -1 || resp.ClusterID != nil {
				t.Errorf("v%d: %+v", v, resp)
			}
			for i := range resp.Topics {
				wantCode(t, "too early", resp.Topics[i].ErrorCode, protocol.InvalidRequest)
			}
		}
	}
}

func TestMetadataAuthorizedOperations(t *testing.T) {
	s := newServer(t)
	s.createTopic("orders", 1)
	c := s.dial()
	const notAsked = -2147483648
	q := metadataOf(8, false, "orders")
	resp := do[*kmsg.MetadataResponse](c, q)
	if resp.AuthorizedOperations != notAsked || resp.Topics[0].AuthorizedOperations != notAsked {
		t.Errorf("not asked for: %d, %d", resp.AuthorizedOperations, resp.Topics[0].AuthorizedOperations)
	}
	q.IncludeClusterAuthorizedOperations, q.IncludeTopicAuthorizedOperations = true, true
	resp = do[*kmsg.MetadataResponse](c, q)
	if resp.AuthorizedOperations != authorizedCluster || resp.Topics[0].AuthorizedOperations != authorizedTopic {
		t.Errorf("asked for: %d, %d", resp.AuthorizedOperations, resp.Topics[0].AuthorizedOperations)
	}
}

// TestMetadataWithoutListener: a leader that lacks the client's listener.
func TestMetadataWithoutListener(t *testing.T) {
	s := newServer(t, func(o *options) { o.otherListener = true })
	s.createTopic("orders", 1)
	c := s.dial()
	for v, want := range map[int16]protocol.Code{5: protocol.LeaderNotAvailable, 6: protocol.ListenerNotFound, 13: protocol.ListenerNotFound} {
		resp := do[*kmsg.MetadataResponse](c, metadataOf(v, false, "orders"))
		p := &resp.Topics[0].Partitions[0]
		wantCode(t, "partition", p.ErrorCode, want)
		if p.Leader != -1 || len(resp.Brokers) != 0 {
			t.Errorf("v%d: leader %d, brokers %+v", v, p.Leader, resp.Brokers)
		}
	}
}
