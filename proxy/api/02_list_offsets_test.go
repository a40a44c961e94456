package api

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage"
)

func listOffset(version int16, topic *coordinator.Topic, partition int32, timestamp int64) *kmsg.ListOffsetsRequest {
	q := kmsg.NewPtrListOffsetsRequest()
	q.Version, q.ReplicaID = version, -1
	qt := kmsg.NewListOffsetsRequestTopic()
	qt.Topic = topic.Name
	qp := kmsg.NewListOffsetsRequestTopicPartition()
	qp.Partition, qp.Timestamp, qp.CurrentLeaderEpoch = partition, timestamp, -1
	qt.Partitions = append(qt.Partitions, qp)
	q.Topics = append(q.Topics, qt)
	return q
}

func TestListOffsets(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 2)
	c := s.dial()
	now := time.Now().UnixMilli()
	stamped := func(times ...int64) []byte {
		var b batch.Builder
		b.Reset(batch.Plain)
		for _, d := range times {
			b.Add(now+d, nil, []byte("x"))
		}
		out, err := b.AppendTo(nil)
		check(t, err)
		return out
	}
	// Offsets 0 to 5; the largest timestamp stands twice.
	for _, b := range [][]byte{stamped(-500, -400), stamped(-300, -100, -200), stamped(-100)} {
		resp := do[*kmsg.ProduceResponse](c, produceOne(9, topic, 0, b))
		wantCode(t, "produce", resp.Topics[0].Partitions[0].ErrorCode, protocol.None)
	}
	_, err := s.store.Log(storage.LogID{Topic: topic.ID}).DeleteRecords(t.Context(), 1)
	check(t, err)
	epoch := s.store.Log(storage.LogID{Topic: topic.ID}).Epoch()
	for _, tc := range []struct {
		what      string
		timestamp int64
		since     int16 // version
		offset    int64
		time      int64
	}{
		{"latest", -1, 1, 6, -1},
		{"earliest", -2, 1, 1, -1},
		{"largest timestamp", -3, 7, 3, now - 100},
		{"earliest local", -4, 8, 1, -1},
		{"latest tiered", -5, 9, -1, -1},
		{"earliest pending upload", -6, 11, -1, -1},
		{"unknown special", -7, 100, 0, 0},
		{"before all", 0, 1, 1, now - 400},
		{"exact", now - 400, 1, 1, now - 400},
		{"between", now - 399, 1, 2, now - 300},
		{"within a batch", now - 250, 1, 3, now - 100},
		{"after all", now + 1000, 1, -1, -1},
	} {
		for v := int16(1); v <= 11; v++ {
			resp := do[*kmsg.ListOffsetsResponse](c, listOffset(v, topic, 0, tc.timestamp))
			p := &resp.Topics[0].Partitions[0]
			if v < tc.since {
				wantCode(t, tc.what, p.ErrorCode, protocol.UnsupportedVersion)
				if p.Offset != -1 || p.Timestamp != -1 {
					t.Errorf("%s v%d: an error comes with %d at %d", tc.what, v, p.Offset, p.Timestamp)
				}
				continue
			}
			wantCode(t, tc.what, p.ErrorCode, protocol.None)
			if tc.what == "earliest pending upload" {
				continue // what it is without tiers is the log's to say
			}
			if p.Offset != tc.offset || p.Timestamp != tc.time {
				t.Errorf("%s v%d: offset %d at %d, want %d at %d", tc.what, v, p.Offset, p.Timestamp-now, tc.offset, tc.time-now)
			}
			if v >= 4 && tc.offset >= 0 && p.LeaderEpoch != epoch {
				t.Errorf("%s v%d: leader epoch %d, want %d", tc.what, v, p.LeaderEpoch, epoch)
			}
		}
	}
}

func TestListOffsetsErrors(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 2)
	c := s.dial()
	for _, tc := range []struct {
		what string
		q    *kmsg.ListOffsetsRequest
		want protocol.Code
	}{
		{"empty log", listOffset(7, topic, 0, -1), protocol.None},
		{"unknown partition", listOffset(7, topic, 2, -1), protocol.UnknownTopicOrPartition},
		{"negative partition", listOffset(7, topic, -1, -1), protocol.UnknownTopicOrPartition},
		{"unknown topic", listOffset(7, &coordinator.Topic{Name: "nope"}, 0, -1), protocol.UnknownTopicOrPartition},
	} {
		resp := do[*kmsg.ListOffsetsResponse](c, tc.q)
		wantCode(t, tc.what, resp.Topics[0].Partitions[0].ErrorCode, tc.want)
	}
	q := listOffset(7, topic, 0, -1)
	q.Topics[0].Partitions[0].CurrentLeaderEpoch = 99
	wantCode(t, "epoch", do[*kmsg.ListOffsetsResponse](c, q).Topics[0].Partitions[0].ErrorCode, protocol.UnknownLeaderEpoch)

	q = listOffset(7, topic, 0, -1)
	q.Topics = append(q.Topics, listOffset(7, topic, 1, -1).Topics...)
	q.Topics = append(q.Topics, listOffset(7, topic, 0, -2).Topics...)
	resp := do[*kmsg.ListOffsetsResponse](c, q)
	wantCode(t, "twice", resp.Topics[0].Partitions[0].ErrorCode, protocol.InvalidRequest)
	wantCode(t, "once", resp.Topics[1].Partitions[0].ErrorCode, protocol.None)
	wantCode(t, "twice", resp.Topics[2].Partitions[0].ErrorCode, protocol.InvalidRequest)
}

