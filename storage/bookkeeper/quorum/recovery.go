package quorum

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// Recovery closes a ledger whose writer is gone, or is to be stopped: it fences
// the writer, finds the last entry, brings what may have been acknowledged to
// the ack quorum and closes the ledger there. Any number of recoveries may run on a
// ledger at once; all end with the same ledger.
//
// It needs no spare bookie, as long as ack quorums can be had in the last segment.
//
//	claim:  OPEN -> IN_RECOVERY, by compare-and-swap: the writer changes metadata no more
//	fence:  the bookies of the last segment, until no ack quorum is left unfenced
//	read:   entry by entry after the last that is known to be acknowledged, and
//	        add each to its quorum; new ensembles stay in memory
//	close:  IN_RECOVERY -> CLOSED with the new segments, in one compare-and-swap
type Recovery struct {
	adds
	placement Placement
	stage     stage
	readAhead int64

	meta     *metadata.Ledger // as last known to be stored
	version  metadata.Version
	proposal *metadata.Ledger // the Store that has no answer yet

	// frozen is the ledger that the recovery reads by: that of the claim.
	frozen   *metadata.Ledger
	coverage Coverage
	last     Last // of the fencing reads: the greatest LAC, and the greatest entry with its length
	// segments are the ensembles that replace the frozen last one.
	segments []metadata.Segment

	reads    []read // by entry mod readAhead
	nextRead int64
	ended    bool // the entry after the last added was never acknowledged
	// lengthRead is of the entry that the recovery starts after. Its length is
	// the ledger's if nothing comes after it.
	lengthRead read
	guessed    bool // the length may be wrong
	start      int64
}

// read is the reading of one entry from its write set. Bits are positions.
type read struct {
	entry    int64
	answered uint64
	negative uint64
	found    bool
	length   int64
}

type stage uint8

const (
	idle stage = iota
	claiming
	fencing
	reading
	storing
	finished
)

// Last is what a bookie answers to the read of its last entry.
type Last struct {
	Entry  int64 // the entry's id
	LAC    int64 // last entry acknowledged when Entry was written
	Length int64 // bytes of the payloads up to and with Entry
}

// NewRecovery returns the recovery of ledger, stored at version. readAhead is how
// many entries may be read and not yet be acknowledged again, at least 1; the
// caller holds the payloads of these, and of those acknowledged and not released.
// It returns ErrMetadata if ledger breaks the rules of its shape. Nothing happens
// before Start. The ledger is read-only from now on.
func NewRecovery(ledger *metadata.Ledger, version metadata.Version, placement Placement, readAhead int) (*Recovery, error) {
	return newRecovery(&protocol, ledger, version, placement, readAhead)
}

func newRecovery(r *rules, ledger *metadata.Ledger, version metadata.Version, placement Placement, readAhead int) (*Recovery, error) {
	if err := check(ledger); err != nil {
		return nil, err
	}
	return &Recovery{
		adds: adds{rules: r}, placement: placement, readAhead: int64(max(1, readAhead)),
		meta: ledger, version: version,
	}, nil
}

// Effects appends to dst what is to be done since the last call, in order. The
// last is Sealed or Failed.
func (r *Recovery) Effects(dst []Effect) []Effect { return r.take(dst) }

// Start begins.
func (r *Recovery) Start() {
	if r.stage == idle {
		r.claim()
	}
}

// claim makes the ledger IN_RECOVERY, or goes on with one that another has claimed.
func (r *Recovery) claim() {
	switch r.meta.State {
	case metadata.Closed:
		r.sealed()
	case metadata.InRecovery:
		r.fence()
	default:
		r.stage = claiming
		l := r.meta.Clone()
		l.State = metadata.InRecovery
		r.store(l)
	}
}

func (r *Recovery) store(l *metadata.Ledger) {
	r.proposal = l
	r.effects = append(r.effects, Effect{Kind: Store, Ledger: l, Version: r.version})
}

func (r *Recovery) fence() {
	r.stage = fencing
	r.frozen = r.meta
	r.coverage = NewCoverage(r.frozen)
	r.coverage.rules = r.rules
	r.last = Last{Entry: metadata.NoEntry, LAC: metadata.NoEntry}
	for i, b := range r.frozen.Last().Bookies {
		r.effects = append(r.effects, Effect{Kind: ReadLast, Flags: r.rules.lastFlags, Index: int32(i), Bookie: b})
	}
}

