package storage

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/planted"
)

const (
	// opTimeout bounds one step with the tier or the metadata store in the
	// background. It is far below the age at which the janitor takes a ledger
	// outside every chain for an orphan.
	opTimeout = 10 * time.Second
	// retryPause is how long a roll or a seal that failed is left alone.
	retryPause = time.Second
	// maxLedgerEntries rolls a ledger, which bounds what tiers keep per ledger.
	maxLedgerEntries = 1 << 24
	// maxLedgerAborted rolls a ledger, which bounds its snapshots.
	maxLedgerAborted = 100_000
)

// Properties of a ledger, for humans and for the janitor.
const (
	propApplication = "application"
	propCluster     = "cluster"
	propClusterID   = "cluster.id"
	propLog         = "log"
	propTopic       = "topic" // its name when the ledger was made
	propPartition   = "partition"
	propEpoch       = "epoch"
	propCreated     = "created" // ms

	application = "quire"
)

// wantsRoll says whether appends should go to a new ledger. l.mu is held.
func (l *Log) wantsRoll(now int64) bool {
	s, c := l.seg, l.config.Load()
	full := s.degraded(now) || c.SegmentBytes > 0 && s.bytes >= c.SegmentBytes ||
		c.SegmentAge > 0 && now-s.created >= c.SegmentAge.Milliseconds() ||
		s.next >= maxLedgerEntries || len(s.aborted) >= min(maxLedgerAborted, l.store.c.Tier.MaxEntryBytes()/maxAbortedBytes)
	return full && s.next > 0 && now >= l.rollAfter
}

// askDegraded is the time between two questions to a ledger's writer.
const askDegraded = time.Second

// degraded says whether the tier would keep a new ledger more safely. The log's mu is held.
func (s *segment) degraded(now int64) bool {
	if s.degradable == nil || now-s.asked < askDegraded.Milliseconds() {
		return s.worn
	}
	s.asked = now
	s.worn = s.degradable.Degraded()
	return s.worn
}

// makeLedger creates the next ledger, puts it into the chain and sends appends
// there. l.admin is held.
func (l *Log) makeLedger(ctx context.Context) {
	now := l.store.c.Now().UnixMilli()
	l.mu.Lock()
	wanted := l.closed == nil && l.failure == nil && (l.seg == nil && l.queueHead != nil || l.seg != nil && l.wantsRoll(now))
	old := l.chain
	l.mu.Unlock()
	if !wanted {
		return
	}

	w, err := l.link(ctx, old, now)
	var purged *purgedError
	if errors.As(err, &purged) {
		w, err = l.link(ctx, l.chain, now) // the swap has put in what the janitor wrote
	}
	if errors.Is(err, errTopicDeleted) {
		l.disown(errTopicDeleted)
	}
	if err != nil {
		l.noLedger(err)
		return
	}

	h := l.store.handles.adopt(w.ID(), w.Reader())
	s := &segment{id: w.ID(), writer: w, h: h, snapshot: -1, maxTimestamp: noTimestamp, index: newIndex(l.config.Load().IndexIntervalBytes)}
	s.degradable, _ = w.(ledger.Degradable)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed != nil {
		// It is empty and leaves the chain again.
		s.base, s.end = l.next, l.next
		l.sealing = append(l.sealing, s)
		l.schedule(workAbandon)
		return
	}
	l.use(s)
}

// link creates a ledger and puts it into the chain. l.admin is held.
func (l *Log) link(ctx context.Context, old *chain, now int64) (ledger.Writer, error) {
	w, err := l.store.c.Tier.Create(ctx, l.ledgerProperties(now))
	if err != nil {
		return nil, fmt.Errorf("create a ledger: %w", err)
	}
	l.mu.Lock()
	err = l.closed
	l.mu.Unlock()
	unlinked := err != nil
	if err == nil {
		next := old.clone()
		next.links = append(next.links, link{id: w.ID(), epoch: l.epoch})
		if err = l.swap(ctx, old, next, nil); err == nil {
			return w, nil
		}
		unlinked = failedForGood(err)
	}
	// Else the swap may still come through: the ledger stays, empty, until the
	// janitor or the next opening finds it outside the chain or without entries.
	l.closeWriter(ctx, w)
	if unlinked {
		l.deleteLedgers(ctx, []ledger.ID{w.ID()})
	}
	return nil, fmt.Errorf("link ledger %d: %w", w.ID(), err)
}

