package mem

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quirelog/quire/storage/meta"
)

type lease struct {
	ttl   time.Duration
	until time.Time
	keys  map[string]struct{}
	stop  func() bool // of the timer that looks at it when it may have ended
}

// Grant implements meta.Store.
func (s *Store) Grant(ctx context.Context, ttlSeconds int64) (meta.LeaseID, error) {
	if ttlSeconds < 1 {
		return 0, fmt.Errorf("%w: a lease of %d s", meta.ErrInvalid, ttlSeconds)
	}
	if err := s.enter(ctx, "lease"); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	s.mu.nextLease++
	id := s.mu.nextLease
	l := &lease{ttl: time.Duration(ttlSeconds) * time.Second, keys: make(map[string]struct{})}
	l.until = s.clock.Now().Add(l.ttl)
	l.stop = s.clock.AfterFunc(l.ttl, func() { s.expire(id) })
	s.mu.leases[id] = l
	return id, nil
}

// KeepAlive implements meta.Store.
func (s *Store) KeepAlive(ctx context.Context, id meta.LeaseID) (int64, error) {
	if err := s.enter(ctx, "lease"); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	l := s.mu.leases[id]
	if l == nil {
		return 0, fmt.Errorf("%w: %x", meta.ErrLeaseNotFound, int64(id))
	}
	l.until = s.clock.Now().Add(l.ttl)
	return int64(l.ttl / time.Second), nil
}

// Revoke implements meta.Store.
func (s *Store) Revoke(ctx context.Context, id meta.LeaseID) error {
	if err := s.enter(ctx, "lease"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if s.mu.leases[id] == nil {
		return fmt.Errorf("%w: %x", meta.ErrLeaseNotFound, int64(id))
	}
	s.endLocked(id)
	return nil
}

// expire ends a lease that was not kept alive, else looks again when it may end.
func (s *Store) expire(id meta.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.mu.leases[id]
	if l == nil || s.mu.closed {
		return
	}
	if left := l.until.Sub(s.clock.Now()); left > 0 {
		l.stop = s.clock.AfterFunc(left, func() { s.expire(id) })
		return
	}
	s.endLocked(id)
}

// endLocked deletes the lease's keys at one revision, in order of keys as etcd does.
func (s *Store) endLocked(id meta.LeaseID) {
	l := s.mu.leases[id]
	l.stop()
	ops := make([]meta.Op, 0, len(l.keys))
	for key := range l.keys {
		ops = append(ops, meta.Delete(key))
	}
	slices.SortFunc(ops, func(a, b meta.Op) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	s.applyLocked(ops)
	delete(s.mu.leases, id)
}
