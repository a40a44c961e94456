package place

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// Replace returns the ensemble with the bookies at the indices failed replaced
// by others, by the rules of Choose, against the locations of those that stay
// (where holds those of all members). No failed bookie and no member of the
// ensemble comes in again. If there are too few candidates some of failed stay as
// they are: replaced lists the indices that changed, in order, and
// ErrNotEnoughBookies comes only when there is none.
func Replace(r *rand.Rand, q Quorums, ensemble []metadata.BookieID, failed []int, candidates []Candidate, where func(metadata.BookieID) Location) (next []metadata.BookieID, replaced []int, err error) {
	pool := slices.DeleteFunc(shuffled(r, candidates), func(c Candidate) bool { return slices.Contains(ensemble, c.ID) })
	failed = slices.Compact(slices.Sorted(slices.Values(failed)))
	if len(pool) == 0 || len(failed) == 0 {
		return nil, nil, fmt.Errorf("%w: none is outside the ensemble to take the place of %d", ErrNotEnoughBookies, len(failed))
	}
	s := &search{q: q, pool: pool, failed: failed, seats: make([]seat, len(ensemble)), used: make([]bool, len(pool))}
	for i, id := range ensemble {
		if !slices.Contains(failed, i) {
			s.seats[i] = seat{filled: true, id: id, Location: where(id)}
		}
	}
	s.keep = max(0, len(failed)-len(pool))
	s.run(0, cost{})
	next = slices.Clone(ensemble)
	for n, i := range s.best {
		if i >= 0 {
			next[failed[n]] = pool[i].ID
			replaced = append(replaced, failed[n])
		}
	}
	return next, replaced, nil
}

// seat is a place in the ensemble while it is being filled.
type seat struct {
	filled bool
	id     metadata.BookieID
	Location
}

// cost is what a choice has against it, from the strongest rule on: bookies to be
// avoided; pairs of replicas in one rack, on one host; regions that are doubled.
type cost [4]int

func (c cost) plus(d cost) cost {
	for i := range c {
		c[i] += d[i]
	}
	return c
}

// maxSteps bounds a search. Few members fail at once and racks are few, so that
// it hardly ever ends early; then it takes the best found so far.
const maxSteps = 20_000

// search tries the ways to fill the failed seats. Candidates of one rack that are
// to be avoided alike differ in their hosts at most, so it tries one of them.
type search struct {
	q      Quorums
	pool   []Candidate
	failed []int
	seats  []seat
	used   []bool
	keep   int // failed seats for which there is nobody

	chosen []int // per failed seat the candidate, or -1
	best   []int
	least  cost
	steps  int
}

// run fills the failed seats from the n-th on.
func (s *search) run(n int, so cost) {
	if s.best != nil && (slices.Compare(so[:], s.least[:]) >= 0 || s.steps >= maxSteps) {
		return
	}
	if n == len(s.failed) {
		s.best, s.least = slices.Clone(s.chosen), so
		return
	}
	s.steps++
	for _, i := range s.options(s.failed[n]) {
		c := s.pool[i]
		add := s.cost(s.failed[n], c)
		s.used[i], s.seats[s.failed[n]] = true, seat{filled: true, id: c.ID, Location: c.Location}
		s.chosen = append(s.chosen, i)
		s.run(n+1, so.plus(add))
		s.chosen = s.chosen[:n]
		s.used[i], s.seats[s.failed[n]] = false, seat{}
	}
	if s.keep > 0 {
		s.keep--
		s.chosen = append(s.chosen, -1)
		s.run(n+1, so)
		s.chosen = s.chosen[:n]
		s.keep++
	}
}

// options returns the candidates worth trying for a seat, the cheapest first.
func (s *search) options(at int) []int {
	type class struct {
		rack  string
		avoid bool
	}
	type option struct {
		i    int
		cost cost
	}
	cheapest := make(map[class]int) // index into options
	var options []option
	for i, c := range s.pool {
		if s.used[i] {
			continue
		}
		o := option{i, s.cost(at, c)}
		k := class{c.rack(), c.Avoid}
		if j, ok := cheapest[k]; !ok {
			cheapest[k] = len(options)
			options = append(options, o)
		} else if slices.Compare(o.cost[:], options[j].cost[:]) < 0 {
			options[j] = o
		}
	}
	slices.SortStableFunc(options, func(a, b option) int { return slices.Compare(a.cost[:], b.cost[:]) })
	is := make([]int, len(options))
	for j, o := range options {
		is[j] = o.i
	}
	return is
}

// cost is what speaks against a candidate in a seat, given the others.
func (s *search) cost(at int, c Candidate) cost {
	sum := cost{one(c.Avoid)}
	n := len(s.seats)
	for i, other := range s.seats {
		if !other.filled || i == at {
			continue
		}
		sum[3] += one(other.Region == c.Region)
		if d := (i - at + n) % n; min(d, n-d) < s.q.WriteQuorum {
			sum[1] += one(other.rack() == c.rack())
			sum[2] += one(other.host(other.id) == c.host(c.ID))
		}
	}
	return sum
}
