package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// A fault is one use of a nemesis as the report tells it.
type fault struct {
	Nemesis string
	What    string
	From    time.Duration // on the history's clock
	To      time.Duration // when it was healed
	Stall   time.Duration // longest time without an acknowledgement of some partition, which began in it or soon after
	Err     string        `json:",omitempty"`
}

// harm does harm until the plan's time is over. Every fault is healed when it
// returns.
func (r *run) harm(ctx context.Context) error {
	chosen := r.plan.usable()
	if len(chosen) == 0 {
		wait(ctx, r.plan.duration)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.plan.duration)
	defer cancel()
	errs := make([]error, r.plan.parallel)
	var running sync.WaitGroup
	for i := range r.plan.parallel {
		rng := rand.New(rand.NewPCG(r.plan.seed, uint64(i)+1))
		running.Go(func() {
			defer cancel()
			errs[i] = r.harmer(ctx, rng, chosen, i)
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// usable are the chosen nemeses that this machine and this cluster can produce.
func (p *plan) usable() []nemesis {
	var usable []nemesis
	for _, n := range p.chosen {
		if n.network && !peer.Isolated() {
			p.logf("left out: %s needs networks of its own", n.name)
			continue
		}
		usable = append(usable, n)
	}
	return usable
}

func (r *run) harmer(ctx context.Context, rng *rand.Rand, chosen []nemesis, turn int) error {
	for ctx.Err() == nil {
		wait(ctx, r.plan.minGap+time.Duration(rng.Int64N(int64(r.plan.maxGap-r.plan.minGap)+1)))
		if ctx.Err() != nil {
			return nil
		}
		n := chosen[rng.IntN(len(chosen))]
		if r.plan.inTurn {
			n = chosen[turn%len(chosen)]
			turn += r.plan.parallel
		}
		h := &harm{c: r.cluster, p: r.plan, rng: rand.New(rand.NewPCG(rng.Uint64(), 0))}
		err := n.do(ctx, h)
		r.cluster.release(h.taken...)
		if errors.Is(err, errBusy) {
			continue
		}
		f := fault{Nemesis: n.name, What: h.what, From: h.from.Sub(r.epoch), To: time.Since(r.epoch)}
		if err != nil {
			f.Err = err.Error()
		}
		r.add(f)
		r.plan.logf("%7.1f s  %-18s %s for %.1f s, %d acknowledged", f.From.Seconds(), f.Nemesis, f.What, (f.To - f.From).Seconds(), r.acked.Load())
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	return nil
}
