package quorum

import "github.com/quirelog/quire/storage/bookkeeper/metadata"

// MaxEnsemble is the most bookies that a segment may have here.
const MaxEnsemble = 64

// MaxEntries is how many entries a ledger takes at most: Java clients narrow an
// entry's id to 32 bits when they look for its bookies.
const MaxEntries = 1<<31 - 1

// Position returns which member of an ensemble of the given size keeps replica
// number i, in 0…WriteQuorum−1, of entry (RoundRobinDistributionSchedule).
func Position(entry int64, i, ensemble int) int { panic("quorum: the contract alone") }

// InWriteSet returns whether the member at index keeps entry.
func InWriteSet(entry int64, index, ensemble, writeQuorum int) bool {
	panic("quorum: the contract alone")
}

// Coverage counts the answers to reads of the last entry of a segment, until no
// ack quorum can be left that has not answered. With fencing reads that means:
// nothing more can be acknowledged to the writer.
type Coverage struct{}

// NewCoverage is of the last segment of ledger.
func NewCoverage(ledger *metadata.Ledger) Coverage { panic("quorum: the contract alone") }

// Answer notes the answer of the member at index; the first one counts.
func (c *Coverage) Answer(index int, class Class) { panic("quorum: the contract alone") }

// Covered returns whether enough have answered.
func (c *Coverage) Covered() bool { panic("quorum: the contract alone") }

// Lost returns whether all have answered and it was not enough.
func (c *Coverage) Lost() bool { panic("quorum: the contract alone") }