// failedForGood says of the error of a swap that it did not and will not change the chain.
func failedForGood(err error) bool {
	var purged *purgedError
	return errors.Is(err, errConflict) || errors.Is(err, errTopicDeleted) || errors.As(err, &purged)
}

// ledgerProperties are those of a ledger that is made at created, ms.
func (l *Log) ledgerProperties(created int64) ledger.Properties {
	props := ledger.Properties{
		propApplication: application,
		propCluster:     l.store.c.Prefix,
		propLog:         logName(l.id),
		propEpoch:       strconv.Itoa(int(l.epoch)),
		propCreated:     strconv.FormatInt(created, 10),
	}
	if id := l.store.c.ClusterID; id != "" {
		props[propClusterID] = id
	}
	if name := l.store.c.TopicName; name != nil {
		props[propTopic], props[propPartition] = name(l.id.Topic), strconv.Itoa(int(l.id.Partition))
	}
	c := l.config.Load()
	for name, n := range map[string]int{
		ledger.PropEnsemble: c.Ensemble, ledger.PropWriteQuorum: c.WriteQuorum, ledger.PropAckQuorum: c.AckQuorum,
	} {
		if n > 0 {
			props[name] = strconv.Itoa(n)
		}
	}
	return props
}

// swap writes the chain and, if that succeeded, makes it the log's; change runs
// under l.mu with it. After *purgedError the log has the chain that is there, and what
// next would have linked is lost. l.admin is held.
func (l *Log) swap(ctx context.Context, old, next *chain, change func()) error {
	for {
		try := next.clone() // which the attempt may give another page
		l.swaps++
		try.owner, try.swap = l.owner, l.swaps
		err := l.store.swapChain(ctx, l.id, old, try)
		var purged *purgedError
		switch {
		case errors.Is(err, errConflict):
			err = fmt.Errorf("log %s: %w: %w", logName(l.id), ErrLostOwnership, err)
			l.mu.Lock()
			l.fail(err)
			done := l.settle()
			l.mu.Unlock()
			deliver(done)
			return err
		case errors.As(err, &purged):
			links := next.adds(old)
			old = old.clone()
			old.purges, old.rev = purged.purges, purged.rev
			l.mu.Lock()
			l.chain = old
			l.mu.Unlock()
			if links {
				return err
			}
			next.purges = purged.purges
			continue
		case err != nil:
			return err
		}
		l.mu.Lock()
		l.chain = try
		if change != nil {
			change()
		}
		l.mu.Unlock()
		return nil
	}
}

// noLedger says that there is no next ledger for now: what waits for it fails,
// a ledger in use grows on.
func (l *Log) noLedger(err error) {
	kind := ErrStorage
	if errors.Is(err, ledger.ErrNoSpace) {
		kind = ErrNoSpace
	}
	err = fmt.Errorf("log %s: %w: %w", logName(l.id), kind, err)
	l.mu.Lock()
	if l.closed == nil {
		l.store.c.Logger.Warn("no new ledger", zap.Error(err))
	}
	l.rollAfter = l.store.c.Now().UnixMilli() + retryPause.Milliseconds()
	done := l.failUnsent(err)
	l.mu.Unlock()
	deliver(done)
}

// use sends appends to s from now on. The switch happens under l.mu between
// two appends, whose offsets are therefore the bounds of the two ledgers. l.mu is held.
func (l *Log) use(s *segment) {
	s.created = l.store.c.Now().UnixMilli()
	if old := l.seg; old != nil {
		state := encodeState(l.producers)
		l.retire(state)
		l.seg, s.base = s, l.next
		if state != nil {
			l.sendSnapshot(state)
		}
		return
	}
	l.seg, s.base = s, l.next
	first := l.queueHead
	for first != nil && first.seg != nil {
		first = first.next
	}
	if first != nil {
		s.base = first.base
	}
	if state := l.headState; state != nil {
		l.sendHead(state, s.base, first)
	}
	l.headState, l.unsentBytes = nil, 0
	for p := first; p != nil; p = p.next {
		if p.owner != nil {
			l.send(p)
		}
	}
	l.touched = s.created
}

