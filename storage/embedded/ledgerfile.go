package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/vfs"
)

// A ledger file begins with a header. Its first 64 bytes and the properties
// never change; the slot does, within one sector:
//
//	0   4  crc32c of bytes 4 to 64 and of the properties
//	4   4  magic "QLdg"
//	8   8  ledger
//	16  4  length of the properties
//	20  44 zero
//	64  4  crc32c of the 60 bytes that follow
//	68  4  1: sealed
//	72  8  position of the last index frame, 0 if none
//	80  8  position of the footer if sealed
//	88  8  last entry if sealed
//	96  8  sum of the lengths of all entries if sealed
//	104 24 zero
//	128    properties: uvarint count, then key and value of each behind their uvarint lengths
//
// The slot is a shortcut. Where it is missing or wrong, the frames tell the same.
const (
	ledgerMagic      = 0x67644c51
	ledgerFixedBytes = 128
	slotPos          = 64
	slotBytes        = 64
	ledgerSuffix     = ".ledger"
)

// maxPropertiesBytes bounds what a Create may store.
const maxPropertiesBytes = 64 << 10

type slot struct {
	sealed    bool
	indexPos  int64
	footerPos int64
	lastEntry int64
	bytes     int64
}

func (s *slot) put(b []byte) {
	b = b[:slotBytes]
	clear(b)
	if s.sealed {
		le.PutUint32(b[4:], 1)
	}
	le.PutUint64(b[8:], uint64(s.indexPos))
	le.PutUint64(b[16:], uint64(s.footerPos))
	le.PutUint64(b[24:], uint64(s.lastEntry))
	le.PutUint64(b[32:], uint64(s.bytes))
	le.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
}

func parseSlot(b []byte) (slot, bool) {
	b = b[:slotBytes]
	s := slot{
		sealed: le.Uint32(b[4:]) == 1, indexPos: int64(le.Uint64(b[8:])), footerPos: int64(le.Uint64(b[16:])),
		lastEntry: int64(le.Uint64(b[24:])), bytes: int64(le.Uint64(b[32:])),
	}
	ok := crc32.Checksum(b[4:], castagnoli) == le.Uint32(b) && s.indexPos >= 0 && s.footerPos >= 0 && s.lastEntry >= ledger.NoEntry
	return s, ok
}

// makeLedgerHeader returns what a new ledger file begins with.
func makeLedgerHeader(id ledger.ID, props ledger.Properties) ([]byte, error) {
	b := make([]byte, ledgerFixedBytes)
	b = binary.AppendUvarint(b, uint64(len(props)))
	for _, k := range slices.Sorted(maps.Keys(props)) {
		for _, s := range [...]string{k, props[k]} {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
	}
	n := len(b) - ledgerFixedBytes
	if n > maxPropertiesBytes {
		return nil, fmt.Errorf("properties of %d bytes exceed %d", n, maxPropertiesBytes)
	}
	le.PutUint32(b[4:], ledgerMagic)
	le.PutUint64(b[8:], uint64(id))
	le.PutUint32(b[16:], uint32(n))
	(&slot{lastEntry: ledger.NoEntry}).put(b[slotPos:])
	le.PutUint32(b, ledgerHeaderSum(b))
	return b, nil
}

func ledgerHeaderSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[4:slotPos], castagnoli), castagnoli, b[ledgerFixedBytes:])
}

type ledgerHeader struct {
	length int64
	props  ledger.Properties
	slot   slot
	slotOK bool
}

// readLedgerHeader reads the header of the ledger file f.
func readLedgerHeader(f vfs.File, id ledger.ID) (ledgerHeader, error) {
	bad := func(why string) (ledgerHeader, error) {
		return ledgerHeader{}, fmt.Errorf("ledger %d: header %s: %w", id, why, ledger.ErrCorrupt)
	}
	b := make([]byte, 512)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return ledgerHeader{}, fmt.Errorf("ledger %d: %w", id, err)
	}
	if n < ledgerFixedBytes {
		return bad("is cut short")
	}
	b = b[:n]
	propBytes := int(le.Uint32(b[16:]))
	if le.Uint32(b[4:]) != ledgerMagic || propBytes > maxPropertiesBytes {
		return bad("is of another kind")
	}
	length := ledgerFixedBytes + propBytes
	if length > n {
		b = append(b, make([]byte, length-n)...)
		if _, err := f.ReadAt(b[n:], int64(n)); err != nil {
			return bad("is cut short")
		}
	}
	b = b[:length]
	if ledgerHeaderSum(b) != le.Uint32(b) {
		return bad("does not match its checksum")
	}
	if got := ledger.ID(le.Uint64(b[8:])); got != id {
		return bad(fmt.Sprintf("is that of ledger %d", got))
	}
	h := ledgerHeader{length: int64(length)}
	h.slot, h.slotOK = parseSlot(b[slotPos:])
	var ok bool
	if h.props, ok = parseProperties(b[ledgerFixedBytes:]); !ok {
		return bad("has malformed properties")
	}
	return h, nil
}

