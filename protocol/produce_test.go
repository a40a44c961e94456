package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func randomProduceRequest(r random, version int16) *kmsg.ProduceRequest {
	k := kmsg.NewPtrProduceRequest()
	k.Version = version
	if version >= 3 {
		k.TransactionID = r.nullable()
	}
	k.Acks, k.TimeoutMillis = r.i16(), r.i32()
	k.Topics = make([]kmsg.ProduceRequestTopic, r.count())
	for i := range k.Topics {
		t := &k.Topics[i]
		if version >= 13 {
			t.TopicID = r.id()
		} else {
			t.Topic = r.str()
		}
		t.Partitions = make([]kmsg.ProduceRequestTopicPartition, r.count())
		for j := range t.Partitions {
			p := &t.Partitions[j]
			p.Partition = r.i32()
			if r.n(5) > 0 {
				p.Records = r.bytes()
			}
			if version >= produceFlexible {
				r.tags(&p.UnknownTags)
			}
		}
		if version >= produceFlexible {
			r.tags(&t.UnknownTags)
		}
	}
	if version >= produceFlexible {
		r.tags(&k.UnknownTags)
	}
	return k
}

// diffProduceRequest says how a parsed request differs from kmsg's reading of it.
func diffProduceRequest(p *ProduceRequest, k *kmsg.ProduceRequest) string {
	if p.HasTransactionalID != (k.TransactionID != nil) || k.TransactionID != nil && *k.TransactionID != p.TransactionalID {
		return fmt.Sprintf("transactional id %q", p.TransactionalID)
	}
	if p.Acks != k.Acks || p.TimeoutMillis != k.TimeoutMillis || p.Topics != len(k.Topics) {
		return fmt.Sprintf("acks %d, timeout %d, %d topics", p.Acks, p.TimeoutMillis, p.Topics)
	}
	partitions := 0
	for i := range k.Topics {
		t := &k.Topics[i]
		if !p.NextTopic() {
			return fmt.Sprintf("ends before topic %d", i)
		}
		if p.Topic != t.Topic || p.TopicID != t.TopicID || p.TopicPartitions != len(t.Partitions) {
			return fmt.Sprintf("topic %d: %q %x with %d partitions", i, p.Topic, p.TopicID, p.TopicPartitions)
		}
		partitions += len(t.Partitions)
		for j := range t.Partitions {
			want := &t.Partitions[j]
			if !p.NextPartition() {
				return fmt.Sprintf("topic %d ends before partition %d", i, j)
			}
			if p.Partition != want.Partition || !bytes.Equal(p.Records, want.Records) || (p.Records == nil) != (want.Records == nil) {
				return fmt.Sprintf("topic %d partition %d: %d, %d bytes of records", i, j, p.Partition, len(p.Records))
			}
		}
		if p.NextPartition() {
			return fmt.Sprintf("topic %d has too many partitions", i)
		}
	}
	if p.NextTopic() {
		return "too many topics"
	}
	if p.Partitions != partitions {
		return fmt.Sprintf("counts %d partitions", p.Partitions)
	}
	return ""
}

func TestProduceRequestEqualsKmsg(t *testing.T) {
	var p ProduceRequest
	for version := int16(0); version <= MaxProduceVersion; version++ {
		for seed := range uint64(60) {
			want := randomProduceRequest(newRandom(seed), version)
			body := want.AppendTo(nil)
			if err := p.Parse(append(body, "ignored"...), version); err != nil {
				t.Fatalf("v%d seed %d: %v", version, seed, err)
			}
			if d := diffProduceRequest(&p, want); d != "" {
				t.Fatalf("v%d seed %d: %s", version, seed, d)
			}
			for cut := 0; cut < len(body); cut += 1 + cut/10 {
				if err := p.Parse(body[:cut], version); !errors.Is(err, ErrMalformed) {
					t.Fatalf("v%d seed %d: cut off after %d of %d bytes: %v", version, seed, cut, len(body), err)
				}
				if p.NextTopic() {
					t.Fatal("a malformed request has topics")
				}
			}
		}
	}
}

