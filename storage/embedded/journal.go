package embedded

import (
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/ledger"
)

var (
	errLowSpace     = fmt.Errorf("%w: the disk is nearly full", ledger.ErrNoSpace)
	errQueueFull    = fmt.Errorf("%w: the journal's queue or the disk is full", ledger.ErrNoSpace)
	errBacklogStuck = fmt.Errorf("%w: ledger files cannot be written", ledger.ErrNoSpace)
)

// journal makes appends durable. One goroutine takes what is queued, lays it
// out as a group, writes and syncs it, and completes it; while it syncs, the
// next group queues up. Nobody waits for company: the sync before is the window
// in which a group gathers.
type journal struct {
	t     *Tier
	files *journalFiles

	// queueBytes is bounded by Config.MaxQueueBytes.
	queueBytes atomic.Int64

	mu        sync.Mutex
	cond      sync.Cond
	firstRead *ledgerState // ledgers with something queued, in order
	lastRead  *ledgerState
	parked    bool
	closing   bool
	closed    bool

	// The journal goroutine's own.
	chunk    *chunk
	group    group
	file     *journalFile // nil: the next group needs one
	groupSeq uint64       // of the next group
	failures int          // in a row
	space    spaceGauge
}

// group is the group under construction. There is one, used again and again.
type group struct {
	c     *chunk
	start int // in c.b
	n     int // bytes so far, header included
	limit int
	chain uint32
	runs  []*run
	done  []completion
	moved []*ledgerState // that got runs acknowledged
}

// completion is a chain of appends of one ledger with one outcome.
type completion struct {
	l     *ledgerState
	head  *ledger.Append
	n     int
	first int64 // id of the first entry
	err   error
	ours  bool // the outcome is that of the group
}

func (j *journal) reserve(n int64) bool {
	if j.queueBytes.Add(n) <= j.t.c.MaxQueueBytes {
		return true
	}
	j.queueBytes.Add(-n)
	return false
}

// ready puts l on the list of ledgers that have something queued.
func (j *journal) ready(l *ledgerState) {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		// The journal goroutine has gone, and callers must not be called back
		// from within Append. The goroutine ends when the queue is empty.
		go j.refuseAll(l)
		return
	}
	l.nextReady = nil
	if j.lastRead == nil {
		j.firstRead = l
	} else {
		j.lastRead.nextReady = l
	}
	j.lastRead = l
	if j.parked {
		j.parked = false
		j.cond.Signal()
	}
	j.mu.Unlock()
}

func (j *journal) refuseAll(l *ledgerState) {
	for {
		l.mu.Lock()
		a := l.head
		l.head, l.last = nil, nil
		if a == nil {
			l.inQueue = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		for a != nil {
			next := a.Next
			a.Next = nil
			doomed := a.Entry == entryDoomed
			if _, ok := a.Done.(*control); !ok && !doomed {
				j.queueBytes.Add(-int64(len(a.Head) + len(a.Body)))
			}
			a.Done.Appended(a, fmt.Errorf("ledger %d: %w", l.id, ledger.ErrClosed))
			if doomed {
				l.mu.Lock()
				l.doomed--
				l.mu.Unlock()
			}
			a = next
		}
	}
}

func (j *journal) pop() *ledgerState {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.firstRead
	if l != nil {
		j.firstRead = l.nextReady
		l.nextReady = nil
		if j.firstRead == nil {
			j.lastRead = nil
		}
	}
	return l
}

// wait parks until something is queued; false when the journal is closed and empty.
func (j *journal) wait() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.firstRead == nil {
		if j.closing {
			j.closed = true
			return false
		}
		j.parked = true
		j.cond.Wait()
	}
	j.parked = false
	return true
}

