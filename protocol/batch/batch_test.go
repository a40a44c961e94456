package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// reference makes a batch with franz-go's types, so that what is tested here
// is not measured with its own rule.
func reference(codec Codec, compressed func([]byte) []byte, records ...kmsg.Record) []byte {
	var body []byte
	for i := range records {
		r := &records[i]
		r.OffsetDelta = int32(i)
		r.Length = 0
		raw := r.AppendTo(nil)[1:] // without the length, which is one byte while it is 0
		r.Length = int32(len(raw))
		body = r.AppendTo(body)
	}
	if compressed != nil {
		body = compressed(body)
	}
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1,
		Magic:                2,
		Attributes:           int16(codec),
		LastOffsetDelta:      int32(len(records) - 1),
		FirstTimestamp:       1000,
		MaxTimestamp:         1010,
		ProducerID:           77,
		ProducerEpoch:        3,
		FirstSequence:        40,
		NumRecords:           int32(len(records)),
		Records:              body,
	}
	raw := b.AppendTo(nil)
	b.Length = int32(len(raw) - 12)
	raw = b.AppendTo(nil)
	b.CRC = int32(crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b.AppendTo(nil)
}

func threeRecords() []kmsg.Record {
	return []kmsg.Record{
		{Key: []byte("k0"), Value: []byte("v0")},
		{TimestampDelta64: 10, Value: []byte{}, Headers: []kmsg.Header{{Key: "a", Value: []byte("1")}, {Key: "", Value: nil}}},
		{TimestampDelta64: -5, Key: []byte{}, Value: bytes.Repeat([]byte("x"), 300)},
	}
}

func TestAccessors(t *testing.T) {
	raw := reference(None, nil, threeRecords()...)
	b, rest, err := Next(append(slices.Clone(raw), "after"...))
	if err != nil || string(rest) != "after" || !bytes.Equal(b, raw) {
		t.Fatalf("Next: %d bytes, rest %q, %v", len(b), rest, err)
	}
	if err := b.Verify(); err != nil {
		t.Fatal(err)
	}
	b.Stamp(1<<40, 9)
	if err := b.Verify(); err != nil {
		t.Fatalf("after Stamp: %v", err)
	}
	got := fmt.Sprintln(b.BaseOffset(), b.LastOffset(), b.Length(), b.LeaderEpoch(), b.Magic(), b.Attributes(), b.Codec(),
		b.LogAppendTime(), b.Transactional(), b.Control(), b.DeleteHorizon(), b.LastOffsetDelta(), b.BaseTimestamp(),
		b.MaxTimestamp(), b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), b.LastSequence(), b.Count(), len(b.Records()))
	want := fmt.Sprintln(int64(1<<40), int64(1<<40+2), len(raw)-12, 9, 2, 0, "none",
		false, false, false, false, 2, 1000,
		1010, 77, 3, 40, 42, 3, len(raw)-61)
	if got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestAttributes(t *testing.T) {
	b := Batch(reference(Zstd, nil, threeRecords()...))
	binary.BigEndian.PutUint16(b[21:], 0x78|4)
	if b.Codec() != Zstd || !b.LogAppendTime() || !b.Transactional() || !b.Control() || !b.DeleteHorizon() {
		t.Fatalf("attributes %#x", b.Attributes())
	}
	binary.BigEndian.PutUint16(b[21:], 7)
	if b.Codec().Valid() || b.LogAppendTime() {
		t.Fatalf("attributes %#x", b.Attributes())
	}
}

func TestLastSequenceWraps(t *testing.T) {
	b := Batch(reference(None, nil, threeRecords()...))
	binary.BigEndian.PutUint32(b[53:], math.MaxInt32-1)
	if got := b.LastSequence(); got != 0 {
		t.Fatalf("last sequence %d, want 0", got)
	}
}

func TestSetTimestamps(t *testing.T) {
	b := Batch(reference(None, nil, threeRecords()...))
	before := slices.Clone(b)
	b.SetMaxTimestamp(1010)
	if !bytes.Equal(b, before) {
		t.Fatal("SetMaxTimestamp of the same time changed the batch")
	}
	b.SetLogAppendTime(5000)
	if !b.LogAppendTime() || b.MaxTimestamp() != 5000 || b.BaseTimestamp() != 1000 {
		t.Fatalf("type %v max %d base %d", b.LogAppendTime(), b.MaxTimestamp(), b.BaseTimestamp())
	}
	if err := b.Verify(); err != nil {
		t.Fatal(err)
	}
	b.SetMaxTimestamp(1010)
	if !bytes.Equal(b, before) {
		t.Fatal("SetMaxTimestamp did not undo SetLogAppendTime")
	}
}

