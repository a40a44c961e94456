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

// traffic is what is counted of the connections of clients, and of those from
// other nodes. Children of labels are resolved at the first use of an API and
// kept, since a lookup costs more than the rest of counting.
type traffic struct {
	connections prometheus.Gauge
	paused      prometheus.Gauge
	bytesIn     prometheus.Counter
	bytesOut    prometheus.Counter

	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	byKey    [maxKnownKey + 1]atomic.Pointer[apiMetrics]
}

// trafficNames are the names of a traffic's metrics.
type trafficNames struct {
	connections, paused, bytesIn, bytesOut, requests, seconds string
}

// newTraffic makes the metrics of the connections of who.
func newTraffic(who string, names trafficNames) *traffic {
	return &traffic{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: names.connections, Help: "Open connections of " + who + "."}),
		paused: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: names.paused,
			Help: "Connections of " + who + " that are not read from since a limit is reached or they are about to close."}),
		bytesIn: prometheus.NewCounter(prometheus.CounterOpts{
			Name: names.bytesIn, Help: "Bytes read from " + who + "."}),
		bytesOut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: names.bytesOut, Help: "Bytes written to " + who + "."}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: names.requests, Help: "Requests of " + who + " answered."}, []string{"api"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    names.seconds,
			Help:    "Time from the last byte in of a request of " + who + " to its answer's last byte out.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18),
		}, []string{"api"}),
	}
}

// metrics are a server's.
type metrics struct {
	clients      *traffic
	peers        *traffic
	acceptErrors prometheus.Counter
	rejected     *prometheus.CounterVec

	reg  prometheus.Registerer
	list []prometheus.Collector
}

func newMetrics(reg prometheus.Registerer, s *Server) (*metrics, error) {
	m := &metrics{
		reg: reg,
		clients: newTraffic("clients", trafficNames{
			connections: "quire_connections", paused: "quire_connections_paused",
			bytesIn: "quire_network_read_bytes_total", bytesOut: "quire_network_written_bytes_total",
			requests: "quire_kafka_requests_total", seconds: "quire_kafka_request_seconds",
		}),
		peers: newTraffic("other nodes", trafficNames{
			connections: "quire_peer_connections", paused: "quire_peer_connections_paused",
			bytesIn: "quire_peer_read_bytes_total", bytesOut: "quire_peer_written_bytes_total",
			requests: "quire_peer_requests_total", seconds: "quire_peer_request_seconds",
		}),
		acceptErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_accept_errors_total", Help: "Failures to accept a connection."}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quire_connections_rejected_total", Help: "Connections closed at once, by the setting that has them closed."}, []string{"reason"}),
	}
	m.list = []prometheus.Collector{m.acceptErrors, m.rejected,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_request_bytes", Help: "Bytes of requests received or being received and not yet answered.",
		}, func() float64 { return float64(s.budget.used.Load() + s.peers.used.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_worker_queue", Help: "Blocking functions of requests that wait for a worker.",
		}, func() float64 { return float64(s.workers.length() + s.slow.length()) }),
	}
	for _, t := range [...]*traffic{m.clients, m.peers} {
		m.list = append(m.list, t.connections, t.paused, t.bytesIn, t.bytesOut, t.requests, t.seconds)
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

func (m *traffic) served(r *Request, now time.Time) {
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
