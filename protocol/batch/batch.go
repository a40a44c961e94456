// Package batch reads and stamps Kafka's record batches (magic 2, KIP-98) where
// they lie, and converts between them and the record formats before them.
//
// A batch is a header of HeaderBytes bytes and then its records, which alone may be compressed.
// All numbers are big-endian:
//
//	 0 base offset           i64        27 base timestamp   i64, ms
//	 8 length                i32, of    35 max timestamp    i64, ms
//	   what follows this field          43 producer id      i64, -1: none
//	12 partition leader epoch i32       51 producer epoch   i16
//	16 magic                 i8 = 2     53 base sequence    i32
//	17 CRC-32C of what follows u32      57 record count     i32
//	21 attributes            i16        61 records
//	23 last offset delta     i32
//
// The base offset and the leader epoch lie before the CRC's range, so a broker
// can stamp them without touching the checksum.
//
// A Batch and what it returns alias the bytes it was cut from. Reading is safe from any
// number of goroutines; who writes to a batch must be its only holder.
package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Errors of malformed batches, wrapped with what was found. The comment names
// the Kafka error that each becomes.
var (
	ErrCorrupt      = errors.New("corrupt batch")                   // CORRUPT_MESSAGE: CRC, size below the minimum
	ErrInvalid      = errors.New("invalid record batch")            // INVALID_RECORD
	ErrTooLarge     = errors.New("batch inflates beyond the limit") // MESSAGE_TOO_LARGE: decompression cap
	ErrTimestamp    = errors.New("invalid timestamp")               // INVALID_TIMESTAMP
	ErrUnknownCodec = errors.New("unknown compression codec")       // UNSUPPORTED_COMPRESSION_TYPE
)

const (
	// HeaderBytes is the length of a v2 batch before its records.
	HeaderBytes = 61

	// PrefixBytes is the length of what the length field does not count: the
	// base offset and the length field itself.
	PrefixBytes = 12

	// NoTimestamp is the timestamp of records that carry none.
	NoTimestamp int64 = -1

	// NoProducerID is the producer id of batches that are not idempotent.
	NoProducerID int64 = -1
)

const (
	offLength          = 8
	offLeaderEpoch     = 12
	offMagic           = 16
	offCRC             = 17
	offAttributes      = 21
	offLastOffsetDelta = 23
	offBaseTimestamp   = 27
	offMaxTimestamp    = 35
	offProducerID      = 43
	offProducerEpoch   = 51
	offBaseSequence    = 53
	offCount           = 57

	magicV2 = 2

	attrCodec         = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
	attrDeleteHorizon = 0x40
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch is a view on one whole v2 batch, header included. It never copies.
//
// Its methods but Verify and VerifyStored need at least HeaderBytes bytes,
// which Next and a successful Verify or VerifyStored grant.
type Batch []byte

// Next cuts the first whole batch off b without checking more than its length
// field and magic. rest begins at the batch after it. Neither is copied.
//
// Of a batch that ends before its header says so, of an empty b, and of the old formats it
// returns ErrInvalid; of a length below the minimum or an unknown magic, ErrCorrupt.
func Next(b []byte) (first Batch, rest []byte, err error) {
	if len(b) <= offMagic {
		return nil, nil, fmt.Errorf("%w: %d bytes are too few for a batch", ErrInvalid, len(b))
	}
	// The order is Kafka's (ByteBufferLogInputStream): the length field, then
	// the magic, which tells an old message from a batch.
	length := int64(int32(binary.BigEndian.Uint32(b[offLength:])))
	switch magic := b[offMagic]; {
	case magic > magicV2:
		return nil, nil, fmt.Errorf("%w: magic %d", ErrCorrupt, int8(magic))
	case magic < magicV2:
		return nil, nil, fmt.Errorf("%w: magic %d where 2 is needed", ErrInvalid, magic)
	}
	if length < HeaderBytes-PrefixBytes {
		return nil, nil, fmt.Errorf("%w: length %d is below the minimum of %d", ErrCorrupt, length, HeaderBytes-PrefixBytes)
	}
	size := length + PrefixBytes
	if size > int64(len(b)) {
		return nil, nil, fmt.Errorf("%w: cut off after %d of %d bytes", ErrInvalid, len(b), size)
	}
	return Batch(b[:size:size]), b[size:], nil
}

// Verify checks a batch from a producer: its size, magic and CRC, and that it
// counts its records as a producer must. It does not look into the records.
// The errors are ErrCorrupt and ErrInvalid.
func (b Batch) Verify() error {
	if err := b.verifyBytes(); err != nil {
		return err
	}
	last, count := b.LastOffsetDelta(), b.Count()
	if last < 0 || count <= 0 || int64(last)+1 != int64(count) {
		return fmt.Errorf("%w: %d records with last offset delta %d", ErrInvalid, count, last)
	}
	return nil
}

// VerifyStored checks a batch that was stored, which compaction may have
// thinned out: fewer records than offsets, or none at all, are fine.
func (b Batch) VerifyStored() error {
	if err := b.verifyBytes(); err != nil {
		return err
	}
	last, count := b.LastOffsetDelta(), b.Count()
	if last < 0 || count < 0 || int64(count) > int64(last)+1 {
		return fmt.Errorf("%w: %d records with last offset delta %d", ErrInvalid, count, last)
	}
	return nil
}

func (b Batch) verifyBytes() error {
	if len(b) < HeaderBytes {
		return fmt.Errorf("%w: %d bytes are below the minimum of %d", ErrCorrupt, len(b), HeaderBytes)
	}
	if n := int64(b.Length()) + PrefixBytes; n != int64(len(b)) {
		return fmt.Errorf("%w: length field says %d bytes of %d", ErrCorrupt, n, len(b))
	}
	if b.Magic() != magicV2 {
		return fmt.Errorf("%w: magic %d where 2 is needed", ErrInvalid, b.Magic())
	}
	if sum := crc32.Checksum(b[offAttributes:], castagnoli); sum != b.CRC() {
		return fmt.Errorf("%w: CRC is %08x, header says %08x", ErrCorrupt, sum, b.CRC())
	}
	return nil
}

// BaseOffset returns the offset of the first record, or what would be its
// offset if compaction had not removed it.
func (b Batch) BaseOffset() int64 { return int64(binary.BigEndian.Uint64(b)) }

// LastOffset returns the offset of the last record. It survives compaction.
func (b Batch) LastOffset() int64 { return b.BaseOffset() + int64(b.LastOffsetDelta()) }

// Length returns the length field: the bytes after it.
func (b Batch) Length() int32 { return int32(binary.BigEndian.Uint32(b[offLength:])) }

// LeaderEpoch returns the partition leader epoch.
func (b Batch) LeaderEpoch() int32 { return int32(binary.BigEndian.Uint32(b[offLeaderEpoch:])) }

// Magic returns the format's number.
func (b Batch) Magic() int8 { return int8(b[offMagic]) }

// CRC returns the checksum in the header.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[offCRC:]) }

// Attributes returns the attribute bits.
func (b Batch) Attributes() uint16 { return binary.BigEndian.Uint16(b[offAttributes:]) }

// Codec returns the compression of the records. It may be unknown: see Codec.Valid.
func (b Batch) Codec() Codec { return Codec(b.Attributes() & attrCodec) }

// LogAppendTime says whether all records have the max timestamp, given by the
// broker, instead of their own (timestamp type 1).
func (b Batch) LogAppendTime() bool { return b.Attributes()&attrLogAppendTime != 0 }

// Transactional says whether the batch belongs to a transaction.
func (b Batch) Transactional() bool { return b.Attributes()&attrTransactional != 0 }

// Control says whether the batch holds a marker instead of data.
func (b Batch) Control() bool { return b.Attributes()&attrControl != 0 }

// DeleteHorizon says whether the base timestamp is the time from which
// compaction may drop tombstones and markers (KIP-534).
func (b Batch) DeleteHorizon() bool { return b.Attributes()&attrDeleteHorizon != 0 }

// LastOffsetDelta returns the last record's offset less the base offset.
func (b Batch) LastOffsetDelta() int32 { return int32(binary.BigEndian.Uint32(b[offLastOffsetDelta:])) }

// BaseTimestamp returns what the timestamp deltas count from, in ms.
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[offBaseTimestamp:])) }

