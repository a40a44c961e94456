package api

import (
	"slices"
	"time"

	"github.com/quirelog/quire/protocol"
)

// A producer has several requests under way. When one fails on its way to a partition
// and nothing of it was stored, those behind it meet a log that lacks it, and are out of
// order. A producer that is told so takes it for a disagreement: librdkafka begins a new
// epoch and sends all that is under way again, of every partition, and what was stored
// of that without its knowing is then stored twice. So a batch that is out of order
// since one of the same connection before it has failed is told as failed likewise: the
// producer sends both again, in order, and the log tells what it has already.

// maxSetbacks bounds what is remembered for a connection. A producer has five requests under way.
const maxSetbacks = 256

// setback is a partition for which a request of the connection has failed.
type setback struct {
	topic     [16]byte
	partition int32
	at        time.Time
}

// heedLocked notes the failure of a partition's batch, or makes of an answer that
// it is out of order that it is to be sent again. received is when the request came.
func (l *line) heedLocked(topic [16]byte, received time.Time, out *protocol.ProducePartition) {
	if out.Code == protocol.None {
		return
	}
	i := slices.IndexFunc(l.setbacks, func(s setback) bool { return s.topic == topic && s.partition == out.Partition })
	if out.Code == protocol.OutOfOrderSequenceNumber || out.Code == protocol.UnknownProducerID {
		if i < 0 || received.After(l.setbacks[i].at) {
			return
		}
		out.Code = protocol.NotLeaderOrFollower
		out.Message = "a batch before this one has failed: " + out.Message
	}
	switch {
	case i >= 0:
		l.setbacks[i].at = time.Now()
	case len(l.setbacks) < maxSetbacks:
		l.setbacks = append(l.setbacks, setback{topic, out.Partition, time.Now()})
	default:
		oldest := 0
		for k := range l.setbacks {
			if l.setbacks[k].at.Before(l.setbacks[oldest].at) {
				oldest = k
			}
		}
		l.setbacks[oldest] = setback{topic, out.Partition, time.Now()}
	}
}
