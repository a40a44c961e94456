package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// agentServer answers the agent checks of load balancers: whoever connects gets one
// line in the words of HAProxy's agent-check, and that is all.
//
//	up ready          it may get clients
//	drain             those that are there may stay, new ones go elsewhere
//	down #reason      it can serve nobody
//
// "up" and "ready" together take back what was said before, whatever it was.
type agentServer struct {
	listener net.Listener
	log      *zap.Logger
	state    atomic.Pointer[agentState] // nil: it starts

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   sync.WaitGroup
	places chan struct{} // taken by connections

	mu     sync.Mutex
	askers map[string]asker // load balancers by host
	heard  chan struct{}    // closed when askers changes
}

// asker is a load balancer that has asked.
type asker struct {
	at    time.Time
	sends bool // new clients, after what it was told
}

// agentState is where the line comes from.
type agentState struct {
	draining func() bool
	checks   []healthCheck
}

const (
	// maxAgentConns bounds the connections, and the load balancers that are
	// remembered; one more is closed at once, resp. forgotten.
	maxAgentConns = 64
	// agentTimeout is how long one may take, beyond the checks.
	agentTimeout   = time.Second
	maxAgentReason = 200
	// agentMemory is after how long a load balancer that does not ask is taken for gone.
	agentMemory = 10 * time.Second
	agentUp     = "up ready"
)

// startAgent answers on l until Close, at first that the node starts.
func startAgent(l net.Listener, log *zap.Logger) *agentServer {
	a := &agentServer{
		listener: l, log: log, places: make(chan struct{}, maxAgentConns),
		askers: map[string]asker{}, heard: make(chan struct{}),
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.done.Go(a.accept)
	return a
}

// watch says where the lines come from from now on. Any goroutine.
func (a *agentServer) watch(draining func() bool, checks []healthCheck) {
	a.state.Store(&agentState{draining, checks})
}

func (a *agentServer) accept() {
	const retry = 100 * time.Millisecond
	for {
		c, err := a.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Most likely a lack of descriptors; a check that fails changes nothing.
			a.log.Warn("cannot accept an agent check", zap.Error(err))
			select {
			case <-time.After(retry):
			case <-a.ctx.Done():
			}
			continue
		}
		select {
		case a.places <- struct{}{}:
			a.done.Go(func() {
				defer func() { <-a.places }()
				a.answer(c)
			})
		default:
			c.Close()
		}
	}
}

func (a *agentServer) answer(c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(a.ctx, func() { c.Close() })
	defer stop()
	line := a.line()
	// It fails if the other side is gone, which needs no answer.
	_ = c.SetDeadline(time.Now().Add(agentTimeout))
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return
	}
	// A close with bytes unread (agent-send) would be a reset, which may take the line with it.
	if t, ok := c.(*net.TCPConn); ok && t.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c, 1<<10)
	}
	if host, _, err := net.SplitHostPort(c.RemoteAddr().String()); err == nil {
		a.told(host, line)
	}
}

// told remembers what a load balancer was told.
func (a *agentServer) told(host, line string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if _, known := a.askers[host]; !known && len(a.askers) >= maxAgentConns {
		maps.DeleteFunc(a.askers, func(_ string, k asker) bool { return now.Sub(k.at) > agentMemory })
		if len(a.askers) >= maxAgentConns {
			return
		}
	}
	a.askers[host] = asker{at: now, sends: line == agentUp}
	close(a.heard)
	a.heard = make(chan struct{})
}

// awaitDrain returns when every load balancer that asks has been told to send no new
// clients, or with ctx. Any goroutine, once the lines say so.
func (a *agentServer) awaitDrain(ctx context.Context) error {
	for {
		a.mu.Lock()
		unaware, heard := 0, a.heard
		for _, k := range a.askers {
			if k.sends && time.Since(k.at) <= agentMemory {
				unaware++
			}
		}
		a.mu.Unlock()
		if unaware == 0 {
			return nil
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return fmt.Errorf("%d load balancers have not asked since: %w", unaware, ctx.Err())
		}
	}
}

// line is what is to be said now.
func (a *agentServer) line() string {
	s := a.state.Load()
	if s == nil {
		return "down #starting"
	}
	if s.draining() {
		return "drain"
	}
	ctx, cancel := context.WithTimeout(a.ctx, healthTimeout)
	defer cancel()
	for _, check := range s.checks {
		if err := check.check(ctx); err != nil {
			if s.draining() {
				return "drain" // meanwhile
			}
			reason := oneLine(check.name + ": " + err.Error())
			return "down #" + reason[:min(len(reason), maxAgentReason)]
		}
	}
	return agentUp
}

// Close stops answering.
func (a *agentServer) Close() error {
	err := a.listener.Close()
	a.cancel()
	a.done.Wait()
	return err
}
