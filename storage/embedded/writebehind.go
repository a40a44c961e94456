package embedded

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/vfs"
)

// writeBehind moves acknowledged runs from the backlog into ledger files and
// makes checkpoints. One goroutine does both, so a checkpoint needs no lock
// against writes: it takes note of the journal's position, writes what the
// journal holds up to there, syncs, and records the position.
//
// A ledger's runs wait until FlushBytes of them have come together, until the
// backlog's memory is half used, or until the next checkpoint. Few long writes
// cost a third of the CPU of many short ones, and may bypass the page cache.
type writeBehind struct {
	t    *Tier
	wake chan struct{}
	quit chan struct{}

	mu       sync.Mutex
	list     []*ledgerState // with runs in the backlog
	hot      []*ledgerState // of these, with FlushBytes or more
	at       journalPos     // runs up to here are in the backlog or in files
	bytes    int64          // of the journal since the last checkpoint
	since    time.Time      // when the first of them came
	pressed  bool
	demanded bool

	// The goroutine's own.
	done     journalPos // of the last checkpoint
	unsynced []*ledgerState
	dirDirty bool
	pieces   [][]byte
	vec      [][]byte
	block    []byte // aligned, for direct writes
	noDirect bool
	took     time.Duration // by the last checkpoint
	retryAt  time.Time     // after an error that passes
	stuck    bool
	failed   error
}

// signal wakes the goroutine; it never blocks.
func (w *writeBehind) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// handOver tells of ledgers that got runs, up to at in the journal.
func (w *writeBehind) handOver(ls []*ledgerState, at journalPos, bytes int64) {
	wake := false
	w.mu.Lock()
	for _, l := range ls {
		if !l.listed {
			l.listed = true
			w.list = append(w.list, l)
		}
		if !l.hot {
			l.mu.Lock()
			hot := l.backlog >= w.t.c.FlushBytes
			l.mu.Unlock()
			if hot {
				l.hot = true
				w.hot = append(w.hot, l)
				wake = true
			}
		}
	}
	w.at = at
	if w.bytes == 0 {
		w.since = time.Now()
		wake = true
	}
	before := w.bytes
	w.bytes += bytes
	if before < w.t.c.CheckpointBytes && w.bytes >= w.t.c.CheckpointBytes {
		wake = true
	}
	w.mu.Unlock()
	if wake {
		w.signal()
	}
}

func (w *writeBehind) press() {
	w.mu.Lock()
	w.pressed = true
	w.mu.Unlock()
	w.signal()
}

func (w *writeBehind) demandCheckpoint() {
	w.mu.Lock()
	w.demanded = true
	w.mu.Unlock()
	w.signal()
}

// spaceRetry is how long the write-behind waits after an error that passes.
const spaceRetry = 100 * time.Millisecond

func (w *writeBehind) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-w.wake:
		case <-timer.C:
		case <-w.quit:
			return
		}
		timer.Reset(w.step(time.Now()))
	}
}

// step does what is due and returns when to come again.
func (w *writeBehind) step(now time.Time) time.Duration {
	if w.failed != nil {
		return time.Hour
	}
	if wait := w.retryAt.Sub(now); w.stuck && wait > 0 {
		return wait
	}
	// A checkpoint takes no more than a tenth of the time, unless the journal grows.
	interval := max(w.t.c.CheckpointInterval, 10*w.took)
	w.mu.Lock()
	hot := w.hot
	w.hot = nil
	for _, l := range hot {
		l.hot = false
	}
	all := w.pressed
	w.pressed = false
	due := w.demanded || w.bytes >= w.t.c.CheckpointBytes || w.bytes > 0 && now.Sub(w.since) >= interval
	wait := time.Hour
	if w.bytes > 0 {
		wait = max(interval-now.Sub(w.since), time.Millisecond)
	}
	w.mu.Unlock()

	var err error
	switch {
	case due:
		err = w.checkpoint()
		wait = interval
	case all && w.t.chunks.pressing():
		err = w.flushAll()
	default: // flushAll takes the hot ones too
		for _, l := range hot {
			err = errors.Join(err, w.flush(l, false))
		}
	}
	return w.judge(err, wait)
}

