package embedded

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/vfs"
)

// Report is what Verify found.
type Report struct {
	Ledgers  int
	Sealed   int
	Entries  int64
	Bytes    int64 // sum of the lengths of the entries
	Groups   int   // of the journal, behind the checkpoint
	Problems []error
}

// Verify reads every byte of the closed store in dir and checks all that can be
// checked; it changes nothing. It calls visit, if not nil, with a line for each
// journal file and each ledger. An error means that the store could not be read,
// Report.Problems tells what is damaged.
func Verify(fsys vfs.FS, dir string, visit func(line string)) (Report, error) {
	if visit == nil {
		visit = func(string) {}
	}
	t := &Tier{c: Config{Dir: dir, FS: fsys}, fs: fsys, log: zap.NewNop(), ledgers: make(map[ledger.ID]*ledgerState)}
	wrap := func(err error) error { return fmt.Errorf("verify the ledger store in %s: %w", dir, err) }
	if err := t.c.validate(); err != nil {
		return Report{}, err
	}
	t.fs = t.c.FS
	t.journal.files = &journalFiles{t: t}
	fresh, err := t.checkFormat()
	if err != nil {
		return Report{}, wrap(err)
	}
	if fresh {
		return Report{}, nil
	}
	lock, err := t.fs.Lock(path.Join(t.c.Dir, "LOCK"))
	if err != nil {
		if errors.Is(err, vfs.ErrLocked) {
			err = ErrLocked
		}
		return Report{}, wrap(err)
	}
	defer lock.Close()
	if t.checkpoints, err = openCheckpoints(t, false); err != nil {
		return Report{}, wrap(err)
	}
	defer t.checkpoints.f.Close()
	files, err := t.scanJournal()
	if err != nil {
		return Report{}, wrap(err)
	}
	defer func() {
		for _, f := range files {
			_ = f.f.Close()
		}
	}()
	var rep Report
	cp := t.checkpoints.last
	visit(fmt.Sprintf("checkpoint %d: journal file %d from %d, group %d, next ledger %d", cp.seq, cp.at.fileSeq, cp.at.pos, cp.at.groupSeq, cp.nextID))
	for _, f := range files {
		visit(fmt.Sprintf("journal %s: %d bytes, sequence number %d, first group %d, after file %d at %d",
			f.name, f.size, f.h.seq, f.h.firstGroup, f.h.prevSeq, f.h.prevEnd))
	}
	rp := &replay{t: t, ledgers: make(map[ledger.ID]*replayed), groupSeq: cp.at.groupSeq, dry: true}
	if err := rp.journal(files, cp.at); err != nil {
		rep.Problems = append(rep.Problems, err)
	}
	rep.Groups = rp.groups
	names, err := t.fs.List(t.ledgerDir())
	if err != nil {
		return rep, wrap(err)
	}
	slices.Sort(names)
	for _, name := range names {
		id, ok := ledgerNumber(name)
		if !ok {
			continue
		}
		if rp.ledgers[id] != nil {
			visit(fmt.Sprintf("ledger %d: to be completed from the journal", id))
			continue
		}
		line, err := rep.ledger(t, id)
		if err != nil {
			rep.Problems = append(rep.Problems, err)
			line = err.Error()
		}
		visit(line)
	}
	return rep, nil
}

// ledger checks every frame of a ledger file that the journal does not touch.
func (rep *Report) ledger(t *Tier, id ledger.ID) (string, error) {
	f, err := t.fs.Open(t.ledgerName(id), 0)
	if err != nil {
		return "", notFound(id, err)
	}
	defer f.Close()
	h, err := readLedgerHeader(f, id)
	if err != nil {
		return "", err
	}
	if !h.slotOK {
		return "", fmt.Errorf("ledger %d: slot does not match its checksum: %w", id, ledger.ErrCorrupt)
	}
	size, err := f.Size()
	if err != nil {
		return "", err
	}
	found := layout{tail: tail{end: h.length}, every: t.c.indexEvery}
	if err := walkFrames(f, id, &found, size, false); err != nil {
		return "", err
	}
	told, err := readLayout(f, id, h, t.c.indexEvery, false, -1)
	if err != nil {
		return "", err
	}
	a, b := found.tail, told.tail
	if a.next != b.next || a.end != b.end || a.bytes != b.bytes || a.sealed != b.sealed || a.sealed != h.slot.sealed ||
		a.sealed && (h.slot.lastEntry != a.next-1 || h.slot.bytes != a.bytes) {
		return "", fmt.Errorf("ledger %d: index or footer tell of %+v, the frames of %+v: %w", id, b, a, ledger.ErrCorrupt)
	}
	var buf []byte
	for pos := h.length; pos < size; {
		hb := make([]byte, frameHeaderBytes)
		if _, err := f.ReadAt(hb, pos); err != nil {
			return "", err
		}
		n := frameHeaderBytes + parseFrameHeader(hb).n
		buf = slices.Grow(buf[:0], n)[:n]
		if _, err := f.ReadAt(buf, pos); err != nil {
			return "", err
		}
		if !frameIntact(buf) {
			return "", fmt.Errorf("ledger %d: frame at %d, entry %d, does not match its checksum: %w", id, pos, parseFrameHeader(buf).entry, ledger.ErrCorrupt)
		}
		pos += int64(n)
	}
	for _, e := range told.index {
		hb := make([]byte, frameHeaderBytes)
		if _, err := f.ReadAt(hb, e.pos); err != nil {
			return "", err
		}
		if fh := parseFrameHeader(hb); fh.kind != kindEntry || fh.entry != e.entry {
			return "", fmt.Errorf("ledger %d: index places entry %d at %d, where %d is: %w", id, e.entry, e.pos, fh.entry, ledger.ErrCorrupt)
		}
	}
	rep.Ledgers++
	rep.Entries += a.next
	rep.Bytes += a.bytes
	state := "open"
	if a.sealed {
		rep.Sealed++
		state = "sealed"
	}
	return fmt.Sprintf("ledger %d: %s, %d entries, %d bytes, %d positions, %v", id, state, a.next, a.bytes, len(told.index), h.props), nil
}
