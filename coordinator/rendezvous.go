package coordinator

import (
	"math"
	"slices"
)

// candidate is a node that may own slots.
type candidate struct {
	id     int32
	weight int32 // positive
}

// rank orders candidates by how much each is wanted as the owner of a slot, the
// best first. It is weighted rendezvous hashing (Thaler and Ravishankar; the
// weights by -w/ln h): every node computes the same without a word, a node has a
// share of the slots in proportion to its weight, and one that comes or goes
// moves only the slots that it takes or had.
func rank(slot int, candidates []candidate) []int32 {
	type scored struct {
		id    int32
		score float64
	}
	all := make([]scored, len(candidates))
	for i, c := range candidates {
		all[i] = scored{c.id, score(slot, c)}
	}
	slices.SortFunc(all, func(a, b scored) int {
		switch {
		case a.score > b.score, a.score == b.score && a.id < b.id:
			return -1
		}
		return 1
	})
	ids := make([]int32, len(all))
	for i := range all {
		ids[i] = all[i].id
	}
	return ids
}

// best is the first of rank, 0 and false if there are no candidates.
func best(slot int, candidates []candidate) (id int32, ok bool) {
	highest := math.Inf(-1)
	for _, c := range candidates {
		s := score(slot, c)
		if s > highest || s == highest && c.id < id {
			id, highest, ok = c.id, s, true
		}
	}
	return id, ok
}

func score(slot int, c candidate) float64 {
	// 53 bits make a number between 0 and 1, neither included.
	h := (float64(mix(uint64(uint32(c.id))<<32|uint64(uint32(slot)))>>11) + 0.5) / (1 << 53)
	return -float64(c.weight) / math.Log(h)
}

// mix is the finalizer of SplitMix64: each bit of x decides about half of the bits.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
