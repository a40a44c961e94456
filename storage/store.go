package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
)

// Store keeps the logs of one node. Its methods may be called from any goroutine.
type Store struct {
	c             StoreConfig
	metrics       *metrics
	maxBatchBytes int // that fit into an entry of the tier

	shards  [shards]shard
	slots   slotIndex
	tail    tailCache
	cold    *budget
	inflate inflation
	handles handles
	workers workers

	// openMu comes before the locks of shards; a log's mu is never taken under it.
	openMu  sync.Mutex
	opening map[LogID]*opening
	configs map[[16]byte]*LogConfig // of topics that changed since the Store opened
	widths  map[[16]byte]int32      // past the largest partition that was opened, by topic
	closing bool

	ctx    context.Context // of everything in the background
	cancel context.CancelFunc
	wg     sync.WaitGroup // the sweeper, the follower of records and the workers
}

// shards spread the map of logs, so that lookups of different cores do not meet.
const shards = 64

type shard struct {
	mu    sync.RWMutex
	open  map[LogID]*Log
	known map[LogID]known // logs with a record, but those that were open all the time

	// Of logs that failed: the first batch of each producer that may not be
	// stored, for the next opening.
	expected map[LogID]map[int64]expectation
}

// maxExpected bounds how many producers of a failed log are remembered.
const maxExpected = 10_000

