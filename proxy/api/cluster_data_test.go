package api

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage"
)

// records is a batch that is the same in every run.
func (k *talk) records(values ...string) []byte {
	var b batch.Builder
	b.Reset(batch.Plain)
	for i, v := range values {
		b.Add(k.now+int64(i), nil, []byte(v))
	}
	out, err := b.AppendTo(nil)
	check(k.t, err)
	return out
}

// data produces and fetches in every version.
func (k *talk) data() {
	const partitions = 8
	names := []string{"orders", "payments"}
	q := kmsg.NewPtrCreateTopicsRequest()
	for _, name := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, 1
		q.Topics = append(q.Topics, t)
	}
	topics := make(map[string]*coordinator.Topic)
	for _, t := range k.ask(q, 7).(*kmsg.CreateTopicsResponse).Topics {
		topics[t.Topic] = &coordinator.Topic{Name: t.Topic, ID: t.TopicID}
	}
	topics["unknown"] = &coordinator.Topic{Name: "unknown", ID: [16]byte{1}}
	for _, v := range versions(0) {
		for _, all := range []bool{false, true} {
			k.ask(k.produceRequest(v, topics, all), v)
		}
	}
	for _, v := range versions(1) {
		for _, maxBytes := range []int32{1 << 20, 100} {
			f := kmsg.NewPtrFetchRequest()
			f.ReplicaID, f.MinBytes, f.MaxBytes, f.SessionEpoch = -1, 1, 50<<20, -1
			for i, name := range []string{"payments", "unknown", "orders"} {
				for p := range int32(partitions + 1) {
					t := fetchTopic(topics[name], p, int64(p)*3+int64(i))
					t.Partitions[0].PartitionMaxBytes = maxBytes
					if len(f.Topics) > 0 && p > 0 {
						last := &f.Topics[len(f.Topics)-1]
						last.Partitions = append(last.Partitions, t.Partitions...)
					} else {
						f.Topics = append(f.Topics, t)
					}
				}
			}
			k.ask(f, v)
			one := kmsg.NewPtrFetchRequest()
			one.ReplicaID, one.MinBytes, one.MaxBytes, one.SessionEpoch = -1, 1, 50<<20, -1
			one.Topics = append(one.Topics, fetchTopic(topics["orders"], int32(v)%partitions, 1))
			k.ask(one, v)
		}
	}
}

// produceRequest is for every partition of all topics, or for one of one.
func (k *talk) produceRequest(v int16, topics map[string]*coordinator.Topic, all bool) *kmsg.ProduceRequest {
	q := kmsg.NewPtrProduceRequest()
	q.Acks, q.TimeoutMillis = -1, 30_000
	for _, name := range []string{"orders", "unknown", "payments"} {
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.TopicID = name, topics[name].ID
		for p := range int32(9) {
			if !all && (name != "orders" || p != int32(v)%8) {
				continue
			}
			part := kmsg.NewProduceRequestTopicPartition()
			part.Partition = p
			values := []string{fmt.Sprint("value ", v, p), strings.Repeat("x", 50+int(p))}
			switch {
			case p == 5 && all:
				part.Records = []byte("no records at all")
			case v < 2:
				part.Records = messageSet(0, k.now, values...)
			case v == 2:
				part.Records = messageSet(1, k.now, values...)
			default:
				part.Records = k.records(values...)
			}
			t.Partitions = append(t.Partitions, part)
		}
		if len(t.Partitions) > 0 {
			q.Topics = append(q.Topics, t)
		}
	}
	return q
}

