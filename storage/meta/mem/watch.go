package mem

import (
	"context"
	"fmt"
	"strings"

	"github.com/quirelog/quire/storage/meta"
)

// Watch implements meta.Store.
func (s *Store) Watch(ctx context.Context, prefix string, after meta.Revision) <-chan meta.Events {
	events := make(chan meta.Events, 16)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		events <- meta.Events{Err: fmt.Errorf("watch of %q: %w", prefix, meta.ErrClosed)}
		close(events)
		return events
	}
	if after <= 0 {
		// Revision 1 is the empty store, so nothing can happen at it.
		after = 1
	}
	s.watches.Add(1)
	go func() {
		defer s.watches.Done()
		defer close(events)
		if err := s.follow(ctx, prefix, after, events); err != errStopped {
			select {
			case events <- meta.Events{Err: fmt.Errorf("watch of %q: %w", prefix, err)}:
			case <-ctx.Done():
			case <-s.done:
				// Nobody may be reading any more: what fits is sent.
				select {
				case events <- meta.Events{Err: fmt.Errorf("watch of %q: %w", prefix, err)}:
				default:
				}
			}
		}
	}()
	return events
}

// follow sends what happens under prefix after a revision until it cannot go on.
func (s *Store) follow(ctx context.Context, prefix string, after meta.Revision, to chan<- meta.Events) error {
	for {
		history, changed, err := s.since(after)
		if err != nil {
			return err
		}
		for _, e := range history {
			after = e.Revision
			if e.Events = under(prefix, e.Events); len(e.Events) == 0 {
				continue
			}
			select {
			case to <- e:
			case <-ctx.Done():
				return errStopped
			case <-s.done:
				return meta.ErrClosed
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errStopped
		case <-s.done:
			return meta.ErrClosed
		}
	}
}

// since returns the history after a revision and what closes when there is more.
func (s *Store) since(after meta.Revision) ([]meta.Events, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case after+1 < s.mu.first:
		return nil, nil, fmt.Errorf("%w: revision %d, the oldest one kept is %d", meta.ErrCompacted, after+1, s.mu.first)
	case after >= s.mu.revision:
		return nil, s.mu.changed, nil
	}
	return s.mu.history[after+1-s.mu.first:], s.mu.changed, nil
}

// under returns the events of keys that begin with prefix, without changing events.
func under(prefix string, events []meta.Event) []meta.Event {
	matching := 0
	for i := range events {
		if strings.HasPrefix(events[i].Key, prefix) {
			matching++
		}
	}
	if matching == len(events) || matching == 0 {
		return events[:matching:matching]
	}
	some := make([]meta.Event, 0, matching)
	for _, e := range events {
		if strings.HasPrefix(e.Key, prefix) {
			some = append(some, e)
		}
	}
	return some
}
