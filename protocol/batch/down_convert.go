package batch

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"
)

// DownConvert appends to dst the records of a stored batch as a message set of magic 0
// (for Fetch v0 and v1) or 1 (v2 and v3), and returns the extended slice. The codec is kept: of
// a compressed batch comes one wrapper with the offset of its last record, of any other
// one message per record. Headers are left out, offsets are kept with their gaps.
//
// Records below offset from are left out if they are not compressed, as in Kafka
// (RecordsUtil.downConvert): some versions of librdkafka rely on it. Those in a wrapper the
// consumer leaves out itself.
//
// A control batch, and one of which compaction or from leave nothing, append nothing,
// without an error. The caller then goes on with the batch after it: an old consumer that
// gets an empty set before the end of the log asks for the same offset forever.
//
// Timestamps are left out in magic 0. In magic 1 they and their type are kept, a wrapper has the largest;
// a negative one becomes NoTimestamp, since the old formats know no other.
//
// b must have passed VerifyStored. It inflates at most limitBytes, and makes at most as many bytes of
// plain messages: small records take up to five times as many as they are. ErrUnknownCodec: the old formats
// have no zstd (UNSUPPORTED_COMPRESSION_TYPE). ErrTooLarge: the batch inflates to more than limitBytes, or its messages
// take more, or do not fit into a wrapper. ErrInvalid: the batch is malformed. After an error the returned slice is dst. Any goroutine may call it.
func DownConvert(dst []byte, b Batch, magic int8, from int64, limitBytes int) ([]byte, error) {
	if b.Control() {
		return dst, nil
	}
	codec := b.Codec()
	if codec == Zstd || !codec.Valid() {
		return dst, fmt.Errorf("%w: magic %d has no %v", ErrUnknownCodec, magic, codec)
	}
	c := downConverters.Get().(*downConverter)
	defer c.release()
	out, err := c.convert(dst, b, magic, from, limitBytes)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// downConverter holds the memory of a conversion.
type downConverter struct {
	inflated []byte
	set      []byte // what goes into a wrapper
}

var downConverters = sync.Pool{New: func() any { return new(downConverter) }}

func (c *downConverter) release() {
	if cap(c.inflated)+cap(c.set) <= maxKeptBytes {
		downConverters.Put(c)
	}
}

func (c *downConverter) convert(dst []byte, b Batch, magic int8, from int64, limitBytes int) ([]byte, error) {
	attributes := byte(0)
	if magic > 0 && b.LogAppendTime() {
		attributes = attrLogAppendTime
	}
	if b.Codec() == None {
		out, _, err := appendMessages(dst, b, b.Records(), magic, attributes, from, false, limitBytes)
		return out, err
	}
	var err error
	if c.inflated, err = Decompress(c.inflated[:0], b.Codec(), b.Records(), limitBytes); err != nil {
		return nil, err
	}
	var last lastMessage
	c.set, last, err = appendMessages(c.set[:0], b, c.inflated, magic, attributes, math.MinInt64, magic > 0, limitBytes)
	if err != nil || len(c.set) == 0 {
		return dst, err
	}
	return appendWrapper(dst, last, magic, attributes|byte(b.Codec()), b.Codec(), c.set, len(b)+len(b)/4)
}

// lastMessage is what a wrapper has to tell of the messages in it.
type lastMessage struct {
	offset       int64 // of the last
	maxTimestamp int64
}

// appendMessages appends b's records, which are not compressed, as messages of at most limitBytes.
func appendMessages(dst []byte, b Batch, records []byte, magic int8, attributes byte, from int64, relative bool, limitBytes int) ([]byte, lastMessage, error) {
	base, baseTimestamp := b.BaseOffset(), b.BaseTimestamp()
	logAppendTime := b.LogAppendTime()
	// What a record grows by at most, and the least that one takes, which bounds their claimed count.
	const least = 7
	const overhead = offKeyV1 + 8
	const growth = overhead - least
	dst = slices.Grow(dst, min(len(records)+growth*min(int(b.Count()), len(records)/least), limitBytes))
	start := len(dst)
	last := lastMessage{maxTimestamp: NoTimestamp}
	first := int64(-1)
	it := b.IterateStored(records)
	var r Record
	for it.Next(&r) {
		offset := base + int64(r.OffsetDelta)
		if offset < from {
			continue
		}
		if len(dst)-start+overhead+len(r.Key)+len(r.Value) > limitBytes {
			return nil, last, tooLarge(limitBytes)
		}
		if first < 0 {
			first = offset
		}
		t := baseTimestamp + r.TimestampDelta
		if logAppendTime {
			t = b.MaxTimestamp()
		}
		t = max(t, NoTimestamp)
		last.offset, last.maxTimestamp = offset, max(last.maxTimestamp, t)
		if relative {
			offset -= first
		}
		at := len(dst)
		dst = beginMessage(dst, offset, magic, attributes, t)
		dst = appendInt32Bytes(dst, r.Key)
		dst = appendInt32Bytes(dst, r.Value)
		endMessage(dst[at:])
	}
	return dst, last, it.Err()
}

// appendWrapper appends set in a message of its own, compressed (MemoryRecordsBuilder).
func appendWrapper(dst []byte, last lastMessage, magic int8, attributes byte, codec Codec, set []byte, sizeHint int) ([]byte, error) {
	out := beginMessage(slices.Grow(dst, sizeHint), last.offset, magic, attributes, last.maxTimestamp)
	out = appendInt32Bytes(out, nil)
	value := len(out)
	out = append(out, 0, 0, 0, 0)
	out, err := Compress(out, codec, 0, set)
	if err != nil {
		return nil, err
	}
	if codec == LZ4 && magic == 0 {
		breakLZ4Checksum(out[value+4:])
	}
	if size := int64(len(out)) - int64(len(dst)); size > math.MaxInt32 {
		return nil, fmt.Errorf("%w: %d bytes do not fit into a message", ErrTooLarge, size)
	}
	binary.BigEndian.PutUint32(out[value:], uint32(len(out)-value-4))
	endMessage(out[len(dst):])
	return out, nil
}
