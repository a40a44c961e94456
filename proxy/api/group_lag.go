package api

import (
	"context"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/quirelog/quire/storage"
)

// groupLag tells how far behind the end of its partitions each group is, when
// it is asked: there is nothing to keep up to date. Its labels are names that
// clients choose, so what it tells is bounded.
type groupLag struct {
	h         *Handlers
	maxSeries int

	mu  sync.Mutex
	cut bool // the log says that some are left out
}

const (
	// lagOpens and lagOpenTimeout bound the logs that one scrape opens: those of
	// partitions that nobody has read or written since the start.
	lagOpens       = 256
	lagOpenTimeout = 2 * time.Second
)

var (
	lagDesc = prometheus.NewDesc("quire_group_lag",
		"Records between a group's committed offset and the end of the partition.", []string{"group", "topic", "partition"}, nil)
	lagLeftOutDesc = prometheus.NewDesc("quire_group_lag_left_out",
		"Partitions of groups whose lag is not told: beyond metrics.group.lag.max.series, not open yet, or of a group whose name is not UTF-8.", nil, nil)
)

// GroupLag collects the lag of the groups of this node (metrics.group.lag), for
// as many partitions of groups as maxSeries.
func (h *Handlers) GroupLag(maxSeries int) prometheus.Collector {
	return &groupLag{h: h, maxSeries: maxSeries}
}

// Describe implements prometheus.Collector.
func (l *groupLag) Describe(descs chan<- *prometheus.Desc) {
	descs <- lagDesc
	descs <- lagLeftOutDesc
}

// Collect implements prometheus.Collector.
func (l *groupLag) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(l.h.ctx, lagOpenTimeout)
	defer cancel()
	told, leftOut, opens := 0, 0, lagOpens
	for group, committed := range l.h.c.Coordinator.Groups().AllCommitted() {
		topic := l.h.c.Coordinator.TopicByID(committed.Topic)
		if topic == nil {
			continue // deleted, and its offsets soon
		}
		number := committed.Partition.Partition
		if told == l.maxSeries || !utf8.ValidString(group) {
			leftOut++
			continue
		}
		log := l.h.c.Store.Log(storage.LogID{Topic: topic.ID, Partition: number})
		if log == nil && opens > 0 && ctx.Err() == nil {
			opens--
			// One that does not open is left out; whoever needs it says why.
			log, _ = l.h.openLog(ctx, topic, number)
		}
		if log == nil {
			leftOut++
			continue
		}
		_, _, end := log.Offsets()
		metrics <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue,
			float64(end-committed.Offset.Offset), group, topic.Name, strconv.Itoa(int(number)))
		told++
	}
	metrics <- prometheus.MustNewConstMetric(lagLeftOutDesc, prometheus.GaugeValue, float64(leftOut))
	l.note(told == l.maxSeries && leftOut > 0, leftOut)
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
