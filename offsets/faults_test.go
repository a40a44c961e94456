package offsets

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/quirelog/quire/storage/meta"
)

// fault is what happens to one request.
type fault int

const (
	none         fault = iota
	unavailable        // refused at the door
	unknownDone        // executed, the answer is lost
	unknownLost        // not executed, and no answer
	unknownLate        // no answer; executed some requests later
	noSpace            // refused for want of space
	noSpaceDone        // executed by the very answer that says that there is no space
	noAnswer           // no answer and not executed; hangs until the caller gives up
	noAnswerDone       // executed, hangs
	noAnswerLate       // hangs; executed some requests later
	numFaults
)

// faulty is a store whose requests go wrong as planned.
type faulty struct {
	meta.Store

	mu   sync.Mutex
	plan []fault // of the next requests, after which all go well
	late []late
	// lateBy is after how many requests what is late is executed; 0: by flush only.
	lateBy int
	away   bool // every request is refused
	full   bool // every transaction that puts something is refused for want of space

	// started, if not nil, gets one element per transaction, before it is sent;
	// the transaction then waits for proceed.
	started chan []meta.Op
	proceed chan struct{}
	txns    [][]meta.Op // that were executed at once
}

type late struct {
	requests int // until it is executed, if positive
	run      func()
}

func (s *faulty) next() fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.late[:0]
	for _, l := range s.late {
		if l.requests--; l.requests == 0 {
			l.run()
		} else {
			waiting = append(waiting, l)
		}
	}
	s.late = waiting
	if s.away {
		return unavailable
	}
	if len(s.plan) == 0 {
		return none
	}
	f := s.plan[0]
	s.plan = s.plan[1:]
	return f
}

// flush executes what is late.
func (s *faulty) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.late {
		l.run()
	}
	s.late = nil
}

// heal ends all faults but for what is late already.
func (s *faulty) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan, s.away = nil, false
}

// outOfSpace says whether a transaction has no space.
func (s *faulty) outOfSpace(ops []meta.Op) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full && slices.ContainsFunc(ops, func(op meta.Op) bool { return !op.Delete })
}

func (s *faulty) read(ctx context.Context) error {
	switch f := s.next(); f {
	case none:
		return nil
	case noAnswer, noAnswerDone, noAnswerLate:
		<-ctx.Done()
		return ctx.Err()
	}
	return fmt.Errorf("planned: %w", meta.ErrUnavailable)
}

func (s *faulty) Get(ctx context.Context, key string) (meta.KV, error) {
	if err := s.read(ctx); err != nil {
		return meta.KV{}, err
	}
	return s.Store.Get(ctx, key)
}

func (s *faulty) List(ctx context.Context, prefix string, f func(meta.KV) bool) (meta.Revision, error) {
	if err := s.read(ctx); err != nil {
		return 0, err
	}
	return s.Store.List(ctx, prefix, f)
}

func (s *faulty) Txn(ctx context.Context, conds []meta.Cond, ops []meta.Op) (meta.Revision, bool, error) {
	if s.started != nil {
		select {
		case s.started <- append([]meta.Op(nil), ops...):
			<-s.proceed
		case <-ctx.Done():
			return 0, false, ctx.Err()
		}
	}
	// The committer uses the slices again.
	conds, ops = append([]meta.Cond(nil), conds...), append([]meta.Op(nil), ops...)
	execute := func() (meta.Revision, bool, error) {
		revision, ok, err := s.Store.Txn(context.Background(), conds, ops)
		if err == nil && ok && len(ops) > 0 {
			s.txns = append(s.txns, ops)
		}
		return revision, ok, err
	}
	f := s.next()
	if s.outOfSpace(ops) {
		f = noSpace
	}
	switch f {
	case none:
		s.mu.Lock()
		defer s.mu.Unlock()
		return execute()
	case unavailable:
		return 0, false, fmt.Errorf("planned: %w", meta.ErrUnavailable)
	case noSpace:
		return 0, false, fmt.Errorf("planned: %w", meta.ErrNoSpace)
	case unknownDone, noSpaceDone, noAnswerDone:
		s.mu.Lock()
		execute()
		s.mu.Unlock()
	case unknownLate, noAnswerLate:
		s.mu.Lock()
		s.late = append(s.late, late{requests: s.lateBy, run: func() { execute() }})
		s.mu.Unlock()
	}
	switch f {
	case noAnswer, noAnswerDone, noAnswerLate:
		<-ctx.Done()
		return 0, false, fmt.Errorf("planned: %w: %w", meta.ErrUnknownOutcome, ctx.Err())
	case noSpaceDone:
		return 0, false, fmt.Errorf("planned: %w: %w", meta.ErrNoSpace, meta.ErrUnknownOutcome)
	}
	return 0, false, fmt.Errorf("planned: %w", meta.ErrUnknownOutcome)
}
