package proxy

import (
	"testing"
	"time"
)

// silence has all connections of clients believe that nothing came or left for long, and
// waits for as long as given for the end of those that speak again.
func (s *Server) silence(long, wait time.Duration) {
	done := make(chan struct{})
	for _, l := range s.loops {
		l.Post(task(func() {
			state := l.Local.(*loopState)
			state.endWait = wait
			for c := range state.conns {
				c.active = c.active.Add(-long)
			}
			done <- struct{}{}
		}))
		<-done
	}
}

// TestSilence: what comes after a silence and would undo something newer is begun when it
// is known that its sender is still there.
func TestSilence(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		for name, test := range map[string]struct {
			key    int16
			silent time.Duration
			wait   time.Duration
			gone   bool // the client has hung up
			ends   bool
		}{
			"a commit of one that is there":          {keyCommit, time.Hour, defaultEndWait, false, false},
			"a commit of one that is gone":           {keyCommit, time.Hour, time.Hour, true, true},
			"a join of one that is gone":             {keyJoin, time.Hour, time.Hour, true, true},
			"a Produce of one that is gone":          {keyProduce, time.Hour, time.Hour, true, false},
			"a commit after no silence":              {keyCommit, 0, time.Hour, false, false},
			"a commit after no silence, of one gone": {keyCommit, 0, time.Hour, true, false},
		} {
			t.Run(name, func(t *testing.T) {
				s := start(t, c, echo)
				cl := dial(t, s)
				cl.send(frame(keyCommit, 0, 1, nil))
				cl.receive()
				s.silence(test.silent, test.wait)
				cl.send(frame(test.key, 0, 2, []byte("late")))
				if test.gone {
					cl.closeWrite() // its end comes later, before anybody would wait no more
				}
				if test.ends {
					cl.wantEnd()
				} else if corr, body := cl.receive(); corr != 2 || string(body) != "late" {
					t.Errorf("answer to %d: %q", corr, body)
				}
			})
		}
	})
}
