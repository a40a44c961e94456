package load

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/quirelog/quire/conformance/check"
)

// A record's value is its ID followed by bytes that only that ID has, so a
// reader can tell a damaged or misattributed value from the right one without
// remembering what was sent.
const idBytes = 8

// maxValueBytes keeps most batches at many records, while one record in
// largeEvery has largeValueBytes and so spans several journal blocks.
const (
	maxValueBytes   = 1 << 10
	largeEvery      = 500
	largeValueBytes = 100 << 10
)

func EncodeValue(id check.ID) []byte {
	rng := rand.New(rand.NewPCG(uint64(id), 0x9e3779b97f4a7c15))
	n := rng.IntN(maxValueBytes)
	if rng.IntN(largeEvery) == 0 {
		n = largeValueBytes
	}
	value := make([]byte, idBytes, idBytes+n+8)
	binary.BigEndian.PutUint64(value, uint64(id))
	for len(value) < idBytes+n {
		value = binary.LittleEndian.AppendUint64(value, rng.Uint64())
	}
	return value[:idBytes+n]
}

func DecodeValue(value []byte) (check.ID, error) {
	if len(value) < idBytes {
		return 0, fmt.Errorf("value of %d bytes, shorter than an id", len(value))
	}
	id := check.ID(binary.BigEndian.Uint64(value))
	if want := EncodeValue(id); string(want) != string(value) {
		return 0, fmt.Errorf("value of %d bytes is not the one that record %s was sent with (%d bytes)", len(value), id, len(want))
	}
	return id, nil
}
