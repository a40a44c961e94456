// Package etcd keeps ledger metadata in etcd, in the layout of Pulsar's metadata
// driver (EtcdMetadataStore and what is built on it, 4.x), which bookies with
// that driver read: their garbage collection, auditor and replication workers
// treat our ledgers like Pulsar's own.
//
// A key is the path of a node as it is, without any prefix, and its value the
// node's bytes. Parents need not exist.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// root cannot be configured: Pulsar's driver takes it from no URI of etcd.
const root = "/ledgers/"

// Config says how to use a cluster.
type Config struct {
	// Client is the caller's, who closes it after the store's last use.
	Client *clientv3.Client
	// RequestTimeout bounds one request to etcd. 0: 5 s.
	RequestTimeout time.Duration
	// RelistInterval is the time between two readings of who is registered, in case
	// their watch has lost something. 0: 1 min.
	RelistInterval time.Duration
}

const (
	defaultRequestTimeout = 5 * time.Second
	defaultRelistInterval = time.Minute
)

// createAttempts bounds how often one Create sends what may have been done.
const createAttempts = 3

// Store is a metadata.Store. Its versions are etcd's modification revisions,
// which, unlike the versions that Java compares, no deletion resets.
type Store struct {
	client  *clientv3.Client
	timeout time.Duration
	relist  time.Duration
}

var _ metadata.Store = (*Store)(nil)

// New makes a store. It sends nothing yet.
func New(c Config) *Store {
	if c.RequestTimeout <= 0 {
		c.RequestTimeout = defaultRequestTimeout
	}
	if c.RelistInterval <= 0 {
		c.RelistInterval = defaultRelistInterval
	}
	return &Store{client: c.Client, timeout: c.RequestTimeout, relist: c.RelistInterval}
}

// begin limits a request to its time and the client's life, or says why it cannot
// be sent: a client that is closed would try for seconds. Call end after it.
func (s *Store) begin(ctx context.Context, subject string) (limited context.Context, end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", subject, err)
	}
	if s.client.Ctx().Err() != nil {
		return nil, nil, fmt.Errorf("%s: %w", subject, metadata.ErrClosed)
	}
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	unhook := context.AfterFunc(s.client.Ctx(), cancel)
	return limited, func() { unhook(); cancel() }, nil
}

// txn commits a transaction whose outcome, if it fails, is a write's if writes is set.
func (s *Store) txn(ctx context.Context, subject string, writes bool, cond []clientv3.Cmp, then, otherwise []clientv3.Op) (*clientv3.TxnResponse, error) {
	limited, end, err := s.begin(ctx, subject)
	if err != nil {
		return nil, err
	}
	defer end()
	resp, err := s.client.KV.Txn(limited).If(cond...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return nil, s.failure(ctx, subject, writes, err)
	}
	return resp, nil
}

func (s *Store) get(ctx context.Context, subject, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	limited, end, err := s.begin(ctx, subject)
	if err != nil {
		return nil, err
	}
	defer end()
	resp, err := s.client.KV.Get(limited, key, opts...)
	if err != nil {
		return nil, s.failure(ctx, subject, false, err)
	}
	return resp, nil
}

// InstanceID implements metadata.Store.
func (s *Store) InstanceID(ctx context.Context) (string, error) {
	const key = root + metadata.InstanceIDPath
	resp, err := s.get(ctx, key, key)
	if err != nil {
		return "", err
	}
	if len(resp.Kvs) == 0 {
		return "", fmt.Errorf("%s: %w", key, metadata.ErrNotInitialised)
	}
	return string(resp.Kvs[0].Value), nil
}

// Cookies implements metadata.Store.
func (s *Store) Cookies(ctx context.Context) (map[metadata.BookieID]metadata.Cookie, error) {
	const prefix = root + metadata.CookiesPath + "/"
	cookies := make(map[metadata.BookieID]metadata.Cookie)
	var damaged []error
	err := s.pages(ctx, "cookies", prefix, clientv3.GetPrefixRangeEnd(prefix), func(kv *mvccpb.KeyValue) string {
		id := metadata.BookieID(strings.TrimPrefix(string(kv.Key), prefix))
		if !id.Valid() {
			return ""
		}
		c, err := metadata.ParseCookie(id, kv.Value)
		if err != nil {
			damaged = append(damaged, err)
			return ""
		}
		cookies[id] = c
		return ""
	})
	if err != nil {
		return nil, err
	}
	return cookies, errors.Join(damaged...)
}

func key(id int64) string     { return root + metadata.LedgerPath(id) }
func subject(id int64) string { return fmt.Sprintf("ledger %d", id) }

