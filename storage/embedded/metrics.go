package embedded

import (
	"errors"
	"math"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	fsyncSeconds      prometheus.Histogram
	groupBytes        prometheus.Histogram
	checkpointSeconds prometheus.Histogram
	journalBytes      prometheus.Counter
	journalFailures   prometheus.Counter
	corruptEntries    prometheus.Counter

	reg prometheus.Registerer
	all []prometheus.Collector
}

func newMetrics(t *Tier) (*metrics, error) {
	m := &metrics{
		fsyncSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "quire_journal_fsync_seconds", Help: "Time of one sync of the journal.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 18),
		}),
		groupBytes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "quire_journal_group_bytes", Help: "Bytes made durable by one sync of the journal.",
			Buckets: prometheus.ExponentialBuckets(1<<10, 4, 10),
		}),
		checkpointSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "quire_checkpoint_seconds", Help: "Time of one checkpoint of the ledger files.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}),
		journalBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_journal_bytes_total", Help: "Bytes written to the journal.",
		}),
		journalFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_journal_failures_total", Help: "Writes or syncs of the journal that failed.",
		}),
		corruptEntries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_ledger_corrupt_entries_total", Help: "Reads that met bytes which do not match their checksum.",
		}),
		reg: t.c.Registerer,
	}
	m.all = []prometheus.Collector{
		m.fsyncSeconds, m.groupBytes, m.checkpointSeconds, m.journalBytes, m.journalFailures, m.corruptEntries,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_disk_free_bytes", Help: "Free bytes on the file system of the ledgers; NaN if it does not tell.",
		}, func() float64 {
			free, err := t.fs.FreeBytes(t.c.Dir)
			if err != nil {
				return math.NaN()
			}
			return float64(free)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_journal_queue_bytes", Help: "Bytes waiting for the journal.",
		}, func() float64 { return float64(t.journal.queueBytes.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_ledger_backlog_bytes", Help: "Memory held by bytes in the journal that are not in ledger files yet.",
		}, func() float64 { return float64(t.chunks.backlogBytes()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_ledgers", Help: "Ledgers stored.",
		}, func() float64 { return float64(t.count.Load()) }),
	}
	if m.reg == nil {
		return m, nil
	}
	for i, c := range m.all {
		if err := m.reg.Register(c); err != nil {
			for _, c := range m.all[:i] {
				m.reg.Unregister(c)
			}
			return nil, errors.Join(errors.New("ledger store: register metrics"), err)
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}