// judge decides what an error means: what passes is tried again and the
// journal refuses appends meanwhile; anything else stops the journal, because
// what was acknowledged is then only there, and a later sync may hide the loss.
func (w *writeBehind) judge(err error, wait time.Duration) time.Duration {
	switch {
	case err == nil:
		if w.stuck {
			w.t.log.Info("ledger files can be written again")
			w.setStuck(false)
		}
		return wait
	case passes(err):
		if !w.stuck {
			w.t.log.Warn("ledger files cannot be written for now, appends are refused", zap.Error(err))
			w.setStuck(true)
		}
		w.retryAt = time.Now().Add(spaceRetry)
		w.demandCheckpoint()
		return spaceRetry
	default:
		w.failed = fmt.Errorf("ledger file: %w (%w)", ledger.ErrFailed, err)
		w.t.fail(w.failed)
		w.setStuck(true)
		return time.Hour
	}
}

func (w *writeBehind) setStuck(stuck bool) {
	w.stuck = stuck
	w.t.stuck.Store(stuck)
	w.t.chunks.giveUp(stuck)
	w.t.journal.files.giveUp(stuck)
}

// flushAll writes the whole backlog.
func (w *writeBehind) flushAll() error {
	w.mu.Lock()
	list := w.list
	w.list = nil
	for _, l := range list {
		l.listed = false
	}
	w.mu.Unlock()
	var errs []error
	for i, l := range list {
		if err := w.flush(l, true); err != nil {
			errs = append(errs, err)
			w.mu.Lock()
			for _, l := range list[i:] {
				if !l.listed {
					l.listed = true
					w.list = append(w.list, l)
				}
			}
			w.mu.Unlock()
			break
		}
	}
	return errors.Join(errs...)
}

// flush writes the runs of l to its file. Unless all is set it may leave less
// than a block for the next time.
func (w *writeBehind) flush(l *ledgerState, all bool) error {
	l.mu.Lock()
	r, left := l.firstRun, l.backlog
	l.mu.Unlock()
	// What comes meanwhile waits for the next flush, so that this one ends.
	for r != nil && left >= 0 {
		n, err := w.flushSome(l, r, all)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		l.mu.Lock()
		for range n {
			next := r.next
			l.firstRun = next
			l.backlog -= int64(len(r.b))
			left -= max(1, int64(len(r.b)))
			if next == nil {
				l.lastRun = nil
			}
			if r.kind == runEntries {
				l.flushed = r.after.end
				l.fileIndex = r.after.indexPos
			} else if r.kind == runCreate {
				l.flushed = int64(len(r.b))
			}
			r.c.release()
			r.free()
			r = next
		}
		l.mu.Unlock()
	}
	if err := w.t.cache.evict(true); err != nil {
		return errSyncFailed(err)
	}
	return nil
}

// flushSome writes r and what can be written with it; it returns how many runs
// are in the file entirely.
func (w *writeBehind) flushSome(l *ledgerState, r *run, all bool) (int, error) {
	if r.kind == runDelete {
		w.t.cache.drop(l.id)
		if err := w.t.fs.Remove(w.t.ledgerName(l.id)); err != nil && !errors.Is(notFound(l.id, err), ledger.ErrNotFound) {
			return 0, err
		}
		w.dirDirty = true
		w.t.forget(l)
		return 1, nil
	}
	// What a deletion follows need not be written.
	l.mu.Lock()
	deleted := l.deleted
	l.mu.Unlock()
	if deleted {
		return 1, nil
	}
	f, err := w.t.cache.get(l.id, r.kind == runCreate)
	if err != nil {
		return 0, err
	}
	defer f.release()
	w.touch(l, f)
	switch r.kind {
	case runCreate:
		w.dirDirty = true
		_, err = f.WriteAt(r.b, 0)
		return 1, err
	case runSeal:
		return 1, w.writeFooter(l, f, r.after)
	}
	return w.writeEntries(l, f, r, all)
}

const (
	// maxVecRuns bounds the slices of one write.
	maxVecRuns = 256
	// directMin is from how many bytes on a direct write is worth its copy.
	directMin = 64 << 10
	// directBytes is the memory for one direct write.
	directBytes = 1 << 20
)

