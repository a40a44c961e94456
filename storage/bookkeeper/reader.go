package bookkeeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/bookkeeper/bookie"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/quorum"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
	"github.com/quirelog/quire/storage/ledger"
)

// reader implements ledger.Reader.
type reader struct {
	l      *ledgerState
	closed atomic.Bool
}

func (t *Tier) newReader(l *ledgerState) ledger.Reader {
	t.hold(l)
	return t.readerOf(l)
}

// readerOf makes a reader of a ledger that is held for it.
func (t *Tier) readerOf(l *ledgerState) ledger.Reader { return &reader{l: l} }

func (r *reader) ID() ledger.ID { return r.l.id }

func (r *reader) Last() (int64, bool) {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	return r.l.last, r.l.sealed
}

func (r *reader) Close() error {
	if !r.closed.Swap(true) {
		r.l.t.release(r.l)
	}
	return nil
}

const (
	// maxParallel is how many entries one Read asks for at a time, each by itself.
	maxParallel = 32
	// maxBatch is how many it asks for with one request.
	maxBatch = 1024
	// maxReadBytes bounds what one round of requests asks for.
	maxReadBytes = 16 << 20
)

// Read implements ledger.Reader.
func (r *reader) Read(ctx context.Context, first, last int64, maxBytes int) (ledger.Entries, error) {
	l := r.l
	if r.closed.Load() || l.t.isClosed() {
		return ledger.Entries{}, fmt.Errorf("ledger %d: %w", l.id, ledger.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return ledger.Entries{}, err
	}
	if first < 0 {
		return ledger.Entries{}, fmt.Errorf("ledger %d: read of entry %d: %w", l.id, first, ledger.ErrNotFound)
	}
	g := gathered{first: first, room: max(maxBytes, 0)}
	reread := false
	for {
		v, err := l.look()
		if err != nil {
			g.release()
			return ledger.Entries{}, err
		}
		next := first + int64(len(g.data))
		if len(g.data) == 0 && next > v.last && next <= last && !v.sealed && !reread {
			// Another process may have sealed the ledger since, with entries whose
			// acknowledgement this one has never seen. Who asks for them may know that.
			reread = true
			meta, version, err := l.t.read(ctx, l.id)
			if err != nil {
				return ledger.Entries{}, err
			}
			l.learn(meta, version)
			continue
		}
		if next > min(last, v.last) || g.full {
			return g.entries(), nil
		}
		err = l.fetch(ctx, &v, next, min(last, v.last), &g)
		switch {
		case err == nil:
		case len(g.data) > 0:
			return g.entries(), nil
		case l.t.isClosed():
			return ledger.Entries{}, fmt.Errorf("ledger %d: %w", l.id, ledger.ErrClosed)
		case ctx.Err() != nil:
			return ledger.Entries{}, ctx.Err()
		case reread:
			return ledger.Entries{}, err
		default:
			// AutoRecovery may have moved the ledger to other bookies, or somebody
			// deleted it.
			reread = true
			if err := l.refresh(ctx); err != nil {
				return ledger.Entries{}, err
			}
		}
	}
}

// refresh reads the metadata of a ledger that could not be read. ErrNotFound if it is gone.
func (l *ledgerState) refresh(ctx context.Context) error {
	meta, version, err := l.t.read(ctx, l.id)
	switch {
	case err == nil:
		l.learn(meta, version)
	case errors.Is(err, ledger.ErrNotFound):
		l.mu.Lock()
		l.deleted = true
		l.mu.Unlock()
		return err
	}
	return nil
}

// gathered are the entries of a Read so far.
type gathered struct {
	first int64
	room  int // bytes that may still be taken, the first entry apart
	data  [][]byte
	bufs  []*buffer.Buffer
	full  bool
}

// take adds the entries of a part while there is room, and its buffer if it added any.
func (g *gathered) take(p *part) {
	added := false
	for _, e := range p.entries {
		n := len(e.Payload)
		if len(g.data) > 0 && n > g.room {
			g.full = true
			break
		}
		g.data = append(g.data, e.Payload)
		g.room = max(0, g.room-n)
		added = true
	}
	if added {
		g.bufs = append(g.bufs, p.buf)
		p.buf = nil
	}
}

func (g *gathered) release() {
	for _, b := range g.bufs {
		b.Release()
	}
	g.bufs = nil
}

func (g *gathered) entries() ledger.Entries {
	e := ledger.Entries{First: g.first, Data: g.data}
	switch len(g.bufs) {
	case 0:
	case 1:
		e.Buf = g.bufs[0]
	default:
		e.Buf = &buffers{list: g.bufs, refs: 1}
	}
	return e
}

// buffers are several buffers with one count.
type buffers struct {
	list []*buffer.Buffer
	refs int32
}

func (b *buffers) Retain() { atomic.AddInt32(&b.refs, 1) }

func (b *buffers) Release() {
	if atomic.AddInt32(&b.refs, -1) == 0 {
		for _, buf := range b.list {
			buf.Release()
		}
		b.list = nil
	}
}

// fetch reads entries from first on, all of one ensemble, into g: at least one
// unless it returns an error.
func (l *ledgerState) fetch(ctx context.Context, v *view, first, last int64, g *gathered) error {
	segment, end := v.segment(first)
	last = min(last, end)
	room := int64(min(g.room, maxReadBytes))
	if v.meta.Ensemble == v.meta.WriteQuorum && last > first {
		ok, err := l.fetchBatch(ctx, segment, first, last, room, g)
		if ok || ctx.Err() != nil {
			return err
		}
	}
	// How many fit is a guess; what is too much is dropped, and for more Read asks again.
	count := min(last-first+1, maxParallel, max(1, room/v.payloadBytes()))
	race := newRace(l.t.c.MinSpeculative, l.askOne)
	positions := make([]int, v.meta.WriteQuorum)
	for e := first; e < first+count; e++ {
		for i := range positions {
			positions[i] = quorum.Position(e, i, v.meta.Ensemble)
		}
		race.parts = append(race.parts, part{first: e, copies: l.t.members.order(int64(l.id), segment.Bookies, positions)})
	}
	defer race.end()
	if err := race.run(ctx); err != nil {
		return err
	}
	for i := range race.parts {
		p := &race.parts[i]
		if len(p.entries) == 0 {
			if i == 0 {
				return l.readError(p)
			}
			return nil
		}
		if g.take(p); g.full {
			return nil
		}
	}
	return nil
}

// fetchBatch reads with one request where every bookie of the ensemble has every
// entry and some bookie understands it. ok is false if entries have to be read
// one by one.
func (l *ledgerState) fetchBatch(ctx context.Context, segment metadata.Segment, first, last, room int64, g *gathered) (ok bool, err error) {
	positions := make([]int, len(segment.Bookies))
	for i := range positions {
		positions[i] = i
	}
	copies := l.t.members.order(int64(l.id), segment.Bookies, positions)
	copies = slices.DeleteFunc(copies, func(b *member) bool { return b.batches.Load() == batchBreaks })
	if len(copies) == 0 {
		return false, nil
	}
	count := min(last-first+1, maxBatch)
	race := newRace(l.t.c.MinSpeculative, func(r *race, i int, p *part, b *member) (*bookie.Call, error) {
		return b.client.ReadBatch(bookie.BatchRequest{
			Codec: l.codec, First: p.first, MaxEntries: int(count),
			// The bookie counts what it stores beside payloads, too.
			MaxBytes: int(room + (count+1)*storedRoomBytes),
		}, func(reply bookie.BatchReply) {
			b.learnBatch(reply.Err)
			r.put(answer{part: i, entries: reply.Entries, buf: reply.Buf, err: reply.Err})
		})
	})
	race.parts = []part{{first: first, copies: copies}}
	defer race.end()
	if err := race.run(ctx); err != nil {
		return false, err
	}
	p := &race.parts[0]
	if len(p.entries) == 0 {
		return false, nil
	}
	g.take(p)
	return true, nil
}

// storedRoomBytes is what a bookie counts for an entry of a batch beside its
// payload, rounded up.
const storedRoomBytes = 64

// learnBatch notes whether a bookie understands batch reads. One that has once
// answered one does, however its connection ends later.
func (b *member) learnBatch(err error) {
	if err == nil {
		b.batches.CompareAndSwap(batchUnknown, batchWorks)
	} else if errors.Is(err, bookie.ErrBroken) {
		b.batches.CompareAndSwap(batchUnknown, batchBreaks)
	}
}

// askOne asks a bookie for one entry.
func (l *ledgerState) askOne(r *race, i int, p *part, b *member) (*bookie.Call, error) {
	return b.client.Read(bookie.ReadRequest{Codec: l.codec, Entry: p.first}, func(reply bookie.ReadReply) {
		a := answer{part: i, buf: reply.Buf, err: reply.Err}
		if reply.Err == nil {
			a.entries = []wire.Entry{reply.Entry}
		}
		r.put(a)
	})
}

// readError says why an entry could not be read from any of its copies. It is
// corrupt only if no copy is left that could turn up.
func (l *ledgerState) readError(p *part) error {
	corrupt, unknown := false, false
	for _, err := range p.errs {
		switch {
		case errors.Is(err, wire.ErrCorrupt):
			corrupt = true
		case classOf(err) != quorum.Negative:
			unknown = true
		}
	}
	err := fmt.Errorf("ledger %d, entry %d: %w", l.id, p.first, errors.Join(p.errs...))
	if corrupt && !unknown {
		l.t.metrics.corruptEntries.Inc()
		return fmt.Errorf("%w: %w", ledger.ErrCorrupt, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
