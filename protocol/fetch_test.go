package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func randomFetchRequest(r random, version int16) *kmsg.FetchRequest {
	k := kmsg.NewPtrFetchRequest()
	k.Version = version
	flexible := version >= fetchFlexible
	k.MaxWaitMillis, k.MinBytes = r.i32(), r.i32()
	if version <= 14 {
		k.ReplicaID = r.i32()
	}
	if version >= 3 {
		k.MaxBytes = r.i32()
	}
	if version >= 4 {
		k.IsolationLevel = int8(r.i32())
	}
	if version >= 7 {
		k.SessionID, k.SessionEpoch = r.i32(), r.i32()
		k.ForgottenTopics = make([]kmsg.FetchRequestForgottenTopic, r.count())
	}
	if version >= 11 {
		k.Rack = r.str()
	}
	if flexible {
		k.ClusterID = r.nullable()
		r.tags(&k.UnknownTags)
	}
	if version >= 15 && r.n(1) == 0 {
		k.ReplicaState.ID, k.ReplicaState.Epoch = r.i32(), r.i64()
		r.tags(&k.ReplicaState.UnknownTags)
	}
	k.Topics = make([]kmsg.FetchRequestTopic, r.count())
	for i := range k.Topics {
		t := &k.Topics[i]
		t.Topic, t.TopicID = nameOrID(r, version)
		t.Partitions = make([]kmsg.FetchRequestTopicPartition, r.count())
		for j := range t.Partitions {
			p := &t.Partitions[j]
			p.Default()
			p.Partition, p.FetchOffset, p.PartitionMaxBytes = r.i32(), r.i64(), r.i32()
			if version >= 5 {
				p.LogStartOffset = r.i64()
			}
			if version >= 9 {
				p.CurrentLeaderEpoch = r.i32()
			}
			if flexible {
				p.LastFetchedEpoch = r.i32()
				p.HighWatermark = r.i64()
				p.ReplicaDirectoryID = r.id()
				r.tags(&p.UnknownTags)
			}
		}
		if flexible {
			r.tags(&t.UnknownTags)
		}
	}
	for i := range k.ForgottenTopics {
		t := &k.ForgottenTopics[i]
		t.Topic, t.TopicID = nameOrID(r, version)
		for range r.count() {
			t.Partitions = append(t.Partitions, r.i32())
		}
		if flexible {
			r.tags(&t.UnknownTags)
		}
	}
	return k
}

func nameOrID(r random, version int16) (string, [16]byte) {
	if version >= fetchTopicIDs {
		return "", r.id()
	}
	return r.str(), [16]byte{}
}

func diffFetchRequest(f *FetchRequest, k *kmsg.FetchRequest) string {
	replica := k.ReplicaID
	if k.Version >= 15 {
		replica = k.ReplicaState.ID
	}
	if f.ReplicaID != replica || k.Version >= 15 && f.ReplicaEpoch != k.ReplicaState.Epoch {
		return fmt.Sprintf("replica %d, epoch %d", f.ReplicaID, f.ReplicaEpoch)
	}
	if f.MaxWaitMillis != k.MaxWaitMillis || f.MinBytes != k.MinBytes || f.MaxBytes != k.MaxBytes ||
		f.IsolationLevel != k.IsolationLevel || f.SessionID != k.SessionID || f.SessionEpoch != k.SessionEpoch || f.RackID != k.Rack {
		return fmt.Sprintf("top level %+v", *f)
	}
	if k.ClusterID != nil && *k.ClusterID != f.ClusterID || k.ClusterID == nil && f.ClusterID != "" {
		return fmt.Sprintf("cluster id %q", f.ClusterID)
	}
	if len(f.Topics) != len(k.Topics) || len(f.Forgotten) != len(k.ForgottenTopics) {
		return fmt.Sprintf("%d topics, %d forgotten", len(f.Topics), len(f.Forgotten))
	}
	for i := range k.Topics {
		got, want := &f.Topics[i], &k.Topics[i]
		if got.Name != want.Topic || got.ID != want.TopicID || len(got.Partitions) != len(want.Partitions) {
			return fmt.Sprintf("topic %d: %q %x with %d partitions", i, got.Name, got.ID, len(got.Partitions))
		}
		for j := range want.Partitions {
			w := &want.Partitions[j]
			p := FetchRequestPartition{w.Partition, w.CurrentLeaderEpoch, w.FetchOffset, w.LastFetchedEpoch, w.LogStartOffset, w.PartitionMaxBytes}
			if got.Partitions[j] != p {
				return fmt.Sprintf("topic %d partition %d: %+v, want %+v", i, j, got.Partitions[j], p)
			}
		}
	}
	for i := range k.ForgottenTopics {
		got, want := &f.Forgotten[i], &k.ForgottenTopics[i]
		if got.Name != want.Topic || got.ID != want.TopicID || !slices.Equal(got.Partitions, want.Partitions) {
			return fmt.Sprintf("forgotten topic %d: %+v, want %+v", i, *got, *want)
		}
	}
	return ""
}

