// Package zookeeper keeps ledger metadata in ZooKeeper, in BookKeeper's own
// layout (HierarchicalLedgerManager, "zk+hierarchical"), which is also that of
// Pulsar's metadata driver on ZooKeeper.
//
// A node's parents are nodes too: whoever writes a node makes them, and whoever
// deletes one takes away those that it leaves empty.
package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// ErrLayout: the cluster keeps its ledgers in another of BookKeeper's layouts.
var ErrLayout = errors.New("layout of ledger metadata is not supported")

// Config says how to reach a ZooKeeper ensemble.
type Config struct {
	Servers        []string      // host:port each
	Root           string        // of the layout; "": /ledgers
	SessionTimeout time.Duration // 0: 10 s. A dead connection is noticed after two thirds of it
	RequestTimeout time.Duration // of one request; 0: 5 s
	// Logf gets the client's complaints. nil: nobody.
	Logf func(format string, args ...any)
}

const (
	defaultRoot           = "/ledgers"
	defaultSessionTimeout = 10 * time.Second
	defaultRequestTimeout = 5 * time.Second

	// maxPacketBytes bounds an answer: a list of nodes, since a node has 1 MiB at most.
	maxPacketBytes = 16 << 20

	// maxCalls bounds the requests on their way, those that nobody waits for any
	// more included: they end when the connection is known to be dead.
	maxCalls = 128

	// attempts bounds how often one call tries again what may have been done, or
	// what others undid meanwhile.
	attempts = 5
)

// conn is what the store uses of *zk.Conn.
type conn interface {
	Get(path string) ([]byte, *zk.Stat, error)
	Set(path string, data []byte, version int32) (*zk.Stat, error)
	Create(path string, data []byte, flags int32, acl []zk.ACL) (string, error)
	Delete(path string, version int32) error
	Children(path string) ([]string, *zk.Stat, error)
	ChildrenW(path string) ([]string, *zk.Stat, <-chan zk.Event, error)
	Sync(path string) (string, error)
	Close()
}

var _ conn = (*zk.Conn)(nil)

// Store is a metadata.Store. Its versions are those of the nodes' data.
type Store struct {
	conn    conn
	root    string
	timeout time.Duration

	calls   chan struct{} // one element per request on its way
	pending sync.WaitGroup
	closed  chan struct{} // closed by Close
	once    sync.Once
	ended   func() // waits for the connection's goroutines
}

var _ metadata.Store = (*Store)(nil)

// Open makes a store with a connection of its own, which may come about later:
// until then requests fail with ErrUnavailable. Close it.
func Open(c Config) (*Store, error) {
	if c.SessionTimeout <= 0 {
		c.SessionTimeout = defaultSessionTimeout
	}
	if len(c.Servers) == 0 {
		return nil, errors.New("zookeeper: no servers are given")
	}
	logger := discard(c.Logf)
	connection, events, err := zk.Connect(c.Servers, c.SessionTimeout,
		zk.WithLogger(logger), zk.WithLogInfo(false), zk.WithMaxBufferSize(maxPacketBytes))
	if err != nil {
		return nil, fmt.Errorf("zookeeper at %v: %w", c.Servers, err)
	}
	return newStore(connection, c, func() {
		for range events { // closed by the last goroutine
		}
	}), nil
}

// discard is a logger that may be nil.
type discard func(format string, args ...any)

// Printf implements zk.Logger.
func (f discard) Printf(format string, args ...any) {
	if f != nil {
		f(format, args...)
	}
}

func newStore(connection conn, c Config, ended func()) *Store {
	if c.Root == "" {
		c.Root = defaultRoot
	}
	if c.RequestTimeout <= 0 {
		c.RequestTimeout = defaultRequestTimeout
	}
	return &Store{
		conn: connection, root: strings.TrimRight(c.Root, "/") + "/", timeout: c.RequestTimeout,
		calls: make(chan struct{}, maxCalls), closed: make(chan struct{}), ended: ended,
	}
}

