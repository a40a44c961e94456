//go:build !race && !poison

package api

import (
	"encoding/binary"
	"io"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
)

// roundTrip returns a function that sends q as it is and reads its answer, without
// allocating itself.
func (c *client) roundTrip(q kmsg.Request) func() {
	c.corr++
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, q, c.corr)
	answer := make([]byte, 1<<20)
	return func() {
		if _, err := c.conn.Write(frame); err != nil {
			c.t.Fatal(err)
		}
		if _, err := io.ReadFull(c.conn, answer[:4]); err != nil {
			c.t.Fatal(err)
		}
		if _, err := io.ReadFull(c.conn, answer[:binary.BigEndian.Uint32(answer)]); err != nil {
			c.t.Fatal(err)
		}
	}
}

// leastAllocs is the least that several runs of f allocate, each time, in the whole process: what
// the process does beside them counts too, and is not there in all of them.
func leastAllocs(runs int, f func()) float64 {
	least := math.Inf(1)
	for attempt := 0; attempt < 10 && least > 0; attempt++ {
		least = min(least, testing.AllocsPerRun(runs, f))
	}
	return least
}

// measure fails the test if sending q and reading its answer allocates more
// than most times in the whole process.
func (c *client) measure(what string, q kmsg.Request, most float64) {
	c.t.Helper()
	f := c.roundTrip(q)
	for range 200 {
		f()
	}
	if n := leastAllocs(500, f); n > most {
		c.t.Errorf("%s: %v allocations, at most %v", what, n, most)
	}
}

// TestAllocations counts what a request allocates in the whole process, from
// the socket to the ledger tier and back.
func TestAllocations(t *testing.T) {
	s := newServer(t, func(o *options) { o.store.TailCacheBytes = 1 << 20 })
	topic := s.createTopic("orders", 8)
	c := s.dial()
	for p := range topic.Partitions {
		c.produce(topic, p, "a")
	}
	s.tier.set(func() { s.tier.forgets = true })
	records := makeBatch(t, batch.Plain, string(make([]byte, 1000)))
	many := produceOne(13, topic, 0, records)
	for p := range topic.Partitions - 1 {
		many.Topics[0].Partitions = append(many.Topics[0].Partitions, produceOne(13, topic, p+1, records).Topics[0].Partitions...)
	}
	measure := c.measure
	measure("produce v9", produceOne(9, topic, 0, records), 2)
	measure("produce v13", produceOne(13, topic, 0, records), 2)
	measure("produce of 100 KB", produceOne(13, topic, 0, makeBatch(t, batch.Plain, string(make([]byte, 100_000)))), 2)
	measure("produce to 8 partitions", many, 2)
	_, _, end := s.store.Log(logID(topic, 0)).Offsets()
	measure("fetch at the end", fetchOne(13, topic, 0, end), 0)
	measure("fetch from the tail", fetchOne(13, topic, 0, end-1), 0)
	measure("fetch by name", fetchOne(11, topic, 0, end-1), 0)
	all := fetchOne(13, topic, 0, end-1)
	for p := range topic.Partitions - 1 {
		_, _, end := s.store.Log(logID(topic, p+1)).Offsets()
		all.Topics[0].Partitions = append(all.Topics[0].Partitions, fetchTopic(topic, p+1, end-1).Partitions...)
	}
	measure("fetch from 8 partitions", all, 0)

	_, _, other := s.store.Log(logID(topic, 1)).Offsets()
	step := c.sessionSteps(sessionFetch(13, 0, 0, fetchTopic(topic, 0, end-1), fetchTopic(topic, 1, other-1)))
	for range 200 {
		step()
	}
	if n := leastAllocs(500, step); n > 0 {
		t.Errorf("step of a session: %v allocations", n)
	}
}

// TestHeartbeatAllocations: a heartbeat of a group at rest costs nothing that
// the collector has to look for.
func TestHeartbeatAllocations(t *testing.T) {
	s := newGroupServer(t)
	c := s.dial()
	j := c.stable("rest")
	heartbeat := c.roundTrip(newHeartbeat(4, "rest", j.MemberID, j.Generation))
	for range 200 {
		heartbeat()
	}
	if n := leastAllocs(500, heartbeat); n > 0 {
		t.Errorf("%v allocations", n)
	}

	s.createTopic("orders", 1)
	wantCode(t, "ConsumerGroupHeartbeat", do[*kmsg.ConsumerGroupHeartbeatResponse](c, newConsumerHeartbeat(1, "rest-848", "m", 0)).ErrorCode, protocol.None)
	heartbeat = c.roundTrip(newConsumerHeartbeat(1, "rest-848", "m", 1))
	for range 200 {
		heartbeat()
	}
	if n := leastAllocs(500, heartbeat); n > 0 {
		t.Errorf("of the consumer protocol: %v allocations", n)
	}
}

// TestConversionAllocations counts what old clients cost beside that.
func TestConversionAllocations(t *testing.T) {
	s := newServer(t, func(o *options) { o.store.TailCacheBytes = 1 << 20 })
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.produce(topic, 0, "a")
	s.tier.set(func() { s.tier.forgets = true })
	texts := benchValues(150)
	c.measure("produce of a small set, on the loop", produceOne(1, topic, 0, sentSet(t, 0, batch.None, texts[:50]...)), 2)
	c.measure("produce of a large set", produceOne(2, topic, 0, sentSet(t, 1, batch.None, string(make([]byte, 100_000)))), 12)
	for _, codec := range oldCodecs[1:] {
		c.measure("produce of a set in "+codec.String(), produceOne(2, topic, 0, sentSet(t, 1, codec, texts...)), 18)
	}
	_, _, end := s.store.Log(logID(topic, 0)).Offsets()
	c.measure("fetch that was converted before", fetchOne(2, topic, 0, end-1), 8)
}

// sessionSteps makes a session of a full fetch and returns a function that takes
// its next step, in which the client names a partition again.
func (c *client) sessionSteps(full *kmsg.FetchRequest) func() {
	id := do[*kmsg.FetchResponse](c, full).SessionID
	step := func(epoch int32) []byte {
		q := sessionFetch(full.Version, id, epoch, full.Topics[0])
		return kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, q, 1)
	}
	// The epoch is where two steps differ: four bytes from at on.
	frame, other := step(0), step(-1)
	at := 0
	for frame[at] == other[at] {
		at++
	}
	answer := make([]byte, 1<<20)
	epoch := uint32(0)
	return func() {
		epoch++
		binary.BigEndian.PutUint32(frame[at:], epoch)
		if _, err := c.conn.Write(frame); err != nil {
			c.t.Fatal(err)
		}
		if _, err := io.ReadFull(c.conn, answer[:4]); err != nil {
			c.t.Fatal(err)
		}
		n := binary.BigEndian.Uint32(answer)
		if _, err := io.ReadFull(c.conn, answer[:n]); err != nil {
			c.t.Fatal(err)
		}
		if n < 1000 {
			c.t.Fatalf("an answer of %d bytes", n)
		}
	}
}
