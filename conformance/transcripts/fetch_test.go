package transcripts

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetchPart is one partition of a Fetch request.
type fetchPart struct {
	topic     string
	partition int32
	offset    int64
	maxBytes  int32
}

// fetchFrom builds a sessionless fetch that waits for nothing.
func (s *script) fetchFrom(parts ...fetchPart) *kmsg.FetchRequest {
	r := kmsg.NewPtrFetchRequest()
	r.ReplicaID, r.MaxWaitMillis, r.MinBytes, r.MaxBytes, r.SessionEpoch = -1, 0, 0, 1<<20, -1
	for _, p := range parts {
		fp := kmsg.NewFetchRequestTopicPartition()
		fp.Partition, fp.FetchOffset, fp.PartitionMaxBytes = p.partition, p.offset, p.maxBytes
		fp.CurrentLeaderEpoch, fp.LastFetchedEpoch, fp.LogStartOffset = -1, -1, -1
		if n := len(r.Topics); n > 0 && r.Topics[n-1].Topic == p.topic {
			r.Topics[n-1].Partitions = append(r.Topics[n-1].Partitions, fp)
			continue
		}
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.TopicID, t.Partitions = p.topic, s.idOrUnknown(p.topic), []kmsg.FetchRequestTopicPartition{fp}
		r.Topics = append(r.Topics, t)
	}
	return r
}

func changed[R any](r R, change func(R)) R {
	change(r)
	return r
}

// fill makes topic "read" of two batches of 3 and 2 records in partition 0, one
// of 3 in partition 1, and none in 2; and a topic for each codec.
func (s *script) fill() {
	s.create(topicSpec{"read", 3, nil}, topicSpec{"read-gzip", 1, nil}, topicSpec{"read-snappy", 1, nil},
		topicSpec{"read-lz4", 1, nil}, topicSpec{"read-zstd", 1, nil}, topicSpec{"read-append", 1, []string{"message.timestamp.type", "LogAppendTime"}},
		topicSpec{"read-idempotent", 1, nil})
	five := sample(5)
	first, second := plain(five[:3]...), plain(five[3:]...)
	s.fillTopic("read", 0, first)
	s.fillTopic("read", 0, second)
	s.fillTopic("read", 1, first)
	for _, c := range []codec{gzipped, snappyXerial, lz4Framed, zstdFramed} {
		s.fillTopic("read-"+c.name, 0, first.packed(c))
		s.fillTopic("read-"+c.name, 0, second.packed(c))
	}
	s.fillTopic("read-append", 0, plain(five...))
	s.fillTopic("read-idempotent", 0, plain(five...).from(7200, 1, 0))
}

// fillTopic writes what other steps read.
func (s *script) fillTopic(topic string, partition int32, b batch) {
	s.t.Helper()
	got := s.must(s.produceTo(part{topic, partition, b.bytes()}), 7).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	if got.ErrorCode != 0 {
		s.t.Fatalf("fill %s: %v", topic, kerr.ErrorForCode(got.ErrorCode))
	}
}