func TestFetchRequestEqualsKmsg(t *testing.T) {
	var f FetchRequest
	for version := int16(0); version <= MaxFetchVersion; version++ {
		for seed := range uint64(60) {
			want := randomFetchRequest(newRandom(seed), version)
			body := want.AppendTo(nil)
			if err := f.Parse(append(body, "ignored"...), version); err != nil {
				t.Fatalf("v%d seed %d: %v", version, seed, err)
			}
			if d := diffFetchRequest(&f, want); d != "" {
				t.Fatalf("v%d seed %d: %s", version, seed, d)
			}
			for cut := 0; cut < len(body); cut += 1 + cut/10 {
				if err := f.Parse(body[:cut], version); !errors.Is(err, ErrMalformed) {
					t.Fatalf("v%d seed %d: cut off after %d of %d bytes: %v", version, seed, cut, len(body), err)
				}
				if len(f.Topics)+len(f.Forgotten) > 0 {
					t.Fatal("a malformed request has topics")
				}
			}
		}
	}
}

const (
	head0  = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // v0: replica id, max wait, min bytes
	head12 = head0 + head0 + "\x00"                             // v12: and max bytes, isolation level, session
)

var malformedFetch = []struct {
	name    string
	version int16
	body    string
}{
	{"version below", -1, ""},
	{"version above", MaxFetchVersion + 1, ""},
	{"null topics", 0, head0 + "\xff\xff\xff\xff"},
	{"2 billion topics", 0, head0 + "\x7f\xff\xff\xff\x00\x01t"},
	{"2 billion partitions", 0, head0 + "\x00\x00\x00\x01\x00\x01t\x7f\xff\xff\xff"},
	{"4 billion topics, compact", 12, head12 + "\xff\xff\xff\xff\x0f"},
	{"4 billion forgotten", 12, head12 + "\x01\xff\xff\xff\xff\x0f"},
	{"null rack", 12, head12 + "\x01\x01\x00\x00"},
	{"4 billion tags", 12, head12 + "\x01\x01\x01\xff\xff\xff\xff\x0f"},
	{"cluster id beyond its tag", 12, head12 + "\x01\x01\x01\x01\x00\x02\x7fx"},
}

func TestFetchRequestRefuses(t *testing.T) {
	for _, c := range malformedFetch {
		var f FetchRequest
		if err := f.Parse([]byte(c.body), c.version); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestFetchRequestKeepsLittle(t *testing.T) {
	k := kmsg.NewPtrFetchRequest()
	k.Version = 4
	k.Topics = make([]kmsg.FetchRequestTopic, 1)
	k.Topics[0].Partitions = make([]kmsg.FetchRequestTopicPartition, 20_000)
	var f FetchRequest
	if err := f.Parse(k.AppendTo(nil), 4); err != nil || len(f.Topics[0].Partitions) != 20_000 {
		t.Fatal(err)
	}
	f.Reset()
	if cap(f.partitions) > keepFetchElements {
		t.Fatalf("keeps room for %d partitions", cap(f.partitions))
	}
}

func FuzzFetchRequest(f *testing.F) {
	for version := int16(0); version <= MaxFetchVersion; version++ {
		f.Add(version, randomFetchRequest(newRandom(uint64(version)+3), version).AppendTo(nil))
	}
	for _, c := range malformedFetch {
		f.Add(c.version, []byte(c.body))
	}
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		var r FetchRequest
		// kmsg may only see what has passed: it believes counts.
		if r.Parse(body, version) != nil {
			return
		}
		k := kmsg.NewPtrFetchRequest()
		k.Version = version
		if err := k.ReadFrom(body); err != nil {
			// It reads the tagged fields of followers, which are skipped here,
			// and ReplicaState in versions before it.
			if version < fetchFlexible {
				t.Fatalf("kmsg refuses it: %v", err)
			}
			return
		}
		if d := diffFetchRequest(&r, k); d != "" {
			t.Fatal(d)
		}
	})
}