// Close ends the session and waits for what is on its way. Registries end by
// themselves, but want their own Close.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.conn.Close()
		s.pending.Wait()
		s.ended()
	})
	return nil
}

// call makes one request. The client knows no contexts: a request that is given
// up goes on without anybody waiting for it, until its connection ends.
func call[T any](ctx context.Context, s *Store, subject string, writes bool, request func() (T, error)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, fmt.Errorf("%s: %w", subject, err)
	}
	timer := time.NewTimer(s.timeout)
	defer timer.Stop()
	select {
	case s.calls <- struct{}{}:
	case <-s.closed:
		return zero, fmt.Errorf("%s: %w", subject, metadata.ErrClosed)
	case <-ctx.Done():
		return zero, fmt.Errorf("%s: %w", subject, ctx.Err())
	case <-timer.C:
		return zero, fmt.Errorf("%s: %w: %d requests are waiting for ZooKeeper", subject, metadata.ErrUnavailable, maxCalls)
	}
	type answer struct {
		value T
		err   error
	}
	answered := make(chan answer, 1)
	s.pending.Go(func() {
		value, err := request()
		<-s.calls
		answered <- answer{value, err}
	})
	lost := metadata.ErrUnavailable
	if writes {
		lost = metadata.ErrUnknownOutcome
	}
	select {
	case a := <-answered:
		if a.err != nil {
			return zero, s.failure(subject, lost, a.err)
		}
		return a.value, nil
	case <-ctx.Done():
		if writes {
			return zero, fmt.Errorf("%s: %w: %w", subject, lost, ctx.Err())
		}
		return zero, fmt.Errorf("%s: %w", subject, ctx.Err())
	case <-timer.C:
		return zero, fmt.Errorf("%s: %w: no answer within %v", subject, lost, s.timeout)
	}
}

// failure translates the error of a request. Answers that callers act upon keep
// their identity.
func (s *Store) failure(subject string, lost, err error) error {
	switch {
	case errors.Is(err, zk.ErrNoNode), errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrBadVersion), errors.Is(err, zk.ErrNotEmpty):
		return err
	case errors.Is(err, zk.ErrNoServer), errors.Is(err, zk.ErrNoAuth), errors.Is(err, zk.ErrAuthFailed), errors.Is(err, zk.ErrSessionMoved),
		errors.Is(err, zk.ErrInvalidACL), errors.Is(err, zk.ErrInvalidPath), errors.Is(err, zk.ErrBadArguments):
		// Not sent, or refused.
		lost = metadata.ErrUnavailable
	}
	select {
	case <-s.closed:
		if lost == metadata.ErrUnavailable {
			lost = metadata.ErrClosed
		}
	default:
	}
	return fmt.Errorf("%s: %w: %s", subject, lost, err)
}

// node is the data of a node and its version.
type node struct {
	data    []byte
	version int32
}

// get reads a node as the server has it that the client is connected to.
func (s *Store) get(ctx context.Context, subject, path string) (node, error) {
	return call(ctx, s, subject, false, func() (node, error) {
		data, stat, err := s.conn.Get(s.root + path)
		if err != nil {
			return node{}, err
		}
		return node{data, stat.Version}, nil
	})
}

// sync makes that server catch up with the leader, so that what is read next is
// as of now. Without it a follower may be behind.
func (s *Store) sync(ctx context.Context, subject string) error {
	_, err := call(ctx, s, subject, false, func() (string, error) { return s.conn.Sync(strings.TrimSuffix(s.root, "/")) })
	return err
}

// parentAttempts bounds how often one create makes parents that others, who delete
// ledgers beside it, take away as empty.
const parentAttempts = 64