func (s *script) fetch() {
	s.fill()
	const most = 1 << 20
	read := func(offset int64, change ...func(*kmsg.FetchRequest)) func(int16) kmsg.Request {
		r := s.fetchFrom(fetchPart{"read", 0, offset, most})
		for _, f := range change {
			f(r)
		}
		return same(r)
	}
	s.all("from the beginning", read(0))
	s.all("from within a batch", read(1))
	s.all("from the second batch", read(3))
	s.all("from the end", read(5))
	s.all("from behind the end", read(6))
	s.all("from before the beginning", read(-1))
	s.all("from -2", read(-2))
	s.all("from the last offset there is", read(1<<63-1))
	s.all("from an empty partition", same(s.fetchFrom(fetchPart{"read", 2, 0, most})))
	s.all("from behind an empty partition", same(s.fetchFrom(fetchPart{"read", 2, 1, most})))
	s.all("unknown topic", same(s.fetchFrom(fetchPart{"nothing", 0, 0, most})))
	s.all("unknown partition", same(s.fetchFrom(fetchPart{"read", 9, 0, most})))
	s.all("negative partition", same(s.fetchFrom(fetchPart{"read", -1, 0, most})))
	s.all("topic without name", same(s.fetchFrom(fetchPart{"", 0, 0, most})), 0, 12)
	s.all("impossible topic name", same(s.fetchFrom(fetchPart{"a/b", 0, 0, most})), 0, 12)
	s.all("topic id of zero", same(changed(s.fetchFrom(fetchPart{"read", 0, 0, most}), func(r *kmsg.FetchRequest) { r.Topics[0].TopicID = [16]byte{} })), 13, 99)
	s.all("several partitions", same(s.fetchFrom(fetchPart{"read", 1, 0, most}, fetchPart{"nothing", 0, 0, most}, fetchPart{"read", 0, 9, most}, fetchPart{"read", 2, 0, most})))
	s.all("a partition twice", same(s.fetchFrom(fetchPart{"read", 1, 0, most}, fetchPart{"read", 1, 3, most})))
	s.all("a topic twice", same(s.fetchFrom(fetchPart{"read", 1, 0, most}, fetchPart{"read-gzip", 0, 0, most}, fetchPart{"read", 2, 0, most})))
	s.all("no topics", same(s.fetchFrom()))
	s.all("no partitions", same(changed(s.fetchFrom(fetchPart{"read", 0, 0, most}), func(r *kmsg.FetchRequest) { r.Topics[0].Partitions = nil })))
	for _, topic := range []string{"read-gzip", "read-snappy", "read-lz4", "read-zstd", "read-append", "read-idempotent"} {
		s.all("all of "+topic, same(s.fetchFrom(fetchPart{topic, 0, 0, most})))
	}
	for _, topic := range []string{"read-gzip", "read-snappy", "read-lz4"} {
		s.all("from within a batch of "+topic, same(s.fetchFrom(fetchPart{topic, 0, 1, most})), 0, 4)
	}
	s.all("zstd and another topic", same(s.fetchFrom(fetchPart{"read-zstd", 0, 0, most}, fetchPart{"read", 0, 0, most})), 0, 10)
	s.all("committed only", read(0, func(r *kmsg.FetchRequest) { r.IsolationLevel = 1 }), 4, 99)
	s.all("unknown isolation", read(0, func(r *kmsg.FetchRequest) { r.IsolationLevel = 9 }), 4, 99)
	s.all("as a debugging consumer", read(0, func(r *kmsg.FetchRequest) { r.ReplicaID = -2 }), 0, 14)
	s.all("with a rack", read(0, func(r *kmsg.FetchRequest) { r.Rack = "r" }), 11, 99)
	epoch := func(n int32) func(*kmsg.FetchRequest) {
		return func(r *kmsg.FetchRequest) { r.Topics[0].Partitions[0].CurrentLeaderEpoch = n }
	}
	s.all("current leader epoch", read(0, epoch(0)), 9, 99)
	s.all("leader epoch to come", read(0, epoch(9)), 9, 99)
	s.all("leader epoch of -2", read(0, epoch(-2)), 9, 99)
	last := func(n int32) func(*kmsg.FetchRequest) {
		return func(r *kmsg.FetchRequest) { r.Topics[0].Partitions[0].LastFetchedEpoch = n }
	}
	s.all("last fetched epoch", read(1, last(0)), 12, 99)
	s.all("last fetched epoch to come", read(1, last(9)), 12, 99)
	s.all("cluster id of another", read(0, func(r *kmsg.FetchRequest) { r.ClusterID = kmsg.StringPtr("another") }), 12, 99)
	s.all("waiting in vain", same(changed(s.fetchFrom(fetchPart{"read", 2, 0, most}), func(r *kmsg.FetchRequest) { r.MinBytes, r.MaxWaitMillis = 1, 5 })))
	s.all("waiting for more than there is", read(0, func(r *kmsg.FetchRequest) { r.MinBytes, r.MaxWaitMillis = 1<<20, 5 }))
	s.all("waiting with an error", same(changed(s.fetchFrom(fetchPart{"read", 2, 7, most}), func(r *kmsg.FetchRequest) { r.MinBytes, r.MaxWaitMillis = 1, 5000 })))
	s.all("negative wait", same(changed(s.fetchFrom(fetchPart{"read", 2, 0, most}), func(r *kmsg.FetchRequest) { r.MinBytes, r.MaxWaitMillis = 1, -1 })))
	s.all("negative least", read(0, func(r *kmsg.FetchRequest) { r.MinBytes = -1 }), 0, 99)
}

