package place

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// verdict is how good an ensemble is, by the rules in their order; less is better.
type verdict struct {
	avoided, rackPairs, hostPairs, sameRegions int
}

func judge(q Quorums, ensemble []Candidate) verdict {
	var v verdict
	regions := make(map[string]bool)
	n := len(ensemble)
	for i, c := range ensemble {
		v.avoided += one(c.Avoid)
		regions[c.Region] = true
		for j := range i {
			if d := i - j; min(d, n-d) < q.WriteQuorum {
				v.rackPairs += one(c.rack() == ensemble[j].rack())
				v.hostPairs += one(c.host(c.ID) == ensemble[j].host(ensemble[j].ID))
			}
		}
	}
	v.sameRegions = n - len(regions)
	return v
}

// eachChoice calls f with every ordered choice of n candidates.
func eachChoice(candidates []Candidate, n int, f func([]Candidate)) {
	chosen := make([]Candidate, 0, n)
	used := make([]bool, len(candidates))
	var extend func()
	extend = func() {
		if len(chosen) == n {
			f(chosen)
			return
		}
		for i, c := range candidates {
			if !used[i] {
				used[i], chosen = true, append(chosen, c)
				extend()
				used[i], chosen = false, chosen[:len(chosen)-1]
			}
		}
	}
	extend()
}

func genCandidates(t *rapid.T, most int) []Candidate {
	racks, hosts := rapid.IntRange(1, 4).Draw(t, "racks"), rapid.IntRange(1, 3).Draw(t, "hosts")
	regions, avoided := rapid.IntRange(1, 3).Draw(t, "regions"), rapid.IntRange(0, 2).Draw(t, "avoided")
	candidates := make([]Candidate, rapid.IntRange(1, most).Draw(t, "candidates"))
	for i := range candidates {
		c := &candidates[i]
		c.ID = metadata.BookieID(fmt.Sprintf("b%d", i))
		c.Region = fmt.Sprint("region", rapid.IntRange(1, regions).Draw(t, "region"))
		c.Rack = fmt.Sprint("rack", rapid.IntRange(1, racks).Draw(t, "rack"))
		if h := rapid.IntRange(0, hosts).Draw(t, "host"); h > 0 {
			c.Host = fmt.Sprint("host", h)
		}
		c.Avoid = rapid.IntRange(0, 4).Draw(t, "avoid") < avoided
	}
	return candidates
}

func genQuorums(t *rapid.T, most int) Quorums {
	q := Quorums{Ensemble: rapid.IntRange(1, most).Draw(t, "ensemble")}
	q.WriteQuorum = rapid.IntRange(1, q.Ensemble).Draw(t, "write quorum")
	return q
}

func byID(candidates []Candidate) map[metadata.BookieID]Candidate {
	m := make(map[metadata.BookieID]Candidate, len(candidates))
	for _, c := range candidates {
		m[c.ID] = c
	}
	return m
}

// Against every possible choice: ours avoids as many, has no two replicas of an
// entry in one rack if any choice has not, or else on one host if any has not,
// and spans as many regions as any that does the same.
func TestChooseIsBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		candidates, q := genCandidates(t, 6), genQuorums(t, 5)
		ids, err := Choose(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)), q, candidates)
		if len(candidates) < q.Ensemble {
			if !errors.Is(err, ErrNotEnoughBookies) {
				t.Fatalf("%d of %d: %v, %v, want ErrNotEnoughBookies", q.Ensemble, len(candidates), ids, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		all := byID(candidates)
		var ours []Candidate
		seen := make(map[metadata.BookieID]bool)
		for _, id := range ids {
			c, ok := all[id]
			if !ok || seen[id] {
				t.Fatalf("%s in %v", id, ids)
			}
			seen[id] = true
			ours = append(ours, c)
		}
		if len(ours) != q.Ensemble {
			t.Fatalf("%d bookies, want %d", len(ours), q.Ensemble)
		}
		got := judge(q, ours)
		eachChoice(candidates, q.Ensemble, func(other []Candidate) {
			v := judge(q, other)
			switch {
			case v.avoided > got.avoided:
			case v.avoided < got.avoided,
				v.rackPairs == 0 && got.rackPairs > 0,
				got.rackPairs > 0 && v.hostPairs == 0 && got.hostPairs > 0,
				v.rackPairs == 0 && v.sameRegions < got.sameRegions:
				t.Fatalf("E %d, WQ %d: chose %+v: %+v\nbetter: %+v: %+v", q.Ensemble, q.WriteQuorum, ours, got, other, v)
			}
		})
	})
}

