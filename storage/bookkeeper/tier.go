package bookkeeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/ledger"
)

// Tier keeps ledgers on the bookies of one cluster. It implements ledger.Tier.
// Any number of processes may have one.
type Tier struct {
	c       Config
	log     *zap.Logger
	metrics *metrics
	members *members
	held    atomic.Int64 // bytes of entries from Append to Release
	opened  time.Time

	ctx    context.Context // done when the tier is closed
	cancel context.CancelFunc
	ended  atomic.Bool

	life struct {
		sync.Mutex
		over bool
		wg   sync.WaitGroup
	}

	ready struct {
		sync.Mutex
		list    []*writer
		running bool
		idle    sync.Cond
	}

	mu         sync.Mutex
	ledgers    map[ledger.ID]*ledgerState
	writers    map[*writer]struct{}   // until they are closed
	recoveries map[*recovery]struct{} // under way
}

var _ ledger.Tier = (*Tier)(nil)

// Open connects to the metadata store's cluster; bookies are dialed when they are
// needed, so there may be none yet. ctx bounds the call alone. It returns
// metadata.ErrNotInitialised or ErrWrongCluster if the store does not hold the
// cluster that c names, and place.ErrNotEnoughBookies if the cluster has fewer
// bookies, up or not, than the ensemble takes.
func Open(ctx context.Context, c Config) (*Tier, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	instance, err := metadata.CheckInstance(ctx, c.Store, c.InstanceID)
	if err != nil {
		return nil, fmt.Errorf("bookkeeper: %w", err)
	}
	t := &Tier{
		c: c, log: c.Logger, opened: c.Now(),
		ledgers: make(map[ledger.ID]*ledgerState), writers: make(map[*writer]struct{}), recoveries: make(map[*recovery]struct{}),
	}
	t.metrics = newMetrics(t)
	registry, err := c.Store.Bookies(ctx)
	if err != nil {
		return nil, fmt.Errorf("bookkeeper: follow the bookies: %w", err)
	}
	t.members = newMembers(t, instance, registry)
	t.ctx, t.cancel = context.WithCancel(context.Background())
	if err = t.members.checkSize(t.members.readCookies(ctx)); err == nil {
		err = t.metrics.register()
	}
	if err != nil {
		t.cancel()
		registry.Close()
		return nil, err
	}
	t.ready.idle.L = &t.ready
	t.start(t.watch)
	if c.JanitorInterval > 0 {
		t.start(t.janitor)
	}
	return t, nil
}

// start runs f on a goroutine that Close waits for, unless that has begun to.
func (t *Tier) start(f func()) {
	t.life.Lock()
	defer t.life.Unlock()
	if !t.life.over {
		t.life.wg.Go(f)
	}
}

// MaxEntryBytes implements ledger.Tier.
func (t *Tier) MaxEntryBytes() int { return t.c.MaxFrameBytes - entryRoomBytes }

// reserve takes n bytes of the budget, unless they are too many. One entry is
// always taken.
func (t *Tier) reserve(n int64) bool {
	if held := t.held.Add(n); held > t.c.MaxBytes && held != n {
		t.held.Add(-n)
		return false
	}
	return true
}

func (t *Tier) giveBack(n int64) { t.held.Add(-n) }

// deliverSoon tells appends of w their outcomes on a goroutine of the tier, which
// lives while there are any to tell: after Close, too.
func (t *Tier) deliverSoon(w *writer) {
	r := &t.ready
	r.Lock()
	defer r.Unlock()
	if w.queued {
		return
	}
	w.queued = true
	r.list = append(r.list, w)
	if !r.running {
		r.running = true
		go t.deliverReady()
	}
}

func (t *Tier) deliverReady() {
	r := &t.ready
	r.Lock()
	defer r.Unlock()
	for len(r.list) > 0 {
		list := r.list
		r.list = nil
		for _, w := range list {
			w.queued = false
		}
		r.Unlock()
		for _, w := range list {
			w.deliver()
		}
		r.Lock()
	}
	r.running = false
	r.idle.Broadcast()
}

// waitReady waits until nobody is left to be told.
func (t *Tier) waitReady() {
	r := &t.ready
	r.Lock()
	defer r.Unlock()
	for r.running {
		r.idle.Wait()
	}
}

func (t *Tier) isClosed() bool { return t.ended.Load() }

func (t *Tier) check(ctx context.Context) error {
	if t.isClosed() {
		return ledger.ErrClosed
	}
	return ctx.Err()
}

