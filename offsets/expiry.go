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

	// ConsumerProtocol: a consumer group of KIP-848. It matters only whether its State is
	// Empty: else an offset is needed while a member subscribes to its topic.
	ConsumerProtocol bool

	// EmptySince is when the group became Empty, ms since 1970; 0: not known,
	// each offset's commit time counts.
	EmptySince int64

	// Subscribed says whether a member subscribes to the topic. nil: the
	// subscriptions are not readable, as if to all topics. It does not matter
	// for an Empty or simple group.
	Subscribed func(TopicID) bool

	// Deleted says whether the topic does not exist any more, for certain. nil: none is deleted.
	Deleted func(TopicID) bool
}

// Expired returns what the group's offsets lose at now (ms since 1970), by the
// rules of KIP-211, as updates for Slot.Commit: those of deleted topics, those
// whose own retention is over, and those that nobody has needed for retention
// (ms, offsets.retention.minutes).
//
// Who needs an offset (ClassicGroup.offsetExpirationCondition and
// OffsetMetadataManager.cleanupExpiredOffsets of Kafka 4):
//
//	simple group                      nobody; retention counts from its commit
//	classic group, Empty              nobody; from when the group became Empty
//	classic "consumer" group, Stable  members that subscribe to the topic; else from its commit
//	other classic group               the group
//	consumer group (KIP-848)          members that subscribe to the topic; else from its commit,
//	                                  or from when the group became Empty if that was later
//
// The last is longer than Kafka's, which counts from the commit only: a group that restarts
// would lose its place in partitions that have been quiet for the retention.
//
// A retention that the client gave with the commit takes the place of the
// server's, and is looked at only where the server's would be.
func Expired(now, retention int64, facts *GroupFacts, offsets iter.Seq[PartitionOffset]) []Update {
	var expired []Update
	for o := range offsets {
		if facts.Deleted != nil && facts.Deleted(o.Topic) || facts.unneeded(o.Topic) && facts.over(now, retention, &o.Offset) {
			expired = append(expired, Update{PartitionOffset: o, Action: RemoveIfUnchanged})
		}
	}
	return expired
}

// unneeded says whether nobody needs the offsets of a topic.
func (f *GroupFacts) unneeded(topic TopicID) bool {
	switch {
	case f.ConsumerProtocol:
		return f.State == Empty || f.Subscribed != nil && !f.Subscribed(topic)
	case f.ProtocolType == "" || f.State == Empty:
		return true
	}
	return f.State == Stable && f.ProtocolType == "consumer" && f.Subscribed != nil && !f.Subscribed(topic)
}

// over says whether the time is over for which an offset that nobody needs is kept.
func (f *GroupFacts) over(now, retention int64, o *Offset) bool {
	if o.ExpireTime != NoExpireTime {
		return now >= o.ExpireTime
	}
	since := o.CommitTime
	if f.State == Empty && f.EmptySince != 0 {
		switch {
		case f.ConsumerProtocol:
			since = max(since, f.EmptySince)
		case f.ProtocolType != "":
			since = f.EmptySince
		}
	}
	return now-since >= retention
}
