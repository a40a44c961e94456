package storage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
)

// fakeTier keeps ledgers in memory. Appends are answered by step, or by a
// goroutine of its own unless it is held.
type fakeTier struct {
	mu      sync.Mutex
	more    *sync.Cond
	next    ledger.ID
	ledgers map[ledger.ID]*fakeLedger
	queue   []fakeAppend // in the order of arrival
	held    bool
	noSpace bool
	closed  bool
	done    chan struct{}

	// fault, if set, may fail an operation: create, recover, open, close,
	// delete, read, append. It is called without mu.
	fault func(op string, id ledger.ID) error
	// sloppy makes the tier forget that an ErrNoSpace fails what is queued behind it.
	sloppy bool
	reads  int // entries read

	maxEntryBytes int
	degraded      atomic.Bool // what writers say
}

type fakeAppend struct {
	l *fakeLedger
	a *ledger.Append
}

type fakeLedger struct {
	t       *fakeTier
	id      ledger.ID
	props   ledger.Properties
	entries [][]byte
	bytes   int64
	sealed  bool
	fenced  bool
	failed  error
	corrupt map[int64]bool
	deleted bool
}

func newFakeTier() *fakeTier {
	t := &fakeTier{maxEntryBytes: 64 << 20, next: 1, ledgers: make(map[ledger.ID]*fakeLedger), done: make(chan struct{})}
	t.more = sync.NewCond(&t.mu)
	go t.run()
	return t
}

func (t *fakeTier) run() {
	defer close(t.done)
	for {
		t.mu.Lock()
		for !t.closed && (t.held || len(t.queue) == 0) {
			t.more.Wait()
		}
		closed := t.closed
		t.mu.Unlock()
		if closed {
			for t.step() {
			}
			return
		}
		t.step()
	}
}

// hold stops the answers until release.
func (t *fakeTier) hold(held bool) {
	t.mu.Lock()
	t.held = held
	t.more.Broadcast()
	t.mu.Unlock()
}

func (t *fakeTier) setNoSpace(v bool) {
	t.mu.Lock()
	t.noSpace = v
	t.mu.Unlock()
}

func (t *fakeTier) setFault(f func(op string, id ledger.ID) error) {
	t.mu.Lock()
	t.fault = f
	t.mu.Unlock()
}

func (t *fakeTier) failing(op string, id ledger.ID) error {
	t.mu.Lock()
	f := t.fault
	t.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(op, id)
}

// step answers the oldest append; false if there is none.
func (t *fakeTier) step() bool {
	t.mu.Lock()
	if len(t.queue) == 0 {
		t.mu.Unlock()
		return false
	}
	q := t.queue[0]
	t.queue = t.queue[1:]
	fault := t.fault
	t.mu.Unlock()
	var err error
	if fault != nil {
		err = fault("append", q.l.id)
	}
	t.mu.Lock()
	batch := []fakeAppend{q}
	errs := []error{q.l.store(q.a, err)}
	if errors.Is(errs[0], ledger.ErrNoSpace) && !t.sloppy {
		var rest []fakeAppend
		for _, o := range t.queue {
			if o.l == q.l {
				batch, errs = append(batch, o), append(errs, errs[0])
			} else {
				rest = append(rest, o)
			}
		}
		t.queue = rest
	}
	t.more.Broadcast()
	t.mu.Unlock()
	for i, o := range batch {
		o.a.Done.Appended(o.a, errs[i])
	}
	return true
}

// store is under t.mu.
func (l *fakeLedger) store(a *ledger.Append, err error) error {
	switch {
	case l.failed != nil:
		return l.failed
	case l.t.closed:
		return ledger.ErrClosed
	case l.fenced || l.deleted:
		return ledger.ErrFenced
	case l.sealed:
		return ledger.ErrSealed
	case err == nil && l.t.noSpace:
		return ledger.ErrNoSpace
	case err != nil:
		if !errors.Is(err, ledger.ErrNoSpace) {
			l.failed = err
		}
		return err
	}
	a.Entry = int64(len(l.entries))
	e := slices.Concat(a.Head, a.Body)
	l.entries = append(l.entries, e)
	l.bytes += int64(len(e))
	return nil
}

func (t *fakeTier) Create(_ context.Context, props ledger.Properties) (ledger.Writer, error) {
	t.mu.Lock()
	id := t.next
	t.mu.Unlock()
	if err := t.failing("create", id); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return nil, ledger.ErrClosed
	case t.noSpace:
		return nil, ledger.ErrNoSpace
	}
	l := &fakeLedger{t: t, id: t.next, props: maps.Clone(props), corrupt: make(map[int64]bool)}
	t.ledgers[l.id] = l
	t.next++
	return l, nil
}