// session fetches by steps of a session, at one connection.
func (k *talk) session(v int16, name string) {
	topic := &coordinator.Topic{Name: name}
	defer func() {
		for i := range k.told {
			k.told[i] = strings.ReplaceAll(k.told[i], name, "session")
		}
	}()
	q := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic.Name, 8, 1
	q.Topics = append(q.Topics, t)
	topic.ID = k.ask(q, 7).(*kmsg.CreateTopicsResponse).Topics[0].TopicID
	id, epoch := int32(0), int32(0)
	step := func(ask func(*kmsg.FetchRequest)) {
		f := kmsg.NewPtrFetchRequest()
		f.ReplicaID, f.MinBytes, f.MaxBytes = -1, 1, 50<<20
		f.SessionID, f.SessionEpoch = id, epoch
		ask(f)
		resp := k.ask(f, v).(*kmsg.FetchResponse)
		id = resp.SessionID
		epoch++
		last := len(k.told) - 1
		k.told[last] = strings.Replace(k.told[last], fmt.Sprint(`"SessionID":`, id), `"SessionID":"made"`, 1)
	}
	add := func(partition int32, offset int64) func(*kmsg.FetchRequest) {
		return func(f *kmsg.FetchRequest) {
			f.Topics = append(f.Topics, fetchTopic(topic, partition, offset))
		}
	}
	step(func(f *kmsg.FetchRequest) {
		for p := range int32(8) {
			add(p, 0)(f)
		}
	})
	nothing := func(*kmsg.FetchRequest) {}
	step(nothing)
	for p := range int32(8) {
		produce := produceOne(9, topic, p, k.records("a", "b", "c"))
		k.ask(produce, 9)
		if p%2 == 0 {
			step(nothing)
			step(add(p, 3))
			step(nothing)
		}
	}
	step(nothing)
	step(func(f *kmsg.FetchRequest) {
		add(7, 99)(f) // out of range
		forgotten := kmsg.NewFetchRequestForgottenTopic()
		forgotten.Topic, forgotten.TopicID, forgotten.Partitions = topic.Name, topic.ID, []int32{0, 1}
		f.ForgottenTopics = append(f.ForgottenTopics, forgotten)
	})
	step(add(7, 3))
	step(nothing)
}

func compare(t *testing.T, alone, all *talk) {
	t.Helper()
	for i := range alone.told {
		if alone.told[i] != all.told[i] {
			a, b := alone.told[i], all.told[i]
			at := 0
			for at < min(len(a), len(b)) && a[at] == b[at] {
				at++
			}
			from := max(at-300, 0)
			t.Errorf("%.30s: one node says\n…%.600s\nthree nodes say\n…%.600s", a, a[from:], b[from:])
		}
	}
}

// TestSameDataThroughAnyNode: Produce and Fetch through several nodes in turn, behind
// one address, are answered as by one node that is alone, in every version.
func TestSameDataThroughAnyNode(t *testing.T) {
	now := time.Now().UnixMilli()
	alone := newTalk(t, now, newServer(t).dial())
	alone.data()
	c := newCluster(t, 3)
	all := newTalk(t, now, c.nodes[0].dialProxy(), c.nodes[1].dialProxy(), c.nodes[2].dialProxy())
	all.data()
	compare(t, alone, all)
}

// TestSameSessionThroughAnyNode: a fetch session of partitions that several nodes
// serve tells what one of a node alone does.
func TestSameSessionThroughAnyNode(t *testing.T) {
	now := time.Now().UnixMilli()
	server := newServer(t)
	var alone []*talk // by version, from 7 on
	for v := int16(7); v <= 18; v++ {
		k := newTalk(t, now, server.dial())
		k.session(v, fmt.Sprint("topic", v))
		alone = append(alone, k)
	}
	c := newCluster(t, 3)
	for i, k := range alone {
		// A step that does not wait tells nothing of a partition that changes hands
		// meanwhile: such a session is not like one of a node alone.
		for again := 0; ; again++ {
			before := c.routes()
			all := newTalk(t, now, c.nodes[1].dialProxy())
			all.session(int16(7+i), fmt.Sprintf("topic%d.%d", 7+i, again))
			if c.routes() == before {
				compare(t, k, all)
				break
			}
		}
	}
}

// routes are the routes of all slots as all nodes have them.
func (c *cluster) routes() string {
	var out strings.Builder
	for _, n := range c.live() {
		for slot := range coordinator.NumSlots {
			fmt.Fprint(&out, n.coord.Route(slot))
		}
	}
	return out.String()
}

