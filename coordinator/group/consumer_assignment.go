package group

import (
	"bytes"
	"slices"
)

// TopicID is a topic's id. A topic that is deleted and created again has another one.
type TopicID [16]byte

// compareTopicIDs orders topic ids, for slices that are sorted by them.
func compareTopicIDs(a, b TopicID) int { return bytes.Compare(a[:], b[:]) }

// TopicPartitions is some partitions of one topic.
type TopicPartitions struct {
	Topic      TopicID
	Partitions []int32
}

// Assignment is a set of partitions: topics in the order of their ids, each once
// and with at least one partition, partitions ascending and each once. An
// Assignment never changes once it is made, so that members, targets and answers
// may share it.
type Assignment []TopicPartitions

// Equal tells whether both hold the same partitions.
func (a Assignment) Equal(b Assignment) bool {
	return slices.EqualFunc(a, b, func(x, y TopicPartitions) bool {
		return x.Topic == y.Topic && slices.Equal(x.Partitions, y.Partitions)
	})
}

// Count returns the number of partitions.
func (a Assignment) Count() int {
	n := 0
	for i := range a {
		n += len(a[i].Partitions)
	}
	return n
}

// Of returns the partitions of one topic, nil if there are none.
func (a Assignment) Of(topic TopicID) []int32 {
	i, ok := slices.BinarySearchFunc(a, topic, func(tp TopicPartitions, id TopicID) int { return compareTopicIDs(tp.Topic, id) })
	if !ok {
		return nil
	}
	return a[i].Partitions
}

// Contains tells whether a partition is in the set.
func (a Assignment) Contains(topic TopicID, partition int32) bool {
	_, ok := slices.BinarySearch(a.Of(topic), partition)
	return ok
}

// containsAll tells whether every partition of list is in a or b. The list is as
// a client sent it: in any order, with repetitions.
func containsAll(a, b Assignment, list []TopicPartitions) bool {
	for i := range list {
		inA, inB := a.Of(list[i].Topic), b.Of(list[i].Topic)
		for _, p := range list[i].Partitions {
			if _, ok := slices.BinarySearch(inA, p); ok {
				continue
			}
			if _, ok := slices.BinarySearch(inB, p); !ok {
				return false
			}
		}
	}
	return true
}

// containsAny tells whether some partition of list is in the set. The list is as
// a client sent it.
func (a Assignment) containsAny(list []TopicPartitions) bool {
	if len(a) == 0 {
		return false
	}
	for i := range list {
		partitions := a.Of(list[i].Topic)
		for _, p := range list[i].Partitions {
			if _, ok := slices.BinarySearch(partitions, p); ok {
				return true
			}
		}
	}
	return false
}

// split returns the partitions of a that are in b, and those that are not. It
// returns a itself where all or nothing of it remains.
func (a Assignment) split(b Assignment) (common, rest Assignment) {
	in, out := 0, 0
	for i := range a {
		other := b.Of(a[i].Topic)
		for _, p := range a[i].Partitions {
			if _, ok := slices.BinarySearch(other, p); ok {
				in++
			} else {
				out++
			}
		}
	}
	if out == 0 {
		return a, nil
	}
	if in == 0 {
		return nil, a
	}
	for i := range a {
		other := b.Of(a[i].Topic)
		var yes, no []int32
		for _, p := range a[i].Partitions {
			if _, ok := slices.BinarySearch(other, p); ok {
				yes = append(yes, p)
			} else {
				no = append(no, p)
			}
		}
		if yes != nil {
			common = append(common, TopicPartitions{a[i].Topic, yes})
		}
		if no != nil {
			rest = append(rest, TopicPartitions{a[i].Topic, no})
		}
	}
	return common, rest
}

// union returns the partitions that are in a or in b.
func (a Assignment) union(b Assignment) Assignment {
	if len(b) == 0 {
		return a
	}
	if len(a) == 0 {
		return b
	}
	return makeAssignment(slices.Concat(a, b))
}

// makeAssignment makes a set of a list in any order, with repetitions. The list
// may be reordered; its slices of partitions are copied, not kept.
func makeAssignment(list []TopicPartitions) Assignment {
	slices.SortStableFunc(list, func(x, y TopicPartitions) int { return compareTopicIDs(x.Topic, y.Topic) })
	var set Assignment
	for i := 0; i < len(list); {
		topic := list[i].Topic
		var partitions []int32
		for ; i < len(list) && list[i].Topic == topic; i++ {
			partitions = append(partitions, list[i].Partitions...)
		}
		if len(partitions) == 0 {
			continue
		}
		slices.Sort(partitions)
		set = append(set, TopicPartitions{topic, slices.Compact(partitions)})
	}
	return set
}
