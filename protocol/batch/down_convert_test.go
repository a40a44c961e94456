package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/message_sets/" + name + ".bin")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDownConvertAsKafka compares with what RecordsUtil of Kafka 3.9.1 made of the same
// batches, which have headers and gaps, from an offset in their middle.
func TestDownConvertAsKafka(t *testing.T) {
	for _, name := range []string{"none", "gzip", "snappy", "lz4", "none-appendtime", "lz4-appendtime"} {
		b := Batch(fixture(t, "java-3.9.1-batch-"+name))
		for magic := range int8(2) {
			want := fixture(t, fmt.Sprintf("java-3.9.1-batch-%s-to%d", name, magic))
			got, err := DownConvert([]byte("head"), b, magic, 1010, 1<<20)
			if err != nil || !bytes.HasPrefix(got, []byte("head")) {
				t.Fatalf("%s to %d: %v", name, magic, err)
			}
			got = got[4:]
			what := fmt.Sprintf("%s to magic %d", name, magic)
			if b.Codec() == None {
				if !bytes.Equal(got, want) {
					t.Fatalf("%s: %x\nnot %x", what, got, want)
				}
				continue
			}
			// Each library compresses in its own way: all around it must be the same.
			theirs, ours := Message(want), Message(got)
			if !bytes.Equal(ours[:offLength], theirs[:offLength]) || !bytes.Equal(ours[offMagic:offKeyV0+8*int(magic)+4], theirs[offMagic:offKeyV0+8*int(magic)+4]) {
				t.Fatalf("%s: wrapper %x\nnot %x", what, ours[:40], theirs[:40])
			}
			if !bytes.Equal(mustInflate(t, ours), mustInflate(t, theirs)) {
				t.Fatalf("%s: holds %x\nnot %x", what, mustInflate(t, ours), mustInflate(t, theirs))
			}
			compareFlat(t, what, readSet(t, got), readSet(t, want))
			if b.Codec() == LZ4 {
				_, our, _ := ours.KeyValue()
				_, their, _ := theirs.KeyValue()
				if !bytes.Equal(our[:7], their[:7]) {
					t.Fatalf("%s: frame header %x, not %x", what, our[:7], their[:7])
				}
			}
		}
	}
}

// unbreak hands kgo's decompressor LZ4 frames with the checksum that the format asks for.
type unbreak struct{ kgo.Decompressor }

func (u unbreak) Decompress(src []byte, c kgo.CompressionCodecType) ([]byte, error) {
	if c == kgo.CodecLz4 {
		src = bytes.Clone(src)
		src[6] = byte(xxh32(src[4:6]) >> 8)
	}
	return u.Decompressor.Decompress(src, c)
}

// readFranz reads a message set as franz-go does.
func readFranz(t testing.TB, set []byte, broken bool) (all []flat) {
	t.Helper()
	d := kgo.DefaultDecompressor()
	if broken {
		d = unbreak{d}
	}
	p := kmsg.NewFetchResponseTopicPartition()
	p.RecordBatches = set
	fetched, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: "t"}, &p, d, nil)
	if fetched.Err != nil {
		t.Fatalf("franz-go: %v", fetched.Err)
	}
	for _, r := range fetched.Records {
		f := flat{r.Offset, r.Timestamp.UnixMilli(), r.Key, r.Value}
		if r.Attrs.TimestampType() == -1 {
			f.timestamp = NoTimestamp
		}
		all = append(all, f)
	}
	return all
}

// storedBatch makes a batch as it lies in a log, with headers, of the messages at their
// offsets. Compaction has removed what was before and after them.
func storedBatch(t testing.TB, c Codec, all []flat) Batch {
	t.Helper()
	var w Builder
	h := Plain
	h.BaseOffset = all[0].offset &^ 7
	w.Reset(h)
	for i, f := range all {
		var headers []RecordHeader
		if i%3 == 0 {
			headers = []RecordHeader{{Key: []byte("h"), Value: []byte("x")}}
		}
		w.count = int32(f.offset - h.BaseOffset) // leaves a gap
		if i == 0 {
			w.baseTimestamp, w.maxTimestamp = f.timestamp, f.timestamp
		}
		w.Add(f.timestamp, f.key, f.value, headers...)
	}
	plain, err := w.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := Batch(plain)
	binary.BigEndian.PutUint32(b[offCount:], uint32(len(all)))
	binary.BigEndian.PutUint32(b[offLastOffsetDelta:], uint32(b.LastOffsetDelta()+3))
	out, err := Recompress(nil, b, c, 0, b.Records())
	if err != nil {
		t.Fatal(err)
	}
	if err := Batch(out).VerifyStored(); err != nil {
		t.Fatal(err)
	}
	return out
}

func asDownConverted(magic int8, all []flat) []flat {
	all = slices.Clone(all)
	for i := range all {
		all[i].timestamp = max(all[i].timestamp, NoTimestamp)
		if magic == 0 {
			all[i].timestamp = NoTimestamp
		}
	}
	return all
}

