package embedded

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/quirelog/quire/storage/ledger"
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// A frame is the unit of ledger files, and lies byte for byte the same in the
// journal, so that the write-behind copies nothing and computes nothing:
//
//	0  4  crc32c of all that follows
//	4  4  kind in the upper 4 bits, length of the payload in the lower 28
//	8  8  ledger
//	16 8  entry; of an index frame and a footer the last entry before it
//	24    payload
const frameHeaderBytes = 24

const (
	kindEntry  = 1
	kindIndex  = 2
	kindFooter = 3
)

const maxFrameLen = 1<<28 - 1

// Defaults of Config.indexEvery and Config.indexFrameEvery.
const (
	indexEvery      = 64 << 10
	indexFrameEvery = 4 << 20
)

// indexEntry says where the frame of an entry begins in the ledger file.
type indexEntry struct{ entry, pos int64 }

type frameHeader struct {
	crc   uint32
	kind  uint32
	n     int // length of the payload
	id    ledger.ID
	entry int64
}

func parseFrameHeader(b []byte) frameHeader {
	_ = b[frameHeaderBytes-1]
	k := le.Uint32(b[4:])
	return frameHeader{
		crc:   le.Uint32(b),
		kind:  k >> 28,
		n:     int(k & maxFrameLen),
		id:    ledger.ID(le.Uint64(b[8:])),
		entry: int64(le.Uint64(b[16:])),
	}
}

// sealFrame completes a frame whose payload of n bytes lies at b[24:].
func sealFrame(b []byte, kind uint32, n int, id ledger.ID, entry int64) {
	b = b[:frameHeaderBytes+n]
	le.PutUint32(b[4:], kind<<28|uint32(n))
	le.PutUint64(b[8:], uint64(id))
	le.PutUint64(b[16:], uint64(entry))
	le.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
}

func frameIntact(b []byte) bool { return crc32.Checksum(b[4:], castagnoli) == le.Uint32(b) }

// An index frame lets a ledger without a footer be opened without reading it
// whole. Its payload:
//
//	0  8  position of the index frame before it, 0 if it is the first
//	8  8  sum of the lengths of all entries before it
//	16    {entry, position} of the positions noted since the index frame before it
const indexFrameFixed = 16

func putIndexFrame(b []byte, id ledger.ID, lastEntry, prev, bytes int64, idx []indexEntry) int {
	p := b[frameHeaderBytes:]
	le.PutUint64(p, uint64(prev))
	le.PutUint64(p[8:], uint64(bytes))
	putIndexEntries(p[indexFrameFixed:], idx)
	n := indexFrameFixed + 16*len(idx)
	sealFrame(b, kindIndex, n, id, lastEntry)
	return frameHeaderBytes + n
}

func putIndexEntries(b []byte, idx []indexEntry) {
	for i, e := range idx {
		le.PutUint64(b[16*i:], uint64(e.entry))
		le.PutUint64(b[16*i+8:], uint64(e.pos))
	}
}

func parseIndexEntries(b []byte) ([]indexEntry, error) {
	if len(b)%16 != 0 {
		return nil, fmt.Errorf("index of %d bytes: %w", len(b), ledger.ErrCorrupt)
	}
	idx := make([]indexEntry, len(b)/16)
	for i := range idx {
		idx[i] = indexEntry{int64(le.Uint64(b[16*i:])), int64(le.Uint64(b[16*i+8:]))}
		if i > 0 && (idx[i].entry <= idx[i-1].entry || idx[i].pos <= idx[i-1].pos) || idx[i].entry < 0 || idx[i].pos <= 0 {
			return nil, fmt.Errorf("index is not in order: %w", ledger.ErrCorrupt)
		}
	}
	return idx, nil
}

// A footer ends a sealed ledger. Its payload is the sum of the lengths of all
// entries, then all positions.
const footerFixed = 8

func makeFooter(id ledger.ID, lastEntry, bytes int64, idx []indexEntry) []byte {
	n := footerFixed + 16*len(idx)
	b := make([]byte, frameHeaderBytes+n)
	le.PutUint64(b[frameHeaderBytes:], uint64(bytes))
	putIndexEntries(b[frameHeaderBytes+footerFixed:], idx)
	sealFrame(b, kindFooter, n, id, lastEntry)
	return b
}
