package etcd

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// pageKeys is the keys of one page. A ledger's metadata is a few hundred bytes, so
// a page is a fraction of a megabyte.
const pageKeys = 500

// pages calls f for the keys from ≤ key < end in their order. It goes on after
// the key, or where f says instead ("" for neither), until the end.
func (s *Store) pages(ctx context.Context, subject, from, end string, f func(*mvccpb.KeyValue) (skipTo string)) error {
	for from < end {
		page, err := s.get(ctx, subject, from, clientv3.WithRange(end), clientv3.WithLimit(pageKeys))
		if err != nil {
			return err
		}
		if len(page.Kvs) == 0 {
			return nil
		}
		for _, kv := range page.Kvs {
			k := string(kv.Key)
			if k < from {
				continue // skipped
			}
			from = k + "\x00"
			if to := f(kv); to > from {
				from = to
			}
		}
		if !page.More {
			return nil
		}
	}
	return nil
}

// The keys of ledgers with 31 and with 63 bits lie among each other: "00/…",
// "000/…", "01/…". So a listing goes over them twice, and jumps over what belongs
// to the other.
const (
	firstLedger = root + "0"
	afterLedger = root + ":" // the character after '9'
)

// List implements metadata.Store.
func (s *Store) List(ctx context.Context, from int64, f func(metadata.Listed) bool) error {
	from = max(from, 0)
	stop := false
	visit := func(kv *mvccpb.KeyValue) string {
		id, ok := metadata.ParseLedgerPath(strings.TrimPrefix(string(kv.Key), root))
		if !ok || id < from {
			return ""
		}
		l, err := metadata.ParseLedger(id, kv.Value)
		if !f(metadata.Listed{ID: id, Version: metadata.Version(kv.ModRevision), Ledger: l, Err: err}) {
			stop = true
			return afterLedger
		}
		return ""
	}
	if from < metadata.MaxShortID {
		err := s.pages(ctx, "ledgers", key(from), afterLedger, func(kv *mvccpb.KeyValue) string {
			if top := topFolder(kv); len(top) != 2 {
				return shortAfter(top)
			}
			return visit(kv)
		})
		if err != nil || stop {
			return err
		}
	}
	return s.pages(ctx, "ledgers", key(max(from, metadata.MaxShortID)), afterLedger, func(kv *mvccpb.KeyValue) string {
		if top := topFolder(kv); len(top) != 3 {
			return root + top + "0" // "00/…" is before "000/…"
		}
		return visit(kv)
	})
}

// topFolder is the first name of a key's path.
func topFolder(kv *mvccpb.KeyValue) string {
	top, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), root), "/")
	return top
}

// shortAfter is before the next folder of two digits, and after all the folders
// that begin like this one: "000" to "009" lie between "00/" and "01/".
func shortAfter(top string) string {
	if len(top) < 2 {
		return ""
	}
	return fmt.Sprintf("%s%c%c/", root, top[0], top[1]+1)
}
