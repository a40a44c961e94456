package place

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// ErrNotEnoughBookies: fewer bookies than the ensemble needs can take entries.
var ErrNotEnoughBookies = errors.New("not enough bookies")

// Candidate is a bookie that takes entries: registered as writable.
type Candidate struct {
	ID metadata.BookieID
	Location
	// Avoid asks to take another one if there is another: it is in quarantine, or
	// just failed.
	Avoid bool
}

// Quorums of a ledger. Ensemble ≥ WriteQuorum ≥ 1.
type Quorums struct {
	Ensemble, WriteQuorum int
}

// Choose picks an ensemble among candidates, of whom it uses each id once. The
// order of the result is the striping order. Rules, from the strongest: as many
// bookies as asked for, else ErrNotEnoughBookies; as few to be avoided as
// possible; no two replicas of an entry in one rack if there are racks enough,
// else on one host if there are hosts enough; as many regions as possible. What
// is left is random.
func Choose(r *rand.Rand, q Quorums, candidates []Candidate) ([]metadata.BookieID, error) {
	pool := shuffled(r, candidates)
	if len(pool) < q.Ensemble {
		return nil, fmt.Errorf("%w: an ensemble of %d, and %d take entries", ErrNotEnoughBookies, q.Ensemble, len(pool))
	}
	picked := pick(q, pool)
	// A rack or host that comes up more often than limit has to hold two replicas.
	limit := q.Ensemble / q.WriteQuorum
	by := func(c Candidate) string { return c.rack() }
	crowded := !fits(picked, by, limit)
	if crowded {
		by = func(c Candidate) string { return c.host(c.ID) }
	}
	placed := arrange(picked, by, limit)
	if crowded {
		spreadRacks(q, placed)
	}
	ids := make([]metadata.BookieID, len(placed))
	for i, c := range placed {
		ids[i] = c.ID
	}
	return ids, nil
}

// shuffled returns the candidates in random order, each id once.
func shuffled(r *rand.Rand, candidates []Candidate) []Candidate {
	pool := slices.Clone(candidates)
	// By id first: the caller's order, perhaps a map's, must not show through a seed.
	slices.SortStableFunc(pool, func(a, b Candidate) int { return compare(a.ID, b.ID) })
	pool = slices.CompactFunc(pool, func(a, b Candidate) bool { return a.ID == b.ID })
	r.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
	return pool
}

func compare[T ~string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// pick takes the bookies of an ensemble out of a pool, one at a time: the first
// that adds the least crowding.
//
// Taking no rack beyond its limit while another is below makes the racks fit
// whenever any choice would: each of them can give limit bookies, whatever the
// others gave. The same holds for hosts once racks cannot fit.
func pick(q Quorums, pool []Candidate) []Candidate {
	limit := q.Ensemble / q.WriteQuorum
	regions, racks, hosts := make(map[string]int), make(map[string]int), make(map[string]int)
	taken := make([]bool, len(pool))
	picked := make([]Candidate, 0, q.Ensemble)
	for len(picked) < q.Ensemble {
		best, least := -1, [6]int{}
		for i, c := range pool {
			if taken[i] {
				continue
			}
			rack, host := racks[c.rack()], hosts[c.host(c.ID)]
			crowding := [6]int{one(c.Avoid), one(rack >= limit), one(host >= limit), regions[c.Region], rack, host}
			if best < 0 || slices.Compare(crowding[:], least[:]) < 0 {
				best, least = i, crowding
			}
		}
		c := pool[best]
		taken[best] = true
		picked = append(picked, c)
		regions[c.Region]++
		racks[c.rack()]++
		hosts[c.host(c.ID)]++
	}
	return picked
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// fits says whether nothing comes up more often than limit.
func fits(picked []Candidate, by func(Candidate) string, limit int) bool {
	count := make(map[string]int)
	for _, c := range picked {
		if count[by(c)]++; count[by(c)] > limit {
			return false
		}
	}
	return true
}

// arrange orders the bookies so that two of one group are at least a write quorum
// apart, if no group has more than limit members.
//
// The circle is cut into limit rows, none shorter than the write quorum, and
// filled column by column, group by group, the largest first. A group then sits
// in neighbouring rows of one column, a row's length apart; or it goes on at the
// top of the next column, where it ends at least two rows above its beginning,
// because only groups as large as a column is high could come closer, and those
// have columns of their own.
func arrange(picked []Candidate, by func(Candidate) string, limit int) []Candidate {
	count := make(map[string]int)
	var order []string // of first appearance, which is random
	for _, c := range picked {
		if count[by(c)] == 0 {
			order = append(order, by(c))
		}
		count[by(c)]++
	}
	slices.SortStableFunc(order, func(a, b string) int { return count[b] - count[a] })
	rank := make(map[string]int, len(order))
	for i, name := range order {
		rank[name] = i
	}
	grouped := slices.Clone(picked)
	slices.SortStableFunc(grouped, func(a, b Candidate) int { return rank[by(a)] - rank[by(b)] })

	placed := make([]Candidate, len(grouped))
	long := len(grouped) % limit // rows that have one more; they come first
	short := len(grouped) / limit
	next := 0
	for column := 0; next < len(grouped); column++ {
		for row := range limit {
			if column == short && row >= long {
				break
			}
			placed[row*short+min(row, long)+column] = grouped[next]
			next++
		}
	}
	return placed
}

// spreadRacks swaps bookies as long as that takes replicas of one entry off one
// host, or else out of one rack. It is for racks that cannot fit: a good order,
// not the best.
func spreadRacks(q Quorums, placed []Candidate) {
	const (
		maxEnsemble = 32 // beyond it the order stays as it is
		passes      = 4
	)
	n := len(placed)
	if n > maxEnsemble || n == q.WriteQuorum {
		return
	}
	cost := func() int {
		sum := 0
		for i, c := range placed {
			for d := 1; d < q.WriteQuorum; d++ {
				other := placed[(i+d)%n]
				sum += 1000*one(c.host(c.ID) == other.host(other.ID)) + one(c.rack() == other.rack())
			}
		}
		return sum
	}
	least := cost()
	for range passes {
		before := least
		for i := range n {
			for j := range i {
				placed[i], placed[j] = placed[j], placed[i]
				if now := cost(); now < least {
					least = now
				} else {
					placed[i], placed[j] = placed[j], placed[i]
				}
			}
		}
		if least == before {
			return
		}
	}
}
