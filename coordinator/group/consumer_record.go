package group

import (
	"encoding/binary"
	"slices"
	"time"
)

// The body of a consumer group's record, version 1:
//
//	group epoch, target epoch   ints
//	empty since   int, Unix milliseconds, 0 if it has members
//	topics        count, each id (16 bytes), name and partitions, 0 of a topic
//	              that is no longer subscribed to but that a member still has
//	regexes       count, each expression and hash (8 bytes) of what it matched
//	names         count, each a list (count, strings): the distinct subscriptions
//	metadata      count, each bytes: the distinct ones of classic members
//	members       count, each:
//	  member id, instance id, rack, client id, client host, assignor   strings
//	  rebalance timeout         milliseconds
//	  names, regex              index, 1 + index or 0
//	  epoch, previous epoch     ints
//	  state                     0 stable, 1 unrevoked, 2 unreleased
//	  assigned, revoking        sets
//	  target                    bool: the same as assigned; else a set
//	  classic                   bool; if so session timeout in milliseconds and
//	                            protocols: count, each name and index of metadata
//
// A set is a count of topics, each its index, a count of partitions, and their
// distances: the first partition, then each less the one before less 1.
func (c *consumer) appendRecord(b []byte) []byte {
	w := recordTables{
		topics:   make(map[TopicID]int),
		regexes:  make(map[string]int),
		names:    make(map[string]int),
		metadata: make(map[string]int),
	}
	b = binary.AppendVarint(b, int64(c.epoch))
	b = binary.AppendVarint(b, int64(c.targetEpoch))
	emptySince := int64(0)
	if len(c.members) == 0 {
		emptySince = unixMilli(c.emptySince)
	}
	b = binary.AppendVarint(b, emptySince)

	w.addTopics(c)
	b = binary.AppendUvarint(b, uint64(len(w.order)))
	for _, id := range w.order {
		t := c.topics[id]
		b = append(b, id[:]...)
		b = appendString(b, t.Name)
		b = binary.AppendUvarint(b, uint64(t.Partitions))
	}

	expressions := make([]string, 0, len(c.regexes))
	for expression := range c.regexes {
		expressions = append(expressions, expression)
	}
	slices.Sort(expressions)
	b = binary.AppendUvarint(b, uint64(len(expressions)))
	for i, expression := range expressions {
		w.regexes[expression] = i
		b = appendString(b, expression)
		b = binary.BigEndian.AppendUint64(b, c.regexes[expression].hash)
	}

	var lists, metadata []byte
	namesOf := make([]int, len(c.members))
	for i, m := range c.members {
		if i > 0 && slices.Equal(m.names, c.members[i-1].names) {
			namesOf[i] = namesOf[i-1]
		} else {
			namesOf[i], lists = w.addNames(m.names, lists)
		}
		if m.classic != nil {
			for _, p := range m.classic.protocols {
				if _, known := w.metadata[string(p.Metadata)]; !known {
					w.metadata[string(p.Metadata)] = len(w.metadata)
					metadata = appendString(metadata, p.Metadata)
				}
			}
		}
	}
	b = append(binary.AppendUvarint(b, uint64(len(w.names))), lists...)
	b = append(binary.AppendUvarint(b, uint64(len(w.metadata))), metadata...)

	b = binary.AppendUvarint(b, uint64(len(c.members)))
	for i, m := range c.members {
		for _, s := range [...]string{m.id, m.instance, m.rack, m.clientID, m.clientHost, m.assignor} {
			b = appendString(b, s)
		}
		b = appendDuration(b, m.rebalanceTimeout)
		b = binary.AppendUvarint(b, uint64(namesOf[i]))
		regex := uint64(0)
		if at, ok := w.regexes[m.regex]; ok {
			regex = uint64(at) + 1
		}
		b = binary.AppendUvarint(b, regex)
		b = binary.AppendVarint(b, int64(m.epoch))
		b = binary.AppendVarint(b, int64(m.previousEpoch))
		b = append(b, byte(m.state))
		b = w.appendSet(b, m.assigned)
		b = w.appendSet(b, m.revoking)
		same := m.target.Equal(m.assigned)
		if b = appendBool(b, same); !same {
			b = w.appendSet(b, m.target)
		}
		if b = appendBool(b, m.classic != nil); m.classic != nil {
			b = appendDuration(b, m.classic.sessionTimeout)
			b = binary.AppendUvarint(b, uint64(len(m.classic.protocols)))
			for _, p := range m.classic.protocols {
				b = appendString(b, p.Name)
				b = binary.AppendUvarint(b, uint64(w.metadata[string(p.Metadata)]))
			}
		}
	}
	return b
}

