package bookkeeper

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/quirelog/quire/storage/bookkeeper/bookie"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/quorum"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
	"github.com/quirelog/quire/storage/ledger"
)

// findEndAttempts is how often findEnd begins anew when the metadata change under it.
const findEndAttempts = 3

// findEnd learns how far a ledger is acknowledged whose writer is elsewhere, and
// leaves that alone. Entries say up to where the ledger was acknowledged when they
// were written. Those after it count if an ack quorum of their bookies has them and
// the metadata have not changed meanwhile: a recovery would keep them. (It would not
// if the writer lost a bookie just now and died before the new one had them: then
// the writer had not acknowledged them either, and the ledger ends before them.)
func (t *Tier) findEnd(ctx context.Context, l *ledgerState) error {
	for range findEndAttempts {
		v, err := l.look()
		if err != nil || v.sealed {
			return err
		}
		last, bytes, err := l.seek(ctx, &v)
		if err != nil {
			return err
		}
		meta, version, err := t.read(ctx, l.id)
		if err != nil {
			return err
		}
		l.learn(meta, version)
		if version == v.version {
			l.acknowledged(last, bytes)
			return nil
		}
	}
	return fmt.Errorf("ledger %d: %w: its metadata keep changing", l.id, ErrUnavailable)
}

// seek looks for the end as of the metadata in v.
func (l *ledgerState) seek(ctx context.Context, v *view) (last, bytes int64, err error) {
	segment := v.meta.Last()
	coverage := quorum.NewCoverage(v.meta)
	last = segment.First - 1
	all := make([]int, len(segment.Bookies))
	for i := range all {
		all[i] = i
	}
	replies, err := l.askAll(ctx, segment, all, wire.LastEntry)
	if err != nil {
		return 0, 0, err
	}
	for i, reply := range replies {
		coverage.Answer(i, classOf(reply.Err))
		if reply.Err == nil {
			last = max(last, reply.Entry.LastAddConfirmed)
		}
	}
	if !coverage.Covered() {
		return 0, 0, fmt.Errorf("ledger %d: %w: %w", l.id, ErrUnavailable, quorum.ErrNotCovered)
	}
	for {
		positions := make([]int, v.meta.WriteQuorum)
		for i := range positions {
			positions[i] = quorum.Position(last+1, i, v.meta.Ensemble)
		}
		replies, err := l.askAll(ctx, segment, positions, last+1)
		if err != nil {
			return 0, 0, err
		}
		copies := 0
		for _, reply := range replies {
			if reply.Err == nil {
				copies++
				bytes = max(bytes, reply.Entry.Length)
			}
		}
		if copies < v.meta.AckQuorum {
			return last, bytes, nil
		}
		last++
	}
}

// askAll reads an entry from the bookies at some positions and waits for all of
// them. Of the payloads only the length may be used.
func (l *ledgerState) askAll(ctx context.Context, segment metadata.Segment, positions []int, entry int64) ([]bookie.ReadReply, error) {
	replies := make([]bookie.ReadReply, len(positions))
	var wg sync.WaitGroup
	for i, p := range positions {
		wg.Add(1)
		answered := func(reply bookie.ReadReply) {
			if reply.Buf != nil {
				reply.Buf.Release()
				reply.Buf = nil
			}
			replies[i] = reply
			wg.Done()
		}
		call, err := l.t.members.get(segment.Bookies[p]).client.Read(bookie.ReadRequest{Codec: l.codec, Entry: entry}, answered)
		if err != nil {
			answered(bookie.ReadReply{Err: err})
			continue
		}
		defer context.AfterFunc(ctx, call.Cancel)()
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, reply := range replies {
		if errors.Is(reply.Err, bookie.ErrClosed) {
			return nil, fmt.Errorf("ledger %d: %w", l.id, ledger.ErrClosed)
		}
	}
	return replies, nil
}
