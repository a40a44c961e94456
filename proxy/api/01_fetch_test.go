package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage"
)

func TestFetchEveryVersion(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 2)
	c := s.dial()
	c.produce(topic, 1, "a", "b")
	c.produce(topic, 1, "c")
	for v := int16(4); v <= 18; v++ {
		for _, isolation := range []int8{0, 1} {
			q := fetchOne(v, topic, 1, 2)
			q.IsolationLevel = isolation
			resp := do[*kmsg.FetchResponse](c, q)
			wantCode(t, "top", resp.ErrorCode, protocol.None)
			p := &resp.Topics[0].Partitions[0]
			wantCode(t, "fetch", p.ErrorCode, protocol.None)
			if got := values(t, p.RecordBatches); !slices.Equal(got, []string{"c"}) {
				t.Errorf("v%d: records are %v", v, got)
			}
			if p.Partition != 1 || p.HighWatermark != 3 || p.LastStableOffset != 3 || v >= 5 && p.LogStartOffset != 0 {
				t.Errorf("v%d: %+v", v, p)
			}
			if (p.AbortedTransactions != nil) != (isolation == 1) {
				t.Errorf("v%d isolation %d: aborted transactions are %v", v, isolation, p.AbortedTransactions)
			}
			if v >= 11 && p.PreferredReadReplica != -1 {
				t.Errorf("v%d: preferred read replica %d", v, p.PreferredReadReplica)
			}
			if v >= 13 && resp.Topics[0].TopicID != topic.ID || v < 13 && resp.Topics[0].Topic != "orders" {
				t.Errorf("v%d: topic %q %x", v, resp.Topics[0].Topic, resp.Topics[0].TopicID)
			}
		}
	}
}

