package bookkeeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/bookkeeper/bookie"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/quorum"
	"github.com/quirelog/quire/storage/ledger"
)

// Values of Append.Entry while the tier owns an Append that has no id.
const (
	entryQueued int64 = -1
	entryDoomed int64 = -2 // refused for lack of room
	entryLate   int64 = -3 // made after the ledger took its last
)

// writer is the one writer of a ledger of this process. Appends stand in one
// list, in the order in which they are told their outcome:
//
//	head ─ with the machine ─ unsent ─ waiting for room ─ refused (doomed, late)
type writer struct {
	t       *Tier
	l       *ledgerState
	created time.Time
	want    quorums // what was asked for; the ledger may have fewer bookies

	mu      sync.Mutex
	machine *quorum.Writer
	effects []quorum.Effect // scratch
	refused []refusedSend   // sends of the effects under way that no client took

	head, tail *ledger.Append
	unsent     *ledger.Append
	doomed     int   // of the list, until Appended has returned
	sent       int64 // id of the last entry that the machine has
	length     int64 // bytes of all entries that the machine has
	acked      int64

	packets    []*bookie.Packet // by entry mod its length: those not released
	held       int64            // bytes of the tier's budget
	failure    error            // what was not acknowledged fails with it
	late       error            // what new appends fail with
	dead       bool             // the machine is not heard any more
	closing    bool
	delivering bool
	queued     bool // in Tier.ready; Tier.readyMu

	made, told int64 // appends that came, and those whose Appended has returned
	marks      []mark
	members    []*member                  // the ensemble's, where known
	lacking    map[metadata.BookieID]bool // may miss entries that were acknowledged
	// settled is closed when the ledger's end is decided, or cannot be here.
	settled   chan struct{}
	isSettled bool
	sealedAs  *metadata.Ledger

	forget, linger sync.Once
}

// mark is closed when the first n appends have been told their outcome.
type mark struct {
	n  int64
	ch chan struct{}
}

type refusedSend struct {
	entry  int64
	index  int
	bookie metadata.BookieID
	err    error
}

func newWriter(l *ledgerState, want quorums) (*writer, error) {
	machine, err := quorum.NewWriter(l.meta, l.version, placement{l.t.members, l.meta.WriteQuorum})
	if err != nil {
		return nil, err
	}
	return &writer{
		t: l.t, l: l, created: l.t.c.Now(), want: want, machine: machine,
		sent: ledger.NoEntry, acked: ledger.NoEntry, settled: make(chan struct{}),
		packets: make([]*bookie.Packet, 64), members: make([]*member, l.meta.Ensemble),
	}, nil
}

// ID implements ledger.Writer.
func (w *writer) ID() ledger.ID { return w.l.id }

// Reader implements ledger.Writer.
func (w *writer) Reader() ledger.Reader { return w.t.newReader(w.l) }

// Append implements ledger.Writer.
func (w *writer) Append(a *ledger.Append) {
	n := int64(len(a.Head) + len(a.Body))
	a.Next, a.Entry = nil, entryQueued
	w.mu.Lock()
	switch {
	case w.late != nil:
		a.Entry = entryLate
	case w.doomed > 0 || !w.t.reserve(n):
		// What follows an append that is refused is refused too, until the caller
		// has heard of it: nothing overtakes.
		a.Entry = entryDoomed
		w.doomed++
	default:
		w.held += n
	}
	if w.tail == nil {
		w.head = a
	} else {
		w.tail.Next = a
	}
	w.tail = a
	w.made++
	tell := a.Entry != entryQueued
	if !tell {
		if w.unsent == nil {
			w.unsent = a
		}
		tell = w.pump()
	}
	w.mu.Unlock()
	if tell {
		w.t.deliverSoon(w)
	}
}

