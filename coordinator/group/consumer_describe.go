package group

// ConsumerDescription is ConsumerGroupDescribe's view of a consumer group.
type ConsumerDescription struct {
	State                  State
	Epoch, AssignmentEpoch int32
	Assignor               string
	Members                []ConsumerMemberDescription
}

// ConsumerMemberDescription is one member, of either protocol.
type ConsumerMemberDescription struct {
	MemberID, InstanceID, RackID string
	ClientID, ClientHost         string
	MemberEpoch                  int32
	SubscribedTopicNames         []string
	SubscribedTopicRegex         string
	Assignment, Target           []DescribedPartitions
	// Classic: the member speaks the classic protocol (MemberType 0 of v1, else 1).
	Classic bool
}

// DescribedPartitions is some partitions of an existing topic.
type DescribedPartitions struct {
	Topic      TopicID
	Name       string
	Partitions []int32
}

// DescribeConsumer returns ErrGroupNotFound for a classic group. Partitions of
// topics that do not exist any more are left out. What it returns shares the
// group's slices, which never change, and may be kept.
func (g *Group) DescribeConsumer(topics Topics) (*ConsumerDescription, error) {
	c := g.consumer
	if c == nil {
		return nil, ErrGroupNotFound
	}
	d := &ConsumerDescription{
		State:           c.state(),
		Epoch:           c.epoch,
		AssignmentEpoch: c.targetEpoch,
		Assignor:        c.assignor(),
		Members:         make([]ConsumerMemberDescription, len(c.members)),
	}
	for i, m := range c.members {
		d.Members[i] = ConsumerMemberDescription{
			MemberID: m.id, InstanceID: m.instance, RackID: m.rack,
			ClientID: m.clientID, ClientHost: m.clientHost,
			MemberEpoch:          m.epoch,
			SubscribedTopicNames: m.names,
			SubscribedTopicRegex: m.regex,
			Assignment:           described(m.assigned, topics),
			Target:               described(m.target, topics),
			Classic:              m.classic != nil,
		}
	}
	return d, nil
}

func described(set Assignment, topics Topics) []DescribedPartitions {
	list := make([]DescribedPartitions, 0, len(set))
	for _, tp := range set {
		if t, ok := topics.TopicByID(tp.Topic); ok {
			list = append(list, DescribedPartitions{tp.Topic, t.Name, tp.Partitions})
		}
	}
	return list
}
