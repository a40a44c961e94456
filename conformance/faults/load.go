package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quirelog/quire/conformance/check"
)

// maxOutstanding is how many records of one producer may be unanswered. The
// load waits beyond it, so an outage costs bounded memory.
const maxOutstanding = 5000

// A load is one producer that sends unique records to all partitions at a
// steady rate and writes down every send and every answer.
type load struct {
	library    string
	number     uint16
	producer   producer
	partitions []check.Partition
	perSecond  int
	epoch      time.Time // zero of the recorder's clock
	acked      *atomic.Int64

	sends map[check.Partition][]check.Send // run's goroutine only

	mu       sync.Mutex
	acks     map[check.Partition][]check.Ack
	failures int
	failure  error // the first

}

func (l *load) now() int64 { return int64(time.Since(l.epoch)) }

// run sends until ctx ends, then waits for every answer.
func (l *load) run(ctx context.Context, flushTimeout time.Duration) error {
	const interval = 10 * time.Millisecond
	perInterval := max(1, l.perSecond/int(time.Second/interval))
	rng := rand.New(rand.NewPCG(uint64(l.number), uint64(l.epoch.UnixNano())))
	room := make(chan struct{}, maxOutstanding)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var sequence uint64
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-tick.C:
		}
		for range perInterval {
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				continue
			}
			p := l.partitions[rng.IntN(len(l.partitions))]
			id := check.NewID(l.number, sequence)
			sequence++
			value := encodeValue(id)
			l.sends[p] = append(l.sends[p], check.Send{ID: id, At: l.now()})
			err := l.producer.send(p, value, func(offset int64, err error) {
				l.answered(p, id, offset, err)
				<-room
			})
			if err != nil {
				return fmt.Errorf("%s: send record %s: %w", l.library, id, err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := l.producer.flush(ctx); err != nil {
		return fmt.Errorf("%s: records unanswered %s after the last restart: %w", l.library, flushTimeout, err)
	}
	return nil
}

func (l *load) answered(p check.Partition, id check.ID, offset int64, err error) {
	at := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if l.failures++; l.failure == nil {
			l.failure = fmt.Errorf("%s: record %s to %s: %w", l.library, id, p, err)
		}
		return
	}
	l.acks[p] = append(l.acks[p], check.Ack{ID: id, Offset: offset, At: at})
	l.acked.Add(1)
}
