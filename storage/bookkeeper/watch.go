package bookkeeper

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/quorum"
)

// watchInterval is how often the open ledgers are looked at beside changes of
// the registrations.
const watchInterval = time.Second

// watch keeps open ledgers, idle ones too, on bookies that are there: one that is
// not registered for a while is replaced before AutoRecovery fences the ledger,
// and one that came back takes entries again.
func (t *Tier) watch() {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		changed := t.members.registry.Changed()
		t.tend()
		select {
		case <-t.ctx.Done():
			return
		case <-changed:
			t.members.meet()
		case <-ticker.C:
		}
	}
}

// tend looks after all open ledgers once.
func (t *Tier) tend() {
	now := t.c.Now()
	for _, w := range t.openWriters() {
		bookies, degraded := w.ensemble()
		for _, id := range bookies {
			b := t.members.registry.Get(id)
			switch {
			case b.State == metadata.Vanished && now.Sub(b.Since) >= t.c.ReplaceAfter:
				w.event(func(m *quorum.Writer) { m.BookieFailed(id) })
			case degraded && t.members.takesAdds(id):
				w.event(func(m *quorum.Writer) { m.BookieReturned(id) })
			}
		}
		if degraded {
			w.event((*quorum.Writer).Retry)
		}
	}
}

// meet learns about bookies that have registered: which cluster they are of, and
// that they may be of a newer version than before.
func (m *members) meet() {
	m.mu.Lock()
	for id, b := range m.all {
		if m.registry.Get(id).State == metadata.Vanished {
			b.batches.CompareAndSwap(batchBreaks, batchUnknown)
		}
	}
	m.quarantine.Forget(m.t.c.Now(), func(id metadata.BookieID) bool {
		return m.registry.Get(id).State != metadata.Vanished || m.all[id] != nil
	})
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(m.t.ctx, storeAttempt)
	defer cancel()
	m.readCookies(ctx)
}

// janitor marks ledgers whose replicas were lost, as BookKeeper's auditor does,
// which goes deaf when its connection to etcd breaks, and counts the marks that
// wait for AutoRecovery. Ledgers that no log has are the log store's to find.
//
// Every process counts; the housekeeper alone looks through all ledgers, and marks.
// None or two for a moment do no harm: a mark is merged with the one that is there,
// is for a closed ledger, which stays closed, and is removed by nobody but
// AutoRecovery. One that comes after the repair costs it a look at the ledger.
func (t *Tier) janitor() {
	ticker := time.NewTicker(t.c.JanitorInterval)
	defer ticker.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-ticker.C:
		}
		if err := t.mark(t.ctx); err != nil && t.ctx.Err() == nil {
			t.log.Warn("under-replicated ledgers are not looked for now", zap.Error(err))
		}
	}
}

// markChunk is how many ledgers are held in memory at a time.
const markChunk = 1000

// mark does one round of the janitor.
func (t *Tier) mark(ctx context.Context) error {
	now := t.c.Now()
	alive := make(map[metadata.BookieID]bool)
	gone := make(map[metadata.BookieID]time.Time)
	lost := false
	note := func(b metadata.Bookie) {
		// A bookie whose lease lapsed while it stood still may serve on.
		if b.State != metadata.Vanished || t.members.answers(b.ID) {
			alive[b.ID] = true
			return
		}
		gone[b.ID] = b.Since
		lost = lost || now.Sub(b.Since) > t.c.MarkAfter
	}
	for _, b := range t.members.registry.All() {
		note(b)
	}
	// What belongs to the cluster and was never registered here was gone before.
	for id := range t.members.readCookies(ctx) {
		if _, known := gone[id]; !known && !alive[id] {
			note(metadata.Bookie{ID: id, State: metadata.Vanished, Since: t.opened})
		}
	}
	marked := make(map[int64][]metadata.BookieID)
	err := t.c.Store.ListUnderReplicated(ctx, func(m metadata.Mark) bool {
		marked[m.Ledger] = m.Missing
		return true
	})
	if err == nil && lost && t.c.Housekeeper() {
		err = t.markLost(ctx, alive, gone, marked, now)
	}
	if err == nil {
		t.metrics.underReplicated.Set(float64(len(marked)))
	}
	return err
}

// markLost marks our closed ledgers that miss replicas, and adds to marked, which has
// the marks that are there. An open ledger is its writer's to save, which ends it
// (lacksReplicas), and a mark would get it fenced.
func (t *Tier) markLost(ctx context.Context, alive map[metadata.BookieID]bool, gone map[metadata.BookieID]time.Time, marked map[int64][]metadata.BookieID, now time.Time) error {
	var chunk []*metadata.Ledger
	var failed error
	flush := func() {
		for id, missing := range metadata.UnderReplicated(chunk, alive, gone, now, t.c.MarkAfter) {
			told := marked[id]
			if !slices.ContainsFunc(missing, func(b metadata.BookieID) bool { return !slices.Contains(told, b) }) {
				continue
			}
			if failed = t.c.Store.MarkUnderReplicated(ctx, id, missing); failed != nil {
				return
			}
			marked[id] = append(told, missing...)
			t.log.Info("ledger is marked under-replicated", zap.Int64("ledger", id), zap.Any("bookies", missing))
		}
		chunk = chunk[:0]
	}
	err := t.c.Store.List(ctx, 0, func(found metadata.Listed) bool {
		if found.Err == nil && found.Ledger.State == metadata.Closed && t.c.Owns(found.Ledger.Custom) {
			chunk = append(chunk, found.Ledger)
		}
		if len(chunk) == markChunk {
			flush()
		}
		return failed == nil
	})
	if err == nil && failed == nil {
		flush()
	}
	if err != nil {
		return err
	}
	return failed
}

// lacksReplicas says whether older entries of an open ledger were on a bookie that is
// lost: they get their replicas back when the ledger is closed, and marked.
func (t *Tier) lacksReplicas(l *metadata.Ledger) bool {
	if l.WriteQuorum < 2 {
		return false // there is nothing to copy from
	}
	now := t.c.Now()
	for _, s := range l.Segments[:len(l.Segments)-1] {
		for _, id := range s.Bookies {
			if b := t.members.registry.Get(id); b.State == metadata.Vanished && now.Sub(b.Since) > t.c.MarkAfter && !t.members.answers(id) {
				return true
			}
		}
	}
	return false
}

// markLacking marks a ledger that this process wrote while some of its bookies did
// not take entries. They may be back, so nobody else would notice for days.
func (t *Tier) markLacking(l *metadata.Ledger, lacking map[metadata.BookieID]bool) {
	var missing []metadata.BookieID
	for _, s := range l.Segments {
		for _, id := range s.Bookies {
			if lacking[id] && s.First <= l.LastEntry && !slices.Contains(missing, id) {
				missing = append(missing, id)
			}
		}
	}
	if len(missing) == 0 {
		return
	}
	err := t.insist(t.ctx, func(ctx context.Context) error { return t.c.Store.MarkUnderReplicated(ctx, l.ID, missing) })
	if err != nil && t.ctx.Err() == nil {
		t.log.Warn("ledger is not marked under-replicated", zap.Int64("ledger", l.ID), zap.Error(err))
	}
}

// answers says whether a bookie that is not registered was heard from and has
// not failed since.
func (m *members) answers(id metadata.BookieID) bool {
	m.mu.Lock()
	b := m.all[id]
	m.mu.Unlock()
	return b != nil && b.client.Reachable() && b.client.Stats().Connections > 0
}