// writeEntries writes r and the entry runs behind it from where the last write
// ended, l.written, which may lie within r.
//
// Many bytes bypass the page cache: new pages for them cost more than the rest
// of the way to the disk, and writing them back disturbs the journal. A direct
// write takes whole blocks from aligned memory, so the blocks are put together in
// w.block; the bytes up to the first whole block, and with all those behind the
// last, are written the common way.
func (w *writeBehind) writeEntries(l *ledgerState, f *openFile, r *run, all bool) (int, error) {
	l.written = max(l.written, r.pos)
	pieces := w.pieces[:0]
	end := r.pos
	l.mu.Lock()
	for q := r; q != nil && q.kind == runEntries && len(pieces) < maxVecRuns; q = q.next {
		b := q.b
		if skip := l.written - q.pos; skip > 0 {
			b = b[min(skip, int64(len(b))):]
		}
		pieces = append(pieces, b)
		end = q.pos + int64(len(q.b))
	}
	l.mu.Unlock()
	count := len(pieces)
	w.pieces = pieces
	defer func() { clear(w.pieces[:count]) }()

	from := (l.written + vfs.BlockBytes - 1) &^ (vfs.BlockBytes - 1)
	to := end &^ (vfs.BlockBytes - 1)
	least := min(directMin, max(w.t.c.FlushBytes/2, vfs.BlockBytes))
	switch {
	case to-from >= least && w.direct(f) != nil:
		if err := w.writeCached(l, f, &pieces, from); err != nil {
			return 0, err
		}
		for l.written < to {
			n := int(min(to-l.written, int64(len(w.block))))
			gather(w.block[:n], &pieces)
			if _, err := f.direct.WriteAt(w.block[:n], l.written); err != nil {
				return 0, err
			}
			l.written += int64(n)
		}
		if !all {
			end = to
		}
	case !all && !w.noDirect && end-l.written < w.t.c.FlushBytes:
		end = l.written // what a direct write left over
	}
	if err := w.writeCached(l, f, &pieces, end); err != nil {
		return 0, err
	}
	n := 0
	l.mu.Lock()
	for q := r; n < count && q.pos+int64(len(q.b)) <= l.written; q = q.next {
		n++
	}
	l.mu.Unlock()
	return n, nil
}

// writeCached writes the pieces up to end through the page cache.
func (w *writeBehind) writeCached(l *ledgerState, f *openFile, pieces *[][]byte, end int64) error {
	n := end - l.written
	if n <= 0 {
		return nil
	}
	vec := w.vec[:0]
	for left := n; left > 0; {
		b := (*pieces)[0]
		if int64(len(b)) > left {
			vec = append(vec, b[:left])
			(*pieces)[0] = b[left:]
			break
		}
		vec = append(vec, b)
		left -= int64(len(b))
		*pieces = (*pieces)[1:]
	}
	w.vec = vec
	var err error
	if len(vec) == 1 {
		_, err = f.WriteAt(vec[0], l.written)
	} else {
		err = f.WriteVec(vec, l.written)
	}
	clear(w.vec)
	if err != nil {
		return err
	}
	if n >= directMin {
		f.StartWriteback(l.written, n)
	}
	l.written = end
	return nil
}

// gather fills b from the pieces and takes what it took from them.
func gather(b []byte, pieces *[][]byte) {
	for len(b) > 0 {
		p := (*pieces)[0]
		n := copy(b, p)
		b = b[n:]
		if n < len(p) {
			(*pieces)[0] = p[n:]
		} else {
			*pieces = (*pieces)[1:]
		}
	}
}

// direct returns the second handle of f, for direct writes; nil if the file
// system has none.
func (w *writeBehind) direct(f *openFile) vfs.File {
	if f.direct != nil || w.noDirect {
		return f.direct
	}
	if w.block == nil {
		b, err := allocAligned(directBytes)
		if err != nil {
			w.noDirect = true
			return nil
		}
		w.block = b
	}
	d, err := w.t.fs.Open(w.t.ledgerName(f.id), vfs.Write|vfs.Direct)
	if err != nil {
		w.noDirect = errors.Is(err, vfs.ErrUnsupported)
		return nil
	}
	f.direct = d
	return d
}

func (w *writeBehind) touch(l *ledgerState, f *openFile) {
	if !l.unsynced {
		l.unsynced = true
		w.unsynced = append(w.unsynced, l)
		w.t.hold(l)
	}
	w.t.cache.setDirty(f, true)
}