// create makes a node and the parents that it lacks, and returns its path, which
// the server completes if flags ask for a number.
func (s *Store) create(ctx context.Context, subject, path string, data []byte, flags int32, writes bool) (string, error) {
	acl := zk.WorldACL(zk.PermAll)
	var err error
	for range parentAttempts {
		var made string
		made, err = call(ctx, s, subject, writes, func() (string, error) { return s.conn.Create(s.root+path, data, flags, acl) })
		if !errors.Is(err, zk.ErrNoNode) {
			return made, err
		}
		for i := 1; i < len(s.root+path); i++ {
			if (s.root + path)[i] != '/' {
				continue
			}
			parent := (s.root + path)[:i]
			_, err := call(ctx, s, subject, false, func() (string, error) { return s.conn.Create(parent, nil, 0, acl) })
			if err != nil && !errors.Is(err, zk.ErrNodeExists) && !errors.Is(err, zk.ErrNoNode) {
				return "", err
			}
		}
		// Somebody who deleted a neighbour may have taken a parent away again.
	}
	return "", fmt.Errorf("%s: %w: its parents come and go: %s", subject, metadata.ErrUnavailable, err)
}

func subject(id int64) string { return fmt.Sprintf("ledger %d", id) }

// InstanceID implements metadata.Store. ErrLayout if ledgers are kept elsewhere
// than this store would look for them.
func (s *Store) InstanceID(ctx context.Context) (string, error) {
	path := metadata.InstanceIDPath
	if err := s.sync(ctx, path); err != nil {
		return "", err
	}
	instance, err := s.get(ctx, path, path)
	if errors.Is(err, zk.ErrNoNode) {
		return "", fmt.Errorf("%s%s: %w", s.root, path, metadata.ErrNotInitialised)
	}
	if err != nil {
		return "", err
	}
	layout, err := s.get(ctx, metadata.LayoutPath, metadata.LayoutPath)
	switch {
	case errors.Is(err, zk.ErrNoNode):
		// Pulsar's driver writes none, and has no other layout.
	case err != nil:
		return "", err
	case !supported(string(layout.data)):
		return "", fmt.Errorf("%s%s: %w: %.200q", s.root, metadata.LayoutPath, ErrLayout, layout.data)
	}
	return string(instance.data), nil
}

// supported reads LedgerLayout: the version of its format, then the class that
// makes ledger managers and its version.
func supported(layout string) bool {
	format, class, _ := strings.Cut(layout, "\n")
	class, version, _ := strings.Cut(class, ":")
	name := class[strings.LastIndexByte(class, '.')+1:]
	return strings.TrimSpace(format) == "2" && strings.TrimSpace(version) == "1" &&
		(name == "HierarchicalLedgerManagerFactory" || name == "PulsarLedgerManagerFactory")
}

// Cookies implements metadata.Store.
func (s *Store) Cookies(ctx context.Context) (map[metadata.BookieID]metadata.Cookie, error) {
	names, err := s.children(ctx, metadata.CookiesPath)
	if err != nil {
		return nil, err
	}
	cookies := make(map[metadata.BookieID]metadata.Cookie)
	var damaged []error
	for _, name := range names {
		id := metadata.BookieID(name)
		n, err := s.get(ctx, "cookie of bookie "+name, metadata.CookiesPath+"/"+name)
		switch {
		case errors.Is(err, zk.ErrNoNode) || !id.Valid():
			continue
		case err != nil:
			return nil, err
		}
		c, err := metadata.ParseCookie(id, n.data)
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		cookies[id] = c
	}
	return cookies, errors.Join(damaged...)
}

// Create implements metadata.Store.
func (s *Store) Create(ctx context.Context, l *metadata.Ledger) (metadata.Version, error) {
	if l.CToken == 0 {
		l.CToken = rand.Int64N(1<<63-1) + 1 // as Java's: never negative
	}
	if l.ID != metadata.NoID {
		return s.createAt(ctx, l)
	}
	if err := metadata.Check(l); err != nil {
		return 0, err // before an id is spent
	}
	for {
		id, err := s.nextID(ctx)
		if err != nil {
			return 0, err
		}
		l.ID = id
		if v, err := s.createAt(ctx, l); !errors.Is(err, metadata.ErrExists) {
			return v, err
		}
	}
}

