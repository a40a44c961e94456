package embedded

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/vfs"
)

// recover replays the journal from the last checkpoint and makes a new one.
//
// The replay is physical: a run says where in which file its bytes lie, so
// doing it twice, or over what the write-behind got done before the crash,
// gives the same files.
func (t *Tier) recover() error {
	start := time.Now()
	files, err := t.scanJournal()
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			_ = f.f.Close()
		}
	}()
	cp := t.checkpoints.last
	rp := &replay{t: t, ledgers: make(map[ledger.ID]*replayed), nextID: cp.nextID, groupSeq: cp.at.groupSeq}
	if err := rp.journal(files, cp.at); err != nil {
		return err
	}
	if err := rp.finish(); err != nil {
		return err
	}
	names, err := t.fs.List(t.ledgerDir())
	if err != nil {
		return err
	}
	for _, name := range names {
		if id, ok := ledgerNumber(name); ok {
			t.count.Add(1)
			rp.nextID = max(rp.nextID, int64(id)+1)
		}
	}
	// The checkpoint names a file that will never be, so that what lies in the
	// old ones cannot be replayed again.
	last := cp.at.fileSeq
	for _, f := range files {
		last = max(last, f.h.seq)
	}
	at := journalPos{fileSeq: last + 1, groupSeq: rp.groupSeq}
	if err := t.checkpoints.write(checkpointRecord{at: at, nextID: rp.nextID}); err != nil {
		return err
	}
	t.nextID.Store(rp.nextID)
	t.journal.groupSeq = rp.groupSeq
	t.behind.at, t.behind.done = at, at
	jf := t.journal.files
	jf.prev, jf.nextSeq = at, at.fileSeq+1
	if err := t.adoptJournal(files); err != nil {
		return err
	}
	if rp.groups > 0 {
		t.log.Info("journal replayed", zap.Int("groups", rp.groups), zap.Int64("bytes", rp.bytes),
			zap.Int("ledgers", len(rp.ledgers)), zap.Duration("took", time.Since(start)))
	}
	return nil
}

// scannedFile is a journal file as the last process left it.
type scannedFile struct {
	name string
	f    vfs.File
	size int64
	h    journalHeader // seq 0: not begun
}

// scanJournal opens the journal files and reads their headers.
func (t *Tier) scanJournal() (files []*scannedFile, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.f.Close()
			}
			files = nil
		}
	}()
	dir := t.journal.files.dir()
	names, err := t.fs.List(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		number, ok := journalNumber(name)
		if !ok {
			continue
		}
		t.journal.files.number = max(t.journal.files.number, number)
		f, err := t.fs.Open(path.Join(dir, name), 0)
		if err != nil {
			return files, err
		}
		sf := &scannedFile{name: name, f: f}
		files = append(files, sf)
		if sf.size, err = f.Size(); err != nil {
			return files, err
		}
		b := make([]byte, journalFileHeaderBytes)
		if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			return files, err
		}
		intact := false
		for _, b := range [...][]byte{b[:vfs.BlockBytes], b[vfs.BlockBytes:]} {
			h, ok := parseJournalHeader(b)
			if ok && h.seq > sf.h.seq {
				sf.h = h
			}
			intact = intact || ok
		}
		if !intact && slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
			return files, fmt.Errorf("journal file %s: both copies of its header are damaged: %w", name, ledger.ErrCorrupt)
		}
	}
	t.journal.files.number++
	slices.SortFunc(files, func(a, b *scannedFile) int { return cmp.Compare(a.h.seq, b.h.seq) })
	return files, nil
}

// adoptJournal makes the files of the last process those of this one.
func (t *Tier) adoptJournal(files []*scannedFile) error {
	jf := t.journal.files
	slices.SortStableFunc(files, func(a, b *scannedFile) int { return cmp.Compare(b.size, a.size) })
	for _, sf := range files {
		sf.f.Advise(0, sf.size, vfs.DontNeed) // it is written past the page cache from now on
		keep := len(jf.free) < maxFree && sf.size >= minFileBytes && sf.size <= 2*t.c.JournalFileBytes && sf.size%vfs.BlockBytes == 0
		if !keep {
			if err := t.fs.Remove(path.Join(jf.dir(), sf.name)); err != nil {
				return err
			}
			continue
		}
		f, err := jf.open(sf.name, vfs.Write)
		if err != nil {
			return err
		}
		jf.free = append(jf.free, &journalFile{name: sf.name, f: f, size: sf.size})
		jf.nextSize = min(max(jf.nextSize, 2*sf.size), t.c.JournalFileBytes)
	}
	return nil
}