func TestDownConvert(t *testing.T) {
	all := canonical(40)
	gaps := slices.DeleteFunc(canonical(60), func(f flat) bool { return f.offset%3 == 1 || f.offset > 50 })
	far := canonical(3)
	for i := range far {
		far[i].offset += 1 << 50
	}
	for name, in := range map[string][]flat{"whole": all, "with gaps": gaps, "far": far, "one": all[:1], "one null": all[5:6]} {
		for _, c := range legacyCodecs {
			for magic := range int8(2) {
				out, err := DownConvert(nil, storedBatch(t, c, in), magic, 0, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				what := fmt.Sprintf("%s, %v, magic %d", name, c, magic)
				compareFlat(t, what, readSet(t, out), asDownConverted(magic, in))
				compareFlat(t, "franz-go, "+what, readFranz(t, out, magic == 0), asDownConverted(magic, in))
				if c != None {
					if m, rest, _ := NextMessage(out); m.Codec() != c || len(rest) > 0 {
						t.Fatalf("%s: codec %v and %d bytes more", what, m.Codec(), len(rest))
					}
				}
			}
		}
	}
}

func TestDownConvertFrom(t *testing.T) {
	all := slices.DeleteFunc(canonical(12), func(f flat) bool { return f.offset == 4 })
	for i := range all {
		all[i].offset += 100
	}
	for from, first := range map[int64]int{0: 0, 100: 0, 101: 1, 104: 4, 105: 4, 111: 10, 112: 11, math.MaxInt64: 11} {
		for _, c := range legacyCodecs {
			for magic := range int8(2) {
				out, err := DownConvert(nil, storedBatch(t, c, all), magic, from, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				want := all
				if c == None {
					want = all[first:]
				}
				compareFlat(t, fmt.Sprintf("%v, magic %d, from %d", c, magic, from), readSet(t, out), asDownConverted(magic, want))
			}
		}
	}
}

func TestDownConvertTimestamps(t *testing.T) {
	all := []flat{{timestamp: 7}, {offset: 1, timestamp: -1}, {offset: 2, timestamp: -5}, {offset: 3, timestamp: math.MinInt64}, {offset: 4, timestamp: 3}}
	for _, c := range legacyCodecs {
		b := storedBatch(t, c, all)
		out, err := DownConvert(nil, b, 1, 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		compareFlat(t, c.String(), readSet(t, out), asDownConverted(1, all))

		b.SetLogAppendTime(99)
		if out, err = DownConvert(out[:0], b, 1, 0, 1<<20); err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(all)
		for i := range want {
			want[i].timestamp = 99
		}
		compareFlat(t, c.String()+" with LogAppendTime", readSet(t, out), want)
		compareFlat(t, c.String()+" with LogAppendTime, franz-go", readFranz(t, out, false), want)
		if m, _, _ := NextMessage(out); !m.LogAppendTime() {
			t.Fatalf("%v: no LogAppendTime", c)
		}
		// Magic 0 has no room for it: franz-go refuses unknown attributes.
		if out, err = DownConvert(out[:0], b, 0, 0, 1<<20); err != nil {
			t.Fatal(err)
		}
		compareFlat(t, c.String()+" in magic 0", readFranz(t, out, true), asDownConverted(0, want))
	}
}

func TestDownConvertNothing(t *testing.T) {
	some := canonical(3)
	control := Batch(bytes.Clone(storedBatch(t, Zstd, some)))
	binary.BigEndian.PutUint16(control[offAttributes:], control.Attributes()|attrControl)
	control.sum()
	for name, b := range map[string]Batch{
		"control":         control,
		"compacted empty": emptied(t, None, some),
		"compressed":      emptied(t, Snappy, some),
	} {
		for magic := range int8(2) {
			out, err := DownConvert([]byte("head"), b, magic, 0, 1<<20)
			if err != nil || string(out) != "head" {
				t.Errorf("%s: %q, %v", name, out, err)
			}
		}
	}
}

// emptied is a batch of which compaction left no record.
func emptied(t testing.TB, c Codec, all []flat) Batch {
	b := Batch(bytes.Clone(storedBatch(t, None, all)))
	binary.BigEndian.PutUint32(b[offCount:], 0)
	out, err := Recompress(nil, b, c, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDownConvertRefuses(t *testing.T) {
	some := canonical(30)
	codec := func(c Codec) Batch {
		b := Batch(bytes.Clone(storedBatch(t, Gzip, some)))
		binary.BigEndian.PutUint16(b[offAttributes:], uint16(c))
		return b
	}
	cut := Batch(bytes.Clone(storedBatch(t, None, some)))
	binary.BigEndian.PutUint32(cut[offCount:], 29)
	more := Batch(bytes.Clone(cut))
	binary.BigEndian.PutUint32(more[offCount:], 1<<31-1)
	var tiny []flat
	for i := range 1000 {
		tiny = append(tiny, flat{offset: int64(i)})
	}
	for name, c := range map[string]struct {
		b     Batch
		limit int
		want  error
	}{
		"grows, plain":     {storedBatch(t, None, tiny), 20_000, ErrTooLarge},
		"grows too far":    {storedBatch(t, Gzip, tiny), 20_000, ErrTooLarge}, // from at most 9,000 bytes
		"zstd":             {storedBatch(t, Zstd, some), 1 << 20, ErrUnknownCodec},
		"unknown codec":    {codec(7), 1 << 20, ErrUnknownCodec},
		"other codec":      {codec(LZ4), 1 << 20, ErrInvalid},
		"inflates too far": {storedBatch(t, Snappy, some), 100, ErrTooLarge},
		"records too many": {cut, 1 << 20, ErrInvalid},
		"records too few":  {more, 1 << 20, ErrInvalid},
	} {
		for magic := range int8(2) {
			out, err := DownConvert([]byte("head"), c.b, magic, 0, c.limit)
			if !errors.Is(err, c.want) || string(out) != "head" {
				t.Errorf("%s: %q and %v, not %v", name, out, err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %q has two lines", name, err)
			}
		}
	}
}
