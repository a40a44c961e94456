package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/offsets"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// OffsetFetch: v0-10
//
//	v0: from the days when offsets were ZooKeeper's; answered as v1
//	v2: null topics ask for everything; errors of the group have a field
//	v3: throttle time
//	v5: leader epoch (KIP-320)
//	v6: flexible
//	v7: require_stable (KIP-447)
//	v8: many groups, one answer each (KIP-709)
//	v9: member and epoch of the consumer protocol (KIP-848)
//	v10: topic ids in the place of names
//
// A partition without a committed offset has the offset -1 and no error, also
// in a group that does not exist. What is not loaded is an error of the group,
// never that. No offset is unstable yet: there are no transactions.

// The offset and the epoch of a partition that has none committed.
const (
	noOffset      = -1
	noLeaderEpoch = -1
)

func (h *Handlers) offsetFetch(p *parked, q *kmsg.OffsetFetchRequest) {
	asked := q.Groups
	if q.Version < 8 {
		asked = []kmsg.OffsetFetchRequestGroup{oldGroup(q)}
	}
	if !p.wait() {
		return
	}
	h.fetchedOffsets(q, asked, p.elsewhere, func(groups []kmsg.OffsetFetchResponseGroup) {
		resp := q.ResponseKind().(*kmsg.OffsetFetchResponse)
		if q.Version >= 8 {
			resp.Groups = groups
		} else {
			setOldGroup(resp, &groups[0], &asked[0])
		}
		p.respond(resp)
	})
}

// fetchedOffsets asks the groups of this node. elsewhere may take an error of
// a group upon itself: then there is no reply.
func (h *Handlers) fetchedOffsets(q *kmsg.OffsetFetchRequest, asked []kmsg.OffsetFetchRequestGroup, elsewhere func(error) bool, reply func([]kmsg.OffsetFetchResponseGroup)) {
	groups := make([]kmsg.OffsetFetchResponseGroup, len(asked))
	each(len(asked), func() { reply(groups) }, func(i int, done func()) {
		a, out := &asked[i], &groups[i]
		out.Default()
		out.Group = a.Group
		who := group.CommitIdentity{Epoch: -1, EpochIsMember: q.Version >= 9}
		if q.Version >= 9 {
			who.MemberID, who.Epoch = deref(a.MemberID), a.MemberEpoch
		}
		h.c.Coordinator.Groups().Fetch(a.Group, &who, func(c coordinator.Committed, err error) {
			if elsewhere(err) {
				return
			}
			if err != nil {
				out.ErrorCode = int16(groupErrors.code(err))
			} else if a.Topics == nil && q.Version >= 2 {
				h.fetchAll(c, out)
			} else {
				h.fetchAsked(c, a, out, q.Version >= 10)
			}
			done()
		})
	})
}

func (h *Handlers) offsetFetchOfMany(r *proxy.Request, q *kmsg.OffsetFetchRequest) {
	whole := q.ResponseKind().(*kmsg.OffsetFetchResponse)
	whole.Groups = make([]kmsg.OffsetFetchResponseGroup, len(q.Groups))
	h.answerSeveral(r, several{
		slots: groupSlots(q.Groups, func(g *kmsg.OffsetFetchRequestGroup) string { return g.Group }),
		reads: true, whole: whole,
		part: func(items []int) kmsg.Request {
			part := *q
			part.Groups = chosen(q.Groups, items)
			return &part
		},
		here: func(q kmsg.Request, reply func(kmsg.Response)) {
			part := q.(*kmsg.OffsetFetchRequest)
			never := func(error) bool { return false }
			h.fetchedOffsets(part, part.Groups, never, func(groups []kmsg.OffsetFetchResponseGroup) {
				resp := part.ResponseKind().(*kmsg.OffsetFetchResponse)
				resp.Groups = groups
				reply(resp)
			})
		},
		answers: func(resp kmsg.Response) answers {
			part := resp.(*kmsg.OffsetFetchResponse)
			return answers{len(part.Groups), func(k, i int) int16 {
				whole.Groups[i] = part.Groups[k]
				return part.Groups[k].ErrorCode
			}}
		},
		refuse: func(i int, why error) {
			out := &whole.Groups[i]
			out.Default()
			out.Group, out.ErrorCode = q.Groups[i].Group, int16(groupErrors.code(why))
		},
	})
}

