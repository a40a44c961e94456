package loop

import (
	"container/heap"
	"math"
	"time"
)

// Timer is a call that a loop will make. The zero Timer never fires.
type Timer struct {
	t   *timer
	gen uint32
}

// timer is pooled by its loop; gen tells a Timer whether it still means this use.
type timer struct {
	when  time.Duration // since timers.base
	f     func()
	index int
	gen   uint32
	owner *timers
}

// Stop makes the call not happen. It does nothing after the call. Loop only.
func (t Timer) Stop() {
	if t.t == nil || t.t.gen != t.gen {
		return
	}
	heap.Remove(t.t.owner, t.t.index)
	t.t.owner.put(t.t)
}

// timers is a heap of a loop's pending timers. Thousands of connections keep
// one timer each and mostly let it come due, so a heap's O(log n) is paid
// rarely; long polls pay it twice, some 100 ns.
type timers struct {
	base time.Time
	heap []*timer
	free []*timer
}

func (ts *timers) Len() int           { return len(ts.heap) }
func (ts *timers) Less(i, j int) bool { return ts.heap[i].when < ts.heap[j].when }
func (ts *timers) Swap(i, j int) {
	h := ts.heap
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (ts *timers) Push(x any) {
	t := x.(*timer)
	t.index = len(ts.heap)
	ts.heap = append(ts.heap, t)
}
func (ts *timers) Pop() any {
	last := len(ts.heap) - 1
	t := ts.heap[last]
	ts.heap[last] = nil
	ts.heap = ts.heap[:last]
	return t
}

func (ts *timers) add(now time.Time, d time.Duration, f func()) Timer {
	var t *timer
	if n := len(ts.free); n > 0 {
		t = ts.free[n-1]
		ts.free = ts.free[:n-1]
	} else {
		t = &timer{owner: ts}
	}
	at := now.Sub(ts.base)
	if d < 0 {
		d = 0
	}
	if at > math.MaxInt64-d {
		d = math.MaxInt64 - at
	}
	t.when, t.f = at+d, f
	heap.Push(ts, t)
	return Timer{t, t.gen}
}

func (ts *timers) put(t *timer) {
	t.gen++
	t.f = nil
	ts.free = append(ts.free, t)
}

// run calls what is due at now. Timers that these calls add wait for the next run.
func (ts *timers) run(now time.Time) {
	at := now.Sub(ts.base)
	for n := len(ts.heap); n > 0 && len(ts.heap) > 0 && ts.heap[0].when <= at; n-- {
		t := heap.Pop(ts).(*timer)
		f := t.f
		ts.put(t)
		f()
	}
}

// next returns how long after now the first timer is due, or -1 if there is none.
func (ts *timers) next(now time.Time) time.Duration {
	if len(ts.heap) == 0 {
		return -1
	}
	return max(0, ts.heap[0].when-now.Sub(ts.base))
}
