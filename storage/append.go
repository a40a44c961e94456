package storage

import (
	"fmt"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/planted"
)

// maxUnsentBytes bounds what waits in memory for a log's first ledger, or for
// the one after an idle close.
const maxUnsentBytes = 16 << 20

// Append is one batch on its way into a log. The caller allocates and recycles
// it; from Log.Append until Notify the log owns it, and the caller keeps its hold on Buf.
type Append struct {
	Batch  batch.Batch    // exactly one v2 batch; stamped in place
	Buf    *buffer.Buffer // owner of Batch; the log retains it for the tail cache; nil if garbage collected
	Marker bool           // Batch is a control batch of the transaction coordinator; no client may set it
	Notify AppendNotifier

	// Results, valid from Notify on.
	Err            error
	BaseOffset     int64 // -1 on error
	LogAppendTime  int64 // ms; -1 unless the topic stamps time
	LogStartOffset int64 // -1 on error
	RecordErrors   []RecordError
	Refused        bool // with Err: the batch got no place in the log and never will; valid once Log.Append has returned

	internal appendState
}

// RecordError says which record of a refused batch was at fault.
type RecordError struct {
	Index   int32
	Message string
}

// AppendNotifier hears that an Append is decided.
type AppendNotifier interface {
	// AppendDone is called exactly once, from within Log.Append (refused, or a
	// duplicate already durable) or from a goroutine of the ledger tier or the
	// Store. It must not block. No lock of the log is held.
	AppendDone(a *Append)
}

type appendState struct {
	pending
	nextDuplicate *Append
}

// pending is an entry on its way into a ledger: a producer's batch, or a
// snapshot. The log's queue holds it from the moment it has an offset until the tier
// has answered for it and for everything before it.
type pending struct {
	entry ledger.Append
	head  [headBytes]byte

	log        *Log
	seg        *segment // nil while there is no ledger to send it to
	next       *pending // in the queue
	owner      *Append  // nil: a snapshot
	duplicates *Append  // wait for the same outcome

	id        int64 // entry id that it must get
	base      int64 // its offsets are [base, end)
	end       int64
	timestamp int64 // largest of its records, ms
	appended  int64 // log append time, -1: none
	answered  bool
	err       error

	undo undo
}

// undo is what a failed append takes back.
type undo struct {
	producer *producer
	before   producerState
	opened   bool  // it opened a transaction
	ended    int64 // first offset of the transaction whose end it decided, -1: none
	aborted  bool  // that was an abort

	snapshot      int64 // of the segment, before a snapshot
	since         int64
	snapshotBytes int64
}

// Append checks the batch, gives it offsets and queues it; the order of calls
// is the order of offsets. It does not block on I/O, and on CPU only as
// NeedsWorker says. The outcome arrives through a.Notify.
func (l *Log) Append(a *Append) {
	now := l.store.c.Now().UnixMilli()
	b, buf, err := l.prepare(a, now)
	if err != nil {
		refuse(a, err)
		return
	}

	l.mu.Lock()
	done, err := l.enqueue(a, b, buf, now)
	l.mu.Unlock()
	if err != nil {
		refuse(a, err)
		return
	}
	if done {
		a.Notify.AppendDone(a)
		return
	}
	l.store.tail.evict()
}

// AppendAll is Append for batches that stand for one: their offsets follow each
// other without a gap, and if one of them is refused all are, with its error. Only
// a failing ledger may still part them: then the first ones are stored and the
// others tell the failure. None may carry a producer id.
func (l *Log) AppendAll(as []*Append) {
	now := l.store.c.Now().UnixMilli()
	type prepared struct {
		b   batch.Batch
		buf *buffer.Buffer
	}
	all := make([]prepared, len(as))
	var size int64
	var refused error
	for i, a := range as {
		b, buf, err := l.prepare(a, now)
		if err == nil && b.ProducerID() >= 0 {
			err = fmt.Errorf("log %s: %w: a batch of producer %d beside others", logName(l.id), batch.ErrInvalid, b.ProducerID())
		}
		if err != nil && refused == nil {
			refused = err
		}
		all[i] = prepared{b, buf}
		size += int64(len(b))
	}

	if c := l.config.Load(); refused == nil && c.SegmentBytes > 0 && size > c.SegmentBytes {
		refused = fmt.Errorf("log %s: %w: %d bytes of at most %d", logName(l.id), ErrListTooLarge, size, c.SegmentBytes)
	}

	queued := 0
	l.mu.Lock()
	if refused == nil && l.seg == nil && l.unsentBytes+size > maxUnsentBytes {
		refused = fmt.Errorf("log %s: %w: too many appends wait for a ledger", logName(l.id), ErrStorage)
	}
	for ; queued < len(as) && refused == nil; queued++ {
		// Without a producer id only the state of the log can refuse a batch,
		// and that is the same for all of them while mu is held.
		if _, refused = l.enqueue(as[queued], all[queued].b, all[queued].buf, now); refused != nil {
			break
		}
	}
	l.mu.Unlock()
	if refused != nil {
		for _, a := range as[queued:] {
			refuse(a, refused)
		}
		return
	}
	l.store.tail.evict()
}