// fetchSizes asks for less than there is. From version 3 on the first batch
// comes whole; before that limits are hard.
func (s *script) fetchSizes() {
	size := func(partition, most int32) func(int16) kmsg.Request {
		return same(changed(s.fetchFrom(fetchPart{"read", 0, 0, partition}, fetchPart{"read", 1, 0, partition}), func(r *kmsg.FetchRequest) { r.MaxBytes = most }))
	}
	s.all("partitions of 0 bytes", size(0, 1<<20))
	s.all("partitions of 1 byte", size(1, 1<<20))
	s.all("partitions of -1 bytes", size(-1, 1<<20))
	s.all("partitions of 20 bytes", size(20, 1<<20))
	s.all("partitions of 150 bytes", size(150, 1<<20))
	s.all("0 bytes in all", size(1<<20, 0), 3, 99)
	s.all("1 byte in all", size(1<<20, 1), 3, 99)
	s.all("-1 bytes in all", size(1<<20, -1), 3, 99)
	s.all("150 bytes in all", size(1<<20, 150), 3, 99)
	s.all("1 byte of packed data", same(s.fetchFrom(fetchPart{"read-gzip", 0, 0, 1})))
	s.all("1 byte of an empty partition and another", same(s.fetchFrom(fetchPart{"read", 2, 0, 1}, fetchPart{"read", 1, 0, 1})))
}

func (s *script) fetchSessions() {
	const first = 7
	last := kmsg.NewPtrFetchRequest().MaxVersion()
	for v := int16(first); v <= last; v++ {
		if !s.serves(int16(kmsg.Fetch), v) {
			for _, step := range []string{"session begins", "session goes on", "session with more", "session with less", "session at a wrong epoch", "session after that",
				"session unknown", "session of another id", "session ends", "session after its end", "session of nothing", "session with an error"} {
				s.note(step+": "+kmsg.Fetch.Name()+" v"+itoa(int64(v)), notServed)
			}
			continue
		}
		ask := func(step string, id, epoch int32, change func(r *kmsg.FetchRequest), parts ...fetchPart) int32 {
			r := s.fetchFrom(parts...)
			r.SessionID, r.SessionEpoch = id, epoch
			if change != nil {
				change(r)
			}
			resp := s.ask("session "+step, r, v)
			if resp == nil {
				s.t.Fatalf("session %s: no answer at version %d", step, v)
			}
			return resp.(*kmsg.FetchResponse).SessionID
		}
		whole := []fetchPart{{"read", 0, 0, 1 << 20}, {"read", 2, 0, 1 << 20}}
		id := ask("begins", 0, 0, nil, whole...)
		// What did not change is left out.
		ask("goes on", id, 1, nil, fetchPart{"read", 0, 5, 1 << 20})
		ask("with more", id, 2, nil, fetchPart{"read", 1, 0, 1 << 20})
		ask("with less", id, 3, func(r *kmsg.FetchRequest) {
			f := kmsg.NewFetchRequestForgottenTopic()
			f.Topic, f.TopicID, f.Partitions = "read", s.id("read"), []int32{1}
			r.ForgottenTopics = append(r.ForgottenTopics, f)
		})
		ask("with an error", id, 4, nil, fetchPart{"read", 0, 99, 1 << 20}, fetchPart{"read", 9, 0, 1 << 20})
		ask("at a wrong epoch", id, 9, nil)
		ask("after that", id, 5, nil)
		ask("unknown", 12345, 1, nil)
		ask("of another id", 12345, -1, nil, whole[0])
		ask("ends", id, -1, nil, whole[0])
		ask("after its end", id, 1, nil)
		ask("of nothing", 0, 0, nil)
	}
}
