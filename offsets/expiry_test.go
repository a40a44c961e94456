package offsets

import (
	"slices"
	"testing"
)

func TestExpired(t *testing.T) {
	const retention, now = 1000, 10_000
	subscribed, other, deleted := id(1), id(2), id(3)
	facts := GroupFacts{
		Subscribed: func(t TopicID) bool { return t == subscribed },
		Deleted:    func(t TopicID) bool { return t == deleted },
	}
	offset := func(topic TopicID, committed, expires int64) PartitionOffset {
		return PartitionOffset{Partition{topic, 4}, Offset{Offset: 1, CommitTime: committed, ExpireTime: expires}}
	}
	fresh, old := int64(now-retention+1), int64(now-retention)
	for _, test := range []struct {
		name   string
		change func(*GroupFacts)
		offset PartitionOffset
		want   bool
	}{
		{"simple, fresh", func(f *GroupFacts) { f.State = Empty }, offset(other, fresh, NoExpireTime), false},
		{"simple, old", func(f *GroupFacts) { f.State = Empty }, offset(other, old, NoExpireTime), true},
		{"simple, each by its own commit", func(f *GroupFacts) { f.State, f.EmptySince = Empty, fresh }, offset(other, old, NoExpireTime), true},
		{"classic, empty for long", func(f *GroupFacts) { f.State, f.ProtocolType, f.EmptySince = Empty, "consumer", old }, offset(subscribed, fresh, NoExpireTime), true},
		{"classic, empty since just now", func(f *GroupFacts) { f.State, f.ProtocolType, f.EmptySince = Empty, "consumer", fresh }, offset(other, old, NoExpireTime), false},
		{"classic, empty, since when is not known", func(f *GroupFacts) { f.State, f.ProtocolType = Empty, "connect" }, offset(other, old, NoExpireTime), true},
		{"classic, stable, subscribed", func(f *GroupFacts) { f.State, f.ProtocolType = Stable, "consumer" }, offset(subscribed, old, NoExpireTime), false},
		{"classic, stable, not subscribed", func(f *GroupFacts) { f.State, f.ProtocolType = Stable, "consumer" }, offset(other, old, NoExpireTime), true},
		{"classic, stable, not subscribed, fresh", func(f *GroupFacts) { f.State, f.ProtocolType = Stable, "consumer" }, offset(other, fresh, NoExpireTime), false},
		{"classic, stable, unreadable", func(f *GroupFacts) { f.State, f.ProtocolType, f.Subscribed = Stable, "consumer", nil }, offset(other, old, NoExpireTime), false},
		{"connect, stable", func(f *GroupFacts) { f.State, f.ProtocolType = Stable, "connect" }, offset(other, old, NoExpireTime), false},
		{"classic, rebalancing", func(f *GroupFacts) { f.State, f.ProtocolType = Rebalancing, "consumer" }, offset(other, old, NoExpireTime), false},
		{"consumer protocol, subscribed", func(f *GroupFacts) { f.State, f.ConsumerProtocol = Stable, true }, offset(subscribed, old, NoExpireTime), false},
		{"consumer protocol, not subscribed", func(f *GroupFacts) { f.State, f.ConsumerProtocol = Rebalancing, true }, offset(other, old, NoExpireTime), true},
		{"consumer protocol, empty, by the commit", func(f *GroupFacts) { f.State, f.ConsumerProtocol, f.EmptySince = Empty, true, old }, offset(subscribed, fresh, NoExpireTime), false},
		{"consumer protocol, empty since just now", func(f *GroupFacts) { f.State, f.ConsumerProtocol, f.EmptySince = Empty, true, fresh }, offset(subscribed, old, NoExpireTime), false},
		{"consumer protocol, empty for long", func(f *GroupFacts) { f.State, f.ConsumerProtocol, f.EmptySince = Empty, true, old }, offset(subscribed, old, NoExpireTime), true},
		{"consumer protocol, empty, since when is not known", func(f *GroupFacts) { f.State, f.ConsumerProtocol = Empty, true }, offset(subscribed, old, NoExpireTime), true},
		{"own retention over", func(f *GroupFacts) { f.State = Empty }, offset(other, fresh, now), true},
		{"own retention longer", func(f *GroupFacts) { f.State = Empty }, offset(other, old, now+1), false},
		{"own retention, but the group has members", func(f *GroupFacts) { f.State, f.ProtocolType = Stable, "consumer" }, offset(subscribed, old, now), false},
		{"deleted topic", func(f *GroupFacts) { f.State, f.ProtocolType = Rebalancing, "consumer" }, offset(deleted, fresh, now+1), true},
	} {
		f := facts
		test.change(&f)
		got := Expired(now, retention, &f, slices.Values([]PartitionOffset{test.offset}))
		if len(got) > 0 != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
		if len(got) > 0 && (got[0].PartitionOffset != test.offset || got[0].Action != RemoveIfUnchanged) {
			t.Errorf("%s: removes %+v, want %+v", test.name, got[0], test.offset)
		}
	}
}