// TestNodesTold: clients that reach the nodes themselves are told who leads, in Metadata and, from
// the version that can say so on, where they ask the wrong node. Older ones are served.
func TestNodesTold(t *testing.T) {
	c := newCluster(t, 3)
	topic := c.nodes[0].createTopic("orders", 4)
	for p := range topic.Partitions {
		slot := coordinator.PartitionSlot(topic.ID, p)
		owner, other := c.owner(slot), c.other(slot)
		conn := other.dial()
		for v := int16(9); v <= 13; v++ {
			resp := do[*kmsg.ProduceResponse](conn, produceOne(v, topic, p, makeBatch(t, batch.Plain, "a")))
			part := &resp.Topics[0].Partitions[0]
			if v < 10 {
				wantCode(t, "produce v9", part.ErrorCode, protocol.None)
				continue
			}
			wantCode(t, "produce", part.ErrorCode, protocol.NotLeaderOrFollower)
			if part.CurrentLeader.LeaderID != owner.id || len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != owner.id {
				t.Errorf("v%d: leader %d of the nodes %v, want %d", v, part.CurrentLeader.LeaderID, resp.Brokers, owner.id)
			}
		}
		for v := int16(15); v <= 17; v++ {
			resp := do[*kmsg.FetchResponse](conn, fetchOne(v, topic, p, 0))
			part := &resp.Topics[0].Partitions[0]
			if v < 16 {
				wantCode(t, "fetch v15", part.ErrorCode, protocol.None)
				if got := values(t, part.RecordBatches); len(got) != 1 {
					t.Errorf("fetched %v", got)
				}
				continue
			}
			wantCode(t, "fetch", part.ErrorCode, protocol.NotLeaderOrFollower)
			if part.CurrentLeader.LeaderID != owner.id || len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != owner.id {
				t.Errorf("v%d: leader %d of the nodes %v, want %d", v, part.CurrentLeader.LeaderID, resp.Brokers, owner.id)
			}
		}
		for _, v := range versions(3) {
			q := kmsg.NewPtrMetadataRequest()
			q.Version = v
			resp := do[*kmsg.MetadataResponse](conn, q)
			if m := &resp.Topics[0].Partitions[p]; m.ErrorCode != 0 || m.Leader != owner.id {
				t.Errorf("metadata v%d: partition %d has leader %d, want %d", v, p, m.Leader, owner.id)
			}
			resp = do[*kmsg.MetadataResponse](other.dialProxy(), q)
			at := endpoint(t, other.proxy).Port
			if b := resp.Brokers; len(b) != 2 || b[0].NodeID != virtualNode || b[1].NodeID != spareNode || b[0].Port != at || b[1].Port != at {
				t.Errorf("metadata v%d by the proxy's listener: %v", v, resp.Brokers)
			}
			if m := &resp.Topics[0].Partitions[p]; m.ErrorCode != 0 || m.Leader != virtualNode || v > 0 && resp.ControllerID != virtualNode {
				t.Errorf("metadata v%d by the proxy's listener: leader %d, controller %d", v, m.Leader, resp.ControllerID)
			}
		}
	}
}

