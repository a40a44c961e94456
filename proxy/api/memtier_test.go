package api

import (
	"context"
	"sync"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/ledger"
)

// memTier is a ledger tier in memory whose acknowledgements a test may hold
// back. It forgets nothing and survives nothing.
type memTier struct {
	mu      sync.Mutex
	cond    *sync.Cond
	ledgers map[ledger.ID]*memLedger
	last    ledger.ID
	queue   []memAppend
	held    bool // no append is acknowledged
	creates bool // no ledger is created
	closed  bool
	failAll error // of appends from now on
	reads   int
	forgets bool // entries are acknowledged and not kept, without allocating
	done    sync.WaitGroup
}

type memLedger struct {
	tier     *memTier
	id       ledger.ID
	props    ledger.Properties
	entries  [][]byte
	acked    int64 // entries
	appended int64
	bytes    int64
	sealed   bool
	fenced   bool
	failed   error
}

// next is the id of the next entry.
func (l *memLedger) next() int64 {
	l.appended++
	return l.appended - 1
}

type memAppend struct {
	l   *memLedger
	a   *ledger.Append
	err error
}

func newMemTier() *memTier {
	t := &memTier{ledgers: make(map[ledger.ID]*memLedger)}
	t.cond = sync.NewCond(&t.mu)
	t.done.Go(t.acknowledge)
	return t
}

// hold keeps appends from being acknowledged until release.
func (t *memTier) hold() { t.set(func() { t.held = true }) }

func (t *memTier) release() { t.set(func() { t.held = false }) }

// holdCreate keeps ledgers from being created until release is called.
func (t *memTier) holdCreate() (release func()) {
	t.set(func() { t.creates = true })
	return func() { t.set(func() { t.creates = false }) }
}

func (t *memTier) fail(err error) { t.set(func() { t.failAll = err }) }

func (t *memTier) set(f func()) {
	t.mu.Lock()
	f()
	t.cond.Broadcast()
	t.mu.Unlock()
}

// waitQueued returns once n appends wait for their acknowledgement.
func (t *memTier) waitQueued(n int) {
	t.mu.Lock()
	for len(t.queue) < n {
		t.cond.Wait()
	}
	t.mu.Unlock()
}

func (t *memTier) acknowledge() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		for len(t.queue) == 0 || t.held && !t.closed {
			if t.closed && len(t.queue) == 0 {
				return
			}
			t.cond.Wait()
		}
		q := t.queue[0]
		t.queue = t.queue[:copy(t.queue, t.queue[1:])]
		if q.err == nil && q.l.failed == nil && t.failAll != nil && t.failAll != ledger.ErrNoSpace {
			q.l.failed = t.failAll
		}
		if q.err == nil {
			q.err = q.l.failed
		}
		if q.err == nil && t.failAll != nil {
			q.err = t.failAll
		}
		if q.err == nil {
			q.l.acked++
		}
		t.mu.Unlock()
		q.a.Done.Appended(q.a, q.err)
		t.mu.Lock()
		t.cond.Broadcast()
	}
}

func (t *memTier) Create(_ context.Context, props ledger.Properties) (ledger.Writer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.creates && !t.closed {
		t.cond.Wait()
	}
	if t.closed {
		return nil, ledger.ErrClosed
	}
	t.last++
	l := &memLedger{tier: t, id: t.last, props: props}
	t.ledgers[l.id] = l
	return memWriter{l}, nil
}

func (t *memTier) find(id ledger.ID) (*memLedger, error) {
	if l := t.ledgers[id]; l != nil {
		return l, nil
	}
	return nil, ledger.ErrNotFound
}

func (t *memTier) Open(_ context.Context, id ledger.ID) (ledger.Reader, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, err := t.find(id)
	if err != nil {
		return nil, err
	}
	return memReader{l}, nil
}

func (t *memTier) Recover(_ context.Context, id ledger.ID) (ledger.Reader, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, err := t.find(id)
	if err != nil {
		return nil, err
	}
	l.fenced, l.sealed = true, true
	return memReader{l}, nil
}

func (t *memTier) Delete(_ context.Context, id ledger.ID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ledgers, id)
	return nil
}

func (*memTier) MaxEntryBytes() int { return 64 << 20 }

func (t *memTier) List(_ context.Context, f func(ledger.Info) bool) error {
	t.mu.Lock()
	var all []ledger.Info
	for _, l := range t.ledgers {
		all = append(all, ledger.Info{ID: l.id, Sealed: l.sealed, LastEntry: l.acked - 1, Bytes: l.bytes, Properties: l.props})
	}
	t.mu.Unlock()
	for _, i := range all {
		if !f(i) {
			break
		}
	}
	return nil
}

func (t *memTier) Close() error {
	t.set(func() { t.closed = true })
	t.done.Wait()
	return nil
}

type memWriter struct{ l *memLedger }

func (w memWriter) ID() ledger.ID         { return w.l.id }
func (w memWriter) Reader() ledger.Reader { return memReader(w) }

func (w memWriter) Append(a *ledger.Append) {
	t := w.l.tier
	t.mu.Lock()
	defer t.mu.Unlock()
	q := memAppend{l: w.l, a: a}
	switch {
	case w.l.fenced:
		q.err = ledger.ErrFenced
	case w.l.sealed:
		q.err = ledger.ErrSealed
	case t.forgets:
		a.Entry = w.l.next()
	default:
		e := append(append([]byte(nil), a.Head...), a.Body...)
		a.Entry = w.l.next()
		w.l.entries = append(w.l.entries, e)
		w.l.bytes += int64(len(e))
	}
	t.queue = append(t.queue, q)
	t.cond.Broadcast()
}

func (w memWriter) Close(context.Context) (ledger.Sealed, error) {
	t := w.l.tier
	t.mu.Lock()
	defer t.mu.Unlock()
	w.l.sealed = true
	return ledger.Sealed{ID: w.l.id, LastEntry: w.l.acked - 1, Bytes: w.l.bytes}, nil
}

type memReader struct{ l *memLedger }

func (r memReader) ID() ledger.ID { return r.l.id }
func (r memReader) Close() error  { return nil }

func (r memReader) Last() (int64, bool) {
	r.l.tier.mu.Lock()
	defer r.l.tier.mu.Unlock()
	return r.l.acked - 1, r.l.sealed
}

func (r memReader) Read(_ context.Context, first, last int64, maxBytes int) (ledger.Entries, error) {
	t := r.l.tier
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reads++
	out := ledger.Entries{First: first}
	size := 0
	for i := first; i <= last && i < r.l.acked; i++ {
		if size += len(r.l.entries[i]); i > first && size > maxBytes {
			size -= len(r.l.entries[i])
			break
		}
		out.Data = append(out.Data, r.l.entries[i])
	}
	if out.Data == nil {
		return out, nil
	}
	buf := buffer.Get(size)
	n := 0
	for i, e := range out.Data {
		out.Data[i] = buf.B[n : n+len(e) : n+len(e)]
		n += copy(buf.B[n:], e)
	}
	out.Buf = buf
	return out, nil
}
