package group

import (
	"slices"
	"time"
)

// refresh looks at the topics that the group subscribes to, if they or the
// subscriptions may have changed, and starts a new epoch if they have.
func (c *consumer) refresh(now time.Time, topics Topics) {
	if !c.stale(now, topics) {
		return
	}
	revision := topics.Revision()
	changed := c.resolveRegexes(now, topics, revision, c.regexesStale(now, revision))
	current := c.lookUp(topics)
	if changed || !sameTopics(current, c.topics) {
		c.topics = current
		c.bump()
	}
	c.fresh, c.seen = true, revision
}

// stale says whether the topics that the group subscribes to, or the
// subscriptions, may have changed since it last looked.
func (c *consumer) stale(now time.Time, topics Topics) bool {
	if topics == nil {
		return false
	}
	revision := topics.Revision()
	return !c.fresh || c.seen != revision || c.regexesStale(now, revision)
}

// regexesStale says whether it is time to match expressions against the topics again.
func (c *consumer) regexesStale(now time.Time, revision uint64) bool {
	return len(c.regexes) > 0 && c.regexSeen != revision && !now.Before(c.regexAt.Add(regexRefreshInterval))
}

// resolveRegexes matches expressions that are new, and all of them if stale. It
// tells whether one that the group had before matches other topics now.
func (c *consumer) resolveRegexes(now time.Time, topics Topics, revision uint64, stale bool) bool {
	changed := false
	for _, r := range c.regexes {
		if stale || !r.resolved {
			changed = r.resolve(topics) || changed
		}
	}
	if stale {
		c.regexSeen, c.regexAt = revision, now
	}
	return changed
}

// lookUp returns the topics that exist and are subscribed to.
func (c *consumer) lookUp(topics Topics) map[TopicID]Topic {
	found := make(map[TopicID]Topic, len(c.topics))
	add := func(name string) {
		if t, ok := topics.Topic(name); ok && t.Partitions > 0 {
			found[t.ID] = t
		}
	}
	for name := range c.names {
		add(name)
	}
	for _, r := range c.regexes {
		for _, name := range r.topics {
			add(name)
		}
	}
	return found
}

func sameTopics(a, b map[TopicID]Topic) bool {
	if len(a) != len(b) {
		return false
	}
	for id, t := range a {
		if b[id] != t {
			return false
		}
	}
	return true
}

// assign makes a target for the group epoch, if there is none yet.
func (c *consumer) assign() {
	if c.epoch == c.targetEpoch {
		return
	}
	topics := make([]Topic, 0, len(c.topics))
	for _, t := range c.topics {
		topics = append(topics, t)
	}
	slices.SortFunc(topics, func(a, b Topic) int { return compareTopicIDs(a.ID, b.ID) })
	index := make(map[string]int, len(topics))
	for i := range topics {
		index[topics[i].Name] = i
	}

	members := make([]subscriber, len(c.members))
	for i, m := range c.members {
		members[i] = subscriber{id: m.id, instance: m.instance, previous: m.target}
		if i > 0 && m.regex == c.members[i-1].regex && slices.Equal(m.names, c.members[i-1].names) {
			members[i].topics = members[i-1].topics
		} else {
			members[i].topics = c.subscribedIndexes(m, index)
		}
	}
	for i, target := range assignors[c.assignor()](members, topics) {
		c.members[i].target = target
	}
	c.targetEpoch = c.epoch
	c.g.change()
}

// subscribedIndexes lists the places of the topics that a member subscribes to.
func (c *consumer) subscribedIndexes(m *consumerMember, index map[string]int) []int {
	var list []int
	add := func(names []string) {
		for _, name := range names {
			if i, ok := index[name]; ok {
				list = append(list, i)
			}
		}
	}
	add(m.names)
	if r := c.regexes[m.regex]; r != nil {
		add(r.topics)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// assignor is the one that most members name; of equals the first of the
// configuration, which is also what a group has whose members name none.
func (c *consumer) assignor() string {
	names := c.g.config.Assignors
	votes := make([]int, len(names))
	for _, m := range c.members {
		if i := slices.Index(names, m.assignor); i >= 0 {
			votes[i]++
		}
	}
	return names[slices.Index(votes, slices.Max(votes))]
}
