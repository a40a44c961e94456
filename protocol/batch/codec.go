package batch

import "strconv"

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

// Valid says whether c is one of the codecs above.
func (c Codec) Valid() bool { return c >= None && c <= Zstd }

// String returns Kafka's name of the codec, as in compression.type.
func (c Codec) String() string {
	switch c {
	case None:
		return "none"
	case Gzip:
		return "gzip"
	case Snappy:
		return "snappy"
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return "codec " + strconv.Itoa(int(c))
}
