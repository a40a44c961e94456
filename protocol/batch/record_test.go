package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"
)

func TestIterate(t *testing.T) {
	b := Batch(reference(None, nil, threeRecords()...))
	it := b.Iterate(b.Records())
	var r Record
	for i, want := range threeRecords() {
		if !it.Next(&r) {
			t.Fatalf("record %d: %v", i, it.Err())
		}
		if r.OffsetDelta != int32(i) || r.TimestampDelta != want.TimestampDelta64 {
			t.Fatalf("record %d: offset delta %d, timestamp delta %d", i, r.OffsetDelta, r.TimestampDelta)
		}
		if !bytes.Equal(r.Key, want.Key) || (r.Key == nil) != (want.Key == nil) ||
			!bytes.Equal(r.Value, want.Value) || (r.Value == nil) != (want.Value == nil) {
			t.Fatalf("record %d: key %q value %q, want %q %q", i, r.Key, r.Value, want.Key, want.Value)
		}
		var h RecordHeader
		headers := r.Headers
		for j, want := range want.Headers {
			if !headers.Next(&h) || string(h.Key) != want.Key || !bytes.Equal(h.Value, want.Value) || (h.Value == nil) != (want.Value == nil) {
				t.Fatalf("record %d header %d: %q %q", i, j, h.Key, h.Value)
			}
		}
		if headers.Next(&h) || headers.Len() != 0 || r.Headers.Len() != len(want.Headers) {
			t.Fatalf("record %d: too many headers", i)
		}
	}
	if it.Next(&r) || it.Err() != nil || it.Index() != 3 {
		t.Fatalf("after the last record: %v", it.Err())
	}
}

// record encodes one record of which every field can be made wrong.
func record(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = binary.AppendVarint(b, int64(p))
		case string:
			b = append(b, p...)
		}
	}
	return append(binary.AppendVarint(nil, int64(len(b))), b...)
}

func TestIterateRefuses(t *testing.T) {
	const attributes = "\x00"
	good := func(i int) []byte { return record(attributes, 0, i, -1, 1, "v", 0) }
	cat := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	for _, c := range []struct {
		name          string
		records       []byte
		index         int32
		fineIfThinned bool // may be a batch after compaction
	}{
		{"one too few", cat(good(0), good(1)), 2, false},
		{"one too many", cat(good(0), good(1), good(2), good(3)), 3, false},
		{"trailing byte", cat(good(0), good(1), good(2), []byte{0}), 3, false},
		{"none", nil, 0, false},
		{"offset delta skips", cat(good(0), good(2), good(3)), 1, true},
		{"offset delta starts at 1", cat(good(1), good(2), good(3)), 0, true},
		{"offset delta stands still", cat(good(0), good(0), good(1)), 1, false},
		{"offset delta goes back", cat(good(2), good(1), good(3)), 0, false},
		{"offset delta beyond the last", cat(good(0), good(1), good(5)), 2, false},
		{"negative offset delta", cat(good(-1), good(1), good(2)), 0, false},
		{"length beyond the end", cat(good(0), good(1), record(attributes, 0, 2, -1, 1, "v", 0)[:5]), 2, false},
		{"negative length", cat(good(0), good(1), []byte{1}), 2, false},
		{"length 0", cat([]byte{0}, good(1), good(2)), 0, false},
		{"length overflows", cat([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, good(1), good(2)), 0, false},
		{"length with zeros after it", cat([]byte{0x80 | 14, 0x80, 0x80, 0x80, 0x80, 0}, good(0)[1:], good(1), good(2)), 0, false},
		{"body longer than its fields", cat(record(attributes, 0, 0, -1, 1, "v", 0, "x"), good(1), good(2)), 0, false},
		{"key length -2", cat(record(attributes, 0, 0, -2, 1, "v", 0), good(1), good(2)), 0, false},
		{"key beyond the record", cat(record(attributes, 0, 0, 100, "v", 0), good(1), good(2)), 0, false},
		{"value beyond the record", cat(record(attributes, 0, 0, -1, 3, "v", 0), good(1), good(2)), 0, false},
		{"negative count of headers", cat(record(attributes, 0, 0, -1, 1, "v", -1), good(1), good(2)), 0, false},
		{"more headers than bytes", cat(record(attributes, 0, 0, -1, 1, "v", math.MaxInt32), good(1), good(2)), 0, false},
		{"null header key", cat(record(attributes, 0, 0, -1, 1, "v", 1, -1, -1), good(1), good(2)), 0, false},
		{"header value length -2", cat(record(attributes, 0, 0, -1, 1, "v", 1, 0, -2), good(1), good(2)), 0, false},
		{"no header count", cat(record(attributes, 0, 0, -1, 1, "v"), good(1), good(2)), 0, false},
		{"unended varint", cat(record(attributes, 0, 0, -1, 1, "v\x80"), good(1), good(2)), 0, false},
		{"timestamp of 11 bytes", cat(record(attributes, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 0, -1, 1, "v", 0), good(1), good(2)), 0, false},
	} {
		b := Batch(reference(None, nil, threeRecords()...)) // a header that counts 3
		it := b.Iterate(c.records)
		var r Record
		for it.Next(&r) {
		}
		if !errors.Is(it.Err(), ErrInvalid) {
			t.Errorf("%s: %v", c.name, it.Err())
		}
		if it.Index() != c.index {
			t.Errorf("%s: stopped at record %d, want %d", c.name, it.Index(), c.index)
		}
		if it.Next(&r) {
			t.Errorf("%s: went on after its error", c.name)
		}

		binary.BigEndian.PutUint32(b[offLastOffsetDelta:], 3)
		it = b.IterateStored(c.records)
		for it.Next(&r) {
		}
		if (it.Err() == nil) != c.fineIfThinned {
			t.Errorf("%s: as stored: %v", c.name, it.Err())
		}
	}
}

func TestVarints(t *testing.T) {
	for _, v := range []int32{0, -1, 1, 63, 64, -64, -65, 1 << 20, math.MaxInt32, math.MinInt32} {
		got, rest, ok := readVarint(append(binary.AppendVarint(nil, int64(v)), 7))
		if !ok || got != v || len(rest) != 1 {
			t.Errorf("readVarint of %d: %d, %v", v, got, ok)
		}
		if n := varintLen(int64(v)); n != len(binary.AppendVarint(nil, int64(v))) {
			t.Errorf("varintLen(%d) = %d", v, n)
		}
	}
	for _, v := range []int64{0, -1, math.MaxInt64, math.MinInt64, 1 << 40} {
		got, rest, ok := readVarlong(append(binary.AppendVarint(nil, v), 7))
		if !ok || got != v || len(rest) != 1 {
			t.Errorf("readVarlong of %d: %d, %v", v, got, ok)
		}
		if n := varintLen(v); n != len(binary.AppendVarint(nil, v)) {
			t.Errorf("varintLen(%d) = %d", v, n)
		}
	}
	if _, _, ok := readVarint(binary.AppendVarint(nil, math.MaxInt32+1)); ok {
		t.Error("readVarint took 33 bits")
	}
}