// Wherever racks of these sizes can fit at all, they do, for ensembles larger than
// any search could try.
func TestArrange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := genQuorums(t, 40)
		limit := q.Ensemble / q.WriteQuorum
		var picked []Candidate
		for rack := 0; len(picked) < q.Ensemble; rack++ {
			for range min(rapid.IntRange(1, limit).Draw(t, "bookies"), q.Ensemble-len(picked)) {
				id := metadata.BookieID(fmt.Sprint(len(picked)))
				picked = append(picked, Candidate{ID: id, Location: Location{Rack: fmt.Sprint(rack)}})
			}
		}
		placed := arrange(picked, func(c Candidate) string { return c.Rack }, limit)
		if len(byID(placed)) != q.Ensemble {
			t.Fatalf("placed %v", placed)
		}
		if v := judge(q, placed); v.rackPairs > 0 {
			t.Fatalf("WQ %d: %d pairs in one rack: %v", q.WriteQuorum, v.rackPairs, placed)
		}
	})
}

// The examples that people have.
func TestChooseExamples(t *testing.T) {
	at := func(ids string, location string) []Candidate {
		l, err := ParseLocation(location)
		if err != nil {
			t.Fatal(err)
		}
		var cs []Candidate
		for _, id := range ids {
			cs = append(cs, Candidate{ID: metadata.BookieID(id), Location: l})
		}
		return cs
	}
	for name, c := range map[string]struct {
		q          Quorums
		candidates []Candidate
		ok         func([]metadata.BookieID) bool
	}{
		"three racks": {Quorums{3, 3}, slices.Concat(at("abcdef", "r1"), at("g", "r2"), at("h", "r3")), func(e []metadata.BookieID) bool {
			return slices.Contains(e, "g") && slices.Contains(e, "h")
		}},
		"two racks, striped": {Quorums{4, 2}, slices.Concat(at("ab", "r1"), at("cd", "r2")), func(e []metadata.BookieID) bool {
			return (e[0] < "c") != (e[1] < "c") && (e[1] < "c") != (e[2] < "c") && (e[2] < "c") != (e[3] < "c")
		}},
		"two regions with a rack name in common": {Quorums{2, 2}, slices.Concat(at("abc", "east/r1"), at("d", "west/r1")), func(e []metadata.BookieID) bool {
			return slices.Contains(e, "d")
		}},
		"one region has all the racks": {Quorums{3, 3}, slices.Concat(at("a", "east/r1"), at("b", "east/r2"), at("c", "east/r3"), at("d", "west/r1")), func(e []metadata.BookieID) bool {
			return slices.Contains(e, "d")
		}},
		"four racks, three of them in one region": {Quorums{4, 4}, slices.Concat(at("abcd", "east/r1"), at("e", "west/r1"), at("f", "west/r2"), at("g", "west/r3")), func(e []metadata.BookieID) bool {
			return slices.Contains(e, "e") && slices.Contains(e, "f") && slices.Contains(e, "g")
		}},
		"two racks, four hosts, three of them in one": {Quorums{4, 4}, slices.Concat(at("abcd", "x/r1/h1"), at("e", "x/r2/h2"), at("f", "x/r2/h3"), at("g", "x/r2/h4")), func(e []metadata.BookieID) bool {
			return slices.Contains(e, "e") && slices.Contains(e, "f") && slices.Contains(e, "g")
		}},
		"one rack, two hosts": {Quorums{2, 2}, slices.Concat(at("abcdef", "x/r/h1"), at("g", "x/r/h2")), func(e []metadata.BookieID) bool {
			return slices.Contains(e, "g")
		}},
	} {
		for seed := range uint64(50) {
			e, err := Choose(rand.New(rand.NewPCG(seed, 1)), c.q, c.candidates)
			if err != nil || !c.ok(e) {
				t.Errorf("%s: %v, %v", name, e, err)
				break
			}
		}
	}
}

