package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
)

// ask is one agent check, with something to say of its own.
func ask(t *testing.T, address string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
	line, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAgent(t *testing.T) {
	l := listenLoopback(t)
	a := startAgent(l, zap.NewNop())
	at := l.Addr().String()
	says := func(want string) {
		t.Helper()
		if got := ask(t, at); got != want+"\n" {
			t.Errorf("says %q, want %q", got, want)
		}
	}
	says("down #starting")
	var state struct {
		sync.Mutex
		draining, drainsMeanwhile bool
		broken                    error
	}
	set := func(f func()) {
		state.Lock()
		defer state.Unlock()
		f()
	}
	a.watch(func() bool {
		state.Lock()
		defer state.Unlock()
		return state.draining
	}, []healthCheck{
		{name: "loops", check: func(context.Context) error { return nil }},
		{name: "disk", check: func(context.Context) error {
			state.Lock()
			defer state.Unlock()
			state.draining = state.draining || state.drainsMeanwhile
			return state.broken
		}},
	})
	says("up ready")
	set(func() { state.broken = errors.New("read\nonly") })
	says("down #disk: read only")
	set(func() { state.broken = errors.New(strings.Repeat("x", 1000)) })
	says("down #disk: " + strings.Repeat("x", maxAgentReason-len("disk: ")))
	// What fails while a node hands over is no reason to cut off its clients.
	set(func() { state.drainsMeanwhile = true })
	says("drain")
	says("drain")
	set(func() { state.broken = nil })
	says("drain") // also while all is well
	set(func() { state.draining, state.drainsMeanwhile = false, false })
	says("up ready")
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// A node that ends waits for the load balancers that still send clients to it, and for
// no other.
func TestAgentAwaitsDrain(t *testing.T) {
	l := listenLoopback(t)
	a := startAgent(l, zap.NewNop())
	defer a.Close()
	var draining atomic.Bool
	a.watch(draining.Load, nil)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	// settled asks, and returns when it is remembered.
	settled := func(want string) {
		t.Helper()
		a.mu.Lock()
		heard := a.heard
		a.mu.Unlock()
		if got := ask(t, l.Addr().String()); got != want+"\n" {
			t.Fatalf("says %q, want %q", got, want)
		}
		<-heard
	}
	if err := a.awaitDrain(over); err != nil {
		t.Errorf("nobody asks, and somebody is waited for: %v", err)
	}
	settled(agentUp)
	draining.Store(true)
	if err := a.awaitDrain(over); !errors.Is(err, context.Canceled) {
		t.Errorf("who was told %q is not waited for: %v", agentUp, err)
	}
	waited := make(chan error)
	go func() { waited <- a.awaitDrain(t.Context()) }()
	settled("drain")
	if err := <-waited; err != nil {
		t.Error(err)
	}
	// Those that are gone are not waited for, and do not keep others from being known.
	long := time.Now().Add(-2 * agentMemory)
	a.mu.Lock()
	for i := range maxAgentConns {
		a.askers[fmt.Sprint("gone-", i)] = asker{at: long, sends: true}
	}
	a.mu.Unlock()
	if err := a.awaitDrain(over); err != nil {
		t.Errorf("those that are gone are waited for: %v", err)
	}
	a.told("new", agentUp)
	if err := a.awaitDrain(over); err == nil {
		t.Error("one more is not known")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.askers) > maxAgentConns {
		t.Errorf("%d are remembered", len(a.askers))
	}
}

// Checks that hang hold no more than their places, and do not hold up the end.
func TestAgentIsBounded(t *testing.T) {
	l := listenLoopback(t)
	a := startAgent(l, zap.NewNop())
	entered := make(chan struct{}, maxAgentConns)
	release := make(chan struct{})
	a.watch(func() bool { return false }, []healthCheck{{name: "stuck", check: func(context.Context) error {
		entered <- struct{}{}
		<-release
		return nil
	}}})
	var conns []net.Conn
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
		return c
	}
	for range maxAgentConns {
		dial()
		<-entered
	}
	if line, _ := io.ReadAll(dial()); len(line) != 0 {
		t.Errorf("one too many is told %q", line)
	}
	close(release)
	if line, err := io.ReadAll(conns[0]); err != nil || string(line) != "up ready\n" {
		t.Errorf("the first is told %q, %v", line, err)
	}
	// The others are silent and keep their side open.
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}