// fetchResponse makes the same response in kmsg's and in this package's terms.
func fetchResponse(r random, version int16, e *FetchEncoder) (want, got []byte, err error) {
	k := kmsg.NewPtrFetchResponse()
	k.Version = version
	k.ThrottleMillis, k.ErrorCode, k.SessionID = r.i32(), r.i16(), r.i32()
	k.Topics = make([]kmsg.FetchResponseTopic, r.count())
	flexible := version >= fetchFlexible
	e.Begin(version, 0x01020304, k.ThrottleMillis, Code(k.ErrorCode), k.SessionID, len(k.Topics))
	for i := range k.Topics {
		t := &k.Topics[i]
		t.Topic, t.TopicID = r.str(), r.id()
		t.Partitions = make([]kmsg.FetchResponseTopicPartition, r.count())
		e.Topic(t.Topic, t.TopicID, len(t.Partitions))
		for j := range t.Partitions {
			p := FetchPartition{Partition: r.i32(), Code: Code(r.i16()), HighWatermark: r.i64(), LastStableOffset: r.i64(), LogStartOffset: r.i64(), PreferredReadReplica: r.i32()}
			kp := &t.Partitions[j]
			kp.Default()
			kp.Partition, kp.ErrorCode, kp.HighWatermark, kp.LastStableOffset, kp.LogStartOffset, kp.PreferredReadReplica =
				p.Partition, int16(p.Code), p.HighWatermark, p.LastStableOffset, p.LogStartOffset, p.PreferredReadReplica
			if r.n(1) == 0 {
				p.Aborted, kp.AbortedTransactions = []AbortedTxn{}, []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
				for range r.count() {
					a := AbortedTxn{ProducerID: r.i64(), FirstOffset: r.i64()}
					p.Aborted = append(p.Aborted, a)
					kp.AbortedTransactions = append(kp.AbortedTransactions, kmsg.FetchResponseTopicPartitionAbortedTransaction{ProducerID: a.ProducerID, FirstOffset: a.FirstOffset})
				}
			}
			kp.RecordBatches = []byte{}
			for range r.n(3) {
				part := r.bytes()
				p.Records = append(p.Records, part)
				kp.RecordBatches = append(kp.RecordBatches, part...)
			}
			if r.n(1) == 0 {
				p.Diverging = EpochEnd{true, r.Int32(), r.i64()}
				kp.DivergingEpoch.Epoch, kp.DivergingEpoch.EndOffset = p.Diverging.Epoch, p.Diverging.EndOffset
			}
			if r.n(1) == 0 {
				p.Leader = Leader{true, r.Int32(), r.i32()}
				kp.CurrentLeader.LeaderID, kp.CurrentLeader.LeaderEpoch = p.Leader.NodeID, p.Leader.Epoch
			}
			if r.n(1) == 0 {
				p.Snapshot = EpochEnd{true, r.Int32(), r.i64()}
				kp.SnapshotID.Epoch, kp.SnapshotID.EndOffset = p.Snapshot.Epoch, p.Snapshot.EndOffset
			}
			e.Partition(&p)
		}
	}
	var nodes []Node
	for range r.count() {
		n := Node{ID: r.i32(), Host: r.str(), Port: r.i32(), Rack: r.str()}
		nodes = append(nodes, n)
		if version >= fetchNodes {
			k.Brokers = append(k.Brokers, kmsg.FetchResponseBroker{NodeID: n.ID, Host: n.Host, Port: n.Port, Rack: nullIfEmpty(n.Rack)})
		}
	}
	parts, size := e.End(nodes)
	for _, p := range parts {
		if len(p) == 0 {
			return nil, nil, errors.New("an empty part")
		}
		got = append(got, p...)
	}
	if len(got) != size {
		return nil, nil, fmt.Errorf("size %d of %d bytes", size, len(got))
	}
	return k.AppendTo(AppendResponseHeader(nil, 0x01020304, flexible)), got, nil
}

