package protocol

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestProduceRequestMadeAgain: a request that is read and made again is the same.
func TestProduceRequestMadeAgain(t *testing.T) {
	for version := int16(0); version <= MaxProduceVersion; version++ {
		for seed := range uint64(40) {
			k := randomProduceRequest(newRandom(seed), version)
			for i := range k.Topics {
				k.Topics[i].UnknownTags = kmsg.Tags{}
				for j := range k.Topics[i].Partitions {
					k.Topics[i].Partitions[j].UnknownTags = kmsg.Tags{}
				}
			}
			k.UnknownTags = kmsg.Tags{}
			// A request without partitions of a topic is never made.
			topics := k.Topics[:0]
			for _, topic := range k.Topics {
				if len(topic.Partitions) > 0 {
					topics = append(topics, topic)
				}
			}
			k.Topics = topics
			want := append([]byte("header"), k.AppendTo(nil)...)
			var p, of ProduceRequest
			if err := p.Parse(want[6:], version); err != nil {
				t.Fatal(err)
			}
			of = p
			var e ProduceRequestEncoder
			e.Begin(want[:6], &of, p.Topics)
			for p.NextTopic() {
				e.Topic(p.Topic, p.TopicID, p.TopicPartitions)
				for p.NextPartition() {
					e.Partition(p.Partition, p.Records)
				}
			}
			if got := bytes.Join(e.End(), nil); !bytes.Equal(got, want) {
				t.Fatalf("v%d, seed %d: made\n%x, want\n%x", version, seed, got, want)
			}
		}
	}
}

// TestProduceResponseReadAgain: what the encoder writes, the reader reads.
func TestProduceResponseReadAgain(t *testing.T) {
	for version := int16(0); version <= MaxProduceVersion; version++ {
		for seed := range uint64(40) {
			_, body := produceResponse(newRandom(seed), version)
			message := append(AppendResponseHeader(nil, 7, FlexibleResponse(0, version)), body[4:]...)
			var p ProduceResponse
			if err := p.Parse(message, version); err != nil {
				t.Fatal(err)
			}
			var e ProduceEncoder
			e.Begin(AppendResponseHeader(nil, 7, FlexibleResponse(0, version)), version, p.topicsLeft)
			for p.NextTopic() {
				e.Topic(p.Topic, p.TopicID, p.TopicPartitions)
				for p.NextPartition() {
					e.Partition(&p.Part)
				}
			}
			throttle := p.r // what Nodes begins with
			nodes := p.Nodes()
			if err := p.Err(); err != nil {
				t.Fatalf("v%d, seed %d: %v", version, seed, err)
			}
			var millis int32
			if version >= 1 {
				millis = throttle.int32()
			}
			if got := e.End(millis, nodes); !bytes.Equal(got, message) {
				t.Fatalf("v%d, seed %d: read\n%x of\n%x", version, seed, got, message)
			}
			for cut := range min(len(message), 100) {
				_ = readProduceResponse(message[:cut], version)
			}
		}
	}
}

func readProduceResponse(message []byte, version int16) error {
	var p ProduceResponse
	if err := p.Parse(message, version); err != nil {
		return err
	}
	for p.NextTopic() {
		for p.NextPartition() {
		}
	}
	p.Nodes()
	return p.Err()
}

func readFetchResponse(message []byte, version int16) error {
	var p FetchResponse
	if err := p.Parse(message, version); err != nil {
		return err
	}
	for p.NextTopic() {
		for p.NextPartition() {
		}
	}
	p.Nodes()
	return p.Err()
}

