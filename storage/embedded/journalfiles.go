package embedded

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/vfs"
)

// A journal file begins with two blocks that hold the same header, so that one
// bad block does not hide a file:
//
//	0  4  crc32c of the 60 bytes that follow
//	4  4  magic "QJnl"
//	8  8  sequence number of this use of the file
//	16 8  salt, drawn anew for each use
//	24 8  sequence number of the first group
//	32 8  sequence number of the file before it, 0 if none
//	40 8  where the file before it ends
//	48 16 zero
const (
	journalFileHeaderBytes = 2 * vfs.BlockBytes
	journalMagic           = 0x6c6e4a51
	journalSuffix          = ".journal"
)

// firstGroupPos is where the first group of a journal file lies.
const firstGroupPos = journalFileHeaderBytes

type journalHeader struct {
	seq, salt, firstGroup, prevSeq uint64
	prevEnd                        int64
}

func (h *journalHeader) put(b []byte) {
	clear(b[:vfs.BlockBytes])
	le.PutUint32(b[4:], journalMagic)
	le.PutUint64(b[8:], h.seq)
	le.PutUint64(b[16:], h.salt)
	le.PutUint64(b[24:], h.firstGroup)
	le.PutUint64(b[32:], h.prevSeq)
	le.PutUint64(b[40:], uint64(h.prevEnd))
	le.PutUint32(b, crc32.Checksum(b[4:64], castagnoli))
	copy(b[vfs.BlockBytes:], b[:vfs.BlockBytes])
}

func parseJournalHeader(b []byte) (journalHeader, bool) {
	if le.Uint32(b[4:]) != journalMagic || crc32.Checksum(b[4:64], castagnoli) != le.Uint32(b) {
		return journalHeader{}, false
	}
	return journalHeader{
		seq: le.Uint64(b[8:]), salt: le.Uint64(b[16:]), firstGroup: le.Uint64(b[24:]),
		prevSeq: le.Uint64(b[32:]), prevEnd: int64(le.Uint64(b[40:])),
	}, true
}

// journalPos is a place in the journal: the first byte that is not covered.
type journalPos struct {
	fileSeq  uint64
	pos      int64  // 0: the file is not begun
	groupSeq uint64 // of the group that comes there
}

type journalFile struct {
	name string
	f    vfs.File
	seq  uint64
	salt uint64
	size int64 // written before, so that a sync changes no metadata
	pos  int64 // of the next group
	bad  bool  // met an I/O error: not used again
}

// journalFiles keeps journal files written over their whole length ahead of
// their use, and takes them back behind the checkpoint.
type journalFiles struct {
	t *Tier

	mu        sync.Mutex
	cond      sync.Cond
	free      []*journalFile
	live      []*journalFile // in order; the last is being written
	liveBytes int64
	wanted    bool  // the preparer shall make a file
	urgent    bool  // next waits for it
	err       error // why it could not
	stuck     bool  // no checkpoint will come
	closing   bool

	number   int64 // of the next file's name
	nextSize int64
	nextSeq  uint64
	prev     journalPos // end of the file before the next one
	direct   bool
}

func (p *journalFiles) dir() string { return path.Join(p.t.c.Dir, "journal") }

func (p *journalFiles) open(name string, mode vfs.Mode) (vfs.File, error) {
	full := path.Join(p.dir(), name)
	if p.direct {
		f, err := p.t.fs.Open(full, mode|vfs.Direct)
		if !errors.Is(err, vfs.ErrUnsupported) {
			return f, err
		}
		p.t.log.Info("the file system refuses O_DIRECT, the journal goes through the page cache", zap.String("file", full))
		p.direct = false
	}
	return p.t.fs.Open(full, mode)
}

// next returns a file for the group with number groupSeq to begin, its header
// written but not synced: the sync of that group covers both. It waits for
// a file to be prepared, and for a checkpoint if the journal is full.
func (p *journalFiles) next(groupSeq uint64) (*journalFile, error) {
	p.mu.Lock()
	for p.liveBytes+p.t.c.JournalFileBytes > p.t.c.MaxJournalBytes && len(p.live) > 1 {
		if p.stuck {
			p.mu.Unlock()
			return nil, fmt.Errorf("%w: the journal is full", errBacklogStuck)
		}
		p.mu.Unlock()
		p.t.behind.demandCheckpoint()
		p.mu.Lock()
		if p.liveBytes+p.t.c.JournalFileBytes > p.t.c.MaxJournalBytes && len(p.live) > 1 && !p.stuck {
			p.cond.Wait()
		}
	}
	for len(p.free) == 0 {
		p.wanted, p.urgent, p.err = true, true, nil
		p.cond.Broadcast()
		for len(p.free) == 0 && p.err == nil {
			p.cond.Wait()
		}
		if p.err != nil {
			err := p.err
			p.mu.Unlock()
			return nil, err
		}
	}
	f := p.free[0]
	p.free = p.free[1:]
	p.wanted = len(p.free) == 0
	p.cond.Broadcast()
	f.seq = p.nextSeq
	p.nextSeq++ // even if the header cannot be written: half of it may be
	h := journalHeader{seq: f.seq, firstGroup: groupSeq, prevSeq: p.prev.fileSeq, prevEnd: p.prev.pos}
	for _, before := range slices.Backward(p.live) {
		// The header of one whose first group failed may not be there after a crash.
		if before.pos > firstGroupPos {
			h.prevSeq, h.prevEnd = before.seq, before.pos
			break
		}
	}
	p.mu.Unlock()

	var salt [8]byte
	_, _ = rand.Read(salt[:]) // never fails
	f.salt = le.Uint64(salt[:])
	h.salt = f.salt
	b, err := allocAligned(journalFileHeaderBytes)
	if err == nil {
		h.put(b)
		_, err = f.f.WriteAt(b, 0)
		freeAligned(b)
	}
	if err != nil {
		p.discard(f)
		return nil, fmt.Errorf("begin journal file %s: %w", f.name, err)
	}
	f.pos = firstGroupPos
	p.mu.Lock()
	p.live = append(p.live, f)
	p.liveBytes += f.size
	p.mu.Unlock()
	return f, nil
}

