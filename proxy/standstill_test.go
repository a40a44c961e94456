package proxy

import (
	"sync"
	"testing"
	"time"
)

// standStill keeps all loops from running while f does, and has them believe that it was long.
func (s *Server) standStill(long time.Duration, f func()) {
	var stopped sync.WaitGroup
	resume := make(chan struct{})
	for _, l := range s.loops {
		stopped.Add(1)
		l.Post(task(func() {
			still := &l.Local.(*loopState).still
			still.beat = still.beat.Add(-long)
			stopped.Done()
			<-resume
		}))
	}
	stopped.Wait()
	f()
	close(resume)
}

// TestStandstill: after a standstill what was sent by clients that hung up is not
// begun, and all else is.
func TestStandstill(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		for name, test := range map[string]struct {
			key     int16
			hangsUp bool
			ends    bool
		}{
			"a commit of one that is gone":  {keyCommit, true, true},
			"a commit of one that is there": {keyCommit, false, false},
			"a Produce of one that is gone": {keyProduce, true, false},
		} {
			t.Run(name, func(t *testing.T) {
				s := start(t, c, echo)
				cl := dial(t, s)
				cl.send(frame(keyCommit, 0, 1, nil))
				cl.receive()
				s.standStill(time.Hour, func() {
					cl.send(frame(test.key, 0, 2, []byte("late")))
					if test.hangsUp {
						cl.closeWrite()
					}
				})
				if test.ends {
					cl.wantEnd()
				} else if corr, body := cl.receive(); corr != 2 || string(body) != "late" {
					t.Errorf("answer to %d: %q", corr, body)
				}
			})
		}
	})
}

// TestStandstillPasses: a loop that beats is suspicious for a while after a late beat.
func TestStandstillPasses(t *testing.T) {
	var s standstill
	s.beat = time.Now()
	if s.recent() {
		t.Error("a beat on time is late")
	}
	s.beat = time.Now().Add(-time.Hour)
	if !s.recent() {
		t.Error("a beat an hour late is on time")
	}
	s.beat = time.Now()
	if !s.recent() {
		t.Error("what was sent before the late beat is forgotten with the next")
	}
	s.until = time.Now()
	if s.recent() {
		t.Error("it never ends")
	}
}