// sendHead puts the first snapshot of a ledger before the appends that have
// waited for it. They are at the end of the queue from first on.
func (l *Log) sendHead(state []byte, base int64, first *pending) {
	s := l.seg
	p := &pending{log: l, base: base, end: base, timestamp: noTimestamp, next: first}
	p.undo.ended = -1
	p.entry.Body = encodeSnapshot(state, s.bytes, &s.index, s.aborted)
	if first == nil {
		l.push(p)
	} else if l.queueHead == first {
		l.queueHead = p
	} else {
		before := l.queueHead
		for before.next != first {
			before = before.next
		}
		before.next = p
	}
	l.send(p)
}

// retire takes the ledger in use out of use; state is as of l.next. l.mu is held.
func (l *Log) retire(state []byte) {
	s := l.seg
	s.end, s.finalState, s.written = l.next, state, l.touched
	l.sealing = append(l.sealing, s)
	l.seg = nil
	if s.inflight == 0 {
		l.schedule(workSeal)
	}
}

// seal seals the ledgers that take no more appends, in order, and tells the
// chain their bounds. l.admin is held.
func (l *Log) seal(ctx context.Context) error {
	for {
		now := l.store.c.Now().UnixMilli()
		l.mu.Lock()
		if len(l.sealing) == 0 || l.sealing[0].inflight > 0 || l.failure != nil || l.unsound ||
			l.sealing[0].retryAfter > now && l.closed == nil {
			l.mu.Unlock()
			return nil
		}
		s := l.sealing[0]
		old := l.chain
		l.mu.Unlock()

		err := l.sealOne(ctx, s, old)
		if err == nil {
			continue
		}
		err = l.ledgerError(s.id, err)
		l.store.c.Logger.Warn("ledger is not sealed yet", zap.Error(err))
		l.mu.Lock()
		s.retryAfter = now + retryPause.Milliseconds()
		if errors.Is(err, ledger.ErrFailed) || errors.Is(err, ledger.ErrFenced) || errors.Is(err, errBadSeal) {
			l.fail(err)
		}
		done := l.settle()
		l.mu.Unlock()
		deliver(done)
		return err
	}
}

// errBadSeal says that a ledger was sealed elsewhere than where this log ended it.
var errBadSeal = errors.New("sealed at another entry")

// sealOne seals s, to which nothing is appended any more.
func (l *Log) sealOne(ctx context.Context, s *segment, old *chain) error {
	if !s.finished && s.next > 0 {
		if err := l.finish(ctx, s); err != nil {
			return err
		}
	}
	if err := l.close(ctx, s); err != nil {
		return err
	}
	next := old.clone()
	i := len(next.links) - 1
	for i >= 0 && next.links[i].id != s.id {
		i--
	}
	if i < 0 {
		return fmt.Errorf("ledger %d is not in the chain", s.id)
	}
	empty := s.end == s.base
	if empty {
		next.links = append(next.links[:i], next.links[i+1:]...)
	} else {
		k := &next.links[i]
		k.sealed, k.aborted = true, len(s.aborted) > 0
		k.base, k.last, k.lastEntry, k.bytes = s.base, s.end-1, s.next-1, s.bytes
		if planted.Is(planted.LostHandover) && k.last > k.base {
			l.mu.Lock()
			if l.closed != nil {
				k.last--
			}
			l.mu.Unlock()
		}
		k.maxTimestamp, k.written = s.maxTimestamp, s.written
	}
	err := l.swap(ctx, old, next, func() {
		l.sealing = l.sealing[1:]
		if len(l.sealing) == 0 {
			l.sealing = nil
		}
		s.h.learn(s.index, s.aborted)
	})
	if err != nil {
		return err
	}
	l.store.handles.release(s.h)
	if empty {
		l.deleteLedgers(ctx, []ledger.ID{s.id})
	}
	return nil
}

