package metadata

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers of the fields of LedgerMetadataFormat (DataFormats.proto).
const (
	fieldWriteQuorum = 1
	fieldEnsemble    = 2
	fieldLength      = 3
	fieldLastEntry   = 4
	fieldState       = 5
	fieldSegment     = 6
	fieldDigest      = 7
	fieldPassword    = 8
	fieldAckQuorum   = 9
	fieldCreated     = 10
	fieldCustom      = 11
	fieldCToken      = 12

	fieldSegmentBookie = 1
	fieldSegmentFirst  = 2
	fieldEntryKey      = 1 // of map entries
	fieldEntryValue    = 2
)

// appendFormat writes the fields in the order of their numbers, as BookKeeper does.
func appendFormat(dst []byte, l *Ledger) []byte {
	length, last := l.Length, l.LastEntry
	if l.State != Closed {
		length, last = 0, NoEntry
	}
	dst = appendInt(dst, fieldWriteQuorum, int64(l.WriteQuorum))
	dst = appendInt(dst, fieldEnsemble, int64(l.Ensemble))
	dst = appendInt(dst, fieldLength, length)
	dst = appendInt(dst, fieldLastEntry, last)
	dst = appendInt(dst, fieldState, int64(l.State))
	for _, s := range l.Segments {
		var body []byte
		for _, b := range s.Bookies {
			body = appendBytes(body, fieldSegmentBookie, string(b))
		}
		body = appendInt(body, fieldSegmentFirst, s.First)
		dst = appendBytes(dst, fieldSegment, append(body, s.unknown...))
	}
	if l.Digest != 0 {
		dst = appendInt(dst, fieldDigest, int64(l.Digest))
		dst = appendBytes(dst, fieldPassword, l.Password)
	}
	dst = appendInt(dst, fieldAckQuorum, int64(l.AckQuorum))
	if l.CreatedMS != 0 {
		dst = appendInt(dst, fieldCreated, l.CreatedMS)
	}
	for _, key := range slices.Sorted(maps.Keys(l.Custom)) {
		body := appendBytes(nil, fieldEntryKey, key)
		dst = appendBytes(dst, fieldCustom, appendBytes(body, fieldEntryValue, l.Custom[key]))
	}
	dst = appendInt(dst, fieldCToken, l.CToken)
	return append(dst, l.unknown...)
}

func appendInt(dst []byte, field protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), uint64(v))
}

func appendBytes[T string | []byte](dst []byte, field protowire.Number, v T) []byte {
	dst = protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.BytesType), uint64(len(v)))
	return append(dst, v...)
}

// field is one field of a message: a number or bytes.
type field struct {
	protowire.Number
	isBytes bool
	number  int64
	bytes   []byte // shares the message's
	raw     []byte // with its tag
}

var errFields = errors.New("it is no protobuf message")

// eachField calls f with the fields of a message in their order.
func eachField(msg []byte, f func(field) error) error {
	for len(msg) > 0 {
		number, wireType, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return errFields
		}
		size := protowire.ConsumeFieldValue(number, wireType, msg[n:])
		if size < 0 {
			return errFields
		}
		fd := field{Number: number, raw: msg[:n+size]}
		switch wireType {
		case protowire.VarintType:
			v, _ := protowire.ConsumeVarint(msg[n:])
			fd.number = int64(v)
		case protowire.BytesType:
			fd.bytes, _ = protowire.ConsumeBytes(msg[n:])
			fd.isBytes = true
		default:
			// Nothing here has a fixed-size or group field that we know.
			fd.Number = 0
		}
		if err := f(fd); err != nil {
			return err
		}
		msg = msg[n+size:]
	}
	return nil
}

// want says whether a field that is known has its type.
func (f field) want(isBytes bool) error {
	if f.isBytes != isBytes {
		return fmt.Errorf("field %d has the wrong type", f.Number)
	}
	return nil
}

// parseFormat reads the message. What it says may still make no sense: see check.
func parseFormat(msg []byte) (*Ledger, error) {
	l := &Ledger{LastEntry: NoEntry}
	hasAck := false
	err := eachField(msg, func(f field) error {
		switch f.Number {
		case fieldSegment, fieldPassword, fieldCustom:
			if err := f.want(true); err != nil {
				return err
			}
		case fieldWriteQuorum, fieldEnsemble, fieldLength, fieldLastEntry, fieldState, fieldDigest, fieldAckQuorum, fieldCreated, fieldCToken:
			if err := f.want(false); err != nil {
				return err
			}
		}
		switch f.Number {
		case fieldWriteQuorum:
			l.WriteQuorum = small(f.number)
		case fieldEnsemble:
			l.Ensemble = small(f.number)
		case fieldLength:
			l.Length = f.number
		case fieldLastEntry:
			l.LastEntry = f.number
		case fieldState:
			l.State = State(enum(f.number))
		case fieldSegment:
			s, err := parseSegment(f.bytes)
			if err != nil {
				return err
			}
			l.Segments = append(l.Segments, s)
		case fieldDigest:
			l.Digest = Digest(enum(f.number))
		case fieldPassword:
			l.Password = slices.Clone(f.bytes)
		case fieldAckQuorum:
			l.AckQuorum, hasAck = small(f.number), true
		case fieldCreated:
			l.CreatedMS = f.number
		case fieldCustom:
			return l.parseCustom(f.bytes)
		case fieldCToken:
			l.CToken = f.number
		default:
			l.unknown = append(l.unknown, f.raw...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !hasAck {
		l.AckQuorum = l.WriteQuorum // so ledgers were before there were ack quorums
	}
	if l.State != Closed {
		l.LastEntry, l.Length = NoEntry, 0
	}
	slices.SortStableFunc(l.Segments, func(a, b Segment) int { return cmp.Compare(a.First, b.First) })
	return l, nil
}

func parseSegment(msg []byte) (Segment, error) {
	s := Segment{First: -1}
	err := eachField(msg, func(f field) error {
		switch f.Number {
		case fieldSegmentBookie:
			if err := f.want(true); err != nil {
				return err
			}
			s.Bookies = append(s.Bookies, BookieID(f.bytes))
		case fieldSegmentFirst:
			if err := f.want(false); err != nil {
				return err
			}
			s.First = f.number
		default:
			s.unknown = append(s.unknown, f.raw...)
		}
		return nil
	})
	return s, err
}

func (l *Ledger) parseCustom(msg []byte) error {
	var key string
	var value []byte
	err := eachField(msg, func(f field) error {
		switch f.Number {
		case fieldEntryKey:
			key = string(f.bytes)
			return f.want(true)
		case fieldEntryValue:
			value = slices.Clone(f.bytes)
			return f.want(true)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if l.Custom == nil {
		l.Custom = make(map[string][]byte)
	}
	l.Custom[key] = value
	return nil
}

// small and enum bring a number into a range in which it can be checked further.
func small(v int64) int { return int(max(-1, min(v, MaxEnsemble+1))) }
func enum(v int64) int8 { return int8(max(-1, min(v, math.MaxInt8))) }
