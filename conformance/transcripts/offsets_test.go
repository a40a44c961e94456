package transcripts

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func listOffsets(topic string, timestamp int64, partitions ...int32) *kmsg.ListOffsetsRequest {
	r := kmsg.NewPtrListOffsetsRequest()
	r.ReplicaID, r.TimeoutMillis = -1, 30_000
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for _, p := range partitions {
		lp := kmsg.NewListOffsetsRequestTopicPartition()
		lp.Partition, lp.Timestamp, lp.CurrentLeaderEpoch, lp.MaxNumOffsets = p, timestamp, -1, 10
		t.Partitions = append(t.Partitions, lp)
	}
	r.Topics = []kmsg.ListOffsetsRequestTopic{t}
	return r
}

// listOffsets asks the topics that fill made: the second batch of "read" begins
// at offset 3 and 3 s after firstMillis.
func (s *script) listOffsets() {
	list := func(situation string, r *kmsg.ListOffsetsRequest, versions ...int16) {
		s.t.Helper()
		s.all(situation, same(r), versions...)
	}
	for _, special := range []int64{-1, -2, -3, -4, -5, -6, -7, -100} {
		list("time of "+itoa(special), listOffsets("read", special, 0, 2))
	}
	for _, millis := range []int64{0, firstMillis, firstMillis + 1, firstMillis + 1000, firstMillis + 2500, firstMillis + 4000, firstMillis + 4001, 1<<63 - 1} {
		name := "time " + when(millis)
		list(name, listOffsets("read", millis, 0, 2), 1, 99)
	}
	list("time 0, version 0", listOffsets("read", 0, 0, 2), 0, 0)
	list("time to come, version 0", listOffsets("read", 1<<62, 0, 2), 0, 0)
	for _, topic := range []string{"read-gzip", "read-zstd", "read-append"} {
		list("time within "+topic, listOffsets(topic, firstMillis+1000, 0), 1, 99)
		list("highest time of "+topic, listOffsets(topic, -3, 0), 7, 99)
	}
	list("unknown topic", listOffsets("nothing", -1, 0))
	list("unknown partition", listOffsets("read", -1, 9))
	list("negative partition", listOffsets("read", -1, -1))
	list("topic without name", listOffsets("", -1, 0))
	list("several partitions", listOffsets("read", -1, 0, 1, 2, 9))
	list("a partition twice", listOffsets("read", -1, 0, 1, 0))
	list("no partitions", listOffsets("read", -1))
	list("no topics", changed(listOffsets("read", -1), func(r *kmsg.ListOffsetsRequest) { r.Topics = nil }))
	for _, n := range []int32{0, 1, 2, -1} {
		for _, millis := range []int64{-1, -2} {
			list("at most "+itoa(int64(n))+" offsets for time "+itoa(millis), changed(listOffsets("read", millis, 0), func(r *kmsg.ListOffsetsRequest) { r.Topics[0].Partitions[0].MaxNumOffsets = n }), 0, 0)
		}
	}
	list("committed only", changed(listOffsets("read", -1, 0), func(r *kmsg.ListOffsetsRequest) { r.IsolationLevel = 1 }), 2, 99)
	list("committed only, time within", changed(listOffsets("read", firstMillis+1000, 0), func(r *kmsg.ListOffsetsRequest) { r.IsolationLevel = 1 }), 2, 99)
	list("unknown isolation", changed(listOffsets("read", -1, 0), func(r *kmsg.ListOffsetsRequest) { r.IsolationLevel = 9 }), 2, 99)
	list("as a debugging consumer", changed(listOffsets("read", -1, 0), func(r *kmsg.ListOffsetsRequest) { r.ReplicaID = -2 }))
	for _, epoch := range []int32{0, 9, -2} {
		list("leader epoch "+itoa(int64(epoch)), changed(listOffsets("read", -1, 0), func(r *kmsg.ListOffsetsRequest) { r.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch }), 4, 99)
	}
}