// close seals the ledger of s where s ends.
func (l *Log) close(ctx context.Context, s *segment) error {
	sealed, err := s.writer.Close(ctx)
	last := sealed.LastEntry
	switch {
	case err == nil:
	case errors.Is(err, ledger.ErrFenced), errors.Is(err, ledger.ErrFailed), ctx.Err() != nil:
		return err
	default:
		// A writer closes once, and this one could not, for lack of space for
		// one. Its ledger can still be sealed as a stranger's would be.
		r, err := l.store.c.Tier.Recover(ctx, s.id)
		if err != nil {
			return err
		}
		last, _ = r.Last()
		_ = r.Close()
	}
	if last != s.next-1 {
		return fmt.Errorf("%w: entry %d, not %d", errBadSeal, last, s.next-1)
	}
	return nil
}

// finish writes the final entry. It is worth one try: a ledger without it is
// read from its last snapshot on. If ctx ends first, the next call goes on waiting.
func (l *Log) finish(ctx context.Context, s *segment) error {
	f := s.final
	if f == nil {
		f = &finalEntry{done: make(chan error, 1)}
		s.final = f
		f.entry.Body = encodeSnapshot(s.finalState, s.bytes, &s.index, s.aborted)
		// It is its own snapshot: whoever opens the log reads this entry only.
		head{kind: kindFinal, snapshot: s.next, entry: s.next, offset: s.end}.encode(&f.head)
		f.entry.Head, f.entry.Done = f.head[:], f
		s.writer.Append(&f.entry)
	}
	var err error
	select {
	case err = <-f.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.finished, s.final, s.finalState = true, nil, nil
	switch {
	case errors.Is(err, ledger.ErrNoSpace):
		return nil
	case err != nil:
		return err
	case f.entry.Entry != s.next:
		return fmt.Errorf("%w: the final entry became %d, not %d", errBadSeal, f.entry.Entry, s.next)
	}
	l.mu.Lock()
	s.next++
	s.bytes += int64(headBytes + len(f.entry.Body))
	l.mu.Unlock()
	return nil
}

// finalEntry is a final snapshot on its way.
type finalEntry struct {
	entry ledger.Append
	head  [headBytes]byte
	done  chan error
}

// Appended takes the tier's answer.
func (f *finalEntry) Appended(_ *ledger.Append, err error) { f.done <- err }

// abandon ends a closed log: it seals what it can vouch for and lets go of
// the rest, which the next opening recovers. l.admin is held.
func (l *Log) abandon(ctx context.Context) {
	l.mu.Lock()
	if l.closed == nil || l.queueHead != nil {
		l.mu.Unlock()
		return // settle comes back when the tier has answered
	}
	if l.seg != nil {
		l.retire(encodeState(l.producers))
	}
	l.mu.Unlock()
	_ = l.seal(ctx) // it has logged why not
	l.mu.Lock()
	segs := l.sealing
	l.sealing = nil
	l.mu.Unlock()
	for _, s := range segs {
		l.closeWriter(ctx, s.writer)
		l.store.handles.release(s.h)
	}
}

// closeWriter releases a writer whose ledger is not used any more; the error
// does not matter since opening the log recovers the ledger anyway.
func (l *Log) closeWriter(ctx context.Context, w ledger.Writer) {
	if _, err := w.Close(ctx); err != nil {
		l.store.c.Logger.Debug("ledger left open", zap.Int64("ledger", int64(w.ID())), zap.Error(err))
	}
}

// deleteLedgers deletes ledgers that have left the chain. What fails here is
// left to the janitor.
func (l *Log) deleteLedgers(ctx context.Context, ids []ledger.ID) {
	for _, id := range ids {
		l.store.handles.drop(id)
		if err := l.store.c.Tier.Delete(ctx, id); err != nil {
			l.store.c.Logger.Warn("ledger left to the janitor", zap.Int64("ledger", int64(id)), zap.Error(err))
		}
	}
}
