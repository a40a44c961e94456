package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
)

// records is a batch that is the same in every run.
func (k *talk) records(values ...string) []byte {
	var b batch.Builder
	b.Reset(batch.Plain)
	for i, v := range values {
		b.Add(k.now+int64(i), nil, []byte(v))
	}
	out, err := b.AppendTo(nil)
	check(k.t, err)
	return out
}

// data produces and fetches in every version.
func (k *talk) data() {
	const partitions = 8
	names := []string{"orders", "payments"}
	q := kmsg.NewPtrCreateTopicsRequest()
	for _, name := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, 1
		q.Topics = append(q.Topics, t)
	}
	topics := make(map[string]*coordinator.Topic)
	for _, t := range k.ask(q, 7).(*kmsg.CreateTopicsResponse).Topics {
		topics[t.Topic] = &coordinator.Topic{Name: t.Topic, ID: t.TopicID}
	}
	topics["unknown"] = &coordinator.Topic{Name: "unknown", ID: [16]byte{1}}
	for _, v := range versions(0) {
		for _, all := range []bool{false, true} {
			k.ask(k.produceRequest(v, topics, all), v)
		}
	}
	for _, v := range versions(1) {
		for _, maxBytes := range []int32{1 << 20, 100} {
			f := kmsg.NewPtrFetchRequest()
			f.ReplicaID, f.MinBytes, f.MaxBytes, f.SessionEpoch = -1, 1, 50<<20, -1
			for i, name := range []string{"payments", "unknown", "orders"} {
				for p := range int32(partitions + 1) {
					t := fetchTopic(topics[name], p, int64(p)*3+int64(i))
					t.Partitions[0].PartitionMaxBytes = maxBytes
					if len(f.Topics) > 0 && p > 0 {
						last := &f.Topics[len(f.Topics)-1]
						last.Partitions = append(last.Partitions, t.Partitions...)
					} else {
						f.Topics = append(f.Topics, t)
					}
				}
			}
			k.ask(f, v)
			one := kmsg.NewPtrFetchRequest()
			one.ReplicaID, one.MinBytes, one.MaxBytes, one.SessionEpoch = -1, 1, 50<<20, -1
			one.Topics = append(one.Topics, fetchTopic(topics["orders"], int32(v)%partitions, 1))
			k.ask(one, v)
		}
	}
}

// produceRequest is for every partition of all topics, or for one of one.
func (k *talk) produceRequest(v int16, topics map[string]*coordinator.Topic, all bool) *kmsg.ProduceRequest {
	q := kmsg.NewPtrProduceRequest()
	q.Acks, q.TimeoutMillis = -1, 30_000
	for _, name := range []string{"orders", "unknown", "payments"} {
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.TopicID = name, topics[name].ID
		for p := range int32(9) {
			if !all && (name != "orders" || p != int32(v)%8) {
				continue
			}
			part := kmsg.NewProduceRequestTopicPartition()
			part.Partition = p
			values := []string{fmt.Sprint("value ", v, p), strings.Repeat("x", 50+int(p))}
			switch {
			case p == 5 && all:
				part.Records = []byte("no records at all")
			case v < 2:
				part.Records = messageSet(0, k.now, values...)
			case v == 2:
				part.Records = messageSet(1, k.now, values...)
			default:
				part.Records = k.records(values...)
			}
			t.Partitions = append(t.Partitions, part)
		}
		if len(t.Partitions) > 0 {
			q.Topics = append(q.Topics, t)
		}
	}
	return q
}

// session fetches by steps of a session, at one connection.
func (k *talk) session(v int16) {
	topic := &coordinator.Topic{Name: fmt.Sprint("session", v)}
	q := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic.Name, 8, 1
	q.Topics = append(q.Topics, t)
	topic.ID = k.ask(q, 7).(*kmsg.CreateTopicsResponse).Topics[0].TopicID
	id, epoch := int32(0), int32(0)
	step := func(ask func(*kmsg.FetchRequest)) {
		f := kmsg.NewPtrFetchRequest()
		f.ReplicaID, f.MinBytes, f.MaxBytes = -1, 1, 50<<20
		f.SessionID, f.SessionEpoch = id, epoch
		ask(f)
		resp := k.ask(f, v).(*kmsg.FetchResponse)
		id = resp.SessionID
		epoch++
		last := len(k.told) - 1
		k.told[last] = strings.Replace(k.told[last], fmt.Sprint(`"SessionID":`, id), `"SessionID":"made"`, 1)
	}
	add := func(partition int32, offset int64) func(*kmsg.FetchRequest) {
		return func(f *kmsg.FetchRequest) {
			f.Topics = append(f.Topics, fetchTopic(topic, partition, offset))
		}
	}
	step(func(f *kmsg.FetchRequest) {
		for p := range int32(8) {
			add(p, 0)(f)
		}
	})
	nothing := func(*kmsg.FetchRequest) {}
	step(nothing)
	for p := range int32(8) {
		produce := produceOne(9, topic, p, k.records("a", "b", "c"))
		k.ask(produce, 9)
		if p%2 == 0 {
			step(nothing)
			step(add(p, 3))
			step(nothing)
		}
	}
	step(nothing)
	step(func(f *kmsg.FetchRequest) {
		add(7, 99)(f) // out of range
		forgotten := kmsg.NewFetchRequestForgottenTopic()
		forgotten.Topic, forgotten.TopicID, forgotten.Partitions = topic.Name, topic.ID, []int32{0, 1}
		f.ForgottenTopics = append(f.ForgottenTopics, forgotten)
	})
	step(add(7, 3))
	step(nothing)
}

