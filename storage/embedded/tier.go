package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/vfs"
)

// Errors of Open, wrapped with the folder.
var (
	// ErrLocked: another process uses the data folder.
	ErrLocked = errors.New("data folder is in use by another process")
	// ErrNewerFormat: a later version of quire wrote the data folder.
	ErrNewerFormat = errors.New("data folder has a newer format than this version knows")
)

// Tier is the ledger tier of this process. It implements ledger.Tier.
type Tier struct {
	c       Config
	fs      vfs.FS
	log     *zap.Logger
	metrics *metrics

	lock        io.Closer
	syncer      vfs.Syncer // nil: the file system has none
	checkpoints *checkpointStore
	chunks      *chunkPool
	cache       fileCache
	journal     journal
	behind      writeBehind

	// One goroutine each. Close ends them in this order, since each may wait
	// for the one after it.
	journalDone sync.WaitGroup
	prepareDone sync.WaitGroup
	behindDone  sync.WaitGroup

	nextID atomic.Int64 // id of the next ledger
	count  atomic.Int64 // ledgers stored
	stuck  atomic.Bool  // ledger files cannot be written for lack of space
	failed atomic.Pointer[error]
	closed atomic.Bool

	mu      sync.Mutex
	ledgers map[ledger.ID]*ledgerState
}

var _ ledger.Tier = (*Tier)(nil)

// maxEntryBytes is above what a producer may send in one request.
const maxEntryBytes = 128 << 20

// MaxEntryBytes implements ledger.Tier.
func (*Tier) MaxEntryBytes() int { return maxEntryBytes }

// Open opens the store in c.Dir, or makes it, and replays the journal. One
// process may have it open: ErrLocked. ErrNewerFormat and ledger.ErrCorrupt
// mean that the folder is left as it is.
func Open(c Config) (*Tier, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	t := &Tier{c: c, fs: c.FS, log: c.Logger, ledgers: make(map[ledger.ID]*ledgerState)}
	if err := t.open(); err != nil {
		return nil, fmt.Errorf("ledger store in %s: %w", c.Dir, err)
	}
	return t, nil
}

func (t *Tier) open() (err error) {
	var undo []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()
	if err := t.fs.MkdirAll(t.c.Dir); err != nil {
		return err
	}
	if t.lock, err = t.fs.Lock(path.Join(t.c.Dir, "LOCK")); err != nil {
		if errors.Is(err, vfs.ErrLocked) {
			return ErrLocked
		}
		return err
	}
	undo = append(undo, func() { _ = t.lock.Close() })
	fresh, err := t.checkFormat()
	if err != nil {
		return err
	}
	if t.syncer, err = t.fs.Syncer(t.c.Dir); err != nil {
		if !errors.Is(err, vfs.ErrUnsupported) {
			return err
		}
		t.syncer = nil
	} else {
		undo = append(undo, func() { _ = t.syncer.Close() })
	}
	t.chunks = newChunkPool(t.c.ChunkBytes, t.c.MaxBacklogBytes, t.behind.press)
	t.cache = fileCache{t: t, max: t.c.MaxOpenFiles}
	undo = append(undo, t.cache.closeAll)
	t.journal.t = t
	t.journal.cond.L = &t.journal.mu
	t.journal.files = &journalFiles{t: t, direct: true, nextSize: t.c.JournalFirstBytes}
	t.journal.files.cond.L = &t.journal.files.mu
	t.behind.t = t
	t.behind.wake = make(chan struct{}, 1)
	t.behind.quit = make(chan struct{})
	if fresh {
		if err := t.makeStore(); err != nil {
			return err
		}
	}
	if t.checkpoints, err = openCheckpoints(t, fresh); err != nil {
		return err
	}
	undo = append(undo, func() { _ = t.checkpoints.f.Close() })
	if fresh {
		if err := t.writeFormat(); err != nil {
			return err
		}
	}
	undo = append(undo, func() { _ = t.journal.files.closeAll() })
	if err := t.recover(); err != nil {
		return err
	}
	if t.metrics, err = newMetrics(t); err != nil {
		return err
	}
	t.journal.files.wanted = len(t.journal.files.free) == 0
	t.journalDone.Go(t.journal.run)
	t.prepareDone.Go(t.journal.files.prepare)
	t.behindDone.Go(t.behind.run)
	return nil
}

// fail makes the store refuse writes until it is opened again.
func (t *Tier) fail(err error) {
	if t.failed.CompareAndSwap(nil, &err) {
		t.log.Error("ledger store takes no more writes until it is started again", zap.Error(err))
		if t.c.OnFailure != nil {
			t.c.OnFailure(err)
		}
	}
}

