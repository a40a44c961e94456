package group

import "iter"

// Topics is what consumer groups know of the cluster's topics, at one moment. A
// group reads it during the event that brings it and never later.
type Topics interface {
	// Revision changes when a topic is created or deleted or gets partitions,
	// and only grows within one load of a group. While it is the one that a group
	// saw last, the group asks nothing more.
	Revision() uint64
	// Topic returns a topic by name.
	Topic(name string) (Topic, bool)
	// TopicByID returns a topic by id.
	TopicByID(id TopicID) (Topic, bool)
	// Names yields the name of every topic that members may know of. Regular
	// expressions are matched against them.
	Names() iter.Seq[string]
}

// Topic is one topic as groups see it.
type Topic struct {
	Name       string
	ID         TopicID
	Partitions int32
}
