package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
)

// Isolation is what a reader may see.
type Isolation int8

// ReadUncommitted sees up to the high watermark, ReadCommitted up to the last stable offset.
const (
	ReadUncommitted Isolation = 0
	ReadCommitted   Isolation = 1
)

// Read asks for batches. In and out in one struct, so that a fetch over many
// partitions reuses its memory.
type Read struct {
	Offset    int64
	MaxBytes  int
	MinOne    bool // one whole batch even if it is larger than MaxBytes
	Isolation Isolation

	// Results.
	Records        [][]byte        // whole batches; the first holds Offset; read-only
	Bufs           []ledger.Buffer // owners of Records: Release them after sending
	Bytes          int             // sum of Records
	Aborted        []AbortedTxn    // of ReadCommitted, by first offset
	HighWatermark  int64           // -1 if the log is closed, as the next two
	LastStable     int64
	LogStartOffset int64
	Err            error
}

// AbortedTxn is an aborted transaction whose records lie in what was read.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset int64
}

const (
	// chunkBytes bounds one read from a ledger, and the least of it keeps small
	// fetches from reading entry by entry.
	maxChunkBytes = 1 << 20
	minChunkBytes = 64 << 10
	// maxChunks bounds the reads of one Read that go on after the first that
	// brought records: a log may have many small ledgers.
	maxChunks = 16
)

func (r *Read) reset() {
	clear(r.Records)
	clear(r.Bufs)
	r.Records, r.Bufs, r.Aborted = r.Records[:0], r.Bufs[:0], r.Aborted[:0]
	r.Bytes, r.Err = 0, nil
	r.HighWatermark, r.LastStable, r.LogStartOffset = -1, -1, -1
}

// fits says whether a batch of n bytes may be added.
func (r *Read) fits(n int) bool {
	return r.Bytes+n <= r.MaxBytes || len(r.Records) == 0 && r.MinOne
}

func (r *Read) add(b batch.Batch) {
	r.Records = append(r.Records, b)
	r.Bytes += len(b)
}

// ReadTail reads from memory only and never blocks. It returns false, and no
// records, if I/O is needed: call Read from a worker then. Errors, watermarks and
// empty results at the end of the log are answered here, but for an offset beyond
// the end where other nodes may have opened the log.
func (l *Log) ReadTail(r *Read) bool {
	r.reset()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store.c.Serves != nil && l.closed == nil && r.Offset > l.next {
		return false
	}
	_, answered := l.readTail(r)
	return answered
}

// readTail is ReadTail under l.mu; limit is where the reader's view ends.
func (l *Log) readTail(r *Read) (limit int64, answered bool) {
	if l.closed != nil {
		r.Err = l.closed
		return 0, true
	}
	r.HighWatermark, r.LastStable, r.LogStartOffset = l.hw, max(l.start, l.lastStable()), l.start
	limit = r.HighWatermark
	if r.Isolation == ReadCommitted {
		limit = r.LastStable
	}
	if r.Offset < l.start || r.Offset > l.next {
		r.Err = fmt.Errorf("log %s: %w: %d is not within [%d, %d]", logName(l.id), ErrOffsetOutOfRange, r.Offset, l.start, l.hw)
		return limit, true
	}
	if r.Offset >= limit || r.MaxBytes <= 0 && !r.MinOne {
		return limit, true
	}
	if l.tail.find(r.Offset) < 0 || r.Isolation == ReadCommitted && !l.abortedKnown(r.Offset) {
		return limit, false
	}
	end := l.takeTail(r, r.Offset, limit)
	l.addAborted(r, end)
	return limit, true
}

// prove returns nil if nobody has opened the log since this node did. It closes the log
// if somebody has.
func (l *Log) prove(ctx context.Context) error {
	kv, err := l.store.c.Meta.Get(ctx, l.store.chainKey(l.id))
	missing := errors.Is(err, meta.ErrNotFound)
	if err != nil && !missing {
		return fmt.Errorf("log %s: %w: %w", logName(l.id), ErrStorage, err)
	}
	var there recordHead
	if !missing {
		if there, err = decodeRecordHead(kv.Value); err != nil {
			return fmt.Errorf("log %s: %w: %w", logName(l.id), ErrStorage, err)
		}
	}
	l.mu.Lock()
	switch {
	case l.closed != nil:
	case missing && l.chain.rev != 0:
		l.end(errTopicDeleted)
	case !missing && there.owner != l.owner:
		l.fail(fmt.Errorf("log %s: %w: it was opened in epoch %d", logName(l.id), ErrLostOwnership, there.epoch))
	}
	err = l.closed
	done := l.settle()
	l.mu.Unlock()
	deliver(done)
	return err
}

