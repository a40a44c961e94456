package proxy

import (
	"errors"
	"time"

	"github.com/quirelog/quire/proxy/loop"
)

// A process that stood still (SIGSTOP, a frozen container, a paused machine) finds
// in its sockets what clients have sent meanwhile, and given up: they have gone to
// another node since, and what they have done there is newer. An offset committed
// here now would take their group back, a topic created be there again. So for some
// time after a standstill a request is not begun if its sender has hung up, which can
// be told before the bytes in front of that end are read. Nobody waits for its answer.
//
// It is not so for Produce: producers with acks=0 send and hang up, and what is
// stored twice or late the log sees by its sequence, or the producer has asked for it.
// What another node forwards ends with the link in any case: that node has told its
// clients, or sent it elsewhere.
const (
	beatInterval = 500 * time.Millisecond
	// standstillAfter is how late a beat has to be. On a busy machine some are late by
	// tenths of a second, and clients that half-close would lose their answers.
	standstillAfter = 4 * beatInterval
	// suspiciousFor is longer than a connection whose reading was paused takes to come
	// to what it was sent before.
	suspiciousFor = time.Minute
)

var errSenderGone = errors.New("the client has hung up while this process or the network stood still: what it had sent is not begun")

// standstill notices that a loop has not run for a while. Loop only.
type standstill struct {
	beat  time.Time // when the loop is known to have run
	until time.Time // when nothing is suspicious any more
}

// begin has the loop beat for as long as it runs.
func (s *standstill) begin(l *loop.Loop) {
	s.beat = time.Now()
	var again func()
	again = func() {
		s.recent()
		s.beat = time.Now()
		l.After(beatInterval, again)
	}
	l.After(beatInterval, again)
}

// recent says whether the process stood still not long ago, or does until now. The
// monotonic clock stands still with a machine, the other one does not.
func (s *standstill) recent() bool {
	now := time.Now()
	if max(now.Sub(s.beat), now.Round(0).Sub(s.beat.Round(0))) > standstillAfter {
		s.until = now.Add(suspiciousFor)
	}
	return now.Before(s.until)
}

// outlived says whether the request came before a standstill, or is of before a silence,
// as far as can be told, and its sender is gone. Loop only.
func (c *Conn) outlived(r *Request) bool {
	stoodStill := (r.Key != keyProduce || r.stream != nil) && c.state.still.recent()
	return (stoodStill || r.stream == nil && c.doubtful(r)) && c.sock.HungUp()
}
