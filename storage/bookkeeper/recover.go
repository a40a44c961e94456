package bookkeeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/bookkeeper/bookie"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/quorum"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
	"github.com/quirelog/quire/storage/ledger"
)

const (
	// recoverAhead is how many entries a recovery reads at a time, as long as they
	// are not more than recoverBytes with all their copies.
	recoverAhead = 256
	recoverBytes = 64 << 20
	recoverGuess = 1 << 20
	// recoverAttempts is how often Recover begins anew when bookies do not answer, at
	// first after recoverPause, then after twice as long each time. It goes on for longer
	// than a bookie that came back may not be dialed for: one that has been away for
	// long is tried every 1.25 s.
	recoverAttempts = 6
	recoverPause    = 100 * time.Millisecond
	maxRecoverPause = 800 * time.Millisecond
)

// Recover implements ledger.Tier. It takes as many bookies as hold an ack quorum
// in every case: ErrUnavailable if fewer answer; the ledger can then be recovered
// once they do, by anybody.
func (t *Tier) Recover(ctx context.Context, id ledger.ID) (ledger.Reader, error) {
	if err := t.check(ctx); err != nil {
		return nil, fmt.Errorf("recover ledger %d: %w", id, err)
	}
	// A recovery outlives neither its caller nor the tier.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	l, err := t.recover(ctx, id)
	switch {
	case err == nil:
		return t.readerOf(l), nil
	case t.isClosed():
		return nil, fmt.Errorf("recover ledger %d: %w", id, ledger.ErrClosed)
	}
	return nil, fmt.Errorf("recover: %w", err)
}

