package protocol

// MaxFetchVersion is the newest version of Fetch that is spoken here.
const MaxFetchVersion = 18

const (
	fetchFlexible = 12
	fetchTopicIDs = 13
	fetchNodes    = 16
)

// FetchPartition is a partition's part of a Fetch response. Fields that the
// response's version does not have are left out.
type FetchPartition struct {
	Partition        int32
	Code             Code
	HighWatermark    int64 // -1 on error
	LastStableOffset int64 // v4+; -1 on error
	LogStartOffset   int64 // v5+; -1 on error
	// Aborted holds the aborted transactions of what was read, by first
	// offset. v4+; nil is sent as null, which is what ReadUncommitted gets.
	Aborted              []AbortedTxn
	PreferredReadReplica int32 // v11+; -1: none
	// Records are the batches, in parts that together are sent as one. They
	// are referred to and not copied. No parts are sent as zero bytes, never as null.
	Records   [][]byte
	Diverging EpochEnd // v12+ (KIP-595)
	Leader    Leader   // v12+, told to clients from v16 on (KIP-951)
	Snapshot  EpochEnd // v12+ (KIP-630)
}

// AbortedTxn is an aborted transaction: its producer, and the offset of its
// first record in the partition.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset int64
}

// EpochEnd is a leader epoch and an offset at its end. It is sent if Known is set.
type EpochEnd struct {
	Known     bool
	Epoch     int32
	EndOffset int64
}

// FetchEncoder makes a Fetch response, v0 to MaxFetchVersion, as parts for one
// vectored write: Begin, then Topic, and Partition as often as Topic said, for each topic, then
// End. Record bytes are referred to where they lie; all else goes into one
// buffer between them.
//
//	head  | corr, throttle, topics, partition 0, length | partition 1, … length | tags |
//	parts    head[0:n]                                 records   head[n:m]    records   head[m:]
//
// It does not allocate once its memory has grown to what a response needs.
type FetchEncoder struct {
	head           []byte
	cuts           []cut
	parts          [][]byte
	recordBytes    int
	version        int16
	topicsLeft     int
	partitionsLeft int
}

// cut says that records come before head[at:]. The parts are made at the end, since
// head may move while it grows.
type cut struct {
	at      int
	records []byte
}

// What an encoder keeps for the next response, so that one response to a
// thousand partitions does not stay in memory for ever.
const (
	keepHeadBytes = 64 << 10
	keepCuts      = 2048
)

// Begin starts a response of so many topics with its header and what goes
// before the topics. code is of the session (v7+).
func (e *FetchEncoder) Begin(version int16, correlationID, throttleMillis int32, code Code, sessionID int32, topics int) {
	e.Reset()
	e.version = version
	e.topicsLeft = topics
	b := AppendResponseHeader(e.head, correlationID, e.flexible())
	if version >= 1 {
		b = appendInt32(b, throttleMillis)
	}
	if version >= 7 {
		b = appendInt16(b, int16(code))
		b = appendInt32(b, sessionID)
	}
	e.head = appendArrayLen(b, e.flexible(), topics)
}

// Topic starts a topic of so many partitions. name counts up to v12, id from v13.
func (e *FetchEncoder) Topic(name string, id [16]byte, partitions int) {
	if e.topicsLeft == 0 || e.partitionsLeft != 0 {
		panic("protocol: Fetch response: topic out of turn")
	}
	e.topicsLeft--
	e.partitionsLeft = partitions
	if e.version >= fetchTopicIDs {
		e.head = append(e.head, id[:]...)
	} else {
		e.head = appendString(e.head, e.flexible(), name)
	}
	e.head = appendArrayLen(e.head, e.flexible(), partitions)
	if partitions == 0 {
		e.endStruct()
	}
}