// LastReply is the answer of bookie at index to a ReadLast; last counts if class
// is Ack.
func (r *Recovery) LastReply(index int, bookie metadata.BookieID, class Class, last Last) {
	if r.stage != fencing || index < 0 || index >= r.frozen.Ensemble || r.frozen.Last().Bookies[index] != bookie {
		return
	}
	if class == Unauthorized {
		r.fail(fmt.Errorf("bookie %s: %w", bookie, ErrUnauthorized))
		return
	}
	r.coverage.Answer(index, class)
	// A LAC is below its entry. What breaks that is left out: to start too early
	// costs reads, to start too late costs entries.
	if class == Ack && last.LAC < last.Entry && last.Entry < MaxEntries {
		r.last.LAC = max(r.last.LAC, last.LAC)
		if last.Entry > r.last.Entry {
			r.last.Entry, r.last.Length = last.Entry, last.Length
		}
	}
	switch {
	case r.coverage.Covered():
		r.readOn()
	case r.coverage.Lost():
		r.fail(ErrNotCovered)
	}
}

// readOn begins to read after the last entry that is known to be acknowledged.
func (r *Recovery) readOn() {
	r.stage = reading
	r.start = r.rules.start(r.last.LAC, r.frozen.Last().First)
	effects := r.effects
	r.adds = newAdds(r.rules, r.frozen, r.rules.addFlags, r.start, 0)
	r.silent = true
	r.effects = effects
	r.reads = make([]read, r.readAhead)
	r.nextRead = r.next
	r.lengthRead = read{entry: r.start}
	switch r.start {
	case metadata.NoEntry:
		r.lengthRead.found = true
	case r.last.Entry:
		r.lengthRead.found, r.lengthRead.length = true, max(r.last.Length, 0)
	default:
		r.ask(r.start)
	}
	r.proceed()
}

// ask reads entry from all of its write set at once: a recovery waits for the
// slowest answer in any case when the entry is absent.
func (r *Recovery) ask(entry int64) {
	bookies := r.frozen.EnsembleAt(entry).Bookies
	for i := range r.writeQuorum {
		index := Position(entry, i, len(bookies))
		r.effects = append(r.effects, Effect{
			Kind: Read, Flags: r.rules.readFlags, Entry: entry, Index: int32(index), Bookie: bookies[index],
		})
	}
}

// ReadReply is the answer of bookie at index to a Read of entry. length is the
// entry's length field and counts if class is Ack. If keep is true the caller
// keeps the entry until its Release or the end: a Send repeats it as it was read,
// its LAC and length included.
func (r *Recovery) ReadReply(entry int64, index int, bookie metadata.BookieID, class Class, length int64) (keep bool) {
	if r.stage != reading || entry < 0 || index < 0 || index >= r.frozen.Ensemble {
		return false
	}
	var rd *read
	switch {
	case entry == r.start:
		rd = &r.lengthRead
	case entry >= r.next && entry < r.nextRead && !r.ended:
		rd = &r.reads[entry%r.readAhead]
	default:
		return false
	}
	bit := uint64(1) << index
	if r.set(entry)&bit == 0 || r.frozen.EnsembleAt(entry).Bookies[index] != bookie {
		return false
	}
	rd.answered |= bit
	switch {
	case class == Ack && !rd.found && length >= 0:
		rd.found, rd.length = true, length
		keep = entry != r.start
	case r.rules.negative(class):
		rd.negative |= bit
	}
	r.proceed()
	return keep
}

// proceed decides about the entries in order, reads on, and closes the ledger
// once everything is settled.
func (r *Recovery) proceed() {
	for r.stage == reading && !r.ended {
		for r.nextRead <= r.lac+r.readAhead && r.nextRead < MaxEntries {
			r.reads[r.nextRead%r.readAhead] = read{entry: r.nextRead}
			r.ask(r.nextRead)
			r.nextRead++
		}
		if r.next >= MaxEntries {
			r.ended = true
			break
		}
		if r.next == r.nextRead {
			return // as many as may be are on their way to their quorum
		}
		rd := &r.reads[r.next%r.readAhead]
		switch {
		case rd.found:
			r.push(rd.length)
		case r.rules.absent(bits.OnesCount64(rd.negative), r.writeQuorum, r.ackQuorum):
			r.ended = true
		case rd.answered == r.set(r.next):
			r.fail(fmt.Errorf("entry %d: %w", r.next, ErrUndecided))
			return
		default:
			return
		}
	}
	if r.stage == reading && r.rules.mayClose(r.pending()) && (r.next > r.start+1 || r.lengthKnown()) {
		r.storeEnd()
	}
}

// lengthKnown returns whether all is known that can be about the length of a
// ledger in which nothing was found to recover.
func (r *Recovery) lengthKnown() bool {
	rd := &r.lengthRead
	switch {
	case rd.found:
		r.lacLength = rd.length
	case rd.answered == r.set(r.start):
		// The length informs only. A ledger whose end is known is not left open
		// because the bookies of an older segment are away.
		r.lacLength = max(r.last.Length, 0)
		r.guessed = true
	default:
		return false
	}
	return true
}