// maxPartition leaves room for the one after it in 31 bits.
const maxPartition = 1<<31 - 2

// recordTables are the places of what members refer to.
type recordTables struct {
	order    []TopicID
	topics   map[TopicID]int
	regexes  map[string]int
	names    map[string]int
	metadata map[string]int
}

// addTopics lists the group's topics and those of which a member still has partitions.
func (w *recordTables) addTopics(c *consumer) {
	add := func(id TopicID) {
		if _, known := w.topics[id]; !known {
			w.topics[id] = 0
			w.order = append(w.order, id)
		}
	}
	for id := range c.topics {
		add(id)
	}
	for _, m := range c.members {
		for _, set := range [...]Assignment{m.assigned, m.revoking, m.target} {
			for _, tp := range set {
				add(tp.Topic)
			}
		}
	}
	slices.SortFunc(w.order, compareTopicIDs)
	for i, id := range w.order {
		w.topics[id] = i
	}
}

func (w *recordTables) addNames(names []string, lists []byte) (int, []byte) {
	list := binary.AppendUvarint(nil, uint64(len(names)))
	for _, name := range names {
		list = appendString(list, name)
	}
	at, known := w.names[string(list)]
	if !known {
		at = len(w.names)
		w.names[string(list)] = at
		lists = append(lists, list...)
	}
	return at, lists
}

func (w *recordTables) appendSet(b []byte, set Assignment) []byte {
	b = binary.AppendUvarint(b, uint64(len(set)))
	for _, tp := range set {
		b = binary.AppendUvarint(b, uint64(w.topics[tp.Topic]))
		b = binary.AppendUvarint(b, uint64(len(tp.Partitions)))
		next := int32(0)
		for _, p := range tp.Partitions {
			b = binary.AppendUvarint(b, uint64(p-next))
			next = p + 1
		}
	}
	return b
}

// loadConsumer reads a body. A group that its own rules would not have made is
// an error of r: it must not reach code that relies on them.
func loadConsumer(g *Group, r *reader, _ time.Time) *consumer {
	c := newConsumer(g)
	c.epoch, c.targetEpoch = r.int32(), r.int32()
	if ms := r.varint(); ms != 0 {
		c.emptySince = time.UnixMilli(ms)
	}
	if c.targetEpoch < 0 || c.epoch < c.targetEpoch {
		r.fail("epochs that go back")
	}
	t := loadTables{}
	t.read(r, c)
	for n := r.count(); n > 0 && r.err == nil; n-- {
		m := t.member(r)
		switch {
		case r.err != nil:
		case m.id == "" || c.byID[m.id] != nil || m.instance != "" && c.instances[m.instance] != nil:
			r.fail("a member without a name of its own")
		case !m.sound(c.targetEpoch):
			r.fail("a member in no state that it could have")
		case c.anyOwned(m.assigned) || c.anyOwned(m.revoking) || overlap(m.assigned, m.revoking):
			r.fail("a partition of two members")
		default:
			c.add(m)
		}
	}
	for expression, hash := range t.hashes {
		if regex := c.regexes[expression]; regex != nil {
			regex.hash = hash
		}
	}
	return c
}

// sound says whether a member's epochs and sets fit its state.
func (m *consumerMember) sound(target int32) bool {
	switch {
	case m.epoch == leftEpoch:
		return m.previousEpoch == leftEpoch && m.instance != "" && m.state == memberStable && len(m.revoking) == 0
	case m.epoch < 0 || m.epoch > target || m.previousEpoch < leftEpoch || m.previousEpoch > m.epoch:
		return false
	case m.classic != nil && (len(m.classic.protocols) == 0 || m.classic.sessionTimeout <= 0):
		return false
	}
	return (m.state == memberUnrevoked) == (len(m.revoking) > 0)
}

func (c *consumer) anyOwned(set Assignment) bool {
	for _, tp := range set {
		for _, p := range tp.Partitions {
			if c.owners[topicPartition{tp.Topic, p}] != nil {
				return true
			}
		}
	}
	return false
}

func overlap(a, b Assignment) bool {
	common, _ := a.split(b)
	return len(common) > 0
}

// loadTables are what members of a record refer to.
type loadTables struct {
	topics   []TopicID
	regexes  []string
	hashes   map[string]uint64
	names    [][]string
	metadata [][]byte
}