// The same seed gives the same ensemble whatever the order of the candidates,
// and seeds spread the load over all.
func TestChooseIsSeeded(t *testing.T) {
	var candidates []Candidate
	for i := range 9 {
		candidates = append(candidates, Candidate{ID: metadata.BookieID(fmt.Sprint("b", i)), Location: Location{Rack: fmt.Sprint(i % 3)}})
	}
	times := make(map[metadata.BookieID]int)
	firsts := make(map[metadata.BookieID]int)
	const rounds = 3000
	for seed := range uint64(rounds) {
		e, err := Choose(rand.New(rand.NewPCG(seed, 2)), Quorums{3, 2}, candidates)
		if err != nil {
			t.Fatal(err)
		}
		reversed := slices.Clone(candidates)
		slices.Reverse(reversed)
		again, err := Choose(rand.New(rand.NewPCG(seed, 2)), Quorums{3, 2}, append(reversed, candidates...))
		if err != nil || !slices.Equal(e, again) {
			t.Fatalf("seed %d: %v, then %v, %v", seed, e, again, err)
		}
		for _, id := range e {
			times[id]++
		}
		firsts[e[0]]++
	}
	for _, c := range candidates {
		if n := times[c.ID]; n < rounds/3-rounds/10 || n > rounds/3+rounds/10 {
			t.Errorf("%s is in %d of %d ensembles", c.ID, n, rounds)
		}
		if n := firsts[c.ID]; n < rounds/9-rounds/20 || n > rounds/9+rounds/20 {
			t.Errorf("%s is the first of %d of %d ensembles", c.ID, n, rounds)
		}
	}
}

// Against every possible replacement: as many seats are filled, by nobody that
// failed or is there already, and no rule in its order could be kept better.
func TestReplaceIsBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := genQuorums(t, 5)
		members := genCandidates(t, 5)
		for len(members) < q.Ensemble {
			members = append(members, Candidate{ID: metadata.BookieID(fmt.Sprint("b", len(members)))})
		}
		ensemble := make([]metadata.BookieID, q.Ensemble)
		for i := range ensemble {
			ensemble[i] = members[i].ID
		}
		spares := genCandidates(t, 5)
		for i := range spares {
			spares[i].ID = metadata.BookieID(fmt.Sprint("s", i))
		}
		failed := rapid.SliceOfNDistinct(rapid.IntRange(0, q.Ensemble-1), 1, min(3, q.Ensemble), rapid.ID).Draw(t, "failed")
		if rapid.Bool().Draw(t, "no spare") {
			spares = nil
		}
		all := byID(append(slices.Clone(members), spares...))
		before := slices.Clone(ensemble)
		// Members are candidates too, as far as the registrations know.
		next, replaced, err := Replace(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)), q, ensemble, failed,
			slices.Concat(members[:q.Ensemble], spares), func(id metadata.BookieID) Location { return all[id].Location })
		if !slices.Equal(ensemble, before) {
			t.Fatalf("the ensemble was changed from %v to %v", before, ensemble)
		}
		if len(spares) == 0 {
			if !errors.Is(err, ErrNotEnoughBookies) || replaced != nil {
				t.Fatalf("%v, %v, %v without spares, want ErrNotEnoughBookies", next, replaced, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		n := min(len(failed), len(spares))
		if len(replaced) != n || !slices.IsSorted(replaced) {
			t.Fatalf("replaced %v of %v with %d spares", replaced, failed, len(spares))
		}
		var incoming []Candidate
		for i, id := range next {
			switch {
			case slices.Contains(replaced, i):
				if id[0] != 's' || slices.Contains(next[:i], id) || !slices.Contains(failed, i) {
					t.Fatalf("from %v to %v, failed %v", ensemble, next, failed)
				}
				incoming = append(incoming, all[id])
			case id != ensemble[i]:
				t.Fatalf("from %v to %v, failed %v", ensemble, next, failed)
			}
		}
		if n < len(failed) {
			return // which of failed stay is part of the choice: too many to try
		}
		full := func(in []Candidate) []Candidate {
			cs := make([]Candidate, q.Ensemble)
			for i, id := range ensemble {
				cs[i] = Candidate{ID: id, Location: all[id].Location}
			}
			for j, at := range replaced {
				cs[at] = in[j]
			}
			return cs
		}
		got := judge(q, full(incoming))
		eachChoice(spares, n, func(other []Candidate) {
			// Hosts and regions are preferred, not searched for.
			if v := judge(q, full(other)); v.avoided < got.avoided || v.avoided == got.avoided && v.rackPairs < got.rackPairs {
				t.Fatalf("E %d, WQ %d: %v became %v (%+v), better %v (%+v)", q.Ensemble, q.WriteQuorum, ensemble, next, got, other, v)
			}
		})
	})
}