// pump gives the machine what waits, as far as there is room, and carries out
// what it wants. It returns whether there may be something to deliver. w.mu is held.
func (w *writer) pump() (tell bool) {
	for w.unsent != nil && !w.dead && w.failure == nil {
		a := w.unsent
		n := len(a.Head) + len(a.Body)
		pending := w.sent - w.acked
		if pending >= int64(w.t.c.MaxLedgerEntries) || pending > 0 && w.length-w.machine.Length()+int64(n) > w.t.c.MaxLedgerBytes {
			break
		}
		if n > w.t.MaxEntryBytes() || len(a.Head) > ledger.MaxHead {
			w.machine.Abort(fmt.Errorf("an entry of %d bytes with a head of %d exceeds %d and %d", n, len(a.Head), w.t.MaxEntryBytes(), ledger.MaxHead))
			break
		}
		entry, length, lac, err := w.machine.Append(n)
		if err != nil {
			w.machine.Abort(err)
			break
		}
		a.Entry = entry
		w.sent, w.length = entry, length
		w.hold(entry, bookie.NewPacket(w.l.codec, 0, entry, lac, length, a.Head, a.Body, a.Buf))
		if w.unsent = a.Next; w.unsent != nil && w.unsent.Entry != entryQueued {
			w.unsent = nil
		}
		tell = w.carryOut() || tell
	}
	if w.closing && w.unsent == nil && !w.dead {
		w.machine.Close()
	}
	return w.carryOut() || tell
}

// hold keeps an entry's packet until its Release.
func (w *writer) hold(entry int64, p *bookie.Packet) {
	if n := w.machine.Unreleased(); n > len(w.packets) {
		old := w.packets
		w.packets = make([]*bookie.Packet, 2*len(old))
		for _, p := range old {
			if p != nil {
				*w.packet(p.Entry()) = p
			}
		}
	}
	*w.packet(entry) = p
}

func (w *writer) packet(entry int64) **bookie.Packet {
	return &w.packets[entry&int64(len(w.packets)-1)]
}

// release gives an entry's bytes back.
func (w *writer) release(entry int64) {
	p := w.packet(entry)
	if *p == nil {
		return
	}
	n := int64((*p).Bytes() - w.l.codec.AddHeadBytes())
	w.held -= n
	w.t.giveBack(n)
	(*p).Release()
	*p = nil
}

// Added implements bookie.AddHandler: index of the ensemble is the tag.
func (w *writer) Added(id metadata.BookieID, replies []bookie.AddReply) {
	w.event(func(m *quorum.Writer) {
		for i := range replies {
			r := &replies[i]
			m.AddReply(r.Entry, int(r.Tag), id, classOf(r.Err))
		}
	})
}

// event tells the machine of something and carries out what it wants.
func (w *writer) event(f func(*quorum.Writer)) {
	w.mu.Lock()
	tell := false
	if !w.dead {
		f(w.machine)
		tell = w.carryOut()
		tell = w.pump() || tell
	}
	w.mu.Unlock()
	if tell {
		w.deliver()
	}
}

// carryOut does what the machine wants. It returns whether there may be something
// to deliver. w.mu is held.
func (w *writer) carryOut() (tell bool) {
	for !w.dead {
		w.effects = w.machine.Effects(w.effects[:0])
		if len(w.effects) == 0 {
			return tell
		}
		for i := range w.effects {
			tell = w.do(&w.effects[i]) || tell
		}
		clear(w.effects)
		for _, s := range w.refused {
			w.machine.AddReply(s.entry, s.index, s.bookie, classOf(s.err))
		}
		w.refused = w.refused[:0]
	}
	return tell
}

func (w *writer) do(e *quorum.Effect) (tell bool) {
	switch e.Kind {
	case quorum.Send:
		// After a failure the packets are gone, and so is the need to send.
		if p := *w.packet(e.Entry); p != nil {
			if err := w.member(int(e.Index), e.Bookie).client.Add(p, 0, w, uint64(e.Index)); err != nil {
				w.refused = append(w.refused, refusedSend{e.Entry, int(e.Index), e.Bookie, err})
			}
		}
	case quorum.Acknowledge:
		w.acked = e.Entry
		w.l.acknowledged(e.Entry, w.machine.Length())
		return true
	case quorum.Release:
		w.release(e.Entry)
	case quorum.Store:
		l, version := e.Ledger, e.Version
		if l.State == metadata.Open {
			w.t.metrics.ensembleChanges.Inc()
			w.t.log.Info("ensemble changes", zap.Int64("ledger", l.ID), zap.Int64("entry", l.Last().First), zap.Any("bookies", l.Last().Bookies))
		}
		w.t.start(func() { w.store(l, version) })
	case quorum.Lacking:
		w.lacks(e.Bookie)
	case quorum.Degraded:
		w.lacks(e.Bookie)
		w.t.log.Warn("ledger goes on with fewer copies, nobody can replace a bookie", zap.Int64("ledger", int64(w.l.id)), zap.String("bookie", string(e.Bookie)))
	case quorum.Failed:
		w.fail(writerError(e.Err))
		w.t.log.Warn("ledger takes no more entries", zap.Error(e.Err))
		return true
	case quorum.Sealed:
		if e.Err != nil {
			w.t.log.Error("ledger was closed elsewhere than its writer ended", zap.Error(e.Err))
			w.fail(writerError(e.Err))
		}
		w.sealedAs = e.Ledger
		w.l.learn(e.Ledger, e.Version)
		if l, lacking := e.Ledger, w.lacking; lacking != nil {
			w.t.start(func() { w.t.markLacking(l, lacking) })
		}
		w.settle()
		return true
	case quorum.Unsealed:
		w.fail(writerError(e.Err))
		if e.Ledger != nil {
			w.l.learn(e.Ledger, e.Version)
		}
		w.settle()
		return true
	}
	return false
}

