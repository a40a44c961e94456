package quorum

import (
	"os"
	"testing"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// mutations break one rule each. What is named is what goes wrong then.
var mutations = []struct {
	name string
	mut  func(r *rules)
}{
	{"one ack fewer than the quorum is enough", func(r *rules) {
		r.acknowledged = func(acks, ackQuorum int) bool { return acks >= ackQuorum-1 && acks > 0 }
	}},
	{"acks of replaced bookies count", func(r *rules) {
		r.current = func(_, _ metadata.BookieID) bool { return true }
	}},
	{"acks outlive the bookie that gave them", func(r *rules) {
		r.carry = func(acked, _ uint64) uint64 { return acked }
	}},
	{"an entry is acknowledged before the one ahead of it", func(r *rules) {
		r.advance = func(a *adds) int64 {
			lac := a.lac
			for e := a.lac + 1; e < a.next; e++ {
				if a.complete(e) {
					lac = e
				}
			}
			return lac
		}
	}},
	{"acks of bookies that are being replaced count", func(r *rules) {
		r.counted = func(acked, _ uint64) uint64 { return acked }
	}},
	{"a segment begins after the last entry sent", func(r *rules) {
		r.firstOfSegment = func(_, last int64) int64 { return last + 1 }
	}},
	{"a segment begins one entry late", func(r *rules) {
		r.firstOfSegment = func(lac, last int64) int64 { return min(lac+2, last+1) }
	}},
	{"the writer changes the ensemble of a ledger in recovery", func(r *rules) {
		r.mayWrite = func(stored metadata.State) bool { return stored != metadata.Closed }
	}},
	{"a failed writer closes the ledger after all it has sent", func(r *rules) {
		r.end = func(_, last int64) int64 { return last }
	}},
	{"a failed writer closes the ledger before its last acknowledged entry", func(r *rules) {
		r.end = func(lac, _ int64) int64 { return max(lac-1, metadata.NoEntry) }
	}},
	// This one and the next lose nothing as long as every other read fences: what
	// finds them is that the simulation looks at the fences.
	{"a full ack quorum may stay unfenced", func(r *rules) {
		r.covered = func(unknown, ackQuorum int) bool { return unknown <= ackQuorum }
	}},
	{"the first reads of a recovery do not fence", func(r *rules) { r.lastFlags = HighPriority }},
	{"recovery starts before the last segment", func(r *rules) {
		r.start = func(lac, _ int64) int64 { return lac }
	}},
	{"recovery starts one entry late", func(r *rules) {
		r.start = func(lac, first int64) int64 { return max(lac, first-1) + 1 }
	}},
	{"the reads of entries do not fence", func(r *rules) { r.readFlags = HighPriority }},
	{"recovery adds do not pass the fence", func(r *rules) { r.addFlags = HighPriority }},
	{"who is unknown votes for absence", func(r *rules) {
		r.negative = func(class Class) bool { return class != Ack }
	}},
	{"one negative vote fewer is enough", func(r *rules) {
		r.absent = func(negatives, writeQuorum, ackQuorum int) bool {
			return negatives >= max(1, writeQuorum-ackQuorum)
		}
	}},
	{"one more negative vote is asked for", func(r *rules) {
		r.absent = func(negatives, writeQuorum, ackQuorum int) bool { return negatives > writeQuorum-ackQuorum+1 }
	}},
	{"recovery closes the ledger before its adds are acknowledged", func(r *rules) {
		r.mayClose = func(int) bool { return true }
	}},
	{"recovery does not store the segments it made", func(r *rules) {
		r.commit = func(_, _ int64) bool { return false }
	}},
	{"recovery closes what another has closed", func(r *rules) {
		r.adopt = func(metadata.State) bool { return false }
	}},
}

// TestMutations shows that the simulation would notice: each rule, broken, is
// found within the seeds that a run of CI has.
func TestMutations(t *testing.T) {
	const enough = 100_000
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			r := protocol
			m.mut(&r)
			seed := firstViolation(&r, enough)
			if seed == enough {
				t.Fatalf("%d seeds and no violation", enough)
			}
			violation, trace := simulate(seed, &r, true)
			if os.Getenv("QUIRE_SHOW") != "" {
				t.Log(describe(seed, violation, trace))
			}
			t.Logf("seed %d: %.150s", seed, violation)
		})
	}
}
