package offsets

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are of all committers that share them.
type Metrics struct {
	registerer prometheus.Registerer
	registered []prometheus.Collector

	items              *prometheus.CounterVec
	ok                 prometheus.Counter
	queued             prometheus.Gauge
	commitSeconds      prometheus.Histogram
	transactionSeconds prometheus.Histogram
	transactionKeys    prometheus.Histogram
}

// NewMetrics makes and registers them; a nil registerer is fine.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := newMetrics()
	m.registerer = registerer
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.items, m.queued, m.commitSeconds, m.transactionSeconds, m.transactionKeys} {
		if err := registerer.Register(c); err != nil {
			m.Unregister()
			return nil, fmt.Errorf("register the metrics of offsets: %w", err)
		}
		m.registered = append(m.registered, c)
	}
	return m, nil
}

func newMetrics() *Metrics {
	m := &Metrics{
		items: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quire_offsets_commits_total", Help: "Offset commits and group records answered, by outcome.",
		}, []string{"outcome"}),
		queued: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "quire_offsets_queued", Help: "Offset commits and group records that wait for the metadata store.",
		}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "quire_offsets_commit_seconds", Help: "Time from an offset commit or group record to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		transactionSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "quire_offsets_transaction_seconds", Help: "Time of one transaction of a committer, failed ones too.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		transactionKeys: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "quire_offsets_transaction_keys", Help: "Keys written by one transaction of a committer; 0: it only compared.",
			Buckets: []float64{0, 1, 2, 4, 8, 16, 32, 64, 128},
		}),
	}
	m.ok = m.items.WithLabelValues("ok")
	return m
}

// Unregister takes them back.
func (m *Metrics) Unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
	m.registered = nil
}

// outcomes name the errors in quire_offsets_commits_total.
var outcomes = []struct {
	err  error
	name string
}{
	{ErrNotOwner, "not owner"},
	{ErrGroupChanged, "group changed"},
	{ErrUnavailable, "unavailable"},
	{ErrUnknownOutcome, "unknown"},
	{ErrNoSpace, "no space"},
	{ErrTooLarge, "too large"},
	{ErrClosed, "closed"},
	{ErrFormat, "not readable"},
}

func (m *Metrics) answered(it *item, err error) {
	m.queued.Dec()
	if err == nil {
		m.ok.Inc()
		m.commitSeconds.Observe(time.Since(it.queued).Seconds())
		return
	}
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			m.items.WithLabelValues(o.name).Inc()
			return
		}
	}
}

func (m *Metrics) executed(b *batch) { m.transactionKeys.Observe(float64(b.writes)) }
