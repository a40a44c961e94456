package batch

import (
	"bytes"
	"errors"
	"testing"
)

func TestBuilder(t *testing.T) {
	var w Builder
	for _, c := range codecs {
		w.Reset(Header{LeaderEpoch: -1, Codec: c, ProducerID: 77, ProducerEpoch: 3, BaseSequence: 40})
		for _, r := range threeRecords() {
			var headers []RecordHeader
			for _, h := range r.Headers {
				headers = append(headers, RecordHeader{Key: []byte(h.Key), Value: h.Value})
			}
			w.Add(1000+r.TimestampDelta64, r.Key, r.Value, headers...)
		}
		if w.Count() != 3 {
			t.Fatalf("count %d", w.Count())
		}
		out, err := w.AppendTo([]byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		b := Batch(out[len("before"):])
		if err := b.Verify(); err != nil {
			t.Fatal(err)
		}
		want := reference(None, nil, threeRecords()...)
		if c != None {
			records, err := Decompress(nil, c, b.Records(), 1<<20)
			if err != nil || !bytes.Equal(records, want[HeaderBytes:]) {
				t.Fatalf("%v: records differ: %v", c, err)
			}
			continue
		}
		if !bytes.Equal(b, want) {
			t.Fatalf("got  %x\nwant %x", []byte(b), want)
		}
		if w.Len() != len(want) {
			t.Fatalf("Len %d, want %d", w.Len(), len(want))
		}
	}
}

func TestBuilderAttributes(t *testing.T) {
	var w Builder
	h := Plain
	h.Transactional, h.Control, h.BaseOffset, h.LeaderEpoch = true, true, 12, 4
	w.Reset(h)
	w.Add(NoTimestamp, nil, nil)
	out, err := w.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := Batch(out)
	if !b.Transactional() || !b.Control() || b.BaseOffset() != 12 || b.LeaderEpoch() != 4 || b.ProducerID() != NoProducerID || b.MaxTimestamp() != NoTimestamp {
		t.Fatalf("%x", out)
	}
	it := b.Iterate(b.Records())
	var r Record
	if !it.Next(&r) || r.Key != nil || r.Value != nil || it.Next(&r) || it.Err() != nil {
		t.Fatalf("record %+v, %v", r, it.Err())
	}
}

func TestBuilderRefuses(t *testing.T) {
	var w Builder
	w.Reset(Plain)
	if _, err := w.AppendTo(nil); !errors.Is(err, ErrInvalid) {
		t.Fatalf("batch without records: %v", err)
	}
	w.Reset(Header{Codec: 5})
	w.Add(0, nil, nil)
	if _, err := w.AppendTo(nil); !errors.Is(err, ErrUnknownCodec) {
		t.Fatalf("codec 5: %v", err)
	}
}
