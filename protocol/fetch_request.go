package protocol

import "math"

// FetchRequest is a Fetch request, v0 to MaxFetchVersion. Parse fills it; its
// strings alias the body, and its slices are the request's own and live until
// the next Parse. It is meant to be used again: it allocates only to grow.
//
// Fields that a version does not have get the default that is named with them.
type FetchRequest struct {
	ClusterID      string // v12+, tagged; empty if null
	ReplicaID      int32  // of a consumer -1
	ReplicaEpoch   int64  // v15+; -1
	MaxWaitMillis  int32
	MinBytes       int32
	MaxBytes       int32 // v3+; the largest int32
	IsolationLevel int8  // v4+; 0
	SessionID      int32 // v7+; 0
	SessionEpoch   int32 // v7+; -1
	Topics         []FetchRequestTopic
	Forgotten      []ForgottenTopic // v7+
	RackID         string           // v11+

	partitions []FetchRequestPartition // of all Topics
	forgotten  []int32                 // partitions of all Forgotten
}

// FetchRequestTopic is a topic of a Fetch request.
type FetchRequestTopic struct {
	Name       string   // v0-12
	ID         [16]byte // v13+
	Partitions []FetchRequestPartition
}

// FetchRequestPartition is a partition of a Fetch request. The tagged fields
// that followers add to it are skipped.
type FetchRequestPartition struct {
	Partition          int32
	CurrentLeaderEpoch int32 // v9+; -1
	FetchOffset        int64
	LastFetchedEpoch   int32 // v12+; -1
	LogStartOffset     int64 // v5+; -1
	MaxBytes           int32
}

// ForgottenTopic is a topic whose partitions leave the fetch session (KIP-227).
type ForgottenTopic struct {
	Name       string   // v7-12
	ID         [16]byte // v13+
	Partitions []int32
}

// What a FetchRequest keeps for the next Parse, in elements.
const keepFetchElements = 4096

// Parse reads a request's body. The bytes after it are ignored, as Kafka does.
// The memory that it takes is in proportion to the elements that are there.
// The error wraps ErrMalformed; the request is empty then.
func (f *FetchRequest) Parse(body []byte, version int16) error {
	f.Reset()
	r := reader{src: body}
	f.parse(&r, version)
	if r.bad {
		f.Reset()
		return r.err("Fetch request")
	}
	return nil
}

// Reset empties the request and lets go of the body. It keeps memory for the
// next one, as far as that is not out of the ordinary.
func (f *FetchRequest) Reset() {
	clear(f.Topics)
	clear(f.Forgotten)
	*f = FetchRequest{
		ReplicaID:    -1,
		ReplicaEpoch: -1,
		MaxBytes:     math.MaxInt32,
		SessionEpoch: -1,
		Topics:       kept(f.Topics),
		Forgotten:    kept(f.Forgotten),
		partitions:   kept(f.partitions),
		forgotten:    kept(f.forgotten),
	}
}

func kept[T any](s []T) []T {
	if cap(s) > keepFetchElements {
		return nil
	}
	return s[:0]
}

func (f *FetchRequest) parse(r *reader, version int16) {
	if version < 0 || version > MaxFetchVersion {
		r.fail("unknown version")
		return
	}
	flexible := version >= fetchFlexible
	if version <= 14 {
		f.ReplicaID = r.int32()
	}
	f.MaxWaitMillis = r.int32()
	f.MinBytes = r.int32()
	if version >= 3 {
		f.MaxBytes = r.int32()
	}
	if version >= 4 {
		f.IsolationLevel = r.int8()
	}
	if version >= 7 {
		f.SessionID = r.int32()
		f.SessionEpoch = r.int32()
	}
	f.parseTopics(r, version)
	if version >= 7 {
		f.parseForgotten(r, version)
	}
	if version >= 11 {
		f.RackID = r.string(flexible)
	}
	if flexible {
		f.parseTags(r, version)
	}
}

func (f *FetchRequest) parseTopics(r *reader, version int16) {
	flexible := version >= fetchFlexible
	for n := r.arrayLen(flexible, minFetchTopic(version)); n > 0 && !r.bad; n-- {
		var t FetchRequestTopic
		if version >= fetchTopicIDs {
			t.ID = r.uuid()
		} else {
			t.Name = r.string(flexible)
		}
		first := len(f.partitions)
		for n := r.arrayLen(flexible, minFetchPartition(version)); n > 0 && !r.bad; n-- {
			p := FetchRequestPartition{Partition: r.int32(), CurrentLeaderEpoch: -1, LastFetchedEpoch: -1, LogStartOffset: -1}
			if version >= 9 {
				p.CurrentLeaderEpoch = r.int32()
			}
			p.FetchOffset = r.int64()
			if version >= 12 {
				p.LastFetchedEpoch = r.int32()
			}
			if version >= 5 {
				p.LogStartOffset = r.int64()
			}
			p.MaxBytes = r.int32()
			if flexible {
				r.skipTags()
			}
			f.partitions = append(f.partitions, p)
		}
		if flexible {
			r.skipTags()
		}
		// The slice may move as it grows; here only its length is taken note of.
		t.Partitions = f.partitions[first:]
		f.Topics = append(f.Topics, t)
	}
	first := 0
	for i := range f.Topics {
		end := first + len(f.Topics[i].Partitions)
		f.Topics[i].Partitions = f.partitions[first:end:end]
		first = end
	}
}

func (f *FetchRequest) parseForgotten(r *reader, version int16) {
	flexible := version >= fetchFlexible
	for n := r.arrayLen(flexible, minFetchTopic(version)); n > 0 && !r.bad; n-- {
		var t ForgottenTopic
		if version >= fetchTopicIDs {
			t.ID = r.uuid()
		} else {
			t.Name = r.string(flexible)
		}
		first := len(f.forgotten)
		for n := r.arrayLen(flexible, 4); n > 0 && !r.bad; n-- {
			f.forgotten = append(f.forgotten, r.int32())
		}
		if flexible {
			r.skipTags()
		}
		t.Partitions = f.forgotten[first:]
		f.Forgotten = append(f.Forgotten, t)
	}
	first := 0
	for i := range f.Forgotten {
		end := first + len(f.Forgotten[i].Partitions)
		f.Forgotten[i].Partitions = f.forgotten[first:end:end]
		first = end
	}
}

func (f *FetchRequest) parseTags(r *reader, version int16) {
	for n := r.tagCount(); n > 0 && !r.bad; n-- {
		tag, field := r.tag()
		switch {
		case tag == 0:
			f.ClusterID, _ = field.nullableString(true)
		case tag == 1 && version >= 15: // in place of the replica id of older versions
			f.ReplicaID = field.int32()
			f.ReplicaEpoch = field.int64()
			field.skipTags()
		}
		if field.bad {
			r.fail(field.why)
		}
	}
}

// minFetchTopic is the fewest bytes of a topic: name or id, count of partitions, tags.
func minFetchTopic(version int16) int64 {
	switch {
	case version >= fetchTopicIDs:
		return 16 + 1 + 1
	case version >= fetchFlexible:
		return 1 + 1 + 1
	}
	return 2 + 4
}

// minFetchPartition is the fewest bytes of a partition, tags included.
func minFetchPartition(version int16) int64 {
	n := int64(4 + 8 + 4) // index, offset, max bytes
	if version >= 5 {
		n += 8
	}
	if version >= 9 {
		n += 4
	}
	if version >= fetchFlexible {
		n += 4 + 1
	}
	return n
}