func compare(t *testing.T, alone, all *talk) {
	t.Helper()
	for i := range alone.told {
		if alone.told[i] != all.told[i] {
			a, b := alone.told[i], all.told[i]
			at := 0
			for at < min(len(a), len(b)) && a[at] == b[at] {
				at++
			}
			from := max(at-300, 0)
			t.Errorf("%.30s: one node says\n…%.600s\nthree nodes say\n…%.600s", a, a[from:], b[from:])
		}
	}
}

// TestSameDataThroughAnyNode: Produce and Fetch through several nodes in turn, behind
// one address, are answered as by one node that is alone, in every version.
func TestSameDataThroughAnyNode(t *testing.T) {
	now := time.Now().UnixMilli()
	alone := newTalk(t, now, newServer(t).dial())
	alone.data()
	c := newCluster(t, 3)
	all := newTalk(t, now, c.nodes[0].dialProxy(), c.nodes[1].dialProxy(), c.nodes[2].dialProxy())
	all.data()
	compare(t, alone, all)
}

// TestSameSessionThroughAnyNode: a fetch session of partitions that several nodes
// serve tells what one of a node alone does.
func TestSameSessionThroughAnyNode(t *testing.T) {
	now := time.Now().UnixMilli()
	alone := newTalk(t, now, newServer(t).dial())
	for v := int16(7); v <= 18; v++ {
		alone.session(v)
	}
	c := newCluster(t, 3)
	all := newTalk(t, now, c.nodes[1].dialProxy())
	for v := int16(7); v <= 18; v++ {
		all.session(v)
	}
	compare(t, alone, all)
}

// TestNodesTold: clients that reach the nodes themselves are told who leads, in Metadata and, from
// the version that can say so on, where they ask the wrong node. Older ones are served.
func TestNodesTold(t *testing.T) {
	c := newCluster(t, 3)
	topic := c.nodes[0].createTopic("orders", 4)
	for p := range topic.Partitions {
		slot := coordinator.PartitionSlot(topic.ID, p)
		owner, other := c.owner(slot), c.other(slot)
		conn := other.dial()
		for v := int16(9); v <= 13; v++ {
			resp := do[*kmsg.ProduceResponse](conn, produceOne(v, topic, p, makeBatch(t, batch.Plain, "a")))
			part := &resp.Topics[0].Partitions[0]
			if v < 10 {
				wantCode(t, "produce v9", part.ErrorCode, protocol.None)
				continue
			}
			wantCode(t, "produce", part.ErrorCode, protocol.NotLeaderOrFollower)
			if part.CurrentLeader.LeaderID != owner.id || len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != owner.id {
				t.Errorf("v%d: leader %d of the nodes %v, want %d", v, part.CurrentLeader.LeaderID, resp.Brokers, owner.id)
			}
		}
		for v := int16(15); v <= 17; v++ {
			resp := do[*kmsg.FetchResponse](conn, fetchOne(v, topic, p, 0))
			part := &resp.Topics[0].Partitions[0]
			if v < 16 {
				wantCode(t, "fetch v15", part.ErrorCode, protocol.None)
				if got := values(t, part.RecordBatches); len(got) != 1 {
					t.Errorf("fetched %v", got)
				}
				continue
			}
			wantCode(t, "fetch", part.ErrorCode, protocol.NotLeaderOrFollower)
			if part.CurrentLeader.LeaderID != owner.id || len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != owner.id {
				t.Errorf("v%d: leader %d of the nodes %v, want %d", v, part.CurrentLeader.LeaderID, resp.Brokers, owner.id)
			}
		}
		for _, v := range versions(3) {
			q := kmsg.NewPtrMetadataRequest()
			q.Version = v
			resp := do[*kmsg.MetadataResponse](conn, q)
			if m := &resp.Topics[0].Partitions[p]; m.ErrorCode != 0 || m.Leader != owner.id {
				t.Errorf("metadata v%d: partition %d has leader %d, want %d", v, p, m.Leader, owner.id)
			}
			resp = do[*kmsg.MetadataResponse](other.dialProxy(), q)
			if len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != virtualNode || resp.Brokers[0].Port != endpoint(t, other.proxy).Port {
				t.Errorf("metadata v%d by the proxy's listener: %v", v, resp.Brokers)
			}
			if m := &resp.Topics[0].Partitions[p]; m.ErrorCode != 0 || m.Leader != virtualNode || v > 0 && resp.ControllerID != virtualNode {
				t.Errorf("metadata v%d by the proxy's listener: leader %d, controller %d", v, m.Leader, resp.ControllerID)
			}
		}
	}
}
