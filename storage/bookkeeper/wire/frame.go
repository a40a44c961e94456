package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// ErrMalformed: bytes that are no frame of the protocol. The connection that they
// came from is of no more use.
var ErrMalformed = errors.New("malformed frame")

// Op is the operation of a frame.
type Op uint8

// The operations of version 2 that bookies decode. A frame with any other resets
// the connection (4, 5, 6, 8 and 9 were tried on 4.17.3).
const (
	OpAdd       Op = 1
	OpRead      Op = 2
	OpAuth      Op = 3
	OpBatchRead Op = 7 // bookies from 4.17.0 on (BP-62); older ones reset the connection
)

func (o Op) String() string {
	switch o {
	case OpAdd:
		return "add"
	case OpRead:
		return "read"
	case OpAuth:
		return "auth"
	case OpBatchRead:
		return "batch read"
	}
	return fmt.Sprintf("operation %d", uint8(o))
}

// Flags modify a request.
type Flags uint16

// The flags of version 2.
const (
	// DoFencing: the read fences the ledger on the bookie and carries the master key.
	DoFencing Flags = 1
	// RecoveryAdd: the add passes a fence.
	RecoveryAdd Flags = 2
	// HighPriority: another pool of the bookie takes the request, so that it may
	// overtake; a read-only bookie with space left takes such an add.
	HighPriority Flags = 4
)

// Version is the version of the frames here. Bookies serve 1 and 2.
const Version = 2

// Sizes of frames in bytes.
const (
	// LengthBytes is the prefix of a frame.
	LengthBytes = 4
	// HeaderBytes is the header of a request.
	HeaderBytes = 4
	// ResponseBytes is an answer without body: header, code, ledger, entry.
	ResponseBytes = 24
	// KeyBytes is a master key.
	KeyBytes = 20
	// MetadataBytes is what stands before the digest of a stored entry.
	MetadataBytes = 32
	// RequestIDBytes stand before the entries in the answer of a batch read.
	RequestIDBytes = 8

	readBytes      = HeaderBytes + 16
	batchReadBytes = HeaderBytes + 16 + RequestIDBytes + 4 + 8
	addPrefixBytes = HeaderBytes + KeyBytes // before the stored entry
	storedMinBytes = 24                     // what a bookie parses of an entry

	maxDigestBytes = 20
)

// DefaultMaxFrameBytes is nettyMaxFrameSizeBytes of a bookie by default. A bookie
// closes a connection with a larger frame, whose length prefix counts too.
const DefaultMaxFrameBytes = 5 << 20

// MaxPayloadBytes is the largest payload of an entry that fits in frames of
// maxFrameBytes both ways.
func MaxPayloadBytes(maxFrameBytes int) int {
	return maxFrameBytes - LengthBytes - addPrefixBytes - MetadataBytes - maxDigestBytes
}

// LastEntry as the entry of a read asks for the last entry that the bookie holds,
// acknowledged or not. It is metadata.NoEntry.
const LastEntry = metadata.NoEntry

func appendHeader(dst []byte, version uint8, op Op, flags Flags) []byte {
	return append(dst, version, byte(op), byte(flags>>8), byte(flags))
}

func appendInt64(dst []byte, v int64) []byte { return binary.BigEndian.AppendUint64(dst, uint64(v)) }

func int64At(b []byte, at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) }
