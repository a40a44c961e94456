// Package etcd is the metadata store on etcd: a cluster reached over gRPC (Open)
// or a server of one member in this process (OpenEmbedded).
package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// Store is a meta.Store. Make one by Open or OpenEmbedded.
type Store struct {
	// kv, watcher and leases share nothing on a cluster: on one HTTP/2
	// connection a burst of writes would hold up watch events and lease renewals
	// (etcd issue 15402). In process they are the same client.
	kv, watcher, leases *clientv3.Client

	server  *server // nil on a cluster
	logger  *zap.Logger
	timeout time.Duration // of one request

	// ctx ends when Close begins or the store fails, which cuts requests and
	// watches short.
	ctx    context.Context
	cancel context.CancelFunc

	// open is held for reading while a request runs, and for writing by Close:
	// the embedded server unmaps its file when it stops, so nothing may read then.
	open       sync.RWMutex
	closed     bool // by Close; guarded by open
	background sync.WaitGroup

	watches atomic.Uint64 // that were begun, again or for the first time

	closing chan struct{}         // closed when Close begins
	failed  atomic.Pointer[error] // why the embedded server, or the cluster, cannot be used any more

	// What the answers of a cluster have told; see learn.
	cluster   atomic.Uint64
	newest    atomic.Int64
	answered  atomic.Int64 // when the last came, Unix time in ns
	onFailure func(error)
}

var _ meta.Store = (*Store)(nil)

// request is one call on its way: its context, and what to say if it fails.
type request struct {
	s       *Store
	caller  context.Context
	ctx     context.Context
	cancel  context.CancelFunc
	unhook  func() bool
	subject string
	told    int64 // the newest revision when it began
}

// begin admits a request, or says why it cannot be served. End it.
func (s *Store) begin(ctx context.Context, subject string) (request, error) {
	if err := ctx.Err(); err != nil {
		return request{}, fmt.Errorf("%q: %w", subject, err)
	}
	s.open.RLock()
	if err := s.ended(); err != nil {
		s.open.RUnlock()
		return request{}, fmt.Errorf("%q: %w", subject, err)
	}
	r := request{s: s, caller: ctx, subject: subject, told: s.newest.Load()}
	r.ctx, r.cancel = context.WithTimeout(ctx, s.timeout)
	r.unhook = context.AfterFunc(s.ctx, r.cancel)
	return r, nil
}

// ended says why the store serves no more, nil if it does.
func (s *Store) ended() error {
	if s.ctx.Err() == nil {
		return nil
	}
	if why := s.failed.Load(); why != nil {
		return fmt.Errorf("%w: %w", meta.ErrUnavailable, *why)
	}
	return meta.ErrClosed
}

func (r *request) end() {
	r.unhook()
	r.cancel()
	r.s.open.RUnlock()
}

// Get implements meta.Store.
func (s *Store) Get(ctx context.Context, key string) (meta.KV, error) {
	if key == "" {
		return meta.KV{}, fmt.Errorf("%w: no key to get", meta.ErrInvalid)
	}
	r, err := s.begin(ctx, key)
	if err != nil {
		return meta.KV{}, err
	}
	defer r.end()
	resp, err := s.kv.KV.Get(r.ctx, key)
	if err != nil {
		return meta.KV{}, r.readError(err)
	}
	if err := r.learn(resp.Header); err != nil {
		return meta.KV{}, fmt.Errorf("%q: %w: %w", key, meta.ErrUnavailable, err)
	}
	if len(resp.Kvs) == 0 {
		return meta.KV{}, fmt.Errorf("%q: %w", key, meta.ErrNotFound)
	}
	return keyValue(resp.Kvs[0]), nil
}

