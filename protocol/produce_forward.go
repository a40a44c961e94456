package protocol

// A node that does not serve all partitions of a Produce request asks those that do: it
// makes requests of some of its partitions, and reads their answers.

// ProduceRequestEncoder makes a Produce request, v0 to MaxProduceVersion, as parts
// for one vectored write: Begin, then Topic, and Partition as often as Topic
// said, for each topic, then End. Records are referred to where they lie.
type ProduceRequestEncoder struct {
	head           []byte
	cuts           []cut
	version        int16
	partitionsLeft int
}

// Begin starts a request that has the header, transactional id, acks and timeout of
// another, and so many topics. header is the bytes before that one's body.
func (e *ProduceRequestEncoder) Begin(header []byte, of *ProduceRequest, topics int) {
	e.version, e.partitionsLeft = of.version, 0
	e.cuts = e.cuts[:0]
	b := append(e.head[:0], header...)
	if e.version >= 3 {
		switch {
		case of.HasTransactionalID:
			b = appendString(b, e.flexible(), of.TransactionalID)
		case e.flexible():
			b = append(b, 0)
		default:
			b = appendInt16(b, -1)
		}
	}
	b = appendInt16(b, of.Acks)
	b = appendInt32(b, of.TimeoutMillis)
	e.head = appendArrayLen(b, e.flexible(), topics)
}

// Topic starts a topic of so many partitions, one at least. name counts up to v12, id from v13.
func (e *ProduceRequestEncoder) Topic(name string, id [16]byte, partitions int) {
	if e.partitionsLeft != 0 || partitions < 1 {
		panic("protocol: Produce request: topic out of turn")
	}
	e.partitionsLeft = partitions
	if e.version >= produceTopicIDs {
		e.head = append(e.head, id[:]...)
	} else {
		e.head = appendString(e.head, e.flexible(), name)
	}
	e.head = appendArrayLen(e.head, e.flexible(), partitions)
}

// Partition adds a partition of the topic. Records of nil are sent as null; their
// bytes must stay until the request is sent.
func (e *ProduceRequestEncoder) Partition(partition int32, records []byte) {
	if e.partitionsLeft == 0 {
		panic("protocol: Produce request: partition out of turn")
	}
	e.partitionsLeft--
	b := appendInt32(e.head, partition)
	if records == nil {
		b = appendNullArray(b, e.flexible())
	} else {
		b = appendArrayLen(b, e.flexible(), len(records))
		e.cuts = append(e.cuts, cut{at: len(b), records: records})
	}
	if e.flexible() {
		b = append(b, 0)
		if e.partitionsLeft == 0 {
			b = append(b, 0)
		}
	}
	e.head = b
}

// End ends the request and returns its parts, which are the caller's.
func (e *ProduceRequestEncoder) End() [][]byte {
	if e.flexible() {
		e.head = append(e.head, 0)
	}
	parts := make([][]byte, 0, 2*len(e.cuts)+1)
	at := 0
	for _, c := range e.cuts {
		parts = append(parts, e.head[at:c.at:c.at])
		at = c.at
		if len(c.records) > 0 {
			parts = append(parts, c.records)
		}
	}
	if at < len(e.head) {
		parts = append(parts, e.head[at:])
	}
	*e = ProduceRequestEncoder{}
	return parts
}

func (e *ProduceRequestEncoder) flexible() bool { return e.version >= produceFlexible }

// ProduceResponse reads a Produce response, v0 to MaxProduceVersion, where it
// lies. It is a cursor as ProduceRequest is one; what it reads aliases the message.
type ProduceResponse struct {
	responseTopics

	// Part is the partition, from NextPartition on. Its RecordErrors live until the next one.
	Part ProducePartition

	version int16
}

// Parse reads a response up to its topics. message begins with the response's
// header. The error wraps ErrMalformed.
func (p *ProduceResponse) Parse(message []byte, version int16) error {
	*p = ProduceResponse{version: version}
	p.r = reader{src: message}
	p.r.int32() // correlation id
	if p.flexible() {
		p.r.skipTags()
	}
	p.begin(version >= produceTopicIDs, p.flexible(), minProduceTopic(version))
	return p.Err()
}

// Err returns what was malformed so far. It is looked at once more after the last topic.
func (p *ProduceResponse) Err() error { return p.r.err("Produce response") }

// NextTopic moves to the next topic, over what is left of the one before.
func (p *ProduceResponse) NextTopic() bool {
	for p.partitionsLeft > 0 {
		p.NextPartition()
	}
	return p.nextTopic()
}

// NextPartition moves to the next partition of the topic.
func (p *ProduceResponse) NextPartition() bool {
	if p.partitionsLeft == 0 {
		return false
	}
	p.partitionsLeft--
	r, flexible := &p.r, p.flexible()
	errs := p.Part.RecordErrors[:0]
	p.Part = ProducePartition{Partition: r.int32(), Code: Code(r.int16()), BaseOffset: r.int64(), LogAppendTime: -1, LogStartOffset: -1}
	if p.version >= 2 {
		p.Part.LogAppendTime = r.int64()
	}
	if p.version >= 5 {
		p.Part.LogStartOffset = r.int64()
	}
	if p.version >= 8 {
		for n := r.arrayLen(flexible, 4+1); n > 0 && !r.bad; n-- {
			e := RecordError{Index: r.int32()}
			e.Message, _ = r.nullableString(flexible)
			if flexible {
				r.skipTags()
			}
			errs = append(errs, e)
		}
		p.Part.Message, _ = r.nullableString(flexible)
	}
	p.Part.RecordErrors = errs
	if flexible {
		for n := r.tagCount(); n > 0 && !r.bad; n-- {
			if tag, field := r.tag(); tag == 0 && p.version >= produceLeaders {
				p.Part.Leader = field.leader()
			}
		}
		if p.partitionsLeft == 0 {
			r.skipTags()
		}
	}
	if r.bad {
		p.partitionsLeft = 0
		return false
	}
	return true
}

// Nodes returns the nodes that the response names (v10+). It is called after the
// last topic.
func (p *ProduceResponse) Nodes() []Node {
	if p.version >= 1 {
		p.r.int32() // throttle time
	}
	if p.version < produceLeaders {
		return nil
	}
	return p.r.nodesTag()
}

func (p *ProduceResponse) flexible() bool { return p.version >= produceFlexible }

// minProduceTopic is the fewest bytes of a topic of a response.
func minProduceTopic(version int16) int64 {
	switch {
	case version >= produceTopicIDs:
		return 16 + 1 + 1
	case version >= produceFlexible:
		return 1 + 1 + 1
	}
	return 2 + 4
}

// leader reads what appendLeader has appended.
func (r *reader) leader() Leader {
	l := Leader{Known: true, NodeID: r.int32(), Epoch: r.int32()}
	r.skipTags()
	l.Known = !r.bad
	return l
}

// nodesTag reads what appendNodesTag has appended.
func (r *reader) nodesTag() []Node {
	var nodes []Node
	for n := r.tagCount(); n > 0 && !r.bad; n-- {
		tag, field := r.tag()
		if tag != 0 {
			continue
		}
		for n := field.arrayLen(true, 4+1+4+1+1); n > 0 && !field.bad; n-- {
			node := Node{ID: field.int32(), Host: field.string(true), Port: field.int32()}
			node.Rack, _ = field.nullableString(true)
			field.skipTags()
			nodes = append(nodes, node)
		}
		if field.bad {
			r.fail(field.why)
		}
	}
	if r.bad {
		return nil
	}
	return nodes
}