// replay redoes what the journal holds behind the checkpoint.
type replay struct {
	t        *Tier
	ledgers  map[ledger.ID]*replayed
	nextID   int64
	groupSeq uint64 // of the next group
	groups   int
	bytes    int64
	buf      []byte
	dry      bool // only check, for Verify
}

// replayed is a ledger that the journal tells of.
type replayed struct {
	next, end int64 // -1: not known yet
	indexPos  int64
	bytes     int64 // of a sealed ledger
	made      bool
	sealed    bool
	deleted   bool
	damaged   bool
}

// journal follows the chain of files from the checkpoint on. Each file but the
// last must be intact up to where its successor says that it ends.
func (rp *replay) journal(files []*scannedFile, at journalPos) error {
	seen := map[uint64]bool{}
	for {
		seen[at.fileSeq] = true
		i := slices.IndexFunc(files, func(f *scannedFile) bool { return f.h.seq == at.fileSeq })
		if i < 0 && at.pos > 0 {
			return fmt.Errorf("journal file with sequence number %d is missing: %w", at.fileSeq, ledger.ErrCorrupt)
		}
		// Of several successors all but the newest were given up before a group was durable.
		var next *scannedFile
		for _, f := range files {
			if f.h.seq > at.fileSeq && f.h.prevSeq == at.fileSeq {
				next = f
			}
		}
		if i >= 0 {
			limit := int64(-1)
			if next != nil {
				limit = next.h.prevEnd
			}
			if err := rp.file(files[i], max(at.pos, firstGroupPos), limit); err != nil {
				return err
			}
		}
		if next == nil {
			break
		}
		if next.h.firstGroup != rp.groupSeq {
			return fmt.Errorf("journal file %s begins with group %d in place of %d: %w", next.name, next.h.firstGroup, rp.groupSeq, ledger.ErrCorrupt)
		}
		at = journalPos{fileSeq: next.h.seq, pos: firstGroupPos}
	}
	for _, f := range files {
		if f.h.seq > at.fileSeq && !seen[f.h.prevSeq] {
			return fmt.Errorf("journal file with sequence number %d is missing, %s follows it: %w", f.h.prevSeq, f.name, ledger.ErrCorrupt)
		}
	}
	return nil
}

// file replays the groups of f from pos to limit, or to the first that is not
// intact if limit is negative.
//
// A group is written after the one before it was synced. So a group that is not
// intact was never acknowledged if no group follows it: a torn tail, cut here. If
// one follows, it was acknowledged and is damaged since.
func (rp *replay) file(f *scannedFile, pos, limit int64) error {
	damaged := func(why error) error {
		return fmt.Errorf("journal file %s: group %d at %d is damaged, but acknowledged: %w (%w)", f.name, rp.groupSeq, pos, ledger.ErrCorrupt, why)
	}
	for limit < 0 || pos < limit {
		h, b, err := rp.readGroup(f, pos)
		if err == nil && h.groupSeq != rp.groupSeq {
			err = fmt.Errorf("%w: it is group %d", errBadGroup, h.groupSeq)
		}
		if err == nil {
			err = walkGroup(h, b, rp.run)
		}
		if errors.Is(err, errBadGroup) {
			if limit >= 0 {
				return damaged(err)
			}
			follows, ferr := rp.groupFollows(f, pos)
			if ferr != nil {
				return ferr
			}
			if follows {
				return damaged(err)
			}
			return nil
		}
		if err != nil {
			return err
		}
		rp.groupSeq++
		rp.groups++
		rp.bytes += int64(h.length)
		pos += int64(alignUp(h.length))
	}
	if limit >= 0 && pos != limit {
		return damaged(fmt.Errorf("%w: it ends at %d", errBadGroup, pos))
	}
	return nil
}

// replayReadBytes is how much of the journal is read at once.
const replayReadBytes = 1 << 20