// expect remembers for the next opening of a log that b, of a producer which is
// perhaps not known then, is not stored. older says that b was sent before all
// that were remembered so far.
func (s *Store) expect(id LogID, b batch.Batch, older bool) {
	if s.c.Serves != nil {
		return // see Log.checkFirst
	}
	h := s.shard(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	of := h.expected[id]
	if of == nil {
		of = make(map[int64]expectation)
		h.expected[id] = of
	}
	if _, ok := of[b.ProducerID()]; ok && older || !ok && len(of) < maxExpected {
		of[b.ProducerID()] = expectation{set: true, epoch: b.ProducerEpoch(), sequence: b.BaseSequence()}
	}
}

func (s *Store) shard(id LogID) *shard {
	// Topic ids are random.
	return &s.shards[(uint32(id.Topic[15])+uint32(id.Partition))%shards]
}

// Open opens the store. It reads which logs exist, not the logs. The Tier and
// the Meta of c stay the caller's to close, after the Store.
func Open(ctx context.Context, c StoreConfig) (*Store, error) {
	if c.Tier == nil || c.Meta == nil {
		return nil, errors.New("storage: StoreConfig needs a Tier and a Meta")
	}
	c.setDefaults()
	entry := c.Tier.MaxEntryBytes()
	c.MaxProducersPerLog = min(c.MaxProducersPerLog, max(entry/maxProducerBytes, 1))
	s := &Store{c: c, maxBatchBytes: entry - headBytes, opening: make(map[LogID]*opening),
		configs: make(map[[16]byte]*LogConfig), widths: make(map[[16]byte]int32)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.handles.byID = make(map[ledger.ID]*handle)
	s.cold = newBudget(c.ColdReadBytes)
	s.inflate = newInflation()
	s.workers.store = s
	s.tail.budget = c.TailCacheBytes
	for i := range s.shards {
		s.shards[i].open = make(map[LogID]*Log)
		s.shards[i].known = make(map[LogID]known)
		s.shards[i].expected = make(map[LogID]map[int64]expectation)
	}
	taken := make(map[int]ledger.ID) // the largest id of each tier
	revision, err := s.list(ctx, func(id LogID, r recordHead, kv *meta.KV) {
		// Without Serves there is one node, and nobody has the log open.
		s.shard(id).known[id] = known{epoch: r.epoch, next: c.Serves == nil, rev: kv.Modified}
		chain, err := decodeChain(*kv)
		if err != nil {
			return // whoever opens the log is told
		}
		for i := range chain.links {
			tier, _ := TierOf(chain.links[i].id)
			taken[tier] = max(taken[tier], chain.links[i].id)
		}
	})
	if err != nil {
		s.cancel()
		return nil, err
	}
	if r, ok := c.Tier.(ledger.Reserver); ok {
		// A tier that came back without its latest files must not give the ids of their
		// ledgers to others: chains would take those for their own, read and delete them.
		for _, id := range taken {
			r.Reserve(id)
		}
	}
	if s.metrics, err = newMetrics(s); err != nil {
		s.cancel()
		return nil, err
	}
	s.wg.Add(2)
	go s.sweeper()
	go s.follow(revision)
	return s, nil
}

// Log returns an open log, nil if it is not open. It never blocks.
func (s *Store) Log(id LogID) *Log {
	h := s.shard(id)
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.open[id]
}

// register makes l the open log of its id, unless that is not to be any more. The
// error is errConflict if the record is a later one than l was opened with.
func (s *Store) register(l *Log, o *opening) error {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	switch {
	case s.closing:
		return fmt.Errorf("log %s: %w", logName(l.id), ErrClosed)
	case o.revoked != nil:
		return o.revoked
	case !s.serves(l.id):
		return errNotServed
	}
	if c := s.configs[l.id.Topic]; c != nil {
		l.config.Store(c)
	}
	h := s.shard(l.id)
	h.mu.Lock()
	defer h.mu.Unlock()
	k, heard := h.known[l.id]
	if k.rev > l.chain.rev {
		return fmt.Errorf("%w: epoch %d was opened meanwhile", errConflict, k.epoch)
	}
	h.open[l.id] = l
	l.slot = o.slot
	s.slots.add(l)
	delete(h.known, l.id)
	if !heard || l.epoch <= k.epoch+1 { // else somebody else had the log open
		l.adopt(h.expected[l.id], s.c.MaxProducersPerLog, s.c.Now().UnixMilli())
	}
	delete(h.expected, l.id)
	s.widths[l.id.Topic] = max(s.widths[l.id.Topic], l.id.Partition+1)
	s.metrics.openLogs.Inc()
	return nil
}

// adopt takes over what is expected of producers of which the log knows nothing.
func (l *Log) adopt(expected map[int64]expectation, maxProducers int, now int64) {
	for producer, x := range expected {
		if l.producers.get(producer) == nil {
			if l.producers == nil {
				l.producers = new(producerTable)
			}
			p := l.producers.add(producer, maxProducers)
			p.expected, p.seen = x, now
		}
	}
}

// forget takes l out of the open logs. l.mu is held.
func (s *Store) forget(l *Log) {
	h := s.shard(l.id)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open[l.id] != l {
		return
	}
	delete(h.open, l.id)
	s.slots.remove(l)
	s.metrics.openLogs.Dec()
	if k, ok := h.known[l.id]; l.chain.rev != 0 && (!ok || k.epoch <= l.epoch) {
		h.known[l.id] = known{epoch: l.epoch, next: true, rev: max(k.rev, l.chain.rev)}
	}
}

// logs returns the open logs of one shard.
func (s *Store) logs(i int) []*Log {
	h := &s.shards[i]
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := make([]*Log, 0, len(h.open))
	for _, l := range h.open {
		all = append(all, l)
	}
	return all
}

// Close seals the ledgers of all logs and closes them, as far as ctx allows. What
// it does not get done, the next opening of the log recovers.
func (s *Store) Close(ctx context.Context) error {
	s.openMu.Lock()
	if s.closing {
		s.openMu.Unlock()
		return nil
	}
	s.closing = true
	s.openMu.Unlock()

	var drained []<-chan struct{}
	for i := range s.shards {
		for _, l := range s.logs(i) {
			if c := l.closeDown(ErrClosed); c != nil {
				drained = append(drained, c)
			}
		}
	}
	var err error
	for _, c := range drained {
		select {
		case <-c:
			continue
		case <-ctx.Done():
			err = fmt.Errorf("close the logs: %w", ctx.Err())
		}
		break
	}
	s.cancel()
	s.workers.stop()
	s.wg.Wait()
	s.handles.closeAll()
	s.metrics.unregister()
	return err
}

// workers run what logs have to do in the background: at most maxWorkers at a
// time, none when there is nothing to do.
type workers struct {
	store *Store

	mu      sync.Mutex
	closing []*Log // closed ones, which go first: the next owner waits for them
	hurried []*Log // whose appends wait for a ledger: clients wait
	waiting []*Log
	running int
	behind  int // of these, how many do what nobody waits for
	stopped bool
}

const (
	maxWorkers = 40
	// maxBehind leaves some for those who wait: a hundred thousand ledgers may be due
	// to be sealed at once.
	maxBehind = 32
)

// add asks for a worker for l, a hurried one if its appends wait. l.mu is held.
func (w *workers) add(l *Log, hurried bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	switch {
	case l.closed != nil:
		w.closing = append(w.closing, l)
	case hurried:
		w.hurried = append(w.hurried, l)
	default:
		w.waiting = append(w.waiting, l)
		if w.behind == maxBehind {
			return // one of those takes it
		}
	}
	if w.running < maxWorkers {
		w.running++
		w.store.wg.Add(1)
		go w.run()
	}
}

func (w *workers) run() {
	defer w.store.wg.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		behind, only := 0, ^work(0)
		l := takeFirst(&w.closing)
		if l == nil {
			l, only = takeFirst(&w.hurried), workLedger
		}
		if l == nil && w.behind < maxBehind {
			l, only, behind = takeFirst(&w.waiting), ^work(0), 1
		}
		if l == nil {
			w.running--
			return
		}
		w.behind += behind
		w.mu.Unlock()
		l.serve(w.store.ctx, only)
		w.mu.Lock()
		w.behind -= behind
	}
}

// takeFirst takes the first log of a queue, nil if it is empty.
func takeFirst(queue *[]*Log) *Log {
	q := *queue
	if len(q) == 0 {
		return nil
	}
	l := q[0]
	q[0] = nil
	if *queue = q[1:]; len(*queue) == 0 {
		*queue = nil
	}
	return l
}

// stop lets the workers end after what they are at.
func (w *workers) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.waiting, w.hurried, w.closing = nil, nil, nil
}