func TestFetchErrors(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.produce(topic, 0, "a", "b", "c")
	epoch := s.store.Log(storage.LogID{Topic: topic.ID}).Epoch()
	_, err := s.store.Log(storage.LogID{Topic: topic.ID}).DeleteRecords(t.Context(), 1)
	check(t, err)
	for _, tc := range []struct {
		what    string
		version int16
		topic   *coordinator.Topic
		change  func(q *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition)
		want    protocol.Code
	}{
		{"at the end", 11, topic, func(q *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { p.FetchOffset = 3 }, protocol.None},
		{"after the end", 11, topic, func(q *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { p.FetchOffset = 4 }, protocol.OffsetOutOfRange},
		{"before the start", 11, topic, func(q *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { p.FetchOffset = 0 }, protocol.OffsetOutOfRange},
		{"negative", 11, topic, func(q *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { p.FetchOffset = -1 }, protocol.OffsetOutOfRange},
		{"unknown partition", 11, topic, func(q *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { p.Partition = 1 }, protocol.UnknownTopicOrPartition},
		{"unknown topic", 12, &coordinator.Topic{Name: "nope"}, nil, protocol.UnknownTopicOrPartition},
		{"unknown topic id", 13, &coordinator.Topic{ID: [16]byte{9}}, nil, protocol.UnknownTopicID},
		{"zero topic id", 18, &coordinator.Topic{}, nil, protocol.UnknownTopicID},
		{"old epoch", 16, topic, func(q *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = epoch - 1 }, protocol.None},
		{"present epoch", 9, topic, func(q *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = epoch }, protocol.None},
		{"epoch of the future", 9, topic, func(q *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = epoch + 1 }, protocol.UnknownLeaderEpoch},
		{"a follower", 11, topic, func(q *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { q.ReplicaID = 2 }, protocol.NotLeaderOrFollower},
		{"a follower by state", 16, topic, func(q *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { q.ReplicaState.ID = 2 }, protocol.NotLeaderOrFollower},
		{"debugging consumer", 11, topic, func(q *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { q.ReplicaID = -2 }, protocol.None},
	} {
		t.Run(tc.what, func(t *testing.T) {
			q := fetchOne(tc.version, tc.topic, 0, 1)
			// An error is not kept waiting.
			q.MinBytes, q.MaxWaitMillis = 1<<20, 3_600_000
			if tc.want == protocol.None {
				q.MaxWaitMillis = 0
			}
			if tc.change != nil {
				tc.change(q, &q.Topics[0].Partitions[0])
			}
			resp := do[*kmsg.FetchResponse](c, q)
			p := &resp.Topics[0].Partitions[0]
			wantCode(t, tc.what, p.ErrorCode, tc.want)
			if tc.want == protocol.None {
				if p.HighWatermark != 3 || p.LogStartOffset != 1 {
					t.Errorf("bounds are %d to %d", p.LogStartOffset, p.HighWatermark)
				}
				return
			}
			if p.HighWatermark != -1 || p.LastStableOffset != -1 || p.LogStartOffset != -1 || len(p.RecordBatches) != 0 {
				t.Errorf("an error comes with %+v", p)
			}
			if tc.version >= 16 && tc.want == protocol.NotLeaderOrFollower {
				if p.CurrentLeader.LeaderID != 1 || len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != 1 || resp.Brokers[0].Port == 0 {
					t.Errorf("leader %+v at %+v", p.CurrentLeader, resp.Brokers)
				}
			}
		})
	}
}

// TestFetchDivergence: v12 tells where the client's last epoch ends.
func TestFetchDivergence(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.produce(topic, 0, "a", "b", "c")
	epoch := s.store.Log(storage.LogID{Topic: topic.ID}).Epoch()
	q := fetchOne(12, topic, 0, 3)
	q.Topics[0].Partitions[0].LastFetchedEpoch = epoch
	p := &do[*kmsg.FetchResponse](c, q).Topics[0].Partitions[0]
	if p.ErrorCode != 0 || p.DivergingEpoch.Epoch != -1 {
		t.Errorf("the log's own epoch diverges: %+v", p)
	}
	q.Topics[0].Partitions[0].FetchOffset = 9
	p = &do[*kmsg.FetchResponse](c, q).Topics[0].Partitions[0]
	if p.ErrorCode != 0 || p.DivergingEpoch.Epoch != epoch || p.DivergingEpoch.EndOffset != 3 || len(p.RecordBatches) != 0 {
		t.Errorf("an offset beyond the epoch's end: %+v", p)
	}
}

// TestFetchLimits: whole batches in the order of the request, the first one
// whatever its size.
func TestFetchLimits(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 3)
	c := s.dial()
	value := strings.Repeat("x", 1000)
	for p := range int32(3) {
		for range 3 {
			c.produce(topic, p, value)
		}
	}
	size := len(makeBatch(t, batch.Plain, value))
	for _, tc := range []struct {
		what                   string
		maxBytes, partitionMax int
		order                  []int32
		want                   []int // batches, by place
	}{
		{"no limit", 1 << 20, 1 << 20, []int32{0, 1, 2}, []int{3, 3, 3}},
		{"partition limit", 1 << 20, 2 * size, []int32{0, 1, 2}, []int{2, 2, 2}},
		{"partition limit below a batch", 1 << 20, size - 1, []int32{0, 1, 2}, []int{1, 0, 0}},
		{"partition limit of nothing", 1 << 20, 0, []int32{0, 1, 2}, []int{1, 0, 0}},
		{"response limit", 4 * size, 1 << 20, []int32{0, 1, 2}, []int{3, 1, 0}},
		{"response limit, other order", 4 * size, 1 << 20, []int32{2, 0, 1}, []int{3, 1, 0}},
		{"response limit below a batch", 1, 1 << 20, []int32{1, 0, 2}, []int{1, 0, 0}},
		{"response limit of nothing", 0, 1 << 20, []int32{1, 0, 2}, []int{1, 0, 0}},
		{"negative limits", -1, -1, []int32{0, 1, 2}, []int{1, 0, 0}},
	} {
		q := fetchOne(11, topic, 0, 0)
		q.MaxBytes = int32(tc.maxBytes)
		q.Topics[0].Partitions = nil
		for _, p := range tc.order {
			qp := fetchTopic(topic, p, 0).Partitions[0]
			qp.PartitionMaxBytes = int32(tc.partitionMax)
			q.Topics[0].Partitions = append(q.Topics[0].Partitions, qp)
		}
		resp := do[*kmsg.FetchResponse](c, q)
		for i, p := range resp.Topics[0].Partitions {
			got := len(values(t, p.RecordBatches))
			if p.Partition != tc.order[i] || got != tc.want[i] || p.HighWatermark != 3 {
				t.Errorf("%s: partition %d at place %d has %d batches, want %d; high watermark %d", tc.what, p.Partition, i, got, tc.want[i], p.HighWatermark)
			}
		}
	}
}

// TestFetchServerLimit: fetch.max.bytes bounds what a client asks for, and the
// minimum with it.
func TestFetchServerLimit(t *testing.T) {
	value := strings.Repeat("x", 1000)
	size := len(makeBatch(t, batch.Plain, value))
	s := newServer(t, func(o *options) { o.config.FetchMaxBytes = 2 * size })
	topic := s.createTopic("orders", 1)
	c := s.dial()
	for range 5 {
		c.produce(topic, 0, value)
	}
	q := fetchOne(11, topic, 0, 0)
	q.MinBytes, q.MaxWaitMillis = 1<<20, 3_600_000
	resp := do[*kmsg.FetchResponse](c, q)
	if got := len(values(t, resp.Topics[0].Partitions[0].RecordBatches)); got != 2 {
		t.Errorf("%d batches", got)
	}
}

// TestFetchWaits: a request that finds too little is answered when there is
// enough, and not before; what is not durable does not count.
func TestFetchWaits(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 2)
	reader, writer := s.dial(), s.dial()
	writer.produce(topic, 0, "a")
	writer.produce(topic, 1, "a")

	q := fetchOne(11, topic, 0, 1)
	q.MaxWaitMillis = 3_600_000
	q.Topics[0].Partitions = append(q.Topics[0].Partitions, fetchTopic(topic, 1, 1).Partitions...)
	answered := make(chan *kmsg.FetchResponse, 1)
	receive := func() {
		resp, err := reader.receive(q)
		if err != nil {
			t.Error(err)
		}
		answered <- resp.(*kmsg.FetchResponse)
	}
	reader.send(q)
	go receive()
	s.tier.hold()
	p := produceOne(9, topic, 1, makeBatch(t, batch.Plain, "b"))
	writer.send(p)
	s.tier.waitQueued(1)
	select {
	case r := <-answered:
		t.Fatalf("answered before the batch is durable: %+v", r)
	default:
	}
	s.tier.release()
	resp := <-answered
	if got := values(t, resp.Topics[0].Partitions[1].RecordBatches); !slices.Equal(got, []string{"b"}) {
		t.Errorf("woken up with %v", got)
	}
	_, err := writer.receive(p)
	check(t, err)

	// Below min_bytes it waits on.
	one := len(makeBatch(t, batch.Plain, "c"))
	q.MinBytes = int32(2*one + 1)
	q.Topics[0].Partitions[1].FetchOffset = 2
	reader.send(q)
	go receive()
	writer.produce(topic, 0, "c")
	writer.produce(topic, 1, "c")
	select {
	case r := <-answered:
		t.Fatalf("answered below min_bytes: %+v", r)
	default:
	}
	writer.produce(topic, 0, "c")
	resp = <-answered
	if a, b := values(t, resp.Topics[0].Partitions[0].RecordBatches), values(t, resp.Topics[0].Partitions[1].RecordBatches); len(a) != 2 || len(b) != 1 {
		t.Errorf("woken up with %v and %v", a, b)
	}
}

func TestFetchWaitEnds(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.produce(topic, 0, "a")
	q := fetchOne(11, topic, 0, 1)
	q.MaxWaitMillis = 20
	resp := do[*kmsg.FetchResponse](c, q)
	p := &resp.Topics[0].Partitions[0]
	if p.ErrorCode != 0 || len(p.RecordBatches) != 0 || p.HighWatermark != 1 {
		t.Errorf("after max_wait: %+v", p)
	}

	// A topic that goes away while it is waited for.
	q.MaxWaitMillis = 3_600_000
	c.send(q)
	d := kmsg.NewPtrDeleteTopicsRequest()
	d.Version, d.TopicNames, d.TimeoutMillis = 3, []string{"orders"}, 10000
	wantCode(t, "DeleteTopics", do[*kmsg.DeleteTopicsResponse](s.dial(), d).Topics[0].ErrorCode, protocol.None)
	r, err := c.receive(q)
	check(t, err)
	wantCode(t, "deleted topic", r.(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode, protocol.UnknownTopicOrPartition)
}

// TestFetchParkedOnAClosedConnection: a parked request ends with its connection.
func TestFetchParkedOnAClosedConnection(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.produce(topic, 0, "a")
	q := fetchOne(11, topic, 0, 1)
	q.MaxWaitMillis = 3_600_000
	c.send(q)
	check(t, c.conn.Close())
	s.dial().produce(topic, 0, "b")
	// The cleanup of the server fails if a request is left without an answer.
}

// TestFetchFromLedgers: what is not in memory is read by a worker, within the
// same limits.
func TestFetchFromLedgers(t *testing.T) {
	s := newServer(t, func(o *options) { o.store.TailCacheBytes = 1 })
	topic := s.createTopic("orders", 3)
	c := s.dial()
	value := strings.Repeat("x", 1000)
	for p := range int32(3) {
		for i := range 4 {
			c.produce(topic, p, fmt.Sprint(p, i, value))
		}
	}
	size := len(makeBatch(t, batch.Plain, "0 0"+value))
	q := fetchOne(11, topic, 0, 1)
	q.MaxBytes, q.MaxWaitMillis = int32(5*size), 3_600_000
	for _, p := range []int32{1, 2} {
		q.Topics[0].Partitions = append(q.Topics[0].Partitions, fetchTopic(topic, p, 1).Partitions...)
	}
	resp := do[*kmsg.FetchResponse](c, q)
	for i, want := range []int{3, 2, 0} {
		p := &resp.Topics[0].Partitions[i]
		if got := values(t, p.RecordBatches); len(got) != want || p.HighWatermark != 4 || want > 0 && !strings.HasPrefix(got[0], fmt.Sprint(i, 1)) {
			t.Errorf("partition %d has %d batches, want %d; high watermark %d", i, len(got), want, p.HighWatermark)
		}
	}
	s.tier.set(func() {
		if s.tier.reads == 0 {
			t.Error("nothing was read from a ledger")
		}
	})

	// Less than min_bytes is waited for there, too.
	q = fetchOne(11, topic, 0, 3)
	q.MinBytes, q.MaxWaitMillis = int32(size+1), 3_600_000
	c.send(q)
	s.dial().produce(topic, 0, "more")
	r, err := c.receive(q)
	check(t, err)
	if got := values(t, r.(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches); len(got) != 2 {
		t.Errorf("%d batches after the wait", len(got))
	}
}

// TestFetchOpensLogs: a topic that nobody has produced to is empty, and a fetch
// waits for its first record.
func TestFetchOpensLogs(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 40)
	reader := s.dial()
	q := fetchOne(13, topic, 0, 0)
	for p := range int32(39) {
		q.Topics[0].Partitions = append(q.Topics[0].Partitions, fetchTopic(topic, p+1, 0).Partitions...)
	}
	resp := do[*kmsg.FetchResponse](reader, q)
	for i, p := range resp.Topics[0].Partitions {
		if p.ErrorCode != 0 || p.HighWatermark != 0 || p.LogStartOffset != 0 || int(p.Partition) != i {
			t.Errorf("an empty partition is %+v", p)
		}
	}
	other := s.createTopic("other", 1)
	q = fetchOne(13, other, 0, 0)
	q.MaxWaitMillis = 3_600_000
	reader.send(q)
	s.dial().produce(other, 0, "first")
	r, err := reader.receive(q)
	check(t, err)
	if got := values(t, r.(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches); !slices.Equal(got, []string{"first"}) {
		t.Errorf("woken up with %v", got)
	}
}

// TestFetchOfManyPartitions: a request whose body is long is a worker's from
// the start, and waits like any other.
func TestFetchOfManyPartitions(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1500)
	q := sessionFetch(11, 0, 0, fetchTopic(topic, 0, 0))
	for p := range topic.Partitions - 1 {
		q.Topics[0].Partitions = append(q.Topics[0].Partitions, fetchTopic(topic, p+1, 0).Partitions...)
	}
	q.MaxWaitMillis = 3_600_000
	c := s.dial()
	c.send(q)
	s.dial().produce(topic, 1234, "a")
	r, err := c.receive(q)
	check(t, err)
	resp := r.(*kmsg.FetchResponse)
	if got := values(t, resp.Topics[0].Partitions[1234].RecordBatches); !slices.Equal(got, []string{"a"}) || len(resp.Topics[0].Partitions) != 1500 {
		t.Errorf("%d partitions are told, one with %v", len(resp.Topics[0].Partitions), got)
	}
	// The session's next step names nothing and is as long.
	s.dial().produce(topic, 7, "b")
	wantTold(t, "step", do[*kmsg.FetchResponse](c, sessionFetch(11, resp.SessionID, 1, fetchTopic(topic, 1234, 1))), 7)

	// One whose client goes away while a worker has it.
	gone := s.dial()
	gone.send(q)
	check(t, gone.conn.Close())
	// One that names more than may be.
	q = sessionFetch(11, 0, -1, fetchTopic(topic, 0, 0))
	for range maxPartitions {
		q.Topics[0].Partitions = append(q.Topics[0].Partitions, q.Topics[0].Partitions[0])
	}
	greedy := s.dial()
	greedy.send(q)
	if !greedy.dropped() {
		t.Error("a request for too many partitions is answered")
	}
}

// TestFetchWithoutRoom: when answers hold all the memory they may, each brings
// the one batch that makes its client go on.
func TestFetchWithoutRoom(t *testing.T) {
	s := newServer(t, func(o *options) { o.config.MaxFetchedBytes = 5000 })
	topic := s.createTopic("orders", 2)
	c := s.dial()
	value := strings.Repeat("x", 2000)
	for range 5 {
		c.produce(topic, 0, value)
		c.produce(topic, 1, value)
	}
	count := func() (n int) {
		q := fetchOne(11, topic, 0, 0)
		q.Topics[0].Partitions = append(q.Topics[0].Partitions, fetchTopic(topic, 1, 0).Partitions...)
		for _, p := range do[*kmsg.FetchResponse](c, q).Topics[0].Partitions {
			n += len(values(t, p.RecordBatches))
		}
		return n
	}
	if n := count(); n != 2 {
		t.Errorf("%d batches within 5000 bytes", n)
	}
	s.handler.fetched.Add(1 << 30)
	if n := count(); n != 1 {
		t.Errorf("%d batches without room", n)
	}
	s.handler.fetched.Add(-1 << 30)
	if n := count(); n != 2 {
		t.Errorf("%d batches with room again", n)
	}
}
