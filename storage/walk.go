package storage

import (
	"encoding/binary"
	"math"

	"github.com/quirelog/quire/protocol/batch"
)

// walked is what a quick walk over records has found.
type walked struct {
	least, most int64 // timestamp deltas
	keyless     bool  // a record without a key
}

// quickWalk looks at the records of a producer's batch, which are not compressed,
// at a fraction of what batch.Iterator costs: every record of every uncompressed
// produce request is looked at. It is ok only if the Iterator would find nothing
// wrong. If it is not, nothing is decided: records may have headers, or numbers
// longer than they need to be.
func quickWalk(b []byte, count int32) (w walked, ok bool) {
	i := 0
	w.least, w.most = math.MaxInt64, math.MinInt64
	for n := range uint64(count) {
		length, at := short(b, i)
		if at < 0 || length&1 != 0 || length>>1 > uint64(len(b)-at) {
			return w, false
		}
		i = at
		end := i + int(length>>1)
		r := b[:end]
		i++ // attributes
		var delta, number, size uint64
		delta, i = long(r, i)
		number, i = short(r, i)
		if number != n<<1 {
			return w, false
		}
		for field := range 2 {
			size, i = short(r, i)
			switch {
			case i < 0:
				return w, false
			case size == 1: // -1, null
				w.keyless = w.keyless || field == 0
			case size&1 != 0 || size>>1 > uint64(end-i):
				return w, false
			default:
				i += int(size >> 1)
			}
		}
		if i != end-1 || r[i] != 0 { // the count of headers is the last byte
			return w, false
		}
		i = end
		d := int64(delta>>1) ^ -int64(delta&1)
		w.least, w.most = min(w.least, d), max(w.most, d)
	}
	return w, i == len(b) && count > 0
}

// short reads a varint of at most 5 bytes, not yet zig-zagged back; next is -1
// if there is none. An i of -1 is handed on.
func short(b []byte, i int) (v uint64, next int) {
	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		return uint64(b[i]), i + 1
	}
	return varint(b, i, 5, math.MaxUint32)
}

// long is short for at most 10 bytes.
func long(b []byte, i int) (v uint64, next int) {
	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		return uint64(b[i]), i + 1
	}
	return varint(b, i, 10, math.MaxUint64)
}

func varint(b []byte, i, most int, limit uint64) (v uint64, next int) {
	if uint(i) >= uint(len(b)) {
		return 0, -1
	}
	if i+1 < len(b) && b[i+1] < 0x80 { // lengths and deltas from 64 to 8,191
		return uint64(b[i]&0x7f) | uint64(b[i+1])<<7, i + 2
	}
	v, n := binary.Uvarint(b[i:])
	if n <= 0 || n > most || v > limit {
		return 0, -1
	}
	return v, i + n
}

// quickCheck says whether a quick walk finds all records of b in order, and the
// largest timestamp.
func quickCheck(b batch.Batch, records []byte, c *LogConfig, now int64) (newest int64, ok bool) {
	w, ok := quickWalk(records, b.Count())
	base := b.BaseTimestamp()
	// Far from where sums could wrap; whatever is beyond is looked at slowly.
	const far = 1 << 60
	if !ok || c.Compact && w.keyless || base < -1 || base > far || w.most > far || base+w.least < 0 {
		return 0, false
	}
	newest = base + w.most
	if low, high := timestampBounds(c, now); !c.LogAppendTime && (base+w.least < low || newest > high) {
		return 0, false
	}
	return newest, true
}