// AddReply is the answer of bookie at index to a Send of entry.
func (r *Recovery) AddReply(entry int64, index int, bookie metadata.BookieID, class Class) {
	if r.stage != reading && r.stage != storing {
		return
	}
	failed := r.answer(entry, index, bookie, class)
	if r.stage == storing {
		return
	}
	if failed && class == Unauthorized {
		r.fail(fmt.Errorf("bookie %s: %w", bookie, ErrUnauthorized))
		return
	}
	if failed && !r.replace(index) {
		return
	}
	r.deliver()
	r.proceed()
}

// BookieStalled tells that bookie has owed answers for some time, though no add to
// it has failed yet. It is replaced if that can be and the oldest entry that has no ack
// quorum has to have its answer.
func (r *Recovery) BookieStalled(bookie metadata.BookieID, stalled func(metadata.BookieID) bool) {
	if r.stage != reading {
		return
	}
	index := slices.Index(r.ensemble, bookie)
	if index < 0 || !r.holdsUp(index, stalled) {
		return
	}
	if b, found := replacement(r.placement, r.ensemble, index); found {
		r.give(index, b)
		r.deliver()
		r.proceed()
	}
}

// replace takes the bookie that failed out of the ensemble. It is false if the
// recovery failed because there is no ack quorum without it.
func (r *Recovery) replace(index int) (ok bool) {
	if b, found := replacement(r.placement, r.ensemble, index); found {
		r.give(index, b)
		return true
	}
	r.away |= 1 << index
	if !r.feasible(r.away) {
		r.fail(ErrNotEnoughBookies)
		return false
	}
	r.effects = append(r.effects, Effect{Kind: Degraded, Index: int32(index), Bookie: r.ensemble[index]})
	return true
}

// give changes the ensemble in memory: readers, and other recoveries, go by the
// stored one until the ledger is closed.
func (r *Recovery) give(index int, b metadata.BookieID) {
	ensemble := slices.Clone(r.ensemble)
	ensemble[index] = b
	s := metadata.Segment{First: r.rules.firstOfSegment(r.lac, r.next-1), Bookies: ensemble}
	if n := len(r.segments); n > 0 && r.segments[n-1].First == s.First {
		r.segments[n-1] = s
	} else {
		r.segments = append(r.segments, s)
	}
	r.switchTo(ensemble)
}

func (r *Recovery) storeEnd() {
	l := r.meta.Clone()
	l.State = metadata.Closed
	l.LastEntry, l.Length = r.lac, r.lacLength
	for _, s := range r.segments {
		if !r.rules.commit(s.First, r.lac) {
			continue
		}
		if err := withSegment(l, s); err != nil {
			r.fail(err)
			return
		}
	}
	r.stage = storing
	r.store(l)
}

// Stored answers a Store: it was written and has version now.
func (r *Recovery) Stored(version metadata.Version) {
	if r.proposal == nil {
		return
	}
	r.meta, r.version, r.proposal = r.proposal, version, nil
	r.claim()
}

// Conflict answers a Store: it was not written, because the store holds stored
// at version. stored is nil if the ledger is gone.
func (r *Recovery) Conflict(stored *metadata.Ledger, version metadata.Version) {
	if r.proposal == nil {
		return
	}
	r.proposal = nil
	if stored == nil {
		r.fail(ErrDeleted)
		return
	}
	if err := check(stored); err != nil {
		r.fail(err)
		return
	}
	r.meta, r.version = stored, version
	switch {
	case r.rules.adopt(stored.State), r.stage == claiming:
		r.claim()
	case stored.State != metadata.Open && sameSegment(stored.Last(), r.frozen.Last()):
		// Somebody repaired older segments: the same again, on top of that.
		r.storeEnd()
	default:
		r.fail(fmt.Errorf("%w: %v with last segment %d", ErrMetadata, stored.State, stored.Last().First))
	}
}

// StoreFailed answers a Store: the caller gave up on it. The recovery fails.
func (r *Recovery) StoreFailed(err error) {
	if r.proposal != nil {
		r.proposal = nil
		r.fail(err)
	}
}

func (r *Recovery) sealed() {
	r.stage = finished
	r.effects = append(r.effects, Effect{Kind: Sealed, Ledger: r.meta, Version: r.version})
}

func (r *Recovery) fail(err error) {
	r.stage = finished
	r.effects = append(r.effects, Effect{Kind: Failed, Err: fmt.Errorf("recovery of ledger %d: %w", r.meta.ID, err)})
}

// Done returns whether the recovery is over, by Sealed or by Failed.
func (r *Recovery) Done() bool { return r.stage == finished }
