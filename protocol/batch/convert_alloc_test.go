//go:build !race

package batch

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// producerSet is a set as producers send it: 16 KB of messages of 100 bytes.
func producerSet(tb testing.TB, magic int8, c Codec) (packed []byte, plainBytes int) {
	rng := rand.NewPCG(3, 4)
	var all []flat
	for plainBytes < 16<<10 {
		// Half of it is text that comes again, as in logs.
		value := append([]byte(`{"level":"info","service":"checkout","message":"o`), make([]byte, 50)...)
		for i := 50; i+8 <= len(value); i += 8 {
			binary.LittleEndian.PutUint64(value[i:], rng.Uint64())
		}
		all = append(all, flat{offset: int64(len(all)), timestamp: 1600000000000 + int64(len(all)), value: value})
		plainBytes += len(message(magic, 0, all[len(all)-1]))
	}
	return set(tb, magic, c, all), plainBytes
}

func TestConversionAllocations(t *testing.T) {
	for magic := range int8(2) {
		for _, c := range legacyCodecs {
			in, _ := producerSet(t, magic, c)
			up := func(dst []byte) []byte {
				out, err := UpConvert(dst, in, wide)
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			stored := Batch(up(nil))
			down := func(dst []byte) []byte {
				out, err := DownConvert(dst, stored, magic, 0, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			dst := make([]byte, 0, 64<<10)
			for name, f := range map[string]func(){
				"up":   func() { up(dst) },
				"down": func() { down(dst) },
			} {
				f()
				if got := testing.AllocsPerRun(100, f); got >= 1 {
					t.Errorf("%s, magic %d, %v: %v allocations into a slice with room", name, magic, c, got)
				}
			}
			for name, f := range map[string]func(){
				"up":   func() { up(nil) },
				"down": func() { down(nil) },
			} {
				if got := testing.AllocsPerRun(100, f); got > 8 {
					t.Errorf("%s, magic %d, %v: %v allocations", name, magic, c, got)
				}
			}
		}
	}
}

func BenchmarkUpConvert(b *testing.B) {
	for _, c := range legacyCodecs {
		b.Run(c.String(), func(b *testing.B) {
			in, size := producerSet(b, 1, c)
			dst := make([]byte, 0, 64<<10)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := UpConvert(dst, in, wide); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDownConvert(b *testing.B) {
	for _, c := range legacyCodecs {
		b.Run(c.String(), func(b *testing.B) {
			in, size := producerSet(b, 1, c)
			stored, err := UpConvert(nil, in, wide)
			if err != nil {
				b.Fatal(err)
			}
			dst := make([]byte, 0, 64<<10)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DownConvert(dst, stored, 1, 0, 1<<20); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLookInto is what it takes to look into a compressed batch beside its checksum,
// which is verified in any case: log lines of about 200 bytes, in batches as producers
// send them. Bytes are those that it inflates to; ratio is how many that are of one sent.
func BenchmarkLookInto(b *testing.B) {
	rng := rand.New(rand.NewPCG(5, 6))
	words := make([]string, 3000)
	for i := range words {
		words[i] = strings.Repeat(string(rune('a'+i%26)), 1+i%3) + strconv.FormatUint(rng.Uint64(), 36)[:3+i%5]
	}
	for _, size := range []int{16 << 10, 256 << 10} {
		var builder Builder
		builder.Reset(Plain)
		for i := 0; builder.Len() < size; i++ {
			line := fmt.Sprintf(`{"time":%d,"level":"info","request":"%016x","message":"`, 1600000000000+i, rng.Uint64())
			for len(line) < 190 {
				line += words[int(rng.ExpFloat64()*300)%len(words)] + " "
			}
			builder.Add(1600000000000+int64(i), nil, []byte(line+`"}`))
		}
		plain, err := builder.AppendTo(nil)
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range codecs[1:] {
			b.Run(fmt.Sprintf("%v/%dKB", c, size>>10), func(b *testing.B) {
				stored, err := Recompress(nil, plain, c, 0, Batch(plain).Records())
				if err != nil {
					b.Fatal(err)
				}
				sent := Batch(stored)
				dst := make([]byte, 0, len(plain))
				b.SetBytes(int64(len(plain)))
				b.ReportAllocs()
				for b.Loop() {
					records, err := Decompress(dst, c, sent.Records(), 1<<20)
					if err != nil {
						b.Fatal(err)
					}
					it := sent.Iterate(records)
					var r Record
					for it.Next(&r) {
					}
					if err := it.Err(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(len(plain))/float64(len(sent)), "ratio")
			})
		}
	}
}
