package embedded

import (
	"context"
	"fmt"
	"sync"

	"github.com/quirelog/quire/storage/ledger"
)

type writer struct {
	l *ledgerState

	once   sync.Once
	seal   *control
	done   chan struct{}
	sealed ledger.Sealed
	err    error
}

func (w *writer) ID() ledger.ID { return w.l.id }

func (w *writer) Append(a *ledger.Append) { w.l.push(a, int64(len(a.Head)+len(a.Body))) }

func (w *writer) Reader() ledger.Reader {
	w.l.t.hold(w.l)
	return &reader{l: w.l}
}

// Close implements ledger.Writer. It must also be called for a writer that
// failed or was fenced: the tier keeps a ledger's state in memory until then.
func (w *writer) Close(ctx context.Context) (ledger.Sealed, error) {
	w.once.Do(func() {
		w.done = make(chan struct{})
		w.seal = newControl(runSeal)
		w.seal.then = fmt.Errorf("ledger %d: %w", w.l.id, ledger.ErrSealed)
		w.seal.owner = true
		w.seal.finish = w.finish
		w.l.push(&w.seal.Append, -1)
	})
	select {
	case <-w.done:
		return w.sealed, w.err
	case <-ctx.Done():
		return ledger.Sealed{}, fmt.Errorf("close ledger %d: %w", w.l.id, ctx.Err())
	}
}

func (w *writer) finish(err error) {
	l := w.l
	w.sealed = ledger.Sealed{ID: l.id, LastEntry: ledger.NoEntry}
	if err != nil {
		w.err = fmt.Errorf("close: %w", err)
	} else {
		l.mu.Lock()
		w.sealed.LastEntry, w.sealed.Bytes = l.acked, l.ackedBytes
		l.mu.Unlock()
	}
	close(w.done)
	l.t.release(l)
}
