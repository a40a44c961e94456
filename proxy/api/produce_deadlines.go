package api

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// produceDeadlines finds the Produce requests whose timeout_ms has passed.
//
// A list with a look at all of it now and then, instead of a timer each: nearly
// every request is answered thousands of times sooner than its timeout, from a
// goroutine that could not stop a loop's timer.
type produceDeadlines struct {
	shards [8]produceShard
}

// produceShard is one of the lists. They are several for the sake of the lock alone.
type produceShard struct {
	mu    sync.Mutex
	first *produceRequest
	_     [48]byte // to a cache line of its own
}

// produceWait is a request's place in its list.
type produceWait struct {
	shard      uint32
	listed     bool // set by add, for the request's own use
	timedOut   bool // under mu, as all that follows
	deadline   time.Time
	next, prev *produceRequest
}

// sweepInterval is how late a timeout may be noticed.
const sweepInterval = 100 * time.Millisecond

var nextShard atomic.Uint32

func (w *produceWait) init() { w.shard = nextShard.Add(1) }

func (d *produceDeadlines) shardOf(s *produceRequest) *produceShard {
	return &d.shards[s.wait.shard%uint32(len(d.shards))]
}

// add lists s. From now on s may be answered by expire.
func (d *produceDeadlines) add(s *produceRequest) {
	w := &s.wait
	w.listed = true
	w.deadline = s.received.Add(s.timeout)
	shard := d.shardOf(s)
	shard.mu.Lock()
	w.prev, w.next = nil, shard.first
	if w.next != nil {
		w.next.wait.prev = s
	}
	shard.first = s
	shard.mu.Unlock()
}

// remove takes s off the list; false if expire was faster: then s is answered
// and a reference to its frame is the caller's to release.
func (d *produceDeadlines) remove(s *produceRequest) bool {
	shard := d.shardOf(s)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if s.wait.timedOut {
		return false
	}
	shard.unlink(s)
	return true
}

func (l *produceShard) unlink(s *produceRequest) {
	w := &s.wait
	if w.prev != nil {
		w.prev.wait.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.wait.prev = w.prev
	}
	w.next, w.prev = nil, nil
}

// expire answers the requests whose time is up.
func (d *produceDeadlines) expire(now time.Time) {
	for i := range d.shards {
		shard := &d.shards[i]
		var late []*produceRequest
		shard.mu.Lock()
		for s := shard.first; s != nil; {
			next := s.wait.next
			if !now.Before(s.wait.deadline) {
				shard.unlink(s)
				s.wait.timedOut = true
				// The connection lets go of the frame with the answer; the
				// logs are not done with it.
				s.frame.Retain()
				late = append(late, s)
			}
			s = next
		}
		shard.mu.Unlock()
		for _, s := range late {
			s.timedOut()
		}
	}
}

// run expires until ctx ends.
func (d *produceDeadlines) run(ctx context.Context, now func() time.Time) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.expire(now())
		}
	}
}
