package api

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol/batch"
)

// talk asks one question after another, each at the next of some connections, and
// writes down what is answered. Two talks can be compared: what a server makes up, the
// ids of topics and members, is written by the order in which it was first told.
type talk struct {
	t       *testing.T
	now     int64 // ms since 1970, of the records
	conns   []*client
	asked   int
	told    []string // by question
	made    map[string]string
	topicID map[string][16]byte
}

func newTalk(t *testing.T, now int64, conns ...*client) *talk {
	return &talk{t: t, now: now, conns: conns, made: make(map[string]string), topicID: make(map[string][16]byte)}
}

// answerTime is how long one question may take. What nobody serves is told only after
// maxRouteWait, so that a part of a question which has got lost does not look like it.
const answerTime = 12 * time.Second

// ask sends q in a version and returns the answer.
func (k *talk) ask(q kmsg.Request, version int16) kmsg.Response {
	k.t.Helper()
	q.SetVersion(version)
	c := k.conns[k.asked%len(k.conns)]
	k.asked++
	check(k.t, c.conn.SetDeadline(time.Now().Add(answerTime)))
	c.send(q)
	resp, err := c.receive(q)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		k.t.Fatalf("question %d, %s v%d: no answer within %v: is a part of it with nobody?", k.asked, kmsg.NameForKey(q.Key()), version, answerTime)
	}
	if err != nil {
		k.t.Fatalf("%s v%d: %v", kmsg.NameForKey(q.Key()), version, err)
	}
	k.learn(reflect.ValueOf(resp))
	text, err := json.Marshal(resp)
	check(k.t, err)
	out := string(text)
	for made, name := range k.made {
		out = strings.ReplaceAll(out, made, name)
	}
	k.told = append(k.told, fmt.Sprintf("%s v%d: %s", kmsg.NameForKey(q.Key()), version, out))
	return resp
}

// learn finds what the server has made up.
func (k *talk) learn(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			k.learn(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			k.learn(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Field(i)
			switch v.Type().Field(i).Name {
			case "MemberID", "LeaderID":
				if id, ok := f.Interface().(string); ok && id != "" {
					k.name(`"`+id+`"`, "member")
					// newSync makes assignments of ids.
					assigned, _ := json.Marshal([]byte("for " + id))
					k.name(string(assigned), "assignment")
				}
			case "TopicID":
				if id, ok := f.Interface().([16]byte); ok && id != [16]byte{} {
					text, _ := json.Marshal(id)
					k.name(string(text), "topic")
				}
			case "LastTimestamp":
				f.SetInt(0)
			case "RecordBatches":
				forgetEpochs(f.Bytes())
			default:
				k.learn(f)
			}
		}
	}
}

// forgetEpochs empties the leader epochs of batches: a slot of a cluster may change hands.
func forgetEpochs(records []byte) {
	const size, epoch, magic = 8, 12, 16
	for len(records) > magic && records[magic] == 2 {
		clear(records[epoch:magic])
		records = records[min(12+int(binary.BigEndian.Uint32(records[size:])), len(records)):]
	}
}

func (k *talk) name(made, kind string) {
	if _, known := k.made[made]; !known {
		k.made[made] = fmt.Sprintf(`"%s %d"`, kind, len(k.made))
	}
}

// everything asks everything that is not about who leads what, in every version. It
// is the same for every server.
func (k *talk) everything() {
	k.topics()
	k.logs()
	k.groups()
	k.ends()
}

func versions(key int16) (all []int16) {
	row := index(table)[key]
	for v := row.min; v <= row.max; v++ {
		all = append(all, v)
	}
	return all
}