func (rp *replay) readGroup(f *scannedFile, pos int64) (groupHeader, []byte, error) {
	read := func(n int64) ([]byte, error) {
		n = min(n, f.size-pos)
		if n < groupHeaderBytes {
			return nil, fmt.Errorf("%w: the file ends", errBadGroup)
		}
		if int64(cap(rp.buf)) < n {
			rp.buf = make([]byte, n)
		}
		b := rp.buf[:n]
		if _, err := f.f.ReadAt(b, pos); err != nil {
			return nil, fmt.Errorf("journal file %s: %w", f.name, err)
		}
		return b, nil
	}
	b, err := read(vfs.BlockBytes)
	if err != nil {
		return groupHeader{}, nil, err
	}
	h, ok := parseGroupHeader(b, f.h.salt, f.h.seq, pos)
	if !ok {
		return groupHeader{}, nil, fmt.Errorf("%w: no header", errBadGroup)
	}
	if int64(h.length) > f.size-pos {
		return groupHeader{}, nil, fmt.Errorf("%w: the file ends", errBadGroup)
	}
	if h.length > len(b) {
		if b, err = read(int64(h.length)); err != nil {
			return groupHeader{}, nil, err
		}
	}
	return h, b[:h.length], nil
}

// groupFollows looks for a later group of the same use of the file.
func (rp *replay) groupFollows(f *scannedFile, pos int64) (bool, error) {
	buf := make([]byte, replayReadBytes)
	for pos += vfs.BlockBytes; pos < f.size; {
		b := buf[:min(int64(len(buf)), f.size-pos)]
		if _, err := f.f.ReadAt(b, pos); err != nil {
			return false, fmt.Errorf("journal file %s: %w", f.name, err)
		}
		for off := 0; off < len(b); off += vfs.BlockBytes {
			if h, ok := parseGroupHeader(b[off:], f.h.salt, f.h.seq, pos+int64(off)); ok && h.groupSeq > rp.groupSeq {
				return true, nil
			}
		}
		pos += int64(len(b))
	}
	return false, nil
}

// run redoes one run of an intact group.
func (rp *replay) run(r runHeader, body []byte) error {
	t := rp.t
	l := rp.ledgers[r.id]
	if l == nil {
		l = &replayed{next: -1, end: -1}
		rp.ledgers[r.id] = l
	}
	rp.nextID = max(rp.nextID, int64(r.id)+1)
	wrong := func(why string) error {
		return fmt.Errorf("journal: ledger %d: %s: %w", r.id, why, ledger.ErrCorrupt)
	}
	if r.id <= 0 || r.pos < 0 {
		return wrong("it has an impossible place")
	}
	if l.deleted {
		if r.kind == runDelete {
			return nil
		}
		return wrong("it goes on after it was deleted")
	}
	switch r.kind {
	case runCreate:
		if l.end >= 0 {
			return wrong("it is created twice")
		}
		l.made = true
		l.next, l.end = 0, int64(len(body))
		return rp.write(r.id, body, 0)
	case runEntries:
		if l.end >= 0 && (r.pos != l.end || r.first != l.next) || l.sealed {
			return wrong(fmt.Sprintf("entry %d comes at %d in place of entry %d at %d", r.first, r.pos, l.next, l.end))
		}
		if l.end < 0 {
			if err := rp.checkBefore(r, l); err != nil {
				return err
			}
		}
		l.next, l.end = r.first+int64(r.count), r.pos+int64(r.n)
		for b, pos := body, r.pos; len(b) > 0; {
			fh := parseFrameHeader(b)
			if fh.kind == kindIndex {
				l.indexPos = pos
			}
			n := frameHeaderBytes + fh.n
			b, pos = b[n:], pos+int64(n)
		}
		return rp.write(r.id, body, r.pos)
	case runSeal:
		if len(body) != sealBodyBytes || l.end >= 0 && (r.pos != l.end || r.first != l.next-1) {
			return wrong("it is sealed at another place than it ends")
		}
		l.sealed, l.next, l.end, l.bytes = true, r.first+1, r.pos, int64(le.Uint64(body))
		return nil
	case runDelete:
		l.deleted = true
		if rp.dry {
			return nil
		}
		t.cache.drop(r.id)
		if err := t.fs.Remove(t.ledgerName(r.id)); err != nil && !errors.Is(notFound(r.id, err), ledger.ErrNotFound) {
			return err
		}
		return nil
	default:
		return wrong(fmt.Sprintf("a run of unknown kind %d", r.kind))
	}
}

