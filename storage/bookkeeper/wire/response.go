package wire

import (
	"encoding/binary"
	"fmt"
)

// Response is what every answer begins with.
type Response struct {
	Version uint8
	Op      Op
	Code    Code
	Ledger  int64
	Entry   int64 // as in the request, so LastEntry if that was asked for
}

// ParseResponse decodes the first ResponseBytes of an answer's frame, after its
// length. What follows is the body: of a read that succeeded the stored entry, of
// a batch read what ParseBatch takes. ErrMalformed.
func ParseResponse(frame []byte) (Response, error) {
	if len(frame) < ResponseBytes {
		return Response{}, fmt.Errorf("%w: answer of %d bytes", ErrMalformed, len(frame))
	}
	r := Response{
		Version: frame[0],
		Op:      Op(frame[1]),
		Code:    Code(binary.BigEndian.Uint32(frame[4:])),
		Ledger:  int64At(frame, 8),
		Entry:   int64At(frame, 16),
	}
	if r.Op != OpAdd && r.Op != OpRead && r.Op != OpBatchRead {
		return Response{}, fmt.Errorf("%w: answer to %v", ErrMalformed, r.Op)
	}
	return r, nil
}

// AppendResponse appends the frame of an answer to r with body after it.
func AppendResponse(dst []byte, r Response, body []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(ResponseBytes+len(body)))
	dst = appendHeader(dst, r.Version, r.Op, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.Code))
	dst = appendInt64(dst, r.Ledger)
	dst = appendInt64(dst, r.Entry)
	return append(dst, body...)
}

// ParseBatch splits the body of a batch read's answer into the request's id and
// the entries, which NextInBatch takes one by one. ErrMalformed.
func ParseBatch(body []byte) (requestID int64, entries []byte, err error) {
	if len(body) < RequestIDBytes {
		return 0, nil, fmt.Errorf("%w: batch of %d bytes", ErrMalformed, len(body))
	}
	return int64At(body, 0), body[RequestIDBytes:], nil
}

// NextInBatch returns the first stored entry of a batch and the rest, which is
// empty after the last. ErrMalformed.
func NextInBatch(entries []byte) (stored, rest []byte, err error) {
	if len(entries) < LengthBytes {
		return nil, nil, fmt.Errorf("%w: %d bytes at the end of a batch", ErrMalformed, len(entries))
	}
	n := binary.BigEndian.Uint32(entries)
	entries = entries[LengthBytes:]
	if uint64(n) > uint64(len(entries)) {
		return nil, nil, fmt.Errorf("%w: entry of %d bytes in a batch that has %d left", ErrMalformed, n, len(entries))
	}
	return entries[:n], entries[n:], nil
}

// AppendBatchID appends what the body of a batch read's answer begins with.
func AppendBatchID(dst []byte, requestID int64) []byte { return appendInt64(dst, requestID) }

// AppendInBatch appends a stored entry to the body of a batch read's answer.
func AppendInBatch(dst, stored []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(stored)))
	return append(dst, stored...)
}
