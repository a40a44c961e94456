package coordinator

import (
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quirelog/quire/coordinator/group"
)

// groupStates are the states that groups in memory are counted by.
var groupStates = []group.State{
	group.Empty, group.PreparingRebalance, group.CompletingRebalance, group.Stable, group.Dead, group.Assigning, group.Reconciling,
}

// groupMetrics are those of the groups; commits are counted by package offsets.
type groupMetrics struct {
	registerer  prometheus.Registerer
	list        []prometheus.Collector
	rebalances  prometheus.Counter
	expired     prometheus.Counter
	refused     prometheus.Counter
	unreadable  prometheus.Counter
	loadSeconds prometheus.Histogram
	states      map[group.State]*atomic.Int64
}

func newGroupMetrics(registerer prometheus.Registerer) (*groupMetrics, error) {
	m := &groupMetrics{
		registerer: registerer,
		rebalances: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_group_rebalances_total", Help: "Rebalances of groups that began."}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_offsets_expired_total", Help: "Committed offsets removed since nobody needed them for their retention, or their topic was deleted."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_group_requests_refused_total", Help: "Requests of groups refused since too many waited."}),
		unreadable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_group_keys_unreadable_total", Help: "Keys of groups and offsets found that cannot be read; the log names them."}),
		loadSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "quire_slot_load_seconds", Help: "Time to read a slot's groups and offsets.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9)}),
		states: make(map[group.State]*atomic.Int64, len(groupStates)),
	}
	m.list = []prometheus.Collector{m.rebalances, m.expired, m.refused, m.unreadable, m.loadSeconds}
	for _, state := range groupStates {
		n := new(atomic.Int64)
		m.states[state] = n
		m.list = append(m.list, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quire_groups", Help: "Groups by state.", ConstLabels: prometheus.Labels{"state": string(state)},
		}, func() float64 { return float64(n.Load()) }))
	}
	if registerer == nil {
		return m, nil
	}
	for i, c := range m.list {
		if err := registerer.Register(c); err != nil {
			m.list = m.list[:i]
			m.unregister()
			return nil, fmt.Errorf("group metrics: %w", err)
		}
	}
	return m, nil
}

func (m *groupMetrics) unregister() {
	if m.registerer != nil {
		for _, c := range m.list {
			m.registerer.Unregister(c)
		}
	}
}

// count counts a group by its state, and its rebalance if one has begun.
func (s *shard) count(e *entry) {
	state := e.group.State()
	rebalancing := state == group.PreparingRebalance || state == group.CompletingRebalance ||
		state == group.Assigning || state == group.Reconciling
	if rebalancing && !e.rebalancing {
		s.g.metrics.rebalances.Inc()
	}
	e.rebalancing = rebalancing
	if state == e.state {
		return
	}
	s.uncount(e)
	e.state = state
	if n := s.g.metrics.states[state]; n != nil {
		n.Add(1)
	}
}

// uncount takes back what count has counted.
func (s *shard) uncount(e *entry) {
	if n := s.g.metrics.states[e.state]; n != nil {
		n.Add(-1)
	}
	e.state = ""
}
