package loop

import (
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// A connection that is given to a loop in its last turn, behind the end of all that are
// there, is closed like those.
func TestAdoptInTheLastTurn(t *testing.T) {
	g, err := Epoll(Config{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	here := dial(t, ln)
	there, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	l := g.Loops()[0]
	held, hold := make(chan struct{}), make(chan struct{})
	l.Post(&Task{Run: func() { close(held); <-hold }})
	<-held
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.Close()
	}()
	for l.tasks.empty() { // its end is not posted yet
		runtime.Gosched()
	}
	h := &scripted{closed: make(chan error, 2)}
	if err := l.Adopt(here, func(s Sock) Handler { h.sock = s; return h }); err != nil {
		t.Fatal(err)
	}
	close(hold)
	<-ended
	select {
	case err := <-h.closed:
		if !errors.Is(err, ErrStopped) {
			t.Errorf("closed with %v", err)
		}
	default:
		t.Error("nobody has closed it")
	}
	if n := l.Conns() + len(h.closed); n != 0 {
		t.Errorf("%d connections, or calls of Closed, too many", n)
	}
	there.SetDeadline(time.Now().Add(patience))
	if _, err := there.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the other side reads %v", err)
	}
}

// A loop whose answers nobody waits for announces no system call to the runtime, but one
// turn in each announceInterval: raw calls alone would leave the runtime's thread asleep.
func TestCalmTurns(t *testing.T) {
	var c calls
	now := time.Now()
	turns := func() (announced int) {
		for range 10 {
			now = now.Add(announceInterval / 2)
			if c.turn(now); !c.raw {
				announced++
			}
		}
		return announced
	}
	if n := turns(); n != 10 {
		t.Errorf("%d turns of 10 were announced while somebody waits", n)
	}
	c.calm = true
	if n := turns(); n != 5 {
		t.Errorf("%d turns of 10 were announced while nobody waits, want every other", n)
	}
}
