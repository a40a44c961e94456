package storage

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are of all logs together; labels per topic would grow without bound.
type metrics struct {
	registerer  prometheus.Registerer
	all         []prometheus.Collector
	openSeconds prometheus.Histogram
	appendBytes prometheus.Counter
	fetchCache  prometheus.Counter
	fetchLedger prometheus.Counter
	openLogs    prometheus.Gauge
	fenced      prometheus.Counter
}

func newMetrics(s *Store) (*metrics, error) {
	fetch := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quire_fetch_bytes_total", Help: "Bytes of batches read from logs, by where they were found.",
	}, []string{"source"})
	m := &metrics{
		registerer: s.c.Registerer,
		openSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "quire_partition_open_seconds", Help: "Time to open a log.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
		appendBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_append_bytes_total", Help: "Bytes of batches appended to logs and durable.",
		}),
		fetchCache:  fetch.WithLabelValues("cache"),
		fetchLedger: fetch.WithLabelValues("ledger"),
		openLogs:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "quire_open_logs", Help: "Logs that are open on this node."}),
		fenced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_fenced_total", Help: "Logs closed because somebody else opened them.",
		}),
	}
	tail := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "quire_tail_cache_bytes", Help: "Bytes that recent batches keep in memory.",
	}, func() float64 { return float64(s.tail.size()) })
	if m.registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.openSeconds, m.appendBytes, fetch, m.openLogs, m.fenced, tail} {
		if err := m.registerer.Register(c); err != nil {
			m.unregister()
			return nil, fmt.Errorf("register the metrics of storage: %w", err)
		}
		m.all = append(m.all, c)
	}
	return m, nil
}

func (m *metrics) unregister() {
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
	m.all = nil
}