// grown takes note that a group longer than the file has made it longer.
func (p *journalFiles) grown(f *journalFile) {
	p.mu.Lock()
	p.liveBytes += f.pos - f.size
	f.size = f.pos
	p.mu.Unlock()
}

// abandon says that f met an I/O error.
func (p *journalFiles) abandon(f *journalFile) {
	p.mu.Lock()
	f.bad = true
	p.mu.Unlock()
}

// maxFree is how many files wait for use.
const maxFree = 3

// recycle takes back the files before the checkpoint.
func (p *journalFiles) recycle(cp journalPos) {
	var drop []*journalFile
	p.mu.Lock()
	for len(p.live) > 0 && p.live[0].seq < cp.fileSeq {
		f := p.live[0]
		p.live = p.live[1:]
		p.liveBytes -= f.size
		if f.pos > firstGroupPos {
			p.prev = journalPos{fileSeq: f.seq, pos: f.pos}
		}
		if f.bad || f.size > 2*p.t.c.JournalFileBytes {
			drop = append(drop, f)
		} else {
			p.free = append(p.free, f)
		}
	}
	if len(p.free) > maxFree {
		slices.SortStableFunc(p.free, func(a, b *journalFile) int { return cmp.Compare(b.size, a.size) })
		drop = append(drop, p.free[maxFree:]...)
		p.free = p.free[:maxFree]
	}
	p.cond.Broadcast()
	p.mu.Unlock()
	for _, f := range drop {
		p.discard(f)
	}
}

func (p *journalFiles) discard(f *journalFile) {
	if err := errors.Join(f.f.Close(), p.t.fs.Remove(path.Join(p.dir(), f.name))); err != nil {
		p.t.log.Warn("cannot remove a journal file that is of no use any more", zap.Error(err))
	}
}

// giveUp makes next fail instead of wait for a checkpoint while stuck is true.
func (p *journalFiles) giveUp(stuck bool) {
	p.mu.Lock()
	p.stuck = stuck
	p.cond.Broadcast()
	p.mu.Unlock()
}

// prepare makes files when next wants them, until stop.
func (p *journalFiles) prepare() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for !p.wanted && !p.closing {
			p.cond.Wait()
		}
		if p.closing {
			return
		}
		size, urgent := p.nextSize, p.urgent
		p.mu.Unlock()
		f, err := p.make(size, urgent)
		p.mu.Lock()
		if err != nil && p.urgent && !urgent {
			continue // with the reserve, since someone waits now
		}
		p.wanted, p.urgent = false, false
		if err != nil {
			p.err = err
		} else {
			p.free = append(p.free, f)
			p.nextSize = min(2*size, p.t.c.JournalFileBytes)
		}
		p.cond.Broadcast()
	}
}

func (p *journalFiles) stop() {
	p.mu.Lock()
	p.closing = true
	p.cond.Broadcast()
	p.mu.Unlock()
}

// make creates a file and writes it with zeros: a file that was only allocated
// would change its extents, and so the file system's own journal, at every sync.
// An urgent one may use the reserve: it takes seals and deletions when appends
// are refused already.
func (p *journalFiles) make(size int64, urgent bool) (*journalFile, error) {
	free, err := p.t.fs.FreeBytes(p.t.c.Dir)
	if err != nil {
		return nil, fmt.Errorf("prepare a journal file: %w", err)
	}
	if free < size || !urgent && free-size < p.t.c.MinFreeBytes {
		return nil, fmt.Errorf("prepare a journal file of %d bytes, %d are free: %w", size, free, ledger.ErrNoSpace)
	}
	name := fmt.Sprintf("%06d%s", p.number, journalSuffix)
	p.number++
	f, err := p.open(name, vfs.Write|vfs.Create|vfs.Exclusive)
	if err != nil {
		return nil, fmt.Errorf("prepare a journal file: %w", err)
	}
	jf := &journalFile{name: name, f: f, size: size}
	if err = zeroFill(f, size); err == nil {
		err = f.SyncData()
	}
	if err == nil {
		err = p.t.fs.SyncDir(p.dir())
	}
	if err != nil {
		p.discard(jf)
		return nil, fmt.Errorf("prepare a journal file: %w", err)
	}
	return jf, nil
}

func zeroFill(f vfs.File, size int64) error {
	z, err := allocAligned(int(min(size, 1<<20)))
	if err != nil {
		return err
	}
	defer freeAligned(z)
	if err := f.Preallocate(0, size); err != nil && !errors.Is(err, vfs.ErrUnsupported) {
		return err
	}
	for off := int64(0); off < size; off += int64(len(z)) {
		if _, err := f.WriteAt(z[:min(int64(len(z)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// closeAll closes the files; they stay where they are.
func (p *journalFiles) closeAll() error {
	var errs []error
	for _, f := range append(p.live, p.free...) {
		errs = append(errs, f.f.Close())
	}
	p.live, p.free = nil, nil
	return errors.Join(errs...)
}

func journalNumber(name string) (int64, bool) {
	s, ok := strings.CutSuffix(name, journalSuffix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 63)
	return n, err == nil && n > 0
}