// TestLeaving: a node that drains is told of as long as it leads something, and clients of
// every age are sent from one that is about to end to who leads now. Behind one address
// nobody hears of it.
func TestLeaving(t *testing.T) {
	c := newCluster(t, 3)
	topic := c.nodes[0].createTopic("orders", 6)
	leaves := c.nodes[2]
	brokers := func(n *clusterNode) (ids []int32) {
		q := kmsg.NewPtrMetadataRequest()
		q.Version = 9
		resp := do[*kmsg.MetadataResponse](n.dial(), q)
		for _, b := range resp.Brokers {
			ids = append(ids, b.NodeID)
		}
		return ids
	}
	if got := brokers(c.nodes[0]); !slices.Equal(got, []int32{1, 2, 3}) {
		t.Fatalf("brokers are %v", got)
	}
	if !leaves.handler.LastAstray().IsZero() {
		t.Errorf("somebody was astray at %v", leaves.handler.LastAstray())
	}
	check(t, leaves.coord.Drain(t.Context()))
	for _, n := range c.nodes {
		until(t, "nobody is told of the drained node", func() bool { return slices.Equal(brokers(n), []int32{1, 2}) })
	}
	for p := range topic.Partitions {
		leader := c.owner(coordinator.PartitionSlot(topic.ID, p)).id
		ask := func(v int16) protocol.Code {
			resp := do[*kmsg.ProduceResponse](leaves.dial(), produceOne(v, topic, p, makeBatch(t, batch.Plain, "a")))
			part := &resp.Topics[0].Partitions[0]
			if v >= 10 && part.CurrentLeader.LeaderID != leader {
				t.Errorf("produce v%d names %d as leader, want %d", v, part.CurrentLeader.LeaderID, leader)
			}
			return protocol.Code(part.ErrorCode)
		}
		if code := ask(9); (p == 0) != (code == protocol.None) {
			t.Errorf("produce v9 to partition %d: %s", p, code.Name())
		}
		leaves.handler.Leave()
		for _, v := range []int16{3, 9, 13} {
			if code := ask(v); code != protocol.NotLeaderOrFollower {
				t.Errorf("produce v%d to a node that leaves: %s", v, code.Name())
			}
		}
		for _, v := range []int16{4, 11, 16} {
			part := do[*kmsg.FetchResponse](leaves.dial(), fetchOne(v, topic, p, 0)).Topics[0].Partitions[0]
			wantCode(t, fmt.Sprintf("fetch v%d from a node that leaves", v), part.ErrorCode, protocol.NotLeaderOrFollower)
		}
		before := leaves.handler.LastAstray()
		if before.IsZero() {
			t.Error("nobody was astray")
		}
		leaves.dialProxy().produce(topic, p, "b")
		if got := leaves.handler.LastAstray(); !got.Equal(before) {
			t.Error("a client behind one address was astray")
		}
	}
}

// pipeline sends batches of one record, numbered, to all partitions of a topic, many
// requests at a time on one connection, until stop is closed.
type pipeline struct {
	topic    *coordinator.Topic
	producer int64 // id; -1: not idempotent
	alone    bool  // each request is for one partition
	acked    []int // by partition
	sent     []int
	failed   []string
}

func (p *pipeline) run(c *client, stop <-chan struct{}) {
	const ahead = 16
	p.acked, p.sent = make([]int, p.topic.Partitions), make([]int, p.topic.Partitions)
	type asked struct {
		q      *kmsg.ProduceRequest
		values []int // by partition named
	}
	under := make(chan asked, ahead)
	go func() {
		defer close(under)
		for i := 0; ; i++ {
			select {
			case <-stop:
				if slices.Min(p.sent) >= 50 { // also on a machine that was busy
					return
				}
			default:
			}
			q := kmsg.NewPtrProduceRequest()
			q.Version, q.Acks, q.TimeoutMillis = 9, -1, 30_000
			t := kmsg.NewProduceRequestTopic()
			t.Topic = p.topic.Name
			var a asked
			for n := range p.topic.Partitions {
				if p.alone && n != int32(i)%p.topic.Partitions {
					continue
				}
				h := batch.Plain
				if p.producer >= 0 {
					h.ProducerID, h.ProducerEpoch, h.BaseSequence = p.producer, 0, int32(p.sent[n])
				}
				part := kmsg.NewProduceRequestTopicPartition()
				part.Partition, part.Records = n, makeBatch(c.t, h, fmt.Sprint(p.sent[n]))
				a.values = append(a.values, p.sent[n])
				p.sent[n]++
				t.Partitions = append(t.Partitions, part)
			}
			q.Topics = append(q.Topics, t)
			a.q = q
			under <- a
			c.send(q)
		}
	}()
	for a := range under {
		resp, err := c.receive(a.q)
		if err != nil {
			p.failed = append(p.failed, err.Error())
			for range under {
			}
			return
		}
		for i, part := range resp.(*kmsg.ProduceResponse).Topics[0].Partitions {
			if part.ErrorCode != 0 && len(p.failed) < 10 {
				p.failed = append(p.failed, fmt.Sprintf("record %d of partition %d: %s: %s", a.values[i], part.Partition, protocol.Code(part.ErrorCode).Name(), deref(part.ErrorMessage)))
			}
			p.acked[part.Partition]++
		}
	}
}

