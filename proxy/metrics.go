package proxy

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxKnownKey bounds the API keys that are counted.
const maxKnownKey = 127

type apiMetrics struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
}

// metrics are a server's. Children of labels are resolved at the first use of
// an API and kept, since a lookup costs more than the rest of counting.
type metrics struct {
	connections  prometheus.Gauge
	paused       prometheus.Gauge
	bytesIn      prometheus.Counter
	bytesOut     prometheus.Counter
	acceptErrors prometheus.Counter
	rejected     *prometheus.CounterVec

	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	byKey    [maxKnownKey + 1]atomic.Pointer[apiMetrics]

	reg  prometheus.Registerer
	list []prometheus.Collector
}

func newMetrics(reg prometheus.Registerer, s *Server) (*metrics, error) {
	m := &metrics{
		reg: reg,
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "quire_connections", Help: "Open client connections."}),
		paused: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "quire_connections_paused", Help: "Connections that are not read from since a limit is reached or they are about to close."}),
		bytesIn: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_network_read_bytes_total", Help: "Bytes read from clients."}),
		bytesOut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_network_written_bytes_total", Help: "Bytes written to clients."}),
		acceptErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_accept_errors_total", Help: "Failures to accept a connection."}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quire_connections_rejected_total", Help: "Connections closed at once, by the setting that has them closed."}, []string{"reason"}),
	}
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quire_kafka_requests_total", Help: "Requests answered."}, []string{"api"})
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "quire_kafka_request_seconds",
		Help:    "Time from a request's last byte in to its answer's last byte out.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18),
	}, []string{"api"})
	m.list = []prometheus.Collector{m.connections, m.paused, m.bytesIn, m.bytesOut, m.acceptErrors, m.rejected, m.requests, m.seconds,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_request_bytes", Help: "Bytes of requests received or being received and not yet answered.",
		}, func() float64 { return float64(s.budget.used.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_worker_queue", Help: "Blocking functions of requests that wait for a worker.",
		}, func() float64 { return float64(s.workers.length()) }),
	}
	if reg == nil {
		return m, nil
	}
	for i, c := range m.list {
		if err := reg.Register(c); err != nil {
			m.list = m.list[:i]
			m.unregister()
			return nil, fmt.Errorf("proxy metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) served(r *Request, now time.Time) {
	if r.Key < 0 || r.Key > maxKnownKey {
		return
	}
	a := m.byKey[r.Key].Load()
	if a == nil {
		name := kmsg.NameForKey(r.Key)
		a = &apiMetrics{m.requests.WithLabelValues(name), m.seconds.WithLabelValues(name)}
		m.byKey[r.Key].Store(a)
	}
	a.requests.Inc()
	a.seconds.Observe(now.Sub(r.Received).Seconds())
}

func (m *metrics) unregister() {
	if m.reg != nil {
		for _, c := range m.list {
			m.reg.Unregister(c)
		}
	}
}