func (j *journal) run() {
	for j.wait() {
		j.build()
		var err error
		if len(j.group.runs) > 0 {
			err = j.commit()
		}
		j.finish(err)
		// The loops that the acknowledgements woke go first: what they bring
		// joins the next group. Without it groups are smaller, and a busy
		// partition of 16 KB batches took 7 % longer and 11 % more CPU time.
		runtime.Gosched()
	}
	if j.chunk != nil {
		j.chunk.release()
		j.chunk = nil
	}
}

// build lays out the next group.
func (j *journal) build() {
	g := &j.group
	g.c, g.n, g.chain = nil, 0, 0
	refuse := j.space.refuses(j.t)
	for {
		l := j.pop()
		if l == nil {
			return
		}
		full := j.take(l, refuse)
		l.mu.Lock()
		more := l.work != nil || l.head != nil
		l.inQueue = more
		l.mu.Unlock()
		if more {
			j.ready(l)
		}
		if full {
			return
		}
	}
}

// take moves what l has queued into the group; true when the group is full.
func (j *journal) take(l *ledgerState, refuse error) (full bool) {
	failure := j.t.failure()
	switch {
	case failure != nil:
		refuse = failure
		if l.ended == nil {
			l.ended = fmt.Errorf("ledger %d: %w", l.id, failure)
		}
	case refuse != nil:
		l.doomQueued()
	}
	if l.work == nil {
		l.mu.Lock()
		l.work = l.head
		l.head, l.last = nil, nil
		l.mu.Unlock()
	}
	g := &j.group
	var taken int64
	defer func() { j.queueBytes.Add(-taken) }()
	for l.work != nil && !full {
		a := l.work
		if c, ok := a.Done.(*control); ok {
			if full = !j.takeControl(l, c, refuse, failure); !full {
				l.work = a.Next
			}
			continue
		}
		done := completion{l: l, head: a, err: l.ended}
		switch {
		case l.ended == nil && a.Entry == entryDoomed:
			if done.err = refuse; refuse == nil {
				done.err = errQueueFull
			}
			fallthrough
		case l.ended != nil:
			doomed := a.Entry == entryDoomed
			for a != nil && (a.Entry == entryDoomed) == doomed {
				if _, ok := a.Done.(*control); ok {
					break
				}
				if !doomed {
					taken += int64(len(a.Head) + len(a.Body))
				}
				done.n++
				a = a.Next
			}
			l.work = a
		default:
			done.ours = true
			var bytes int64
			done.first = l.tail.next
			done.n, bytes, full = j.layOut(l)
			taken += bytes
			if done.n == 0 {
				continue
			}
		}
		g.done = append(g.done, done)
	}
	return full
}

// fits makes room for n bytes in the group, which begins with the first call.
func (j *journal) fits(n int) bool {
	g := &j.group
	if g.c != nil {
		return g.n+n <= g.limit
	}
	n += groupHeaderBytes
	if j.chunk == nil || len(j.chunk.b)-j.chunk.used < max(n, j.t.c.MaxGroupBytes/4) {
		if j.chunk != nil {
			j.chunk.release()
		}
		var err error
		if j.chunk, err = j.t.chunks.get(n); err != nil {
			j.chunk = nil
			g.c, g.limit = nil, 0
			return false
		}
	}
	g.c = j.chunk
	g.start = g.c.used
	g.n = groupHeaderBytes
	g.limit = max(n, min(j.t.c.MaxGroupBytes, len(g.c.b)-g.start))
	return true
}

