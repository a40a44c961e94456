// Package batch reads and stamps Kafka's record batches (magic 2, KIP-98) where
// they lie, and converts between them and the record formats before them.
package batch

import "errors"

// Errors of malformed batches, wrapped with what was found. The comment names
// the Kafka error that each becomes.
var (
	ErrCorrupt      = errors.New("corrupt batch")                   // CORRUPT_MESSAGE: CRC, size below the minimum
	ErrInvalid      = errors.New("invalid record batch")            // INVALID_RECORD
	ErrTooLarge     = errors.New("batch inflates beyond the limit") // MESSAGE_TOO_LARGE: decompression cap
	ErrTimestamp    = errors.New("invalid timestamp")               // INVALID_TIMESTAMP
	ErrUnknownCodec = errors.New("unknown compression codec")       // UNSUPPORTED_COMPRESSION_TYPE
)

// HeaderBytes is the length of a v2 batch before its records.
const HeaderBytes = 61

// Codec is a compression type as in the attributes of a batch.
type Codec int8

// The codecs of the record format.
const (
	None   Codec = 0
	Gzip   Codec = 1
	Snappy Codec = 2
	LZ4    Codec = 3
	Zstd   Codec = 4
)

// Batch is a view on one whole v2 batch, header included. It never copies.
type Batch []byte

// Next cuts the first whole batch off b without checking more than its length
// field and magic. rest begins at the batch after it.
func Next(b []byte) (first Batch, rest []byte, err error) { panic("unwritten") }
