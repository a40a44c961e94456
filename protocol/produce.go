package protocol

// MaxProduceVersion is the newest version of Produce that is spoken here.
const MaxProduceVersion = 13

const (
	produceFlexible = 9
	produceLeaders  = 10
	produceTopicIDs = 13
)

// ProduceRequest reads a Produce request, v0 to MaxProduceVersion, where it
// lies. It is a cursor: Parse, then NextTopic, and NextPartition for each topic.
//
//	if err := p.Parse(body, version); err != nil { close the connection }
//	for p.NextTopic() {
//		for p.NextPartition() {
//			append p.Records to partition p.Partition of p.Topic
//
// Strings and records alias the body. A ProduceRequest does not allocate; it may be used again.
type ProduceRequest struct {
	// Of the request, from Parse on.
	TransactionalID    string // v3+
	HasTransactionalID bool   // false: null
	Acks               int16
	TimeoutMillis      int32
	Topics             int // how many NextTopic will give
	Partitions         int // how many NextPartition will give, over all topics

	// Of the topic, from NextTopic on.
	Topic           string   // v0-12
	TopicID         [16]byte // v13+
	TopicPartitions int      // how many NextPartition will give

	// Of the partition, from NextPartition on.
	Partition int32
	Records   []byte // nil if null

	version        int16
	r              reader
	topicsLeft     int
	partitionsLeft int
}

// Parse reads a request's body up to its topics, and walks over the rest once:
// a request that is malformed anywhere is refused before any of it is
// appended, and the cursor after Parse cannot fail. Bytes after the request
// are ignored, as Kafka does. The error wraps ErrMalformed.
func (p *ProduceRequest) Parse(body []byte, version int16) error {
	*p = ProduceRequest{version: version, r: reader{src: body}}
	if version < 0 || version > MaxProduceVersion {
		p.r.fail("unknown version")
		return p.r.err("Produce request")
	}
	if version >= 3 {
		p.TransactionalID, p.HasTransactionalID = p.r.nullableString(p.flexible())
	}
	p.Acks = p.r.int16()
	p.TimeoutMillis = p.r.int32()
	p.Topics = p.r.arrayLen(p.flexible(), p.minTopic())
	p.topicsLeft = p.Topics

	walk := *p
	for walk.NextTopic() {
		p.Partitions += walk.TopicPartitions
		for walk.NextPartition() {
		}
	}
	if walk.flexible() {
		walk.r.skipTags()
	}
	if walk.r.bad {
		err := walk.r.err("Produce request")
		*p = ProduceRequest{}
		return err
	}
	return nil
}

// NextTopic moves to the next topic, over what is left of the one before.
func (p *ProduceRequest) NextTopic() bool {
	for p.partitionsLeft > 0 {
		p.NextPartition()
	}
	if p.topicsLeft == 0 || p.r.bad {
		return false
	}
	p.topicsLeft--
	if p.version >= produceTopicIDs {
		p.TopicID = p.r.uuid()
	} else {
		p.Topic = p.r.string(p.flexible())
	}
	p.TopicPartitions = p.r.arrayLen(p.flexible(), p.minPartition())
	p.partitionsLeft = p.TopicPartitions
	if p.partitionsLeft == 0 {
		p.endTopic()
	}
	return !p.r.bad
}

// NextPartition moves to the next partition of the topic.
func (p *ProduceRequest) NextPartition() bool {
	if p.partitionsLeft == 0 {
		return false
	}
	p.partitionsLeft--
	p.Partition = p.r.int32()
	p.Records = p.r.nullableBytes(p.flexible())
	if p.flexible() {
		p.r.skipTags()
	}
	if p.r.bad {
		p.partitionsLeft = 0
		return false
	}
	if p.partitionsLeft == 0 {
		p.endTopic()
	}
	return true
}

func (p *ProduceRequest) endTopic() {
	if p.flexible() {
		p.r.skipTags()
	}
}

func (p *ProduceRequest) flexible() bool { return p.version >= produceFlexible }

// minTopic is the fewest bytes of a topic: name or id, count of partitions, tags.
func (p *ProduceRequest) minTopic() int64 {
	switch {
	case p.version >= produceTopicIDs:
		return 16 + 1 + 1
	case p.flexible():
		return 1 + 1 + 1
	}
	return 2 + 4
}

// minPartition is the fewest bytes of a partition: index, length of the records, tags.
func (p *ProduceRequest) minPartition() int64 {
	if p.flexible() {
		return 4 + 1 + 1
	}
	return 4 + 4
}

// ProducePartition is a partition's part of a Produce response. Fields that
// the response's version does not have are left out.
type ProducePartition struct {
	Partition      int32
	Code           Code
	BaseOffset     int64         // -1 on error
	LogAppendTime  int64         // v2+, ms; -1 unless the topic stamps time
	LogStartOffset int64         // v5+; -1 on error
	RecordErrors   []RecordError // v8+
	Message        string        // v8+; empty: null
	Leader         Leader        // v10+ (KIP-951)
}

// RecordError says which record of a batch was refused (KIP-467).
type RecordError struct {
	Index   int32
	Message string // empty: null
}