// Create implements metadata.Store.
func (s *Store) Create(ctx context.Context, l *metadata.Ledger) (metadata.Version, error) {
	if l.CToken == 0 {
		l.CToken = rand.Int64()
	}
	chosen := l.ID != metadata.NoID
	if !chosen {
		if err := metadata.Check(l); err != nil {
			return 0, err // before an id is spent
		}
	}
	for {
		if !chosen {
			id, err := s.nextID(ctx)
			if err != nil {
				return 0, err
			}
			l.ID = id
		}
		v, err := s.createAt(ctx, l)
		if !chosen && errors.Is(err, metadata.ErrExists) {
			continue // a counter that was reset proposes old ids
		}
		return v, err
	}
}

// createAt writes a ledger where there is none. What is there with our token was
// written by an earlier attempt.
func (s *Store) createAt(ctx context.Context, l *metadata.Ledger) (metadata.Version, error) {
	value, err := metadata.AppendLedger(nil, l)
	if err != nil {
		return 0, err
	}
	k := key(l.ID)
	for attempt := 1; ; attempt++ {
		resp, err := s.txn(ctx, subject(l.ID), true,
			[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(k), "=", 0)},
			[]clientv3.Op{clientv3.OpPut(k, string(value))},
			[]clientv3.Op{clientv3.OpGet(k)})
		if err != nil {
			if errors.Is(err, metadata.ErrUnknownOutcome) && ctx.Err() == nil && attempt < createAttempts {
				continue
			}
			if attempt > 1 && !errors.Is(err, metadata.ErrUnknownOutcome) {
				// This attempt did nothing, but an earlier one may have.
				err = fmt.Errorf("%s: %w: %s", subject(l.ID), metadata.ErrUnknownOutcome, err)
			}
			return 0, err
		}
		if resp.Succeeded {
			return metadata.Version(resp.Header.Revision), nil
		}
		if there := resp.Responses[0].GetResponseRange().Kvs; len(there) == 1 {
			if found, err := metadata.ParseLedger(l.ID, there[0].Value); err == nil && found.CToken == l.CToken {
				return metadata.Version(there[0].ModRevision), nil
			}
		}
		return 0, fmt.Errorf("%s: %w", subject(l.ID), metadata.ErrExists)
	}
}

// Read implements metadata.Store.
func (s *Store) Read(ctx context.Context, id int64) (*metadata.Ledger, metadata.Version, error) {
	resp, err := s.get(ctx, subject(id), key(id))
	if err != nil {
		return nil, 0, err
	}
	if len(resp.Kvs) == 0 {
		return nil, 0, fmt.Errorf("%s: %w", subject(id), metadata.ErrNotFound)
	}
	l, err := metadata.ParseLedger(id, resp.Kvs[0].Value)
	return l, metadata.Version(resp.Kvs[0].ModRevision), err
}

// Update implements metadata.Store.
func (s *Store) Update(ctx context.Context, l *metadata.Ledger, v metadata.Version) (metadata.Version, error) {
	value, err := metadata.AppendLedger(nil, l)
	if err != nil {
		return 0, err
	}
	k := key(l.ID)
	resp, err := s.txn(ctx, subject(l.ID), true,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(k), "=", int64(v))},
		[]clientv3.Op{clientv3.OpPut(k, string(value))},
		[]clientv3.Op{clientv3.OpGet(k, clientv3.WithKeysOnly())})
	switch {
	case err != nil:
		return 0, err
	case resp.Succeeded:
		return metadata.Version(resp.Header.Revision), nil
	case len(resp.Responses[0].GetResponseRange().Kvs) == 0:
		return 0, fmt.Errorf("%s: %w", subject(l.ID), metadata.ErrNotFound)
	}
	return 0, fmt.Errorf("%s: %w", subject(l.ID), metadata.ErrConflict)
}

// Delete implements metadata.Store.
func (s *Store) Delete(ctx context.Context, id int64, v metadata.Version) error {
	k := key(id)
	var cond []clientv3.Cmp
	if v != metadata.AnyVersion {
		cond = []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(k), "=", int64(v))}
	}
	resp, err := s.txn(ctx, subject(id), true, cond,
		[]clientv3.Op{clientv3.OpDelete(k)},
		[]clientv3.Op{clientv3.OpGet(k, clientv3.WithKeysOnly())})
	if err == nil && !resp.Succeeded && len(resp.Responses[0].GetResponseRange().Kvs) > 0 {
		err = fmt.Errorf("%s: %w", subject(id), metadata.ErrConflict)
	}
	return err
}
