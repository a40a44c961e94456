package api

import (
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/proxy/forward"
	"github.com/quirelog/quire/storage"
)

// partingNode serves each slot until it loses it to another node, whose answers a test gives.
type partingNode struct {
	*scripted
	lost [coordinator.NumSlots]atomic.Bool
}

func (p *partingNode) Route(slot int) coordinator.Route {
	if p.lost[slot].Load() {
		return coordinator.Route{Node: 2, Epoch: 2}
	}
	return coordinator.Route{Node: 1, Here: true, Epoch: 1}
}

// TestPartitionsLostOneAfterAnother: of a request for several partitions one finds its log
// lost at once, and one when it has waited for its first ledger. Each goes to the next node
// once, where it is answered, and the third is stored here.
func TestPartitionsLostOneAfterAnother(t *testing.T) {
	p := &partingNode{scripted: &scripted{t: t, sent: make(chan *forward.Call, 100), changed: make(chan struct{})}}
	var first atomic.Int64 // the slot that is lost before its log is open
	first.Store(-1)
	s := newServer(t, func(o *options) {
		o.config.Peers, o.config.router = p, p
		o.config.ProxyListeners = func(string) bool { return true }
		o.store.Slot = logSlot
		o.store.Serves = func(id storage.LogID) bool {
			if slot := logSlot(id); int64(slot) == first.Load() {
				p.lost[slot].Store(true)
			}
			return !p.lost[logSlot(id)].Load()
		}
	})
	topic := s.createTopic("orders", 3)
	slots := make([]int, topic.Partitions)
	for i := range slots {
		slots[i] = coordinator.PartitionSlot(topic.ID, int32(i))
	}
	c := s.dial()
	c.produce(topic, 2, "warm")
	first.Store(int64(slots[0]))
	release := s.tier.holdCreate()
	q := produceOne(9, topic, 0, makeBatch(t, batch.Plain, "a"))
	for _, more := range []int32{1, 2} {
		q.Topics[0].Partitions = append(q.Topics[0].Partitions, produceOne(9, topic, more, makeBatch(t, batch.Plain, "a")).Topics[0].Partitions...)
	}
	c.send(q)
	answer := func(partition int32) {
		t.Helper()
		call := <-p.sent
		if len(call.Slots) != 1 || int(call.Slots[0].Slot) != slots[partition] {
			t.Errorf("the call is for %v, want slot %d", call.Slots, slots[partition])
		}
		resp := kmsg.NewPtrProduceResponse()
		resp.Version = q.Version
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = topic.Name
		out := kmsg.NewProduceResponseTopicPartition()
		out.Partition, out.BaseOffset = partition, 100+int64(partition)
		rt.Partitions = append(rt.Partitions, out)
		resp.Topics = append(resp.Topics, rt)
		p.answer(call, resp)
	}
	answer(0)
	p.lost[slots[1]].Store(true)
	s.store.DropSlot(slots[1])
	release()
	answer(1)
	resp, err := c.receive(q)
	check(t, err)
	for i, out := range resp.(*kmsg.ProduceResponse).Topics[0].Partitions {
		wantCode(t, "produce", out.ErrorCode, protocol.None)
		if want := []int64{100, 101, 1}[i]; out.Partition != int32(i) || out.BaseOffset != want {
			t.Errorf("partition %d is answered with offset %d, want %d", out.Partition, out.BaseOffset, want)
		}
	}
}
