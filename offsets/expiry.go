package offsets

import "iter"

// GroupState is what expiry needs to know of a group.
type GroupState uint8

const (
	// Rebalancing: between generations; nothing expires.
	Rebalancing GroupState = iota
	// Empty: no members.
	Empty
	// Stable: members with an assignment.
	Stable
)

// GroupFacts is what decides which offsets of a group are still needed.
type GroupFacts struct {
	State GroupState

	// ProtocolType is the classic group's: "" for a simple group (one that has
	// only offsets), "consumer", "connect" and others.
	ProtocolType string

	// ConsumerProtocol: a consumer group of KIP-848. Its State does not matter:
	// an offset is needed while a member subscribes to its topic.
	ConsumerProtocol bool

	// EmptySince is when the group became Empty, ms since 1970; 0: not known,
	// each offset's commit time counts.
	EmptySince int64

	// Subscribed says whether a member subscribes to the topic. nil: the
	// subscriptions are not readable; as if to all topics.
	Subscribed func(TopicID) bool

	// Deleted says whether the topic does not exist any more, for certain. nil: none is deleted.
	Deleted func(TopicID) bool
}

// Expired returns what the group's offsets lose at now (ms since 1970), by the
// rules of KIP-211, as updates for Slot.Commit: those of deleted topics, those
// whose own retention is over, and those that nobody has needed for retention
// (ms, offsets.retention.minutes).
func Expired(now, retention int64, facts GroupFacts, offsets iter.Seq[PartitionOffset]) []Update {
	return nil
}
