package protocol

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// reader takes values off a body from the front. After the first malformed
// value it is bad, is empty, and everything that it returns is zero; so its
// users check bad once, and before loops.
type reader struct {
	src []byte
	bad bool
	why string // what was malformed first
}

func (r *reader) fail(why string) {
	if !r.bad {
		r.bad, r.why = true, why
	}
	r.src = nil
}

func (r *reader) err(api string) error {
	if !r.bad {
		return nil
	}
	return fmt.Errorf("%w: %s: %s", ErrMalformed, api, r.why)
}

func (r *reader) int8() int8 {
	if len(r.src) < 1 {
		r.fail("ends within an int8")
		return 0
	}
	v := int8(r.src[0])
	r.src = r.src[1:]
	return v
}

func (r *reader) int16() int16 {
	if len(r.src) < 2 {
		r.fail("ends within an int16")
		return 0
	}
	v := int16(binary.BigEndian.Uint16(r.src))
	r.src = r.src[2:]
	return v
}

func (r *reader) int32() int32 {
	if len(r.src) < 4 {
		r.fail("ends within an int32")
		return 0
	}
	v := int32(binary.BigEndian.Uint32(r.src))
	r.src = r.src[4:]
	return v
}

func (r *reader) int64() int64 {
	if len(r.src) < 8 {
		r.fail("ends within an int64")
		return 0
	}
	v := int64(binary.BigEndian.Uint64(r.src))
	r.src = r.src[8:]
	return v
}

func (r *reader) uuid() (id [16]byte) {
	copy(id[:], r.span(16))
	return id
}

// uvarint reads an unsigned varint of at most 32 bits in at most 5 bytes.
func (r *reader) uvarint() uint32 {
	if len(r.src) > 0 && r.src[0] < 0x80 {
		v := uint32(r.src[0])
		r.src = r.src[1:]
		return v
	}
	v, n := binary.Uvarint(r.src)
	if n <= 0 || n > 5 || v > 1<<32-1 {
		r.fail("has a bad varint")
		return 0
	}
	r.src = r.src[n:]
	return uint32(v)
}

// span takes n bytes, without copying them.
func (r *reader) span(n int64) []byte {
	if n < 0 || n > int64(len(r.src)) {
		r.fail("has a length beyond its end")
		return nil
	}
	v := r.src[:n:n]
	r.src = r.src[n:]
	return v
}

// stringLen reads the length of a string, -1 for null.
func (r *reader) stringLen(flexible bool) int64 {
	if flexible {
		return int64(r.uvarint()) - 1
	}
	return int64(r.int16())
}

// bytesLen reads the length of bytes or an array, -1 for null.
func (r *reader) bytesLen(flexible bool) int64 {
	if flexible {
		return int64(r.uvarint()) - 1
	}
	return int64(r.int32())
}

// string returns a string that aliases the body. Null is malformed.
func (r *reader) string(flexible bool) string {
	return alias(r.span(r.stringLen(flexible)))
}

// nullableString returns a string that aliases the body; ok is false for null.
func (r *reader) nullableString(flexible bool) (s string, ok bool) {
	n := r.stringLen(flexible)
	if n == -1 {
		return "", false
	}
	return alias(r.span(n)), !r.bad
}

// nullableBytes returns bytes that alias the body: nil for null, never nil for
// bytes of length 0.
func (r *reader) nullableBytes(flexible bool) []byte {
	n := r.bytesLen(flexible)
	if n == -1 {
		return nil
	}
	return r.span(n)
}

// arrayLen reads the length of an array whose elements take at least
// minElement bytes each. Null, and a length that cannot fit into what is left,
// are malformed: so no memory or time is spent on elements that are not there.
func (r *reader) arrayLen(flexible bool, minElement int64) int {
	n := r.bytesLen(flexible)
	if r.bad {
		return 0
	}
	if n < 0 || n*minElement > int64(len(r.src)) {
		r.fail("has an array length beyond its end")
		return 0
	}
	return int(n)
}

// tagCount reads how many tagged fields follow. Each takes two bytes at least.
func (r *reader) tagCount() int { return r.count(2) }

func (r *reader) count(minElement int64) int {
	n := int64(r.uvarint())
	if n*minElement > int64(len(r.src)) {
		r.fail("has more tagged fields than bytes")
		return 0
	}
	return int(n)
}

// tag reads a tagged field's number and takes its bytes.
func (r *reader) tag() (tag uint32, field reader) {
	tag = r.uvarint()
	return tag, reader{src: r.span(int64(r.uvarint()))}
}

// skipTags skips the tagged fields at the end of a flexible struct.
func (r *reader) skipTags() {
	for n := r.tagCount(); n > 0 && !r.bad; n-- {
		r.uvarint()
		r.span(int64(r.uvarint()))
	}
}

func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// The append functions below write what the reader reads.

func appendInt16(b []byte, v int16) []byte { return binary.BigEndian.AppendUint16(b, uint16(v)) }
func appendInt32(b []byte, v int32) []byte { return binary.BigEndian.AppendUint32(b, uint32(v)) }
func appendInt64(b []byte, v int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(v)) }

func appendUvarint(b []byte, v uint32) []byte { return binary.AppendUvarint(b, uint64(v)) }

func appendArrayLen(b []byte, flexible bool, n int) []byte {
	if flexible {
		return appendUvarint(b, uint32(n)+1)
	}
	return appendInt32(b, int32(n))
}

func appendNullArray(b []byte, flexible bool) []byte {
	if flexible {
		return append(b, 0)
	}
	return appendInt32(b, -1)
}

// appendString cuts what a length of two bytes cannot say. Only a message of
// ours could be so long: names come from requests of the same encoding.
func appendString(b []byte, flexible bool, s string) []byte {
	if flexible {
		b = appendUvarint(b, uint32(len(s))+1)
	} else {
		s = s[:min(len(s), math.MaxInt16)]
		b = appendInt16(b, int16(len(s)))
	}
	return append(b, s...)
}

// appendNullableString writes the empty string as null: no field that uses it
// tells the two apart.
func appendNullableString(b []byte, flexible bool, s string) []byte {
	switch {
	case s != "":
		return appendString(b, flexible, s)
	case flexible:
		return append(b, 0)
	}
	return appendInt16(b, -1)
}

func uvarintLen(v uint32) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
