package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/planted"
)

// opening is an OpenLog under way.
type opening struct {
	slot    int
	cancel  context.CancelFunc
	revoked error         // why the log is not to be opened after all; under openMu
	done    chan struct{} // closed when the fields below are set
	log     *Log
	err     error
}

// revoke ends the opening. openMu is held.
func (o *opening) revoke(why error) {
	o.revoked = why
	o.cancel()
}

// openAttempts is how often OpenLog begins anew when the chain changes under it.
const openAttempts = 4

// OpenLog opens a log, which fences its earlier owner, or returns the open one.
// A log that was never written needs no ledger until its first append. The error is
// ErrLostOwnership if this node is not to serve the log, or if another one opens it
// at the same time. It may block.
func (s *Store) OpenLog(ctx context.Context, id LogID, c *LogConfig) (*Log, error) {
	for {
		if l := s.Log(id); l != nil {
			return l, nil
		}
		slot := s.slot(id)
		s.openMu.Lock()
		if s.closing {
			s.openMu.Unlock()
			return nil, fmt.Errorf("log %s: %w", logName(id), ErrClosed)
		}
		if !s.serves(id) {
			s.openMu.Unlock()
			return nil, fmt.Errorf("log %s: %w", logName(id), errNotServed)
		}
		o := s.opening[id]
		if o == nil {
			ctx, cancel := context.WithCancel(ctx)
			o = &opening{slot: slot, cancel: cancel, done: make(chan struct{})}
			s.opening[id] = o
			s.openMu.Unlock()
			start := time.Now()
			o.log, o.err = s.openLog(ctx, id, c, o)
			cancel()
			s.metrics.openSeconds.Observe(time.Since(start).Seconds())
			s.openMu.Lock()
			delete(s.opening, id)
			if o.revoked != nil && o.log == nil {
				o.err = fmt.Errorf("log %s: %w", logName(id), o.revoked)
			}
			s.openMu.Unlock()
			close(o.done)
			return o.log, o.err
		}
		s.openMu.Unlock()
		select {
		case <-o.done:
			if o.log != nil {
				return o.log, nil
			}
			if !errors.Is(o.err, context.Canceled) && !errors.Is(o.err, context.DeadlineExceeded) {
				return nil, o.err
			}
			// The other caller gave up; this one has its own time.
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("log %s: %w", logName(id), err)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("log %s: %w", logName(id), ctx.Err())
		}
	}
}

func (s *Store) openLog(ctx context.Context, id LogID, c *LogConfig, o *opening) (*Log, error) {
	// Looked up again: another opening may have ended since.
	if l := s.Log(id); l != nil {
		return l, nil
	}
	for range openAttempts {
		l, err := s.tryOpen(ctx, id, c, o)
		if err == nil && !s.serves(id) {
			// Whoever took the log away may have looked for it a moment too early.
			l.disown(errNotServed)
			return nil, fmt.Errorf("open log %s: %w", logName(id), errNotServed)
		}
		if err == nil {
			return l, nil
		}
		var purged *purgedError
		if !errors.Is(err, errConflict) && !errors.As(err, &purged) {
			return nil, fmt.Errorf("open log %s: %w", logName(id), err)
		}
	}
	return nil, fmt.Errorf("open log %s: %w", logName(id), ErrLostOwnership)
}