// Partition adds a partition of the topic. p may be used again at once, but the
// bytes of p.Records must stay until the response is sent.
func (e *FetchEncoder) Partition(p *FetchPartition) {
	if e.partitionsLeft == 0 {
		panic("protocol: Fetch response: partition out of turn")
	}
	e.partitionsLeft--
	flexible := e.flexible()
	b := appendInt32(e.head, p.Partition)
	b = appendInt16(b, int16(p.Code))
	b = appendInt64(b, p.HighWatermark)
	if e.version >= 4 {
		b = appendInt64(b, p.LastStableOffset)
	}
	if e.version >= 5 {
		b = appendInt64(b, p.LogStartOffset)
	}
	if e.version >= 4 {
		if p.Aborted == nil {
			b = appendNullArray(b, flexible)
		} else {
			b = appendArrayLen(b, flexible, len(p.Aborted))
		}
		for i := range p.Aborted {
			b = appendInt64(b, p.Aborted[i].ProducerID)
			b = appendInt64(b, p.Aborted[i].FirstOffset)
			if flexible {
				b = append(b, 0)
			}
		}
	}
	if e.version >= 11 {
		b = appendInt32(b, p.PreferredReadReplica)
	}
	size := 0
	for _, r := range p.Records {
		size += len(r)
	}
	b = appendArrayLen(b, flexible, size) // the length of bytes is written as that of an array
	for _, r := range p.Records {
		if len(r) > 0 {
			e.cuts = append(e.cuts, cut{at: len(b), records: r})
		}
	}
	e.recordBytes += size
	if flexible {
		b = appendFetchTags(b, p)
	}
	e.head = b
	if e.partitionsLeft == 0 {
		e.endStruct()
	}
}

// appendFetchTags appends the tagged fields of a partition, in order of their tags.
func appendFetchTags(b []byte, p *FetchPartition) []byte {
	var n byte
	for _, known := range [...]bool{p.Diverging.Known, p.Leader.Known, p.Snapshot.Known} {
		if known {
			n++
		}
	}
	b = append(b, n)
	if p.Diverging.Known {
		b = append(b, 0, 4+8+1)
		b = appendInt32(b, p.Diverging.Epoch)
		b = appendInt64(b, p.Diverging.EndOffset)
		b = append(b, 0)
	}
	if p.Leader.Known {
		b = appendLeader(b, 1, p.Leader)
	}
	if p.Snapshot.Known {
		b = append(b, 2, 8+4+1)
		b = appendInt64(b, p.Snapshot.EndOffset)
		b = appendInt32(b, p.Snapshot.Epoch)
		b = append(b, 0)
	}
	return b
}

// End ends the response and returns its parts, header included, frame size
// not, and the sum of their lengths in bytes. nodes, if there are any, are
// sent from v16 on (KIP-951). The parts live until Begin or Reset.
func (e *FetchEncoder) End(nodes []Node) (parts [][]byte, size int) {
	if e.topicsLeft != 0 || e.partitionsLeft != 0 {
		panic("protocol: Fetch response: ended before its last partition")
	}
	if e.flexible() {
		if e.version < fetchNodes {
			nodes = nil
		}
		e.head = appendNodesTag(e.head, nodes)
	}
	at := 0
	for _, c := range e.cuts {
		if c.at > at {
			e.parts = append(e.parts, e.head[at:c.at:c.at])
			at = c.at
		}
		e.parts = append(e.parts, c.records)
	}
	if at < len(e.head) {
		e.parts = append(e.parts, e.head[at:])
	}
	return e.parts, len(e.head) + e.recordBytes
}

// Reset forgets the response and lets go of the record bytes that it referred
// to. It keeps memory for the next response, as far as that is not out of the ordinary.
func (e *FetchEncoder) Reset() {
	clear(e.cuts)
	clear(e.parts)
	e.head, e.cuts, e.parts = e.head[:0], e.cuts[:0], e.parts[:0]
	if cap(e.head) > keepHeadBytes {
		e.head = nil
	}
	if cap(e.cuts) > keepCuts {
		e.cuts, e.parts = nil, nil
	}
	e.recordBytes, e.topicsLeft, e.partitionsLeft = 0, 0, 0
}

func (e *FetchEncoder) endStruct() {
	if e.flexible() {
		e.head = append(e.head, 0)
	}
}

func (e *FetchEncoder) flexible() bool { return e.version >= fetchFlexible }