// layOut copies appends from l.work into the group as one run, until the group
// is full or something else than a plain append comes.
func (j *journal) layOut(l *ledgerState) (n int, bytes int64, full bool) {
	g := &j.group
	t := &l.tail
	a := l.work
	size := len(a.Head) + len(a.Body)
	if size > maxEntryBytes || len(a.Head) > ledger.MaxHead {
		l.ended = fmt.Errorf("ledger %d: entry of %d bytes exceeds %d: %w", l.id, size, maxEntryBytes, ledger.ErrFailed)
		return 0, 0, false
	}
	need := runHeaderBytes + frameHeaderBytes + size
	index := 0
	if t.end-t.indexPos >= j.t.c.indexFrameEvery && t.indexLen > t.sinceIdx {
		index = frameHeaderBytes + indexFrameFixed + 16*(t.indexLen-t.sinceIdx)
	}
	if !j.fits(need + index) {
		if g.c == nil {
			// No memory for the backlog will come: the disk is full.
			l.doomQueued()
			return 0, 0, false
		}
		return 0, 0, true
	}
	r := runs.Get().(*run)
	*r = run{l: l, kind: runEntries, first: t.next, pos: t.end, c: g.c, before: *t, off: g.n}
	b := g.c.b[g.start:]
	off := g.n + runHeaderBytes
	body := off
	// The journal alone changes l.index, so it needs l.mu only to do that, and
	// never keeps an appender waiting for a copy.
	if index > 0 {
		putIndexFrame(b[off:], l.id, t.next-1, t.indexPos, t.bytes, l.index[t.sinceIdx:t.indexLen])
		g.chain = crc32.Update(g.chain, castagnoli, b[off:off+frameHeaderBytes])
		t.indexPos, t.sinceIdx = t.end, t.indexLen
		t.end += int64(index)
		off += index
	}
	for a != nil && a.Entry != entryDoomed {
		if _, ok := a.Done.(*control); ok {
			break
		}
		size = len(a.Head) + len(a.Body)
		end := off + frameHeaderBytes + size
		if end > g.limit && r.count > 0 {
			full = true
			break
		}
		if size > maxEntryBytes || len(a.Head) > ledger.MaxHead {
			break
		}
		if t.end-t.lastNoted >= j.t.c.indexEvery || t.indexLen == 0 {
			l.mu.Lock()
			l.index = append(l.index[:t.indexLen], indexEntry{t.next, t.end})
			l.mu.Unlock()
			t.indexLen++
			t.lastNoted = t.end
		}
		f := b[off:end]
		copy(f[frameHeaderBytes:], a.Head)
		copy(f[frameHeaderBytes+len(a.Head):], a.Body)
		sealFrame(f, kindEntry, size, l.id, t.next)
		g.chain = crc32.Update(g.chain, castagnoli, f[:frameHeaderBytes])
		off = end
		t.next++
		t.end += int64(frameHeaderBytes + size)
		t.bytes += int64(size)
		bytes += int64(size)
		r.count++
		a = a.Next
	}
	l.work = a
	r.b = b[body:off]
	j.addRun(r)
	return r.count, bytes, full
}

// addRun writes the header of r before its body, which is in place already.
func (j *journal) addRun(r *run) {
	g := &j.group
	b := g.c.b[g.start+r.off:]
	h := runHeader{kind: r.kind, n: len(r.b), id: r.l.id, first: r.first, pos: r.pos, count: r.count}
	h.put(b)
	g.chain = crc32.Update(g.chain, castagnoli, b[:runHeaderBytes])
	g.n = r.off + runHeaderBytes + len(r.b)
	r.after = r.l.tail
	g.runs = append(g.runs, r)
}