// Txn implements meta.Store.
func (s *Store) Txn(ctx context.Context, conds []meta.Cond, ops []meta.Op) (meta.Revision, bool, error) {
	if err := meta.CheckTxn(conds, ops); err != nil {
		return 0, false, err
	}
	subject, puts := "", false
	for i := range ops {
		puts = puts || !ops[i].Delete
	}
	switch {
	case len(ops) > 0:
		subject = ops[0].Key
	case len(conds) > 0:
		subject = conds[0].Key
	}
	r, err := s.begin(ctx, subject)
	if err != nil {
		return 0, false, err
	}
	defer r.end()
	if puts && s.server != nil && s.server.space.low() {
		return 0, false, fmt.Errorf("%q: %w: less than %d MiB are free in %s", subject, meta.ErrNoSpace, reserveBytes>>20, s.server.dir)
	}
	cmps := make([]clientv3.Cmp, len(conds))
	for i, c := range conds {
		cmps[i] = clientv3.Compare(clientv3.ModRevision(c.Key), "=", int64(c.Modified))
	}
	then := make([]clientv3.Op, len(ops))
	for i, op := range ops {
		switch {
		case op.Delete && op.Prefix:
			then[i] = clientv3.OpDelete(op.Key, clientv3.WithPrefix())
		case op.Delete:
			then[i] = clientv3.OpDelete(op.Key)
		case op.Lease != 0:
			then[i] = clientv3.OpPut(op.Key, string(op.Value), clientv3.WithLease(clientv3.LeaseID(op.Lease)))
		default:
			then[i] = clientv3.OpPut(op.Key, string(op.Value))
		}
	}
	var otherwise []clientv3.Op
	if len(then) == 0 && len(conds) > 0 {
		// etcd answers a transaction without operations from whatever the member that
		// it is sent to has applied, which may be far behind (IsTxnSerializable of its
		// server). One that reads is linearizable, so what it compares is how things are.
		read := clientv3.OpGet(conds[0].Key, clientv3.WithCountOnly())
		then, otherwise = []clientv3.Op{read}, []clientv3.Op{read}
	}
	resp, err := s.kv.KV.Txn(r.ctx).If(cmps...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return 0, false, r.writeError(err)
	}
	if err := r.learn(resp.Header); err != nil {
		return 0, false, fmt.Errorf("%q: %w: %w", subject, meta.ErrUnknownOutcome, err)
	}
	return meta.Revision(resp.Header.Revision), resp.Succeeded, nil
}

// Grant implements meta.Store.
func (s *Store) Grant(ctx context.Context, ttlSeconds int64) (meta.LeaseID, error) {
	if ttlSeconds < 1 {
		return 0, fmt.Errorf("%w: a lease of %d s", meta.ErrInvalid, ttlSeconds)
	}
	r, err := s.begin(ctx, "lease")
	if err != nil {
		return 0, err
	}
	defer r.end()
	resp, err := s.leases.Lease.Grant(r.ctx, ttlSeconds)
	if err != nil {
		return 0, r.writeError(err)
	}
	return meta.LeaseID(resp.ID), nil
}

// KeepAlive implements meta.Store.
func (s *Store) KeepAlive(ctx context.Context, id meta.LeaseID) (int64, error) {
	r, err := s.begin(ctx, fmt.Sprintf("lease %x", int64(id)))
	if err != nil {
		return 0, err
	}
	defer r.end()
	resp, err := s.leases.Lease.KeepAliveOnce(r.ctx, clientv3.LeaseID(id))
	if err != nil {
		return 0, r.writeError(err)
	}
	return resp.TTL, nil
}

// Revoke implements meta.Store.
func (s *Store) Revoke(ctx context.Context, id meta.LeaseID) error {
	r, err := s.begin(ctx, fmt.Sprintf("lease %x", int64(id)))
	if err != nil {
		return err
	}
	defer r.end()
	if _, err := s.leases.Lease.Revoke(r.ctx, clientv3.LeaseID(id)); err != nil {
		return r.writeError(err)
	}
	return nil
}

// Close implements meta.Store. Requests that run are cut short. It waits for the
// store's goroutines and, if it is embedded, for the server, unless that failed:
// its goroutines and its hold on the folder end with the process.
func (s *Store) Close() error {
	s.cancel()
	s.open.Lock()
	defer s.open.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.closing)
	var errs []error
	for _, c := range []*clientv3.Client{s.watcher, s.leases, s.kv} {
		// A client in process is three times the same, and one that has closed
		// says so by its context's error.
		if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	s.background.Wait()
	if s.server != nil && s.failed.Load() == nil {
		if err := s.server.stop(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func keyValue(kv *mvccpb.KeyValue) meta.KV {
	return meta.KV{
		Key:      string(kv.Key),
		Value:    kv.Value,
		Created:  meta.Revision(kv.CreateRevision),
		Modified: meta.Revision(kv.ModRevision),
		Lease:    meta.LeaseID(kv.Lease),
	}
}
