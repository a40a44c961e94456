package api

import (
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// registerMetrics makes the metrics of the handlers known. What the server
// counts of every request is not among them.
func (h *Handlers) registerMetrics() {
	if h.c.Registerer == nil {
		return
	}
	gauge := func(name, help string, value func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	for _, m := range []prometheus.Collector{
		h.cache.hits, h.cache.misses,
		gauge("quire_conversion_cache_bytes", "Bytes of batches kept in the formats of old consumers.", h.cache.size),
		gauge("quire_converted_bytes", "Bytes of batches made of old producers' message sets that are not stored yet.", h.converted.Load),
		gauge("quire_fetched_bytes", "Bytes of records read for answers that are not sent yet.", h.fetched.Load),
	} {
		if err := h.c.Registerer.Register(m); err != nil {
			h.c.Logger.Error("a metric cannot be registered", zap.Error(err))
			continue
		}
		h.metrics = append(h.metrics, m)
	}
}

func (h *Handlers) unregisterMetrics() {
	for _, m := range h.metrics {
		h.c.Registerer.Unregister(m)
	}
	h.metrics = nil
}
