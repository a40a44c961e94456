package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quirelog/quire/storage/meta"
)

// Pages of a listing. For each page etcd counts all the keys after it too, so
// pages of a fixed size would make a listing quadratic; they grow as far as
// their bytes allow. The first page is small because nothing is known of the
// sizes of the values yet.
const (
	firstPageKeys   = 64
	maxPageKeys     = 1 << 16
	targetPageBytes = 8 << 20
)

// List implements meta.Store.
func (s *Store) List(ctx context.Context, prefix string, f func(meta.KV) bool) (meta.Revision, error) {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	if prefix == "" {
		// etcd's notation for all keys.
		from, end = "\x00", "\x00"
	}
	var revision int64
	for limit := int64(firstPageKeys); ; {
		page, err := s.page(ctx, prefix, from, end, limit, revision)
		if err != nil {
			return 0, err
		}
		if revision == 0 {
			revision = page.Header.Revision
		}
		bytes := 0
		for _, kv := range page.Kvs {
			bytes += len(kv.Key) + len(kv.Value)
			if !f(keyValue(kv)) {
				return meta.Revision(revision), nil
			}
		}
		if !page.More {
			return meta.Revision(revision), nil
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		limit = nextPageKeys(len(page.Kvs), bytes)
	}
}

// nextPageKeys is how many keys make a page of targetPageBytes if they are like
// those of the page before.
func nextPageKeys(keys, bytes int) int64 {
	return min(max(int64(targetPageBytes)*int64(keys)/int64(max(bytes, 1)), 1), maxPageKeys)
}

func (s *Store) page(ctx context.Context, prefix, from, end string, limit, revision int64) (*clientv3.GetResponse, error) {
	r, err := s.begin(ctx, prefix)
	if err != nil {
		return nil, err
	}
	defer r.end()
	page, err := s.kv.KV.Get(r.ctx, from, clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(revision))
	if err != nil {
		return nil, r.readError(err)
	}
	if err := r.learn(page.Header); err != nil {
		return nil, fmt.Errorf("%q: %w: %w", prefix, meta.ErrUnavailable, err)
	}
	return page, nil
}
