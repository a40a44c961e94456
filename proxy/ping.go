package proxy

import (
	"context"
	"fmt"

	"github.com/quirelog/quire/proxy/loop"
)

// NewPing returns a health check: it returns nil once every event loop has
// turned, or an error if one of them does not before ctx ends. Any goroutine
// may call it; calls take turns. A loop that is stuck holds one task of it,
// however often it is called.
func (s *Server) NewPing() func(ctx context.Context) error {
	type probe struct {
		task   loop.Task
		turned chan struct{}
	}
	probes := make([]*probe, len(s.loops))
	for i := range probes {
		p := &probe{turned: make(chan struct{}, 1)}
		p.task.Run = func() {
			select {
			case p.turned <- struct{}{}:
			default: // an earlier ping gave up waiting for it
			}
		}
		probes[i] = p
	}
	turn := make(chan struct{}, 1)
	return func(ctx context.Context) error {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return fmt.Errorf("event loops: %w", ctx.Err())
		}
		for i, p := range probes {
			select {
			case <-p.turned: // of an earlier ping
			default:
			}
			if !s.loops[i].Post(&p.task) {
				return fmt.Errorf("event loop %d: %w", i, loop.ErrStopped)
			}
		}
		for i, p := range probes {
			select {
			case <-p.turned:
			case <-ctx.Done():
				return fmt.Errorf("event loop %d does not turn: %w", i, ctx.Err())
			}
		}
		return nil
	}
}
