package etcd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// markAttempts bounds how often a mark is tried while others change it.
const markAttempts = 10

// MarkUnderReplicated implements metadata.Store.
func (s *Store) MarkUnderReplicated(ctx context.Context, id int64, missing []metadata.BookieID) error {
	what := fmt.Sprintf("mark of under-replicated ledger %d", id)
	k := root + metadata.MarkPath(id)
	mark, revision := metadata.Mark{Ledger: id, CreatedMS: time.Now().UnixMilli()}, int64(0)
	for range markAttempts {
		if !mark.Add(missing) && revision != 0 {
			return nil
		}
		resp, err := s.txn(ctx, what, true,
			[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(k), "=", revision)},
			[]clientv3.Op{clientv3.OpPut(k, string(metadata.AppendMark(nil, mark)))},
			[]clientv3.Op{clientv3.OpGet(k)})
		if err != nil || resp.Succeeded {
			return err
		}
		mark, revision = metadata.Mark{Ledger: id, CreatedMS: time.Now().UnixMilli()}, 0
		if there := resp.Responses[0].GetResponseRange().Kvs; len(there) > 0 {
			if mark, err = metadata.ParseMark(id, there[0].Value); err != nil {
				return err
			}
			revision = there[0].ModRevision
		}
	}
	return fmt.Errorf("%s: %w", what, metadata.ErrConflict)
}

// ListUnderReplicated implements metadata.Store.
func (s *Store) ListUnderReplicated(ctx context.Context, f func(metadata.Mark) bool) error {
	const prefix = root + metadata.UnderReplicatedPath + "/"
	end := clientv3.GetPrefixRangeEnd(prefix)
	return s.pages(ctx, "under-replicated ledgers", prefix, end, func(kv *mvccpb.KeyValue) string {
		id, ok := metadata.ParseMarkPath(strings.TrimPrefix(string(kv.Key), root))
		if !ok {
			return ""
		}
		m, err := metadata.ParseMark(id, kv.Value)
		if err != nil {
			m = metadata.Mark{Ledger: id} // it is work for somebody all the same
		}
		if !f(m) {
			return end
		}
		return ""
	})
}
