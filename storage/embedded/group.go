package embedded

import (
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/quirelog/quire/storage/ledger"
)

// A group is what the journal writes and syncs at once. It begins on a block,
// is padded with zeros to the next, and is valid as a whole or not at all:
//
//	0  4  crc32c of the 60 bytes that follow
//	4  4  magic "QGrp"
//	8  8  salt of the journal file
//	16 8  sequence number of the journal file
//	24 8  sequence number of the group
//	32 8  position of the group in the file
//	40 4  length, this header included, padding excluded
//	44 4  number of runs
//	48 4  chain: crc32c over the headers of all frames and runs, bodies of control runs included
//	52 12 zero
//	64    runs
//
// The crc of a frame header covers its payload, so the chain covers every byte.
const (
	groupHeaderBytes = 64
	groupMagic       = 0x70724751
)

// A run is what one ledger has in a group. Its body is a piece of the ledger
// file, or the arguments of a control record.
//
//	0  4  kind
//	4  4  length of the body
//	8  8  ledger
//	16 8  first entry; of a seal the last entry of the ledger
//	24 8  position of the body in the ledger file
//	32 4  number of entries
//	36 4  zero
//	40    body
const runHeaderBytes = 40

const (
	runEntries = 1
	runCreate  = 2 // body: the ledger file's header
	runSeal    = 3 // body: sum of the lengths of all entries
	runDelete  = 4 // no body
)

const sealBodyBytes = 8

type groupHeader struct {
	salt     uint64
	fileSeq  uint64
	groupSeq uint64
	pos      int64
	length   int
	runs     int
	chain    uint32
}

func (h *groupHeader) put(b []byte) {
	b = b[:groupHeaderBytes]
	clear(b)
	le.PutUint32(b[4:], groupMagic)
	le.PutUint64(b[8:], h.salt)
	le.PutUint64(b[16:], h.fileSeq)
	le.PutUint64(b[24:], h.groupSeq)
	le.PutUint64(b[32:], uint64(h.pos))
	le.PutUint32(b[40:], uint32(h.length))
	le.PutUint32(b[44:], uint32(h.runs))
	le.PutUint32(b[48:], h.chain)
	le.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
}

// parseGroupHeader returns false unless b begins with an intact header that was
// written to this use of the file at this position.
func parseGroupHeader(b []byte, salt, fileSeq uint64, pos int64) (groupHeader, bool) {
	if len(b) < groupHeaderBytes || le.Uint32(b[4:]) != groupMagic ||
		crc32.Checksum(b[4:groupHeaderBytes], castagnoli) != le.Uint32(b) {
		return groupHeader{}, false
	}
	h := groupHeader{
		salt: le.Uint64(b[8:]), fileSeq: le.Uint64(b[16:]), groupSeq: le.Uint64(b[24:]),
		pos: int64(le.Uint64(b[32:])), length: int(le.Uint32(b[40:])), runs: int(le.Uint32(b[44:])), chain: le.Uint32(b[48:]),
	}
	return h, h.salt == salt && h.fileSeq == fileSeq && h.pos == pos && h.length >= groupHeaderBytes
}

type runHeader struct {
	kind  uint32
	n     int // length of the body
	id    ledger.ID
	first int64
	pos   int64
	count int
}

func (h *runHeader) put(b []byte) {
	b = b[:runHeaderBytes]
	le.PutUint32(b, h.kind)
	le.PutUint32(b[4:], uint32(h.n))
	le.PutUint64(b[8:], uint64(h.id))
	le.PutUint64(b[16:], uint64(h.first))
	le.PutUint64(b[24:], uint64(h.pos))
	le.PutUint32(b[32:], uint32(h.count))
	le.PutUint32(b[36:], 0)
}

func parseRunHeader(b []byte) runHeader {
	return runHeader{
		kind: le.Uint32(b), n: int(le.Uint32(b[4:])), id: ledger.ID(le.Uint64(b[8:])),
		first: int64(le.Uint64(b[16:])), pos: int64(le.Uint64(b[24:])), count: int(le.Uint32(b[32:])),
	}
}

var errBadGroup = errors.New("journal group is not intact")

// walkGroup checks the group that h heads, whose h.length bytes are b, and then
// calls f for each of its runs. Nothing is called for a group that is not intact.
func walkGroup(h groupHeader, b []byte, f func(r runHeader, body []byte) error) error {
	var chain uint32
	off, runs := groupHeaderBytes, 0
	for ; off < len(b); runs++ {
		if len(b)-off < runHeaderBytes {
			return fmt.Errorf("%w: run is cut short", errBadGroup)
		}
		r := parseRunHeader(b[off:])
		if r.n > len(b)-off-runHeaderBytes {
			return fmt.Errorf("%w: run is cut short", errBadGroup)
		}
		body := b[off+runHeaderBytes : off+runHeaderBytes+r.n]
		if err := chainBody(&chain, r, body); err != nil {
			return err
		}
		chain = crc32.Update(chain, castagnoli, b[off:off+runHeaderBytes])
		off += runHeaderBytes + r.n
	}
	if chain != h.chain || runs != h.runs {
		return fmt.Errorf("%w: its checksum does not match", errBadGroup)
	}
	for off = groupHeaderBytes; off < len(b); {
		r := parseRunHeader(b[off:])
		off += runHeaderBytes
		if err := f(r, b[off:off+r.n]); err != nil {
			return err
		}
		off += r.n
	}
	return nil
}

func chainBody(chain *uint32, r runHeader, body []byte) error {
	if r.kind != runEntries {
		*chain = crc32.Update(*chain, castagnoli, body)
		return nil
	}
	entries := 0
	for len(body) > 0 {
		if len(body) < frameHeaderBytes {
			return fmt.Errorf("%w: frame is cut short", errBadGroup)
		}
		fh := parseFrameHeader(body)
		end := frameHeaderBytes + fh.n
		if end > len(body) || fh.id != r.id || !frameIntact(body[:end]) {
			return fmt.Errorf("%w: entry %d of ledger %d does not match its checksum", errBadGroup, r.first+int64(entries), r.id)
		}
		if fh.kind == kindEntry {
			if fh.entry != r.first+int64(entries) {
				return fmt.Errorf("%w: entries of ledger %d are out of order", errBadGroup, r.id)
			}
			entries++
		}
		*chain = crc32.Update(*chain, castagnoli, body[:frameHeaderBytes])
		body = body[end:]
	}
	if entries != r.count {
		return fmt.Errorf("%w: ledger %d has %d entries in place of %d", errBadGroup, r.id, entries, r.count)
	}
	return nil
}
