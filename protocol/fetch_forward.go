package protocol

// A node that does not serve all partitions of a Fetch request asks those that do: it
// makes requests of some of its partitions, and reads their answers.

// FetchAsk is a partition of a Fetch request that is made, with its topic.
type FetchAsk struct {
	Topic string   // v0-12
	ID    [16]byte // v13+
	FetchRequestPartition
}

// AppendFetchRequest appends a Fetch request of a consumer without a session, header
// excluded. Of f it takes what goes before and behind the topics; partitions of one
// topic that follow each other make one topic.
func AppendFetchRequest(b []byte, version int16, f *FetchRequest, asks []FetchAsk) []byte {
	flexible := version >= fetchFlexible
	if version <= 14 {
		b = appendInt32(b, -1)
	}
	b = appendInt32(b, f.MaxWaitMillis)
	b = appendInt32(b, f.MinBytes)
	if version >= 3 {
		b = appendInt32(b, f.MaxBytes)
	}
	if version >= 4 {
		b = append(b, byte(f.IsolationLevel))
	}
	if version >= 7 {
		b = appendInt32(b, 0)
		b = appendInt32(b, -1)
	}
	runs := 0
	for i := 0; i < len(asks); i += fetchRun(asks[i:]) {
		runs++
	}
	b = appendArrayLen(b, flexible, runs)
	for len(asks) > 0 {
		n := fetchRun(asks)
		if version >= fetchTopicIDs {
			b = append(b, asks[0].ID[:]...)
		} else {
			b = appendString(b, flexible, asks[0].Topic)
		}
		b = appendArrayLen(b, flexible, n)
		for i := range asks[:n] {
			b = appendFetchAsk(b, version, &asks[i].FetchRequestPartition)
		}
		if flexible {
			b = append(b, 0)
		}
		asks = asks[n:]
	}
	if version >= 7 {
		b = appendArrayLen(b, flexible, 0)
	}
	if version >= 11 {
		b = appendString(b, flexible, f.RackID)
	}
	if flexible {
		b = append(b, 0)
	}
	return b
}

func appendFetchAsk(b []byte, version int16, p *FetchRequestPartition) []byte {
	b = appendInt32(b, p.Partition)
	if version >= 9 {
		b = appendInt32(b, p.CurrentLeaderEpoch)
	}
	b = appendInt64(b, p.FetchOffset)
	if version >= 12 {
		b = appendInt32(b, p.LastFetchedEpoch)
	}
	if version >= 5 {
		b = appendInt64(b, p.LogStartOffset)
	}
	b = appendInt32(b, p.MaxBytes)
	if version >= fetchFlexible {
		b = append(b, 0)
	}
	return b
}

// fetchRun returns how many of the first asks are of one topic.
func fetchRun(asks []FetchAsk) int {
	n := 1
	for n < len(asks) && asks[n].ID == asks[0].ID && asks[n].Topic == asks[0].Topic {
		n++
	}
	return n
}

// FetchResponse reads a Fetch response, v0 to MaxFetchVersion, where it lies. It is a
// cursor: Parse, then NextTopic, and NextPartition for each topic. What it reads
// aliases the message.
type FetchResponse struct {
	responseTopics

	Code Code // of the session, v7+

	// Part is the partition, from NextPartition on. Its Aborted lives until the next
	// one. Records are one part, none if there are no bytes.
	Part FetchPartition

	version int16
	records [1][]byte
}

// Parse reads a response up to its topics. message begins with the response's
// header. The error wraps ErrMalformed.
func (p *FetchResponse) Parse(message []byte, version int16) error {
	*p = FetchResponse{version: version}
	p.r = reader{src: message}
	p.r.int32() // correlation id
	if p.flexible() {
		p.r.skipTags()
	}
	if version >= 1 {
		p.r.int32() // throttle time
	}
	if version >= 7 {
		p.Code = Code(p.r.int16())
		p.r.int32() // session id
	}
	p.begin(version >= fetchTopicIDs, p.flexible(), minFetchTopic(version))
	return p.Err()
}

// Err returns what was malformed so far. It is looked at once more after the last topic.
func (p *FetchResponse) Err() error { return p.r.err("Fetch response") }

// NextTopic moves to the next topic, over what is left of the one before.
func (p *FetchResponse) NextTopic() bool {
	for p.partitionsLeft > 0 {
		p.NextPartition()
	}
	return p.nextTopic()
}

// NextPartition moves to the next partition of the topic.
func (p *FetchResponse) NextPartition() bool {
	if p.partitionsLeft == 0 {
		return false
	}
	p.partitionsLeft--
	r, flexible := &p.r, p.flexible()
	aborted := p.Part.Aborted[:0]
	p.Part = FetchPartition{
		Partition: r.int32(), Code: Code(r.int16()), HighWatermark: r.int64(),
		LastStableOffset: -1, LogStartOffset: -1, PreferredReadReplica: -1,
	}
	if p.version >= 4 {
		p.Part.LastStableOffset = r.int64()
	}
	if p.version >= 5 {
		p.Part.LogStartOffset = r.int64()
	}
	if p.version >= 4 {
		p.Part.Aborted = r.aborted(flexible, aborted)
	}
	if p.version >= 11 {
		p.Part.PreferredReadReplica = r.int32()
	}
	if b := r.nullableBytes(flexible); len(b) > 0 {
		p.records[0] = b
		p.Part.Records = p.records[:]
	}
	if flexible {
		r.fetchTags(&p.Part)
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

// aborted reads aborted transactions: nil for null.
func (r *reader) aborted(flexible bool, to []AbortedTxn) []AbortedTxn {
	n := r.bytesLen(flexible)
	if n < 0 {
		return nil
	}
	if n*16 > int64(len(r.src)) {
		r.fail("has an array length beyond its end")
		return nil
	}
	if to == nil {
		to = []AbortedTxn{}
	}
	for ; n > 0 && !r.bad; n-- {
		to = append(to, AbortedTxn{ProducerID: r.int64(), FirstOffset: r.int64()})
		if flexible {
			r.skipTags()
		}
	}
	return to
}

// fetchTags reads what appendFetchTags has appended.
func (r *reader) fetchTags(p *FetchPartition) {
	for n := r.tagCount(); n > 0 && !r.bad; n-- {
		tag, field := r.tag()
		switch tag {
		case 0:
			p.Diverging = EpochEnd{Known: true, Epoch: field.int32(), EndOffset: field.int64()}
		case 1:
			p.Leader = field.leader()
		case 2:
			p.Snapshot = EpochEnd{Known: true}
			p.Snapshot.EndOffset = field.int64()
			p.Snapshot.Epoch = field.int32()
		}
		if field.bad {
			r.fail(field.why)
		}
	}
}

// Nodes returns the nodes that the response names (v16+). It is called after the
// last topic.
func (p *FetchResponse) Nodes() []Node {
	if p.version < fetchNodes {
		return nil
	}
	return p.r.nodesTag()
}

func (p *FetchResponse) flexible() bool { return p.version >= fetchFlexible }