// tryOpen opens a log from what its chain says now.
func (s *Store) tryOpen(ctx context.Context, id LogID, c *LogConfig, o *opening) (*Log, error) {
	old, err := s.loadChain(ctx, id)
	if err != nil {
		return nil, err
	}
	l := &Log{store: s, id: id, owner: rand.Uint64(), chain: old}
	l.config.Store(c)
	if old.rev == 0 {
		if old.exists, err = s.topicExists(ctx, id.Topic); err != nil {
			return nil, err
		}
		l.epoch = old.epoch
		return l, s.register(l, o)
	}
	if old.epoch == math.MaxInt32 {
		return nil, fmt.Errorf("%w: leader epochs are used up", ErrStorage)
	}
	next, end, gone, err := s.recoverChain(ctx, id, old)
	if err != nil {
		return nil, err
	}
	if !s.serves(id) {
		return nil, errNotServed
	}
	l.swaps++
	next.epoch, next.owner, next.swap = old.epoch+1, l.owner, l.swaps
	if err := s.swapChain(ctx, id, old, next); err != nil {
		return nil, err
	}
	l.chain, l.epoch = next, next.epoch
	l.start, l.opened, l.hw, l.next = next.start, end.offset, end.offset, end.offset
	l.producers = end.producers
	if planted.Is(planted.LostProducers) {
		l.producers = nil
	}
	if l.producers != nil {
		for p := l.producers.oldest; p != nil; p = p.newer {
			if p.txnFirst >= 0 {
				l.txns = append(l.txns, openTxn{producer: p.id, first: p.txnFirst, marker: -1})
			}
		}
		slices.SortFunc(l.txns, func(a, b openTxn) int { return cmp.Compare(a.first, b.first) })
	}
	l.touched = s.c.Now().UnixMilli()
	if err := s.register(l, o); err != nil {
		return nil, err
	}
	l.deleteLedgers(ctx, gone)
	if err := s.removeStrayPages(ctx, id, next); err != nil {
		s.c.Logger.Warn("pages of a chain are left over", zap.String("log", logName(id)), zap.Error(err))
	}
	return l, nil
}

// logEnd is what a log is at its end.
type logEnd struct {
	offset    int64 // of the next record
	producers *producerTable
}

// recoverChain fences and seals the ledgers that are not known to be sealed, and
// returns the chain as it is then, the end of the log, and the ledgers that have
// left the chain because they hold nothing that was acknowledged.
func (s *Store) recoverChain(ctx context.Context, id LogID, old *chain) (next *chain, end logEnd, gone []ledger.ID, err error) {
	next = old.clone()
	paged := old.paged()
	kept := next.links[:0]
	end.offset = old.start
	var last *ledgerEnd
	// All are fenced before the end of any is read, the one with a writer at
	// work first.
	for i := len(old.links) - 1; i >= 0; i-- {
		if k := &old.links[i]; !k.sealed {
			r, err := s.c.Tier.Recover(ctx, k.id)
			if err != nil {
				return nil, end, nil, fmt.Errorf("recover ledger %d: %w", k.id, storageError(err))
			}
			s.handles.release(s.handles.adopt(k.id, r))
		}
	}
	for i := range old.links {
		k := old.links[i]
		if k.sealed {
			kept = append(kept, k)
			end.offset, last = k.last+1, nil
			continue
		}
		if i < paged {
			return nil, end, nil, fmt.Errorf("%w: ledger %d in a page of the chain is not sealed", ErrCorrupt, k.id)
		}
		e, err := s.readEnd(ctx, &k, true)
		if err != nil {
			return nil, end, nil, fmt.Errorf("end of ledger %d: %w", k.id, err)
		}
		// Acknowledgements go out in order, across ledgers too. So a ledger
		// that does not continue the one before it holds none that was given out.
		continues := e.base == end.offset || len(kept) == 0 && e.base <= old.start
		if e.base == e.offset || !continues {
			if e.base != e.offset {
				s.c.Logger.Warn("ledger dropped: it does not continue the log and was never acknowledged",
					zap.String("log", logName(id)), zap.Int64("ledger", int64(k.id)), zap.Int64("base", e.base), zap.Int64("end", end.offset))
			}
			gone = append(gone, k.id)
			continue
		}
		k.sealed, k.aborted = true, len(e.aborted) > 0
		k.base, k.last, k.lastEntry, k.bytes = e.base, e.offset-1, e.lastEntry, e.bytes
		k.maxTimestamp, k.written = e.index.max, s.c.Now().UnixMilli()
		h := s.handles.get(k.id)
		h.learn(e.index, e.aborted)
		s.handles.release(h)
		kept = append(kept, k)
		end.offset, last = e.offset, e
	}
	next.links = kept
	if last == nil && len(kept) > 0 {
		k := &kept[len(kept)-1]
		if last, err = s.readEnd(ctx, k, true); err != nil {
			return nil, end, nil, fmt.Errorf("end of ledger %d: %w", k.id, err)
		}
	}
	if last != nil {
		end.producers = last.producers
	}
	if next.start > end.offset {
		return nil, end, nil, fmt.Errorf("%w: the log starts at offset %d and ends at %d", ErrCorrupt, next.start, end.offset)
	}
	return next, end, gone, nil
}

