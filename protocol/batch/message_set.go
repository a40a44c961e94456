package batch

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A message set is what the partitions of Produce v0–v2 and Fetch v0–v3 carry: messages one
// after the other, with no count before them. All numbers are big-endian:
//
//	 0 offset      i64
//	 8 size        i32, of what follows this field
//	12 CRC-32 (IEEE) of what follows u32
//	16 magic       i8, 0 or 1
//	17 attributes  i8: bits 0–2 codec, bit 3 timestamp type (magic 1)
//	18 timestamp   i64, ms, in magic 1 alone
//	   key         i32 length, negative for null, and bytes
//	   value       likewise
//
// A message with a codec is a wrapper: its value is a message set, compressed, whose messages
// have the wrapper's magic and no codec. In magic 0 the offsets of inner messages are absolute; in
// magic 1 they count from the first (KIP-31), and the wrapper has the offset of the last. Producers
// send whatever offsets they like.
const (
	offAttributesV1 = 17
	offTimestampV1  = 18
	offKeyV0        = 18
	offKeyV1        = 26

	// messageMinBytesV0 and V1 are the least that a size field may say.
	messageMinBytesV0 = 14
	messageMinBytesV1 = 22
)

// Message is a view on one whole message of magic 0 or 1, offset and size
// included. It never copies. Its methods may be called on what NextMessage returned.
type Message []byte

// NextMessage cuts the first whole message off a message set, checking no more than
// its size and magic. At the end of the set, and before a message that is cut off
// there, which a Fetch's size limit leaves behind, first is nil without an error.
//
// Of a size below the minimum and of an unknown magic it returns ErrCorrupt; of a v2
// batch, ErrInvalid.
func NextMessage(set []byte) (first Message, rest []byte, err error) {
	first, rest, err = cutMessage(set)
	if first != nil && first.Magic() >= magicV2 {
		return nil, nil, fmt.Errorf("%w: magic %d in a message set", ErrInvalid, first.Magic())
	}
	return first, rest, err
}

// cutMessage is NextMessage with v2 batches among the messages, as they lie in
// Kafka's logs. The order of its checks is Kafka's (ByteBufferLogInputStream).
func cutMessage(set []byte) (first Message, rest []byte, err error) {
	first, rest, err = cutInner(set)
	if err == nil && len(set) > offMagic && set[offMagic] > magicV2 {
		return nil, nil, fmt.Errorf("%w: magic %d", ErrCorrupt, int8(set[offMagic]))
	}
	return first, rest, err
}

// cutInner is cutMessage for the messages in a wrapper, whose magic may be anything
// as yet (AbstractLegacyRecordBatch.DataLogInputStream).
func cutInner(set []byte) (first Message, rest []byte, err error) {
	if len(set) < PrefixBytes {
		return nil, nil, nil
	}
	size := int64(int32(binary.BigEndian.Uint32(set[offLength:])))
	if size < messageMinBytesV0 {
		return nil, nil, fmt.Errorf("%w: message size %d is below the minimum of %d", ErrCorrupt, size, messageMinBytesV0)
	}
	size += PrefixBytes
	if size > int64(len(set)) {
		return nil, nil, nil
	}
	return Message(set[:size:size]), set[size:], nil
}

// Offset returns the message's offset: in a wrapper of magic 1, from its first message.
func (m Message) Offset() int64 { return int64(binary.BigEndian.Uint64(m)) }

// Magic returns the format's number.
func (m Message) Magic() int8 { return int8(m[offMagic]) }

// Codec returns the compression of a wrapper, None for a message with data. It
// may be unknown: see Codec.Valid.
func (m Message) Codec() Codec { return Codec(m[offAttributesV1] & attrCodec) }

// LogAppendTime says whether the timestamp was given by the broker (timestamp
// type 1). A wrapper's timestamp then is that of all its messages.
func (m Message) LogAppendTime() bool {
	return m[offMagic] != 0 && m[offAttributesV1]&attrLogAppendTime != 0
}

// Timestamp returns the timestamp in ms, NoTimestamp in magic 0.
func (m Message) Timestamp() int64 {
	if m[offMagic] == 0 {
		return NoTimestamp
	}
	return int64(binary.BigEndian.Uint64(m[offTimestampV1:]))
}

// Verify checks the message's size and CRC. The error is ErrCorrupt.
func (m Message) Verify() error {
	if m.Magic() > 0 && len(m) < PrefixBytes+messageMinBytesV1 {
		return fmt.Errorf("%w: message size %d is below the minimum of %d", ErrCorrupt, len(m)-PrefixBytes, messageMinBytesV1)
	}
	if sum, want := crc32.ChecksumIEEE(m[offMagic:]), binary.BigEndian.Uint32(m[PrefixBytes:]); sum != want {
		return fmt.Errorf("%w: CRC is %08x, message says %08x", ErrCorrupt, sum, want)
	}
	return nil
}

// KeyValue returns the message's key and value, nil for null. They alias it. Every
// negative length is null and bytes after the value are nothing, as in Kafka. The
// error is ErrInvalid: a length lies beyond the message.
func (m Message) KeyValue() (key, value []byte, err error) {
	rest := m[offKeyV0:]
	if m.Magic() > 0 {
		rest = m[offKeyV1:]
	}
	key, rest, ok := readInt32Bytes(rest)
	if ok {
		value, _, ok = readInt32Bytes(rest)
	}
	if !ok {
		return nil, nil, fmt.Errorf("%w: a key or value lies beyond its message", ErrInvalid)
	}
	return key, value, nil
}

// Inflate appends to dst the message set in a wrapper, and returns the extended slice. It
// is as bounded as Decompress, with the same errors. The old formats have no zstd, for
// which it returns ErrInvalid as Kafka does, as for a null value.
func (m Message) Inflate(dst []byte, limitBytes int) ([]byte, error) {
	codec := m.Codec()
	if codec == Zstd {
		return dst, fmt.Errorf("%w: magic %d has no zstd", ErrInvalid, m.Magic())
	}
	_, value, err := m.KeyValue()
	if err != nil {
		return dst, err
	}
	if value == nil {
		return dst, fmt.Errorf("%w: a compressed message set that is null", ErrInvalid)
	}
	return Decompress(dst, codec, value, limitBytes)
}

// readInt32Bytes reads an int32 length, negative for null, and so many bytes.
func readInt32Bytes(b []byte) (v, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := int32(binary.BigEndian.Uint32(b))
	b = b[4:]
	if n < 0 {
		return nil, b, true
	}
	if int64(n) > int64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}

// beginMessage appends the head of a message up to its key; endMessage fills in its size and CRC.
func beginMessage(b []byte, offset int64, magic int8, attributes byte, timestamp int64) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(offset))
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, byte(magic), attributes)
	if magic > 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(timestamp))
	}
	return b
}

func endMessage(m []byte) {
	binary.BigEndian.PutUint32(m[offLength:], uint32(len(m)-PrefixBytes))
	binary.BigEndian.PutUint32(m[PrefixBytes:], crc32.ChecksumIEEE(m[offMagic:]))
}

func appendInt32Bytes(b, v []byte) []byte {
	if v == nil {
		return append(b, 0xff, 0xff, 0xff, 0xff)
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
}