// fetchAll adds everything that a group has committed for topics that exist.
func (h *Handlers) fetchAll(c coordinator.Committed, out *kmsg.OffsetFetchResponseGroup) {
	var topic *coordinator.Topic
	for o := range c.All() {
		if topic == nil || topic.ID != o.Topic {
			if topic = h.c.Coordinator.TopicByID(o.Topic); topic == nil {
				continue
			}
			out.Topics = append(out.Topics, kmsg.OffsetFetchResponseGroupTopic{Topic: topic.Name, TopicID: topic.ID})
		}
		t := &out.Topics[len(out.Topics)-1]
		t.Partitions = append(t.Partitions, committedPartition(o.Partition.Partition, &o.Offset))
	}
}

// fetchAsked answers the partitions that are asked for.
func (h *Handlers) fetchAsked(c coordinator.Committed, a *kmsg.OffsetFetchRequestGroup, out *kmsg.OffsetFetchResponseGroup, byID bool) {
	out.Topics = make([]kmsg.OffsetFetchResponseGroupTopic, len(a.Topics))
	for i := range a.Topics {
		at, t := &a.Topics[i], &out.Topics[i]
		t.Topic, t.TopicID = at.Topic, at.TopicID
		t.Partitions = make([]kmsg.OffsetFetchResponseGroupTopicPartition, len(at.Partitions))
		topic, _ := h.topicOf(byID, at.Topic, at.TopicID)
		for j, partition := range at.Partitions {
			o := &offsets.Offset{Offset: noOffset, LeaderEpoch: noLeaderEpoch}
			if topic != nil {
				if found, ok := c.Get(offsets.Partition{Topic: topic.ID, Partition: partition}); ok {
					o = &found
				}
			}
			t.Partitions[j] = committedPartition(partition, o)
			if topic == nil && byID {
				t.Partitions[j].ErrorCode = int16(protocol.UnknownTopicID)
			}
		}
	}
}

func committedPartition(partition int32, o *offsets.Offset) kmsg.OffsetFetchResponseGroupTopicPartition {
	p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = partition, o.Offset, o.LeaderEpoch, &o.Metadata
	return p
}

// oldGroup is the one group of a request before v8.
func oldGroup(q *kmsg.OffsetFetchRequest) kmsg.OffsetFetchRequestGroup {
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = q.Group
	if q.Topics != nil {
		g.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, len(q.Topics))
	}
	for i := range q.Topics {
		g.Topics[i].Topic, g.Topics[i].Partitions = q.Topics[i].Topic, q.Topics[i].Partitions
	}
	return g
}

// setOldGroup puts the answer for one group into the fields before v8. Before
// v2 the group's error is that of each partition.
func setOldGroup(resp *kmsg.OffsetFetchResponse, g *kmsg.OffsetFetchResponseGroup, asked *kmsg.OffsetFetchRequestGroup) {
	if g.ErrorCode != 0 && resp.Version < 2 {
		none := offsets.Offset{Offset: noOffset, LeaderEpoch: noLeaderEpoch}
		for i := range asked.Topics {
			t := kmsg.OffsetFetchResponseGroupTopic{Topic: asked.Topics[i].Topic}
			for _, partition := range asked.Topics[i].Partitions {
				p := committedPartition(partition, &none)
				p.ErrorCode = g.ErrorCode
				t.Partitions = append(t.Partitions, p)
			}
			g.Topics = append(g.Topics, t)
		}
	}
	resp.ErrorCode = g.ErrorCode
	resp.Topics = make([]kmsg.OffsetFetchResponseTopic, len(g.Topics))
	for i := range g.Topics {
		t := &resp.Topics[i]
		t.Topic = g.Topics[i].Topic
		t.Partitions = make([]kmsg.OffsetFetchResponseTopicPartition, len(g.Topics[i].Partitions))
		for j := range g.Topics[i].Partitions {
			p := &g.Topics[i].Partitions[j]
			t.Partitions[j] = kmsg.OffsetFetchResponseTopicPartition{
				Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata, ErrorCode: p.ErrorCode,
			}
		}
	}
}
