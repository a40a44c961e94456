package place

import (
	"errors"
	"math/rand/v2"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// ErrNotEnoughBookies: fewer bookies than the ensemble needs can take entries.
var ErrNotEnoughBookies = errors.New("not enough bookies")

// Location is where a bookie stands. Bookies of which nothing is known have the
// zero Location: they share one unknown rack, but not a host.
type Location struct {
	Region, Rack, Host string
}

// Candidate is a bookie that takes entries: registered as writable.
type Candidate struct {
	ID metadata.BookieID
	Location
	// Avoid asks to take another one if there is another: it is in quarantine, or
	// just failed.
	Avoid bool
}

// Quorums of a ledger.
type Quorums struct {
	Ensemble, WriteQuorum int
}

// Choose picks an ensemble among candidates, of whom it uses the ids once each.
// The order of the result is the striping order. Rules, from the strongest: as
// many bookies as asked for, else ErrNotEnoughBookies; none to be avoided while
// others suffice; no two replicas of an entry in one rack, then on one host, as
// far as there are racks and hosts, over as many regions as there are. What is
// left is random.
func Choose(r *rand.Rand, q Quorums, candidates []Candidate) ([]metadata.BookieID, error) {
	return nil, ErrNotEnoughBookies
}

// Replace returns the ensemble with the bookies at the indices failed replaced
// by others, by the rules of Choose, against the locations of those that stay
// (where holds those of bookies that are no candidates). No failed bookie and no
// member of the ensemble comes in again. If there are too few candidates some of
// failed stay as they are: replaced lists the indices that changed, and
// ErrNotEnoughBookies comes only when there is none.
func Replace(r *rand.Rand, q Quorums, ensemble []metadata.BookieID, failed []int, candidates []Candidate, where func(metadata.BookieID) Location) (next []metadata.BookieID, replaced []int, err error) {
	return nil, nil, ErrNotEnoughBookies
}