func (t *loadTables) read(r *reader, c *consumer) {
	for n := r.count(); n > 0 && r.err == nil; n-- {
		topic := Topic{}
		copy(topic.ID[:], r.take(len(topic.ID)))
		topic.Name = r.string()
		partitions := r.uvarint()
		if partitions > 1<<31-1 {
			r.fail("too many partitions")
		}
		if i := len(t.topics); i > 0 && compareTopicIDs(t.topics[i-1], topic.ID) >= 0 {
			r.fail("topics out of order")
		}
		t.topics = append(t.topics, topic.ID)
		if topic.Partitions = int32(partitions); partitions > 0 {
			c.topics[topic.ID] = topic
		}
	}
	t.hashes = make(map[string]uint64)
	for n := r.count(); n > 0 && r.err == nil; n-- {
		expression := r.string()
		hash := r.take(8)
		if r.err == nil {
			t.regexes = append(t.regexes, expression)
			t.hashes[expression] = binary.BigEndian.Uint64(hash)
		}
	}
	for n := r.count(); n > 0 && r.err == nil; n-- {
		var list []string
		for k := r.count(); k > 0 && r.err == nil; k-- {
			name := r.string()
			if i := len(list); i > 0 && list[i-1] >= name {
				r.fail("names out of order")
			}
			list = append(list, name)
		}
		t.names = append(t.names, list)
	}
	for n := r.count(); n > 0 && r.err == nil; n-- {
		t.metadata = append(t.metadata, slices.Clone(r.view()))
	}
}

func (t *loadTables) member(r *reader) *consumerMember {
	m := &consumerMember{
		id: r.string(), instance: r.string(), rack: r.string(),
		clientID: r.string(), clientHost: r.string(), assignor: r.string(),
		rebalanceTimeout: r.duration(),
		repeats:          maxRepeats, // whether it was told is not known
	}
	if at := r.uvarint(); at < uint64(len(t.names)) {
		m.names = t.names[at]
	} else {
		r.fail("a subscription that is not there")
	}
	if at := r.uvarint(); at > uint64(len(t.regexes)) {
		r.fail("an expression that is not there")
	} else if at > 0 {
		m.regex = t.regexes[at-1]
	}
	m.epoch, m.previousEpoch = r.int32(), r.int32()
	if state := r.take(1); r.err == nil {
		if m.state = memberState(state[0]); m.state >= memberStates {
			r.fail("a state that is not known")
		}
	}
	m.assigned = t.set(r)
	m.revoking = t.set(r)
	if m.target = m.assigned; !r.bool() {
		m.target = t.set(r)
	}
	if r.bool() {
		m.classic = &classicSide{sessionTimeout: r.duration()}
		for n := r.count(); n > 0 && r.err == nil; n-- {
			p := Protocol{Name: r.string()}
			if at := r.uvarint(); at < uint64(len(t.metadata)) {
				p.Metadata = t.metadata[at]
			} else {
				r.fail("metadata that is not there")
			}
			m.classic.protocols = append(m.classic.protocols, p)
		}
		if r.err == nil && len(m.classic.protocols) > 0 {
			subscription, err := decodeConsumerSubscription(m.classic.protocols[0].Metadata)
			if err != nil {
				r.fail("a subscription that cannot be read")
			}
			m.classic.version = subscription.version
		}
	}
	return m
}

func (t *loadTables) set(r *reader) Assignment {
	var set Assignment
	last := -1
	for n := r.count(); n > 0 && r.err == nil; n-- {
		at := r.uvarint()
		if at >= uint64(len(t.topics)) || int(at) <= last {
			r.fail("a topic that is not there")
			return nil
		}
		last = int(at)
		partitions := make([]int32, r.count())
		next := uint64(0)
		for i := range partitions {
			distance := r.uvarint()
			if next += distance; distance > maxPartition || next > maxPartition {
				r.fail("a partition beyond 31 bits")
				return nil
			}
			partitions[i] = int32(next)
			next++
		}
		if len(partitions) == 0 {
			r.fail("a topic without partitions")
			return nil
		}
		set = append(set, TopicPartitions{t.topics[at], partitions})
	}
	return set
}

// restored starts the sessions of a loaded group, and the time of those who have
// partitions to give up.
func (c *consumer) restored(now time.Time) {
	for _, m := range c.members {
		c.renew(now, m)
		c.waitForRevocation(now, m)
	}
}

// take returns the next n bytes, as long as the record.
func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail("too short")
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}