// writeFooter ends the file of a sealed ledger.
func (w *writeBehind) writeFooter(l *ledgerState, f *openFile, t tail) error {
	l.mu.Lock()
	idx := l.index[:t.indexLen:t.indexLen]
	l.mu.Unlock()
	if _, err := f.WriteAt(makeFooter(l.id, t.next-1, t.bytes, idx), t.end); err != nil {
		return err
	}
	l.fileIndex, l.slotIndex = t.indexPos, t.indexPos
	s := slot{sealed: true, indexPos: t.indexPos, footerPos: t.end, lastEntry: t.next - 1, bytes: t.bytes}
	return putSlot(f, s)
}

func putSlot(f *openFile, s slot) error {
	b := make([]byte, slotBytes)
	s.put(b)
	_, err := f.WriteAt(b, slotPos)
	return err
}

// errSyncFailed hides what a sync failed with: even a full disk cannot be waited
// out then, because the system has dropped the bytes. A lack of descriptors is not of
// the sync: the folder was not opened.
func errSyncFailed(err error) error {
	if passes(err) && !noSpace(err) {
		return fmt.Errorf("sync: %w", err)
	}
	return fmt.Errorf("sync: %v", err)
}

// manyFiles is from how many files on one sync of the file system is cheaper.
const manyFiles = 64

// checkpoint makes everything the journal holds durable in ledger files,
// records that, and gives the journal files back. On return with an error
// nothing is recorded and the journal keeps all.
func (w *writeBehind) checkpoint() error {
	start := time.Now()
	w.mu.Lock()
	at, bytes := w.at, w.bytes
	w.bytes, w.demanded = 0, false
	w.mu.Unlock()
	restore := func(err error) error {
		w.mu.Lock()
		if w.bytes == 0 {
			w.since = start
		}
		w.bytes += bytes
		w.mu.Unlock()
		return err
	}
	if err := w.flushAll(); err != nil {
		return restore(err)
	}
	if at == w.done {
		return nil
	}
	if err := w.syncLedgers(); err != nil {
		return restore(err)
	}
	if err := w.t.checkpoints.write(checkpointRecord{at: at, nextID: w.t.nextID.Load()}); err != nil {
		return restore(err)
	}
	w.done = at
	w.t.journal.files.recycle(at)
	for _, l := range w.unsynced {
		l.unsynced = false
		w.t.release(l)
	}
	clear(w.unsynced)
	w.unsynced = w.unsynced[:0]
	w.mu.Lock()
	quiet := w.bytes == 0
	w.mu.Unlock()
	if quiet {
		w.t.chunks.trim(idleChunks)
	}
	w.took = time.Since(start)
	w.t.metrics.checkpointSeconds.Observe(w.took.Seconds())
	return nil
}

// syncLedgers makes the files written since the last checkpoint durable.
func (w *writeBehind) syncLedgers() error {
	for _, l := range w.unsynced {
		if err := w.noteIndex(l); err != nil {
			return err
		}
	}
	c := &w.t.cache
	c.mu.Lock()
	all := w.t.syncer != nil && (c.closedDirty || len(w.unsynced) > manyFiles)
	c.closedDirty = false
	c.mu.Unlock()
	if all {
		if err := w.t.syncer.SyncAll(); err != nil {
			return errSyncFailed(err)
		}
	}
	for _, l := range w.unsynced {
		f := c.dirtyFile(l.id)
		if f == nil {
			continue
		}
		var err error
		if !all {
			err = f.SyncData()
		}
		f.release()
		if err != nil {
			return errSyncFailed(err)
		}
	}
	if w.dirDirty && !all {
		if err := w.t.fs.SyncDir(w.t.ledgerDir()); err != nil {
			return errSyncFailed(err)
		}
	}
	w.dirDirty = false
	return nil
}

// noteIndex lets the header of an unsealed ledger name its last index frame.
func (w *writeBehind) noteIndex(l *ledgerState) error {
	if l.fileIndex == l.slotIndex {
		return nil
	}
	f, err := w.t.cache.get(l.id, false)
	if err != nil {
		if errors.Is(err, ledger.ErrNotFound) {
			return nil // deleted since
		}
		return err
	}
	defer f.release()
	w.t.cache.setDirty(f, true)
	if err := putSlot(f, slot{indexPos: l.fileIndex, lastEntry: ledger.NoEntry}); err != nil {
		return err
	}
	l.slotIndex = l.fileIndex
	return nil
}
