// Package mem keeps ledger metadata in memory, for tests: it behaves as
// metadata/etcd does, and fails and waits where a test says.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// Op is a method of metadata.Store.
type Op string

// The operations that Faults sees.
const (
	InstanceID          Op = "InstanceID"
	Cookies             Op = "Cookies"
	Create              Op = "Create"
	Read                Op = "Read"
	Update              Op = "Update"
	Delete              Op = "Delete"
	List                Op = "List"
	Bookies             Op = "Bookies"
	MarkUnderReplicated Op = "MarkUnderReplicated"
	ListUnderReplicated Op = "ListUnderReplicated"
)

// Faults are what a test does to requests. Its functions run without the store's
// lock and may block, which delays the request; ctx is the request's. ledger is
// NoID where there is none.
type Faults struct {
	// Before runs before a request. An error is the request's, which then does
	// nothing; ErrUnavailable is what a store would say.
	Before func(ctx context.Context, op Op, ledger int64) error
	// After runs after a request was done, whatever came of it. An error replaces
	// its answer; ErrUnknownOutcome is what a store would say.
	After func(ctx context.Context, op Op, ledger int64) error
}

// Store is a metadata.Store. Make one by New.
type Store struct {
	mu struct {
		sync.Mutex
		faults   Faults
		instance string
		cookies  map[metadata.BookieID]metadata.Cookie
		lastID   int64
		version  metadata.Version // of the last change
		ledgers  map[int64]stored
		marks    map[int64]metadata.Mark
		bookies  map[metadata.BookieID]metadata.Registration
		changed  chan struct{} // closed when bookies change
	}
}

type stored struct {
	version metadata.Version
	value   []byte
}

var _ metadata.Store = (*Store)(nil)

// New makes an empty store of a cluster.
func New(instanceID string) *Store {
	s := new(Store)
	s.mu.instance = instanceID
	s.mu.cookies = make(map[metadata.BookieID]metadata.Cookie)
	s.mu.ledgers = make(map[int64]stored)
	s.mu.marks = make(map[int64]metadata.Mark)
	s.mu.bookies = make(map[metadata.BookieID]metadata.Registration)
	s.mu.changed = make(chan struct{})
	return s
}

// SetFaults replaces the faults.
func (s *Store) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.faults = f
}

// SetInstanceID changes the cluster; "" is none.
func (s *Store) SetInstanceID(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.instance = id
}

// SetCookie gives a bookie a cookie.
func (s *Store) SetCookie(id metadata.BookieID, c metadata.Cookie) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.cookies[id] = c
}

// Register registers a bookie, or replaces its registration.
func (s *Store) Register(r metadata.Registration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.bookies[r.ID] = r
	s.wakeLocked()
}

// RegisterAddr registers a writable bookie that serves at host:port.
func (s *Store) RegisterAddr(id metadata.BookieID, host string, port int) {
	s.Register(metadata.Registration{ID: id, Info: metadata.ServiceInfo{Endpoints: []metadata.Endpoint{
		{ID: "bookie", Host: host, Port: port, Protocol: "bookie-rpc"},
	}}})
}

// Unregister takes a bookie's registration away.
func (s *Store) Unregister(id metadata.BookieID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.bookies, id)
	s.wakeLocked()
}

// Put stores bytes as a ledger's metadata, whatever they are.
func (s *Store) Put(id int64, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putLocked(id, bytes.Clone(value))
}

// Unmark takes a mark away, as a replication worker does.
func (s *Store) Unmark(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.marks, id)
}

func (s *Store) wakeLocked() {
	close(s.mu.changed)
	s.mu.changed = make(chan struct{})
}

// do runs f with the lock held, between the faults.
func (s *Store) do(ctx context.Context, op Op, ledger int64, f func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	s.mu.Lock()
	faults := s.mu.faults
	s.mu.Unlock()
	if faults.Before != nil {
		if err := faults.Before(ctx, op, ledger); err != nil {
			return err
		}
	}
	s.mu.Lock()
	err := f()
	s.mu.Unlock()
	if faults.After != nil {
		if err := faults.After(ctx, op, ledger); err != nil {
			return err
		}
	}
	return err
}

func (s *Store) putLocked(id int64, value []byte) metadata.Version {
	s.mu.version++
	s.mu.ledgers[id] = stored{version: s.mu.version, value: value}
	return s.mu.version
}

// InstanceID implements metadata.Store.
func (s *Store) InstanceID(ctx context.Context) (id string, err error) {
	err = s.do(ctx, InstanceID, metadata.NoID, func() error {
		if id = s.mu.instance; id == "" {
			return metadata.ErrNotInitialised
		}
		return nil
	})
	return id, err
}

// Cookies implements metadata.Store.
func (s *Store) Cookies(ctx context.Context) (cookies map[metadata.BookieID]metadata.Cookie, err error) {
	err = s.do(ctx, Cookies, metadata.NoID, func() error {
		cookies = maps.Clone(s.mu.cookies)
		return nil
	})
	return cookies, err
}