// takeControl moves a control record into the group; false if the group is full.
// Lack of space refuses only what makes ledgers; failure refuses everything.
func (j *journal) takeControl(l *ledgerState, c *control, refuse, failure error) bool {
	g := &j.group
	done := completion{l: l, head: &c.Append, n: 1, first: ledger.NoEntry, err: failure}
	var body []byte
	then := l.ended
	t := l.tail
	switch c.kind {
	case runCreate:
		if failure == nil {
			done.err = refuse
		}
		body = c.body
		t.end = int64(len(body))
	case runSeal:
		gone := errors.Is(l.ended, ledger.ErrNotFound)
		if gone || c.owner && l.ended != nil && !errors.Is(l.ended, ledger.ErrSealed) {
			done.err = l.ended
			break
		}
		if c.then != nil && then == nil {
			then = c.then
		}
		if t.sealed && failure == nil {
			// Nothing to write, but the seal may be part of this very group.
			done.ours = true
			l.ended = then
			g.done = append(g.done, done)
			return true
		}
		body = le.AppendUint64(nil, uint64(t.bytes))
		t.sealed = true
	case runDelete:
		if errors.Is(l.ended, ledger.ErrNotFound) {
			done.ours = failure == nil
			g.done = append(g.done, done)
			return true
		}
		then = fmt.Errorf("ledger %d: %w", l.id, ledger.ErrNotFound)
	}
	if done.err != nil {
		g.done = append(g.done, done)
		return true
	}
	if !j.fits(runHeaderBytes + len(body)) {
		if g.c == nil {
			done.err = errBacklogStuck
			g.done = append(g.done, done)
			return true
		}
		return false
	}
	r := runs.Get().(*run)
	*r = run{l: l, kind: c.kind, first: t.next - 1, pos: t.end, c: g.c, before: l.tail, wasEnded: l.ended, off: g.n}
	if c.kind == runCreate {
		r.first, r.pos = 0, 0
	}
	off := g.start + r.off + runHeaderBytes
	r.b = g.c.b[off : off+copy(g.c.b[off:], body)]
	g.chain = crc32.Update(g.chain, castagnoli, r.b)
	l.tail = t
	l.ended = then
	done.ours = true
	g.done = append(g.done, done)
	j.addRun(r)
	return true
}

// errNotWritten marks errors of commit after which no byte of the group is in
// the journal, or none that a replay could take for it.
type errNotWritten struct{ error }

func (e errNotWritten) Unwrap() error { return e.error }

