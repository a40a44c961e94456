package protocol

import (
	"fmt"
	"sync"
)

// The most that CheckRequest lets through, per request.
const (
	maxRequestBytes     = 16 << 20
	maxSaslRequestBytes = 512 << 10 // sasl.server.max.receive.size
	maxVersionsBytes    = 64 << 10
	maxRequestElements  = 512 << 10
	maxRequestTags      = 1000
)

// MaxRequestBytes returns the most bytes that a request's body may have by its API
// key, so that a frame can be refused once its key is known; 0 means
// that the API has no limit of its own (Produce).
func MaxRequestBytes(key int16) int {
	switch key {
	case keyProduce:
		return 0
	case keyAPIVersions:
		return maxVersionsBytes
	case keySaslHandshake, keySaslAuthenticate:
		return maxSaslRequestBytes
	}
	return maxRequestBytes
}

// CheckRequest walks over a request's body before kmsg decodes it. It
// allocates nothing. kmsg allocates an array by the length that it claims, and
// counts tagged fields down from what they claim to be, up to four billion.
// What passes here costs it time in proportion to its length, and memory of at
// most 30 times its length and some 100 MiB, by these rules:
//
//   - The body is no longer than MaxRequestBytes.
//   - Every string, array and tagged field is there in full.
//   - All arrays together have at most 512 Ki elements, five times what a
//     request over 100,000 partitions has.
//   - There are at most 1,000 tagged fields, each of which becomes a map. They are
//     unknown ones: no request that kmsg decodes for us has others.
//
// Null passes everywhere. Where it may not be, kmsg refuses a string and takes
// an array for empty.
//
// The error wraps ErrMalformed. It is returned for unknown keys too, for the APIs between brokers,
// and for Produce and Fetch, which have decoders of their own.
func CheckRequest(key, version int16, body []byte) error {
	fields, ok := layouts()[key]
	if !ok {
		return fmt.Errorf("%w: API key %d is not decoded here", ErrMalformed, key)
	}
	if limit := MaxRequestBytes(key); len(body) > limit {
		return fmt.Errorf("%w: API key %d v%d: %d bytes exceed the limit of %d", ErrMalformed, key, version, len(body), limit)
	}
	w := newWalker(key, version, body)
	w.fields(fields)
	if w.flexible {
		w.tags()
	}
	if w.r.bad {
		return fmt.Errorf("%w: API key %d v%d: %s", ErrMalformed, key, version, w.r.why)
	}
	return nil
}

type walker struct {
	r        reader
	version  int16
	flexible bool
	elements int // that may still come
	tagged   int
}

func newWalker(key, version int16, body []byte) walker {
	return walker{
		r:        reader{src: body},
		version:  version,
		flexible: FlexibleRequest(key, version),
		elements: maxRequestElements,
		tagged:   maxRequestTags,
	}
}

func (w *walker) fields(fields []field) {
	for i := range fields {
		if f := &fields[i]; w.version >= f.first && w.version <= f.last {
			w.field(f)
		}
	}
}

func (w *walker) field(f *field) {
	switch f.kind {
	case kindFixed:
		w.r.span(int64(f.size))
	case kindString:
		w.span(w.r.stringLen(w.flexible))
	case kindBytes:
		w.span(w.r.bytesLen(w.flexible))
	case kindNullableStruct:
		if w.r.int8() == -1 || w.r.bad {
			return
		}
		fallthrough
	case kindStruct:
		w.fields(f.fields)
		if w.flexible {
			w.tags()
		}
	case kindArray:
		n := w.r.bytesLen(w.flexible)
		switch {
		case n == -1:
			return
		case n < -1 || n > int64(len(w.r.src)): // an element has a byte at least
			w.r.fail("has an array length beyond its end")
			return
		case n > int64(w.elements):
			w.r.fail("has too many elements")
			return
		}
		w.elements -= int(n)
		for ; n > 0 && !w.r.bad; n-- {
			w.field(&f.fields[0])
		}
	}
}

func (w *walker) span(n int64) {
	if n != -1 {
		w.r.span(n)
	}
}

func (w *walker) tags() {
	n := w.r.tagCount()
	if w.tagged -= n; w.tagged < 0 {
		w.r.fail("has too many tagged fields")
		return
	}
	for ; n > 0 && !w.r.bad; n-- {
		w.r.tag()
	}
}

// field is a field of a request's layout.
type field struct {
	kind        kind
	first, last int16   // versions that have it
	size        int     // of kindFixed, in bytes
	fields      []field // of a struct; of an array its one element
}

type kind uint8

const (
	kindFixed kind = iota
	kindString
	kindBytes
	kindArray
	kindStruct
	kindNullableStruct // an int8 before it, -1 for null
)

// layouts parses layoutTable once.
var layouts = sync.OnceValue(func() map[int16][]field {
	all := make(map[int16][]field, len(layoutTable))
	for key, text := range layoutTable {
		p := layoutParser{text: text}
		all[key] = p.fields(0)
	}
	return all
})

