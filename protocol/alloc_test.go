//go:build !race

package protocol

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func plainProduce(version int16, partitions, bytes int) []byte {
	k := kmsg.NewPtrProduceRequest()
	k.Version = version
	k.Acks = -1
	t := kmsg.ProduceRequestTopic{Topic: "a-topic"}
	for i := range partitions {
		t.Partitions = append(t.Partitions, kmsg.ProduceRequestTopicPartition{Partition: int32(i), Records: make([]byte, bytes)})
	}
	k.Topics = append(k.Topics, t)
	return k.AppendTo(nil)
}

func plainFetch(version int16, partitions int) []byte {
	k := kmsg.NewPtrFetchRequest()
	k.Version = version
	t := kmsg.FetchRequestTopic{Topic: "a-topic"}
	for i := range partitions {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition = int32(i)
		t.Partitions = append(t.Partitions, p)
	}
	k.Topics = append(k.Topics, t)
	return k.AppendTo(nil)
}

func readProduce(p *ProduceRequest, body []byte, version int16) int {
	if err := p.Parse(body, version); err != nil {
		panic(err)
	}
	n := 0
	for p.NextTopic() {
		for p.NextPartition() {
			n += len(p.Records)
		}
	}
	return n
}

func writeProduce(e *ProduceEncoder, dst []byte, version int16, partitions int) []byte {
	e.Begin(dst, version, 1)
	e.Topic("a-topic", [16]byte{}, partitions)
	for i := range partitions {
		e.Partition(&ProducePartition{Partition: int32(i), LogAppendTime: -1, Leader: Leader{Known: true}})
	}
	return e.End(0, nil)
}

func writeFetch(e *FetchEncoder, version int16, partitions int, records [][]byte) int {
	e.Begin(version, 1, 0, None, 0, 1)
	e.Topic("a-topic", [16]byte{}, partitions)
	p := FetchPartition{PreferredReadReplica: -1, Records: records}
	for i := range partitions {
		p.Partition = int32(i)
		e.Partition(&p)
	}
	_, size := e.End(nil)
	return size
}

func TestNoAllocations(t *testing.T) {
	records := [][]byte{make([]byte, 16<<10), make([]byte, 16<<10)}
	dst := make([]byte, 0, 64<<10)
	var p ProduceRequest
	var f FetchRequest
	var pe ProduceEncoder
	var fe FetchEncoder
	for _, partitions := range []int{1, 100} {
		for _, version := range []int16{3, 9, 13} {
			body := plainProduce(version, partitions, 1000)
			if got := testing.AllocsPerRun(100, func() { readProduce(&p, body, version) }); got != 0 {
				t.Errorf("Produce request v%d: %v allocations", version, got)
			}
			if got := testing.AllocsPerRun(100, func() { writeProduce(&pe, dst, version, partitions) }); got != 0 {
				t.Errorf("Produce response v%d: %v allocations", version, got)
			}
		}
		for _, version := range []int16{4, 12, 18} {
			body := plainFetch(version, partitions)
			if got := testing.AllocsPerRun(100, func() {
				if err := f.Parse(body, version); err != nil {
					t.Fatal(err)
				}
			}); got != 0 {
				t.Errorf("Fetch request v%d: %v allocations", version, got)
			}
			if got := testing.AllocsPerRun(100, func() { writeFetch(&fe, version, partitions, records) }); got != 0 {
				t.Errorf("Fetch response v%d: %v allocations", version, got)
			}
		}
	}
	frame := []byte("\x00\x00\x00\x09\x00\x00\x00\x01\x00\x06client\x00body")
	if got := testing.AllocsPerRun(100, func() {
		h, body, err := ParseRequestHeader(frame, true)
		if err != nil || h.ClientID != "client" || string(body) != "body" {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("header: %v allocations", got)
	}
}

// swell appends a body that is empty but for the first array of each depth, which has n elements on
// the innermost level: the least bytes for the most memory.
func swell(b []byte, fields []field, version int16, flexible bool, n *int) []byte {
	for i := range fields {
		f := &fields[i]
		if version < f.first || version > f.last {
			continue
		}
		switch f.kind {
		case kindFixed:
			b = append(b, make([]byte, f.size)...)
		case kindString:
			b = appendString(b, flexible, "")
		case kindBytes:
			b = appendArrayLen(b, flexible, 0)
		case kindStruct, kindNullableStruct:
			if f.kind == kindNullableStruct {
				b = append(b, 1)
			}
			b = swell(b, f.fields, version, flexible, n)
			if flexible {
				b = append(b, 0)
			}
		case kindArray:
			count := *n
			*n = 0
			b = appendArrayLen(b, flexible, count)
			for range count {
				b = swell(b, f.fields, version, flexible, n)
			}
		}
	}
	return b
}

func TestCheckedRequestsCostLittle(t *testing.T) {
	for key, fields := range layouts() {
		k := kmsg.RequestForKey(key)
		for version := int16(0); version <= k.MaxVersion(); version++ {
			n := 2000
			flexible := FlexibleRequest(key, version)
			body := swell(nil, fields, version, flexible, &n)
			if flexible {
				body = append(body, 0)
			}
			if n > 0 {
				continue // no array
			}
			if err := CheckRequest(key, version, body); err != nil {
				t.Fatalf("%s v%d: %v", kmsg.NameForKey(key), version, err)
			}
			k.SetVersion(version)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := k.ReadFrom(body)
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatalf("%s v%d: %v", kmsg.NameForKey(key), version, err)
			}
			if ratio := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(body)); ratio > 30 {
				t.Errorf("%s v%d: %d bytes cost kmsg %.0f times their length", kmsg.NameForKey(key), version, len(body), ratio)
			}
		}
	}
}

func BenchmarkProduceRequest(b *testing.B) {
	for _, partitions := range []int{1, 10, 1000} {
		for _, version := range []int16{3, 9} {
			body := plainProduce(version, partitions, 100)
			b.Run(fmt.Sprintf("partitions=%d/v%d", partitions, version), func(b *testing.B) {
				b.ReportAllocs()
				var p ProduceRequest
				for b.Loop() {
					readProduce(&p, body, version)
				}
			})
		}
	}
}

func BenchmarkProduceResponse(b *testing.B) {
	var e ProduceEncoder
	dst := make([]byte, 0, 64<<10)
	for _, partitions := range []int{1, 1000} {
		b.Run(fmt.Sprintf("partitions=%d/v12", partitions), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				writeProduce(&e, dst, 12, partitions)
			}
		})
	}
}

func BenchmarkFetchRequest(b *testing.B) {
	for _, partitions := range []int{1, 1000} {
		body := plainFetch(12, partitions)
		b.Run(fmt.Sprintf("partitions=%d/v12", partitions), func(b *testing.B) {
			b.ReportAllocs()
			var f FetchRequest
			for b.Loop() {
				if err := f.Parse(body, 12); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFetchResponse(b *testing.B) {
	records := [][]byte{make([]byte, 1<<20)}
	for _, partitions := range []int{1, 1000} {
		for _, version := range []int16{11, 12} {
			b.Run(fmt.Sprintf("partitions=%d/v%d", partitions, version), func(b *testing.B) {
				b.ReportAllocs()
				var e FetchEncoder
				for b.Loop() {
					writeFetch(&e, version, partitions, records)
				}
			})
		}
	}
}