func (k *talk) topics() {
	for _, v := range versions(19) {
		q := kmsg.NewPtrCreateTopicsRequest()
		for _, name := range []string{fmt.Sprint("topic", v), fmt.Sprint("topic", v, ".other"), "topic0", ""} {
			t := kmsg.NewCreateTopicsRequestTopic()
			t.Topic, t.NumPartitions, t.ReplicationFactor = name, 8, 1
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = "retention.ms", kmsg.StringPtr("3600000")
			t.Configs = append(t.Configs, c)
			q.Topics = append(q.Topics, t)
		}
		for _, t := range k.ask(q, v).(*kmsg.CreateTopicsResponse).Topics {
			k.topicID[t.Topic] = t.TopicID
		}
	}
	for _, v := range versions(37) {
		q := kmsg.NewPtrCreatePartitionsRequest()
		for name, count := range map[string]int32{fmt.Sprint("topic", v): 9} {
			t := kmsg.NewCreatePartitionsRequestTopic()
			t.Topic, t.Count = name, count
			q.Topics = append(q.Topics, t)
		}
		unknown := kmsg.NewCreatePartitionsRequestTopic()
		unknown.Topic, unknown.Count = "unknown", 3
		q.Topics = append(q.Topics, unknown)
		k.ask(q, v)
	}
	for _, v := range versions(33) {
		q := kmsg.NewPtrAlterConfigsRequest()
		for _, name := range []string{fmt.Sprint("topic", v), "unknown"} {
			r := kmsg.NewAlterConfigsRequestResource()
			r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, name
			c := kmsg.NewAlterConfigsRequestResourceConfig()
			c.Name, c.Value = "segment.bytes", kmsg.StringPtr(fmt.Sprint(1_000_000+int(v)))
			r.Configs = append(r.Configs, c)
			q.Resources = append(q.Resources, r)
		}
		k.ask(q, v)
	}
	for _, v := range versions(44) {
		q := kmsg.NewPtrIncrementalAlterConfigsRequest()
		r := kmsg.NewIncrementalAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, "topic0"
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Value = "retention.ms", kmsg.StringPtr(fmt.Sprint(7_000_000+int(v)))
		r.Configs = append(r.Configs, c)
		q.Resources = append(q.Resources, r)
		k.ask(q, v)
	}
	for _, v := range versions(32) {
		q := kmsg.NewPtrDescribeConfigsRequest()
		for _, name := range []string{"topic0", "topic1", "unknown"} {
			r := kmsg.NewDescribeConfigsRequestResource()
			r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, name
			r.ConfigNames = []string{"retention.ms", "segment.bytes"}
			q.Resources = append(q.Resources, r)
		}
		k.ask(q, v)
	}
	for _, v := range versions(43) {
		q := kmsg.NewPtrElectLeadersRequest()
		t := kmsg.NewElectLeadersRequestTopic()
		t.Topic, t.Partitions = "topic0", []int32{0, 7, 99}
		q.Topics = append(q.Topics, t)
		k.ask(q, v)
	}
}