// serve does the work that was scheduled for l and is in only, unless another worker is
// at l. Whoever is the last to leave sees to it that somebody comes for what is left.
func (l *Log) serve(ctx context.Context, only work) {
	l.mu.Lock()
	if l.served {
		l.queued--
		l.mu.Unlock()
		return
	}
	l.served = true
	l.mu.Unlock()
	for {
		l.mu.Lock()
		w := l.work & only
		l.work, l.hurried = l.work&^w, false
		if w == 0 {
			l.queued--
			l.served = false
			if l.work != 0 && l.queued == 0 {
				l.queued++
				l.store.workers.add(l, false)
			}
			if l.drained != nil && !l.busy() {
				close(l.drained)
				l.drained = nil
			}
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		l.admin.Lock()
		if w&workAbandon != 0 {
			l.within(ctx, l.abandon)
		}
		if w&workLedger != 0 {
			l.within(ctx, l.makeLedger)
		}
		if w&workSeal != 0 {
			l.within(ctx, func(ctx context.Context) { _ = l.seal(ctx) })
		}
		if w&workRetain != 0 {
			l.within(ctx, func(ctx context.Context) { l.retain(ctx) })
		}
		l.admin.Unlock()
	}
}

func (l *Log) within(ctx context.Context, f func(context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	f(ctx)
}

// sweeper looks at all logs now and then: one goroutine for all of them.
func (s *Store) sweeper() {
	defer s.wg.Done()
	j := janitor{store: s}
	j.look(s.ctx)
	tick := time.NewTicker(min(s.c.IdleCloseAfter/2+time.Millisecond, s.c.RetentionInterval, 30*time.Second))
	defer tick.Stop()
	retained := s.c.Now()
	for {
		select {
		case <-tick.C:
			now := s.c.Now()
			due := now.Sub(retained) >= s.c.RetentionInterval
			if due {
				retained = now
			}
			s.sweep(now, due)
			j.look(s.ctx)
		case <-s.ctx.Done():
			return
		}
	}
}

// sweep closes idle ledgers, and degraded ones that nobody appends to at the moment, tries again what was put off and, if retain is set, applies retention.
func (s *Store) sweep(now time.Time, retain bool) {
	for i := range s.shards {
		for _, l := range s.logs(i) {
			l.sweep(now, retain)
		}
		if s.ctx.Err() != nil {
			return
		}
	}
}

func (l *Log) sweep(now time.Time, retain bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed != nil {
		return
	}
	ms := now.UnixMilli()
	if l.seg != nil && l.queueHead == nil && l.failure == nil &&
		(ms-l.touched >= l.store.c.IdleCloseAfter.Milliseconds() || l.seg.degraded(ms)) {
		l.retire(encodeState(l.producers))
	}
	if len(l.sealing) > 0 {
		l.schedule(workSeal)
	}
	if retain {
		if l.producers != nil {
			l.producers.expire(ms - l.store.c.ProducerExpiry.Milliseconds())
			if l.producers.len() == 0 && l.queueHead == nil {
				l.producers = nil
			}
		}
		if l.retentionDue(ms) {
			l.schedule(workRetain)
		}
	}
}
