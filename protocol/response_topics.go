package protocol

// responseTopics is where a cursor over a response stands among its topics.
type responseTopics struct {
	Topic           string // unless the version has ids
	TopicID         [16]byte
	TopicPartitions int

	r              reader
	ids, flexible  bool
	topicsLeft     int
	partitionsLeft int // of the topic, not read
}

// minAnsweredPartition is the fewest bytes of a partition of a Produce or Fetch response:
// its number, a code, and an offset.
const minAnsweredPartition = 4 + 2 + 8

// begin reads how many topics there are, which have minTopic bytes at least.
func (t *responseTopics) begin(ids, flexible bool, minTopic int64) {
	t.ids, t.flexible = ids, flexible
	t.topicsLeft = t.r.arrayLen(flexible, minTopic)
}

// nextTopic moves to the next topic. The partitions of the one before were read.
func (t *responseTopics) nextTopic() bool {
	if t.topicsLeft == 0 || t.r.bad {
		return false
	}
	t.topicsLeft--
	if t.ids {
		t.TopicID = t.r.uuid()
	} else {
		t.Topic = t.r.string(t.flexible)
	}
	t.TopicPartitions = t.r.arrayLen(t.flexible, minAnsweredPartition)
	t.partitionsLeft = t.TopicPartitions
	if t.partitionsLeft == 0 && t.flexible {
		t.r.skipTags()
	}
	return !t.r.bad
}
