package api

import (
	"reflect"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
)

// TestPartitionsTakenApart: some partitions of a request make a request of them alone, in
// order, and an answer to it comes to stand where they were asked for.
func TestPartitionsTakenApart(t *testing.T) {
	s := newServer(t)
	h := s.handler
	orders, payments := s.createTopic("orders", 8), s.createTopic("payments", 8)
	var q []kmsg.ListOffsetsRequestTopic
	var slots []int
	for _, a := range []struct {
		topic      *coordinator.Topic
		partitions []int32
	}{{orders, []int32{0, 3, 1}}, {payments, []int32{2}}, {payments, nil}, {orders, []int32{5, 3}}} {
		qt := kmsg.NewListOffsetsRequestTopic()
		qt.Topic = a.topic.Name
		for _, n := range a.partitions {
			qp := kmsg.NewListOffsetsRequestTopicPartition()
			qp.Partition = n
			qt.Partitions = append(qt.Partitions, qp)
			slots = append(slots, coordinator.PartitionSlot(a.topic.ID, n))
		}
		q = append(q, qt)
	}
	asked := partitionsAsked(h, q,
		func(t *kmsg.ListOffsetsRequestTopic) (string, *[]kmsg.ListOffsetsRequestTopicPartition) {
			return t.Topic, &t.Partitions
		},
		func(p *kmsg.ListOffsetsRequestTopicPartition) int32 { return p.Partition },
		func(t *kmsg.ListOffsetsResponseTopic, name string) { t.Default(); t.Topic = name },
		func(t *kmsg.ListOffsetsResponseTopic) *[]kmsg.ListOffsetsResponseTopicPartition { return &t.Partitions })
	if !slices.Equal(asked.slots, slots) {
		t.Errorf("the slots are %v, want %v", asked.slots, slots)
	}
	numbers := func(topics []kmsg.ListOffsetsRequestTopic) (all []any) {
		for _, qt := range topics {
			all = append(all, qt.Topic)
			for _, p := range qt.Partitions {
				all = append(all, p.Partition)
			}
		}
		return all
	}
	whole := numbers(q)
	codes := func(resp []kmsg.ListOffsetsResponseTopic) answers {
		return asked.answers(resp, func(p *kmsg.ListOffsetsResponseTopicPartition) int16 { return p.ErrorCode })
	}
	reply := func(topics []kmsg.ListOffsetsRequestTopic, code func(partition int32) protocol.Code) (resp []kmsg.ListOffsetsResponseTopic) {
		for _, qt := range topics {
			rt := kmsg.NewListOffsetsResponseTopic()
			rt.Topic = qt.Topic
			for _, p := range qt.Partitions {
				out := noOffsetOf(p.Partition)
				out.Offset, out.ErrorCode = 100+int64(p.Partition), int16(code(p.Partition))
				rt.Partitions = append(rt.Partitions, out)
			}
			resp = append(resp, rt)
		}
		return resp
	}
	served := func(int32) protocol.Code { return protocol.None }
	for _, c := range []struct {
		items []int
		want  []any
	}{
		{[]int{0, 2, 3}, []any{"orders", int32(0), int32(1), "payments", int32(2)}},
		{[]int{1, 4, 5}, []any{"orders", int32(3), "orders", int32(5), int32(3)}},
	} {
		part := asked.some(c.items)
		if got := numbers(part); !reflect.DeepEqual(got, c.want) {
			t.Errorf("of %v a part asks for %v, want %v", c.items, got, c.want)
		}
		if again := codes(reply(part, served)).take(c.items); again != nil {
			t.Errorf("%v are asked for again after they were answered", again)
		}
	}
	if got := numbers(q); !reflect.DeepEqual(got, whole) {
		t.Errorf("the request has become %v", got)
	}
	var told []any
	for _, rt := range asked.told {
		told = append(told, rt.Topic)
		for _, p := range rt.Partitions {
			told = append(told, p.Partition)
			if p.Offset != 100+int64(p.Partition) {
				t.Errorf("partition %d of %s is told offset %d", p.Partition, rt.Topic, p.Offset)
			}
		}
	}
	if !reflect.DeepEqual(told, whole) {
		t.Errorf("the answer is about %v", told)
	}

	// Who does not serve a partition is no answer, nor is an answer to something else.
	items := []int{0, 1, 2}
	part := asked.some(items)
	if again := codes(reply(part, func(n int32) protocol.Code {
		if n == 3 {
			return protocol.NotLeaderOrFollower
		}
		return protocol.None
	})).take(items); !slices.Equal(again, []int{1}) {
		t.Errorf("%v are asked for again, want the one that is served elsewhere", again)
	}
	short := reply(part, served)
	short[0].Partitions = short[0].Partitions[1:]
	if again := codes(short).take(items); !slices.Equal(again, items) {
		t.Errorf("after an answer about less %v are asked for again, want all", again)
	}
}
