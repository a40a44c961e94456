package group

import (
	"encoding/binary"
	"fmt"
	"time"
)

// A record is one whole group:
//
//	version  byte   1
//	type     byte   1 classic, 2 consumer
//	body            classic.appendRecord, consumer.appendRecord
//
// Integers are varints (signed ones zigzag), strings and bytes have their
// length before them. A reader refuses versions that it does not know.
const (
	recordVersion  = 1
	recordClassic  = 1
	recordConsumer = 2
)

// consumerProtocolType is the protocol type of consumers, as the Java client's
// ConsumerProtocol.PROTOCOL_TYPE.
const consumerProtocolType = "consumer"

// appendRecord appends the group's record to b.
func (g *Group) appendRecord(b []byte) []byte {
	if g.consumer != nil {
		return g.consumer.appendRecord(append(b, recordVersion, recordConsumer))
	}
	return g.classic.appendRecord(append(b, recordVersion, recordClassic))
}

// Load returns the group that wrote record. It continues with the same
// generation or epochs; every session starts at now. Events that the load
// itself causes (a group that was rebalancing, or has more members than now
// allowed) are due in the next Tick. The error wraps ErrCorruptRecord and names
// the group.
//
// The group keeps no reference to record.
func Load(id string, config *Config, record []byte, now time.Time) (*Group, error) {
	corrupt := func(what any) (*Group, error) {
		return nil, fmt.Errorf("group %q: %w: %v", id, ErrCorruptRecord, what)
	}
	if len(record) < 2 {
		return corrupt("too short")
	}
	if record[0] != recordVersion {
		return corrupt(fmt.Sprintf("version %d is not known", record[0]))
	}
	g := &Group{id: id, config: config}
	g.log.stored = true
	r := &reader{b: record[2:]}
	switch record[1] {
	case recordClassic:
		g.classic = loadClassic(g, r)
	case recordConsumer:
		g.consumer = loadConsumer(g, r, now)
	default:
		return corrupt(fmt.Sprintf("type %d is not known", record[1]))
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes after its end")
	}
	if r.err != nil {
		return corrupt(r.err)
	}
	if g.consumer != nil {
		g.consumer.restored(now)
	} else {
		g.classic.restored(now)
	}
	return g, nil
}

func appendString[T string | []byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// reader takes a record apart. After the first error every method returns zero
// values; a count is never more than the bytes left, so a loop over it is bounded.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s, %d bytes before the end", what, len(r.b))
	}
	r.b = nil
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("no unsigned number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("no number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// int32 fails for a number that is not one.
func (r *reader) int32() int32 {
	v := r.varint()
	if int64(int32(v)) != v {
		r.fail("a number beyond 32 bits")
		return 0
	}
	return int32(v)
}

// count is the number of elements that follow, each of at least one byte.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail("more elements than bytes")
		return 0
	}
	return int(n)
}

// view is a part of the record; it is valid as long as the record.
func (r *reader) view() []byte {
	n := r.count()
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string { return string(r.view()) }

func (r *reader) bool() bool {
	if len(r.b) == 0 || r.b[0] > 1 {
		r.fail("no truth value")
		return false
	}
	v := r.b[0] == 1
	r.b = r.b[1:]
	return v
}

// duration is in milliseconds, 0 or more.
func (r *reader) duration() time.Duration {
	ms := r.uvarint()
	if ms > 1<<31 {
		r.fail("a duration beyond 31 bits of milliseconds")
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

func appendDuration(b []byte, d time.Duration) []byte {
	return binary.AppendUvarint(b, uint64(max(d, 0).Milliseconds()))
}