// all reads a partition from its start to its end.
func (c *client) all(topic *coordinator.Topic, partition int32) (got []string) {
	for {
		q := fetchOne(11, topic, partition, int64(len(got)))
		q.MaxWaitMillis = 5000
		resp := do[*kmsg.FetchResponse](c, q)
		part := &resp.Topics[0].Partitions[0]
		wantCode(c.t, "fetch", part.ErrorCode, protocol.None)
		got = append(got, values(c.t, part.RecordBatches)...)
		if part.HighWatermark >= 0 && int64(len(got)) >= part.HighWatermark || c.t.Failed() {
			return got
		}
	}
}

// TestOrderWhileSlotsMove: while partitions move between nodes, pipelined producers
// lose nothing, get nothing out of order and hear of no error, whether they are idempotent
// or not, and whether their requests go to one node or to several.
func TestOrderWhileSlotsMove(t *testing.T) {
	c := newCluster(t, 3)
	var pipelines []*pipeline
	for i := range 4 {
		p := &pipeline{topic: c.nodes[0].createTopic(fmt.Sprint("orders", i), 3), producer: -1, alone: i%2 == 1}
		if i >= 2 {
			p.producer = do[*kmsg.InitProducerIDResponse](c.nodes[0].dialProxy(), newInitProducerID()).ProducerID
		}
		pipelines = append(pipelines, p)
	}
	stop := make(chan struct{})
	var running sync.WaitGroup
	for i, p := range pipelines {
		conn := c.nodes[i%3].dialProxy()
		running.Go(func() { p.run(conn, stop) })
	}
	for round := range 6 {
		for i, p := range pipelines {
			slot := coordinator.PartitionSlot(p.topic.ID, int32(round%3))
			now := c.owner(slot)
			c.move(slot, c.nodes[(int(now.id)-1+1+(i+round)%2)%3])
		}
	}
	close(stop)
	running.Wait()
	for i, p := range pipelines {
		for _, why := range p.failed {
			t.Errorf("producer %d: %s", i, why)
		}
		for n := range p.topic.Partitions {
			got := c.nodes[(i+1)%3].dialProxy().all(p.topic, n)
			if len(got) != p.sent[n] || p.acked[n] != p.sent[n] {
				t.Errorf("producer %d, partition %d: %d records of %d sent and %d acknowledged", i, n, len(got), p.sent[n], p.acked[n])
			}
			for k, v := range got {
				if v != fmt.Sprint(k) {
					t.Errorf("producer %d, partition %d: record %s at offset %d", i, n, v, k)
					break
				}
			}
		}
	}
}

// TestSlotMovesBeforeTheFirstLedger: what waits for a log's first ledger when the log's
// slot moves goes on to where it moves, in order; a client behind one address is told
// nothing of it, whether its own node or another one had the log.
func TestSlotMovesBeforeTheFirstLedger(t *testing.T) {
	for _, forwarded := range []bool{false, true} {
		for _, v := range []int16{1, 9, 13} {
			t.Run(fmt.Sprintf("forwarded=%v/v%d", forwarded, v), func(t *testing.T) {
				c := newCluster(t, 2)
				topic := c.nodes[0].createTopic("orders", 64)
				first := int32(0) // the other partition of the requests stays where it is
				slot := coordinator.PartitionSlot(topic.ID, first)
				from, to := c.owner(slot), c.other(slot)
				second := first + 1
				for c.owner(coordinator.PartitionSlot(topic.ID, second)) != from {
					second++
				}
				at := from
				if forwarded {
					at = to
				}
				at.dialProxy().produce(topic, second, "warm")
				release := c.tier.holdCreate()
				conn := at.dialProxy()
				var asked []*kmsg.ProduceRequest
				for i := range 6 {
					value := fmt.Sprint(i)
					records := func() []byte {
						if v < 2 {
							return messageSet(0, 1, value)
						}
						return makeBatch(t, batch.Plain, value)
					}
					q := produceOne(v, topic, first, records())
					if i%2 == 1 {
						more := produceOne(v, topic, second, records())
						q.Topics[0].Partitions = append(q.Topics[0].Partitions, more.Topics[0].Partitions...)
					}
					conn.send(q)
					asked = append(asked, q)
				}
				until(t, "the last request has come to its logs", func() bool {
					l := from.store.Log(storage.LogID{Topic: topic.ID, Partition: second})
					if l == nil {
						return false
					}
					_, _, high := l.Offsets()
					return high == 4
				})
				check(t, to.coord.Override(t.Context(), slot, to.id))
				until(t, "the slot is being handed over", func() bool { return !from.coord.Route(slot).Here })
				release()
				for i, q := range asked {
					resp, err := conn.receive(q)
					check(t, err)
					for _, p := range resp.(*kmsg.ProduceResponse).Topics[0].Partitions {
						wantCode(t, fmt.Sprintf("request %d, partition %d", i, p.Partition), p.ErrorCode, protocol.None)
					}
				}
				if got := to.dialProxy().all(topic, first); !slices.Equal(got, []string{"0", "1", "2", "3", "4", "5"}) {
					t.Errorf("the partition holds %v", got)
				}
				if got := to.dialProxy().all(topic, second); !slices.Equal(got, []string{"warm", "1", "3", "5"}) {
					t.Errorf("the other partition holds %v", got)
				}
			})
		}
	}
}