func TestFetchResponseEqualsKmsg(t *testing.T) {
	var e FetchEncoder
	for version := int16(0); version <= MaxFetchVersion; version++ {
		for seed := range uint64(60) {
			if want, got, err := fetchResponse(newRandom(seed), version, &e); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("v%d seed %d: %v\ngot  %x\nwant %x", version, seed, err, got, want)
			}
		}
	}
}

func FuzzFetchResponse(f *testing.F) {
	f.Add(int16(4), uint64(1))
	f.Add(int16(18), uint64(2))
	var e FetchEncoder
	f.Fuzz(func(t *testing.T, version int16, seed uint64) {
		version = min(max(version, 0), MaxFetchVersion)
		if want, got, err := fetchResponse(newRandom(seed), version, &e); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("v%d seed %d: %v\ngot  %x\nwant %x", version, seed, err, got, want)
		}
	})
}

func TestFetchResponseDoesNotCopyRecords(t *testing.T) {
	var e FetchEncoder
	records := [][]byte{{1, 2}, {3}, {4, 5, 6}}
	e.Begin(12, 1, 0, None, 0, 1)
	e.Topic("t", [16]byte{}, 2)
	e.Partition(&FetchPartition{Records: records[:2]})
	e.Partition(&FetchPartition{Partition: 1, Records: records[2:]})
	parts, _ := e.End(nil)
	if len(parts) != 6 || &parts[1][0] != &records[0][0] || &parts[2][0] != &records[1][0] || &parts[4][0] != &records[2][0] {
		t.Fatalf("parts %v", parts)
	}
	e.Reset()
	for _, p := range parts {
		if p != nil {
			t.Fatal("Reset holds on to record bytes")
		}
	}
}

func TestFetchEncoderKeepsLittle(t *testing.T) {
	var e FetchEncoder
	e.Begin(12, 1, 0, None, 0, 1)
	e.Topic("t", [16]byte{}, 5000)
	for range 5000 {
		e.Partition(&FetchPartition{Records: [][]byte{{1}}})
	}
	e.End(nil)
	e.Reset()
	if cap(e.head) > keepHeadBytes || cap(e.cuts) > keepCuts {
		t.Fatalf("keeps %d bytes and %d cuts", cap(e.head), cap(e.cuts))
	}
}

func TestFetchEncoderWantsWhatItWasTold(t *testing.T) {
	for name, f := range map[string]func(e *FetchEncoder){
		"too few topics":      func(e *FetchEncoder) { e.Begin(4, 0, 0, 0, 0, 1); e.End(nil) },
		"too many topics":     func(e *FetchEncoder) { e.Begin(4, 0, 0, 0, 0, 0); e.Topic("", [16]byte{}, 0) },
		"too few partitions":  func(e *FetchEncoder) { e.Begin(4, 0, 0, 0, 0, 1); e.Topic("", [16]byte{}, 1); e.End(nil) },
		"too many partitions": func(e *FetchEncoder) { e.Begin(4, 0, 0, 0, 0, 0); e.Partition(new(FetchPartition)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f(new(FetchEncoder))
		}()
	}
}

func TestFetchRequestDefaults(t *testing.T) {
	var f FetchRequest
	k := kmsg.NewPtrFetchRequest()
	k.Topics = []kmsg.FetchRequestTopic{{Topic: "t", Partitions: []kmsg.FetchRequestTopicPartition{{}}}}
	if err := f.Parse(k.AppendTo(nil), 0); err != nil {
		t.Fatal(err)
	}
	p := f.Topics[0].Partitions[0]
	if f.MaxBytes != math.MaxInt32 || f.SessionEpoch != -1 || f.ReplicaEpoch != -1 || p.CurrentLeaderEpoch != -1 || p.LastFetchedEpoch != -1 || p.LogStartOffset != -1 {
		t.Fatalf("%+v", f)
	}
}