// lacks notes that a bookie misses entries that are acknowledged. w.mu is held.
func (w *writer) lacks(id metadata.BookieID) {
	if w.lacking == nil {
		w.lacking = make(map[metadata.BookieID]bool)
	}
	w.lacking[id] = true
}

// member returns the bookie at an index of the ensemble. w.mu is held.
func (w *writer) member(index int, id metadata.BookieID) *member {
	if b := w.members[index]; b != nil && b.id == id {
		return b
	}
	w.members[index] = w.t.members.get(id)
	return w.members[index]
}

// fail makes err the outcome of all that is not acknowledged and of all that
// follows. Whether what was sent is in the ledger is for a recovery to say.
// w.mu is held.
func (w *writer) fail(err error) {
	if w.failure != nil {
		return
	}
	w.failure = err
	w.late = err
	w.unsent = nil
	w.letGo()
}

// letGo gives all bytes back. w.mu is held.
func (w *writer) letGo() {
	for i, p := range w.packets {
		if p != nil {
			p.Release()
			w.packets[i] = nil
		}
	}
	w.t.giveBack(w.held)
	w.held = 0
}

// settle says that the machine has come to its end. w.mu is held.
func (w *writer) settle() {
	if !w.isSettled {
		w.isSettled = true
		w.letGo()
		close(w.settled)
	}
}

// stop ends the writer at once because of err and leaves the ledger as it is.
func (w *writer) stop(err error) {
	w.mu.Lock()
	w.dead = true
	w.fail(err)
	// Who hears of it from now on hears this, whatever came before.
	w.late = err
	w.settle()
	w.mu.Unlock()
	w.deliver()
}

// refuse lets no more appends in and returns a channel that is closed when all
// that were made have been told their outcome.
func (w *writer) refuse(err error) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = err
	return w.afterAll()
}

// afterAll returns a channel that is closed when all appends so far have been
// told their outcome. w.mu is held.
func (w *writer) afterAll() <-chan struct{} {
	ch := make(chan struct{})
	if w.told == w.made {
		close(ch)
	} else {
		w.marks = append(w.marks, mark{w.made, ch})
	}
	return ch
}

// deliver tells appends their outcomes, in order. Only one goroutine does at a
// time; it looks again for what comes meanwhile.
func (w *writer) deliver() {
	w.mu.Lock()
	if w.delivering {
		w.mu.Unlock()
		return
	}
	w.delivering = true
	for {
		first, last, err := w.decided()
		if first == nil {
			break
		}
		doomed, count := 0, int64(0)
		w.mu.Unlock()
		for a := first; a != nil; count++ {
			next := a.Next
			if a == last {
				next = nil
			}
			a.Next = nil
			if a.Entry == entryDoomed {
				doomed++
			}
			a.Done.Appended(a, err)
			a = next
		}
		w.mu.Lock()
		w.doomed -= doomed
		w.told += count
		w.marks = slices.DeleteFunc(w.marks, func(m mark) bool {
			if m.n <= w.told {
				close(m.ch)
			}
			return m.n <= w.told
		})
	}
	w.delivering = false
	w.mu.Unlock()
}

var errNoRoom = fmt.Errorf("too many bytes wait for bookies: %w", ledger.ErrNoSpace)