func parseProperties(b []byte) (ledger.Properties, bool) {
	str := func() (string, bool) {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return "", false
		}
		s := string(b[w : w+int(n)])
		b = b[w+int(n):]
		return s, true
	}
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)) {
		return nil, false
	}
	b = b[w:]
	if n == 0 {
		return nil, len(b) == 0
	}
	props := make(ledger.Properties)
	for range n {
		k, ok := str()
		if !ok {
			return nil, false
		}
		if props[k], ok = str(); !ok {
			return nil, false
		}
	}
	return props, len(b) == 0
}

// layout is what the frames of a ledger file tell.
type layout struct {
	tail  tail
	index []indexEntry
	every int64 // Config.indexEvery
}

// readLayout finds out where the ledger file ends and what its index is.
// A sealed file tells it by its footer. Of another, the chain of index frames is
// followed back and what comes after the last one is walked, frame header by
// frame header. ignoreSeal is for the replay, which has redone the frames but not
// yet the footer; limit then ends the walk, and is -1 otherwise.
func readLayout(f vfs.File, id ledger.ID, h ledgerHeader, every int64, ignoreSeal bool, limit int64) (layout, error) {
	size, err := f.Size()
	if err != nil {
		return layout{}, fmt.Errorf("ledger %d: %w", id, err)
	}
	if limit >= 0 {
		if size < limit {
			return layout{}, fmt.Errorf("ledger %d: file has %d of %d bytes: %w", id, size, limit, ledger.ErrCorrupt)
		}
		size = limit
	}
	if h.slotOK && h.slot.sealed && !ignoreSeal {
		lay, err := readFooter(f, id, h.slot.footerPos, size)
		if err == nil || !errors.Is(err, ledger.ErrCorrupt) {
			return lay, err
		}
	}
	if h.slotOK && h.slot.indexPos > 0 {
		lay, err := readIndexChain(f, id, h, size)
		if err == nil {
			lay.every = every
			err = walkFrames(f, id, &lay, size, ignoreSeal)
		}
		if err == nil || !errors.Is(err, ledger.ErrCorrupt) {
			return lay, err
		}
	}
	lay := layout{tail: tail{end: h.length}, every: every}
	err = walkFrames(f, id, &lay, size, ignoreSeal)
	return lay, err
}

func readFooter(f vfs.File, id ledger.ID, pos, size int64) (layout, error) {
	bad := func(why string) (layout, error) {
		return layout{}, fmt.Errorf("ledger %d: footer at %d %s: %w", id, pos, why, ledger.ErrCorrupt)
	}
	n := size - pos
	if pos < ledgerFixedBytes || n < frameHeaderBytes+footerFixed || n > frameHeaderBytes+maxFrameLen {
		return bad("does not lie in the file")
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, pos); err != nil {
		return layout{}, fmt.Errorf("ledger %d: %w", id, err)
	}
	fh := parseFrameHeader(b)
	if fh.kind != kindFooter || fh.id != id || frameHeaderBytes+int64(fh.n) != n || !frameIntact(b) {
		return bad("does not match its checksum")
	}
	idx, err := parseIndexEntries(b[frameHeaderBytes+footerFixed:])
	if err != nil {
		return layout{}, fmt.Errorf("ledger %d: %w", id, err)
	}
	return layout{
		tail:  tail{next: fh.entry + 1, end: pos, bytes: int64(le.Uint64(b[frameHeaderBytes:])), indexLen: len(idx), sealed: true},
		index: idx,
	}, nil
}