// failure returns why the store takes no more writes, nil if it does.
func (t *Tier) failure() error {
	if p := t.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Err returns why the store takes no more writes, nil while it does. A full
// disk is no failure. For health checks.
func (t *Tier) Err() error { return t.failure() }

// Refusing returns why appends are refused for now, an error that wraps
// ledger.ErrNoSpace, and nil while there is room. It asks the file system, so it
// is right even if nobody appends. For health checks.
func (t *Tier) Refusing() error {
	if t.stuck.Load() {
		return errBacklogStuck
	}
	if free, err := t.fs.FreeBytes(t.c.Dir); err == nil && free <= t.c.MinFreeBytes {
		return fmt.Errorf("%w: %d MiB are free, %d are kept", errLowSpace, free>>20, t.c.MinFreeBytes>>20)
	}
	return nil
}

func (t *Tier) isClosed() bool { return t.closed.Load() }

func (t *Tier) check(ctx context.Context) error {
	if t.isClosed() {
		return ledger.ErrClosed
	}
	return ctx.Err()
}

func (t *Tier) hold(l *ledgerState) {
	t.mu.Lock()
	l.refs++
	t.mu.Unlock()
}

// release gives back a hold; a ledger that nobody holds is forgotten once its
// bytes are in its file.
func (t *Tier) release(l *ledgerState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.refs--
	if l.refs > 0 {
		return
	}
	l.mu.Lock()
	busy := l.firstRun != nil || l.inQueue
	l.mu.Unlock()
	if !busy && t.ledgers[l.id] == l {
		delete(t.ledgers, l.id)
	}
}

// forget takes a deleted ledger from the table once its file is gone.
func (t *Tier) forget(l *ledgerState) {
	t.mu.Lock()
	if t.ledgers[l.id] == l {
		delete(t.ledgers, l.id)
	}
	t.mu.Unlock()
}

// acquire returns the state of a ledger, loaded and held. With anyway it is
// returned even if it cannot be loaded.
func (t *Tier) acquire(id ledger.ID, anyway bool) (*ledgerState, error) {
	t.mu.Lock()
	l := t.ledgers[id]
	if l == nil {
		l = &ledgerState{id: id, t: t}
		t.ledgers[id] = l
	}
	l.refs++
	t.mu.Unlock()
	l.loadOnce.Do(func() { l.loadErr = l.load() })
	err := l.loadErr
	l.mu.Lock()
	if l.deleted {
		err = fmt.Errorf("ledger %d: %w", id, ledger.ErrNotFound)
	}
	l.mu.Unlock()
	if err != nil && (!anyway || errors.Is(err, ledger.ErrNotFound)) {
		t.mu.Lock()
		if l.loadErr != nil && t.ledgers[id] == l {
			delete(t.ledgers, id) // so that the next one tries again
		}
		t.mu.Unlock()
		t.release(l)
		return nil, err
	}
	return l, nil
}

// load reads from the file what a ledger of an earlier process is.
func (l *ledgerState) load() error {
	f, err := l.t.cache.get(l.id, false)
	if err != nil {
		return err
	}
	defer f.release()
	h, err := readLedgerHeader(f, l.id)
	if err != nil {
		return err
	}
	lay, err := readLayout(f, l.id, h, l.t.c.indexEvery, false, -1)
	if err != nil {
		return err
	}
	l.setLayout(h, lay)
	return nil
}

func (l *ledgerState) setLayout(h ledgerHeader, lay layout) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.props = h.props
	l.index = lay.index
	l.tail = lay.tail
	l.acked = lay.tail.next - 1
	l.ackedBytes = lay.tail.bytes
	l.sealed = lay.tail.sealed
	l.flushed = lay.tail.end
	l.fileIndex = lay.tail.indexPos
	if h.slotOK {
		l.slotIndex = h.slot.indexPos
	}
	l.ended = fmt.Errorf("ledger %d: %w", l.id, ledger.ErrFenced)
	if l.sealed {
		l.ended = fmt.Errorf("ledger %d: %w", l.id, ledger.ErrSealed)
	}
}

// do sends a control record through the journal and waits for it.
func (t *Tier) do(ctx context.Context, l *ledgerState, c *control) error {
	l.push(&c.Append, -1)
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("ledger %d: %w", l.id, ctx.Err())
	}
}

// Reserve implements ledger.Reserver. The next ledger that is made, or the next
// checkpoint, makes it durable.
func (t *Tier) Reserve(last ledger.ID) {
	for {
		next := t.nextID.Load()
		if int64(last) < next || t.nextID.CompareAndSwap(next, int64(last)+1) {
			return
		}
	}
}

// Create implements ledger.Tier.
func (t *Tier) Create(ctx context.Context, props ledger.Properties) (ledger.Writer, error) {
	if err := t.check(ctx); err != nil {
		return nil, fmt.Errorf("create a ledger: %w", err)
	}
	id := ledger.ID(t.nextID.Add(1) - 1)
	head, err := makeLedgerHeader(id, props)
	if err != nil {
		return nil, fmt.Errorf("create a ledger: %w", err)
	}
	l := &ledgerState{id: id, t: t, refs: 1, acked: ledger.NoEntry, flushed: int64(len(head))}
	l.props = make(ledger.Properties, len(props))
	for k, v := range props {
		l.props[k] = v
	}
	l.loadOnce.Do(func() {})
	t.mu.Lock()
	t.ledgers[id] = l
	t.mu.Unlock()
	c := newControl(runCreate)
	c.body = head
	if err := t.do(ctx, l, c); err != nil {
		t.mu.Lock()
		l.refs--
		t.mu.Unlock()
		if ctx.Err() == nil {
			t.forget(l)
		}
		return nil, fmt.Errorf("create a ledger: %w", err)
	}
	return &writer{l: l}, nil
}

