package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/proxy"
)

// row is one API key that is served.
type row struct {
	key      int16
	min, max int16 // versions accepted and advertised
	maxBody  int   // bytes of a request's body; more is refused before it is decoded
	handle   func(h *Handlers, r *proxy.Request)
}

const (
	smallBody = 1 << 20
	largeBody = 4 << 20 // lists of topics or partitions
	anyBody   = 1 << 31 // bounded by socket.request.max.bytes
)

// table lists what is served, by key. ApiVersions answers with exactly this.
//
// A minimum of 0 for Produce keeps compression on in librdkafka (KAFKA-18659);
// versions 0 to 2 are answered as 00_produce.go says.
var table []row

// The table refers to methods that refer to it (ApiVersions), so that it is
// filled at start.
func init() {
	table = []row{
		{0, 0, 13, anyBody, (*Handlers).produce},
		{1, 4, 18, largeBody, (*Handlers).fetch},
		{2, 1, 11, largeBody, decoded((*Handlers).listOffsets)},
		{3, 0, 13, largeBody, decoded((*Handlers).metadata)},
		{10, 0, 6, smallBody, decoded((*Handlers).findCoordinator)},
		{18, 0, 5, smallBody, (*Handlers).apiVersions},
		{19, 0, 7, largeBody, decoded((*Handlers).createTopics)},
		{20, 0, 6, largeBody, decoded((*Handlers).deleteTopics)},
		{21, 0, 2, largeBody, decoded((*Handlers).deleteRecords)},
		{22, 0, 5, smallBody, decoded((*Handlers).initProducerID)},
		{23, 0, 4, largeBody, decoded((*Handlers).offsetForLeaderEpoch)},
		{32, 0, 4, largeBody, decoded((*Handlers).describeConfigs)},
		{33, 0, 2, largeBody, decoded((*Handlers).alterConfigs)},
		{35, 0, 5, largeBody, decoded((*Handlers).describeLogDirs)},
		{37, 0, 3, largeBody, decoded((*Handlers).createPartitions)},
		{44, 0, 1, largeBody, decoded((*Handlers).incrementalAlterConfigs)},
		{60, 0, 2, smallBody, decoded((*Handlers).describeCluster)},
		{61, 0, 0, largeBody, decoded((*Handlers).describeProducers)},
		{75, 0, 0, largeBody, decoded((*Handlers).describeTopicPartitions)},
	}
	for i := range table {
		byKey[table[i].key] = &table[i]
	}
}

var byKey [128]*row

// lookup returns the row of an API key, nil if it is not served.
func lookup(key int16) *row {
	if key < 0 || int(key) >= len(byKey) {
		return nil
	}
	return byKey[key]
}

func (w *row) advertised() kmsg.ApiVersionsResponseApiKey {
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = w.key, w.min, w.max
	return k
}

// decoded makes a row's handler of a method that takes the decoded request.
func decoded[Q kmsg.Request](f func(*Handlers, *proxy.Request, Q)) func(*Handlers, *proxy.Request) {
	return func(h *Handlers, r *proxy.Request) {
		q := kmsg.RequestForKey(r.Key).(Q)
		if h.decode(r, q) {
			f(h, r, q)
		}
	}
}
