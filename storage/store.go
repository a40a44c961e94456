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
	started       int64 // ms
	metrics       *metrics
	maxBatchBytes int // that fit into an entry of the tier

	shards  [shards]shard
	tail    tailCache
	cold    *budget
	inflate inflation
	handles handles
	workers workers

	openMu  sync.Mutex
	opening map[LogID]*opening
	closing bool

	ctx    context.Context // of everything in the background
	cancel context.CancelFunc
	wg     sync.WaitGroup // the sweeper and the workers
}

// shards spread the map of logs, so that lookups of different cores do not meet.
const shards = 64

type shard struct {
	mu    sync.RWMutex
	open  map[LogID]*Log
	epoch map[LogID]int32 // to announce for logs with a record that are not open

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
	s := &Store{c: c, maxBatchBytes: entry - headBytes, started: c.Now().UnixMilli(), opening: make(map[LogID]*opening)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.handles.byID = make(map[ledger.ID]*handle)
	s.cold = newBudget(c.ColdReadBytes)
	s.inflate = newInflation()
	s.workers.store = s
	s.tail.budget = c.TailCacheBytes
	for i := range s.shards {
		s.shards[i].open = make(map[LogID]*Log)
		s.shards[i].epoch = make(map[LogID]int32)
		s.shards[i].expected = make(map[LogID]map[int64]expectation)
	}
	var bad error
	_, err := c.Meta.List(ctx, c.Prefix+"log/", func(kv meta.KV) bool {
		id, ok := s.parseChainKey(kv.Key)
		if !ok {
			return true
		}
		epoch, err := decodeEpoch(kv.Value)
		if err != nil {
			bad = fmt.Errorf("chain at %s: %w", kv.Key, err)
			return false
		}
		s.shard(id).epoch[id] = epoch + 1
		return true
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("list the logs: %w", err)
	}
	if s.metrics, err = newMetrics(s); err != nil {
		s.cancel()
		return nil, err
	}
	s.wg.Add(1)
	go s.sweeper()
	return s, nil
}

// Log returns an open log, nil if it is not open. It never blocks.
func (s *Store) Log(id LogID) *Log {
	h := s.shard(id)
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.open[id]
}

// Epoch returns the leader epoch to announce for a log: of an open log its
// epoch, else the one that opening it will give. It never goes back and never blocks.
func (s *Store) Epoch(id LogID) int32 {
	h := s.shard(id)
	h.mu.RLock()
	defer h.mu.RUnlock()
	if l := h.open[id]; l != nil {
		return l.epoch
	}
	return h.epoch[id]
}

// Unopened calls f for each log that has a record and is not open, until f
// returns false. Retention works on open logs only: whoever knows the topics opens the others.
func (s *Store) Unopened(f func(LogID) bool) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.RLock()
		ids := make([]LogID, 0, len(h.epoch))
		for id := range h.epoch {
			if h.open[id] == nil {
				ids = append(ids, id)
			}
		}
		h.mu.RUnlock()
		for _, id := range ids {
			if !f(id) {
				return
			}
		}
	}
}

// register makes l the open log of its id.
func (s *Store) register(l *Log) error {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	if s.closing {
		return fmt.Errorf("log %s: %w", logName(l.id), ErrClosed)
	}
	h := s.shard(l.id)
	h.mu.Lock()
	h.open[l.id] = l
	delete(h.epoch, l.id)
	for producer, x := range h.expected[l.id] {
		if l.producers.get(producer) == nil {
			if l.producers == nil {
				l.producers = new(producerTable)
			}
			p := l.producers.add(producer, s.c.MaxProducersPerLog)
			p.expected, p.seen = x, s.c.Now().UnixMilli()
		}
	}
	delete(h.expected, l.id)
	h.mu.Unlock()
	s.metrics.openLogs.Inc()
	return nil
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
	s.metrics.openLogs.Dec()
	if l.chain.rev != 0 {
		h.epoch[l.id] = l.epoch + 1
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

	var drained []chan struct{}
	for i := range s.shards {
		for _, l := range s.logs(i) {
			if c := l.closeDown(); c != nil {
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

// closeDown ends the service of the log and returns what is closed when its
// ledgers are sealed; nil if it has none.
func (l *Log) closeDown() chan struct{} {
	l.mu.Lock()
	var c chan struct{}
	if l.closed == nil {
		l.shut(fmt.Errorf("log %s: %w", logName(l.id), ErrClosed))
	}
	if l.seg != nil || len(l.sealing) > 0 {
		if l.drained == nil {
			l.drained = make(chan struct{})
		}
		c = l.drained
	}
	done := l.settle()
	l.mu.Unlock()
	deliver(done)
	return c
}

// workers run what logs have to do in the background: at most maxWorkers at a
// time, none when there is nothing to do.
type workers struct {
	store *Store

	mu      sync.Mutex
	waiting []*Log
	running int
	stopped bool
}

const maxWorkers = 32

// add asks for a worker for l. l.mu is held.
func (w *workers) add(l *Log) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	w.waiting = append(w.waiting, l)
	if w.running < maxWorkers {
		w.running++
		w.store.wg.Add(1)
		go w.run()
	}
}

func (w *workers) run() {
	defer w.store.wg.Done()
	for {
		w.mu.Lock()
		if len(w.waiting) == 0 || w.stopped {
			w.running--
			w.mu.Unlock()
			return
		}
		l := w.waiting[0]
		w.waiting[0] = nil
		w.waiting = w.waiting[1:]
		if len(w.waiting) == 0 {
			w.waiting = nil
		}
		w.mu.Unlock()
		l.serve(w.store.ctx)
	}
}

// stop lets the workers end after what they are at.
func (w *workers) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.waiting = nil
}

// serve does the work that was scheduled for l.
func (l *Log) serve(ctx context.Context) {
	for {
		l.mu.Lock()
		w := l.work
		l.work = 0
		if w == 0 {
			l.queued = false
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
	s.removeOrphans(s.ctx)
	tick := time.NewTicker(min(s.c.IdleCloseAfter/2+time.Millisecond, s.c.RetentionInterval, 30*time.Second))
	defer tick.Stop()
	orphans := time.NewTicker(time.Hour)
	defer orphans.Stop()
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
		case <-orphans.C:
			s.removeOrphans(s.ctx)
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