// prepare empties a's results, checks its batch and returns what is to be
// stored and who owns that.
func (l *Log) prepare(a *Append, now int64) (batch.Batch, *buffer.Buffer, error) {
	a.Err, a.BaseOffset, a.LogAppendTime, a.LogStartOffset, a.Refused = nil, -1, -1, -1, false
	a.RecordErrors = a.RecordErrors[:0]
	p := &a.internal.pending
	*p = pending{log: l, owner: a, appended: -1}
	p.undo.ended = -1
	a.internal.nextDuplicate = nil
	b, err := l.validate(a, l.config.Load(), now)
	buf := a.Buf
	if err == nil && &b[0] != &a.Batch[0] {
		buf = nil // it was written anew, into memory of its own
	}
	return b, buf, err
}

func refuse(a *Append, err error) {
	a.Err, a.Refused = err, true
	a.Notify.AppendDone(a)
}

// enqueue is Append under l.mu. done says that a is a duplicate of a durable
// batch and has its results. After enqueue has returned with neither, a belongs to
// the tier and may be gone.
func (l *Log) enqueue(a *Append, b batch.Batch, buf *buffer.Buffer, now int64) (done bool, err error) {
	p := &a.internal.pending
	size := int64(len(b))
	if err := l.refuses(); err != nil {
		l.expect(b, now)
		return false, err
	}
	if l.seg == nil && l.unsentBytes+size > maxUnsentBytes {
		l.expect(b, now)
		return false, fmt.Errorf("log %s: %w: too many appends wait for a ledger", logName(l.id), ErrStorage)
	}

	var prod *producer
	var mark marker
	var isMarker bool
	if b.ProducerID() >= 0 {
		prod = l.producers.get(b.ProducerID())
		if b.Control() {
			if mark, isMarker, err = decodeMarker(b); err != nil {
				return false, err
			}
			if prod != nil && isMarker {
				if err := prod.checkMarker(prod.id, b.ProducerEpoch(), mark); err != nil {
					return false, fmt.Errorf("log %s: %w", logName(l.id), err)
				}
			}
		} else if prod != nil {
			if m := prod.duplicate(b); m != nil {
				return l.duplicate(a, m)
			}
			if err := prod.check(b); err != nil {
				return false, fmt.Errorf("log %s: %w", logName(l.id), err)
			}
		}
		if !b.Control() && (prod == nil || prod.epoch == noEpoch) {
			if err := l.checkFirst(b); err != nil {
				return false, fmt.Errorf("log %s: %w", logName(l.id), err)
			}
		}
	}

	// Nothing fails from here on.
	if l.seg == nil && l.unsentBytes == 0 {
		// The next ledger begins with the state as of its first offset.
		l.headState = encodeState(l.producers)
	}
	p.base = l.next
	p.end = p.base + int64(b.LastOffsetDelta()) + 1
	p.timestamp = b.MaxTimestamp()
	if planted.Is(planted.EpochBack) {
		b.Stamp(p.base, max(0, 1000-l.epoch))
	} else {
		b.Stamp(p.base, l.epoch)
	}
	l.next = p.end
	if b.ProducerID() >= 0 && (!b.Control() || isMarker) {
		l.note(p, prod, b, mark, isMarker, now)
	}
	p.entry.Body = b
	if buf != nil {
		p.entry.Buf = buf
	}
	l.keep(p.base, p.end, b, buf)
	l.push(p)
	if planted.Is(planted.EarlyHighWatermark) {
		l.hw = p.end
		l.wake()
	}
	if l.seg == nil {
		l.unsentBytes += size
		l.schedule(workLedger)
		return false, nil
	}
	l.touched = now
	l.send(p)
	l.afterSend(now)
	return false, nil
}

// checkFirst says whether b may be the first batch of a producer of which nothing is
// known. One node remembers which batches it has refused (expectation), so any other
// will do. Of several nodes each may have refused the batches before b, or lost them on
// their way, and then their sequence numbers would be taken for old ones: so a
// producer has to begin with 0, unless this log has forgotten some. A client that is
// refused sends what comes before again, or begins a new epoch (KIP-360): librdkafka
// does so when it hears of an unknown producer, but gives up if that is called out of order.
func (l *Log) checkFirst(b batch.Batch) error {
	if l.store.c.Serves == nil || b.BaseSequence() == 0 || l.producers != nil && l.producers.forgot {
		return nil
	}
	return fmt.Errorf("%w: producer %d sends sequence %d, an unknown one begins with 0", ErrUnknownProducer, b.ProducerID(), b.BaseSequence())
}

