package wire

import (
	"encoding/binary"
	"fmt"
)

// AppendRead appends the frame of a read. A read with DoFencing carries key; of
// another, key is not sent.
func AppendRead(dst []byte, flags Flags, ledger, entry int64, key MasterKey) []byte {
	n := readBytes
	if flags&DoFencing != 0 {
		n += KeyBytes
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(n))
	dst = appendHeader(dst, Version, OpRead, flags)
	dst = appendInt64(dst, ledger)
	dst = appendInt64(dst, entry)
	if flags&DoFencing != 0 {
		dst = append(dst, key[:]...)
	}
	return dst
}

// Batch is what a batch read asks for: consecutive entries from First on. The
// bookie answers with the first in any case, then stops at the first that it does
// not have, after MaxEntries (no limit if 0) or before the answer would exceed
// MaxBytes or its own maxBatchReadSize (5 MiB by default).
type Batch struct {
	First      int64
	RequestID  int64
	MaxEntries int32
	MaxBytes   int64
}

// AppendBatchRead appends the frame of a batch read. key is sent with DoFencing only.
func AppendBatchRead(dst []byte, flags Flags, ledger int64, b Batch, key MasterKey) []byte {
	n := batchReadBytes
	if flags&DoFencing != 0 {
		n += KeyBytes
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(n))
	dst = appendHeader(dst, Version, OpBatchRead, flags)
	dst = appendInt64(dst, ledger)
	dst = appendInt64(dst, b.First)
	dst = appendInt64(dst, b.RequestID)
	dst = binary.BigEndian.AppendUint32(dst, uint32(b.MaxEntries))
	dst = appendInt64(dst, b.MaxBytes)
	if flags&DoFencing != 0 {
		dst = append(dst, key[:]...)
	}
	return dst
}

// Request is a request as a bookie decodes it.
type Request struct {
	Version uint8
	Op      Op
	Flags   Flags
	Ledger  int64
	Entry   int64 // of a batch read the first
	Key     MasterKey

	// Of a batch read.
	RequestID  int64
	MaxEntries int32
	MaxBytes   int64

	// Stored is the entry of an add as a bookie stores it: a part of the frame.
	Stored []byte
}

// ParseRequest decodes the payload of a frame of version 2 as a bookie does,
// which resets the connection where ParseRequest returns ErrMalformed. Bytes
// after a request are ignored.
func ParseRequest(frame []byte) (Request, error) {
	if len(frame) < HeaderBytes {
		return Request{}, fmt.Errorf("%w: request of %d bytes", ErrMalformed, len(frame))
	}
	r := Request{Version: frame[0], Op: Op(frame[1]), Flags: Flags(binary.BigEndian.Uint16(frame[2:]))}
	if r.Version == 0 {
		return Request{}, fmt.Errorf("%w: version 0", ErrMalformed)
	}
	var need int
	switch r.Op {
	case OpAdd:
		need = addPrefixBytes + storedMinBytes
	case OpRead:
		need = readBytes
	case OpBatchRead:
		need = batchReadBytes
	default:
		return Request{}, fmt.Errorf("%w: request with %v", ErrMalformed, r.Op)
	}
	key := HeaderBytes // where the master key stands
	if r.Op != OpAdd {
		key = need
		if r.Flags&DoFencing != 0 {
			need += KeyBytes
		}
	}
	if len(frame) < need {
		return Request{}, fmt.Errorf("%w: %v of %d bytes, which takes %d", ErrMalformed, r.Op, len(frame), need)
	}
	at := HeaderBytes
	if r.Op == OpAdd {
		at = addPrefixBytes
		r.Stored = frame[addPrefixBytes:]
	}
	r.Ledger, r.Entry = int64At(frame, at), int64At(frame, at+8)
	if r.Op == OpBatchRead {
		r.RequestID = int64At(frame, at+16)
		r.MaxEntries = int32(binary.BigEndian.Uint32(frame[at+24:]))
		r.MaxBytes = int64At(frame, at+28)
	}
	if r.Op == OpAdd || r.Flags&DoFencing != 0 {
		r.Key = MasterKey(frame[key:])
	}
	return r, nil
}
