package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/ledger"
)

// migrateChunkBytes is copied at one time.
const migrateChunkBytes = 1 << 20

// Migrate moves the sealed ledgers that lie in another tier than new ones do, oldest
// first, and returns how many it moved. Each is copied entry by entry under the
// same entry ids, sealed, put into the chain in place of the old one, and the old
// one is deleted. Reads and appends go on meanwhile. After an error, or a crash,
// it can be called again; what was copied in vain is deleted by the janitor.
// It may take long and block.
func (l *Log) Migrate(ctx context.Context) (moved int, err error) {
	tiers, ok := l.store.c.Tier.(*Tiers)
	if !ok {
		return 0, nil
	}
	for {
		k, ok := l.misplaced(tiers)
		if !ok {
			return moved, nil
		}
		if err := l.migrate(ctx, k); err != nil {
			return moved, fmt.Errorf("log %s: move ledger %d: %w", logName(l.id), k.id, err)
		}
		moved++
	}
}

// misplaced returns the oldest sealed ledger of another tier than that of new ones.
func (l *Log) misplaced(tiers *Tiers) (link, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed != nil {
		return link{}, false
	}
	for _, k := range l.sealedLinks() {
		if tier, _ := TierOf(k.id); tier != tiers.create {
			return k, true
		}
	}
	return link{}, false
}

func (l *Log) migrate(ctx context.Context, k link) error {
	l.mu.Lock()
	purges := l.chain.purges
	l.mu.Unlock()
	props := l.ledgerProperties(l.store.c.Now().UnixMilli())
	props[propEpoch] = strconv.Itoa(int(k.epoch))
	w, err := l.store.c.Tier.Create(ctx, props)
	if err != nil {
		return err
	}
	err = l.copyLedger(ctx, k, w)
	sealed, closeErr := w.Close(ctx)
	if err = errors.Join(err, closeErr); err == nil && sealed.LastEntry != k.lastEntry {
		err = fmt.Errorf("%w: the copy has %d entries, not %d", errBadSeal, sealed.LastEntry+1, k.lastEntry+1)
	}
	perhaps := false
	if err == nil {
		perhaps, err = l.relink(ctx, k, w.ID(), purges)
	}
	switch {
	case err == nil:
		l.deleteLedgers(ctx, []ledger.ID{k.id})
	case !perhaps:
		l.deleteLedgers(context.WithoutCancel(ctx), []ledger.ID{w.ID()})
	}
	return err
}

// copyLedger appends what k has to w and waits until it is durable.
func (l *Log) copyLedger(ctx context.Context, k link, w ledger.Writer) error {
	h := l.store.handles.get(k.id)
	defer l.store.handles.release(h)
	r, err := h.opened(ctx, l.store.c.Tier)
	if err != nil {
		return err
	}
	for entry := int64(0); entry <= k.lastEntry; {
		es, err := r.Read(ctx, entry, k.lastEntry, migrateChunkBytes)
		if err != nil {
			return err
		}
		if len(es.Data) == 0 {
			return fmt.Errorf("%w: no entry %d of %d", ErrCorrupt, entry, k.lastEntry)
		}
		err = l.copyEntries(w, &es)
		entry += int64(len(es.Data))
		es.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) copyEntries(w ledger.Writer, es *ledger.Entries) error {
	most := l.store.c.Tier.MaxEntryBytes()
	for i, data := range es.Data {
		if len(data) > most {
			return fmt.Errorf("entry %d has %d bytes, and new ledgers take %d", es.First+int64(i), len(data), most)
		}
	}
	c := copying{first: es.First}
	c.left.Add(len(es.Data))
	appends := make([]ledger.Append, len(es.Data))
	for i, data := range es.Data {
		appends[i] = ledger.Append{Body: data, Buf: es.Buf, Done: &c}
		w.Append(&appends[i])
	}
	c.left.Wait()
	return c.err
}

// copying waits for the entries of a chunk. They arrive in order.
type copying struct {
	left  sync.WaitGroup
	first int64 // id that the next entry must get
	err   error
}

// Appended takes the tier's answer.
func (c *copying) Appended(a *ledger.Append, err error) {
	if err == nil && a.Entry != c.first {
		err = fmt.Errorf("%w: entry %d became %d", errBadSeal, c.first, a.Entry)
	}
	if c.err == nil {
		c.err = err
	}
	c.first++
	c.left.Done()
}

// relink puts ledger id in the place of k, unless k has left the chain meanwhile, or
// ledgers outside the chain were deleted since it said purges. After an error perhaps
// says that it may be in the chain nevertheless, now or a moment later.
func (l *Log) relink(ctx context.Context, k link, id ledger.ID, purges uint64) (perhaps bool, err error) {
	l.admin.Lock()
	defer l.admin.Unlock()
	l.mu.Lock()
	old, closed := l.chain, l.closed
	l.mu.Unlock()
	if closed != nil {
		return false, closed
	}
	if old.purges != purges {
		return false, fmt.Errorf("%w: the copy may be one of them", &purgedError{})
	}
	next := old.clone()
	at := slices.IndexFunc(next.links, func(other link) bool { return other.id == k.id })
	if at < 0 {
		return false, fmt.Errorf("%w: retention has dropped the ledger meanwhile", ErrOffsetOutOfRange)
	}
	next.links[at].id = id
	var gone []page
	if at < next.paged() {
		// Pages are written once: the record takes its links back, and hands them
		// to new pages as it grows.
		gone, next.pages, next.skip = next.pages, nil, 0
	}
	if err := l.swap(ctx, old, next, nil); err != nil {
		return !failedForGood(err), err
	}
	if err := l.store.deletePages(ctx, l.id, gone); err != nil {
		l.store.c.Logger.Warn("pages of a chain are left over", zap.String("log", logName(l.id)), zap.Error(err))
	}
	return false, nil
}
