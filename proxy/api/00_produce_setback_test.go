package api

import (
	"testing"
	"time"

	"github.com/quirelog/quire/protocol"
)

// TestSetbacks: a batch is out of order for its producer only if no batch of the
// partition has failed that the producer did not know of when it sent this one.
func TestSetbacks(t *testing.T) {
	var l line
	orders, others := [16]byte{1}, [16]byte{2}
	heed := func(topic [16]byte, partition int32, received time.Time, code protocol.Code) protocol.Code {
		out := protocol.ProducePartition{Partition: partition, Code: code}
		l.heedLocked(topic, received, &out)
		return out.Code
	}
	want := func(what string, got, want protocol.Code) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got.Name(), want.Name())
		}
	}
	const gap = protocol.OutOfOrderSequenceNumber
	before := time.Now()
	want("out of order by itself", heed(orders, 0, before, gap), gap)
	want("out of order again", heed(orders, 0, before, gap), gap)
	want("stored", heed(orders, 0, before, protocol.None), protocol.None)
	want("failed", heed(orders, 0, before, protocol.RequestTimedOut), protocol.RequestTimedOut)
	want("behind that", heed(orders, 0, before, gap), protocol.NotLeaderOrFollower)
	want("another partition", heed(orders, 1, before, gap), gap)
	want("another topic", heed(others, 0, before, gap), gap)
	want("sent when that was known", heed(orders, 0, time.Now().Add(time.Second), gap), gap)

	for i := range int32(2 * maxSetbacks) {
		heed(others, i, before, protocol.RequestTimedOut)
	}
	if len(l.setbacks) != maxSetbacks {
		t.Errorf("%d setbacks are kept", len(l.setbacks))
	}
	want("behind the last", heed(others, 2*maxSetbacks-1, before, gap), protocol.NotLeaderOrFollower)
}