func (t *fakeTier) Open(_ context.Context, id ledger.ID) (ledger.Reader, error) {
	if err := t.failing("open", id); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.ledgers[id]; l != nil {
		return &fakeReader{l}, nil
	}
	return nil, fmt.Errorf("ledger %d: %w", id, ledger.ErrNotFound)
}

func (t *fakeTier) Recover(_ context.Context, id ledger.ID) (ledger.Reader, error) {
	if err := t.failing("recover", id); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.ledgers[id]
	if l == nil {
		return nil, fmt.Errorf("ledger %d: %w", id, ledger.ErrNotFound)
	}
	if !l.sealed {
		l.fenced, l.sealed = true, true
	}
	return &fakeReader{l}, nil
}

func (t *fakeTier) Delete(_ context.Context, id ledger.ID) error {
	if err := t.failing("delete", id); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.ledgers[id]; l != nil {
		l.deleted = true
		delete(t.ledgers, id)
	}
	return nil
}

func (t *fakeTier) Reserve(last ledger.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = max(t.next, last+1)
}

func (t *fakeTier) MaxEntryBytes() int { return t.maxEntryBytes }

func (t *fakeTier) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.ledgers)
}

func (t *fakeTier) List(_ context.Context, f func(ledger.Info) bool) error {
	t.mu.Lock()
	var all []ledger.Info
	for id, l := range t.ledgers {
		all = append(all, ledger.Info{ID: id, Sealed: l.sealed, LastEntry: int64(len(l.entries)) - 1, Bytes: l.bytes, Properties: l.props})
	}
	t.mu.Unlock()
	for _, i := range all {
		if !f(i) {
			break
		}
	}
	return nil
}

func (t *fakeTier) Close() error {
	t.mu.Lock()
	t.closed = true
	t.more.Broadcast()
	t.mu.Unlock()
	<-t.done
	return nil
}

// ids returns the ledgers there are.
func (t *fakeTier) ids() []ledger.ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.ledgers))
}

// crash returns the tier that a power cut leaves: of the appends without an
// answer, keep(n) of each ledger's n were stored. t stores nothing from then on.
func (t *fakeTier) crash(keep func(n int) int) *fakeTier {
	c := newFakeTier()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	c.next = t.next
	waiting := make(map[ledger.ID][]*ledger.Append)
	for _, q := range t.queue {
		waiting[q.l.id] = append(waiting[q.l.id], q.a)
	}
	for _, id := range slices.Sorted(maps.Keys(t.ledgers)) {
		l := t.ledgers[id]
		n := &fakeLedger{t: c, id: id, props: l.props, entries: slices.Clone(l.entries), bytes: l.bytes,
			sealed: l.sealed, corrupt: maps.Clone(l.corrupt)}
		if w := waiting[id]; len(w) > 0 && !l.sealed && l.failed == nil {
			for _, a := range w[:keep(len(w))] {
				e := slices.Concat(a.Head, a.Body)
				n.entries = append(n.entries, e)
				n.bytes += int64(len(e))
			}
		}
		c.ledgers[id] = n
	}
	return c
}

func (l *fakeLedger) ID() ledger.ID { return l.id }

func (l *fakeLedger) Append(a *ledger.Append) {
	l.t.mu.Lock()
	if l.t.closed {
		l.t.mu.Unlock()
		go a.Done.Appended(a, ledger.ErrClosed)
		return
	}
	l.t.queue = append(l.t.queue, fakeAppend{l, a})
	l.t.more.Broadcast()
	l.t.mu.Unlock()
}

func (l *fakeLedger) Close(ctx context.Context) (ledger.Sealed, error) {
	if err := l.t.failing("close", l.id); err != nil {
		return ledger.Sealed{}, err
	}
	stop := context.AfterFunc(ctx, func() {
		l.t.mu.Lock()
		l.t.more.Broadcast()
		l.t.mu.Unlock()
	})
	defer stop()
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	for slices.ContainsFunc(l.t.queue, func(q fakeAppend) bool { return q.l == l }) {
		if ctx.Err() != nil {
			return ledger.Sealed{}, ctx.Err()
		}
		l.t.more.Wait()
	}
	switch {
	case l.failed != nil:
		return ledger.Sealed{}, l.failed
	case l.fenced:
		return ledger.Sealed{}, ledger.ErrFenced
	case l.t.closed:
		return ledger.Sealed{}, ledger.ErrClosed
	}
	l.sealed = true
	return ledger.Sealed{ID: l.id, LastEntry: int64(len(l.entries)) - 1, Bytes: l.bytes}, nil
}

func (l *fakeLedger) Reader() ledger.Reader { return &fakeReader{l} }

func (l *fakeLedger) Degraded() bool { return l.t.degraded.Load() }

type fakeReader struct{ l *fakeLedger }