func TestProduceRequestSkipsOverPartitions(t *testing.T) {
	var p ProduceRequest
	for version := int16(0); version <= MaxProduceVersion; version++ {
		for seed := range uint64(50) {
			want := randomProduceRequest(newRandom(seed), version)
			if err := p.Parse(want.AppendTo(nil), version); err != nil {
				t.Fatal(err)
			}
			for i := range want.Topics {
				if !p.NextTopic() || p.Topic != want.Topics[i].Topic || p.TopicID != want.Topics[i].TopicID {
					t.Fatalf("v%d seed %d: topic %d is %q", version, seed, i, p.Topic)
				}
				if i%2 == 0 {
					p.NextPartition()
				}
			}
		}
	}
}

var malformedProduce = []struct {
	name    string
	version int16
	body    string
}{
	{"version below", -1, ""},
	{"version above", MaxProduceVersion + 1, ""},
	{"null topics", 3, "\xff\xff\x00\x01\x00\x00\x00\x00\xff\xff\xff\xff"},
	{"null topics, compact", 9, "\x00\x00\x01\x00\x00\x00\x00\x00\x00"},
	{"null topic name", 3, "\xff\xff\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\x00\x00\x00\x00"},
	{"null partitions", 3, "\xff\xff\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01t\xff\xff\xff\xff"},
	{"records of length -2", 3, "\xff\xff\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01\x00\x00\x00\x00\xff\xff\xff\xfe"},
	{"2 billion topics", 3, "\xff\xff\x00\x01\x00\x00\x00\x00\x7f\xff\xff\xff\x00\x01t"},
	{"4 billion topics, compact", 9, "\x00\x00\x01\x00\x00\x00\x00\xff\xff\xff\xff\x0f\x02t"},
	{"4 billion tags", 9, "\x00\x00\x01\x00\x00\x00\x00\x01\xff\xff\xff\xff\x0f"},
	{"varint of 33 bits", 9, "\x00\x00\x01\x00\x00\x00\x00\x01\x80\x80\x80\x80\x10"},
	{"varint of 6 bytes", 9, "\x00\x00\x01\x00\x00\x00\x00\x01\x80\x80\x80\x80\x80\x00"},
}

func TestProduceRequestRefuses(t *testing.T) {
	for _, c := range malformedProduce {
		var p ProduceRequest
		if err := p.Parse([]byte(c.body), c.version); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func FuzzProduceRequest(f *testing.F) {
	for version := int16(0); version <= MaxProduceVersion; version++ {
		f.Add(version, randomProduceRequest(newRandom(uint64(version)+3), version).AppendTo(nil))
	}
	for _, c := range malformedProduce {
		f.Add(c.version, []byte(c.body))
	}
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		var p ProduceRequest
		// kmsg may only see what has passed: it believes counts.
		if p.Parse(body, version) != nil {
			return
		}
		k := kmsg.NewPtrProduceRequest()
		k.Version = version
		if err := k.ReadFrom(body); err != nil {
			t.Fatalf("kmsg refuses it: %v", err)
		}
		if d := diffProduceRequest(&p, k); d != "" {
			t.Fatal(d)
		}
	})
}

