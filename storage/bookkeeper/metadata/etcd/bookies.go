package etcd

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// rewatchDelay is how long a broken watch waits before it is made again.
const rewatchDelay = 200 * time.Millisecond

const available = root + metadata.AvailablePath + "/"

// Bookies implements metadata.Store. It watches the registrations alone: a watch
// of everything under the root would deliver each change of each ledger.
func (s *Store) Bookies(ctx context.Context) (*metadata.Registry, error) {
	keys, revision, err := s.registered(ctx)
	if err != nil {
		return nil, err
	}
	return metadata.Follow(registrations(keys), func(ctx context.Context, set func([]metadata.Registration)) {
		for ctx.Err() == nil && s.client.Ctx().Err() == nil {
			s.watch(ctx, keys, revision, set)
			// The watch broke, and what it missed may be compacted: read all again. So from
			// time to time if it did not: one of a revision that etcd has yet to come to,
			// since it was restored from a backup, waits and says nothing.
			for {
				select {
				case <-time.After(rewatchDelay):
				case <-ctx.Done():
					return
				case <-s.client.Ctx().Done():
					return
				}
				if keys, revision, err = s.registered(ctx); err == nil {
					set(registrations(keys))
					break
				}
			}
		}
	}), nil
}

// registered reads all registrations and as of which revision.
func (s *Store) registered(ctx context.Context) (map[string][]byte, int64, error) {
	resp, err := s.get(ctx, "registered bookies", available, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, err
	}
	keys := make(map[string][]byte, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		keys[string(kv.Key)] = kv.Value
	}
	return keys, resp.Header.Revision, nil
}

// watch applies the changes after a revision to keys until the watch breaks, or it is
// time to read all again.
func (s *Store) watch(ctx context.Context, keys map[string][]byte, revision int64, set func([]metadata.Registration)) {
	// A member that is cut off from the others must end the watch, not keep it silent.
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), s.relist)
	defer cancel()
	for resp := range s.client.Watcher.Watch(ctx, available, clientv3.WithPrefix(), clientv3.WithRev(revision+1)) {
		if resp.Err() != nil {
			return
		}
		for _, e := range resp.Events {
			if e.Type == mvccpb.DELETE {
				delete(keys, string(e.Kv.Key))
			} else {
				keys[string(e.Kv.Key)] = e.Kv.Value
			}
		}
		set(registrations(keys))
	}
}

// registrations reads the keys. One whose value is damaged is still registered:
// its id is its address, unless its operator chose it.
func registrations(keys map[string][]byte) []metadata.Registration {
	var all []metadata.Registration
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		name := strings.TrimPrefix(k, available)
		id, readOnly := strings.CutPrefix(name, metadata.ReadOnlyName+"/")
		if !metadata.BookieID(id).Valid() {
			continue // "readonly" itself among them
		}
		info, err := metadata.ParseServiceInfo(keys[k])
		if err != nil {
			info = metadata.ServiceInfo{}
		}
		all = append(all, metadata.Registration{ID: metadata.BookieID(id), ReadOnly: readOnly, Info: info})
	}
	return all
}
