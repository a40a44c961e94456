package quorum

import (
	"fmt"
	"slices"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// Writer is the one writer of an open ledger. See the package comment for who
// may call it.
//
//	writing --Close--> draining --all acknowledged--> closing --Stored--> over
//	   |                  |                              |
//	   +-----failure------+--> settling --Stored--> over |
//	                              |   ^                  |
//	                              |   +---- Settle ------+-- StoreFailed
//	                              +--> unsettled <-------+
type Writer struct {
	adds
	placement Placement
	phase     phase

	meta    *metadata.Ledger // as last known to be stored
	version metadata.Version
	// proposal is the Store that has no answer yet.
	proposal *metadata.Ledger
	delayed  bool // its answer takes long
	// offered is the last segment of a Store that was given up: it may yet be stored.
	offered *metadata.Segment
	// lost are the bookies to replace in the next change of the ensemble.
	lost []lostBookie
}

// lostBookie is a bookie to replace, if possible. One that failed an add gets
// nothing more if it cannot be replaced; one that merely seems to be gone does.
type lostBookie struct {
	id     metadata.BookieID
	failed bool
}

type phase uint8

const (
	writing phase = iota
	draining
	closing
	settling
	unsettled
	over
)

// NewWriter returns the writer of ledger, which it has just created: OPEN, one
// segment, stored at version. It returns ErrMetadata if ledger is not that.
// The ledger is read-only from now on.
func NewWriter(ledger *metadata.Ledger, version metadata.Version, placement Placement) (*Writer, error) {
	return newWriter(&protocol, ledger, version, placement)
}

func newWriter(r *rules, ledger *metadata.Ledger, version metadata.Version, placement Placement) (*Writer, error) {
	if err := check(ledger); err != nil {
		return nil, err
	}
	if ledger.State != metadata.Open || len(ledger.Segments) != 1 {
		return nil, fmt.Errorf("ledger %d: %w: %v with %d segments has a writer already", ledger.ID, ErrMetadata, ledger.State, len(ledger.Segments))
	}
	return &Writer{
		adds:      newAdds(r, ledger, 0, metadata.NoEntry, 0),
		placement: placement, meta: ledger, version: version,
	}, nil
}

// Effects appends to dst what is to be done since the last call, in order.
func (w *Writer) Effects(dst []Effect) []Effect { return w.take(dst) }

// Append takes the next entry, whose payload has payloadBytes, and returns its
// id, the ledger's length with it and the last entry acknowledged so far: what the
// caller encodes into the entry, once, for all bookies and all repetitions.
// It returns ErrClosed after Close or a failure, ErrFull, and changes nothing then.
func (w *Writer) Append(payloadBytes int) (entry, length, lac int64, err error) {
	if w.phase != writing {
		return 0, 0, 0, ErrClosed
	}
	if w.next >= MaxEntries {
		return 0, 0, 0, ErrFull
	}
	length = w.lacLength
	if w.pending() > 0 {
		length = w.at(w.next - 1).length
	}
	length += int64(payloadBytes)
	return w.push(length), length, w.lac, nil
}

// AddReply is the answer of bookie at index to a Send of entry.
func (w *Writer) AddReply(entry int64, index int, bookie metadata.BookieID, class Class) {
	if w.phase > closing {
		return
	}
	// A fence concerns the ledger, wherever it was met. When the end is being
	// stored already, the store decides who was first.
	if class == Fenced && w.phase < closing {
		w.fail(ErrFenced)
		return
	}
	failed := w.answer(entry, index, bookie, class)
	switch {
	case w.phase == closing:
	case failed && class == Unauthorized:
		w.fail(fmt.Errorf("bookie %s: %w", bookie, ErrUnauthorized))
	case failed:
		w.lose(bookie, true)
	default:
		w.proceed()
	}
}

// BookieFailed tells that bookie should be replaced though no add to it has failed:
// its registration is gone for some seconds (AutoRecovery fences ledgers on it
// after 30), or it is to be drained. If nobody can replace it, it is kept, and the
// caller may ask again.
func (w *Writer) BookieFailed(bookie metadata.BookieID) {
	if w.phase < closing {
		w.lose(bookie, false)
	}
}

// BookieStalled tells that bookie has owed answers for some time, though no add to
// it has failed yet. It is replaced if the oldest entry that is not acknowledged has to
// have its answer, since too many others are stalled as well, or there are none. Where
// nobody can replace it and no ack quorum is to be had without it, the writer fails if
// elsewhere says that another ledger would have one; else it waits on, until the add
// fails. A bookie without which there are enough has the time that an add may take.
func (w *Writer) BookieStalled(bookie metadata.BookieID, stalled func(metadata.BookieID) bool, elsewhere bool) {
	index := slices.Index(w.ensemble, bookie)
	if w.phase >= closing || w.changing() || index < 0 || !w.holdsUp(index, stalled) {
		return
	}
	w.lose(bookie, elsewhere && !w.feasible(w.away|1<<index))
}

// BookieReturned tells that bookie, which was Degraded, takes adds again. What it
// has missed and is acknowledged stays missing there until AutoRecovery copies it.
func (w *Writer) BookieReturned(bookie metadata.BookieID) {
	index := slices.Index(w.ensemble, bookie)
	if w.phase < closing && index >= 0 && w.away&^w.leaving&(1<<index) != 0 {
		w.returned(index)
	}
}

// Retry tells that there may be bookies to replace Degraded ones with.
func (w *Writer) Retry() {
	if w.phase >= closing {
		return
	}
	for i, b := range w.ensemble {
		if w.away&(1<<i) != 0 {
			w.lose(b, true)
		}
	}
}

// StoreDelayed tells that the answer to a Store takes long. While an ensemble is being
// stored nothing is acknowledged, so that what moves to the new bookies gets all its
// replicas. From now on entries are that have an ack quorum of bookies which stay; what
// the new ones miss of them is told (Lacking) once the ensemble is stored.
func (w *Writer) StoreDelayed() {
	if w.changing() && !w.delayed {
		w.delayed = true
		w.proceed()
	}
}

// lose queues a bookie of the ensemble, or of the one that is being stored, for
// replacement.
func (w *Writer) lose(bookie metadata.BookieID, failed bool) {
	ensemble := w.ensemble
	if w.changing() {
		ensemble = w.proposal.Last().Bookies
	}
	if !slices.Contains(ensemble, bookie) {
		w.proceed() // it is on its way out: the answer may have released an entry
		return
	}
	if i := slices.IndexFunc(w.lost, func(l lostBookie) bool { return l.id == bookie }); i >= 0 {
		w.lost[i].failed = w.lost[i].failed || failed
	} else {
		w.lost = append(w.lost, lostBookie{bookie, failed})
	}
	w.change()
	w.proceed()
}

// change begins to replace the lost bookies, unless a change is under way: then
// they wait for it.
func (w *Writer) change() {
	if w.changing() {
		return
	}
	ensemble := slices.Clone(w.ensemble)
	var replaced, stuck uint64
	for _, l := range w.lost {
		i := slices.Index(ensemble, l.id)
		if i < 0 {
			continue
		}
		if b, ok := replacement(w.placement, ensemble, i); ok {
			ensemble[i] = b
			replaced |= 1 << i
		} else if l.failed {
			stuck |= 1 << i
		}
	}
	w.lost = w.lost[:0]
	fresh := stuck &^ w.away
	w.away |= stuck
	if !w.feasible(w.away &^ replaced) {
		w.fail(ErrNotEnoughBookies)
		return
	}
	for i, b := range w.ensemble {
		if fresh&(1<<i) != 0 {
			w.effects = append(w.effects, Effect{Kind: Degraded, Index: int32(i), Bookie: b})
		}
	}
	if replaced != 0 {
		w.leaving = replaced
		w.propose(ensemble)
	}
}

// propose stores an ensemble for the entries that are not acknowledged.
func (w *Writer) propose(ensemble []metadata.BookieID) {
	l := w.meta.Clone()
	first := w.rules.firstOfSegment(w.lac, w.next-1)
	if err := withSegment(l, metadata.Segment{First: first, Bookies: ensemble}); err != nil {
		w.fail(err)
		return
	}
	w.store(l)
}

func (w *Writer) store(l *metadata.Ledger) {
	w.proposal, w.delayed = l, false
	w.effects = append(w.effects, Effect{Kind: Store, Ledger: l, Version: w.version})
}

// proceed acknowledges what it may, and goes on to close when that was the last.
func (w *Writer) proceed() {
	if w.phase > draining || w.changing() && !w.delayed {
		return
	}
	w.deliver()
	if w.phase == draining && w.pending() == 0 && !w.changing() {
		w.phase = closing
		w.storeEnd()
	}
}

func (w *Writer) storeEnd() {
	l := w.meta.Clone()
	l.State = metadata.Closed
	l.LastEntry = w.rules.end(w.lac, w.next-1)
	l.Length = w.lacLength
	w.store(l)
}

// Stored answers a Store: it was written and has version now.
func (w *Writer) Stored(version metadata.Version) {
	if w.proposal == nil {
		return
	}
	w.meta, w.version, w.proposal = w.proposal, version, nil
	w.offered = nil
	switch {
	case w.meta.State == metadata.Closed:
		w.sealed(w.meta, version)
	case w.phase == settling:
		w.storeEnd()
	default:
		w.lackingIn(w.meta.Last())
		w.switchTo(w.meta.Last().Bookies)
		// Bookies lost meanwhile are replaced before anything is acknowledged.
		w.change()
		w.proceed()
	}
}

// lackingIn tells which new bookies of a segment miss entries of it: those that were
// acknowledged while it was being stored are not sent any more.
func (w *Writer) lackingIn(s metadata.Segment) {
	if w.lac < s.First {
		return
	}
	for i, b := range s.Bookies {
		if b != w.ensemble[i] {
			w.effects = append(w.effects, Effect{Kind: Lacking, Index: int32(i), Bookie: b})
		}
	}
}

// Conflict answers a Store: it was not written, because the store holds stored
// at version. stored is nil if the ledger is gone.
func (w *Writer) Conflict(stored *metadata.Ledger, version metadata.Version) {
	proposal := w.proposal
	if proposal == nil {
		return
	}
	w.proposal = nil
	if stored == nil {
		w.unsealed(ErrDeleted, nil, 0)
		return
	}
	if err := check(stored); err != nil {
		w.unsealed(err, stored, version)
		return
	}
	last := stored.Last()
	switch {
	case stored.State == metadata.Closed:
		w.sealed(stored, version)
	case !w.rules.mayWrite(stored.State):
		w.unsealed(ErrFenced, stored, version)
	case proposal.State != metadata.Closed && sameSegment(last, proposal.Last()):
		// An earlier attempt at this Store was written, and its answer was lost.
		w.proposal = stored
		w.Stored(version)
	case sameSegment(last, w.meta.Last()), w.offered != nil && sameSegment(last, *w.offered):
		// Somebody repaired older segments: the same again, on top of that.
		w.meta, w.version = stored, version
		if proposal.State == metadata.Closed || w.phase == settling {
			w.storeEnd()
		} else {
			w.propose(proposal.Last().Bookies)
		}
	default:
		w.unsealed(fmt.Errorf("%w: last segment is %d", ErrMetadata, last.First), stored, version)
	}
}

// StoreFailed answers a Store: the caller gave up on it, and it may or may not
// be written. The writer fails.
func (w *Writer) StoreFailed(err error) {
	proposal := w.proposal
	if proposal == nil {
		return
	}
	w.proposal = nil
	if proposal.State == metadata.Closed {
		w.unsealed(err, nil, 0)
		return
	}
	last := proposal.Last()
	w.offered = &last
	if w.phase == settling {
		w.storeEnd()
		return
	}
	w.fail(err)
}

// Close takes no more appends, waits for those under way and closes the ledger:
// Sealed or Unsealed follows, after Failed if an entry was not acknowledged.
func (w *Writer) Close() {
	if w.phase == writing {
		w.phase = draining
		w.proceed()
	}
}

// Abort fails the writer because of err, an add that took too long for example.
// To fail one entry alone is impossible: the next ones would have a gap before them.
func (w *Writer) Abort(err error) {
	if w.phase < closing {
		w.fail(err)
	}
}

// Settle tries again to close the ledger after Unsealed.
func (w *Writer) Settle() {
	if w.phase == unsettled {
		w.phase = settling
		w.storeEnd()
	}
}

// fail stops the writer. It closes the ledger at the last acknowledged entry if
// nobody recovers it: as long as it is open, any recovery could still decide that
// the failed entries are in it.
func (w *Writer) fail(err error) {
	w.failed(err)
	w.phase = settling
	if w.proposal == nil {
		w.storeEnd()
	}
}

func (w *Writer) failed(err error) {
	w.lost = nil
	w.effects = append(w.effects, Effect{Kind: Failed, Err: fmt.Errorf("ledger %d: %w", w.meta.ID, err)})
}

// sealed ends with the ledger as it is stored.
func (w *Writer) sealed(l *metadata.Ledger, version metadata.Version) {
	w.meta, w.version = l, version
	if w.phase < closing {
		w.failed(ErrFenced)
	}
	w.phase = over
	var err error
	if l.LastEntry < w.lac || l.LastEntry >= w.next {
		err = fmt.Errorf("ledger %d: %w: closed at %d, acknowledged %d, written %d", l.ID, ErrDiverged, l.LastEntry, w.lac, w.next-1)
	}
	w.effects = append(w.effects, Effect{Kind: Sealed, Ledger: l, Version: version, Err: err})
}

// unsealed leaves the ledger to a recovery, or to Settle.
func (w *Writer) unsealed(err error, stored *metadata.Ledger, version metadata.Version) {
	if w.phase < closing {
		w.failed(err)
	}
	w.phase = unsettled
	w.effects = append(w.effects, Effect{
		Kind: Unsealed, Ledger: stored, Version: version, Err: fmt.Errorf("ledger %d: %w", w.meta.ID, err),
	})
}

func (w *Writer) changing() bool {
	return w.proposal != nil && w.phase <= draining
}

// LAC returns the last entry acknowledged, NoEntry if none.
func (w *Writer) LAC() int64 { return w.lac }

// Length returns the bytes of the payloads up to LAC.
func (w *Writer) Length() int64 { return w.lacLength }

// Pending returns how many entries are appended and not acknowledged.
func (w *Writer) Pending() int { return w.pending() }

// Unreleased returns how many entries are appended and not released.
func (w *Writer) Unreleased() int { return int(w.next - w.oldest) }

// Degraded returns whether a position of the ensemble has no working bookie.
func (w *Writer) Degraded() bool { return w.away != 0 }

// Changing returns whether a change of the ensemble is being stored, during
// which nothing is acknowledged unless that takes long (StoreDelayed).
func (w *Writer) Changing() bool { return w.changing() }

// Metadata returns the ledger's metadata as last known to be stored; read-only.
func (w *Writer) Metadata() (*metadata.Ledger, metadata.Version) { return w.meta, w.version }