// produceResponses makes the same response in kmsg's and in this package's terms.
func produceResponse(r random, version int16) (want []byte, got []byte) {
	k := kmsg.NewPtrProduceResponse()
	k.Version = version
	k.ThrottleMillis = r.i32()
	k.Topics = make([]kmsg.ProduceResponseTopic, r.count())
	var e ProduceEncoder
	e.Begin([]byte("head"), version, len(k.Topics))
	for i := range k.Topics {
		t := &k.Topics[i]
		t.Topic, t.TopicID = r.str(), r.id()
		t.Partitions = make([]kmsg.ProduceResponseTopicPartition, r.count())
		e.Topic(t.Topic, t.TopicID, len(t.Partitions))
		for j := range t.Partitions {
			p := ProducePartition{Partition: r.i32(), Code: Code(r.i16()), BaseOffset: r.i64(), LogAppendTime: r.i64(), LogStartOffset: r.i64(), Message: r.str()}
			kp := &t.Partitions[j]
			kp.Default()
			kp.Partition, kp.ErrorCode, kp.BaseOffset, kp.LogAppendTime, kp.LogStartOffset = p.Partition, int16(p.Code), p.BaseOffset, p.LogAppendTime, p.LogStartOffset
			kp.ErrorMessage = nullIfEmpty(p.Message)
			for range r.count() {
				re := RecordError{Index: r.i32(), Message: r.str()}
				p.RecordErrors = append(p.RecordErrors, re)
				kp.ErrorRecords = append(kp.ErrorRecords, kmsg.ProduceResponseTopicPartitionErrorRecord{RelativeOffset: re.Index, ErrorMessage: nullIfEmpty(re.Message)})
			}
			if r.n(1) == 0 {
				p.Leader = Leader{Known: true, NodeID: r.Int32(), Epoch: r.i32()}
				if version >= produceLeaders { // not in the schema of v9
					kp.CurrentLeader.LeaderID, kp.CurrentLeader.LeaderEpoch = p.Leader.NodeID, p.Leader.Epoch
				}
			}
			e.Partition(&p)
		}
	}
	var nodes []Node
	for range r.count() {
		n := Node{ID: r.i32(), Host: r.str(), Port: r.i32(), Rack: r.str()}
		nodes = append(nodes, n)
		if version >= produceLeaders {
			k.Brokers = append(k.Brokers, kmsg.ProduceResponseBroker{NodeID: n.ID, Host: n.Host, Port: n.Port, Rack: nullIfEmpty(n.Rack)})
		}
	}
	return k.AppendTo([]byte("head")), e.End(k.ThrottleMillis, nodes)
}

func nullIfEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func TestProduceResponseEqualsKmsg(t *testing.T) {
	for version := int16(0); version <= MaxProduceVersion; version++ {
		for seed := range uint64(60) {
			if want, got := produceResponse(newRandom(seed), version); !bytes.Equal(got, want) {
				t.Fatalf("v%d seed %d:\ngot  %x\nwant %x", version, seed, got, want)
			}
		}
	}
}

func FuzzProduceResponse(f *testing.F) {
	f.Add(int16(3), uint64(1))
	f.Add(int16(13), uint64(2))
	f.Fuzz(func(t *testing.T, version int16, seed uint64) {
		version = min(max(version, 0), MaxProduceVersion)
		if want, got := produceResponse(newRandom(seed), version); !bytes.Equal(got, want) {
			t.Fatalf("v%d seed %d:\ngot  %x\nwant %x", version, seed, got, want)
		}
	})
}

func TestProduceResponseCutsLongMessages(t *testing.T) {
	var e ProduceEncoder
	e.Begin(nil, 8, 1)
	e.Topic("t", [16]byte{}, 1)
	e.Partition(&ProducePartition{Message: string(make([]byte, math.MaxInt16+5))})
	k := kmsg.NewPtrProduceResponse()
	k.Version = 8
	if err := k.ReadFrom(e.End(0, nil)); err != nil || len(*k.Topics[0].Partitions[0].ErrorMessage) != math.MaxInt16 {
		t.Fatalf("%v", err)
	}
}

func TestProduceEncoderWantsWhatItWasTold(t *testing.T) {
	for name, f := range map[string]func(e *ProduceEncoder){
		"too few topics":      func(e *ProduceEncoder) { e.Begin(nil, 3, 1); e.End(0, nil) },
		"too many topics":     func(e *ProduceEncoder) { e.Begin(nil, 3, 0); e.Topic("", [16]byte{}, 0) },
		"too few partitions":  func(e *ProduceEncoder) { e.Begin(nil, 3, 1); e.Topic("", [16]byte{}, 1); e.End(0, nil) },
		"too many partitions": func(e *ProduceEncoder) { e.Begin(nil, 3, 0); e.Partition(new(ProducePartition)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f(new(ProduceEncoder))
		}()
	}
}
