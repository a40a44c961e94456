package batch

import (
	"encoding/binary"
	"math/bits"
)

// breakLZ4Checksum gives an LZ4 frame the header checksum that clients before 0.10 compute: over the
// magic too, which the format leaves out (KIP-57). Magic 0 has it to this day
// (Lz4BlockOutputStream). The frame is one of Compress: a header without optional fields.
func breakLZ4Checksum(frame []byte) {
	const descriptorEnd = 6 // magic, flags, block descriptor
	frame[descriptorEnd] = byte(xxh32(frame[:descriptorEnd]) >> 8)
}

// xxh32 is XXH32 with seed 0 of fewer than 16 bytes, the LZ4 library's own being internal to it.
func xxh32(b []byte) uint32 {
	const (
		prime1 = 2654435761
		prime2 = 2246822519
		prime3 = 3266489917
		prime4 = 668265263
		prime5 = 374761393
	)
	h := uint32(prime5) + uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*prime3, 17) * prime4
	}
	for _, v := range b {
		h = bits.RotateLeft32(h+uint32(v)*prime5, 11) * prime1
	}
	h = (h ^ h>>15) * prime2
	h = (h ^ h>>13) * prime3
	return h ^ h>>16
}