func (s *script) offsetForLeaderEpoch() {
	ask := func(situation, topic string, partition, current, epoch int32, versions ...int16) {
		s.t.Helper()
		r := kmsg.NewPtrOffsetForLeaderEpochRequest()
		r.ReplicaID = -1
		t := kmsg.NewOffsetForLeaderEpochRequestTopic()
		t.Topic = topic
		p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.LeaderEpoch = partition, current, epoch
		t.Partitions = append(t.Partitions, p)
		r.Topics = append(r.Topics, t)
		s.all(situation, same(r), versions...)
	}
	ask("end of epoch 0", "read", 0, -1, 0)
	ask("end of epoch 0 of an empty partition", "read", 2, -1, 0)
	ask("end of an epoch to come", "read", 0, -1, 9)
	ask("end of epoch -1", "read", 0, -1, -1)
	ask("end of epoch 0, leader epoch 0", "read", 0, 0, 0, 2, 99)
	ask("end of epoch 0, leader epoch to come", "read", 0, 9, 0, 2, 99)
	ask("end of epoch, unknown partition", "read", 9, -1, 0)
	ask("end of epoch, unknown topic", "nothing", 0, -1, 0)
}

func deleteRecords(topic string, partition int32, offset int64) *kmsg.DeleteRecordsRequest {
	r := kmsg.NewPtrDeleteRecordsRequest()
	r.TimeoutMillis = 30_000
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic = topic
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = partition, offset
	t.Partitions = append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	return r
}

func (s *script) deleteRecords() {
	s.create(topicSpec{"shrink", 3, nil}, topicSpec{"shrink-compact", 1, []string{"cleanup.policy", "compact"}},
		topicSpec{"shrink-both", 1, []string{"cleanup.policy", "compact,delete"}})
	for p := range int32(3) {
		s.fillTopic("shrink", p, plain(sample(3)...))
		s.fillTopic("shrink", p, plain(sample(2)...))
	}
	s.fillTopic("shrink-compact", 0, plain(keyed(3)...))
	s.fillTopic("shrink-both", 0, plain(keyed(3)...))
	for v := range int16(3) {
		p := int32(v)
		s.ask("delete up to behind the end", deleteRecords("shrink", p, 6), v)
		s.ask("delete up to -2", deleteRecords("shrink", p, -2), v)
		s.ask("delete up to 1", deleteRecords("shrink", p, 1), v)
		s.ask("delete up to 0", deleteRecords("shrink", p, 0), v)
		s.ask("delete, unknown partition", deleteRecords("shrink", 9, 1), v)
		s.ask("delete, unknown topic", deleteRecords("nothing", 0, 1), v)
		s.ask("delete from a compacted topic", deleteRecords("shrink-compact", 0, 1), v)
		s.ask("delete from a compacted and shortened topic", deleteRecords("shrink-both", 0, 1), v)
	}
	s.all("after deletion", same(s.fetchFrom(fetchPart{"shrink", 0, 1, 1 << 20})))
	s.all("after deletion, from before", same(s.fetchFrom(fetchPart{"shrink", 0, 0, 1 << 20})))
	s.all("after deletion, earliest", same(listOffsets("shrink", -2, 0)))
	s.all("after deletion, time 0", same(listOffsets("shrink", 0, 0)), 1, 99)
	s.all("after deletion", func(v int16) kmsg.Request { return s.produceTo(part{"shrink", 0, flip(plain(sample(1)...).bytes())}) }, 3, 13)
	for v := range int16(3) {
		s.ask("delete up to the end", deleteRecords("shrink", int32(v), -1), v)
	}
	s.ask("after deletion of all", listOffsets("shrink", -2, 0), 4)
	s.ask("after deletion of all", s.fetchFrom(fetchPart{"shrink", 0, 5, 1 << 20}), 12)
	s.ask("after deletion of all", s.produceTo(part{"shrink", 0, plain(sample(1)...).bytes()}), 9)
}
