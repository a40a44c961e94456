package coordinator

import (
	"iter"

	"github.com/quirelog/quire/coordinator/group"
)

// topicsView is the catalog of topics as consumer groups see it.
type topicsView struct{ c *Coordinator }

// Revision implements group.Topics.
func (v topicsView) Revision() uint64 { return v.c.topics.changes.Load() }

// Topic implements group.Topics.
func (v topicsView) Topic(name string) (group.Topic, bool) { return groupTopic(v.c.Topic(name)) }

// TopicByID implements group.Topics.
func (v topicsView) TopicByID(id group.TopicID) (group.Topic, bool) {
	return groupTopic(v.c.TopicByID(id))
}

func groupTopic(t *Topic) (group.Topic, bool) {
	if t == nil {
		return group.Topic{}, false
	}
	return group.Topic{Name: t.Name, ID: t.ID, Partitions: t.Partitions}, true
}

// Names implements group.Topics. Kafka's internal topics are there as any other.
func (v topicsView) Names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, t := range v.c.topics.all() {
			if !yield(t.Name) {
				return
			}
		}
	}
}
