package storage

import (
	"bytes"
	"testing"

	"github.com/quirelog/quire/protocol/batch"
)

// FuzzQuickWalk holds the quick walk to batch.Iterator: what it accepts, the
// Iterator accepts, with the same timestamps and keys.
func FuzzQuickWalk(f *testing.F) {
	add := func(b batch.Batch) { f.Add([]byte(b.Records()), b.Count()) }
	add(makeBatch(batch.Plain, 1, 3, "v"))
	add(makeBatch(batch.Plain, 1, 200, "v"))
	var w batch.Builder
	w.Reset(batch.Plain)
	w.Add(1000, []byte("key"), nil)
	w.Add(1, nil, bytes.Repeat([]byte("x"), 9000))
	w.Add(1<<40, []byte{}, []byte{}, batch.RecordHeader{Key: []byte("h")})
	b, err := w.AppendTo(nil)
	if err != nil {
		f.Fatal(err)
	}
	add(b)
	f.Add([]byte{}, int32(0))
	f.Add([]byte{14, 0, 0, 0, 1, 1, 0, 0}, int32(1))
	f.Add([]byte{0x8c, 0x80, 0x80, 0x80, 0x80, 0, 0, 0, 0, 1, 1, 0}, int32(1))
	f.Fuzz(func(t *testing.T, records []byte, count int32) {
		if count < 0 || count > 1<<16 {
			return
		}
		got, ok := quickWalk(records, count)
		h := batch.Batch(make([]byte, batch.HeaderBytes))
		for i := range 4 {
			h[57+i] = byte(count >> (24 - 8*i))
			h[23+i] = byte((count - 1) >> (24 - 8*i))
		}
		it := h.Iterate(records)
		var r batch.Record
		want := walked{}
		for n := 0; it.Next(&r); n++ {
			if n == 0 {
				want.least, want.most = r.TimestampDelta, r.TimestampDelta
			}
			want.least, want.most = min(want.least, r.TimestampDelta), max(want.most, r.TimestampDelta)
			want.keyless = want.keyless || r.Key == nil
		}
		if ok && (it.Err() != nil || got != want) {
			t.Fatalf("the quick walk found %+v, the Iterator %+v, %v", got, want, it.Err())
		}
	})
}

func TestQuickWalkTakesWhatProducersSend(t *testing.T) {
	for _, b := range []batch.Batch{
		makeBatch(batch.Plain, 1, 1, "v"), makeBatch(batch.Plain, 1<<40, 5000, "v"),
		makeBatch(batch.Plain, 1, 3, string(bytes.Repeat([]byte("x"), 20_000))),
	} {
		w, ok := quickWalk(b.Records(), b.Count())
		if !ok || !w.keyless || w.least != 0 || w.most != int64(b.Count())-1 {
			t.Fatalf("%d records: %+v, %v", b.Count(), w, ok)
		}
		if _, ok := quickWalk(b.Records(), b.Count()-1); ok {
			t.Fatal("a record too many is not noticed")
		}
		if _, ok := quickWalk(b.Records()[:len(b.Records())-1], b.Count()); ok {
			t.Fatal("a record cut short is not noticed")
		}
	}
}

func BenchmarkQuickWalk(b *testing.B) {
	data := makeBatch(batch.Plain, 1, 100, string(bytes.Repeat([]byte("x"), 95)))
	b.SetBytes(100)
	for b.Loop() {
		if _, ok := quickWalk(data.Records(), data.Count()); !ok {
			b.Fatal("not ok")
		}
	}
}

func BenchmarkIterator(b *testing.B) {
	data := makeBatch(batch.Plain, 1, 100, string(bytes.Repeat([]byte("x"), 95)))
	b.SetBytes(100)
	for b.Loop() {
		it := data.Iterate(data.Records())
		var r batch.Record
		for it.Next(&r) {
		}
	}
}