// readIndexChain collects the index frames from the one that the slot names back to the first.
func readIndexChain(f vfs.File, id ledger.ID, h ledgerHeader, size int64) (layout, error) {
	var parts [][]indexEntry
	lay := layout{}
	for pos := h.slot.indexPos; pos > 0; {
		bad := func(why string) (layout, error) {
			return layout{}, fmt.Errorf("ledger %d: index frame at %d %s: %w", id, pos, why, ledger.ErrCorrupt)
		}
		hb := make([]byte, frameHeaderBytes)
		if pos < h.length || pos > size-frameHeaderBytes {
			return bad("does not lie in the file")
		}
		if _, err := f.ReadAt(hb, pos); err != nil {
			return layout{}, fmt.Errorf("ledger %d: %w", id, err)
		}
		fh := parseFrameHeader(hb)
		if fh.kind != kindIndex || fh.id != id || fh.n < indexFrameFixed || int64(fh.n) > size-frameHeaderBytes-pos {
			return bad("is of another kind")
		}
		b := make([]byte, frameHeaderBytes+fh.n)
		if _, err := f.ReadAt(b, pos); err != nil {
			return layout{}, fmt.Errorf("ledger %d: %w", id, err)
		}
		if !frameIntact(b) {
			return bad("does not match its checksum")
		}
		idx, err := parseIndexEntries(b[frameHeaderBytes+indexFrameFixed:])
		if err != nil {
			return layout{}, fmt.Errorf("ledger %d: %w", id, err)
		}
		if len(parts) == 0 {
			lay.tail = tail{
				next: fh.entry + 1, end: pos + int64(len(b)), bytes: int64(le.Uint64(b[frameHeaderBytes+8:])), indexPos: pos,
			}
		}
		parts = append(parts, idx)
		prev := int64(le.Uint64(b[frameHeaderBytes:]))
		if prev >= pos || prev < 0 {
			return bad("names one behind it")
		}
		pos = prev
	}
	for _, p := range slices.Backward(parts) {
		lay.index = append(lay.index, p...)
	}
	n := len(lay.index)
	lay.tail.indexLen, lay.tail.sinceIdx = n, n
	if n > 0 {
		lay.tail.lastNoted = lay.index[n-1].pos
	}
	return lay, nil
}

// walkFrames extends lay from lay.tail.end to size. It checks that the headers
// follow each other, which needs no checksum: ledger and entry are foreseen.
func walkFrames(f vfs.File, id ledger.ID, lay *layout, size int64, ignoreSeal bool) error {
	t := &lay.tail
	buf := make([]byte, min(1<<20, max(0, size-t.end)))
	var bufPos int64
	var have int
	for t.end < size {
		bad := func(why string) error {
			return fmt.Errorf("ledger %d: frame at %d, where entry %d should be, %s: %w", id, t.end, t.next, why, ledger.ErrCorrupt)
		}
		if size-t.end < frameHeaderBytes {
			return bad("is cut short")
		}
		if t.end < bufPos || t.end+frameHeaderBytes > bufPos+int64(have) {
			bufPos = t.end
			n := int(min(int64(len(buf)), size-bufPos))
			if _, err := f.ReadAt(buf[:n], bufPos); err != nil {
				return fmt.Errorf("ledger %d: %w", id, err)
			}
			have = n
		}
		fh := parseFrameHeader(buf[t.end-bufPos:])
		n := frameHeaderBytes + int64(fh.n)
		if fh.id != id || n > size-t.end {
			return bad("is not one of this ledger")
		}
		switch fh.kind {
		case kindEntry:
			if fh.entry != t.next {
				return bad(fmt.Sprintf("is entry %d", fh.entry))
			}
			if t.end-t.lastNoted >= lay.every || t.indexLen == 0 {
				lay.index = append(lay.index, indexEntry{t.next, t.end})
				t.indexLen++
				t.lastNoted = t.end
			}
			t.next++
			t.bytes += int64(fh.n)
			t.end += n
		case kindIndex:
			if fh.entry != t.next-1 {
				return bad("is an index frame of another place")
			}
			t.indexPos, t.sinceIdx = t.end, t.indexLen
			t.end += n
		case kindFooter:
			if fh.entry != t.next-1 || n != size-t.end {
				return bad("is a footer of another place")
			}
			t.sealed = !ignoreSeal
			return nil
		default:
			return bad("is of an unknown kind")
		}
	}
	return nil
}

func (t *Tier) ledgerDir() string { return path.Join(t.c.Dir, "ledgers") }

func (t *Tier) ledgerName(id ledger.ID) string {
	return path.Join(t.ledgerDir(), strconv.FormatInt(int64(id), 10)+ledgerSuffix)
}

func ledgerNumber(name string) (ledger.ID, bool) {
	s, ok := strings.CutSuffix(name, ledgerSuffix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return ledger.ID(n), err == nil && n > 0
}

// notFound turns a missing file into the contract's error.
func notFound(id ledger.ID, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ledger %d: %w", id, ledger.ErrNotFound)
	}
	return fmt.Errorf("ledger %d: %w", id, err)
}
