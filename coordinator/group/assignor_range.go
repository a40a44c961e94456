package group

import (
	"cmp"
	"slices"
)

// RangeAssignor names the assignor that gives each subscriber of a topic one
// contiguous range of its partitions (class RangeAssignor of the coordinator).
// Topics with as many partitions and the same subscribers are divided alike, so
// their partitions of one number meet in one member.
const RangeAssignor = "range"

// assignRange divides each topic for itself. Static members come first, by
// instance id: a static member that comes back under a new member id gets the
// range that it had.
func assignRange(members []subscriber, topics []Topic) []Assignment {
	order := make([]int, len(members))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := &members[a], &members[b]
		if (x.instance != "") != (y.instance != "") {
			if x.instance != "" {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(x.instance, y.instance), cmp.Compare(x.id, y.id))
	})
	rank := make([]int, len(members))
	for r, m := range order {
		rank[m] = r
	}

	result := make([]Assignment, len(members))
	for t, subscribers := range subscribersOf(members, topics) {
		if len(subscribers) == 0 {
			continue
		}
		slices.SortFunc(subscribers, func(a, b int) int { return cmp.Compare(rank[a], rank[b]) })
		each := topics[t].Partitions / int32(len(subscribers))
		extra := topics[t].Partitions % int32(len(subscribers))
		next := int32(0)
		for i, m := range subscribers {
			n := each
			if int32(i) < extra {
				n++
			}
			if n == 0 {
				break
			}
			partitions := make([]int32, n)
			for j := range partitions {
				partitions[j] = next
				next++
			}
			result[m] = append(result[m], TopicPartitions{topics[t].ID, partitions})
		}
	}
	return result
}