// takeTail adds batches from the one that holds offset on and returns the
// offset after them. l.mu is held.
func (l *Log) takeTail(r *Read, offset, limit int64) (end int64) {
	end = offset
	before := r.Bytes
	i := l.tail.find(offset)
	if i < 0 {
		return end
	}
	for ; i < l.tail.n; i++ {
		e := l.tail.at(i)
		if e.base >= limit || !r.fits(len(e.b)) {
			break
		}
		r.add(e.b)
		if e.buf != nil {
			e.buf.Retain()
			r.Bufs = append(r.Bufs, e.buf)
		}
		end = e.end
	}
	l.store.metrics.fetchCache.Add(float64(r.Bytes - before))
	return end
}

// Read reads from wherever the batches lie. It may block.
func (l *Log) Read(ctx context.Context, r *Read) {
	r.reset()
	l.mu.Lock()
	limit, answered := l.readTail(r)
	beyond := r.Offset > l.next
	l.mu.Unlock()
	if answered && beyond && l.store.c.Serves != nil {
		// An owner that does not know yet that it was followed would send consumers
		// back to what it takes for the end.
		if err := l.prove(ctx); err != nil {
			r.reset()
			r.Err = err
		}
	}
	if answered {
		return
	}
	if r.Isolation == ReadCommitted {
		if err := l.loadAborted(ctx, r.Offset); err != nil {
			r.Err = err
			return
		}
	}
	offset := r.Offset
	for i := range maxChunks {
		next, more, err := l.readLedger(ctx, r, offset, limit)
		if i == 0 && errors.Is(err, ledger.ErrNotFound) && len(r.Records) == 0 {
			// It may have been moved to another tier: the chain tells.
			next, more, err = l.readLedger(ctx, r, offset, limit)
		}
		if err != nil {
			if len(r.Records) == 0 {
				r.Err = err
			}
			break
		}
		offset = next
		if !more || offset >= limit {
			break
		}
		l.mu.Lock()
		inTail := l.closed == nil && l.tail.find(offset) >= 0
		if inTail {
			offset = l.takeTail(r, offset, limit)
		}
		l.mu.Unlock()
		if inTail {
			break
		}
	}
	if r.Isolation == ReadCommitted && r.Err == nil {
		l.mu.Lock()
		l.addAborted(r, offset)
		l.mu.Unlock()
	}
}

// place is where to look for an offset.
type place struct {
	h     *handle
	link  link  // of a sealed ledger
	entry int64 // at or before the one that holds the offset, -1: ask the index
	last  int64 // last entry of a sealed ledger, -1: the reader knows
	end   int64 // offset after the ledger, -1: it takes appends
}

// cursor remembers where a reader of ledgers will go on.
type cursor struct {
	offset int64
	id     ledger.ID
	entry  int64
}

// cursors are those of the last few readers of one log.
type cursors struct {
	c    [4]cursor
	next int
}

// place finds offset. Release the handle. l.mu is held.
func (l *Log) place(offset int64) (p place, ok bool) {
	p = place{entry: -1, last: -1, end: -1}
	switch s := l.segmentOf(offset); {
	case s != nil:
		p.h = l.store.handles.get(s.id)
		p.entry = s.index.entryOf(offset)
		if s != l.seg {
			p.end = s.end
		}
	default:
		links := l.sealedLinks()
		i := sort.Search(len(links), func(i int) bool { return links[i].last >= offset })
		if i == len(links) {
			return p, false
		}
		p.link, p.last, p.end = links[i], links[i].lastEntry, links[i].last+1
		p.h = l.store.handles.get(p.link.id)
	}
	if l.cursors != nil {
		for _, c := range l.cursors.c {
			if c.id == p.h.id && c.offset == offset {
				p.entry = c.entry
			}
		}
	}
	return p, true
}

// segmentOf returns the ledger that is not sealed in the chain and holds offset. l.mu is held.
func (l *Log) segmentOf(offset int64) *segment {
	if l.seg != nil && offset >= l.seg.base {
		return l.seg
	}
	for _, s := range l.sealing {
		if offset >= s.base && offset < s.end {
			return s
		}
	}
	return nil
}

// sealedLinks returns the links whose bounds the chain knows. l.mu is held.
func (l *Log) sealedLinks() []link {
	n := len(l.chain.links)
	for n > 0 && !l.chain.links[n-1].sealed {
		n--
	}
	return l.chain.links[:n]
}

// remember keeps a cursor in the place of the one that led to it. l.mu is held.
func (l *Log) remember(from int64, c cursor) {
	if l.cursors == nil {
		l.cursors = new(cursors)
	}
	for i := range l.cursors.c {
		if old := &l.cursors.c[i]; old.id == c.id && old.offset == from {
			*old = c
			return
		}
	}
	l.cursors.c[l.cursors.next] = c
	l.cursors.next = (l.cursors.next + 1) % len(l.cursors.c)
}