// TestFetchResponseReadAgain likewise. Throttle time and session belong to whoever sends it.
func TestFetchResponseReadAgain(t *testing.T) {
	for version := int16(0); version <= MaxFetchVersion; version++ {
		for seed := range uint64(40) {
			var made, again FetchEncoder
			_, message, err := fetchResponse(newRandom(seed), version, &made)
			if err != nil {
				t.Fatal(err)
			}
			var p FetchResponse
			if err := p.Parse(message, version); err != nil {
				t.Fatal(err)
			}
			head := reader{src: message}
			corr, throttle, session := head.int32(), int32(0), int32(0)
			if version >= fetchFlexible {
				head.skipTags()
			}
			if version >= 1 {
				throttle = head.int32()
			}
			if version >= 7 {
				head.int16()
				session = head.int32()
			}
			again.Begin(version, corr, throttle, p.Code, session, p.topicsLeft)
			for p.NextTopic() {
				again.Topic(p.Topic, p.TopicID, p.TopicPartitions)
				for p.NextPartition() {
					again.Partition(&p.Part)
				}
			}
			parts, _ := again.End(p.Nodes())
			if err := p.Err(); err != nil {
				t.Fatalf("v%d, seed %d: %v", version, seed, err)
			}
			if got := bytes.Join(parts, nil); !bytes.Equal(got, message) {
				t.Fatalf("v%d, seed %d: read\n%x of\n%x", version, seed, got, message)
			}
			for cut := range min(len(message), 100) {
				_ = readFetchResponse(message[:cut], version)
			}
		}
	}
}

// TestFetchRequestMade: a request that is made reads as what was asked for.
func TestFetchRequestMade(t *testing.T) {
	for version := int16(0); version <= MaxFetchVersion; version++ {
		q := FetchRequest{MaxWaitMillis: 500, MinBytes: 7, MaxBytes: 1 << 20, IsolationLevel: 1, RackID: "r1"}
		var asks []FetchAsk
		for i := range int32(5) {
			a := FetchAsk{FetchRequestPartition: FetchRequestPartition{
				Partition: i, CurrentLeaderEpoch: -1, FetchOffset: 100 + int64(i), LastFetchedEpoch: -1, LogStartOffset: -1, MaxBytes: 1000 + i,
			}}
			if version >= fetchTopicIDs {
				a.ID = [16]byte{byte(i / 2)}
			} else {
				a.Topic = fmt.Sprint("topic", i/2)
			}
			asks = append(asks, a)
		}
		body := AppendFetchRequest(nil, version, &q, asks)
		var got FetchRequest
		if err := got.Parse(body, version); err != nil {
			t.Fatalf("v%d: %v", version, err)
		}
		if got.MaxWaitMillis != 500 || got.MinBytes != 7 || got.SessionID != 0 || got.SessionEpoch != -1 || got.ReplicaID != -1 ||
			version >= 3 && got.MaxBytes != 1<<20 || version >= 4 && got.IsolationLevel != 1 || version >= 11 && got.RackID != "r1" {
			t.Errorf("v%d: %+v", version, got)
		}
		i := 0
		for _, topic := range got.Topics {
			for _, p := range topic.Partitions {
				if p != asks[i].FetchRequestPartition || topic.Name != asks[i].Topic || topic.ID != asks[i].ID {
					t.Errorf("v%d: partition %+v of %q, want %+v", version, p, topic.Name, asks[i])
				}
				i++
			}
		}
		if i != len(asks) || len(got.Topics) != 3 {
			t.Errorf("v%d: %d partitions of %d topics", version, i, len(got.Topics))
		}
		k := kmsg.NewPtrFetchRequest()
		k.Version = version
		if err := k.ReadFrom(body); err != nil || !bytes.Equal(k.AppendTo(nil), body) {
			t.Errorf("v%d: kmsg reads something else: %v", version, err)
		}
	}
}

// FuzzForwardedAnswers: another node's answer may be anything.
func FuzzForwardedAnswers(f *testing.F) {
	for version := int16(0); version <= MaxFetchVersion; version += 3 {
		var e FetchEncoder
		if _, message, err := fetchResponse(newRandom(uint64(version)), version, &e); err == nil {
			f.Add(message, version)
		}
		if version <= MaxProduceVersion {
			_, body := produceResponse(newRandom(uint64(version)), version)
			f.Add(append(AppendResponseHeader(nil, 7, FlexibleResponse(0, version)), body[4:]...), version)
		}
	}
	f.Fuzz(func(_ *testing.T, message []byte, version int16) {
		if version >= 0 && version <= MaxFetchVersion {
			_ = readFetchResponse(message, version)
		}
		if version >= 0 && version <= MaxProduceVersion {
			_ = readProduceResponse(message, version)
		}
	})
}
