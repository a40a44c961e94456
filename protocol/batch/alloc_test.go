//go:build !race

package batch

import (
	"bytes"
	"runtime"
	"testing"
)

func benchBatch(records int) Batch {
	var w Builder
	w.Reset(Plain)
	value := bytes.Repeat([]byte("v"), 100)
	for range records {
		w.Add(1, []byte("key"), value, RecordHeader{Key: []byte("h"), Value: []byte("w")})
	}
	b, err := w.AppendTo(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func TestNoAllocations(t *testing.T) {
	raw := benchBatch(100)
	for name, f := range map[string]func(){
		"cut, verify, stamp": func() {
			b, _, err := Next(raw)
			if err != nil || b.Verify() != nil {
				t.Fatal(err)
			}
			b.Stamp(5, 6)
		},
		"iterate": func() {
			var r Record
			var h RecordHeader
			it := raw.Iterate(raw.Records())
			for it.Next(&r) {
				for r.Headers.Next(&h) {
				}
			}
			if it.Err() != nil {
				t.Fatal(it.Err())
			}
		},
	} {
		if got := testing.AllocsPerRun(100, f); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
	dst, packed := make([]byte, 0, 64<<10), make([]byte, 0, 64<<10)
	for _, c := range codecs {
		packed, _ = Compress(packed[:0], c, 0, raw)
		if got := testing.AllocsPerRun(100, func() {
			if _, err := Decompress(dst, c, packed, 64<<10); err != nil {
				t.Fatal(err)
			}
		}); got >= 1 {
			t.Errorf("decompress %v: %v allocations", c, got)
		}
		other := make([]byte, 0, 64<<10)
		compress := func() {
			if _, err := Compress(other, c, 0, raw); err != nil {
				t.Fatal(err)
			}
		}
		// zstd's encoder has a state for each processor, complete after some turns.
		for range 10 * runtime.GOMAXPROCS(0) {
			compress()
		}
		if got := testing.AllocsPerRun(100, compress); got >= 1 {
			t.Errorf("compress %v: %v allocations", c, got)
		}
	}
	var w Builder
	value := make([]byte, 100)
	if got := testing.AllocsPerRun(100, func() {
		w.Reset(Plain)
		for range 10 {
			w.Add(1, nil, value)
		}
		if _, err := w.AppendTo(dst); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("build: %v allocations", got)
	}
}

func BenchmarkVerify(b *testing.B) {
	raw := benchBatch(140)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		first, _, err := Next(raw)
		if err != nil || first.Verify() != nil {
			b.Fatal(err)
		}
		first.Stamp(1, 2)
	}
}

func BenchmarkIterate(b *testing.B) {
	raw := benchBatch(140)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		var r Record
		it := raw.Iterate(raw.Records())
		for it.Next(&r) {
		}
	}
}
