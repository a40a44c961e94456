// Package meta is the contract of the metadata store: small facts with
// revisions, changed by compare-and-swap, watched by prefix. etcd is the model
// and meta/etcd the real one; meta/mem behaves the same in memory, limits
// included. Both pass the suite in metatest.
package meta

import (
	"context"
	"errors"
)

// Limits that every store enforces through CheckTxn, so that code which passes
// on one passes on the other. They are etcd's defaults (128 operations, 1.5 MiB
// for an encoded request) less what the encoding may add.
const (
	MaxTxnOps       = 128        // compares, operations: each
	MaxRequestBytes = 1408 << 10 // keys and values of one transaction
	MaxValueBytes   = 1 << 20    // one value
)

var (
	// ErrNotFound: the key does not exist.
	ErrNotFound = errors.New("no such key")
	// ErrCompacted: the history asked for is gone; list again and watch from there.
	ErrCompacted = errors.New("metadata history was compacted")
	// ErrUnavailable: the store did not answer; the request was not executed.
	ErrUnavailable = errors.New("metadata store is not available")
	// ErrUnknownOutcome: the store did not answer in time; the request may or
	// may not have been executed. Re-read before deciding.
	ErrUnknownOutcome = errors.New("outcome of the metadata request is not known")
	// ErrNoSpace: the store's quota is used up. Reads and deletions still work.
	// etcd may have executed the very request that it answers with this error,
	// so an error of meta/etcd that is ErrNoSpace is ErrUnknownOutcome too.
	ErrNoSpace = errors.New("metadata store is out of space")
	// ErrTooLarge: a limit above is passed.
	ErrTooLarge = errors.New("metadata request is too large")
	// ErrInvalid: the request makes no sense: an empty key, a key touched twice,
	// a negative time to live.
	ErrInvalid = errors.New("invalid metadata request")
	// ErrLeaseNotFound: the lease expired or was revoked.
	ErrLeaseNotFound = errors.New("no such lease")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("metadata store is closed")
)

// Revision orders all changes of a store. 0 is "before everything".
type Revision int64

// KV is a key with its value and history. Value is read-only.
type KV struct {
	Key      string
	Value    []byte
	Created  Revision // of the key's creation
	Modified Revision // of its last change
	Lease    LeaseID  // 0: none
}

// LeaseID names a lease; 0 is none.
type LeaseID int64

// Cond holds while Key was last modified at Revision Modified; 0 means that the
// key must not exist.
type Cond struct {
	Key      string
	Modified Revision
}

// Op puts Value at Key, or deletes Key (and, with Prefix, all keys that begin
// with it) if Delete is set.
type Op struct {
	Key    string
	Value  []byte
	Lease  LeaseID
	Delete bool
	Prefix bool // only with Delete
}

// Put and Delete are the usual operations.
func Put(key string, value []byte) Op { return Op{Key: key, Value: value} }

// Delete removes one key.
func Delete(key string) Op { return Op{Key: key, Delete: true} }

// Event is one change seen by a watch. A deletion has a nil Value and Deleted set.
type Event struct {
	KV
	Deleted bool
}

// Events arrive together when they belong to one revision, in order of revisions.
type Events struct {
	Revision Revision
	Events   []Event
	Err      error // ErrCompacted, ErrClosed: the last element before the channel closes
}

// Store keeps the facts. All methods may be called from any goroutine. Errors
// are the sentinels above or the context's, wrapped with the key. A change cut
// short by its context after it was sent is both: the context's error and
// ErrUnknownOutcome. A context that had ended before the call gives its error alone.
type Store interface {
	// Get reads one key, linearizably. ErrNotFound if there is none.
	Get(ctx context.Context, key string) (KV, error)

	// List calls f for every key that begins with prefix, in order of keys,
	// all as of the one revision that it returns. f returning false ends it. It
	// may call f before it fails, with ErrCompacted too if f is so slow that the
	// revision goes; start over then.
	List(ctx context.Context, prefix string, f func(KV) bool) (Revision, error)

	// Txn applies all ops at one revision if all conds hold, else none. ok says
	// which; rev is the revision of the change, or the store's present one if !ok.
	// No key may be touched by two ops. Ops that change nothing make no new
	// revision. A lease that does not exist is ErrLeaseNotFound, if all conds hold.
	Txn(ctx context.Context, conds []Cond, ops []Op) (rev Revision, ok bool, err error)

	// Watch sends every change under prefix with a revision > after. The
	// channel closes after ctx ends or after an element with Err. A reader that
	// does not read may find the channel closed without the last element: unless
	// ctx has ended, that means ErrClosed. Read promptly: what is not read is kept in memory
	// or, on meta/mem, ends in ErrCompacted.
	Watch(ctx context.Context, prefix string, after Revision) <-chan Events

	// Grant makes a lease that ends, and deletes its keys at one revision, if it
	// is not kept alive for ttlSeconds (at least 1; a store may give more).
	Grant(ctx context.Context, ttlSeconds int64) (LeaseID, error)
	// KeepAlive renews the lease once and returns the seconds granted.
	KeepAlive(ctx context.Context, id LeaseID) (ttlSeconds int64, err error)
	// Revoke ends the lease and deletes its keys.
	Revoke(ctx context.Context, id LeaseID) error

	Close() error
}
