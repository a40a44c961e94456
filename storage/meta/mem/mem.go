// Package mem is a metadata store in memory, for tests and for trying things
// out. It behaves as etcd does, limits included, and forgets everything when the
// process ends.
package mem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/quirelog/quire/storage/meta"
)

// HistoryRevisions is how many revisions a watch can go back, as many as
// meta/etcd leaves when it compacts.
const HistoryRevisions = 10_000

// Store is a meta.Store. Make one by New.
type Store struct {
	clock Clock

	mu struct {
		sync.Mutex
		closed   bool
		revision meta.Revision
		index    index

		// history holds the changes of the revisions from first on, in order.
		// Its elements are never changed, so watches read them without the lock.
		history []meta.Events
		first   meta.Revision
		// changed is closed, and replaced, when a revision is added or the store closes.
		changed chan struct{}

		leases    map[meta.LeaseID]*lease
		nextLease meta.LeaseID
	}

	watches sync.WaitGroup
	done    chan struct{} // closed by Close
}

var _ meta.Store = (*Store)(nil)

// New makes an empty store. A nil clock is the system's.
func New(clock Clock) *Store {
	if clock == nil {
		clock = systemClock{}
	}
	s := &Store{clock: clock, done: make(chan struct{})}
	// An empty etcd is at revision 1 too: a key's revision is never 1, and 0
	// means "no such key" in a Cond.
	s.mu.revision = 1
	s.mu.first = 2
	s.mu.index.kvs = make(map[string]meta.KV)
	s.mu.leases = make(map[meta.LeaseID]*lease)
	s.mu.changed = make(chan struct{})
	return s
}

// enter locks the store for a request about subject, or says why it cannot be served.
func (s *Store) enter(ctx context.Context, subject string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%q: %w", subject, err)
	}
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return fmt.Errorf("%q: %w", subject, meta.ErrClosed)
	}
	return nil
}

// Get implements meta.Store.
func (s *Store) Get(ctx context.Context, key string) (meta.KV, error) {
	if key == "" {
		return meta.KV{}, fmt.Errorf("%w: no key to get", meta.ErrInvalid)
	}
	if err := s.enter(ctx, key); err != nil {
		return meta.KV{}, err
	}
	defer s.mu.Unlock()
	kv, ok := s.mu.index.kvs[key]
	if !ok {
		return meta.KV{}, fmt.Errorf("%q: %w", key, meta.ErrNotFound)
	}
	return kv, nil
}

// List implements meta.Store. f runs without the store's lock, on a copy.
func (s *Store) List(ctx context.Context, prefix string, f func(meta.KV) bool) (meta.Revision, error) {
	if err := s.enter(ctx, prefix); err != nil {
		return 0, err
	}
	kvs, revision := s.mu.index.under(prefix), s.mu.revision
	s.mu.Unlock()
	for _, kv := range kvs {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("%q: %w", prefix, err)
		}
		if !f(kv) {
			break
		}
	}
	return revision, nil
}

// Txn implements meta.Store.
func (s *Store) Txn(ctx context.Context, conds []meta.Cond, ops []meta.Op) (meta.Revision, bool, error) {
	if err := meta.CheckTxn(conds, ops); err != nil {
		return 0, false, err
	}
	if err := s.enter(ctx, subject(conds, ops)); err != nil {
		return 0, false, err
	}
	defer s.mu.Unlock()
	for _, c := range conds {
		if s.mu.index.kvs[c.Key].Modified != c.Modified {
			return s.mu.revision, false, nil
		}
	}
	for _, op := range ops {
		if op.Lease != 0 && !op.Delete && s.mu.leases[op.Lease] == nil {
			return 0, false, fmt.Errorf("%q: %w: %x", op.Key, meta.ErrLeaseNotFound, int64(op.Lease))
		}
	}
	return s.applyLocked(ops), true, nil
}

func subject(conds []meta.Cond, ops []meta.Op) string {
	switch {
	case len(ops) > 0:
		return ops[0].Key
	case len(conds) > 0:
		return conds[0].Key
	}
	return ""
}

// applyLocked makes one revision of ops, or none if they change nothing, and
// returns the store's revision after it.
func (s *Store) applyLocked(ops []meta.Op) meta.Revision {
	next := s.mu.revision + 1
	var events []meta.Event
	for _, op := range ops {
		switch {
		case op.Delete && op.Prefix:
			for _, kv := range s.mu.index.under(op.Key) {
				events = append(events, s.deleteLocked(kv, next))
			}
		case op.Delete:
			if kv, ok := s.mu.index.kvs[op.Key]; ok {
				events = append(events, s.deleteLocked(kv, next))
			}
		default:
			events = append(events, s.putLocked(op, next))
		}
	}
	if len(events) == 0 {
		return s.mu.revision
	}
	s.mu.revision = next
	s.mu.history = append(s.mu.history, meta.Events{Revision: next, Events: events})
	if len(s.mu.history) > 2*HistoryRevisions {
		s.compactLocked(next - HistoryRevisions + 1)
	}
	s.wakeLocked()
	return next
}

func (s *Store) putLocked(op meta.Op, at meta.Revision) meta.Event {
	old, exists := s.mu.index.kvs[op.Key]
	kv := meta.KV{Key: strings.Clone(op.Key), Value: append([]byte(nil), op.Value...), Created: at, Modified: at, Lease: op.Lease}
	if exists {
		kv.Created = old.Created
		if l := s.mu.leases[old.Lease]; l != nil {
			delete(l.keys, op.Key)
		}
	}
	if l := s.mu.leases[op.Lease]; l != nil {
		l.keys[kv.Key] = struct{}{}
	}
	s.mu.index.put(kv)
	return meta.Event{KV: kv}
}

func (s *Store) deleteLocked(kv meta.KV, at meta.Revision) meta.Event {
	if l := s.mu.leases[kv.Lease]; l != nil {
		delete(l.keys, kv.Key)
	}
	s.mu.index.delete(kv.Key)
	return meta.Event{KV: meta.KV{Key: kv.Key, Modified: at}, Deleted: true}
}

func (s *Store) wakeLocked() {
	close(s.mu.changed)
	s.mu.changed = make(chan struct{})
}

// Compact forgets the history before revision: a watch that would begin there
// gets ErrCompacted.
func (s *Store) Compact(ctx context.Context, revision meta.Revision) error {
	if err := s.enter(ctx, "compact"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if revision > s.mu.revision {
		return fmt.Errorf("%w: revision %d is beyond the present one, %d", meta.ErrInvalid, revision, s.mu.revision)
	}
	if revision < s.mu.first {
		return fmt.Errorf("%w: revision %d, the oldest one kept is %d", meta.ErrCompacted, revision, s.mu.first)
	}
	s.compactLocked(revision)
	return nil
}

func (s *Store) compactLocked(revision meta.Revision) {
	// A copy: watches may still read the elements of the old slice.
	s.mu.history = append([]meta.Events(nil), s.mu.history[revision-s.mu.first:]...)
	s.mu.first = revision
}

// Close implements meta.Store. It waits for the store's goroutines.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return nil
	}
	s.mu.closed = true
	for _, l := range s.mu.leases {
		l.stop()
	}
	close(s.done)
	s.mu.Unlock()
	s.watches.Wait()
	return nil
}

// errStopped ends a watch whose context ended; it is never sent.
var errStopped = errors.New("watch stopped")