func newInitProducerID() *kmsg.InitProducerIDRequest {
	q := kmsg.NewPtrInitProducerIDRequest()
	q.Version, q.ProducerID, q.ProducerEpoch = 4, -1, -1
	return q
}

// TestWaitElsewhere: a fetch waits at the nodes that serve its partitions, and is answered
// as soon as one of them has something, or when its time is up.
func TestWaitElsewhere(t *testing.T) {
	c := newCluster(t, 3)
	topic := c.nodes[0].createTopic("orders", 12)
	reader, writer := c.nodes[0].dialProxy(), c.nodes[1].dialProxy()
	ask := func(maxWait int32, offsets map[int32]int64) *kmsg.FetchRequest {
		q := kmsg.NewPtrFetchRequest()
		q.Version, q.ReplicaID, q.MaxWaitMillis, q.MinBytes, q.MaxBytes, q.SessionEpoch = 11, -1, maxWait, 1, 50<<20, -1
		for p := range topic.Partitions {
			q.Topics = append(q.Topics, fetchTopic(topic, p, offsets[p]))
		}
		return q
	}
	if resp := do[*kmsg.FetchResponse](reader, ask(50, nil)); len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 12 {
		t.Fatalf("an answer of %v", resp.Topics)
	}
	offsets := make(map[int32]int64)
	for p := range topic.Partitions {
		q := ask(60_000, offsets)
		reader.send(q)
		writer.produce(topic, p, fmt.Sprint("to ", p))
		resp, err := reader.receive(q)
		check(t, err)
		for _, part := range resp.(*kmsg.FetchResponse).Topics[0].Partitions {
			wantCode(t, "fetch", part.ErrorCode, protocol.None)
			v := values(t, part.RecordBatches)
			if len(v) > 0 != (part.Partition == p) {
				t.Errorf("partition %d has %q, and %d was written to", part.Partition, v, p)
			}
		}
		offsets[p]++
	}
}

// TestErrorElsewhere: what is wrong with a partition is told at once, not when the time to
// wait for records is up, by its owner and through others.
func TestErrorElsewhere(t *testing.T) {
	c := newCluster(t, 3)
	topic := c.nodes[0].createTopic("orders", 1)
	slot := coordinator.PartitionSlot(topic.ID, 0)
	ats := []*client{c.owner(slot).dialProxy(), c.other(slot).dialProxy()}
	for _, sent := range []func(*kmsg.FetchRequestTopicPartition){
		func(p *kmsg.FetchRequestTopicPartition) { p.FetchOffset = 7 },
		func(p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = 99 },
	} {
		q := kmsg.NewPtrFetchRequest()
		q.Version, q.ReplicaID, q.MaxWaitMillis, q.MinBytes, q.MaxBytes, q.SessionEpoch = 11, -1, 600_000, 1, 50<<20, -1
		asked := fetchTopic(topic, 0, 0)
		sent(&asked.Partitions[0])
		q.Topics = append(q.Topics, asked)
		for _, at := range ats {
			if resp := do[*kmsg.FetchResponse](at, q); resp.Topics[0].Partitions[0].ErrorCode == 0 {
				t.Errorf("%+v is answered without an error", asked.Partitions[0])
			}
		}
	}
}