// Create implements metadata.Store.
func (s *Store) Create(ctx context.Context, l *metadata.Ledger) (v metadata.Version, err error) {
	if err := metadata.Check(l); err != nil {
		return 0, err
	}
	if l.CToken == 0 {
		l.CToken = rand.Int64()
	}
	err = s.do(ctx, Create, l.ID, func() error {
		for l.ID == metadata.NoID {
			s.mu.lastID++
			if _, taken := s.mu.ledgers[s.mu.lastID]; !taken {
				l.ID = s.mu.lastID
			}
		}
		value, err := metadata.AppendLedger(nil, l)
		if err != nil {
			return err
		}
		if there, ok := s.mu.ledgers[l.ID]; ok {
			if found, err := metadata.ParseLedger(l.ID, there.value); err == nil && found.CToken == l.CToken {
				v = there.version
				return nil
			}
			return fmt.Errorf("ledger %d: %w", l.ID, metadata.ErrExists)
		}
		v = s.putLocked(l.ID, value)
		return nil
	})
	return v, err
}

// Read implements metadata.Store.
func (s *Store) Read(ctx context.Context, id int64) (l *metadata.Ledger, v metadata.Version, err error) {
	err = s.do(ctx, Read, id, func() (err error) {
		there, ok := s.mu.ledgers[id]
		if !ok {
			return fmt.Errorf("ledger %d: %w", id, metadata.ErrNotFound)
		}
		v = there.version
		l, err = metadata.ParseLedger(id, there.value)
		return err
	})
	return l, v, err
}

// Update implements metadata.Store.
func (s *Store) Update(ctx context.Context, l *metadata.Ledger, old metadata.Version) (v metadata.Version, err error) {
	value, err := metadata.AppendLedger(nil, l)
	if err != nil {
		return 0, err
	}
	err = s.do(ctx, Update, l.ID, func() error {
		switch there, ok := s.mu.ledgers[l.ID]; {
		case !ok:
			return fmt.Errorf("ledger %d: %w", l.ID, metadata.ErrNotFound)
		case there.version != old:
			return fmt.Errorf("ledger %d: %w", l.ID, metadata.ErrConflict)
		}
		v = s.putLocked(l.ID, value)
		return nil
	})
	return v, err
}

// Delete implements metadata.Store.
func (s *Store) Delete(ctx context.Context, id int64, v metadata.Version) error {
	return s.do(ctx, Delete, id, func() error {
		there, ok := s.mu.ledgers[id]
		if ok && v != metadata.AnyVersion && v != there.version {
			return fmt.Errorf("ledger %d: %w", id, metadata.ErrConflict)
		}
		delete(s.mu.ledgers, id)
		return nil
	})
}

// List implements metadata.Store. f runs without the store's lock, on a copy.
func (s *Store) List(ctx context.Context, from int64, f func(metadata.Listed) bool) error {
	var ledgers map[int64]stored
	err := s.do(ctx, List, metadata.NoID, func() error {
		ledgers = maps.Clone(s.mu.ledgers)
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(ledgers)) {
		if id < from {
			continue
		}
		l, err := metadata.ParseLedger(id, ledgers[id].value)
		if !f(metadata.Listed{ID: id, Version: ledgers[id].version, Ledger: l, Err: err}) {
			return nil
		}
	}
	return nil
}

// Bookies implements metadata.Store.
func (s *Store) Bookies(ctx context.Context) (*metadata.Registry, error) {
	var first []metadata.Registration
	var changed chan struct{}
	err := s.do(ctx, Bookies, metadata.NoID, func() error {
		first, changed = slices.Collect(maps.Values(s.mu.bookies)), s.mu.changed
		return nil
	})
	if err != nil {
		return nil, err
	}
	return metadata.Follow(first, func(ctx context.Context, set func([]metadata.Registration)) {
		for {
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			s.mu.Lock()
			now := slices.Collect(maps.Values(s.mu.bookies))
			changed = s.mu.changed
			s.mu.Unlock()
			set(now)
		}
	}), nil
}

// MarkUnderReplicated implements metadata.Store.
func (s *Store) MarkUnderReplicated(ctx context.Context, id int64, missing []metadata.BookieID) error {
	return s.do(ctx, MarkUnderReplicated, id, func() error {
		m, ok := s.mu.marks[id]
		if !ok {
			m = metadata.Mark{Ledger: id, CreatedMS: time.Now().UnixMilli()}
		}
		m.Missing = slices.Clone(m.Missing)
		m.Add(missing)
		s.mu.marks[id] = m
		return nil
	})
}

// ListUnderReplicated implements metadata.Store. f runs without the store's lock.
func (s *Store) ListUnderReplicated(ctx context.Context, f func(metadata.Mark) bool) error {
	var marks map[int64]metadata.Mark
	err := s.do(ctx, ListUnderReplicated, metadata.NoID, func() error {
		marks = maps.Clone(s.mu.marks)
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(marks)) {
		m := marks[id]
		m.Missing = slices.Clone(m.Missing)
		if !f(m) {
			return nil
		}
	}
	return nil
}