// createAt writes a ledger where there is none. What is there with our token was
// written by an earlier attempt.
func (s *Store) createAt(ctx context.Context, l *metadata.Ledger) (metadata.Version, error) {
	value, err := metadata.AppendLedger(nil, l)
	if err != nil {
		return 0, err
	}
	path := metadata.LedgerPath(l.ID)
	for attempt := 1; ; attempt++ {
		_, err := s.create(ctx, subject(l.ID), path, value, 0, true)
		switch {
		case err == nil:
			return 0, nil // the version of a new node
		case errors.Is(err, zk.ErrNodeExists):
			if there, v, err := s.Read(ctx, l.ID); err == nil && there.CToken == l.CToken {
				return v, nil
			} else if attempt > 1 && (errors.Is(err, metadata.ErrUnavailable) || ctx.Err() != nil) {
				return 0, fmt.Errorf("%s: %w: %s", subject(l.ID), metadata.ErrUnknownOutcome, err)
			}
			return 0, fmt.Errorf("%s: %w", subject(l.ID), metadata.ErrExists)
		case errors.Is(err, metadata.ErrUnknownOutcome) && ctx.Err() == nil && attempt < attempts:
		case attempt > 1 && !errors.Is(err, metadata.ErrUnknownOutcome):
			// This attempt did nothing, but an earlier one may have.
			return 0, fmt.Errorf("%s: %w: %s", subject(l.ID), metadata.ErrUnknownOutcome, err)
		default:
			return 0, err
		}
	}
}

// Read implements metadata.Store.
func (s *Store) Read(ctx context.Context, id int64) (*metadata.Ledger, metadata.Version, error) {
	if err := s.sync(ctx, subject(id)); err != nil {
		return nil, 0, err
	}
	n, err := s.get(ctx, subject(id), metadata.LedgerPath(id))
	if errors.Is(err, zk.ErrNoNode) {
		err = fmt.Errorf("%s: %w", subject(id), metadata.ErrNotFound)
	}
	if err != nil {
		return nil, 0, err
	}
	l, err := metadata.ParseLedger(id, n.data)
	return l, metadata.Version(n.version), err
}

// Update implements metadata.Store.
func (s *Store) Update(ctx context.Context, l *metadata.Ledger, v metadata.Version) (metadata.Version, error) {
	value, err := metadata.AppendLedger(nil, l)
	if err != nil {
		return 0, err
	}
	version, err := call(ctx, s, subject(l.ID), true, func() (metadata.Version, error) {
		stat, err := s.conn.Set(s.root+metadata.LedgerPath(l.ID), value, int32(v))
		if err != nil {
			return 0, err
		}
		return metadata.Version(stat.Version), nil
	})
	switch {
	case errors.Is(err, zk.ErrNoNode):
		err = fmt.Errorf("%s: %w", subject(l.ID), metadata.ErrNotFound)
	case errors.Is(err, zk.ErrBadVersion):
		err = fmt.Errorf("%s: %w", subject(l.ID), metadata.ErrConflict)
	}
	return version, err
}

// Delete implements metadata.Store.
func (s *Store) Delete(ctx context.Context, id int64, v metadata.Version) error {
	path := metadata.LedgerPath(id)
	err := s.remove(ctx, subject(id), path, int32(v), true)
	switch {
	case errors.Is(err, zk.ErrNoNode):
		return nil
	case errors.Is(err, zk.ErrBadVersion):
		return fmt.Errorf("%s: %w", subject(id), metadata.ErrConflict)
	case err != nil:
		return err
	}
	// The ledger is deleted. Empty parents are only untidy.
	for i := strings.LastIndexByte(path, '/'); i > 0; i = strings.LastIndexByte(path, '/') {
		path = path[:i]
		if s.remove(ctx, subject(id), path, -1, false) != nil {
			break
		}
	}
	return nil
}

func (s *Store) remove(ctx context.Context, subject, path string, version int32, writes bool) error {
	_, err := call(ctx, s, subject, writes, func() (struct{}, error) { return struct{}{}, s.conn.Delete(s.root+path, version) })
	return err
}
