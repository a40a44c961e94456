package group

import (
	"cmp"
	"slices"
)

// UniformAssignor names the assignor that gives members as equal numbers of
// partitions as their subscriptions allow and moves as few partitions as that
// needs (class UniformAssignor of the coordinator). It is the default.
const UniformAssignor = "uniform"

// maxUniformRounds bounds the balancing of groups whose members subscribe to
// different topics. Each round lowers the imbalance; real groups need two or three.
const maxUniformRounds = 16

// nobody owns a partition that is still to be given.
const nobody = -1

// assignUniform keeps what members have, then levels every pool until nothing
// moves. A pool is the partitions of all topics that share their subscribers, so
// a group whose members subscribe to the same topics is one pool and level after
// one round.
func assignUniform(members []subscriber, topics []Topic) []Assignment {
	u := newUniform(members, topics)
	pools := u.pools(members, topics)
	for range maxUniformRounds {
		moved := false
		for i := range pools {
			moved = u.level(&pools[i]) || moved
		}
		if !moved || len(pools) == 1 {
			break
		}
	}
	return u.result(members, topics)
}

// uniform is one computation. Partitions are numbered through: partition p of
// topic t is first[t]+p.
type uniform struct {
	first []int
	owner []int // per partition: index of a member, or nobody
	load  []int // per member: partitions that it owns
}

// pool is partitions that the same members may own.
type pool struct {
	partitions  []int
	subscribers []int
}

func newUniform(members []subscriber, topics []Topic) *uniform {
	u := &uniform{first: make([]int, len(topics)+1), load: make([]int, len(members))}
	index := make(map[TopicID]int, len(topics))
	for t := range topics {
		index[topics[t].ID] = t
		u.first[t+1] = u.first[t] + int(topics[t].Partitions)
	}
	u.owner = make([]int, u.first[len(topics)])
	for i := range u.owner {
		u.owner[i] = nobody
	}
	for m := range members {
		for _, tp := range members[m].previous {
			t, ok := index[tp.Topic]
			if !ok {
				continue
			}
			if _, ok := slices.BinarySearch(members[m].topics, t); !ok {
				continue
			}
			for _, p := range tp.Partitions {
				if p < topics[t].Partitions && u.owner[u.first[t]+int(p)] == nobody {
					u.owner[u.first[t]+int(p)] = m
					u.load[m]++
				}
			}
		}
	}
	return u
}

// pools groups the topics by their subscribers, the scarcest first: what few
// members may have is placed before what many may take to even it out.
func (u *uniform) pools(members []subscriber, topics []Topic) []pool {
	var pools []pool
	add := func(pl *pool, t int) {
		for i := u.first[t]; i < u.first[t+1]; i++ {
			pl.partitions = append(pl.partitions, i)
		}
	}
	if len(members) > 0 && sameSubscriptions(members) {
		pl := pool{subscribers: make([]int, len(members))}
		for m := range members {
			pl.subscribers[m] = m
		}
		for _, t := range members[0].topics {
			add(&pl, t)
		}
		return []pool{pl}
	}
	lists := subscribersOf(members, topics)
	order := make([]int, 0, len(topics))
	for t := range topics {
		if len(lists[t]) > 0 {
			order = append(order, t)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(len(lists[a]), len(lists[b])), slices.Compare(lists[a], lists[b]))
	})
	for _, t := range order {
		if n := len(pools); n == 0 || !slices.Equal(pools[n-1].subscribers, lists[t]) {
			pools = append(pools, pool{subscribers: lists[t]})
		}
		add(&pools[len(pools)-1], t)
	}
	return pools
}

// level gives the pool's partitions to its subscribers so that their loads,
// counting what they own elsewhere, rise to one level like water. Who has more
// than that gives the rest up, and only that moves. It tells whether anything did.
func (u *uniform) level(pl *pool) bool {
	if len(pl.partitions) == 0 {
		return false
	}
	// Per subscriber, by its place in the pool: has is what it owns of the pool,
	// elsewhere the rest of its load, quota what it shall own of the pool.
	place := make(map[int]int, len(pl.subscribers))
	for i, m := range pl.subscribers {
		place[m] = i
	}
	has := make([]int, len(pl.subscribers))
	for _, p := range pl.partitions {
		if u.owner[p] != nobody {
			has[place[u.owner[p]]]++
		}
	}
	elsewhere := make([]int, len(pl.subscribers))
	for i, m := range pl.subscribers {
		elsewhere[i] = u.load[m] - has[i]
	}
	quota := quotas(len(pl.partitions), elsewhere, has)

	moved := false
	for _, p := range slices.Backward(pl.partitions) {
		if m := u.owner[p]; m != nobody {
			if i := place[m]; has[i] > quota[i] {
				has[i]--
				u.load[m]--
				u.owner[p] = nobody
			}
		}
	}
	// The free partitions go around, so that a topic's partitions spread.
	turn := 0
	for _, p := range pl.partitions {
		if u.owner[p] != nobody {
			continue
		}
		for has[turn] >= quota[turn] {
			turn = (turn + 1) % len(quota)
		}
		m := pl.subscribers[turn]
		u.owner[p] = m
		u.load[m]++
		has[turn]++
		turn = (turn + 1) % len(quota)
		moved = true
	}
	return moved
}

// quotas divides n partitions over subscribers that own elsewhere partitions
// already: the lowest are raised first. What does not divide goes, one each, to
// those who would otherwise have to give one up.
func quotas(n int, elsewhere, has []int) []int {
	order := make([]int, len(elsewhere))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(elsewhere[a], elsewhere[b]) })

	// Raise the k lowest to the height of the next one for as long as n lasts.
	left, k, height := n, 1, elsewhere[order[0]]
	for ; k < len(order); k++ {
		need := (elsewhere[order[k]] - height) * k
		if need > left {
			break
		}
		left -= need
		height = elsewhere[order[k]]
	}
	height += left / k
	left %= k

	quota := make([]int, len(elsewhere))
	for _, i := range order[:k] {
		quota[i] = height - elsewhere[i]
	}
	for _, keep := range []bool{true, false} {
		for i := range quota {
			if left > 0 && elsewhere[i]+quota[i] == height && (has[i] > quota[i]) == keep {
				quota[i]++
				left--
			}
		}
	}
	return quota
}

// result lists who owns what. A member whose set is what it was gets the very same one.
func (u *uniform) result(members []subscriber, topics []Topic) []Assignment {
	result := make([]Assignment, len(members))
	for m := range members {
		if n := len(members[m].topics); n > 0 && u.load[m] > 0 {
			result[m] = make(Assignment, 0, min(n, u.load[m]))
		}
	}
	for t := range topics {
		for p := u.first[t]; p < u.first[t+1]; p++ {
			m := u.owner[p]
			if m == nobody {
				continue
			}
			if n := len(result[m]); n == 0 || result[m][n-1].Topic != topics[t].ID {
				result[m] = append(result[m], TopicPartitions{Topic: topics[t].ID})
			}
			last := &result[m][len(result[m])-1]
			last.Partitions = append(last.Partitions, int32(p-u.first[t]))
		}
	}
	for m := range members {
		if result[m].Equal(members[m].previous) {
			result[m] = members[m].previous
		}
	}
	return result
}
