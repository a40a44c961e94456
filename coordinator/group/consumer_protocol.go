package group

import (
	"encoding/binary"
	"errors"
	"math"
)

// Classic consumers say what they subscribe to, and learn what they are assigned,
// in blobs that the classic protocol carries unread: ConsumerProtocolSubscription
// and ConsumerProtocolAssignment. They are read and written here for members
// that live on in a consumer group.
//
//	subscription  version int16, topics []string, user data bytes,
//	              v1+ owned [](topic string, partitions []int32),
//	              v2+ generation int32, v3+ rack string
//	assignment    version int16, assigned [](topic string, partitions []int32),
//	              user data bytes
//
// Integers are big-endian, a string has an int16 length and bytes and arrays an
// int32 one, -1 where null is allowed. A version above the known ones is read as
// the highest known: later ones only append.
const maxConsumerProtocolVersion = 3

var errMalformedBlob = errors.New("malformed consumer protocol data")

// consumerSubscription is a decoded ConsumerProtocolSubscription.
type consumerSubscription struct {
	version int16
	topics  []string
	owned   []namedPartitions // nil below v1
	rack    string
}

// consumerProtocolAssignment is a decoded ConsumerProtocolAssignment.
type consumerProtocolAssignment struct {
	assigned    []namedPartitions
	hasUserData bool // an assignor keeps state of its own in it
}

// namedPartitions is some partitions of a topic that is known by name.
type namedPartitions struct {
	topic      string
	partitions []int32
}

func decodeConsumerSubscription(blob []byte) (consumerSubscription, error) {
	r := blobReader{b: blob}
	s := consumerSubscription{version: r.version()}
	n := r.array(2)
	s.topics = make([]string, 0, n)
	for range n {
		s.topics = append(s.topics, r.string(false))
	}
	r.bytes()
	if s.version >= 1 {
		s.owned = r.namedPartitions()
	}
	if s.version >= 2 {
		r.take(4)
	}
	if s.version >= 3 {
		s.rack = r.string(true)
	}
	if r.failed {
		return consumerSubscription{}, errMalformedBlob
	}
	return s, nil
}

func decodeConsumerAssignment(blob []byte) (consumerProtocolAssignment, error) {
	r := blobReader{b: blob}
	r.version()
	a := consumerProtocolAssignment{assigned: r.namedPartitions()}
	a.hasUserData = r.bytes() > 0
	if r.failed {
		return consumerProtocolAssignment{}, errMalformedBlob
	}
	return a, nil
}

// encodeConsumerAssignment writes what the client of a subscription's version reads.
func encodeConsumerAssignment(version int16, assigned []namedPartitions) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(min(version, maxConsumerProtocolVersion)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(assigned)))
	for _, tp := range assigned {
		b = binary.BigEndian.AppendUint16(b, uint16(len(tp.topic)))
		b = append(b, tp.topic...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(tp.partitions)))
		for _, p := range tp.partitions {
			b = binary.BigEndian.AppendUint32(b, uint32(p))
		}
	}
	return binary.BigEndian.AppendUint32(b, math.MaxUint32) // no user data
}

// blobReader takes a blob apart. After the first failure every method returns
// zero values, and no array is longer than the bytes left allow.
type blobReader struct {
	b      []byte
	failed bool
}

// take returns the next n bytes.
func (r *blobReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.failed, r.b = true, nil
		return nil
	}
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

func (r *blobReader) int16() int16 {
	if part := r.take(2); part != nil {
		return int16(binary.BigEndian.Uint16(part))
	}
	return 0
}

func (r *blobReader) int32() int32 {
	if part := r.take(4); part != nil {
		return int32(binary.BigEndian.Uint32(part))
	}
	return 0
}

func (r *blobReader) version() int16 {
	v := r.int16()
	if v < 0 {
		r.failed, r.b = true, nil
	}
	return v
}

// array returns the length of an array whose elements have at least size bytes.
func (r *blobReader) array(size int) int {
	n := r.int32()
	if n < 0 || int64(n)*int64(size) > int64(len(r.b)) {
		r.failed, r.b = true, nil
		return 0
	}
	return int(n)
}

func (r *blobReader) string(nullable bool) string {
	n := r.int16()
	if n == -1 && nullable {
		return ""
	}
	return string(r.take(int(n)))
}

// bytes skips nullable bytes and returns their length.
func (r *blobReader) bytes() int {
	n := r.int32()
	if n == -1 {
		return 0
	}
	return len(r.take(int(n)))
}

func (r *blobReader) namedPartitions() []namedPartitions {
	list := make([]namedPartitions, 0, r.array(6))
	for range cap(list) {
		tp := namedPartitions{topic: r.string(false)}
		tp.partitions = make([]int32, r.array(4))
		for i := range tp.partitions {
			tp.partitions[i] = r.int32()
		}
		if r.failed {
			return nil
		}
		list = append(list, tp)
	}
	return list
}
