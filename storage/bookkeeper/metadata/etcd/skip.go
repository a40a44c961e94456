package etcd

import (
	"context"
	"fmt"
	"math"
	"path"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// SkipIDs makes sure that no ledger gets an id which the counters gave out after a
// backup from which they were restored: bookies may hold entries under it. Ids go on
// in a bucket of their own, named by the minute, which both this program and
// PulsarLedgerIdGenerator count in. No id may be taken meanwhile.
func (s *Store) SkipIDs(ctx context.Context, now time.Time) error {
	const long = root + metadata.LongIDsPath
	resp, err := s.txn(ctx, "ledger ids", false, nil, []clientv3.Op{
		clientv3.OpGet(long),
		clientv3.OpGet(long+"/", clientv3.WithPrefix(), clientv3.WithKeysOnly()),
	}, nil)
	if err != nil {
		return err
	}
	var names []string
	for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
		names = append(names, path.Base(string(kv.Key)))
	}
	last := metadata.LastBucket(names)
	next := max(int64(last)+1, now.Unix()/60)
	if next >= math.MaxInt32 {
		return fmt.Errorf("ledger ids: %w: no ids are left", metadata.ErrUnavailable)
	}
	ops := []clientv3.Op{clientv3.OpPut(root+metadata.BucketPath(int32(next)), "")}
	if len(resp.Responses[0].GetResponseRange().Kvs) == 0 {
		ops = append(ops, clientv3.OpPut(long, ""))
	}
	_, err = s.txn(ctx, "ledger ids", true, nil, ops, nil)
	return err
}
