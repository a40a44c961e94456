package api

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/storage"
)

// groupLag tells how far behind the end of its partitions each group is, when
// it is asked: there is nothing to keep up to date. Each node tells of the groups that it
// coordinates, so that every group is told of once, and asks the others for the ends of
// the partitions that they serve. Its labels are names that clients choose, so what it
// tells is bounded.
type groupLag struct {
	h         *Handlers
	maxSeries int
	stream    uint64 // of its calls

	mu  sync.Mutex
	cut bool // the log says that some are left out
}

const (
	// lagOpens and lagTimeout bound what one scrape costs: the logs of this node that it
	// opens, those of partitions that nobody has read or written since the start, and its time.
	lagOpens   = 256
	lagTimeout = 2 * time.Second
	// lagAsks is how many partitions are asked for at a time.
	lagAsks = 1000
)

var (
	lagDesc = prometheus.NewDesc("quire_group_lag",
		"Records between a group's committed offset and the end of the partition, of the groups that this node coordinates.", []string{"group", "topic", "partition"}, nil)
	lagLeftOutDesc = prometheus.NewDesc("quire_group_lag_left_out",
		"Partitions of groups whose lag is not told: beyond metrics.group.lag.max.series, not open yet, of a node that did not answer in time, or of a group whose name is not UTF-8.", nil, nil)
)

// GroupLag collects the lag of the groups of this node (metrics.group.lag), for
// as many partitions of groups as maxSeries.
func (h *Handlers) GroupLag(maxSeries int) prometheus.Collector {
	return &groupLag{h: h, maxSeries: maxSeries, stream: newStream()}
}

// Describe implements prometheus.Collector.
func (l *groupLag) Describe(descs chan<- *prometheus.Desc) {
	descs <- lagDesc
	descs <- lagLeftOutDesc
}

// lagging is a committed partition whose end another node knows.
type lagging struct {
	group     string
	topic     *coordinator.Topic
	partition int32
	committed int64
}

func (p *lagging) slot() int { return coordinator.PartitionSlot(p.topic.ID, p.partition) }

// Collect implements prometheus.Collector.
func (l *groupLag) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(l.h.ctx, lagTimeout)
	defer cancel()
	tell := func(p lagging, end int64) {
		metrics <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue,
			float64(end-p.committed), p.group, p.topic.Name, strconv.Itoa(int(p.partition)))
	}
	told, leftOut, opens := 0, 0, lagOpens
	var elsewhere []lagging
	for group, committed := range l.h.c.Coordinator.Groups().AllCommitted() {
		topic := l.h.c.Coordinator.TopicByID(committed.Topic)
		if topic == nil {
			continue // deleted, and its offsets soon
		}
		p := lagging{group, topic, committed.Partition.Partition, committed.Offset.Offset}
		if told == l.maxSeries || !utf8.ValidString(group) {
			leftOut++
			continue
		}
		log := l.h.c.Store.Log(storage.LogID{Topic: topic.ID, Partition: p.partition})
		if log == nil && !l.h.serves(p.slot()) {
			elsewhere = append(elsewhere, p)
			told++
			continue
		}
		if log == nil && opens > 0 && ctx.Err() == nil {
			opens--
			// One that does not open is left out; whoever needs it says why.
			log, _ = l.h.openLog(ctx, topic, p.partition)
		}
		if log == nil {
			leftOut++
			continue
		}
		_, _, end := log.Offsets()
		tell(p, end)
		told++
	}
	cut := told == l.maxSeries && leftOut > 0
	ends := l.ends(ctx, elsewhere)
	for _, p := range elsewhere {
		if end, ok := ends[lagEnd{p.topic.Name, p.partition}]; ok {
			tell(p, end)
		} else {
			leftOut++
		}
	}
	metrics <- prometheus.MustNewConstMetric(lagLeftOutDesc, prometheus.GaugeValue, float64(leftOut))
	l.note(cut, leftOut)
}

// lagEnd is a partition whose end is asked for.
type lagEnd struct {
	topic     string
	partition int32
}

// ends asks the nodes that serve partitions for their ends. What is not answered before
// ctx ends is left out.
func (l *groupLag) ends(ctx context.Context, elsewhere []lagging) map[lagEnd]int64 {
	asked := make(map[int32][]lagEnd) // by node
	seen := make(map[lagEnd]bool)
	for _, p := range elsewhere {
		e := lagEnd{p.topic.Name, p.partition}
		if to := l.h.route(p.slot()); to.node >= 0 && !seen[e] {
			seen[e] = true
			asked[to.node] = append(asked[to.node], e)
		}
	}
	var calls []<-chan *kmsg.ListOffsetsResponse
	for node, all := range asked {
		for some := range slices.Chunk(all, lagAsks) {
			answered := make(chan *kmsg.ListOffsetsResponse, 1)
			calls = append(calls, answered)
			l.h.askFor(node, l.stream, askEnds(some), lagTimeout, func(resp kmsg.Response, err error) {
				if err != nil {
					resp = new(kmsg.ListOffsetsResponse) // a node that goes away is no reason to tell nothing
				}
				answered <- resp.(*kmsg.ListOffsetsResponse)
			})
		}
	}
	ends := make(map[lagEnd]int64, len(seen))
	for _, answered := range calls {
		select {
		case resp := <-answered:
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					if p.ErrorCode == 0 {
						ends[lagEnd{t.Topic, p.Partition}] = p.Offset
					}
				}
			}
		case <-ctx.Done():
			return ends
		}
	}
	return ends
}

// askEnds asks for the high watermarks of partitions.
func askEnds(of []lagEnd) *kmsg.ListOffsetsRequest {
	q := kmsg.NewPtrListOffsetsRequest()
	q.Version, q.ReplicaID = 7, -1
	for _, e := range of {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = e.partition, storage.LatestTimestamp
		if n := len(q.Topics); n == 0 || q.Topics[n-1].Topic != e.topic {
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = e.topic
			q.Topics = append(q.Topics, t)
		}
		t := &q.Topics[len(q.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	return q
}

// note says once that some are left out, and once that none is any more.
func (l *groupLag) note(cut bool, leftOut int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cut && !l.cut {
		l.h.c.Logger.Warn("the lag of some groups is not in the metrics: raise metrics.group.lag.max.series if it is needed",
			zap.Int("max.series", l.maxSeries), zap.Int("left.out", leftOut))
	} else if l.cut && !cut {
		l.h.c.Logger.Info("the lag of all groups is in the metrics again")
	}
	l.cut = cut
}