// readLedger reads one chunk of batches from the ledger that holds offset and
// returns the offset after them; more says that there is room for further ones.
func (l *Log) readLedger(ctx context.Context, r *Read, offset, limit int64) (next int64, more bool, err error) {
	l.mu.Lock()
	p, ok := l.place(offset)
	closed := l.closed
	l.mu.Unlock()
	if closed != nil {
		if ok {
			l.store.handles.release(p.h)
		}
		return offset, false, closed
	}
	if !ok {
		return offset, false, fmt.Errorf("log %s: %w: no ledger has offset %d", logName(l.id), ErrStorage, offset)
	}
	defer l.store.handles.release(p.h)
	lr, err := p.h.opened(ctx, l.store.c.Tier)
	if err != nil {
		return offset, false, l.readError(p.h.id, offset, err)
	}
	if p.last < 0 {
		p.last, _ = lr.Last()
	}
	if p.entry < 0 {
		if p.entry, err = l.seek(ctx, lr, &p, offset); err != nil {
			return offset, false, l.readError(p.h.id, offset, err)
		}
	}
	chunk := min(max(r.MaxBytes-r.Bytes, minChunkBytes), maxChunkBytes)
	held, err := l.store.cold.acquire(ctx, int64(chunk))
	if err != nil {
		return offset, false, fmt.Errorf("log %s: %w", logName(l.id), err)
	}
	defer l.store.cold.release(held)

	entry := p.entry
	next, more = offset, true
	for entry <= p.last && next == offset && more {
		es, err := lr.Read(ctx, entry, p.last, chunk)
		if errors.Is(err, ledger.ErrCorrupt) && l.endsBefore(ctx, lr, entry, p.last, offset) {
			entry++ // its records are not the ones asked for
			continue
		}
		if err != nil {
			return offset, false, l.readError(p.h.id, offset, err)
		}
		if len(es.Data) == 0 {
			if p.link.sealed {
				return offset, false, fmt.Errorf("log %s: %w: ledger %d has no entry %d of %d", logName(l.id), ErrStorage, p.h.id, entry, p.last)
			}
			break
		}
		before := r.Bytes
		entry, next, more, err = r.take(&es, offset, limit)
		if r.Bytes > before && es.Buf != nil {
			r.Bufs = append(r.Bufs, es.Buf)
			es.Buf = nil
		}
		es.Release()
		l.store.metrics.fetchLedger.Add(float64(r.Bytes - before))
		if err != nil && r.Bytes == before {
			return offset, false, l.readError(p.h.id, offset, err)
		}
	}
	if next > offset && (p.end < 0 || next < p.end) {
		l.mu.Lock()
		if l.closed == nil {
			l.remember(offset, cursor{offset: next, id: p.h.id, entry: entry})
		}
		l.mu.Unlock()
	}
	return next, more && next > offset, nil
}

// take adds the batches of es from the one that holds offset on. It returns
// the entry and the offset to go on with, and whether there is room for more.
func (r *Read) take(es *ledger.Entries, offset, limit int64) (entry, next int64, more bool, err error) {
	entry, next = es.First, offset
	for _, data := range es.Data {
		h, body, err := decodeEntry(data)
		if err != nil {
			return entry, next, false, err
		}
		if h.kind == kindData {
			if h.offset >= limit {
				return entry, next, false, nil
			}
			b, err := decodeData(h, body)
			if err != nil {
				return entry, next, false, err
			}
			if last := b.LastOffset(); last >= offset {
				if !r.fits(len(b)) {
					return entry, next, false, nil
				}
				r.add(b)
				next = last + 1
			}
		}
		entry++
	}
	return entry, next, true, nil
}

// endsBefore says whether the records of an entry that cannot be read end
// before offset: the next one's head tells.
func (l *Log) endsBefore(ctx context.Context, lr ledger.Reader, entry, last, offset int64) bool {
	for next := entry + 1; next <= last; next++ {
		h, _, err := readEntry(ctx, lr, next)
		if err == nil {
			return h.offset <= offset
		}
		if !errors.Is(err, ErrCorrupt) {
			return false
		}
	}
	return false
}

// seek returns an entry at or before the one that holds offset in a ledger
// that is sealed in the chain.
func (l *Log) seek(ctx context.Context, lr ledger.Reader, p *place, offset int64) (int64, error) {
	x, _, err := l.indexOf(ctx, p.h, &p.link)
	if err == nil {
		return x.entryOf(offset), nil
	}
	if !errors.Is(err, ErrCorrupt) {
		return 0, err
	}
	// The index cannot be read: ask the heads of the entries. One that cannot be read
	// either only makes the way from the answer to the offset longer.
	low, high := int64(0), p.last
	for low < high {
		mid := low + (high-low+1)/2
		h, _, err := readEntry(ctx, lr, mid)
		switch {
		case err == nil && h.offset <= offset:
			low = mid
		case err == nil || errors.Is(err, ErrCorrupt):
			high = mid - 1
		default:
			return 0, err
		}
	}
	return low, nil
}