// Leader tells a client that asked the wrong broker who leads a partition
// (KIP-951). The zero value stands for "not told": a leader epoch starts at 0, so a
// leader of node 0 in epoch 0 is told with Known set.
type Leader struct {
	Known  bool
	NodeID int32 // -1: unknown
	Epoch  int32 // -1: unknown
}

// Node is where a broker named in a Leader can be reached (KIP-951).
type Node struct {
	ID   int32
	Host string
	Port int32
	Rack string // empty: null
}

// ProduceEncoder appends a Produce response, v0 to MaxProduceVersion: Begin,
// then Topic, and Partition as often as Topic said, for each topic, then End.
// It does not allocate but to grow the bytes that it appends to.
type ProduceEncoder struct {
	b              []byte
	version        int16
	topicsLeft     int
	partitionsLeft int
}

// Begin starts a response of so many topics. The encoder appends to dst, which
// holds what goes before the body.
func (e *ProduceEncoder) Begin(dst []byte, version int16, topics int) {
	*e = ProduceEncoder{b: dst, version: version, topicsLeft: topics}
	e.b = appendArrayLen(e.b, e.flexible(), topics)
}

// Topic starts a topic of so many partitions. name counts up to v12, id from v13.
func (e *ProduceEncoder) Topic(name string, id [16]byte, partitions int) {
	if e.topicsLeft == 0 || e.partitionsLeft != 0 {
		panic("protocol: Produce response: topic out of turn")
	}
	e.topicsLeft--
	e.partitionsLeft = partitions
	if e.version >= produceTopicIDs {
		e.b = append(e.b, id[:]...)
	} else {
		e.b = appendString(e.b, e.flexible(), name)
	}
	e.b = appendArrayLen(e.b, e.flexible(), partitions)
	if partitions == 0 {
		e.endStruct()
	}
}

// Partition appends a partition of the topic.
func (e *ProduceEncoder) Partition(p *ProducePartition) {
	if e.partitionsLeft == 0 {
		panic("protocol: Produce response: partition out of turn")
	}
	e.partitionsLeft--
	flexible := e.flexible()
	b := appendInt32(e.b, p.Partition)
	b = appendInt16(b, int16(p.Code))
	b = appendInt64(b, p.BaseOffset)
	if e.version >= 2 {
		b = appendInt64(b, p.LogAppendTime)
	}
	if e.version >= 5 {
		b = appendInt64(b, p.LogStartOffset)
	}
	if e.version >= 8 {
		b = appendArrayLen(b, flexible, len(p.RecordErrors))
		for i := range p.RecordErrors {
			b = appendInt32(b, p.RecordErrors[i].Index)
			b = appendNullableString(b, flexible, p.RecordErrors[i].Message)
			if flexible {
				b = append(b, 0)
			}
		}
		b = appendNullableString(b, flexible, p.Message)
	}
	if flexible {
		if p.Leader.Known && e.version >= produceLeaders {
			b = append(b, 1)
			b = appendLeader(b, 0, p.Leader)
		} else {
			b = append(b, 0)
		}
	}
	e.b = b
	if e.partitionsLeft == 0 {
		e.endStruct()
	}
}

// End appends what follows the topics and returns all that was appended.
// nodes, if there are any, are sent from v10 on (KIP-951).
func (e *ProduceEncoder) End(throttleMillis int32, nodes []Node) []byte {
	if e.topicsLeft != 0 || e.partitionsLeft != 0 {
		panic("protocol: Produce response: ended before its last partition")
	}
	if e.version >= 1 {
		e.b = appendInt32(e.b, throttleMillis)
	}
	if e.flexible() {
		if e.version < produceLeaders {
			nodes = nil
		}
		e.b = appendNodesTag(e.b, nodes)
	}
	b := e.b
	e.b = nil
	return b
}

func (e *ProduceEncoder) endStruct() {
	if e.flexible() {
		e.b = append(e.b, 0)
	}
}

func (e *ProduceEncoder) flexible() bool { return e.version >= produceFlexible }

// appendLeader appends a tagged field of CurrentLeader's shape.
func appendLeader(b []byte, tag uint32, l Leader) []byte {
	b = appendUvarint(b, tag)
	b = append(b, 4+4+1)
	b = appendInt32(b, l.NodeID)
	b = appendInt32(b, l.Epoch)
	return append(b, 0)
}

// appendNodesTag appends the tagged fields that end a Produce or Fetch
// response: NodeEndpoints, if there are nodes, else none.
func appendNodesTag(b []byte, nodes []Node) []byte {
	if len(nodes) == 0 {
		return append(b, 0)
	}
	size := uvarintLen(uint32(len(nodes)) + 1)
	for i := range nodes {
		n := &nodes[i]
		size += 4 + uvarintLen(uint32(len(n.Host))+1) + len(n.Host) + 4 + 1
		size += uvarintLen(uint32(len(n.Rack))+1) + len(n.Rack) // null and empty take one byte
	}
	b = append(b, 1, 0)
	b = appendUvarint(b, uint32(size))
	b = appendArrayLen(b, true, len(nodes))
	for i := range nodes {
		n := &nodes[i]
		b = appendInt32(b, n.ID)
		b = appendString(b, true, n.Host)
		b = appendInt32(b, n.Port)
		b = appendNullableString(b, true, n.Rack)
		b = append(b, 0)
	}
	return b
}