func (k *talk) logs() {
	for p := range int32(8) {
		var b batch.Builder
		b.Reset(batch.Plain)
		for i := range int64(5) {
			b.Add(k.now-int64(p)*100+i, nil, []byte("x"))
		}
		records, err := b.AppendTo(nil)
		check(k.t, err)
		resp := k.ask(produceOne(9, &coordinator.Topic{Name: "topic0"}, p, records), 9).(*kmsg.ProduceResponse)
		wantCode(k.t, "produce", resp.Topics[0].Partitions[0].ErrorCode, 0)
	}
	named := []string{"topic0", "unknown", "topic0", "topic1"}
	partitions := [][]int32{{3, 0, 7, 99}, {0, 1}, {5, -1}, {0, 1, 2, 3, 4, 5, 6, 7, 7}}
	for _, v := range versions(21) {
		q := kmsg.NewPtrDeleteRecordsRequest()
		q.TimeoutMillis = 10_000
		for i, name := range named {
			t := kmsg.NewDeleteRecordsRequestTopic()
			t.Topic = name
			for _, p := range partitions[i] {
				d := kmsg.NewDeleteRecordsRequestTopicPartition()
				d.Partition, d.Offset = p, int64(v)
				t.Partitions = append(t.Partitions, d)
			}
			q.Topics = append(q.Topics, t)
		}
		k.ask(q, v)
	}
	for _, v := range versions(2) {
		for _, timestamp := range []int64{-1, -2, k.now - 300, -3} {
			q := kmsg.NewPtrListOffsetsRequest()
			q.ReplicaID, q.TimeoutMillis = -1, 10_000
			for i, name := range named {
				t := kmsg.NewListOffsetsRequestTopic()
				t.Topic = name
				for _, p := range partitions[i] {
					a := kmsg.NewListOffsetsRequestTopicPartition()
					a.Partition, a.Timestamp, a.CurrentLeaderEpoch, a.MaxNumOffsets = p, timestamp, -1, 5
					t.Partitions = append(t.Partitions, a)
				}
				q.Topics = append(q.Topics, t)
			}
			k.ask(q, v)
		}
	}
	for _, v := range versions(23) {
		q := kmsg.NewPtrOffsetForLeaderEpochRequest()
		q.ReplicaID = -1
		for i, name := range named {
			t := kmsg.NewOffsetForLeaderEpochRequestTopic()
			t.Topic = name
			for _, p := range partitions[i] {
				a := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
				a.Partition, a.LeaderEpoch, a.CurrentLeaderEpoch = p, 0, -1
				t.Partitions = append(t.Partitions, a)
			}
			q.Topics = append(q.Topics, t)
		}
		k.ask(q, v)
	}
	for _, v := range versions(61) {
		q := kmsg.NewPtrDescribeProducersRequest()
		for i, name := range named {
			t := kmsg.NewDescribeProducersRequestTopic()
			t.Topic, t.Partitions = name, partitions[i]
			q.Topics = append(q.Topics, t)
		}
		k.ask(q, v)
	}
	for _, v := range versions(35) {
		q := kmsg.NewPtrDescribeLogDirsRequest()
		t := kmsg.NewDescribeLogDirsRequestTopic()
		t.Topic, t.Partitions = "topic0", []int32{0, 5, 99}
		q.Topics = append(q.Topics, t)
		k.ask(q, v)
		k.ask(kmsg.NewPtrDescribeLogDirsRequest(), v)
	}
}