// indexOf returns the index and the aborted transactions of a sealed ledger. It
// may read its last entry, or if that is no snapshot, what comes after the last one.
func (l *Log) indexOf(ctx context.Context, h *handle, k *link) (*index, []abortedTxn, error) {
	if x, aborted := h.known(); x != nil {
		return x, aborted, nil
	}
	e, err := l.store.readEnd(ctx, k, false)
	if err != nil {
		return nil, nil, err
	}
	h.learn(e.index, e.aborted)
	return &e.index, e.aborted, nil
}

// readError says in the log's words why offset could not be read.
func (l *Log) readError(id ledger.ID, offset int64, err error) error {
	l.mu.Lock()
	closed, start := l.closed, l.start
	l.mu.Unlock()
	switch {
	case closed != nil:
		return closed
	case offset < start:
		// Retention has taken the ledger meanwhile.
		return fmt.Errorf("log %s: %w: %d is below %d", logName(l.id), ErrOffsetOutOfRange, offset, start)
	}
	return fmt.Errorf("log %s: offset %d in ledger %d: %w", logName(l.id), offset, id, storageError(err))
}

// abortedKnown says whether the aborted transactions that may concern a reader
// at offset are in memory. l.mu is held.
func (l *Log) abortedKnown(offset int64) bool {
	links := l.sealedLinks()
	for i := len(links) - 1; i >= 0 && links[i].last >= offset; i-- {
		if links[i].aborted {
			h := l.store.handles.get(links[i].id)
			x, _ := h.known()
			l.store.handles.release(h)
			if x == nil {
				return false
			}
		}
	}
	return true
}

// loadAborted makes abortedKnown true.
func (l *Log) loadAborted(ctx context.Context, offset int64) error {
	l.mu.Lock()
	links := l.sealedLinks()
	l.mu.Unlock()
	for i := len(links) - 1; i >= 0 && links[i].last >= offset; i-- {
		if !links[i].aborted {
			continue
		}
		h := l.store.handles.get(links[i].id)
		_, _, err := l.indexOf(ctx, h, &links[i])
		l.store.handles.release(h)
		if err != nil {
			return l.readError(links[i].id, offset, err)
		}
	}
	return nil
}

// addAborted lists the aborted transactions that overlap [r.Offset, end) for a
// reader of committed records. l.mu is held.
func (l *Log) addAborted(r *Read, end int64) {
	if r.Isolation != ReadCommitted {
		return
	}
	add := func(aborted []abortedTxn) {
		for _, t := range aborted {
			if t.first < end && t.last >= r.Offset {
				r.Aborted = append(r.Aborted, AbortedTxn{ProducerID: t.producer, FirstOffset: t.first})
			}
		}
	}
	links := l.sealedLinks()
	for i := len(links) - 1; i >= 0 && links[i].last >= r.Offset; i-- {
		if links[i].aborted {
			h := l.store.handles.get(links[i].id)
			_, aborted := h.known()
			l.store.handles.release(h)
			add(aborted)
		}
	}
	for _, s := range l.sealing {
		add(s.aborted)
	}
	if l.seg != nil {
		add(l.seg.aborted)
	}
	slices.SortFunc(r.Aborted, func(a, b AbortedTxn) int { return cmp.Compare(a.FirstOffset, b.FirstOffset) })
}

// Available returns how many bytes a reader at offset could get now, without
// reading. What lies in ledgers only is estimated, and never 0.
func (l *Log) Available(offset int64, i Isolation) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := l.hw
	if i == ReadCommitted {
		limit = l.lastStable()
	}
	if l.closed != nil || offset >= limit || offset < l.start {
		return 0
	}
	end := l.position
	if j := l.tail.find(limit); j >= 0 {
		end = l.tail.at(j).position
	}
	if j := l.tail.find(offset); j >= 0 {
		return end - l.tail.at(j).position
	}
	var n int64
	for _, k := range l.sealedLinks() {
		if k.last >= offset && k.base < limit {
			records := min(k.last+1, limit) - max(k.base, offset)
			n += int64(float64(k.bytes) * float64(records) / float64(k.last-k.base+1))
		}
	}
	for _, s := range append(l.sealing[:len(l.sealing):len(l.sealing)], l.seg) {
		if s != nil && s.base < limit {
			n += s.bytes
		}
	}
	return max(n, 1)
}