// MaxTimestamp returns the largest timestamp of the records, in ms.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[offMaxTimestamp:])) }

// ProducerID returns the producer's id, NoProducerID if there is none.
func (b Batch) ProducerID() int64 { return int64(binary.BigEndian.Uint64(b[offProducerID:])) }

// ProducerEpoch returns the producer's epoch.
func (b Batch) ProducerEpoch() int16 { return int16(binary.BigEndian.Uint16(b[offProducerEpoch:])) }

// BaseSequence returns the first record's sequence number.
func (b Batch) BaseSequence() int32 { return int32(binary.BigEndian.Uint32(b[offBaseSequence:])) }

// LastSequence returns the last record's sequence number. Sequence numbers wrap from
// the largest int32 to 0, also within a batch.
func (b Batch) LastSequence() int32 {
	return int32((int64(b.BaseSequence()) + int64(b.LastOffsetDelta())) & 0x7fffffff)
}

// Count returns the number of records.
func (b Batch) Count() int32 { return int32(binary.BigEndian.Uint32(b[offCount:])) }

// Records returns the records as they lie there, compressed by Codec.
func (b Batch) Records() []byte { return b[HeaderBytes:] }

// Stamp writes the base offset and the partition leader epoch in place. Both
// lie outside the CRC.
func (b Batch) Stamp(baseOffset int64, leaderEpoch int32) {
	binary.BigEndian.PutUint64(b, uint64(baseOffset))
	binary.BigEndian.PutUint32(b[offLeaderEpoch:], uint32(leaderEpoch))
}

// SetMaxTimestamp writes the max timestamp of a batch whose records keep the
// times that their producer gave them (timestamp type CreateTime). It computes
// the CRC again if something changed.
func (b Batch) SetMaxTimestamp(ms int64) { b.setTimestamp(ms, 0) }

// SetLogAppendTime gives all records of the batch the time ms (timestamp type
// LogAppendTime) and computes the CRC again. The records' deltas stay as they
// are: readers use the max timestamp in their place.
func (b Batch) SetLogAppendTime(ms int64) { b.setTimestamp(ms, attrLogAppendTime) }

func (b Batch) setTimestamp(ms int64, timestampType uint16) {
	attributes := b.Attributes()&^attrLogAppendTime | timestampType
	if attributes == b.Attributes() && ms == b.MaxTimestamp() {
		return
	}
	binary.BigEndian.PutUint16(b[offAttributes:], attributes)
	binary.BigEndian.PutUint64(b[offMaxTimestamp:], uint64(ms))
	b.sum()
}

func (b Batch) sum() {
	binary.BigEndian.PutUint32(b[offCRC:], crc32.Checksum(b[offAttributes:], castagnoli))
}
