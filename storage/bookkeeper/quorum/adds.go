package quorum

import (
	"math/bits"
	"slices"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// adds is what the writer and the recovery have in common: entries on their way
// to a quorum of the current ensemble.
//
//	oldest        lac              next
//	  | acknowledged | not acknowledged |
//	  | some bookies |   acks may go    |
//	  | not answered |   again          |
type adds struct {
	rules       *rules
	flags       Flags
	writeQuorum int
	ackQuorum   int
	sets        []uint64 // writeSets of the ensemble
	ensemble    []metadata.BookieID
	away        uint64 // positions whose bookie failed and could not be replaced
	leaving     uint64 // positions whose next bookie is being stored

	ring      []add // by entry mod its length, a power of two
	oldest    int64
	next      int64
	lac       int64
	lacLength int64 // the ledger's length with entry lac

	silent  bool // nobody waits to hear Acknowledge
	effects []Effect
}

// add is one entry. Bits are positions of the ensemble.
type add struct {
	length  int64 // the ledger's, with this entry
	acked   uint64
	waiting uint64 // sent there, not answered
}

func newAdds(r *rules, l *metadata.Ledger, flags Flags, lac, length int64) adds {
	return adds{
		rules: r, flags: flags, writeQuorum: l.WriteQuorum, ackQuorum: l.AckQuorum,
		sets: writeSets(l.Ensemble, l.WriteQuorum), ensemble: l.Last().Bookies,
		ring: make([]add, 16), oldest: lac + 1, next: lac + 1, lac: lac, lacLength: length,
	}
}

func (a *adds) at(entry int64) *add    { return &a.ring[entry&int64(len(a.ring)-1)] }
func (a *adds) set(entry int64) uint64 { return a.sets[entry%int64(len(a.sets))] }
func (a *adds) pending() int           { return int(a.next - 1 - a.lac) }
func (a *adds) complete(entry int64) bool {
	acked := a.at(entry).acked
	if a.leaving != 0 {
		acked = a.rules.counted(acked, a.leaving)
	}
	return a.rules.acknowledged(bits.OnesCount64(acked), a.ackQuorum)
}

// push adds the next entry and sends it to its write set.
func (a *adds) push(length int64) int64 {
	entry := a.next
	if entry-a.oldest == int64(len(a.ring)) {
		a.grow()
	}
	a.next++
	*a.at(entry) = add{length: length}
	a.send(entry, a.set(entry)&^(a.away|a.leaving))
	return entry
}

func (a *adds) grow() {
	old := *a
	a.ring = make([]add, 2*len(old.ring))
	for e := a.oldest; e < a.next; e++ {
		*a.at(e) = *old.at(e)
	}
}

// send sends entry to the positions to, in the order of its write set.
func (a *adds) send(entry int64, to uint64) {
	a.at(entry).waiting |= to
	for i := range a.writeQuorum {
		index := Position(entry, i, len(a.ensemble))
		if to&(1<<index) != 0 {
			a.effects = append(a.effects, Effect{
				Kind: Send, Flags: a.flags, Entry: entry, Index: int32(index), Bookie: a.ensemble[index],
			})
		}
	}
}

// answer notes what bookie at index said to entry and returns whether the
// position is to be treated as failed now. Answers that nobody waits for are
// ignored: of bookies replaced meanwhile, and those that come twice.
func (a *adds) answer(entry int64, index int, bookie metadata.BookieID, class Class) (failed bool) {
	if entry < a.oldest || entry >= a.next || index < 0 || index >= len(a.ensemble) || !a.rules.current(a.ensemble[index], bookie) {
		return false
	}
	bit := uint64(1) << index
	if a.set(entry)&bit == 0 {
		return false
	}
	waited := a.at(entry).waiting&bit != 0
	if class == Ack {
		a.at(entry).acked |= bit
	}
	if waited {
		a.answered(entry, bit)
	}
	return class != Ack && waited && a.away&bit == 0
}

// answered ends the wait for the positions of an entry.
func (a *adds) answered(entry int64, positions uint64) {
	op := a.at(entry)
	if op.waiting&positions == 0 {
		return
	}
	op.waiting &^= positions
	if op.waiting == 0 && entry <= a.lac {
		a.release(entry)
	}
}

// release gives an acknowledged entry up that no bookie owes an answer to.
func (a *adds) release(entry int64) {
	a.effects = append(a.effects, Effect{Kind: Release, Entry: entry})
	for a.oldest <= a.lac && a.at(a.oldest).waiting == 0 {
		a.oldest++
	}
}

// deliver acknowledges what is complete, and returns whether that was anything.
func (a *adds) deliver() bool {
	first, lac := a.lac+1, a.rules.advance(a)
	if lac < first {
		return false
	}
	a.lac, a.lacLength = lac, a.at(lac).length
	if !a.silent {
		a.effects = append(a.effects, Effect{Kind: Acknowledge, First: first, Entry: lac})
	}
	for e := first; e <= lac; e++ {
		if a.at(e).waiting == 0 {
			a.release(e)
		}
	}
	return true
}

// switchTo makes ensemble the current one. What is not acknowledged is sent to
// the new bookies, and their predecessors' acks are void.
func (a *adds) switchTo(ensemble []metadata.BookieID) {
	var replaced uint64
	for i, b := range ensemble {
		if b != a.ensemble[i] {
			replaced |= 1 << i
		}
	}
	a.ensemble = ensemble
	a.away &^= replaced
	a.leaving = 0
	for e, next := a.oldest, a.next; e < next; e++ {
		if e <= a.lac {
			a.answered(e, replaced)
			continue
		}
		op := a.at(e)
		op.acked = a.rules.carry(op.acked, replaced)
		op.waiting &^= replaced
		a.send(e, a.set(e)&replaced)
	}
}

// returned sends to a position that was away what it has missed and may still count.
func (a *adds) returned(index int) {
	bit := uint64(1) << index
	a.away &^= bit
	for e := a.lac + 1; e < a.next; e++ {
		if op := a.at(e); (op.acked|op.waiting)&bit == 0 {
			a.send(e, a.set(e)&bit)
		}
	}
}

// holdsUp returns whether the oldest entry that is not acknowledged waits for an
// answer from the position, and gets no ack quorum from the others without those that
// are stalled.
func (a *adds) holdsUp(index int, stalled func(metadata.BookieID) bool) bool {
	if a.pending() == 0 || a.at(a.lac+1).waiting&(1<<index) == 0 {
		return false
	}
	op := a.at(a.lac + 1)
	hope := op.acked
	for i, b := range a.ensemble {
		if op.waiting&(1<<i) != 0 && i != index && !stalled(b) {
			hope |= 1 << i
		}
	}
	return !a.rules.acknowledged(bits.OnesCount64(hope), a.ackQuorum)
}

// feasible returns whether every write set has an ack quorum without the
// positions in away.
func (a *adds) feasible(away uint64) bool {
	for _, set := range a.sets {
		if bits.OnesCount64(set&^away) < a.ackQuorum {
			return false
		}
	}
	return true
}

// take appends the effects to dst and forgets them.
func (a *adds) take(dst []Effect) []Effect {
	dst = append(dst, a.effects...)
	clear(a.effects)
	a.effects = a.effects[:0]
	return dst
}

// replacement asks placement for a bookie and takes no answer that breaks the
// ensemble.
func replacement(p Placement, ensemble []metadata.BookieID, index int) (metadata.BookieID, bool) {
	b, ok := p.Replace(ensemble, index)
	return b, ok && b != "" && !slices.Contains(ensemble, b)
}