func (r *fakeReader) ID() ledger.ID { return r.l.id }

func (r *fakeReader) Last() (int64, bool) {
	r.l.t.mu.Lock()
	defer r.l.t.mu.Unlock()
	return int64(len(r.l.entries)) - 1, r.l.sealed
}

func (r *fakeReader) Read(_ context.Context, first, last int64, maxBytes int) (ledger.Entries, error) {
	if err := r.l.t.failing("read", r.l.id); err != nil {
		return ledger.Entries{}, err
	}
	r.l.t.mu.Lock()
	defer r.l.t.mu.Unlock()
	es := ledger.Entries{First: first}
	if r.l.deleted {
		return es, fmt.Errorf("ledger %d: %w", r.l.id, ledger.ErrNotFound)
	}
	n := 0
	for i := first; i <= last && i < int64(len(r.l.entries)); i++ {
		if r.l.corrupt[i] {
			if i == first {
				return es, fmt.Errorf("ledger %d entry %d: %w", r.l.id, i, ledger.ErrCorrupt)
			}
			break
		}
		e := r.l.entries[i]
		if n += len(e); n > maxBytes && len(es.Data) > 0 {
			break
		}
		es.Data = append(es.Data, e)
		r.l.t.reads++
	}
	return es, nil
}

func (r *fakeReader) Close() error { return nil }

// faultyMeta puts faults before a metadata store.
type faultyMeta struct {
	meta.Store
	mu sync.Mutex
	// before, if set, may fail an operation (get, list, txn) that is not executed then.
	before func(op, key string) error
	// after, if set, may lose the answer of a transaction that was executed.
	after func(key string) error
	swaps int

	deaf      bool          // watches hear of nothing
	missed    meta.Revision // that they have not heard of
	compacted chan struct{} // closed when watches are to end with ErrCompacted; nil: not made yet
}

// lose makes watches hear of nothing from now on.
func (m *faultyMeta) lose() {
	m.mu.Lock()
	m.deaf = true
	m.mu.Unlock()
}

// compact waits until watches have missed the last change, which they were to hear of, and
// tells them so; those that are begun anew hear again.
func (m *faultyMeta) compact(t testing.TB) {
	t.Helper()
	last, _, err := m.Store.Txn(context.Background(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.missed >= last
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaf = false
	if m.compacted != nil {
		close(m.compacted)
		m.compacted = nil
	}
}

func (m *faultyMeta) Watch(ctx context.Context, prefix string, after meta.Revision) <-chan meta.Events {
	m.mu.Lock()
	if m.compacted == nil {
		m.compacted = make(chan struct{})
	}
	compacted := m.compacted
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	from, to := m.Store.Watch(ctx, prefix, after), make(chan meta.Events)
	go func() {
		defer close(to)
		defer func() {
			for range from { // which ends it
			}
		}()
		defer cancel()
		for {
			var e meta.Events
			var ok bool
			select {
			case e, ok = <-from:
			case <-compacted:
				e, ok = meta.Events{Err: meta.ErrCompacted}, true
			}
			m.mu.Lock()
			deaf := m.deaf
			if deaf {
				m.missed = max(m.missed, e.Revision)
			}
			m.mu.Unlock()
			if !ok {
				return
			}
			if deaf && e.Err == nil {
				continue
			}
			select {
			case to <- e:
			case <-ctx.Done():
				return
			}
			if e.Err != nil {
				return
			}
		}
	}()
	return to
}

func (m *faultyMeta) set(before func(op, key string) error, after func(key string) error) {
	m.mu.Lock()
	m.before, m.after = before, after
	m.mu.Unlock()
}

func (m *faultyMeta) fail(op, key string) error {
	m.mu.Lock()
	f := m.before
	m.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(op, key)
}

func (m *faultyMeta) Get(ctx context.Context, key string) (meta.KV, error) {
	if err := m.fail("get", key); err != nil {
		return meta.KV{}, err
	}
	return m.Store.Get(ctx, key)
}

func (m *faultyMeta) List(ctx context.Context, prefix string, f func(meta.KV) bool) (meta.Revision, error) {
	if err := m.fail("list", prefix); err != nil {
		return 0, err
	}
	return m.Store.List(ctx, prefix, f)
}

func (m *faultyMeta) Txn(ctx context.Context, conds []meta.Cond, ops []meta.Op) (meta.Revision, bool, error) {
	key := ops[len(ops)-1].Key
	if err := m.fail("txn", key); err != nil {
		return 0, false, err
	}
	rev, ok, err := m.Store.Txn(ctx, conds, ops)
	m.mu.Lock()
	f := m.after
	m.swaps++
	m.mu.Unlock()
	if f != nil {
		if lost := f(key); lost != nil {
			return 0, false, lost
		}
	}
	return rev, ok, err
}