// recover returns the ledger, sealed and held.
func (t *Tier) recover(ctx context.Context, id ledger.ID) (*ledgerState, error) {
	if l := t.acquire(id); l != nil {
		l.mu.Lock()
		w, sealed := l.writer, l.sealed
		l.mu.Unlock()
		if sealed {
			return l, nil
		}
		t.release(l)
		w.awaitEnd(ctx)
	}
	pause := recoverPause
	for attempt := 1; ; attempt++ {
		meta, version, err := t.read(ctx, id)
		if err != nil {
			return nil, err
		}
		if meta, version, err = t.recoverOnce(ctx, meta, version); err == nil {
			return t.adopt(meta, version)
		}
		again := errors.Is(err, quorum.ErrNotCovered) || errors.Is(err, quorum.ErrUndecided) || errors.Is(err, quorum.ErrNotEnoughBookies)
		if again {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if !again || attempt == recoverAttempts {
			return nil, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		pause = min(2*pause, maxRecoverPause)
	}
}

// awaitEnd waits until a writer that has failed, or is being closed, has done what
// it can about the end of its ledger.
func (w *writer) awaitEnd(ctx context.Context) {
	if w == nil {
		return
	}
	w.mu.Lock()
	ending := w.failure != nil || w.closing
	w.mu.Unlock()
	if !ending {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	select {
	case <-w.settled:
	case <-bounded.Done():
	}
}

// settleWait is how long a recovery lets a failed writer of this process try to
// close the ledger, which is cheaper than a recovery.
const settleWait = time.Second

// recovery drives a quorum.Recovery. All of it belongs to one goroutine, which
// the goroutines of clients reach through events.
type recovery struct {
	t       *Tier
	ctx     context.Context
	id      int64
	codec   *wire.Codec
	machine *quorum.Recovery
	packets map[int64]*bookie.Packet

	lacking  map[metadata.BookieID]bool // miss entries that were recovered
	wait     []quorum.Effect            // reads that wait for memory
	reading  int                        // reads under way
	maxRead  int                        // bytes of the longest entry so far; recoverGuess until one is measured
	measured bool

	mu     sync.Mutex
	events []func()
	over   bool
	wake   chan struct{}
}

// recoverOnce recovers a ledger as its metadata are and returns those with which
// it is closed.
func (t *Tier) recoverOnce(ctx context.Context, meta *metadata.Ledger, version metadata.Version) (*metadata.Ledger, metadata.Version, error) {
	codec, err := wire.NewCodec(meta.ID, meta.Digest, meta.Password)
	if err != nil {
		return nil, 0, err
	}
	machine, err := quorum.NewRecovery(meta, version, placement{t.members, meta.WriteQuorum}, recoverAhead)
	if err != nil {
		return nil, 0, err
	}
	if meta.State != metadata.Closed {
		t.metrics.recoveries.Inc()
		t.log.Info("ledger is recovered", zap.Int64("ledger", meta.ID))
	}
	r := &recovery{
		t: t, ctx: ctx, id: meta.ID, codec: codec, machine: machine,
		packets: make(map[int64]*bookie.Packet), maxRead: recoverGuess, wake: make(chan struct{}, 1),
	}
	t.mu.Lock()
	t.recoveries[r] = struct{}{}
	t.mu.Unlock()
	defer r.end()
	machine.Start()
	for {
		sealed, version, err := r.carryOut()
		if sealed != nil || err != nil {
			return sealed, version, err
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("ledger %d: %w", r.id, ctx.Err())
		}
		r.mu.Lock()
		events := r.events
		r.events = nil
		r.mu.Unlock()
		for _, f := range events {
			f()
		}
	}
}

// post hands f to the recovery's goroutine; otherwise, if the recovery is over,
// it calls drop.
func (r *recovery) post(f, drop func()) {
	r.mu.Lock()
	over := r.over
	if !over {
		r.events = append(r.events, f)
	}
	r.mu.Unlock()
	if over {
		drop()
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// end drops what is left. Answers that come later find the recovery over.
func (r *recovery) end() {
	r.t.mu.Lock()
	delete(r.t.recoveries, r)
	r.t.mu.Unlock()
	r.mu.Lock()
	r.over = true
	events := r.events
	r.events = nil
	r.mu.Unlock()
	for _, f := range events {
		f() // the machine ignores them now; buffers are released
	}
	for _, p := range r.packets {
		p.Release()
	}
	clear(r.packets)
}

// carryOut does what the machine wants until it wants nothing more. It returns
// the metadata of the ledger when it is closed.
func (r *recovery) carryOut() (*metadata.Ledger, metadata.Version, error) {
	for {
		effects := r.machine.Effects(nil)
		if len(effects) == 0 {
			break
		}
		for _, e := range effects {
			switch e.Kind {
			case quorum.ReadLast:
				r.readLast(e)
			case quorum.Read:
				r.wait = append(r.wait, e)
			case quorum.Send:
				r.send(e)
			case quorum.Release:
				if p := r.packets[e.Entry]; p != nil {
					p.Release()
					delete(r.packets, e.Entry)
				}
			case quorum.Store:
				r.store(e)
			case quorum.Degraded:
				if r.lacking == nil {
					r.lacking = make(map[metadata.BookieID]bool)
				}
				r.lacking[e.Bookie] = true
				r.t.log.Warn("recovery goes on with fewer copies, nobody can replace a bookie", zap.Int64("ledger", r.id), zap.String("bookie", string(e.Bookie)))
			case quorum.Failed:
				return nil, 0, e.Err
			case quorum.Sealed:
				if l, lacking := e.Ledger, r.lacking; lacking != nil {
					r.t.start(func() { r.t.markLacking(l, lacking) })
				}
				return e.Ledger, e.Version, e.Err
			}
		}
	}
	r.readOn()
	return nil, 0, nil
}

// readLast reads the last entry of a bookie, which fences the ledger there.
func (r *recovery) readLast(e quorum.Effect) {
	index, id := int(e.Index), e.Bookie
	answered := func(reply bookie.ReadReply) {
		var last quorum.Last
		if reply.Err == nil {
			last = quorum.Last{Entry: reply.Entry.ID, LAC: reply.Entry.LastAddConfirmed, Length: reply.Entry.Length}
			reply.Buf.Release()
		}
		r.post(func() { r.machine.LastReply(index, id, classOf(reply.Err), last) }, func() {})
	}
	req := bookie.ReadRequest{Codec: r.codec, Entry: wire.LastEntry, Flags: wireFlags(e.Flags)}
	if _, err := r.t.members.get(id).client.Read(req, answered); err != nil {
		answered(bookie.ReadReply{Err: err})
	}
}

// readOn sends the reads for which there is memory: replies under way, taken to be
// as long as the longest so far, and entries that are kept. One is always sent, so
// it ends: the first that waits is of the entry that is decided next.
func (r *recovery) readOn() {
	for len(r.wait) > 0 && (r.reading == 0 || (r.reading+1+len(r.packets))*r.maxRead <= recoverBytes) {
		e := r.wait[0]
		r.wait = r.wait[1:]
		r.read(e)
	}
}

func (r *recovery) read(e quorum.Effect) {
	entry, index, id := e.Entry, int(e.Index), e.Bookie
	r.reading++
	answered := func(reply bookie.ReadReply) {
		release := func() {
			if reply.Buf != nil {
				reply.Buf.Release()
			}
		}
		r.post(func() {
			r.reading--
			r.readReply(entry, index, id, reply)
			release()
		}, release)
	}
	req := bookie.ReadRequest{Codec: r.codec, Entry: entry, Flags: wireFlags(e.Flags)}
	if _, err := r.t.members.get(id).client.Read(req, answered); err != nil {
		answered(bookie.ReadReply{Err: err})
	}
}

// readReply tells the machine of an entry that was read and keeps it if it wants to.
func (r *recovery) readReply(entry int64, index int, id metadata.BookieID, reply bookie.ReadReply) {
	e := reply.Entry
	if reply.Err == nil {
		if !r.measured {
			r.measured, r.maxRead = true, 1
		}
		r.maxRead = max(r.maxRead, len(e.Payload))
	}
	if r.machine.ReadReply(entry, index, id, classOf(reply.Err), e.Length) {
		r.packets[entry] = r.packet(entry, e, reply.Buf)
	}
}

// packet makes an add of an entry as it was read; it passes the fence.
func (r *recovery) packet(entry int64, e wire.Entry, buf *buffer.Buffer) *bookie.Packet {
	return bookie.NewPacket(r.codec, wire.RecoveryAdd|wire.HighPriority, entry, e.LastAddConfirmed, e.Length, nil, e.Payload, buf)
}

func (r *recovery) send(e quorum.Effect) {
	err := r.t.members.get(e.Bookie).client.Add(r.packets[e.Entry], 0, r, uint64(e.Index))
	if err != nil {
		r.Added(e.Bookie, []bookie.AddReply{{Entry: e.Entry, Tag: uint64(e.Index), Err: err}})
	}
}

// Added implements bookie.AddHandler.
func (r *recovery) Added(id metadata.BookieID, replies []bookie.AddReply) {
	replies = slices.Clone(replies)
	r.post(func() {
		for _, a := range replies {
			r.machine.AddReply(a.Entry, int(a.Tag), id, classOf(a.Err))
		}
	}, func() {})
}

// store changes the metadata. While it waits no answer of a bookie matters.
func (r *recovery) store(e quorum.Effect) {
	stored, version, err := r.t.update(r.ctx, e.Ledger, e.Version)
	switch {
	case err == nil:
		r.machine.Stored(version)
	case errors.Is(err, metadata.ErrConflict):
		r.machine.Conflict(stored, version)
	case errors.Is(err, metadata.ErrNotFound):
		r.machine.Conflict(nil, 0)
	default:
		r.machine.StoreFailed(err)
	}
}