// acquire returns the state of a ledger that this process knows for sure to be up
// to date, held: sealed, or with its writer here. nil if it knows none.
func (t *Tier) acquire(id ledger.ID) *ledgerState {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.ledgers[id]
	if l == nil {
		return nil
	}
	l.mu.Lock()
	known := !l.deleted && (l.sealed || l.writer != nil)
	l.mu.Unlock()
	if !known {
		return nil
	}
	l.refs++
	return l
}

// adopt returns the state of a ledger whose metadata were just read, held.
func (t *Tier) adopt(meta *metadata.Ledger, version metadata.Version) (*ledgerState, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.ledgers[ledger.ID(meta.ID)]
	if l == nil {
		var err error
		if l, err = newLedgerState(t, meta, version); err != nil {
			return nil, err
		}
		t.ledgers[l.id] = l
	} else {
		l.learn(meta, version)
	}
	l.refs++
	return l, nil
}

// release gives back a hold; a ledger that nobody holds is forgotten.
func (t *Tier) release(l *ledgerState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.refs--
	if l.refs == 0 && t.ledgers[l.id] == l {
		delete(t.ledgers, l.id)
	}
}

func (t *Tier) hold(l *ledgerState) {
	t.mu.Lock()
	l.refs++
	t.mu.Unlock()
}

// closed forgets a writer that was closed.
func (t *Tier) closed(w *writer) {
	w.l.mu.Lock()
	w.l.writer = nil
	w.l.mu.Unlock()
	t.mu.Lock()
	delete(t.writers, w)
	t.mu.Unlock()
	t.release(w.l)
}

// openWriters returns the writers that are not closed.
func (t *Tier) openWriters() []*writer {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.writers))
}

// openRecoveries returns the recoveries that are under way.
func (t *Tier) openRecoveries() []*recovery {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.recoveries))
}

// quorumsOf returns the quorums that the properties ask for, and the tier's for
// those that they do not name.
func (t *Tier) quorumsOf(props ledger.Properties) (quorums, error) {
	get := func(name string, otherwise int) (int, error) {
		s, ok := props[name]
		if !ok {
			return otherwise, nil
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0, fmt.Errorf("property %s is %q, no number", name, s)
		}
		return n, nil
	}
	var q quorums
	var err error
	if q.ensemble, err = get(ledger.PropEnsemble, t.c.Ensemble); err != nil {
		return q, err
	}
	if q.write, err = get(ledger.PropWriteQuorum, min(t.c.WriteQuorum, q.ensemble)); err != nil {
		return q, err
	}
	if q.ack, err = get(ledger.PropAckQuorum, min(t.c.AckQuorum, q.write)); err != nil {
		return q, err
	}
	return q, q.check()
}

// Create implements ledger.Tier. The properties become the ledger's custom
// metadata. With ledger.PropEnsemble, PropWriteQuorum and PropAckQuorum among them
// the ledger has these quorums. While fewer bookies take entries than the ensemble
// needs, but at least the ack quorum, the ledger gets a smaller ensemble (see
// Degraded of its writer); with still fewer it returns place.ErrNotEnoughBookies.
func (t *Tier) Create(ctx context.Context, props ledger.Properties) (ledger.Writer, error) {
	w, err := t.create(ctx, props)
	if err != nil {
		return nil, fmt.Errorf("create a ledger: %w", err)
	}
	return w, nil
}

func (t *Tier) create(ctx context.Context, props ledger.Properties) (*writer, error) {
	if err := t.check(ctx); err != nil {
		return nil, err
	}
	want, err := t.quorumsOf(props)
	if err != nil {
		return nil, err
	}
	bookies, got, err := t.members.choose(want)
	if err != nil {
		return nil, err
	}
	if got != want {
		t.log.Warn("ledger is made with fewer bookies, not enough take entries", zap.Int("ensemble", got.ensemble), zap.Int("wanted", want.ensemble))
	}
	meta := &metadata.Ledger{
		ID: metadata.NoID, Ensemble: got.ensemble, WriteQuorum: got.write, AckQuorum: got.ack,
		State: metadata.Open, LastEntry: metadata.NoEntry, Digest: t.c.Digest, Password: t.c.Password,
		Segments: []metadata.Segment{{Bookies: bookies}}, Custom: make(map[string][]byte, len(props)),
		CreatedMS: t.c.Now().UnixMilli(),
	}
	for k, v := range props {
		meta.Custom[k] = []byte(v)
	}
	// Repeated with the id and the token of the first attempt, it finds that one's ledger.
	var version metadata.Version
	if err := t.insist(ctx, func(ctx context.Context) (err error) {
		version, err = t.c.Store.Create(ctx, meta)
		return err
	}); err != nil {
		return nil, err
	}
	l, err := newLedgerState(t, meta, version)
	if err != nil {
		return nil, err
	}
	w, err := newWriter(l, want)
	if err != nil {
		return nil, err
	}
	l.writer, l.refs = w, 1
	t.mu.Lock()
	defer t.mu.Unlock()
	// Close sets ended before it looks for writers.
	if t.isClosed() {
		return nil, ledger.ErrClosed
	}
	t.ledgers[l.id] = l
	t.writers[w] = struct{}{}
	return w, nil
}

