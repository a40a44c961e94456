package group

import "slices"

// An assignor spreads the partitions of topics over the members that subscribe
// to them. It is a function of its arguments only, and gives every partition of a
// topic that has a subscriber to exactly one of its subscribers.
//
// Members come in the order of their ids and topics in the order of theirs.
// Assignment i of the result belongs to member i.
type assignor func(members []subscriber, topics []Topic) []Assignment

// subscriber is what an assignor knows of a member.
type subscriber struct {
	id       string
	instance string // "" if the member is dynamic
	topics   []int  // ascending indexes of topics; members with the same topics may share it
	previous Assignment
}

// assignors are the server-side assignors of KIP-848 by name.
var assignors = map[string]assignor{UniformAssignor: assignUniform, RangeAssignor: assignRange}

// subscribersOf lists, per topic, the indexes of its subscribers in ascending order.
func subscribersOf(members []subscriber, topics []Topic) [][]int {
	lists := make([][]int, len(topics))
	for m := range members {
		for _, t := range members[m].topics {
			lists[t] = append(lists[t], m)
		}
	}
	return lists
}

// sameSubscriptions tells whether all members subscribe to the same topics.
func sameSubscriptions(members []subscriber) bool {
	for i := 1; i < len(members); i++ {
		if !slices.Equal(members[i].topics, members[0].topics) {
			return false
		}
	}
	return true
}
