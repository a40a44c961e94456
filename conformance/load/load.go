// Package load writes unique records with client libraries of several kinds,
// reads them back, and keeps what package check needs: every send and every
// answer with its time, and every record that a reader saw.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quirelog/quire/conformance/check"
)

// MaxOutstanding is how many records of one producer may be unanswered. The
// load waits beyond it, so an outage costs bounded memory.
const MaxOutstanding = 5000

// A Load is one producer that sends unique records to all partitions at a
// steady rate and writes down every send and every answer.
type Load struct {
	library    Library
	number     uint16
	producer   Producer
	partitions []check.Partition
	perSecond  int
	epoch      time.Time // zero of the history's clock
	acked      *atomic.Int64

	sends map[check.Partition][]check.Send // Run's goroutine only

	mu       sync.Mutex
	acks     map[check.Partition][]check.Ack
	refusals map[check.Partition][]check.Refusal
	failures int
	failure  error // the first
}

// Options say what a Load sends.
type Options struct {
	Number     uint16 // of the producer in the history
	Bootstrap  string
	Dir        string // of logs
	Partitions []check.Partition
	PerSecond  int
	Epoch      time.Time     // zero of the history's clock
	Acked      *atomic.Int64 // counts the acknowledgements of all loads; may be nil
}

// New opens a producer of the library called name. End it by Close.
func New(ctx context.Context, name string, o Options) (*Load, error) {
	library, ok := Libraries[name]
	if !ok {
		return nil, fmt.Errorf("unknown client library %q", name)
	}
	producer, err := library.Open(ctx, o.Bootstrap, o.Dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Load{
		library: library, number: o.Number, producer: producer, partitions: o.Partitions,
		perSecond: o.PerSecond, epoch: o.Epoch, acked: o.Acked,
		sends: map[check.Partition][]check.Send{}, acks: map[check.Partition][]check.Ack{}, refusals: map[check.Partition][]check.Refusal{},
	}, nil
}

// Name is the producer's library and setting.
func (l *Load) Name() string { return l.library.Name }

// Close ends the producer.
func (l *Load) Close() { l.producer.Close() }

func (l *Load) now() int64 { return int64(time.Since(l.epoch)) }

// Run sends until ctx ends, then waits for every answer.
func (l *Load) Run(ctx context.Context, flushTimeout time.Duration) error {
	const interval = 10 * time.Millisecond
	perInterval := max(1, l.perSecond/int(time.Second/interval))
	every := max(1, int(time.Second/interval)/max(1, l.perSecond)) // intervals to a lot
	rng := rand.New(rand.NewPCG(uint64(l.number), uint64(l.epoch.UnixNano())))
	room := make(chan struct{}, MaxOutstanding)
	tick := time.NewTicker(interval * time.Duration(every))
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
			value := EncodeValue(id)
			l.sends[p] = append(l.sends[p], check.Send{ID: id, At: l.now()})
			err := l.producer.Send(p, value, func(offset int64, err error) {
				l.answered(p, id, offset, err)
				<-room
			})
			if err != nil {
				return fmt.Errorf("%s: send record %s: %w", l.library.Name, id, err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := l.producer.Flush(ctx); err != nil {
		return fmt.Errorf("%s: records unanswered %s after the end of all faults: %w", l.library.Name, flushTimeout, err)
	}
	return nil
}

func (l *Load) answered(p check.Partition, id check.ID, offset int64, err error) {
	at := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.acks[p] = append(l.acks[p], check.Ack{ID: id, Offset: offset, At: at})
		if l.acked != nil {
			l.acked.Add(1)
		}
	case Refused(err):
		l.refusals[p] = append(l.refusals[p], check.Refusal{ID: id, At: at, Why: err.Error()})
	case l.library.Once:
		// Nobody knows what became of it.
	default:
		if l.failures++; l.failure == nil {
			l.failure = fmt.Errorf("%s: record %s to %s: %w", l.library.Name, id, p, err)
		}
	}
}

// LastAck is when a record of a partition was last acknowledged to this producer;
// 0: never.
func (l *Load) LastAck(p check.Partition) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if acks := l.acks[p]; len(acks) > 0 {
		return acks[len(acks)-1].At
	}
	return 0
}

// Failures is how many records the library gave up without being refused, and
// why the first of them.
func (l *Load) Failures() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failures, l.failure
}

// Waits are the times from each send between two times of the history's clock to its
// acknowledgement, the shortest first. Run must have ended.
func (l *Load) Waits(from, to time.Duration) []time.Duration {
	sent := map[check.ID]int64{}
	for _, sends := range l.sends {
		for _, s := range sends {
			if s.At >= int64(from) && s.At < int64(to) {
				sent[s.ID] = s.At
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var waits []time.Duration
	for _, acks := range l.acks {
		for _, a := range acks {
			if at, ok := sent[a.ID]; ok {
				waits = append(waits, time.Duration(a.At-at))
			}
		}
	}
	slices.Sort(waits)
	return waits
}

// FirstFailure is the first record that any of the loads gave up.
func FirstFailure(loads []*Load) error {
	for _, l := range loads {
		if _, err := l.Failures(); err != nil {
			return err
		}
	}
	return nil
}

// RunAll runs loads until ctx ends and every record is answered.
func RunAll(ctx context.Context, loads []*Load, flushTimeout time.Duration) error {
	errs := make([]error, len(loads))
	var running sync.WaitGroup
	for i, l := range loads {
		running.Go(func() { errs[i] = l.Run(ctx, flushTimeout) })
	}
	running.Wait()
	return errors.Join(errs...)
}

// History merges what loads wrote down. They must have ended.
func History(loads []*Load) check.History {
	h := check.History{
		Sends: map[check.Partition][]check.Send{}, Acks: map[check.Partition][]check.Ack{},
		Refusals: map[check.Partition][]check.Refusal{}, Plain: map[uint16]bool{}, Once: map[uint16]bool{},
	}
	for _, l := range loads {
		h.Plain[l.number], h.Once[l.number] = l.library.Plain, l.library.Once
		for p, sends := range l.sends {
			h.Sends[p] = append(h.Sends[p], sends...)
		}
		for p, acks := range l.acks {
			h.Acks[p] = append(h.Acks[p], acks...)
		}
		for p, refusals := range l.refusals {
			h.Refusals[p] = append(h.Refusals[p], refusals...)
		}
	}
	return h
}
