package batch

import (
	"errors"
	"slices"
	"testing"
)

// repairCRCs puts the CRCs of the messages right, or the fuzzer would never get past them.
func repairCRCs(set []byte) {
	for {
		m, rest, err := cutMessage(set)
		if err != nil || m == nil {
			return
		}
		if m.Magic() == magicV2 {
			if len(m) >= HeaderBytes {
				Batch(m).sum()
			}
		} else {
			endMessage(m)
		}
		set = rest
	}
}

// FuzzMessageSet takes bytes from a client all the way to batches, and these
// to message sets again.
func FuzzMessageSet(f *testing.F) {
	some := canonical(8)
	for magic := range int8(2) {
		for _, c := range legacyCodecs {
			f.Add(set(f, magic, c, some), []byte{}, byte(c), 0)
			f.Add(set(f, magic, None, some), []byte{}, byte(c), 200)
			f.Add([]byte{}, set(f, magic, None, some), byte(c), 0)
		}
	}
	for _, c := range refusals(f) {
		f.Add(c.set, []byte{}, byte(0), 0)
	}
	f.Fuzz(func(t *testing.T, in, inner []byte, flags byte, maxBatchBytes int) {
		const limit = 1 << 16
		if len(inner) > 0 {
			// What the fuzzer wrote is in a wrapper, which it could not compress itself.
			inner = slices.Clone(inner)
			repairCRCs(inner)
			in = wrapper(t, int8(flags>>3&1), legacyCodecs[flags&3], flat{offset: int64(flags >> 4)}, inner)
		} else {
			in = slices.Clone(in)
			repairCRCs(in)
		}
		o := UpConvertOptions{
			MaxBatchBytes: max(maxBatchBytes, 0), MaxInflatedBytes: limit,
			LogAppendTime: flags&16 != 0, RequireKeys: flags&32 != 0,
			Recode: flags&64 != 0, Codec: codecs[int(flags&7)%len(codecs)],
		}
		out, err := UpConvert([]byte("head"), in, o)
		if string(out[:4]) != "head" || err != nil && len(out) > 4 {
			t.Fatalf("%d bytes and %v", len(out), err)
		}
		known := false
		for _, want := range []error{ErrCorrupt, ErrInvalid, ErrTimestamp, ErrTooLarge, ErrUnknownCodec} {
			known = known || errors.Is(err, want)
		}
		if err != nil && !known {
			t.Fatalf("an error of no kind: %v", err)
		}
		for raw := out[4:]; len(raw) > 0; {
			b, rest, err := Next(raw)
			if err != nil || b.Verify() != nil {
				t.Fatalf("a batch that does not verify: %v, %v", err, b.Verify())
			}
			raw = rest
			if o.MaxBatchBytes > 0 && len(b) > o.MaxBatchBytes {
				t.Fatalf("a batch of %d bytes, of at most %d", len(b), o.MaxBatchBytes)
			}
			for magic := range int8(2) {
				// A v2 batch in the place of a set may be of zstd, or hold anything.
				down, err := DownConvert(nil, b, magic, 0, 2*limit)
				if err == nil && !b.Control() {
					readSet(t, down)
				}
			}
		}
		// As the bytes of a set, message by message.
		for rest := in; ; {
			m, after, err := NextMessage(rest)
			if err != nil || m == nil {
				break
			}
			rest = after
			if _, _, err := m.KeyValue(); err != nil && !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			if inflated, err := m.Inflate(nil, limit); err == nil && len(inflated) > limit {
				t.Fatalf("inflated to %d bytes", len(inflated))
			}
		}
	})
}

// script makes messages of what the fuzzer wrote: a byte of flags, one of length, the bytes.
func script(in []byte) (all []flat) {
	timestamp := int64(1600000000000)
	take := func(n int) []byte {
		n = min(n, len(in))
		b := in[:n:n]
		in = in[n:]
		return append([]byte{}, b...)
	}
	for len(in) > 1 {
		flags, n := in[0], in[1]
		in = in[2:]
		f := flat{offset: int64(len(all))}
		timestamp += int64(n) - 100
		if flags&1 != 0 {
			f.key = take(int(flags >> 4))
		}
		if flags&2 != 0 {
			f.value = take(int(n))
		}
		f.timestamp = timestamp
		if flags&4 != 0 {
			f.timestamp = NoTimestamp
		}
		all = append(all, f)
	}
	return all
}

// FuzzConvertRoundTrip takes messages up, down and up again: key, value, timestamp
// and order stay, however large the batches may be.
func FuzzConvertRoundTrip(f *testing.F) {
	for i := range byte(8) {
		f.Add([]byte("\x33\x05keyvalue\x02\x03abc\x01\x00\x00\x00\x07\x09----------\x17\xff"), i, 0)
		f.Add([]byte("\x33\x05keyvalue\x02\x03abc\x01\x00\x00\x00\x07\x09----------\x17\xff"), i, 110)
	}
	f.Fuzz(func(t *testing.T, in []byte, flags byte, maxBatchBytes int) {
		all := script(in)
		if len(all) == 0 {
			return
		}
		magic, c := int8(flags&1), legacyCodecs[flags>>1&3]
		o := UpConvertOptions{MaxInflatedBytes: 1 << 24, MaxBatchBytes: max(maxBatchBytes, 0)}
		up, err := UpConvert(nil, set(t, magic, c, all), o)
		if errors.Is(err, ErrTooLarge) && o.MaxBatchBytes > 0 {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		want := asUpConverted(magic, all)
		got, used := readBatches(t, up)
		compareFlat(t, "up", got, want)
		if slices.ContainsFunc(used, func(u Codec) bool { return u != c }) {
			t.Fatalf("%v became %v", c, used)
		}
		for target := range int8(2) {
			next := int64(1000)
			var down, again []byte
			for raw := up; len(raw) > 0; {
				b, rest, _ := Next(raw)
				raw = rest
				b.Stamp(next, 0)
				at := len(down)
				if down, err = DownConvert(down, b, target, 0, 1<<24); err != nil {
					t.Fatal(err)
				}
				b.Stamp(0, 0)
				next += int64(b.Count())
				if again, err = UpConvert(again, down[at:], UpConvertOptions{MaxInflatedBytes: 1 << 24}); err != nil {
					t.Fatal(err)
				}
			}
			stored := asDownConverted(target, want)
			got, _ := readBatches(t, again)
			compareFlat(t, "up again", got, asUpConverted(target, stored))
			for i := range stored {
				stored[i].offset += 1000
			}
			compareFlat(t, "down", readSet(t, down), stored)
			compareFlat(t, "franz-go", readFranz(t, down, target == 0), stored)
		}
	})
}