// layoutParser reads the notation of layoutTable. The table is a constant, so
// that what does not parse is a bug here, and panics.
type layoutParser struct {
	text string
	at   int
}

func (p *layoutParser) fields(end byte) (fields []field) {
	for {
		for p.peek() == ' ' {
			p.at++
		}
		if p.peek() == end {
			p.at++
			return fields
		}
		fields = append(fields, p.field())
	}
}

func (p *layoutParser) field() field {
	const newest = 1<<15 - 1
	f := field{last: newest}
	c := p.peek()
	p.at++
	switch c {
	case 'b':
		f.size = 1
	case 'h':
		f.size = 2
	case 'i':
		f.size = 4
	case 'l':
		f.size = 8
	case 'u':
		f.size = 16
	case 's':
		f.kind = kindString
	case 'y':
		f.kind = kindBytes
	case '[':
		f.kind, f.fields = kindArray, p.fields(']')
	case '{':
		f.kind, f.fields = kindStruct, p.fields('}')
	case '?':
		f = p.field()
		f.kind = kindNullableStruct
		return f
	default:
		panic(fmt.Sprintf("protocol: layout %q: bad field at %d", p.text, p.at-1))
	}
	if p.peek() == ':' {
		p.at++
		f.first = p.number()
		if p.peek() == '-' {
			p.at++
			f.last = p.number()
		} else {
			p.at++ // '+'
		}
	}
	return f
}

func (p *layoutParser) number() (n int16) {
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		n = 10*n + int16(c-'0')
		p.at++
	}
	return n
}

func (p *layoutParser) peek() byte {
	if p.at >= len(p.text) {
		return 0
	}
	return p.text[p.at]
}

