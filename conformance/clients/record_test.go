package clients

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A record is what one client sent or another read, in no library's own type.
// Absent and empty are told apart everywhere, as Kafka does.
type record struct {
	Key, Value []byte // nil is null
	Headers    []header
	Millis     int64 // timestamp
}

type header struct {
	Name  string
	Value []byte // nil is null
}

func equalBytes(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func (r record) equal(s record) bool {
	return equalBytes(r.Key, s.Key) && equalBytes(r.Value, s.Value) && r.Millis == s.Millis &&
		slices.EqualFunc(r.Headers, s.Headers, func(a, b header) bool { return a.Name == b.Name && equalBytes(a.Value, b.Value) })
}

func (r record) String() string {
	clip := func(b []byte) string {
		if b == nil {
			return "null"
		}
		if len(b) > 40 {
			return fmt.Sprintf("%q… (%d bytes)", b[:40], len(b))
		}
		return fmt.Sprintf("%q", b)
	}
	s := fmt.Sprintf("key %s value %s time %d headers [", clip(r.Key), clip(r.Value), r.Millis)
	for _, h := range r.Headers {
		s += fmt.Sprintf(" %q=%s", h.Name, clip(h.Value))
	}
	return s + " ]"
}

// diff fails the test at the first record that is not as it was sent.
func diff(t *testing.T, reader string, got, want []record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d records, want %d", reader, len(got), len(want))
	}
	for i := range want {
		if !got[i].equal(want[i]) {
			t.Fatalf("%s: record %d is\n%s\nwant\n%s", reader, i, got[i], want[i])
		}
	}
}

// firstMillis is the timestamp of the first sample; fixed, and not a round
// number of seconds.
const firstMillis = 1_700_000_000_123

// samples are records whose every field has an edge case somewhere.
func samples() []record {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	all := []record{
		{Key: []byte("key"), Value: []byte("value")},
		{Key: nil, Value: []byte("null key")},
		{Key: []byte{}, Value: []byte("empty key")},
		{Key: []byte("null value"), Value: nil},
		{Key: []byte("empty value"), Value: []byte{}},
		{Key: []byte{0, 1, 2, 0xff}, Value: []byte{0, '\n', '\r', 0xff, 0xfe}},
		{Key: []byte("ключ"), Value: []byte("値 🔑")},
		{Key: []byte("headers"), Value: []byte("v"), Headers: []header{
			{"a", []byte("1")}, {"a", []byte("2")}, {"empty", []byte{}}, {"null", nil}, {"bytes", []byte{0, 0xff, ','}}, {"имя", []byte("x")},
		}},
		{Key: []byte("header without a name"), Value: []byte("v"), Headers: []header{{"", []byte("x")}}},
		{Key: random(300), Value: random(200_000)},
		{Key: []byte("repeats"), Value: bytes.Repeat([]byte("abcdefgh"), 30_000)},
	}
	for i := range 200 {
		all = append(all, record{Key: []byte(fmt.Sprint(i)), Value: random(rng.IntN(500))})
	}
	for i := range all {
		// Out of order on purpose: timestamps are the producer's business.
		all[i].Millis = firstMillis + int64(i*37%1000)
	}
	return all
}

func toFranz(records []record) []*kgo.Record {
	var out []*kgo.Record
	for _, r := range records {
		k := &kgo.Record{Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Millis)}
		for _, h := range r.Headers {
			k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
		}
		out = append(out, k)
	}
	return out
}

func fromFranz(records []*kgo.Record) []record {
	var out []record
	for _, k := range records {
		r := record{Key: k.Key, Value: k.Value, Millis: k.Timestamp.UnixMilli()}
		for _, h := range k.Headers {
			r.Headers = append(r.Headers, header{h.Key, h.Value})
		}
		out = append(out, r)
	}
	return out
}
