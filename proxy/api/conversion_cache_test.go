package api

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage"
)

func counted(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	check(t, r.Register(c))
	families, err := r.Gather()
	check(t, err)
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

func made(n int) func() (*buffer.Buffer, error) {
	return func() (*buffer.Buffer, error) { return buffer.Get(n), nil }
}

func never(t testing.TB) func() (*buffer.Buffer, error) {
	return func() (*buffer.Buffer, error) {
		t.Error("converted again")
		return nil, errors.New("converted again")
	}
}

// noBuffers fails the test if it leaves buffers in use.
func noBuffers(t testing.TB) {
	before := buffer.InUseBytes()
	t.Cleanup(func() {
		if n := buffer.InUseBytes() - before; n != 0 {
			t.Errorf("%d bytes of buffers are not released", n)
		}
	})
}

func TestConversionCacheSingleFlight(t *testing.T) {
	noBuffers(t)
	c := newConversionCache(1 << 20)
	key := conversionKey{offset: 7, magic: 1}
	begun, finish := make(chan struct{}), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		b, err := c.get(t.Context(), key, func() (*buffer.Buffer, error) {
			close(begun)
			<-finish
			return buffer.Get(5000), nil
		})
		if err != nil {
			t.Error(err)
			return
		}
		b.Release()
	})
	<-begun
	// One that gives up, before it is ready, takes nothing with it.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.get(gone, key, never(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter that was cancelled got %v", err)
	}
	for range 50 {
		done.Go(func() {
			b, err := c.get(t.Context(), key, never(t))
			if err != nil || len(b.B) != 5000 {
				t.Errorf("a waiter got %v", err)
				return
			}
			b.Release()
		})
	}
	close(finish)
	done.Wait()
	c.clear()
}

func TestConversionCacheErrors(t *testing.T) {
	noBuffers(t)
	c := newConversionCache(1 << 20)
	key := conversionKey{offset: 7}
	failed := errors.New("failed")
	for range 2 { // an error is not remembered
		if _, err := c.get(t.Context(), key, func() (*buffer.Buffer, error) { return nil, failed }); !errors.Is(err, failed) {
			t.Fatalf("got %v", err)
		}
	}
	// A converter whose own time is up fails alone: who waits for it converts.
	begun, finish := make(chan struct{}), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		_, err := c.get(t.Context(), key, func() (*buffer.Buffer, error) {
			close(begun)
			<-finish
			return nil, context.DeadlineExceeded
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the converter got %v", err)
		}
	})
	<-begun
	done.Go(func() {
		b, err := c.get(t.Context(), key, made(10))
		if err != nil {
			t.Errorf("who waited got %v", err)
			return
		}
		b.Release()
	})
	close(finish)
	done.Wait()
	// Nothing left of a batch is remembered like anything else.
	empty := conversionKey{offset: 8}
	if b, err := c.get(t.Context(), empty, func() (*buffer.Buffer, error) { return nil, nil }); b != nil || err != nil {
		t.Errorf("got %v, %v", b, err)
	}
	if b, err := c.get(t.Context(), empty, never(t)); b != nil || err != nil {
		t.Errorf("got %v, %v", b, err)
	}
	c.clear()
	if c.size() != 0 || len(c.entries) != 0 {
		t.Errorf("%d bytes in %d entries after clear", c.size(), len(c.entries))
	}
}

func TestConversionCacheKeepsTheLastUsed(t *testing.T) {
	noBuffers(t)
	c := newConversionCache(4 * (1024 + conversionOverhead))
	get := func(offset int64, convert func() (*buffer.Buffer, error)) {
		t.Helper()
		b, err := c.get(t.Context(), conversionKey{offset: offset}, convert)
		check(t, err)
		b.Release()
	}
	for offset := range int64(4) {
		get(offset, made(1000))
	}
	get(0, never(t))
	get(4, made(1000)) // in place of 1
	get(0, never(t))
	get(2, never(t))
	get(3, never(t))
	get(4, never(t))
	get(1, made(1000)) // in place of 0
	get(2, never(t))
	// Magics and logs are apart.
	for _, key := range []conversionKey{{offset: 2, magic: 1}, {offset: 2, log: storage.LogID{Partition: 1}}} {
		b, err := c.get(t.Context(), key, made(1))
		check(t, err)
		b.Release()
	}
	// What is larger than all is not kept, and puts nothing out.
	before := c.size()
	get(9, made(100_000))
	get(9, made(100_000))
	if c.size() != before || len(c.entries) != c.recent.Len() {
		t.Errorf("%d bytes, before %d; %d entries of %d", c.size(), before, c.recent.Len(), len(c.entries))
	}
	c.clear()

	none := newConversionCache(-1)
	for range 2 {
		b, err := none.get(t.Context(), conversionKey{}, made(1))
		check(t, err)
		b.Release()
	}
	if n := counted(t, none.misses); n != 2 || none.size() != 0 {
		t.Errorf("without a cache: %v conversions of 2, %d bytes", n, none.size())
	}
}

// TestConversionCacheConcurrently: whatever many readers do, the bound holds and
// every buffer is given back.
func TestConversionCacheConcurrently(t *testing.T) {
	noBuffers(t)
	const most = 20_000
	c := newConversionCache(most)
	var done sync.WaitGroup
	for i := range 8 {
		done.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 3000 {
				offset := r.Int64N(40)
				ctx, cancel := context.WithCancel(t.Context())
				if r.IntN(4) == 0 {
					cancel()
				}
				b, err := c.get(ctx, conversionKey{offset: offset}, func() (*buffer.Buffer, error) {
					if r.IntN(5) == 0 {
						return nil, context.Canceled
					}
					b := buffer.Get(500 + int(offset)*50)
					b.B[0] = byte(offset)
					return b, nil
				})
				if err == nil {
					if b.B[0] != byte(offset) {
						t.Error("another batch's bytes")
					}
					b.Release()
				}
				if n := c.size(); n > most {
					t.Errorf("%d bytes are kept, at most %d may be", n, most)
				}
				cancel()
			}
		})
	}
	done.Wait()
	c.clear()
}