// layoutTable holds the layout of each request that kmsg decodes, by key, from the schemas
// of Kafka up to 4.4. A field is one of
//
//	b h i l u   1, 2, 4, 8, 16 bytes          [x]   array of x
//	s y         string, bytes                 {x…}  struct, ?{x…} one that may be null
//
// with its versions, if it is not in all: x:4+, x:0-3.
var layoutTable = map[int16]string{
	2:  "i b:2+ [{s [{i i:4+ l i:0-0}]}] i:10+",                                                                                                                         // ListOffsets
	3:  "[{u:10+ s}] b:4+ b:8-10 b:8+",                                                                                                                                  // Metadata
	8:  "s i:1+ s:1+ s:7+ l:2-4 [{s:0-9 u:10+ [{i l l:1-1 i:6+ s}]}]",                                                                                                   // OffsetCommit
	9:  "s:0-7 [{s [i]}]:0-7 [{s s:9+ i:9+ [{s:8-9 u:10+ [i]}]}]:8+ b:7+",                                                                                               // OffsetFetch
	10: "s:0-3 b:1+ [s]:4+",                                                                                                                                             // FindCoordinator
	11: "s i i:1+ s s:5+ s [{s y}] s:8+",                                                                                                                                // JoinGroup
	12: "s i s s:3+",                                                                                                                                                    // Heartbeat
	13: "s s:0-2 [{s s s:5+}]:3+",                                                                                                                                       // LeaveGroup
	14: "s i s s:3+ s:5+ s:5+ [{s y}]",                                                                                                                                  // SyncGroup
	15: "[s] b:3+",                                                                                                                                                      // DescribeGroups
	16: "[s]:4+ [s]:5+",                                                                                                                                                 // ListGroups
	17: "s",                                                                                                                                                             // SaslHandshake
	18: "s:3+ s:3+ s:5+ i:5+",                                                                                                                                           // ApiVersions
	19: "[{s i h [{i [i]}] [{s s}]}] i b:1+",                                                                                                                            // CreateTopics
	20: "[s]:0-5 [{s u}]:6+ i",                                                                                                                                          // DeleteTopics
	21: "[{s [{i l}]}] i",                                                                                                                                               // DeleteRecords
	22: "s i l:3+ h:3+",                                                                                                                                                 // InitProducerId
	23: "i:3+ [{s [{i i:2+ i}]}]",                                                                                                                                       // OffsetForLeaderEpoch
	24: "s:0-3 l:0-3 h:0-3 [{s [i]}]:0-3 [{s l h b [{s [i]}]}]:4+",                                                                                                      // AddPartitionsToTxn
	25: "s l h s",                                                                                                                                                       // AddOffsetsToTxn
	26: "s l h b",                                                                                                                                                       // EndTxn
	27: "[{l h b [{s [i]}] i b:2+}]",                                                                                                                                    // WriteTxnMarkers
	28: "s s l h i:3+ s:3+ s:3+ [{s:0-5 u:6+ [{i l i:2+ s}]}]",                                                                                                          // TxnOffsetCommit
	29: "b s b:1+ s s b b",                                                                                                                                              // DescribeAcls
	30: "[{b s b:1+ s s b b}]",                                                                                                                                          // CreateAcls
	31: "[{b s b:1+ s s b b}]",                                                                                                                                          // DeleteAcls
	32: "[{b s [s]}] b:1+ b:3+",                                                                                                                                         // DescribeConfigs
	33: "[{b s [{s s}]}] b",                                                                                                                                             // AlterConfigs
	34: "[{s [{s [i]}]}]",                                                                                                                                               // AlterReplicaLogDirs
	35: "[{s [i]}]",                                                                                                                                                     // DescribeLogDirs
	36: "y",                                                                                                                                                             // SaslAuthenticate
	37: "[{s i [{[i]}]}] i b",                                                                                                                                           // CreatePartitions
	38: "s:3+ s:3+ [{s s}] l",                                                                                                                                           // CreateDelegationToken
	39: "y l",                                                                                                                                                           // RenewDelegationToken
	40: "y l",                                                                                                                                                           // ExpireDelegationToken
	41: "[{s s}]",                                                                                                                                                       // DescribeDelegationToken
	42: "[s]",                                                                                                                                                           // DeleteGroups
	43: "b:1+ [{s [i]}] i",                                                                                                                                              // ElectLeaders
	44: "[{b s [{s b s}]}] b",                                                                                                                                           // IncrementalAlterConfigs
	45: "i b:1+ [{s [{i [i]}]}]",                                                                                                                                        // AlterPartitionReassignments
	46: "i [{s [i]}]",                                                                                                                                                   // ListPartitionReassignments
	47: "s [{s [{i}]}]",                                                                                                                                                 // OffsetDelete
	48: "[{s b s}] b",                                                                                                                                                   // DescribeClientQuotas
	49: "[{[{s s}] [{s l b}]}] b",                                                                                                                                       // AlterClientQuotas
	50: "[{s}]",                                                                                                                                                         // DescribeUserScramCredentials
	51: "[{s b}] [{s b i y y}]",                                                                                                                                         // AlterUserScramCredentials
	55: "[{s [{i}]}]",                                                                                                                                                   // DescribeQuorum
	57: "i [{s h b:0-0 b:1+}] b:1+",                                                                                                                                     // UpdateFeatures
	60: "b b:1+ b:2+",                                                                                                                                                   // DescribeCluster
	61: "[{s [i]}]",                                                                                                                                                     // DescribeProducers
	64: "i",                                                                                                                                                             // UnregisterBroker
	65: "[s]",                                                                                                                                                           // DescribeTransactions
	66: "[s] [l] l:1+ s:2+",                                                                                                                                             // ListTransactions
	68: "s s i s s i [s] s:1+ s [{u [i]}]",                                                                                                                              // ConsumerGroupHeartbeat
	69: "[s] b",                                                                                                                                                         // ConsumerGroupDescribe
	71: "u",                                                                                                                                                             // GetTelemetrySubscriptions
	72: "u i b b y",                                                                                                                                                     // PushTelemetry
	74: "[b]:1+",                                                                                                                                                        // ListConfigResources
	75: "[{s}] i ?{s i}",                                                                                                                                                // DescribeTopicPartitions
	76: "s s i s [s]",                                                                                                                                                   // ShareGroupHeartbeat
	77: "[s] b",                                                                                                                                                         // ShareGroupDescribe
	78: "s s i i i i i:1+ i:1+ b:2+ b:2+ [{u [{i i:0-0 [{l l [b]}]}]}] [{u [i]}]",                                                                                       // ShareFetch
	79: "s s i b:2+ [{u [{i [{l l [b]}]}]}]",                                                                                                                            // ShareAcknowledge
	80: "s i i u [{s s h}] b:1+",                                                                                                                                        // AddRaftVoter
	81: "s i u",                                                                                                                                                         // RemoveRaftVoter
	88: "s s i i s s i ?{i [{s [s] [s] [{s i h [{s s}]}] [s] [{s i h [{s s}]}] [{[h] [h] [h]}]}]} [{s [i]}] [{s [i]}] [{s [i]}] s ?{s h} [{s s}] [{s i l}] [{s i l}] b", // StreamsGroupHeartbeat
	89: "[s] b b:1+",                                                                                                                                                    // StreamsGroupDescribe
	90: "[{s [{s [i]}]}]",                                                                                                                                               // DescribeShareGroupOffsets
	91: "s [{s [{i l}]}]",                                                                                                                                               // AlterShareGroupOffsets
	92: "s [{s}]",                                                                                                                                                       // DeleteShareGroupOffsets
	93: "s s i {[{s [{s b [s] s [s] [s]}]}] [{{s b [s] s [s] [s]} {s b [s] s [s] [s]}}]}",                                                                               // StreamsGroupTopologyDescriptionUpdate
	94: "i",                                                                                                                                                             // UnregisterController
}