// Open implements ledger.Tier.
func (t *Tier) Open(ctx context.Context, id ledger.ID) (ledger.Reader, error) {
	if err := t.check(ctx); err != nil {
		return nil, fmt.Errorf("open ledger %d: %w", id, err)
	}
	l, err := t.acquire(id, false)
	if err != nil {
		return nil, err
	}
	return &reader{l: l}, nil
}

// Recover implements ledger.Tier.
func (t *Tier) Recover(ctx context.Context, id ledger.ID) (ledger.Reader, error) {
	if err := t.check(ctx); err != nil {
		return nil, fmt.Errorf("recover ledger %d: %w", id, err)
	}
	l, err := t.acquire(id, false)
	if err != nil {
		return nil, err
	}
	r := &reader{l: l}
	if _, sealed := r.Last(); sealed {
		return r, nil
	}
	c := newControl(runSeal)
	c.then = fmt.Errorf("ledger %d: %w", id, ledger.ErrFenced)
	if err := t.do(ctx, l, c); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("recover: %w", err)
	}
	return r, nil
}

// Delete implements ledger.Tier.
func (t *Tier) Delete(ctx context.Context, id ledger.ID) error {
	if err := t.check(ctx); err != nil {
		return fmt.Errorf("delete ledger %d: %w", id, err)
	}
	l, err := t.acquire(id, true)
	if err != nil {
		if errors.Is(err, ledger.ErrNotFound) {
			return nil
		}
		return err
	}
	defer t.release(l)
	if err := t.do(ctx, l, newControl(runDelete)); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

// List implements ledger.Tier. Ledgers that are created or deleted meanwhile
// may be listed or not.
func (t *Tier) List(ctx context.Context, f func(ledger.Info) bool) error {
	if err := t.check(ctx); err != nil {
		return fmt.Errorf("list ledgers: %w", err)
	}
	names, err := t.fs.List(t.ledgerDir())
	if err != nil {
		return fmt.Errorf("list ledgers: %w", err)
	}
	seen := make(map[ledger.ID]bool, len(names))
	for _, name := range names {
		if id, ok := ledgerNumber(name); ok {
			seen[id] = true
		}
	}
	t.mu.Lock()
	for id := range t.ledgers {
		seen[id] = true // its file may not be made yet
	}
	t.mu.Unlock()
	for id := range seen {
		if err := t.check(ctx); err != nil {
			return fmt.Errorf("list ledgers: %w", err)
		}
		info, err := t.info(id)
		if errors.Is(err, ledger.ErrNotFound) {
			continue
		}
		if err != nil {
			// A damaged ledger is listed all the same, so that it can be deleted.
			t.log.Warn("ledger cannot be read", zap.Error(err))
			info = ledger.Info{ID: id, LastEntry: ledger.NoEntry}
		}
		if !f(info) {
			return nil
		}
	}
	return nil
}

func (t *Tier) info(id ledger.ID) (ledger.Info, error) {
	t.mu.Lock()
	l := t.ledgers[id]
	t.mu.Unlock()
	if l == nil {
		f, err := t.cache.get(id, false)
		if err != nil {
			return ledger.Info{}, err
		}
		defer f.release()
		h, err := readLedgerHeader(f, id)
		if err != nil {
			return ledger.Info{}, err
		}
		if h.slotOK && h.slot.sealed {
			return ledger.Info{ID: id, Sealed: true, LastEntry: h.slot.lastEntry, Bytes: h.slot.bytes, Properties: h.props}, nil
		}
	}
	l, err := t.acquire(id, false)
	if err != nil {
		return ledger.Info{}, err
	}
	defer t.release(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	return ledger.Info{ID: id, Sealed: l.sealed, LastEntry: l.acked, Bytes: l.ackedBytes, Properties: l.props}, nil
}

// Close implements ledger.Tier. It leaves a checkpoint behind, so that the next
// start has nothing to replay.
func (t *Tier) Close() error {
	if !t.closed.CompareAndSwap(false, true) {
		return nil
	}
	j := &t.journal
	j.mu.Lock()
	j.closing = true
	j.parked = false
	j.cond.Signal()
	j.mu.Unlock()
	t.journalDone.Wait()
	j.files.stop()
	t.prepareDone.Wait()
	close(t.behind.quit)
	t.behindDone.Wait()
	var errs []error
	if t.failure() == nil {
		errs = append(errs, t.behind.checkpoint())
	}
	t.cache.closeAll()
	errs = append(errs, j.files.closeAll(), t.checkpoints.f.Close())
	if t.syncer != nil {
		errs = append(errs, t.syncer.Close())
	}
	t.chunks.trim(0)
	if t.behind.block != nil {
		freeAligned(t.behind.block)
	}
	t.metrics.unregister()
	errs = append(errs, t.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the ledger store in %s: %w", t.c.Dir, err)
	}
	return nil
}