// note advances the producer state by b and remembers in p.undo how it was.
func (l *Log) note(p *pending, prod *producer, b batch.Batch, mark marker, isMarker bool, now int64) {
	if prod == nil {
		if l.producers == nil {
			l.producers = new(producerTable)
		}
		prod = l.producers.add(b.ProducerID(), l.store.c.MaxProducersPerLog)
	} else {
		l.producers.touch(prod)
	}
	p.undo.producer, p.undo.before = prod, prod.producerState
	if isMarker {
		first := prod.applyMarker(b.ProducerEpoch(), mark, b.MaxTimestamp(), now)
		if first >= 0 {
			p.undo.ended = first
			p.undo.aborted = !mark.commit
			l.decideTxn(first, p.base)
		}
		return
	}
	if prod.apply(b, now) {
		p.undo.opened = true
		l.txns = append(l.txns, openTxn{producer: prod.id, first: p.base, marker: -1})
	}
}

// duplicate answers a repeated batch with the offset of the first one, once
// that is durable.
func (l *Log) duplicate(a *Append, m *batchMeta) (done bool, err error) {
	if m.lastOffset < l.hw {
		a.BaseOffset, a.LogAppendTime, a.LogStartOffset = m.offset, m.timestamp, l.start
		return true, nil
	}
	for p := l.queueHead; p != nil; p = p.next {
		if p.base == m.offset && p.owner != nil {
			a.internal.appended = m.timestamp
			a.internal.nextDuplicate = p.duplicates
			p.duplicates = a
			return false, nil
		}
	}
	panic("storage: a remembered batch is neither durable nor on its way")
}

// refuses returns why no append is taken now, nil if they are.
func (l *Log) refuses() error {
	switch {
	case l.closed != nil:
		return l.closed
	case l.failure != nil:
		// Appends that were queued behind a failed one still have to fail.
		// Offsets go back when they have, and new appends are taken again.
		return l.failure
	}
	return nil
}

// expect notes that b is refused though nothing is wrong with it. l.mu is held.
func (l *Log) expect(b batch.Batch, now int64) {
	switch {
	case b.ProducerID() < 0 || b.Control() || l.store.c.Serves != nil: // see checkFirst
	case l.closed != nil:
		l.store.expect(l.id, b, false)
	default:
		if l.producers == nil {
			l.producers = new(producerTable)
		}
		l.producers.expect(b, now, l.store.c.MaxProducersPerLog)
	}
}

// push puts p at the end of the queue.
func (l *Log) push(p *pending) {
	if l.queueTail != nil {
		l.queueTail.next = p
	} else {
		l.queueHead = p
	}
	l.queueTail = p
}

// send gives p to the ledger that takes appends.
func (l *Log) send(p *pending) {
	s := l.seg
	p.seg = s
	p.id = s.next
	s.next++
	s.inflight++
	size := int64(headBytes + len(p.entry.Body))
	kind := uint8(kindData)
	if p.owner == nil {
		kind = kindSnapshot
		p.undo.snapshot, p.undo.since, p.undo.snapshotBytes = s.snapshot, s.since, s.snapshotBytes
		s.snapshot, s.since, s.snapshotBytes = p.id, 0, size
	} else {
		s.since += size
		s.index.add(p.id, p.base, size, p.timestamp)
		if p.undo.ended >= 0 && p.undo.aborted {
			s.aborted = append(s.aborted, abortedTxn{producer: p.undo.producer.id, first: p.undo.ended, last: p.base})
		}
	}
	s.bytes += size
	head{kind: kind, snapshot: s.snapshot, entry: p.id, offset: p.base}.encode(&p.head)
	p.entry.Head = p.head[:]
	p.entry.Done = p
	s.writer.Append(&p.entry)
}

// afterSend does what is due now and then: a snapshot, or the next ledger.
func (l *Log) afterSend(now int64) {
	s := l.seg
	if s.since >= max(l.store.c.SnapshotEveryBytes, snapshotShare*s.snapshotBytes) {
		l.sendSnapshot(encodeState(l.producers))
	}
	if l.wantsRoll(now) {
		l.schedule(workLedger)
	}
}

// sendSnapshot puts a snapshot into the ledger; state is as of l.next.
func (l *Log) sendSnapshot(state []byte) {
	s := l.seg
	p := &pending{log: l, base: l.next, end: l.next, timestamp: noTimestamp}
	p.undo.ended = -1
	p.entry.Body = encodeSnapshot(state, s.bytes, &s.index, s.aborted)
	l.push(p)
	l.send(p)
}