// Open implements ledger.Tier. Of a ledger that is not sealed and whose writer is
// in another process, or gone, it reads what could be seen to be acknowledged when
// it was opened: up to the last entry that is said to be in the entries after it,
// and beyond it what an ack quorum holds.
func (t *Tier) Open(ctx context.Context, id ledger.ID) (ledger.Reader, error) {
	if err := t.check(ctx); err != nil {
		return nil, fmt.Errorf("open ledger %d: %w", id, err)
	}
	if l := t.acquire(id); l != nil {
		return t.readerOf(l), nil
	}
	meta, version, err := t.read(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	l, err := t.adopt(meta, version)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if v, _ := l.look(); !v.sealed {
		if err := t.findEnd(ctx, l); err != nil {
			t.release(l)
			return nil, fmt.Errorf("open: %w", err)
		}
	}
	return t.readerOf(l), nil
}

// Delete implements ledger.Tier: it removes the metadata. The bookies drop the
// entries when they next collect garbage.
func (t *Tier) Delete(ctx context.Context, id ledger.ID) error {
	if err := t.check(ctx); err != nil {
		return fmt.Errorf("delete ledger %d: %w", id, err)
	}
	if err := t.c.Store.Delete(ctx, int64(id), metadata.AnyVersion); err != nil && !errors.Is(err, metadata.ErrNotFound) {
		return fmt.Errorf("delete: %w", err)
	}
	t.mu.Lock()
	l := t.ledgers[id]
	delete(t.ledgers, id)
	t.mu.Unlock()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	l.deleted = true
	w := l.writer
	l.mu.Unlock()
	if w != nil {
		w.stop(fmt.Errorf("ledger %d was deleted: %w", id, ledger.ErrNotFound))
	}
	return nil
}

// List implements ledger.Tier: all ledgers of the cluster, whoever made them, in
// the order of their ids. One whose metadata cannot be read comes without properties.
func (t *Tier) List(ctx context.Context, f func(ledger.Info) bool) error {
	if err := t.check(ctx); err != nil {
		return fmt.Errorf("list ledgers: %w", err)
	}
	err := t.c.Store.List(ctx, 1, func(found metadata.Listed) bool {
		i := ledger.Info{ID: ledger.ID(found.ID), LastEntry: ledger.NoEntry}
		if found.Err != nil {
			t.log.Warn("metadata of a ledger cannot be read", zap.Error(found.Err))
			return f(i)
		}
		i.Properties = make(ledger.Properties, len(found.Ledger.Custom))
		for k, v := range found.Ledger.Custom {
			i.Properties[k] = string(v)
		}
		if found.Ledger.State == metadata.Closed {
			i.Sealed, i.LastEntry, i.Bytes = true, found.Ledger.LastEntry, found.Ledger.Length
		} else {
			t.mu.Lock()
			l := t.ledgers[i.ID]
			t.mu.Unlock()
			if l != nil {
				l.addTo(&i)
			}
		}
		return f(i)
	})
	if err != nil {
		return fmt.Errorf("list ledgers: %w", err)
	}
	return nil
}

// Close implements ledger.Tier. Appends under way that are not acknowledged within
// Config.CloseTimeout fail with ErrClosed; their ledgers stay open, for a Recover.
func (t *Tier) Close() error {
	if t.ended.Swap(true) {
		return nil
	}
	t.mu.Lock()
	writers := maps.Clone(t.writers)
	t.mu.Unlock()
	timer := time.NewTimer(t.c.CloseTimeout)
	defer timer.Stop()
	patient := true
	for w := range writers {
		told := w.refuse(fmt.Errorf("ledger %d: %w", w.l.id, ledger.ErrClosed))
		if !patient {
			continue
		}
		select {
		case <-told:
		case <-timer.C:
			patient = false
		}
	}
	for w := range writers {
		w.stop(fmt.Errorf("ledger %d: %w", w.l.id, ledger.ErrClosed))
	}
	t.cancel()
	t.life.Lock()
	t.life.over = true
	t.life.Unlock()
	t.members.close()
	t.life.wg.Wait()
	t.waitReady()
	t.metrics.unregister()
	return nil
}