func noSpace(err error) bool {
	return errors.Is(err, ledger.ErrNoSpace) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// passes says of an error that nothing was written or lost by it, and that it goes away
// by itself: a full disk, or no descriptor for a file that is to be opened, which
// connections may have taken.
func passes(err error) bool {
	return noSpace(err) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// commit writes and syncs the group.
func (j *journal) commit() error {
	if err := j.t.failure(); err != nil {
		return err
	}
	g := &j.group
	n := alignUp(g.n)
	if j.file != nil && j.file.pos+int64(n) > j.file.size && j.file.pos > journalFileHeaderBytes {
		j.file = nil
	}
	if j.file == nil {
		f, err := j.files.next(j.groupSeq)
		if err != nil {
			if passes(err) {
				return errNotWritten{fmt.Errorf("journal: %w (%w)", ledger.ErrNoSpace, err)}
			}
			return j.broken(err)
		}
		j.file = f
	}
	f := j.file
	b := g.c.b[g.start : g.start+n]
	clear(b[g.n:])
	h := groupHeader{salt: f.salt, fileSeq: f.seq, groupSeq: j.groupSeq, pos: f.pos, length: g.n, runs: len(g.runs), chain: g.chain}
	h.put(b)
	if _, err := f.f.WriteAt(b, f.pos); err != nil {
		if noSpace(err) {
			// The next group is written over what there may be of this one. Its
			// crc does not match as long as a part is missing.
			return errNotWritten{fmt.Errorf("journal: %w (%w)", ledger.ErrNoSpace, err)}
		}
		return j.broken(err)
	}
	start := time.Now()
	if err := f.f.SyncData(); err != nil {
		return j.broken(err)
	}
	m := j.t.metrics
	m.fsyncSeconds.Observe(time.Since(start).Seconds())
	m.groupBytes.Observe(float64(g.n))
	m.journalBytes.Add(float64(n))
	f.pos += int64(n)
	if f.pos > f.size {
		j.files.grown(f)
	}
	g.c.used = g.start + n
	j.groupSeq++
	j.failures = 0
	j.space.wrote(int64(n))
	return nil
}

// broken handles a failed write or sync. It is unknown what of the group
// is durable, and a second sync would not tell. So the group is abandoned: its
// ledgers end, and the next group goes to another file, whose header says that
// the file before ends ahead of this group. If that fails too, the journal
// takes nothing more; all that was acknowledged is there for the next start.
func (j *journal) broken(err error) error {
	j.failures++
	j.t.metrics.journalFailures.Inc()
	j.t.log.Error("journal write failed, its ledgers end", zap.Error(err), zap.Int("failures in a row", j.failures))
	if j.file != nil {
		j.files.abandon(j.file)
		j.file = nil
	}
	err = fmt.Errorf("journal: %w (%w)", ledger.ErrFailed, err)
	if j.failures > 1 {
		j.t.fail(err)
	}
	return err
}

// finish publishes the outcome of the group and completes its appends in order.
func (j *journal) finish(err error) {
	g := &j.group
	switch {
	case len(g.runs) == 0:
	case err == nil:
		j.publish()
	default:
		j.undo(err)
	}
	for i := range g.done {
		d := &g.done[i]
		if d.ours {
			d.err = err
		}
		j.complete(d)
		*d = completion{}
	}
	g.done = g.done[:0]
	clear(g.runs)
	g.runs = g.runs[:0]
	clear(g.moved)
	g.moved = g.moved[:0]
}

func (j *journal) complete(d *completion) {
	a := d.head
	for i := range d.n {
		next := a.Next
		a.Next = nil
		doomed := a.Entry == entryDoomed
		a.Entry = d.first + int64(i)
		if d.err != nil {
			a.Entry = ledger.NoEntry
		}
		a.Done.Appended(a, d.err)
		if doomed {
			d.l.mu.Lock()
			d.l.doomed--
			d.l.mu.Unlock()
		}
		a = next
	}
}

func (j *journal) publish() {
	g := &j.group
	for _, r := range g.runs {
		l := r.l
		switch r.kind {
		case runCreate:
			j.t.count.Add(1)
		case runDelete:
			j.t.count.Add(-1)
		}
		g.moved = append(g.moved, l)
		r.c.retain()
		l.mu.Lock()
		if r.kind == runDelete {
			l.deleted = true
		} else {
			l.acked = r.after.next - 1
			l.ackedBytes = r.after.bytes
			l.sealed = r.after.sealed
		}
		if l.lastRun == nil {
			l.firstRun = r
		} else {
			l.lastRun.next = r
		}
		l.lastRun = r
		l.backlog += int64(len(r.b))
		l.mu.Unlock() // from here on r belongs to the write-behind
	}
	j.t.behind.handOver(g.moved, journalPos{fileSeq: j.file.seq, pos: j.file.pos, groupSeq: j.groupSeq}, int64(alignUp(g.n)))
}

func (j *journal) undo(err error) {
	g := &j.group
	var not errNotWritten
	stored := !errors.As(err, &not)
	for i := len(g.runs) - 1; i >= 0; i-- {
		r := g.runs[i]
		l := r.l
		l.tail = r.before
		if r.kind != runEntries {
			l.ended = r.wasEnded
		}
		l.mu.Lock()
		l.index = l.index[:min(len(l.index), r.before.indexLen)]
		l.mu.Unlock()
	}
	for _, r := range g.runs {
		if stored {
			if r.l.ended == nil {
				r.l.ended = fmt.Errorf("ledger %d: %w", r.l.id, err)
			}
		}
		r.free()
	}
	if stored {
		return
	}
	for i := range g.done {
		d := &g.done[i]
		if !d.ours {
			continue
		}
		d.l.mu.Lock()
		for a, n := d.head, d.n; n > 0; a, n = a.Next, n-1 {
			if _, ok := a.Done.(*control); !ok {
				a.Entry = entryDoomed
				d.l.doomed++
			}
		}
		d.l.mu.Unlock()
		d.l.doomQueued()
	}
}
