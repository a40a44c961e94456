package coordinator

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// slotMetrics are those of the slots and of the lease that they hang on.
type slotMetrics struct {
	registerer      prometheus.Registerer
	list            []prometheus.Collector
	claims          prometheus.Counter
	handovers       *prometheus.CounterVec
	handoverSeconds prometheus.Histogram
}

func newSlotMetrics(registerer prometheus.Registerer, c *Coordinator) (*slotMetrics, error) {
	m := &slotMetrics{
		registerer: registerer,
		claims: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_slot_claims_total", Help: "Slots that this node has claimed: nobody had them, or a node that was gone."}),
		handovers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quire_slot_handovers_total", Help: "Slots that this node was to hand over, by result: done, resumed since it was not possible in time, lost to somebody else meanwhile."}, []string{"result"}),
		handoverSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "quire_slot_handover_seconds", Help: "Time from the end of a slot's service here until it belongs to the next node.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 10)}),
	}
	for _, result := range []string{"done", "resumed", "lost"} {
		m.handovers.WithLabelValues(result)
	}
	m.list = []prometheus.Collector{m.claims, m.handovers, m.handoverSeconds,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_owned_slots", Help: "Slots of partitions and groups that this node owns.",
		}, func() float64 { return float64(c.slots.owned()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_lease_valid_seconds", Help: "For how long this node's lease is known to last, so that it may answer from memory. 0: each answer asks the metadata store.",
		}, func() float64 {
			if c.registration == nil {
				return 0
			}
			return c.registration.remaining().Seconds()
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_routes_age_seconds", Help: "Since when the owners of slots were neither read nor seen to change. They are read every few minutes.",
		}, func() float64 {
			return (c.now().monotonic.Seconds() - float64(c.slots.seen.Load())/1e9)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_nodes", Help: "Nodes on the list of live nodes, this one included.",
		}, func() float64 { return float64(len(c.Nodes())) }),
	}
	if registerer == nil {
		return m, nil
	}
	for i, metric := range m.list {
		if err := registerer.Register(metric); err != nil {
			m.list = m.list[:i]
			m.unregister()
			return nil, fmt.Errorf("slot metrics: %w", err)
		}
	}
	return m, nil
}

func (m *slotMetrics) unregister() {
	if m != nil && m.registerer != nil {
		for _, c := range m.list {
			m.registerer.Unregister(c)
		}
	}
}