// storageError gives an error of the tier the log's word for it.
func storageError(err error) error {
	switch {
	case errors.Is(err, ledger.ErrCorrupt):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case errors.Is(err, ledger.ErrNoSpace):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case errors.Is(err, ErrCorrupt), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("%w: %w", ErrStorage, err)
}

// ledgerEnd is what a ledger that takes no more appends is at its end.
type ledgerEnd struct {
	base      int64 // of its first record
	offset    int64 // after its last record; base if it has none
	lastEntry int64
	snapshot
}

// replayChunkBytes is read at one time when the end of a ledger is replayed.
const replayChunkBytes = 1 << 20

// readEnd reads a ledger from its last snapshot to its end. Of a ledger that is
// sealed in the chain it goes up to the entry which the chain names, and what cannot be
// read of it costs what is known of producers, not the log.
func (s *Store) readEnd(ctx context.Context, k *link, warn bool) (*ledgerEnd, error) {
	h := s.handles.get(k.id)
	defer s.handles.release(h)
	e := &ledgerEnd{lastEntry: k.lastEntry}
	unreadable := func(err error) (*ledgerEnd, error) {
		s.warnCorrupt(k, 0, err, warn)
		e.base, e.offset, e.index = k.base, k.last+1, newIndex(0)
		return e, nil
	}
	r, err := h.opened(ctx, s.c.Tier)
	if err != nil {
		if err = storageError(err); k.sealed && errors.Is(err, ErrCorrupt) {
			return unreadable(err)
		}
		return nil, err
	}
	if !k.sealed {
		e.lastEntry, _ = r.Last()
	}
	var hd head
	var body []byte
	if e.lastEntry >= 0 && !k.sealed {
		if hd, _, err = readEntry(ctx, r, e.lastEntry); err != nil {
			return nil, err
		}
		if hd.entry != e.lastEntry {
			if e.lastEntry, err = lastBeforeHole(ctx, r, e.lastEntry); err != nil {
				return nil, err
			}
		}
	}
	e.index = newIndex(0)
	if e.lastEntry < 0 {
		return e, nil
	}
	if k.sealed {
		e.base = k.base
	} else {
		if hd, _, err = readEntry(ctx, r, 0); err != nil {
			return nil, err
		}
		e.base = hd.offset
	}
	readable := e.lastEntry
	for hd, body, err = readEntry(ctx, r, readable); err != nil; hd, body, err = readEntry(ctx, r, readable) {
		// The chain knows where a sealed ledger ends. Where another one ends
		// nobody does if its last entry cannot be read.
		if !k.sealed || !errors.Is(err, ErrCorrupt) {
			return nil, err
		}
		if readable == 0 {
			return unreadable(err)
		}
		s.warnCorrupt(k, readable, err, warn)
		readable--
	}
	e.offset = e.base
	from := int64(0)
	for at := hd.snapshot; at >= 0; {
		if at != readable {
			hd, body, err = readEntry(ctx, r, at)
		}
		var snap *snapshot
		if err == nil {
			snap, err = decodeSnapshot(body)
		}
		if err == nil {
			e.snapshot, e.offset, from = *snap, hd.offset, at+1
			e.bytes += int64(headBytes + len(body))
			break
		}
		// The snapshot before it will do; there is more to replay then.
		if at == 0 && !k.sealed || !errors.Is(err, ErrCorrupt) {
			return nil, err
		}
		s.warnCorrupt(k, at, err, warn)
		if at == 0 {
			from = 1
			break
		}
		if hd, _, err = readEntry(ctx, r, at-1); err != nil {
			return nil, err
		}
		at = hd.snapshot
	}
	if err := s.replay(ctx, r, k, e, from, warn); err != nil {
		return nil, err
	}
	if k.sealed {
		e.offset = k.last + 1
	}
	return e, nil
}

// warnCorrupt logs what opening a log gets around.
func (s *Store) warnCorrupt(k *link, entry int64, err error, warn bool) {
	if warn {
		s.c.Logger.Error("entry is corrupt", zap.Int64("ledger", int64(k.id)), zap.Int64("entry", entry), zap.Error(err))
	}
}

// replay applies the entries from from on to e.
func (s *Store) replay(ctx context.Context, r ledger.Reader, k *link, e *ledgerEnd, from int64, warn bool) error {
	now := s.c.Now().UnixMilli()
	for from <= e.lastEntry {
		es, err := r.Read(ctx, from, e.lastEntry, replayChunkBytes)
		if errors.Is(err, ledger.ErrCorrupt) && (from < e.lastEntry || k.sealed) {
			// The next entry, or the chain, says where it ended. What its producer
			// did is not known; readers of its offsets are told.
			s.warnCorrupt(k, from, err, warn)
			from++
			continue
		}
		if err != nil {
			return storageError(err)
		}
		if len(es.Data) == 0 {
			return fmt.Errorf("%w: ledger %d has no entry %d", ErrCorrupt, k.id, from)
		}
		for i, data := range es.Data {
			if err := s.replayEntry(e, es.First+int64(i), data, now); err != nil {
				es.Release()
				return fmt.Errorf("entry %d: %w", es.First+int64(i), err)
			}
		}
		from += int64(len(es.Data))
		es.Release()
	}
	return nil
}

func (s *Store) replayEntry(e *ledgerEnd, entry int64, data []byte, now int64) error {
	hd, body, err := decodeEntry(data)
	if err != nil {
		return err
	}
	size := int64(len(data))
	if hd.kind != kindData {
		e.bytes += size
		return nil
	}
	b, err := decodeData(hd, body)
	if err != nil {
		return err
	}
	if hd.offset < e.offset {
		return fmt.Errorf("%w: offset %d after %d", ErrCorrupt, hd.offset, e.offset)
	}
	e.index.add(entry, hd.offset, size, b.MaxTimestamp())
	e.bytes += size
	e.offset = b.LastOffset() + 1
	if b.ProducerID() < 0 {
		return nil
	}
	var mark marker
	if b.Control() {
		var ok bool
		if mark, ok, err = decodeMarker(b); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if !ok {
			return nil
		}
	}
	if e.producers == nil {
		e.producers = new(producerTable)
	}
	p := e.producers.get(b.ProducerID())
	if p == nil {
		p = e.producers.add(b.ProducerID(), s.c.MaxProducersPerLog)
	} else {
		e.producers.touch(p)
	}
	if b.Control() {
		if first := p.applyMarker(b.ProducerEpoch(), mark, b.MaxTimestamp(), now); first >= 0 && !mark.commit {
			e.aborted = append(e.aborted, abortedTxn{producer: p.id, first: first, last: hd.offset})
		}
		return nil
	}
	p.apply(batch.Batch(b), now)
	return nil
}

// readEntry reads one entry. The body is garbage collected.
func readEntry(ctx context.Context, r ledger.Reader, entry int64) (head, []byte, error) {
	es, err := r.Read(ctx, entry, entry, 1)
	if err != nil {
		return head{}, nil, storageError(err)
	}
	defer es.Release()
	if len(es.Data) == 0 {
		return head{}, nil, fmt.Errorf("%w: ledger %d has no entry %d", ErrCorrupt, r.ID(), entry)
	}
	h, body, err := decodeEntry(es.Data[0])
	if err != nil {
		return h, nil, err
	}
	return h, slices.Clone(body), nil
}

// lastBeforeHole returns the last entry before the first one that did not get
// the id which its writer expected; -1 if that is the first of all. last did not.
func lastBeforeHole(ctx context.Context, r ledger.Reader, last int64) (int64, error) {
	good, bad := int64(-1), last
	for bad-good > 1 {
		mid := good + (bad-good)/2
		h, _, err := readEntry(ctx, r, mid)
		if err != nil {
			return 0, err
		}
		if h.entry == mid {
			good = mid
		} else {
			bad = mid
		}
	}
	return good, nil
}