func (k *talk) groups() {
	topic := &coordinator.Topic{Name: "topic7", ID: k.topicID["topic7"]}
	for v := int16(0); v <= 10; v++ {
		id := fmt.Sprint("g", v)
		join := newJoin(0, id, "")
		j := k.ask(join, min(v, 9)).(*kmsg.JoinGroupResponse)
		if v >= 4 {
			join.MemberID = j.MemberID
			j = k.ask(join, min(v, 9)).(*kmsg.JoinGroupResponse)
		}
		k.ask(newSync(0, id, j), min(v, 5))
		for _, generation := range []int32{1, 2} {
			k.ask(newHeartbeat(0, id, j.MemberID, generation), min(v, 4))
		}
		for p := range int32(4) {
			q := newCommitRequest(0, id, topic, p, 100+int64(v))
			q.MemberID, q.Generation = j.MemberID, 1
			k.ask(q, v)
		}
		k.ask(newCommitRequest(0, id, topic, 0, 7), v) // of nobody
		k.ask(newCommitRequest(0, "", topic, 99, 7), v)
		for _, asked := range []string{id, "unknown"} {
			q := kmsg.NewPtrOffsetFetchRequest()
			q.Group = asked
			q.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "topic7", Partitions: []int32{0, 1, 2, 3, 99}}, {Topic: "none", Partitions: []int32{0}}}
			if v < 8 {
				k.ask(q, v)
			}
		}
		d := kmsg.NewPtrOffsetDeleteRequest()
		d.Group = id
		d.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: "topic7", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 3}, {Partition: 99}}}}
		k.ask(d, 0)
		if v%2 == 0 {
			q := kmsg.NewPtrLeaveGroupRequest()
			q.Group, q.MemberID = id, j.MemberID
			m := kmsg.NewLeaveGroupRequestMember()
			m.MemberID = j.MemberID
			q.Members = append(q.Members, m)
			k.ask(q, min(v, 5))
			k.ask(q, min(v, 5))
		}
	}
	for _, v := range versions(68) {
		for _, id := range []string{"modern 1", "modern 2", "modern 3"} {
			q := kmsg.NewPtrConsumerGroupHeartbeatRequest()
			q.Group, q.MemberID, q.RebalanceTimeoutMillis = id, fmt.Sprint("member of mine ", v), 10_000
			q.SubscribedTopicNames, q.Topics = []string{"topic0"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			k.ask(q, v)
		}
	}
	ids := []string{"g3", "unknown", "g1", "modern 1", "g2", "", "modern 2", "g10"}
	for _, v := range versions(9) {
		if v < 8 {
			continue
		}
		q := kmsg.NewPtrOffsetFetchRequest()
		for _, id := range ids {
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group = id
			g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: "topic7", TopicID: topic.ID, Partitions: []int32{0, 1, 99}}}
			q.Groups = append(q.Groups, g)
			g.Topics = nil
			q.Groups = append(q.Groups, g)
		}
		k.ask(q, v)
	}
	for _, v := range versions(15) {
		q := kmsg.NewPtrDescribeGroupsRequest()
		q.Groups = ids
		k.ask(q, v)
	}
	for _, v := range versions(69) {
		q := kmsg.NewPtrConsumerGroupDescribeRequest()
		q.Groups = ids
		k.ask(q, v)
	}
	for _, v := range versions(16) {
		k.ask(kmsg.NewPtrListGroupsRequest(), v)
		q := kmsg.NewPtrListGroupsRequest()
		q.StatesFilter = []string{"stable"}
		k.ask(q, v)
	}
	for _, v := range versions(66) {
		k.ask(kmsg.NewPtrListTransactionsRequest(), v)
	}
	for _, v := range versions(42) {
		q := kmsg.NewPtrDeleteGroupsRequest()
		q.Groups = []string{fmt.Sprint("g", 2*v), "g1", "unknown", fmt.Sprint("g", 2*v)}
		k.ask(q, v)
	}
}

func (k *talk) ends() {
	for _, v := range versions(20) {
		q := kmsg.NewPtrDeleteTopicsRequest()
		for _, name := range []string{fmt.Sprint("topic", v), "unknown"} {
			q.TopicNames = append(q.TopicNames, name)
			t := kmsg.NewDeleteTopicsRequestTopic()
			t.Topic = kmsg.StringPtr(name)
			q.Topics = append(q.Topics, t)
		}
		k.ask(q, v)
	}
	for _, v := range versions(22) {
		q := kmsg.NewPtrInitProducerIDRequest()
		q.ProducerID, q.ProducerEpoch = -1, -1
		resp := k.ask(q, v).(*kmsg.InitProducerIDResponse)
		wantCode(k.t, "InitProducerId", resp.ErrorCode, 0)
		k.told = k.told[:len(k.told)-1] // the ids of nodes come from blocks of their own
	}
}

// TestSameThroughAnyNode: whatever is asked of several nodes in turn, behind one address, is
// answered as by one node that is alone, in every version.
func TestSameThroughAnyNode(t *testing.T) {
	now := time.Now().UnixMilli()
	alone := newTalk(t, now, newGroupServer(t).dial())
	alone.everything()
	c := newCluster(t, 3)
	all := newTalk(t, now, c.nodes[0].dialProxy(), c.nodes[1].dialProxy(), c.nodes[2].dialProxy())
	all.everything()
	for i := range alone.told {
		if alone.told[i] != all.told[i] {
			t.Errorf("one node says\n%s\nthree nodes say\n%s", alone.told[i], all.told[i])
		}
	}
}