// A spare on another host, then in another region, is preferred.
func TestReplacePrefers(t *testing.T) {
	where := map[metadata.BookieID]Location{"a": {"r", "1", "h1"}, "b": {"r", "2", "h2"}, "c": {"r", "3", "h3"}}
	for name, spares := range map[string][]Candidate{
		"another host":   {{ID: "bad", Location: Location{"r", "1", "h1"}}, {ID: "good", Location: Location{"r", "1", "h4"}}},
		"another region": {{ID: "bad", Location: Location{"r", "4", "h4"}}, {ID: "good", Location: Location{"s", "4", "h4"}}},
	} {
		for seed := range uint64(20) {
			next, replaced, err := Replace(rand.New(rand.NewPCG(seed, 0)), Quorums{3, 3}, []metadata.BookieID{"a", "b", "c"}, []int{1, 1}, spares,
				func(id metadata.BookieID) Location { return where[id] })
			if err != nil || !slices.Equal(replaced, []int{1}) || !slices.Equal(next, []metadata.BookieID{"a", "good", "c"}) {
				t.Fatalf("%s: %v, %v, %v", name, next, replaced, err)
			}
		}
	}
}

// Neighbours on both sides count, also around the end of the ensemble, and those
// that share no entry do not.
func TestReplaceNeighbours(t *testing.T) {
	ensemble := []metadata.BookieID{"r0", "r1", "r2", "r3", "r4"}
	rack := func(id metadata.BookieID) Location { return Location{Rack: string(id[:2])} }
	for failed := range ensemble {
		var spares []Candidate
		for i, id := range ensemble {
			if i != failed {
				spares = append(spares, Candidate{ID: id + "-spare", Location: rack(id)})
			}
		}
		for seed := range uint64(20) {
			next, _, err := Replace(rand.New(rand.NewPCG(seed, 0)), Quorums{5, 2}, ensemble, []int{failed}, spares, rack)
			if err != nil {
				t.Fatal(err)
			}
			for _, beside := range []int{(failed + 1) % 5, (failed + 4) % 5} {
				if rack(next[failed]) == rack(next[beside]) {
					t.Fatalf("%v became %v", ensemble, next)
				}
			}
		}
	}
}

// Many failures among many racks at once end in bounded time with all replaced.
func TestReplaceIsBounded(t *testing.T) {
	q := Quorums{Ensemble: 60, WriteQuorum: 30}
	var ensemble []metadata.BookieID
	var failed []int
	var candidates []Candidate
	for i := range q.Ensemble {
		ensemble = append(ensemble, metadata.BookieID(fmt.Sprint("b", i)))
		failed = append(failed, i)
		candidates = append(candidates, Candidate{ID: metadata.BookieID(fmt.Sprint("s", i)), Location: Location{Rack: fmt.Sprint(i % 20)}})
	}
	_, replaced, err := Replace(rand.New(rand.NewPCG(1, 1)), q, ensemble, failed, candidates, func(metadata.BookieID) Location { return Location{} })
	if err != nil || len(replaced) != q.Ensemble {
		t.Errorf("replaced %d of %d, %v", len(replaced), q.Ensemble, err)
	}
}
