package bookkeeper

import (
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quirelog/quire/storage/bookkeeper/bookie"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

type metrics struct {
	addSeconds  *prometheus.HistogramVec
	readSeconds *prometheus.HistogramVec
	errors      *prometheus.CounterVec

	ensembleChanges prometheus.Counter
	recoveries      prometheus.Counter
	corruptEntries  prometheus.Counter
	underReplicated prometheus.Gauge

	reg prometheus.Registerer
	all []prometheus.Collector
}

// outstanding collects the requests under way to each bookie when it is asked.
type outstanding struct {
	t    *Tier
	desc *prometheus.Desc
}

func (o outstanding) Describe(ch chan<- *prometheus.Desc) { ch <- o.desc }

func (o outstanding) Collect(ch chan<- prometheus.Metric) {
	m := o.t.members
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, b := range m.all {
		s := b.client.Stats()
		ch <- prometheus.MustNewConstMetric(o.desc, prometheus.GaugeValue, float64(s.Adds), string(id), "add")
		ch <- prometheus.MustNewConstMetric(o.desc, prometheus.GaugeValue, float64(s.Reads), string(id), "read")
	}
}

func newMetrics(t *Tier) *metrics {
	seconds := prometheus.ExponentialBuckets(0.0001, 2, 16)
	m := &metrics{
		addSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "quire_bookie_add_seconds", Help: "Time from an add to the bookie's answer.", Buckets: seconds,
		}, []string{"bookie"}),
		readSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "quire_bookie_read_seconds", Help: "Time from a read to the bookie's answer.", Buckets: seconds,
		}, []string{"bookie"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quire_bookie_errors_total", Help: "Requests to the bookie that failed, by reason.",
		}, []string{"bookie", "operation", "reason"}),
		ensembleChanges: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_ledger_ensemble_changes_total", Help: "Changes of the bookies of open ledgers.",
		}),
		recoveries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_ledger_recoveries_total", Help: "Recoveries of ledgers that were begun.",
		}),
		corruptEntries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_bookie_corrupt_entries_total", Help: "Reads of entries that no bookie has intact.",
		}),
		underReplicated: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "quire_ledgers_under_replicated", Help: "Ledgers that wait for AutoRecovery, as of the last look.",
		}),
		reg: t.c.Registerer,
	}
	m.all = []prometheus.Collector{
		m.addSeconds, m.readSeconds, m.errors, m.ensembleChanges, m.recoveries, m.corruptEntries, m.underReplicated,
		outstanding{t, prometheus.NewDesc("quire_bookie_outstanding", "Requests under way to the bookie.", []string{"bookie", "operation"}, nil)},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_bookie_held_bytes", Help: "Bytes of entries held until all their bookies have answered.",
		}, func() float64 { return float64(t.held.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_ledgers_open", Help: "Ledgers that this process writes.",
		}, func() float64 { return float64(len(t.openWriters())) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_ledgers_degraded", Help: "Ledgers that this process writes with fewer copies than they should have.",
		}, func() float64 {
			n := 0
			for _, w := range t.openWriters() {
				if _, degraded := w.ensemble(); degraded {
					n++
				}
			}
			return float64(n)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_bookies_writable", Help: "Bookies that are registered and take entries.",
		}, func() float64 {
			n := 0
			for _, b := range t.members.registry.All() {
				if b.State == metadata.Writable {
					n++
				}
			}
			return float64(n)
		}),
	}
	return m
}

// register comes last in Open: a collector may run at once.
func (m *metrics) register() error {
	if m.reg == nil {
		return nil
	}
	for i, c := range m.all {
		if err := m.reg.Register(c); err != nil {
			for _, c := range m.all[:i] {
				m.reg.Unregister(c)
			}
			return errors.Join(errors.New("bookkeeper: register metrics"), err)
		}
	}
	return nil
}

func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}

// memberMetrics are those of one bookie.
type memberMetrics struct {
	id        string
	add, read prometheus.Observer
	errors    *prometheus.CounterVec
}

func (m *metrics) member(id metadata.BookieID) memberMetrics {
	return memberMetrics{string(id), m.addSeconds.WithLabelValues(string(id)), m.readSeconds.WithLabelValues(string(id)), m.errors}
}

func (m *memberMetrics) observe(op wire.Op, elapsed time.Duration, err error) {
	if err != nil {
		if reason := reasonOf(err); reason != "" {
			m.errors.WithLabelValues(m.id, op.String(), reason).Inc()
		}
		return
	}
	if op == wire.OpAdd {
		m.add.Observe(elapsed.Seconds())
	} else {
		m.read.Observe(elapsed.Seconds())
	}
}

// reasonOf is one of few words for an error; empty if it is none of the bookie's.
func reasonOf(err error) string {
	for _, r := range []struct {
		err  error
		name string
	}{
		{bookie.ErrCanceled, ""}, {bookie.ErrClosed, ""}, {bookie.ErrTimeout, "timeout"}, {bookie.ErrBroken, "broken"},
		{bookie.ErrRefused, "refused"}, {bookie.ErrOverloaded, "overloaded"}, {wire.ErrCorrupt, "corrupt"},
	} {
		if errors.Is(err, r.err) {
			return r.name
		}
	}
	if code, ok := wire.CodeOf(err); ok {
		return strings.ToLower(strings.TrimPrefix(code.String(), "E"))
	}
	return "other"
}
