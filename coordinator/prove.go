package coordinator

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// proveTimeout bounds one look at the owners of the slots: who cannot be
	// asked within it is away.
	proveTimeout = time.Second
	// maxProofs is how many requests wait for such a look.
	maxProofs = 1 << 16
)

func errNotOwner(slot int) error { return fmt.Errorf("slot %d: %w", slot, ErrNotOwner) }

// prover asks the metadata store who owns slots, for those who may not go by the
// lease. All who ask at a time share one read, which begins after they have asked.
type prover struct {
	c *Coordinator

	mu      sync.Mutex
	waiting []proof
	asking  bool
	closed  bool
}

type proof struct {
	slot int
	done func(error)
}

// prove calls done with what Prove returns, on this goroutine or another. done
// must not block.
func (p *prover) prove(slot int, done func(error)) {
	if !p.add(proof{slot, done}) {
		done(fmt.Errorf("owner of slot %d: %w", slot, ErrUnavailable))
	}
}

func (p *prover) add(a proof) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.waiting) >= maxProofs {
		return false
	}
	p.waiting = append(p.waiting, a)
	if !p.asking {
		p.asking = true
		p.c.background.Add(1)
		go func() {
			defer p.c.background.Done()
			p.ask()
		}()
	}
	return true
}

// wait is prove for who can wait.
func (p *prover) wait(ctx context.Context, slot int) error {
	done := make(chan error, 1)
	p.prove(slot, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return unavailable(fmt.Sprintf("owner of slot %d", slot), ctx.Err())
	}
}

// ask answers those who wait until there are none.
func (p *prover) ask() {
	for {
		p.mu.Lock()
		asked := p.waiting
		p.waiting = nil
		p.asking = len(asked) > 0
		p.mu.Unlock()
		if len(asked) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(p.c.ctx, proveTimeout)
		_, err := p.c.slots.list(ctx)
		cancel()
		for _, a := range asked {
			switch {
			case err != nil:
				a.done(err)
			case !p.c.Route(a.slot).Here:
				a.done(errNotOwner(a.slot))
			default:
				a.done(nil)
			}
		}
	}
}

// close refuses what comes from now on. Those who wait are answered.
func (p *prover) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
}