func TestOffsetForLeaderEpoch(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.produce(topic, 0, "a", "b")
	epoch := s.store.Log(storage.LogID{Topic: topic.ID}).Epoch()
	ask := func(v int16, topic string, partition, current, asked int32) *kmsg.OffsetForLeaderEpochResponseTopicPartition {
		q := kmsg.NewPtrOffsetForLeaderEpochRequest()
		q.Version, q.ReplicaID = v, -1
		qt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		qt.Topic = topic
		qp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		qp.Partition, qp.CurrentLeaderEpoch, qp.LeaderEpoch = partition, current, asked
		qt.Partitions = append(qt.Partitions, qp)
		q.Topics = append(q.Topics, qt)
		return &do[*kmsg.OffsetForLeaderEpochResponse](c, q).Topics[0].Partitions[0]
	}
	for v := int16(0); v <= 4; v++ {
		p := ask(v, "orders", 0, -1, epoch)
		if p.ErrorCode != 0 || p.EndOffset != 2 || v >= 1 && p.LeaderEpoch != epoch {
			t.Errorf("v%d: the present epoch is %+v", v, p)
		}
		p = ask(v, "orders", 0, -1, epoch+5)
		if p.ErrorCode != 0 || p.EndOffset != -1 || v >= 1 && p.LeaderEpoch != -1 {
			t.Errorf("v%d: an unknown epoch is %+v", v, p)
		}
		wantCode(t, "partition", ask(v, "orders", 1, -1, 0).ErrorCode, protocol.UnknownTopicOrPartition)
		wantCode(t, "topic", ask(v, "nope", 0, -1, 0).ErrorCode, protocol.UnknownTopicOrPartition)
		if v >= 2 {
			wantCode(t, "fence", ask(v, "orders", 0, epoch+1, epoch).ErrorCode, protocol.UnknownLeaderEpoch)
		}
	}
}

// TestListOffsetsV0: an array of offsets where ledgers begin, the newest first.
func TestListOffsetsV0(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 2, "segment.bytes", "200")
	c := s.dial()
	c.produce(topic, 1, "a", "b", "c")
	ask := func(topic *coordinator.Topic, partition int32, timestamp int64, most int32) *kmsg.ListOffsetsResponseTopicPartition {
		t.Helper()
		q := listOffset(0, topic, partition, timestamp)
		q.Topics[0].Partitions[0].MaxNumOffsets = most
		return &do[*kmsg.ListOffsetsResponse](c, q).Topics[0].Partitions[0]
	}
	for _, tc := range []struct {
		what      string
		partition int32
		timestamp int64
		most      int32
		offsets   []int64
	}{
		{"latest", 1, -1, 1, []int64{3}},
		{"latest and what is before", 1, -1, 10, []int64{3, 0}},
		{"as many as there are", 1, -1, math.MaxInt32, []int64{3, 0}},
		{"earliest", 1, -2, 10, []int64{0}},
		{"none", 1, -1, 0, nil},
		{"before all", 1, 0, 10, nil},
		{"now", 1, time.Now().Add(time.Hour).UnixMilli(), 10, []int64{3, 0}},
		{"latest of nothing", 0, -1, 10, []int64{0}},
		{"earliest of nothing", 0, -2, 10, []int64{0}},
	} {
		p := ask(topic, tc.partition, tc.timestamp, tc.most)
		wantCode(t, tc.what, p.ErrorCode, protocol.None)
		if !slices.Equal(p.OldStyleOffsets, tc.offsets) {
			t.Errorf("%s: %v, want %v", tc.what, p.OldStyleOffsets, tc.offsets)
		}
	}
	_, err := s.store.Log(logID(topic, 1)).DeleteRecords(t.Context(), 2)
	check(t, err)
	if p := ask(topic, 1, -1, 10); !slices.Equal(p.OldStyleOffsets, []int64{3, 2}) {
		t.Errorf("records deleted: %v", p.OldStyleOffsets)
	}
	for _, tc := range []struct {
		what      string
		topic     *coordinator.Topic
		partition int32
		timestamp int64
		most      int32
		want      protocol.Code
	}{
		{"special timestamp of later versions", topic, 1, -3, 1, protocol.UnsupportedVersion},
		{"negative count", topic, 1, -1, -1, protocol.InvalidRequest},
		{"unknown partition", topic, 2, -1, 1, protocol.UnknownTopicOrPartition},
		{"unknown topic", &coordinator.Topic{Name: "nope"}, 0, -1, 1, protocol.UnknownTopicOrPartition},
	} {
		p := ask(tc.topic, tc.partition, tc.timestamp, tc.most)
		wantCode(t, tc.what, p.ErrorCode, tc.want)
		if len(p.OldStyleOffsets) != 0 {
			t.Errorf("%s: an error comes with %v", tc.what, p.OldStyleOffsets)
		}
	}
	// A partition may be asked about twice.
	q := listOffset(0, topic, 1, -1)
	q.Topics[0].Partitions[0].MaxNumOffsets = 1
	q.Topics[0].Partitions = append(q.Topics[0].Partitions, q.Topics[0].Partitions[0])
	for _, p := range do[*kmsg.ListOffsetsResponse](c, q).Topics[0].Partitions {
		wantCode(t, "twice", p.ErrorCode, protocol.None)
	}
}