// TestSlotMovesUnderFetch: a fetch that waits for a partition which moves goes on waiting
// where that is served then, and its client does not hear of it.
func TestSlotMovesUnderFetch(t *testing.T) {
	c := newCluster(t, 3)
	topic := c.nodes[0].createTopic("orders", 1)
	slot := coordinator.PartitionSlot(topic.ID, 0)
	writer := c.nodes[0].dialProxy()
	for n := range 6 {
		owner := c.owner(slot)
		q := fetchOne(11, topic, 0, int64(n))
		q.MaxWaitMillis = 60_000
		var readers []*client
		for _, node := range c.nodes { // the owner, the next one, and another
			r := node.dialProxy()
			r.send(q)
			readers = append(readers, r)
		}
		c.move(slot, c.nodes[int(owner.id)%3])
		writer.produce(topic, 0, fmt.Sprint(n))
		for i, r := range readers {
			resp, err := r.receive(q)
			check(t, err)
			part := &resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
			wantCode(t, "fetch", part.ErrorCode, protocol.None)
			if got := values(t, part.RecordBatches); len(got) != 1 || got[0] != fmt.Sprint(n) {
				t.Errorf("round %d: the reader at node %d gets %q", n, i+1, got)
			}
		}
	}
}

// TestSlotComesToNodeThatWaits: a Fetch request waits for data at a node, which comes to
// serve another of its partitions meanwhile. What is written there ends the waiting.
func TestSlotComesToNodeThatWaits(t *testing.T) {
	c := newCluster(t, 2, func(o *options) { o.way = unreliably })
	topic := c.nodes[0].createTopic("orders", 32)
	at := map[*clusterNode]int32{}
	for p := range topic.Partitions {
		at[c.owner(coordinator.PartitionSlot(topic.ID, p))] = p
	}
	here, moves, there := c.nodes[0], at[c.nodes[0]], at[c.nodes[1]]
	for _, p := range []int32{moves, there} {
		here.dialProxy().produce(topic, p, "before")
	}
	way := here.handler.c.Peers.(*unreachable)
	way.left.Store(0)
	r := here.dialProxy()
	q := fetchOne(11, topic, there, 1)
	q.Topics = append(q.Topics, fetchTopic(topic, moves, 1))
	q.MaxWaitMillis = math.MaxInt32
	r.send(q)
	until(t, "the other node is asked", func() bool { return way.left.Load() == -1 })
	c.move(coordinator.PartitionSlot(topic.ID, moves), c.nodes[1])
	here.dialProxy().produce(topic, moves, "after")
	resp, err := r.receive(q)
	check(t, err)
	for _, t1 := range resp.(*kmsg.FetchResponse).Topics {
		for _, part := range t1.Partitions {
			wantCode(t, fmt.Sprint("partition ", part.Partition), part.ErrorCode, protocol.None)
			if got := values(t, part.RecordBatches); part.Partition == moves && (len(got) != 1 || got[0] != "after") {
				t.Errorf("the partition that moved has %q", got)
			}
		}
	}
}

// TestNodeDies: what a dead node served is served by another before the requests' time is up.
// What was under way with it, and is not known to be done, is told to be tried again.
func TestNodeDies(t *testing.T) {
	c := newCluster(t, 3)
	topic := c.nodes[0].createTopic("orders", 12)
	conn := c.nodes[0].dialProxy()
	for p := range topic.Partitions {
		conn.produce(topic, p, "before")
	}
	c.nodes[2].end(false)
	for p := range topic.Partitions {
		q := produceOne(9, topic, p, makeBatch(t, batch.Plain, "after"))
		part := &do[*kmsg.ProduceResponse](conn, q).Topics[0].Partitions[0]
		wantCode(t, "produce", part.ErrorCode, protocol.None)
		if part.BaseOffset != 1 {
			t.Errorf("partition %d: base offset %d", p, part.BaseOffset)
		}
		if got := c.nodes[1].dialProxy().all(topic, p); len(got) != 2 {
			t.Errorf("partition %d holds %q", p, got)
		}
	}
}
