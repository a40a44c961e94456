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
