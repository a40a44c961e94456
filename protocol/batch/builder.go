package batch

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Header holds the fields of a batch's header that its records do not determine.
type Header struct {
	BaseOffset    int64
	LeaderEpoch   int32
	Codec         Codec
	Level         int // of Codec, see Levels
	Transactional bool
	Control       bool
	ProducerID    int64
	ProducerEpoch int16
	BaseSequence  int32
}

// Plain is the header of an uncompressed batch at offset 0 of no idempotent producer.
var Plain = Header{ProducerID: NoProducerID, ProducerEpoch: -1, BaseSequence: -1}

// Builder makes a v2 batch of records: Reset, Add for each record, AppendTo.
// It may be used again and keeps its memory. The zero value is ready for Reset.
type Builder struct {
	header        Header
	records       []byte
	baseTimestamp int64
	maxTimestamp  int64
	count         int32
}

// Reset starts a batch.
func (w *Builder) Reset(h Header) {
	*w = Builder{header: h, records: w.records[:0]}
}

// Count returns how many records the batch has.
func (w *Builder) Count() int { return int(w.count) }

// Len returns the bytes of the batch so far if it were not compressed.
func (w *Builder) Len() int { return HeaderBytes + len(w.records) }

// Add appends a record at the next offset. A nil key is no key, a nil value a
// tombstone. The first record's timestamp, in ms, becomes the base timestamp.
func (w *Builder) Add(timestamp int64, key, value []byte, headers ...RecordHeader) {
	if w.count == 0 {
		w.baseTimestamp, w.maxTimestamp = timestamp, timestamp
	}
	w.maxTimestamp = max(w.maxTimestamp, timestamp)
	delta := timestamp - w.baseTimestamp

	size := 1 + varintLen(delta) + varintLen(int64(w.count)) + bytesLen(key) + bytesLen(value) + varintLen(int64(len(headers)))
	for i := range headers {
		size += varintLen(int64(len(headers[i].Key))) + len(headers[i].Key) + bytesLen(headers[i].Value)
	}
	b := binary.AppendVarint(w.records, int64(size))
	b = append(b, 0) // attributes
	b = binary.AppendVarint(b, delta)
	b = binary.AppendVarint(b, int64(w.count))
	b = appendBytes(b, key)
	b = appendBytes(b, value)
	b = binary.AppendVarint(b, int64(len(headers)))
	for i := range headers {
		b = binary.AppendVarint(b, int64(len(headers[i].Key)))
		b = append(b, headers[i].Key...)
		b = appendBytes(b, headers[i].Value)
	}
	w.records = b
	w.count++
}

// AppendTo appends the batch to dst and returns the extended slice. The errors
// are ErrUnknownCodec, ErrInvalid for a batch without records, and ErrTooLarge for one
// whose length field cannot hold its length. After an error the returned slice is dst.
func (w *Builder) AppendTo(dst []byte) ([]byte, error) {
	if w.count == 0 {
		return dst, fmt.Errorf("%w: no records", ErrInvalid)
	}
	var h [HeaderBytes]byte
	b := Batch(h[:])
	b.Stamp(w.header.BaseOffset, w.header.LeaderEpoch)
	b[offMagic] = magicV2
	var attributes uint16
	if w.header.Transactional {
		attributes |= attrTransactional
	}
	if w.header.Control {
		attributes |= attrControl
	}
	binary.BigEndian.PutUint16(b[offAttributes:], attributes)
	binary.BigEndian.PutUint32(b[offLastOffsetDelta:], uint32(w.count-1))
	binary.BigEndian.PutUint64(b[offBaseTimestamp:], uint64(w.baseTimestamp))
	binary.BigEndian.PutUint64(b[offMaxTimestamp:], uint64(w.maxTimestamp))
	binary.BigEndian.PutUint64(b[offProducerID:], uint64(w.header.ProducerID))
	binary.BigEndian.PutUint16(b[offProducerEpoch:], uint16(w.header.ProducerEpoch))
	binary.BigEndian.PutUint32(b[offBaseSequence:], uint32(w.header.BaseSequence))
	binary.BigEndian.PutUint32(b[offCount:], uint32(w.count))
	return Recompress(dst, b, w.header.Codec, w.header.Level, w.records)
}

// Recompress appends to dst a batch with b's header and with records, which are not
// compressed, in its place compressed by codec c, and returns the extended
// slice. Errors are as in Builder.AppendTo.
func Recompress(dst []byte, b Batch, c Codec, level int, records []byte) ([]byte, error) {
	out, err := Compress(append(dst, b[:HeaderBytes]...), c, level, records)
	if err != nil {
		return dst, err
	}
	made := Batch(out[len(dst):])
	if len(made)-PrefixBytes > math.MaxInt32 {
		return dst, fmt.Errorf("%w: %d bytes do not fit into a batch", ErrTooLarge, len(made))
	}
	binary.BigEndian.PutUint32(made[offLength:], uint32(len(made)-PrefixBytes))
	binary.BigEndian.PutUint16(made[offAttributes:], made.Attributes()&^attrCodec|uint16(c))
	made.sum()
	return out, nil
}

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return binary.AppendVarint(b, -1)
	}
	return append(binary.AppendVarint(b, int64(len(v))), v...)
}

func bytesLen(v []byte) int {
	if v == nil {
		return 1
	}
	return varintLen(int64(len(v))) + len(v)
}

// varintLen returns the bytes of a zig-zag varint.
func varintLen(v int64) int {
	n := 1
	for u := uint64(v<<1) ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}
