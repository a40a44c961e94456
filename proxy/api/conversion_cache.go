package api

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage"
)

// conversionCache keeps batches in the formats of old consumers, so that a hundred of
// them who read the same cost one conversion. What is asked for while it is being converted
// is waited for. It gives up what was not used for the longest time.
//
// A batch below the high watermark never changes, so nothing is ever outdated. That a
// reader may have it is for the log to say, which is read before.
//
// Its methods may be called from any goroutine; get may block.
type conversionCache struct {
	maxBytes int64

	mu      sync.Mutex
	entries map[conversionKey]*conversion
	recent  list.List // of *conversion, all but those under way; the last used first
	bytes   int64

	hits, misses prometheus.Counter
}

// conversionKey names a batch and the format it is wanted in.
type conversionKey struct {
	log    storage.LogID
	offset int64 // of its first record
	magic  int8
}

// conversion is an entry. What is not under mu does not change once ready is closed.
type conversion struct {
	key     conversionKey
	place   *list.Element // in recent, under mu
	ready   chan struct{}
	waiters int            // under mu; each gets a hold on set when it is ready
	set     *buffer.Buffer // nil if nothing is left of the batch
	err     error
	again   bool // err is the converter's own, others may try
}

// conversionOverhead is what an entry costs beside its bytes.
const conversionOverhead = 256

func (e *conversion) charge() int64 {
	if e.set == nil {
		return conversionOverhead
	}
	return int64(cap(e.set.B)) + conversionOverhead
}

func newConversionCache(maxBytes int64) *conversionCache {
	return &conversionCache{
		maxBytes: maxBytes,
		entries:  make(map[conversionKey]*conversion),
		hits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_conversion_cache_hits_total", Help: "Batches that old consumers found converted, or being converted."}),
		misses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_conversion_cache_misses_total", Help: "Batches that had to be converted for old consumers."}),
	}
}

// get returns what convert makes of the batch, made now or before. The caller releases
// it; nil is nothing left of the batch. An error is not remembered, but for batch.ErrTooLarge:
// it costs the most to find out, its consumer asks again at once, and it stays as it is.
func (c *conversionCache) get(ctx context.Context, key conversionKey, convert func() (*buffer.Buffer, error)) (*buffer.Buffer, error) {
	for {
		c.mu.Lock()
		e := c.entries[key]
		if e == nil {
			return c.fill(key, convert)
		}
		c.hits.Inc()
		if e.place != nil {
			c.recent.MoveToFront(e.place)
			if e.set != nil {
				e.set.Retain()
			}
			c.mu.Unlock()
			return e.set, e.err
		}
		e.waiters++
		c.mu.Unlock()
		if err := c.wait(ctx, e); err != nil {
			return nil, err
		}
		if !e.again {
			return e.set, e.err
		}
	}
}

// fill converts. c.mu is held, and is not when it returns.
func (c *conversionCache) fill(key conversionKey, convert func() (*buffer.Buffer, error)) (*buffer.Buffer, error) {
	c.misses.Inc()
	e := &conversion{key: key, ready: make(chan struct{})}
	c.entries[key] = e
	c.mu.Unlock()

	set, err := convert()

	c.mu.Lock()
	defer c.mu.Unlock()
	e.set, e.err = set, err
	e.again = errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if err != nil && !errors.Is(err, batch.ErrTooLarge) {
		delete(c.entries, key)
		close(e.ready)
		return nil, err
	}
	if set != nil {
		for range e.waiters {
			set.Retain()
		}
	}
	close(e.ready)
	if e.charge() > c.maxBytes {
		delete(c.entries, key)
		return set, err
	}
	if set != nil {
		set.Retain()
	}
	e.place = c.recent.PushFront(e)
	c.bytes += e.charge()
	for c.bytes > c.maxBytes {
		c.drop(c.recent.Back().Value.(*conversion))
	}
	return set, err
}

// wait waits until e is ready. If ctx ends first it gives back what it was promised.
func (c *conversionCache) wait(ctx context.Context, e *conversion) error {
	select {
	case <-e.ready:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-e.ready:
		if e.set != nil {
			e.set.Release()
		}
	default:
		e.waiters--
	}
	return ctx.Err()
}

// drop forgets an entry. c.mu is held.
func (c *conversionCache) drop(e *conversion) {
	c.recent.Remove(e.place)
	delete(c.entries, e.key)
	c.bytes -= e.charge()
	if e.set != nil {
		e.set.Release()
	}
}

// clear forgets everything. Nothing may be under way.
func (c *conversionCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.recent.Len() > 0 {
		c.drop(c.recent.Back().Value.(*conversion))
	}
}

// size returns the bytes that are kept.
func (c *conversionCache) size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}
