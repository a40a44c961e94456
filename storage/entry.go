package storage

import (
	"encoding/binary"
	"fmt"

	"github.com/quirelog/quire/protocol/batch"
)

// An entry of a ledger is a head of headBytes bytes and a body. All numbers are
// big-endian.
//
//	 0 version   u8 = 1
//	 1 kind      u8     1 data, 2 snapshot, 3 final
//	 2 reserved  u16 = 0
//	 4 snapshot  u32    entries back to the last snapshot of this ledger, noSnapshot if there is none
//	 8 entry     i64    the id that the writer expected this entry to get
//	16 offset    i64    of the body's first record; of a snapshot, of the next record
//
// The body of data is the producer's batch. Snapshots occupy no offsets and no
// reader sees them.
//
// The expected id tells a ledger with a hole from a whole one. A tier may refuse an
// append for lack of space and take one that was already queued behind it. What
// follows such a hole was never acknowledged, so the ledger ends before it.
const (
	entryVersion = 1
	headBytes    = 24

	kindData     = 1
	kindSnapshot = 2
	kindFinal    = 3 // the snapshot with which a ledger is closed

	noSnapshot = 1<<32 - 1
)

type head struct {
	kind     uint8
	snapshot int64 // entry id of the last snapshot of the ledger, -1 if there is none
	entry    int64
	offset   int64
}

// encode writes h. A snapshot's own distance is 0.
func (h head) encode(b *[headBytes]byte) {
	distance := uint32(noSnapshot)
	if h.snapshot >= 0 && h.entry-h.snapshot < noSnapshot {
		distance = uint32(h.entry - h.snapshot)
	}
	b[0], b[1], b[2], b[3] = entryVersion, h.kind, 0, 0
	binary.BigEndian.PutUint32(b[4:], distance)
	binary.BigEndian.PutUint64(b[8:], uint64(h.entry))
	binary.BigEndian.PutUint64(b[16:], uint64(h.offset))
}

// decodeEntry splits an entry. The errors are ErrCorrupt.
func decodeEntry(b []byte) (h head, body []byte, err error) {
	if len(b) < headBytes {
		return h, nil, fmt.Errorf("%w: an entry of %d bytes has no head", ErrCorrupt, len(b))
	}
	if b[0] != entryVersion || b[1] < kindData || b[1] > kindFinal {
		return h, nil, fmt.Errorf("%w: an entry of version %d and kind %d", ErrCorrupt, b[0], b[1])
	}
	h.kind = b[1]
	h.entry = int64(binary.BigEndian.Uint64(b[8:]))
	h.offset = int64(binary.BigEndian.Uint64(b[16:]))
	h.snapshot = -1
	if distance := binary.BigEndian.Uint32(b[4:]); distance != noSnapshot {
		h.snapshot = h.entry - int64(distance)
	}
	if h.entry < 0 || h.offset < 0 || h.snapshot < -1 {
		return h, nil, fmt.Errorf("%w: an entry with id %d and offset %d", ErrCorrupt, h.entry, h.offset)
	}
	return h, b[headBytes:], nil
}

// decodeData checks that the body of a data entry is one whole batch. The
// tier's checksum has vouched for the bytes.
func decodeData(h head, body []byte) (batch.Batch, error) {
	if len(body) < batch.HeaderBytes {
		return nil, fmt.Errorf("%w: a batch of %d bytes", ErrCorrupt, len(body))
	}
	b := batch.Batch(body)
	if int64(b.Length())+batch.PrefixBytes != int64(len(b)) || b.BaseOffset() != h.offset || b.LastOffsetDelta() < 0 {
		return nil, fmt.Errorf("%w: a batch at offset %d whose header says offset %d and %d bytes of %d",
			ErrCorrupt, h.offset, b.BaseOffset(), int64(b.Length())+batch.PrefixBytes, len(b))
	}
	return b, nil
}