// edit returns the reference batch with bytes changed and, if sum, a right CRC.
func edit(sum bool, f func(b []byte)) []byte {
	b := reference(None, nil, threeRecords()...)
	f(b)
	if sum {
		Batch(b).sum()
	}
	return b
}

func TestNextRefuses(t *testing.T) {
	raw := reference(None, nil, threeRecords()...)
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, ErrInvalid},
		{"shorter than a magic", raw[:16], ErrInvalid},
		{"cut off in the header", raw[:60], ErrInvalid},
		{"cut off in the records", raw[:len(raw)-1], ErrInvalid},
		{"magic 0", edit(false, func(b []byte) { b[16] = 0 }), ErrInvalid},
		{"magic 1", edit(false, func(b []byte) { b[16] = 1 }), ErrInvalid},
		{"magic 3", edit(false, func(b []byte) { b[16] = 3 }), ErrCorrupt},
		{"magic -1", edit(false, func(b []byte) { b[16] = 0xff }), ErrCorrupt},
		{"length 48", edit(false, func(b []byte) { binary.BigEndian.PutUint32(b[8:], 48) }), ErrCorrupt},
		{"negative length", edit(false, func(b []byte) { binary.BigEndian.PutUint32(b[8:], 1<<31) }), ErrCorrupt},
		{"largest length", edit(false, func(b []byte) { binary.BigEndian.PutUint32(b[8:], math.MaxInt32) }), ErrInvalid},
	} {
		if _, _, err := Next(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestVerify(t *testing.T) {
	put32 := func(at int, v uint32) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint32(b[at:], v) }
	}
	both := func(f, g func([]byte)) func([]byte) { return func(b []byte) { f(b); g(b) } }
	for _, c := range []struct {
		name         string
		b            []byte
		want, stored error
	}{
		{"sound", edit(false, func([]byte) {}), nil, nil},
		{"too short", edit(false, func([]byte) {})[:60], ErrCorrupt, ErrCorrupt},
		{"length field of another batch", edit(true, put32(8, 50)), ErrCorrupt, ErrCorrupt},
		{"magic 1", edit(true, func(b []byte) { b[16] = 1 }), ErrInvalid, ErrInvalid},
		{"bit flipped in the records", edit(false, func(b []byte) { b[len(b)-1] ^= 1 }), ErrCorrupt, ErrCorrupt},
		{"bit flipped in the attributes", edit(false, func(b []byte) { b[22] ^= 0x10 }), ErrCorrupt, ErrCorrupt},
		{"bit flipped in the CRC", edit(false, func(b []byte) { b[20] ^= 1 }), ErrCorrupt, ErrCorrupt},
		{"no records", edit(true, put32(57, 0)), ErrInvalid, nil},
		{"negative count", edit(true, put32(57, 1<<31)), ErrInvalid, ErrInvalid},
		{"more records than offsets", edit(true, put32(57, 4)), ErrInvalid, ErrInvalid},
		{"fewer records than offsets", edit(true, put32(57, 2)), ErrInvalid, nil},
		{"negative last offset delta", edit(true, put32(23, math.MaxUint32)), ErrInvalid, ErrInvalid},
		{"last offset delta -1 of no records", edit(true, both(put32(23, math.MaxUint32), put32(57, 0))), ErrInvalid, ErrInvalid},
		{"largest last offset delta", edit(true, both(put32(23, math.MaxInt32), put32(57, 1<<31))), ErrInvalid, ErrInvalid},
	} {
		if err := Batch(c.b).Verify(); !errors.Is(err, c.want) {
			t.Errorf("%s: Verify: %v, want %v", c.name, err, c.want)
		}
		if err := Batch(c.b).VerifyStored(); !errors.Is(err, c.stored) {
			t.Errorf("%s: VerifyStored: %v, want %v", c.name, err, c.stored)
		}
	}
}

func TestVerifySeesEveryBit(t *testing.T) {
	b := Batch(reference(None, nil, threeRecords()...))
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			err := b.Verify()
			b[i] ^= 1 << bit
			outside := i < 8 || i >= 12 && i < 16 // base offset and leader epoch
			if (err == nil) != outside {
				t.Fatalf("byte %d bit %d flipped: %v", i, bit, err)
			}
		}
	}
}