// decided takes from the list the appends at its head that have the same
// outcome; nil if the first has none yet. w.mu is held.
func (w *writer) decided() (first, last *ledger.Append, err error) {
	first = w.head
	if first == nil {
		return nil, nil, nil
	}
	var more func(a *ledger.Append) bool
	switch {
	case first.Entry >= 0 && first.Entry <= w.acked:
		more = func(a *ledger.Append) bool { return a.Entry >= 0 && a.Entry <= w.acked }
	case first.Entry == entryDoomed:
		err = fmt.Errorf("ledger %d: %w", w.l.id, errNoRoom)
		more = func(a *ledger.Append) bool { return a.Entry == entryDoomed }
	case first.Entry == entryLate:
		err = w.late
		more = func(a *ledger.Append) bool { return a.Entry == entryLate }
	case w.failure != nil:
		err = w.failure
		more = func(a *ledger.Append) bool { return a.Entry >= 0 || a.Entry == entryQueued }
	default:
		return nil, nil, nil
	}
	last = first
	for last.Next != nil && more(last.Next) {
		last = last.Next
	}
	if w.head = last.Next; w.head == nil {
		w.tail = nil
	}
	return first, last, err
}

// Close implements ledger.Writer.
func (w *writer) Close(ctx context.Context) (ledger.Sealed, error) {
	w.mu.Lock()
	tell := false
	if !w.closing {
		w.closing = true
		if w.late == nil {
			w.late = fmt.Errorf("ledger %d: %w", w.l.id, ledger.ErrSealed)
		}
		tell = w.pump()
	}
	told := w.afterAll()
	w.mu.Unlock()
	if tell {
		w.t.deliverSoon(w)
	}
	for _, ch := range []<-chan struct{}{w.settled, told} {
		select {
		case <-ch:
		case <-ctx.Done():
			// Who was told that may never ask again.
			w.linger.Do(func() {
				w.t.start(func() {
					<-w.settled
					<-told
					w.forget.Do(func() { w.t.closed(w) })
				})
			})
			return ledger.Sealed{}, fmt.Errorf("close ledger %d: %w", w.l.id, ctx.Err())
		}
	}
	w.forget.Do(func() { w.t.closed(w) })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure != nil {
		return ledger.Sealed{}, fmt.Errorf("close: %w", w.failure)
	}
	return ledger.Sealed{ID: w.l.id, LastEntry: w.sealedAs.LastEntry, Bytes: w.sealedAs.Length}, nil
}

// Degraded says whether a new ledger would be replicated better than this one:
// a bookie failed and nobody replaced it, or the ledger was made narrower than it
// should be and bookies have come back since, or a bookie that older entries were on
// is lost for good. AutoRecovery fences a ledger of the first kind after a while. Any
// goroutine may call it.
func (w *writer) Degraded() bool {
	if w.t.c.Now().Sub(w.created) < w.t.c.RollAfter {
		return false
	}
	w.mu.Lock()
	degraded := w.machine.Degraded()
	meta, _ := w.machine.Metadata()
	w.mu.Unlock()
	switch {
	case degraded:
		return w.t.members.usable() >= meta.AckQuorum
	case meta.Ensemble < w.want.ensemble:
		return w.t.members.usable() >= w.want.ensemble
	}
	return w.t.lacksReplicas(meta)
}

// ensemble returns the bookies that new entries go to, and whether all of them work.
func (w *writer) ensemble() (bookies []metadata.BookieID, degraded bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	meta, _ := w.machine.Metadata()
	return meta.Last().Bookies, w.machine.Degraded()
}

// store changes the ledger's metadata for the machine and tells it the outcome.
// It goes on until the store answers or the tier is closed: without an answer
// nobody can tell where the ledger ends.
func (w *writer) store(l *metadata.Ledger, version metadata.Version) {
	told := make(chan struct{})
	late := time.AfterFunc(w.t.c.storeDelay, func() {
		defer close(told)
		w.event((*quorum.Writer).StoreDelayed)
	})
	stored, version, err := w.t.update(w.t.ctx, l, version)
	if !late.Stop() {
		<-told
	}
	w.event(func(m *quorum.Writer) {
		switch {
		case err == nil:
			m.Stored(version)
		case errors.Is(err, metadata.ErrConflict):
			m.Conflict(stored, version)
		case errors.Is(err, metadata.ErrNotFound):
			m.Conflict(nil, 0)
		default:
			m.StoreFailed(err)
		}
		w.l.learn(m.Metadata())
	})
}
