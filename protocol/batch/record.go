package batch

import (
	"encoding/binary"
	"fmt"
)

// Record is one record of a batch. Its byte slices alias what it was read from.
type Record struct {
	Attributes     int8
	TimestampDelta int64  // ms, from the batch's base timestamp
	OffsetDelta    int32  // from the batch's base offset
	Key            []byte // nil: no key
	Value          []byte // nil: a tombstone
	Headers        Headers
}

// Headers are the headers of a record, still encoded. Take a copy to read them
// more than once.
type Headers struct {
	rest []byte
	n    int32
}

// RecordHeader is one header of a record. It aliases the record.
type RecordHeader struct {
	Key   []byte
	Value []byte // nil: null
}

// Len returns how many headers are left.
func (h *Headers) Len() int { return int(h.n) }

// Next reads a header into out. It returns false after the last one. It cannot
// fail: the Iterator has checked the headers' bounds.
func (h *Headers) Next(out *RecordHeader) bool {
	if h.n <= 0 {
		return false
	}
	var ok bool
	if h.rest, ok = readHeader(h.rest, out); !ok {
		h.n = 0
		return false
	}
	h.n--
	return true
}

// Iterator reads records one after the other without allocating. It is a
// value for one goroutine's stack.
type Iterator struct {
	rest   []byte
	i      int32 // records read
	count  int32
	last   int32 // of a stored batch: its last offset delta
	next   int64 // the smallest offset delta that may come
	sparse bool
	err    error
}

// Iterate reads the records of a batch as a producer must send it: as many as
// its header counts, with offset deltas 0, 1, 2 …, and nothing after them. records is
// b.Records() of an uncompressed batch, or what Decompress made of it.
func (b Batch) Iterate(records []byte) Iterator {
	return Iterator{rest: records, count: b.Count(), last: b.LastOffsetDelta()}
}

// IterateStored is Iterate for a batch that compaction may have thinned out:
// its offset deltas rise, with gaps, up to the last offset delta.
func (b Batch) IterateStored(records []byte) Iterator {
	return Iterator{rest: records, count: b.Count(), last: b.LastOffsetDelta(), sparse: true}
}

// Err returns why Next returned false: nil at the end of the batch, else an
// ErrInvalid that names the record.
func (it *Iterator) Err() error { return it.err }

// Index returns how many records were read. After an error it is the index of
// the record at fault.
func (it *Iterator) Index() int32 { return it.i }

// Next reads a record into r. It returns false after the last one and at the
// first malformed one.
func (it *Iterator) Next(r *Record) bool {
	if it.err != nil {
		return false
	}
	if it.i >= it.count {
		if len(it.rest) > 0 {
			it.err = fmt.Errorf("%w: %d bytes after the last of %d records", ErrInvalid, len(it.rest), it.count)
		}
		return false
	}
	if len(it.rest) == 0 {
		it.err = fmt.Errorf("%w: %d records where the header counts %d", ErrInvalid, it.i, it.count)
		return false
	}
	length, body, ok := readVarint(it.rest)
	if !ok || length < 0 || int64(length) > int64(len(body)) {
		return it.fail("has a bad length")
	}
	it.rest = body[length:]
	if !readRecord(body[:length:length], r) {
		return it.fail("is malformed")
	}
	// Deltas count from 0, or rise with gaps: either way next is the bound.
	delta := int64(r.OffsetDelta)
	if delta < it.next || delta > int64(it.last) || !it.sparse && delta != it.next {
		return it.fail("has a bad offset delta")
	}
	it.next = delta + 1
	it.i++
	return true
}

func (it *Iterator) fail(what string) bool {
	it.err = fmt.Errorf("%w: record %d of %d %s", ErrInvalid, it.i, it.count, what)
	return false
}

// readRecord reads a record's body: all of it must be used.
func readRecord(b []byte, r *Record) bool {
	if len(b) == 0 {
		return false
	}
	r.Attributes = int8(b[0])
	var ok bool
	if r.TimestampDelta, b, ok = readVarlong(b[1:]); !ok {
		return false
	}
	if r.OffsetDelta, b, ok = readVarint(b); !ok {
		return false
	}
	if r.Key, b, ok = readBytes(b); !ok {
		return false
	}
	if r.Value, b, ok = readBytes(b); !ok {
		return false
	}
	n, b, ok := readVarint(b)
	// A header takes two bytes at least, which bounds the loop below.
	if !ok || n < 0 || int64(n)*2 > int64(len(b)) {
		return false
	}
	r.Headers = Headers{rest: b, n: n}
	var h RecordHeader
	for range n {
		if b, ok = readHeader(b, &h); !ok {
			return false
		}
	}
	return len(b) == 0
}

func readHeader(b []byte, h *RecordHeader) (rest []byte, ok bool) {
	if h.Key, b, ok = readBytes(b); !ok || h.Key == nil {
		return nil, false
	}
	h.Value, b, ok = readBytes(b)
	return b, ok
}

// readBytes reads a varint length, -1 for null, and so many bytes.
func readBytes(b []byte) (v, rest []byte, ok bool) {
	n, b, ok := readVarint(b)
	if !ok || n < -1 || int64(n) > int64(len(b)) {
		return nil, nil, false
	}
	if n == -1 {
		return nil, b, true
	}
	return b[:n:n], b[n:], true
}

// readVarint reads a zig-zag varint of at most 5 bytes.
func readVarint(b []byte) (v int32, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 { // most lengths and deltas
		u := uint32(b[0])
		return int32(u>>1) ^ -int32(u&1), b[1:], true
	}
	u, n := binary.Uvarint(b)
	if n <= 0 || n > 5 || u > 1<<32-1 {
		return 0, nil, false
	}
	return int32(uint32(u)>>1) ^ -int32(u&1), b[n:], true
}

// readVarlong reads a zig-zag varint of at most 10 bytes.
func readVarlong(b []byte) (v int64, rest []byte, ok bool) {
	u, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return int64(u>>1) ^ -int64(u&1), b[n:], true
}
