package protocol

import (
	"math"
	"math/rand/v2"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// random makes messages with fields of all shapes: empty, null, long enough to
// need two bytes of compact length.
type random struct{ *rand.Rand }

func newRandom(seed uint64) random { return random{rand.New(rand.NewPCG(seed, 7))} }

func (r random) n(most int) int { return r.IntN(most + 1) }

func (r random) i32() int32 {
	return []int32{0, -1, 1, math.MaxInt32, math.MinInt32, r.Int32()}[r.n(5)]
}
func (r random) i64() int64 {
	return []int64{0, -1, 1, math.MaxInt64, math.MinInt64, r.Int64()}[r.n(5)]
}
func (r random) i16() int16 { return int16(r.i32()) }
func (r random) id() (id [16]byte) {
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	return id
}
func (r random) str() string {
	return strings.Repeat("s", []int{0, 1, 5, 126, 127, 128, 300}[r.n(6)])
}

// nullable returns null in place of the empty string, as this package's encoders do.
func (r random) nullable() *string {
	if s := r.str(); s != "" {
		return &s
	}
	return nil
}

func (r random) bytes() []byte {
	n := []int{0, 1, 61, 126, 127, 128, 20000}[r.n(6)]
	at := r.n(64)
	return noise[at : at+n : at+n]
}

var noise = func() []byte {
	r := newRandom(99)
	b := make([]byte, 32<<10)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}()

// count is mostly small and sometimes needs two bytes of compact length.
func (r random) count() int {
	if r.n(40) == 0 {
		return 126 + r.n(3)
	}
	return r.n(3)
}

// tags adds unknown tagged fields, which a decoder must skip. Tags 0 and 1 mean something.
func (r random) tags(t *kmsg.Tags) {
	for range r.n(6) / 5 * 2 {
		t.Set(10+uint32(r.n(300)), r.bytes())
	}
}
