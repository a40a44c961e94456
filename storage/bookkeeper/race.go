package bookkeeper

import (
	"context"
	"sync"
	"time"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/bookkeeper/bookie"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// part is what is read with one request: an entry, or consecutive ones. Copies are
// asked for in turn: the next one when one fails, or keeps silent for longer than
// it usually does. The first that answers counts.
type part struct {
	first  int64
	copies []*member
	asked  int
	failed int
	due    time.Time // when the next copy is asked, if there is one

	done    bool
	entries []wire.Entry
	buf     *buffer.Buffer
	errs    []error
}

// answer is the outcome of a request.
type answer struct {
	part    int
	entries []wire.Entry
	buf     *buffer.Buffer
	err     error
}

// race reads parts. It belongs to one goroutine, but for put.
type race struct {
	floor time.Duration // before a copy is asked beside another
	// ask sends the request for a part to a bookie, whose outcome goes to put.
	ask   func(r *race, i int, p *part, b *member) (*bookie.Call, error)
	parts []part
	calls []*bookie.Call

	wake    chan struct{}
	mu      sync.Mutex
	answers []answer
	over    bool
}

func newRace(floor time.Duration, ask func(r *race, i int, p *part, b *member) (*bookie.Call, error)) *race {
	return &race{floor: floor, ask: ask, wake: make(chan struct{}, 1)}
}

// put takes the outcome of a request, from any goroutine.
func (r *race) put(a answer) {
	r.mu.Lock()
	over := r.over
	if !over {
		r.answers = append(r.answers, a)
	}
	r.mu.Unlock()
	if over {
		if a.buf != nil {
			a.buf.Release()
		}
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// next asks the next copy of a part.
func (r *race) next(i int, now time.Time) {
	p := &r.parts[i]
	for p.asked < len(p.copies) {
		b := p.copies[p.asked]
		p.asked++
		call, err := r.ask(r, i, p, b)
		if err != nil {
			p.failed++
			p.errs = append(p.errs, err)
			continue
		}
		r.calls = append(r.calls, call)
		p.due = now.Add(b.patience(r.floor, now))
		return
	}
	if p.failed == len(p.copies) {
		p.done = true
	}
}

// run reads until each part has its entries, or all of its copies have failed; of
// parts behind one that failed nothing is waited for. The caller calls end.
func (r *race) run(ctx context.Context) error {
	now := time.Now()
	for i := range r.parts {
		r.next(i, now)
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		open, due := false, time.Time{}
		for i := range r.parts {
			p := &r.parts[i]
			if p.done && len(p.entries) == 0 {
				break
			}
			if p.done {
				continue
			}
			open = true
			if p.asked < len(p.copies) && (due.IsZero() || p.due.Before(due)) {
				due = p.due
			}
		}
		if !open {
			return nil
		}
		wait := time.Hour
		if !due.IsZero() {
			wait = max(0, time.Until(due))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		case <-timer.C:
			now := time.Now()
			for i := range r.parts {
				if p := &r.parts[i]; !p.done && p.asked < len(p.copies) && !p.due.After(now) {
					r.next(i, now)
				}
			}
		}
		r.take()
	}
}

// take takes over what came in.
func (r *race) take() {
	r.mu.Lock()
	answers := r.answers
	r.answers = nil
	r.mu.Unlock()
	now := time.Now()
	for _, a := range answers {
		p := &r.parts[a.part]
		switch {
		case a.err != nil:
			p.failed++
			p.errs = append(p.errs, a.err)
			if !p.done {
				r.next(a.part, now)
			}
		case p.done:
			a.buf.Release()
		default:
			p.done, p.entries, p.buf = true, a.entries, a.buf
		}
	}
}

// end gives up what is still under way, and all that was read but not taken out
// of the parts.
func (r *race) end() {
	r.mu.Lock()
	r.over = true
	answers := r.answers
	r.answers = nil
	r.mu.Unlock()
	for _, c := range r.calls {
		c.Cancel()
	}
	for _, a := range answers {
		if a.buf != nil {
			a.buf.Release()
		}
	}
	for i := range r.parts {
		if b := r.parts[i].buf; b != nil {
			b.Release()
		}
	}
}
