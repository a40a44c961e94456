package bookkeeper

import (
	"context"
	"fmt"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/quorum"
	"github.com/quirelog/quire/storage/ledger"
)

// Metadata returns what the metadata store holds of a ledger, whoever wrote it.
// ledger.ErrNotFound, ledger.ErrCorrupt, metadata.ErrNewerVersion, ErrOldVersion.
func (t *Tier) Metadata(ctx context.Context, id ledger.ID) (*metadata.Ledger, error) {
	if err := t.check(ctx); err != nil {
		return nil, fmt.Errorf("ledger %d: %w", id, err)
	}
	meta, _, err := t.read(ctx, id)
	return meta, err
}

// Metadatas calls f for every ledger of the cluster in the order of their ids, with
// what the metadata store holds, until f returns false.
func (t *Tier) Metadatas(ctx context.Context, f func(metadata.Listed) bool) error {
	if err := t.check(ctx); err != nil {
		return fmt.Errorf("list ledgers: %w", err)
	}
	return t.c.Store.List(ctx, 0, f)
}

// Bookies returns the bookies of the cluster that are registered, or were since
// this process began.
func (t *Tier) Bookies() []metadata.Bookie { return t.members.registry.All() }

// Copy is what one bookie answered for one entry.
type Copy struct {
	Bookie metadata.BookieID
	// Err is nil if the copy is there and intact; else a wire.Code, wire.ErrCorrupt,
	// or one of package bookie's, wrapped.
	Err error
	// LastAddConfirmed and Length are the entry's own; copies may differ in the first.
	LastAddConfirmed int64
	Length           int64
	PayloadBytes     int
}

// verifyParallel is how many entries Verify reads at a time.
const verifyParallel = 16

// Verify reads every copy of the entries first to last of a ledger, whoever wrote
// it and with whatever digest, and calls f with them, entry by entry in order, until it
// returns false. It leaves an open ledger alone, and goes up to its last
// acknowledged entry as Open knows it. The slice is f's only while it runs.
func (t *Tier) Verify(ctx context.Context, id ledger.ID, first, last int64, f func(entry int64, copies []Copy) bool) error {
	r, err := t.Open(ctx, id)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	l := r.(*reader).l
	v, err := l.look()
	if err != nil {
		return err
	}
	last = min(last, v.last)
	type result struct {
		copies []Copy
		err    error
	}
	queue := make(chan chan result, verifyParallel)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		defer close(queue)
		for e := max(first, 0); e <= last; e++ {
			ch := make(chan result, 1)
			select {
			case queue <- ch:
			case <-ctx.Done():
				return
			}
			go func() {
				copies, err := l.copies(ctx, &v, e)
				ch <- result{copies, err}
			}()
		}
	}()
	err = func() error {
		entry := max(first, 0)
		for ch := range queue {
			res := <-ch
			if res.err != nil {
				return res.err
			}
			if !f(entry, res.copies) {
				return nil
			}
			entry++
		}
		return ctx.Err()
	}()
	cancel()
	<-asked
	for ch := range queue {
		<-ch
	}
	return err
}

// copies reads all copies of an entry.
func (l *ledgerState) copies(ctx context.Context, v *view, entry int64) ([]Copy, error) {
	segment, _ := v.segment(entry)
	positions := make([]int, v.meta.WriteQuorum)
	for i := range positions {
		positions[i] = quorum.Position(entry, i, v.meta.Ensemble)
	}
	replies, err := l.askAll(ctx, segment, positions, entry)
	if err != nil {
		return nil, err
	}
	copies := make([]Copy, len(replies))
	for i, reply := range replies {
		copies[i] = Copy{
			Bookie: segment.Bookies[positions[i]], Err: reply.Err,
			LastAddConfirmed: reply.Entry.LastAddConfirmed, Length: reply.Entry.Length, PayloadBytes: len(reply.Entry.Payload),
		}
	}
	return copies, nil
}