// checkBefore reports a file that lacks bytes from before the journal begins. The
// start goes on: reads of what is missing say that it is corrupt.
func (rp *replay) checkBefore(r runHeader, l *replayed) error {
	if rp.dry {
		return nil
	}
	f, err := rp.t.cache.get(r.id, true)
	if err != nil {
		return err
	}
	defer f.release()
	size, err := f.Size()
	if err == nil && size < r.pos {
		// A ledger that is deleted further on has no file any more.
		l.damaged = true
	}
	return err
}

func (rp *replay) write(id ledger.ID, b []byte, pos int64) error {
	if rp.dry {
		return nil
	}
	f, err := rp.t.cache.get(id, true)
	if err != nil {
		return err
	}
	rp.t.cache.setDirty(f, true)
	_, err = f.WriteAt(b, pos)
	f.release()
	if err == nil {
		err = rp.t.cache.evict(true)
	}
	return err
}

// finish completes the files of the replayed ledgers and makes them durable.
func (rp *replay) finish() error {
	t := rp.t
	for id, l := range rp.ledgers {
		if l.deleted {
			continue
		}
		if l.damaged {
			t.log.Error("ledger file lacks bytes that were durable", zap.Int64("ledger", int64(id)))
		}
		if err := rp.finishLedger(id, l); err != nil {
			if !errors.Is(err, ledger.ErrCorrupt) && !errors.Is(err, ledger.ErrNotFound) {
				return err
			}
			t.log.Error("ledger is damaged", zap.Error(err))
		}
	}
	if len(rp.ledgers) == 0 {
		return nil
	}
	c := &t.cache
	all := t.syncer != nil && (c.closedDirty || len(rp.ledgers) > manyFiles)
	c.closedDirty = false
	if all {
		if err := t.syncer.SyncAll(); err != nil {
			return err
		}
	}
	for id := range rp.ledgers {
		f := c.dirtyFile(id)
		if f == nil {
			continue
		}
		var err error
		if !all {
			err = f.SyncData()
		}
		f.release()
		if err != nil {
			return err
		}
	}
	return t.fs.SyncDir(t.ledgerDir())
}

func (rp *replay) finishLedger(id ledger.ID, l *replayed) error {
	f, err := rp.t.cache.get(id, false)
	if err != nil {
		return err
	}
	defer f.release()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size > l.end {
		rp.t.cache.setDirty(f, true)
		if err := f.Truncate(l.end); err != nil {
			return err
		}
	}
	h, err := readLedgerHeader(f, id)
	if err != nil {
		return err
	}
	if l.indexPos > 0 {
		rp.t.cache.setDirty(f, true)
		h.slot = slot{indexPos: l.indexPos, lastEntry: ledger.NoEntry}
		h.slotOK = true
		if err := putSlot(f, h.slot); err != nil {
			return err
		}
	}
	if !l.sealed {
		if h.slotOK && h.slot.sealed {
			return fmt.Errorf("ledger %d: journal goes on behind its seal: %w", id, ledger.ErrCorrupt)
		}
		return nil
	}
	lay, err := readLayout(f, id, h, rp.t.c.indexEvery, true, l.end)
	if err != nil {
		return err
	}
	if lay.tail.next != l.next || lay.tail.bytes != l.bytes {
		return fmt.Errorf("ledger %d: sealed at entry %d with %d bytes, but the file has entry %d and %d bytes: %w",
			id, l.next-1, l.bytes, lay.tail.next-1, lay.tail.bytes, ledger.ErrCorrupt)
	}
	rp.t.cache.setDirty(f, true)
	if _, err := f.WriteAt(makeFooter(id, lay.tail.next-1, lay.tail.bytes, lay.index), l.end); err != nil {
		return err
	}
	return putSlot(f, slot{sealed: true, indexPos: lay.tail.indexPos, footerPos: l.end, lastEntry: lay.tail.next - 1, bytes: lay.tail.bytes})
}
