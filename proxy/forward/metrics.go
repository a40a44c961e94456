package forward

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// outcomes are the labels of calls by what became of them.
var outcomes = [...]string{"answered", "silent", "not_served", "dropped", "unreachable", "lost", "busy", "too_large"}

type metrics struct {
	links       prometheus.Gauge
	calls       prometheus.Gauge
	bytesIn     prometheus.Counter
	bytesOut    prometheus.Counter
	dialsFailed prometheus.Counter
	seconds     prometheus.Histogram
	ends        [len(outcomes)]prometheus.Counter

	reg  prometheus.Registerer
	list []prometheus.Collector
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		reg: reg,
		links: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "quire_forward_links", Help: "Connections to other nodes by which requests are forwarded."}),
		calls: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "quire_forward_calls", Help: "Requests forwarded to other nodes and not yet answered."}),
		bytesIn: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_forward_read_bytes_total", Help: "Bytes of answers read from other nodes."}),
		bytesOut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_forward_written_bytes_total", Help: "Bytes of requests written to other nodes."}),
		dialsFailed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_forward_dial_errors_total", Help: "Failures to connect to another node."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "quire_forward_call_seconds",
			Help:    "Time from the forwarding of a request to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18),
		}),
	}
	ends := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quire_forward_calls_total", Help: "Requests forwarded to other nodes, by what became of them."}, []string{"outcome"})
	for i, o := range outcomes {
		m.ends[i] = ends.WithLabelValues(o)
	}
	m.list = []prometheus.Collector{m.links, m.calls, m.bytesIn, m.bytesOut, m.dialsFailed, m.seconds, ends}
	if reg == nil {
		return m, nil
	}
	for i, c := range m.list {
		if err := reg.Register(c); err != nil {
			m.list = m.list[:i]
			m.unregister()
			return nil, fmt.Errorf("metrics of links: %w", err)
		}
	}
	return m, nil
}

// ended counts a call that is over.
func (m *metrics) ended(c *Call, a *Answer) {
	m.calls.Dec()
	m.ends[outcome(a)].Inc()
	if a.Status < Failed {
		m.seconds.Observe(time.Since(c.link.since).Seconds())
	}
}

func outcome(a *Answer) int {
	switch {
	case a.Status < Failed:
		return int(a.Status)
	case errors.Is(a.Err, ErrBusy):
		return 6
	case errors.Is(a.Err, ErrTooLarge):
		return 7
	case errors.Is(a.Err, ErrUnreachable):
		return 4
	}
	return 5
}

func (m *metrics) unregister() {
	if m.reg != nil {
		for _, c := range m.list {
			m.reg.Unregister(c)
		}
	}
}
