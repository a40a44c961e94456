package storage

import (
	"sync"
	"sync/atomic"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/planted"
)

// Log is one partition's log. Its methods may be called from any goroutine;
// those that may block on I/O or metadata say so and take a context.
//
// A Log that failed, or whose ownership was lost, answers everything with the
// reason; Store.OpenLog then makes a new one.
type Log struct {
	store  *Store
	id     LogID
	epoch  int32
	owner  uint64 // of the chain's record
	config atomic.Pointer[LogConfig]

	// admin serialises what changes the chain. It is held over I/O; mu may be
	// taken under it, never the other way round.
	admin sync.Mutex
	swaps uint64 // under admin

	mu      sync.Mutex
	closed  error // why the log is not served any more
	unsound bool  // ledgers hold something else than this log believes: none may be sealed by it
	work    work  // what the workers shall do
	queued  int   // workers that will come, or are at it
	hurried bool  // one of them comes before those for what nobody waits for
	served  bool  // one is at it

	chain  *chain // replaced as a whole; under admin and mu
	opened int64  // high watermark when this epoch began
	start  int64  // log start offset
	hw     int64  // high watermark: what is below is durable
	next   int64  // offset of the next append; [hw, next) is on its way

	seg         *segment   // takes appends; nil: the next append needs a ledger
	sealing     []*segment // took appends before seg and are not sealed in the chain
	rollAfter   int64      // ms; no roll is tried before
	touched     int64      // ms; the last append
	headState   []byte     // producer state as of the first append that waits for a ledger
	unsentBytes int64

	queueHead, queueTail *pending // appends on their way, in order
	failure              error    // of an append; those behind it are still being answered
	failed               *pending // answered with or behind failure, the newest first

	producers *producerTable // nil until the first idempotent batch
	txns      []openTxn      // by first offset
	position  int64          // bytes appended since the log was opened
	tail      tailRing
	cursors   *cursors // where readers of ledgers went on; nil until the first
	waiters   waiterList
	drained   chan struct{} // closed when a closed log is not busy any more

	slot                   int  // set when the log is registered
	prevOfSlot, nextOfSlot *Log // of the slotIndex, under its lock
}

// segment is a ledger of the chain that this log writes, or wrote and has not
// yet sealed.
type segment struct {
	id     ledger.ID
	writer ledger.Writer
	h      *handle

	base int64 // offset of its first record
	end  int64 // after its last record; valid once it takes no more appends

	degradable ledger.Degradable // the writer, if it can tell; else nil
	asked      int64             // ms; when it was asked last
	worn       bool              // what it said

	next          int64 // id of the next entry
	bytes         int64 // of all entries
	inflight      int   // entries without an answer
	snapshot      int64 // entry id of the last snapshot, -1: none
	since         int64 // bytes since then
	snapshotBytes int64 // of the last snapshot
	index         index
	aborted       []abortedTxn
	created       int64 // ms
	maxTimestamp  int64 // of what is durable, noTimestamp if there is none

	written    int64  // wall clock of its last append, ms; valid once it takes no more
	finalState []byte // producer state as of end
	final      *finalEntry
	finished   bool  // the final entry was tried and answered
	retryAfter int64 // ms; sealing is not tried before
}

// work is a set of things to do in the background.
type work uint8

const (
	workLedger  work = 1 << iota // make the next ledger
	workSeal                     // seal what takes no more appends
	workRetain                   // drop ledgers that retention or DeleteRecords has freed
	workAbandon                  // let go of the writers of a log that failed
)

// schedule asks for a worker. l.mu is held.
func (l *Log) schedule(w work) {
	l.work |= w
	hurry := (w == workLedger && l.seg == nil || w == workAbandon) && !l.hurried && !l.served
	if l.queued == 0 || hurry {
		l.queued++
		l.hurried = l.hurried || hurry
		l.store.workers.add(l, hurry)
	}
}

// Epoch returns the leader epoch in force.
func (l *Log) Epoch() int32 { return l.epoch }

// SetConfig makes c apply from the next append on.
func (l *Log) SetConfig(c *LogConfig) { l.config.Store(c) }

// Offsets returns the bounds of the log.
func (l *Log) Offsets() (start, stable, highWatermark int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if planted.Is(planted.ZeroEnd) && l.hw == l.opened {
		return 0, 0, 0
	}
	return l.start, max(l.start, l.lastStable()), l.hw
}

// Size returns the bytes of all entries of the log.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	for i := range l.chain.links {
		n += l.chain.links[i].bytes
	}
	for _, s := range l.sealing {
		n += s.bytes
	}
	if l.seg != nil {
		n += l.seg.bytes
	}
	return n
}

// EpochEnd answers OffsetForLeaderEpoch as Kafka's LeaderEpochFileCache does:
// the largest epoch <= epoch that the log knows and where the next one begins, the
// high watermark for the epoch in force. Of an epoch older than all that are left it
// returns that epoch and the start of the oldest one; of one that is too new, -1 and -1.
func (l *Log) EpochEnd(epoch int32) (int32, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case epoch < 0 || epoch > l.epoch:
		return -1, -1
	case epoch == l.epoch:
		return epoch, l.hw
	}
	found := epoch
	for i := range l.chain.links {
		k := &l.chain.links[i]
		if !k.sealed {
			break
		}
		if k.epoch > epoch {
			return found, max(k.base, l.start)
		}
		found = k.epoch
	}
	// What follows was appended in the epoch in force.
	return found, max(l.opened, l.start)
}

// shut ends the service of the log: appends that wait for a ledger fail, those
// with the tier are answered as the tier answers, readers and waiters hear why. l.mu is
// held; the caller settles.
func (l *Log) shut(why error) {
	l.closed = why
	for p := l.queueHead; p != nil; p = p.next {
		if p.seg == nil && !p.answered {
			p.answered, p.err = true, why
		}
		if p.idempotent() {
			l.store.expect(l.id, batch.Batch(p.entry.Body), false)
		}
	}
	for p := l.failed; p != nil; p = p.next { // the newest first, all before the queue
		if p.idempotent() {
			l.store.expect(l.id, batch.Batch(p.entry.Body), true)
		}
	}
	l.store.forget(l)
	l.tail.clear()
	l.cursors = nil
	l.wake()
	if l.holdsLedgers() {
		l.schedule(workAbandon)
	}
}

// idempotent says whether p is a batch that an idempotent producer numbered.
func (p *pending) idempotent() bool {
	if p.owner == nil {
		return false
	}
	b := batch.Batch(p.entry.Body)
	return b.ProducerID() >= 0 && !b.Control()
}
