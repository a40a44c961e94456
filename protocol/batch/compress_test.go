package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = []Codec{None, Gzip, Snappy, LZ4, Zstd}

// inputs are of the sizes around the codecs' blocks, compressible and not.
func inputs() [][]byte {
	rng := rand.NewPCG(1, 2)
	var all [][]byte
	for _, n := range []int{0, 1, 100, 32<<10 - 1, 32 << 10, 32<<10 + 1, 64<<10 + 1, 300 << 10} {
		noise, text := make([]byte, n), make([]byte, n)
		for i := range n {
			noise[i], text[i] = byte(rng.Uint64()), "abcd"[rng.Uint64()%4]
		}
		all = append(all, noise, text, make([]byte, n))
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	for _, c := range codecs {
		for i, in := range inputs() {
			packed, err := Compress([]byte("head"), c, 0, in)
			if err != nil || !bytes.HasPrefix(packed, []byte("head")) {
				t.Fatalf("%v: input %d: compress: %v", c, i, err)
			}
			out, err := Decompress([]byte("before"), c, packed[4:], len(in))
			if err != nil || !bytes.Equal(out, append([]byte("before"), in...)) {
				t.Fatalf("%v: input %d of %d bytes: %v", c, i, len(in), err)
			}
			// Into room that is there already, and into more than is needed.
			for _, room := range []int{len(in), len(in) + 1, 4 * len(in)} {
				dst := make([]byte, 0, room)
				if out, err = Decompress(dst, c, packed[4:], 1<<20); err != nil || !bytes.Equal(out, in) {
					t.Fatalf("%v: input %d of %d bytes into %d: %v", c, i, len(in), room, err)
				}
			}
			if len(in) == 0 {
				continue
			}
			if out, err = Decompress([]byte("before"), c, packed[4:], len(in)-1); !errors.Is(err, ErrTooLarge) || string(out) != "before" {
				t.Fatalf("%v: input %d of %d bytes with a limit one below: %v", c, i, len(in), err)
			}
			if _, err = Decompress(nil, c, packed[4:], 0); !errors.Is(err, ErrTooLarge) {
				t.Fatalf("%v: input %d with limit 0: %v", c, i, err)
			}
		}
	}
}

func TestLevels(t *testing.T) {
	in := inputs()[22]
	for _, c := range codecs {
		lowest, highest, standard := Levels(c)
		lowest = max(lowest, -2)
		for level := min(lowest, standard) - 1; level <= highest+1; level++ {
			packed, err := Compress(nil, c, level, in)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := Decompress(nil, c, packed, len(in)); err != nil || !bytes.Equal(out, in) {
				t.Fatalf("%v level %d: %v", c, level, err)
			}
		}
	}
}

func TestUnknownCodec(t *testing.T) {
	for _, c := range []Codec{-1, 5, 7} {
		if _, err := Compress(nil, c, 0, nil); !errors.Is(err, ErrUnknownCodec) {
			t.Errorf("Compress with codec %d: %v", c, err)
		}
		if _, err := Decompress(nil, c, nil, 10); !errors.Is(err, ErrUnknownCodec) {
			t.Errorf("Decompress with codec %d: %v", c, err)
		}
	}
}

// TestFranz holds both directions against franz-go, whose framing real brokers and consumers take.
func TestFranz(t *testing.T) {
	theirs := map[Codec]kgo.CompressionCodec{Gzip: kgo.GzipCompression(), Snappy: kgo.SnappyCompression(), LZ4: kgo.Lz4Compression(), Zstd: kgo.ZstdCompression()}
	for c, codec := range theirs {
		compressor, err := kgo.DefaultCompressor(codec)
		if err != nil {
			t.Fatal(err)
		}
		for i, in := range inputs() {
			var buf bytes.Buffer
			packed, used := compressor.Compress(&buf, in)
			if Codec(used) != c {
				t.Fatalf("%v: franz-go used codec %d", c, used)
			}
			if out, err := Decompress(nil, c, packed, 1<<20); err != nil || !bytes.Equal(out, in) {
				t.Fatalf("%v: franz-go's input %d: %v", c, i, err)
			}
			packed, err := Compress(nil, c, 0, in)
			if err != nil {
				t.Fatal(err)
			}
			if len(in) == 0 {
				continue
			}
			if out, err := kgo.DefaultDecompressor().Decompress(packed, kgo.CompressionCodecType(c)); err != nil || !bytes.Equal(out, in) {
				t.Fatalf("%v: franz-go does not read input %d: %v", c, i, err)
			}
		}
	}
}

func TestSnappyFramings(t *testing.T) {
	in := inputs()[22]
	stream, err := Compress(nil, Snappy, 0, in)
	if err != nil {
		t.Fatal(err)
	}
	for name, packed := range map[string][]byte{
		"raw block":        s2.EncodeSnappy(nil, in),
		"stream":           stream,
		"two streams":      slices.Concat(stream, stream),
		"stream of one":    slices.Concat(xerialMagic, []byte{0, 0, 0, 1, 0, 0, 0, 1}, binary.BigEndian.AppendUint32(nil, uint32(len(s2.EncodeSnappy(nil, in)))), s2.EncodeSnappy(nil, in)),
		"newer stream":     slices.Concat(xerialMagic, []byte{0, 0, 0, 2, 0, 0, 0, 1}, stream[16:]),
		"stream of nought": stream[:16],
	} {
		want := in
		switch name {
		case "two streams":
			want = slices.Concat(in, in)
		case "stream of nought":
			want = nil
		}
		if out, err := Decompress(nil, Snappy, packed, 2*len(in)); err != nil || !bytes.Equal(out, want) {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
	}
}

func TestLZ4Frames(t *testing.T) {
	in := inputs()[22]
	for _, size := range []lz4.BlockSize{lz4.Block64Kb, lz4.Block256Kb, lz4.Block1Mb, lz4.Block4Mb} {
		var packed bytes.Buffer
		w := lz4.NewWriter(&packed)
		if err := w.Apply(lz4.BlockSizeOption(size), lz4.BlockChecksumOption(true), lz4.ChecksumOption(true), lz4.SizeOption(uint64(len(in)))); err != nil {
			t.Fatal(err)
		}
		finish(w, in)
		frame := packed.Bytes()
		two := slices.Concat(frame, []byte{0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9}, frame) // a skippable frame between
		if out, err := Decompress(nil, LZ4, two, 2*len(in)); err != nil || !bytes.Equal(out, slices.Concat(in, in)) {
			t.Fatalf("blocks of %v: %v", size, err)
		}
		frame[14] ^= 0xff // header checksum, as old Java clients have it
		if out, err := Decompress(nil, LZ4, frame, len(in)); err != nil || !bytes.Equal(out, in) {
			t.Fatalf("blocks of %v with a wrong header checksum: %v", size, err)
		}
	}

	// Linked blocks: the second is a match 8 bytes back in the first.
	linked := []byte{0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0,
		8, 0, 0, 0x80, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h',
		9, 0, 0, 0, 0x04, 8, 0, 0x50, '1', '2', '3', '4', '5',
		0, 0, 0, 0}
	out, err := Decompress(nil, LZ4, linked, 100)
	if err != nil || string(out) != "abcdefghabcdefgh12345" {
		t.Fatalf("linked blocks: %q, %v", out, err)
	}
	linked[4] |= 0x20 // independent: the match has nothing to refer to
	if out, err := Decompress(nil, LZ4, linked, 1<<20); !errors.Is(err, ErrInvalid) {
		t.Fatalf("match before an independent block: %q, %v", out, err)
	}
}

func TestDecompressRefuses(t *testing.T) {
	in := inputs()[10]
	for _, c := range codecs[1:] {
		good, err := Compress(nil, c, 0, in)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(good) {
			if c == Snappy && n >= 16 && (n-16 == 0 || n == len(good)) {
				continue // whole chunks
			}
			if _, err := Decompress(nil, c, good[:n], 2*len(in)); !errors.Is(err, ErrInvalid) {
				t.Fatalf("%v: cut off after %d of %d bytes: %v", c, n, len(good), err)
			}
		}
		if _, err := Decompress(nil, c, append(good, "garbage"...), 2*len(in)); !errors.Is(err, ErrInvalid) {
			t.Fatalf("%v: garbage after the end: %v", c, err)
		}
		if _, err := Decompress(nil, c, []byte("neither of these formats"), 2*len(in)); err == nil {
			t.Fatalf("%v: garbage was taken", c)
		}
	}
}

// bombs are inputs that inflate to, or claim, 64 MiB and more.
func bombs(t *testing.T) map[string]struct {
	codec  Codec
	packed []byte
} {
	t.Helper()
	type bomb = struct {
		codec  Codec
		packed []byte
	}
	zeros := make([]byte, 64<<20)
	all := make(map[string]bomb)
	for _, c := range codecs[1:] {
		packed, err := Compress(nil, c, 0, zeros)
		if err != nil {
			t.Fatal(err)
		}
		all[c.String()] = bomb{c, packed}
	}
	all["snappy raw block"] = bomb{Snappy, s2.EncodeSnappy(nil, zeros)}
	all["snappy claim of 4 GiB"] = bomb{Snappy, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0}}
	all["zstd lie of an exabyte"] = bomb{Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x01, 0, 0}}

	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithWindowSize(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	finish(w, zeros)
	all["zstd stream without a size, with a window of 64 MiB"] = bomb{Zstd, buf.Bytes()}

	buf = bytes.Buffer{}
	z := lz4.NewWriter(&buf)
	if err := z.Apply(lz4.BlockSizeOption(lz4.Block4Mb)); err != nil {
		t.Fatal(err)
	}
	finish(z, zeros)
	all["lz4 of 4 MiB blocks"] = bomb{LZ4, buf.Bytes()}
	return all
}

func TestBombsAreBounded(t *testing.T) {
	const limit = 1 << 20
	for name, b := range bombs(t) {
		inflate := func() {
			want := ErrTooLarge
			if strings.Contains(name, "lie") {
				want = ErrInvalid
			}
			if _, err := Decompress(nil, b.codec, b.packed, limit); !errors.Is(err, want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		inflate() // makes the codec's own working memory, which is pooled
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		inflate()
		runtime.ReadMemStats(&after)
		if spent := after.TotalAlloc - before.TotalAlloc; spent > 3*limit {
			t.Errorf("%s: %d bytes allocated under a limit of %d", name, spent, limit)
		}
	}
}

// TestZstdIsRefusedByItsHeaders: what the block headers alone give away costs no memory.
func TestZstdIsRefusedByItsHeaders(t *testing.T) {
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0x38} // no content size, a window of 128 KiB
	for i := range 60 {
		head := uint32(128<<10)<<3 | zstdRLEBlock<<1
		if i == 59 {
			head |= 1 // last
		}
		frame = append(frame, byte(head), byte(head>>8), byte(head>>16), 'x')
	}
	if out, err := Decompress(nil, Zstd, frame, 8<<20); err != nil || len(out) != 60*128<<10 {
		t.Fatalf("%d bytes, %v", len(out), err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Decompress(nil, Zstd, frame, 7<<20)
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrTooLarge) || spent > 1<<20 {
		t.Fatalf("%d bytes allocated, %v", spent, err)
	}
}

func TestRecompress(t *testing.T) {
	plain := Batch(reference(None, nil, threeRecords()...))
	for _, from := range codecs {
		b, err := Recompress(nil, plain, from, 0, plain.Records())
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range codecs {
			records, err := Decompress(nil, Batch(b).Codec(), Batch(b).Records(), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			out, err := Recompress([]byte("before"), b, to, 0, records)
			if err != nil {
				t.Fatal(err)
			}
			made := Batch(out[len("before"):])
			if err := made.Verify(); err != nil || made.Codec() != to {
				t.Fatalf("%v to %v: %v", from, to, err)
			}
			if to == None && !bytes.Equal(made, plain) {
				t.Fatalf("%v and back is not the same batch", from)
			}
		}
	}
}

func BenchmarkCompress(b *testing.B) {
	in := inputs()[22]
	for _, c := range codecs[1:] {
		packed, _ := Compress(nil, c, 0, in)
		b.Run(fmt.Sprintf("%v/in", c), func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				dst, _ = Compress(dst[:0], c, 0, in)
			}
		})
		b.Run(fmt.Sprintf("%v/out", c), func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			dst := make([]byte, 0, len(in))
			for b.Loop() {
				dst, _ = Decompress(dst[:0], c, packed, len(in))
			}
		})
	}
}
