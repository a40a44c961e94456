package proxy

import "sync"

// job is a function given to Request.Go or GoSlow, and the connection that waits for it,
// or of a link the stream.
type job struct {
	conn   *Conn
	stream *stream
	f      func()
}

// workers runs jobs on a bounded number of goroutines, first come first
// served. Its queue is bounded by the connections, and of links by their
// requests: one that has a job under way starts no other request.
type workers struct {
	max int

	mu      sync.Mutex
	wake    sync.Cond
	queue   []job // a ring; its length is a power of two
	first   int
	queued  int
	started int
	idle    int
	ended   bool

	done *sync.WaitGroup // of the goroutines
}

func newWorkers(n int, done *sync.WaitGroup) *workers {
	w := &workers{max: n, done: done}
	w.wake.L = &w.mu
	return w
}

// run queues j. Any goroutine.
func (w *workers) run(j job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		// The server closes: whoever is late is one of its jobs, or has answered
		// nobody in time; f still runs once.
		w.done.Go(func() { w.do(j) })
		return
	}
	if w.queued == len(w.queue) {
		grown := make([]job, max(16, 2*len(w.queue)))
		for i := range w.queued {
			grown[i] = w.queue[(w.first+i)&(len(w.queue)-1)]
		}
		w.queue, w.first = grown, 0
	}
	w.queue[(w.first+w.queued)&(len(w.queue)-1)] = j
	w.queued++
	if w.idle > 0 {
		w.wake.Signal()
	} else if w.started < w.max {
		w.started++
		w.done.Go(w.work)
	}
}

func (w *workers) work() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for w.queued == 0 {
			if w.ended {
				return
			}
			w.idle++
			w.wake.Wait()
			w.idle--
		}
		j := w.queue[w.first]
		w.queue[w.first] = job{}
		w.first = (w.first + 1) & (len(w.queue) - 1)
		w.queued--
		w.mu.Unlock()
		w.do(j)
		w.mu.Lock()
	}
}

func (w *workers) do(j job) {
	// A function that ends its goroutine still lets its connection go on.
	defer func() {
		j.conn.working.Add(-1)
		if j.stream != nil {
			j.stream.working.Add(-1)
			j.conn.loop.Post(&j.stream.task)
		}
		j.conn.loop.Post(&j.conn.task)
	}()
	j.f()
}

// length returns how many jobs wait for a goroutine.
func (w *workers) length() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queued
}

// end lets the goroutines end once all jobs have run.
func (w *workers) end() {
	w.mu.Lock()
	w.ended = true
	w.wake.Broadcast()
	w.mu.Unlock()
}
