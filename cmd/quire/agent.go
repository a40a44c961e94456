package main

import (
	"context"
	"errors"
	"io"
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
}

// agentState is where the line comes from.
type agentState struct {
	draining func() bool
	checks   []healthCheck
}

const (
	// maxAgentConns bounds the connections; one more is closed at once.
	maxAgentConns = 64
	// agentTimeout is how long one may take, beyond the checks.
	agentTimeout   = time.Second
	maxAgentReason = 200
)

// startAgent answers on l until Close, at first that the node starts.
func startAgent(l net.Listener, log *zap.Logger) *agentServer {
	a := &agentServer{listener: l, log: log, places: make(chan struct{}, maxAgentConns)}
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
	return "up ready"
}

// Close stops answering.
func (a *agentServer) Close() error {
	err := a.listener.Close()
	a.cancel()
	a.done.Wait()
	return err
}
