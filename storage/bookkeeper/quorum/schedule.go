package quorum

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// MaxEnsemble is the most bookies that a segment may have here.
const MaxEnsemble = 64

// MaxEntries is how many entries a ledger takes at most: Java clients narrow an
// entry's id to 32 bits when they look for its bookies.
const MaxEntries = 1<<31 - 1

// Position returns which member of an ensemble of the given size keeps replica
// number i, in 0…WriteQuorum−1, of entry (RoundRobinDistributionSchedule).
func Position(entry int64, i, ensemble int) int {
	return int((entry + int64(i)) % int64(ensemble))
}

// InWriteSet returns whether the member at index keeps entry.
func InWriteSet(entry int64, index, ensemble, writeQuorum int) bool {
	return (index-Position(entry, 0, ensemble)+ensemble)%ensemble < writeQuorum
}

// writeSets returns the members that keep an entry, as bits, by entry mod ensemble.
func writeSets(ensemble, writeQuorum int) []uint64 {
	sets := make([]uint64, ensemble)
	for first := range sets {
		for i := range writeQuorum {
			sets[first] |= 1 << Position(int64(first), i, ensemble)
		}
	}
	return sets
}

// check returns ErrMetadata if a ledger is not of the shape that the machines
// build on. Metadata come from outside.
func check(l *metadata.Ledger) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("ledger %d: %w: %s", l.ID, ErrMetadata, fmt.Sprintf(format, args...))
	}
	if l.AckQuorum < 1 || l.WriteQuorum < l.AckQuorum || l.Ensemble < l.WriteQuorum || l.Ensemble > MaxEnsemble {
		return bad("ensemble %d, write quorum %d, ack quorum %d", l.Ensemble, l.WriteQuorum, l.AckQuorum)
	}
	if len(l.Segments) == 0 || l.Segments[0].First != 0 {
		return bad("no segment at entry 0")
	}
	for i, s := range l.Segments {
		if len(s.Bookies) != l.Ensemble {
			return bad("segment %d has %d bookies instead of %d", s.First, len(s.Bookies), l.Ensemble)
		}
		if i > 0 && s.First <= l.Segments[i-1].First {
			return bad("segment %d after segment %d", s.First, l.Segments[i-1].First)
		}
	}
	switch l.State {
	case metadata.Open, metadata.InRecovery:
	case metadata.Closed:
		if l.LastEntry < metadata.NoEntry || l.Length < 0 {
			return bad("closed at entry %d with length %d", l.LastEntry, l.Length)
		}
	default:
		return bad("state %d", l.State)
	}
	return nil
}

func sameSegment(a, b metadata.Segment) bool {
	return a.First == b.First && slices.Equal(a.Bookies, b.Bookies)
}

// withSegment makes s the last segment of l. A segment that starts at the same
// entry has nothing acknowledged in it and is replaced.
func withSegment(l *metadata.Ledger, s metadata.Segment) error {
	switch last := l.Last(); {
	case s.First > last.First:
		l.Segments = append(l.Segments, s)
	case s.First == last.First:
		l.Segments[len(l.Segments)-1] = s
	default:
		return fmt.Errorf("ledger %d: %w: segment %d before the last, %d", l.ID, ErrMetadata, s.First, last.First)
	}
	return nil
}

// Coverage counts the answers to reads of the last entry of a segment, until no
// ack quorum can be left that has not answered. With fencing reads that means:
// nothing more can be acknowledged to the writer.
type Coverage struct {
	rules     *rules
	ackQuorum int
	sets      []uint64
	answered  uint64
	known     uint64 // answered with Ack or Negative
}

// NewCoverage is of the last segment of ledger.
func NewCoverage(ledger *metadata.Ledger) Coverage {
	return Coverage{rules: &protocol, ackQuorum: ledger.AckQuorum, sets: writeSets(ledger.Ensemble, ledger.WriteQuorum)}
}

// Answer notes the answer of the member at index; the first one counts.
func (c *Coverage) Answer(index int, class Class) {
	if index < 0 || index >= len(c.sets) || c.answered&(1<<index) != 0 {
		return
	}
	c.answered |= 1 << index
	if class == Ack || class == Negative {
		c.known |= 1 << index
	}
}

// Covered returns whether enough have answered: in no write set may as many as
// an ack quorum be unknown. Who has not answered is unknown.
func (c *Coverage) Covered() bool {
	for _, set := range c.sets {
		if !c.rules.covered(bits.OnesCount64(set&^c.known), c.ackQuorum) {
			return false
		}
	}
	return true
}

// Lost returns whether all have answered and it was not enough.
func (c *Coverage) Lost() bool {
	return bits.OnesCount64(c.answered) == len(c.sets) && !c.Covered()
}
