package batch

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzBatch takes bytes from a client all the way: cut, verify, inflate,
// iterate. The CRC is put right first, or the fuzzer would never get past it.
func FuzzBatch(f *testing.F) {
	for _, c := range codecs {
		plain := Batch(reference(None, nil, threeRecords()...))
		b, err := Recompress(nil, plain, c, 0, plain.Records())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, b...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 1 << 20
		for len(in) > 0 {
			b, rest, err := Next(in)
			if err != nil {
				return
			}
			if len(b)+len(rest) != len(in) || len(b) < HeaderBytes {
				t.Fatalf("Next cut %d bytes into %d and %d", len(in), len(b), len(rest))
			}
			in = rest
			b.sum()
			sound, stored := b.Verify() == nil, b.VerifyStored() == nil
			if sound && !stored {
				t.Fatal("Verify is laxer than VerifyStored")
			}
			records, err := Decompress(nil, b.Codec(), b.Records(), limit)
			if err != nil || !stored {
				continue
			}
			if len(records) > limit {
				t.Fatalf("inflated to %d bytes", len(records))
			}
			strict := iterate(t, b.Iterate(records), b)
			lax := iterate(t, b.IterateStored(records), b)
			if strict == nil && lax != nil {
				t.Fatalf("Iterate is laxer than IterateStored: %v", lax)
			}
		}
	})
}

func iterate(t *testing.T, it Iterator, b Batch) error {
	var r Record
	n := int32(0)
	for it.Next(&r) {
		n++
		h, hdr := r.Headers, RecordHeader{}
		for want := h.Len(); h.Next(&hdr); want-- {
			if want == 0 || hdr.Key == nil {
				t.Fatal("headers do not match their count")
			}
		}
	}
	if err := it.Err(); err != nil {
		if !errors.Is(err, ErrInvalid) {
			t.Fatalf("iterate: %v", err)
		}
		return err
	}
	if n != b.Count() {
		t.Fatalf("iterated over %d records of %d", n, b.Count())
	}
	return nil
}

func FuzzDecompress(f *testing.F) {
	for _, c := range codecs {
		packed, err := Compress(nil, c, 0, []byte("some text, some text, some text"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(int8(c), packed, 100)
		f.Add(int8(c), packed, 30)
	}
	f.Fuzz(func(t *testing.T, codec int8, packed []byte, limit int) {
		limit = min(max(limit, -1), 1<<20)
		head := []byte("head")
		out, err := Decompress(head, Codec(codec), packed, limit)
		if !bytes.HasPrefix(out, head) || err != nil && len(out) != len(head) {
			t.Fatalf("%d bytes and %v", len(out), err)
		}
		if err == nil && len(out)-len(head) > max(limit, 0) {
			t.Fatalf("inflated to %d bytes, limit %d", len(out)-len(head), limit)
		}
		// What room dst has makes no difference.
		again, err2 := Decompress(make([]byte, 0, 1<<20+1<<18), Codec(codec), packed, limit)
		if (err == nil) != (err2 == nil) || err == nil && !bytes.Equal(out[len(head):], again) {
			t.Fatalf("into a larger slice: %v, else %v", err2, err)
		}
	})
}
