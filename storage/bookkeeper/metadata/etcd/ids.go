package etcd

import (
	"context"
	"errors"
	"fmt"
	"path"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// nextID takes an id as PulsarLedgerIdGenerator does, and shares its counters: a
// number is how often a key had been put before. Each put takes one, whoever
// does it. An id whose answer is lost is never used.
func (s *Store) nextID(ctx context.Context) (int64, error) {
	const short, long = root + metadata.ShortIDsPath, root + metadata.LongIDsPath
	for {
		// Once there are ids of 63 bits nobody goes back.
		resp, err := s.txn(ctx, "ledger id", false,
			[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(long), "=", 0)},
			[]clientv3.Op{clientv3.OpPut(short, "", clientv3.WithPrevKV())},
			[]clientv3.Op{clientv3.OpGet(long+"/", clientv3.WithPrefix(), clientv3.WithKeysOnly())})
		if err != nil {
			return 0, err
		}
		if !resp.Succeeded {
			var names []string
			for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
				names = append(names, path.Base(string(kv.Key)))
			}
			id, err := s.nextLongID(ctx, metadata.LastBucket(names))
			if errors.Is(err, errBucketFull) {
				continue
			}
			return id, err
		}
		// The first put finds nothing. Java puts once more than it counts: its first id is 1.
		var id int64
		if prev := resp.Responses[0].GetResponsePut().PrevKv; prev != nil {
			id = prev.Version
		}
		switch {
		case id == 0:
		case id < metadata.MaxShortID:
			return id, nil
		default:
			if _, err := s.txn(ctx, "ledger id", false, absent(long), []clientv3.Op{clientv3.OpPut(long, "")}, nil); err != nil {
				return 0, err
			}
		}
	}
}

// errBucketFull: the bucket has given out its ids, or is none; there is another one now.
var errBucketFull = errors.New("bucket of ledger ids is full")

// nextLongID takes an id from a bucket, which is the key that counts its low 31 bits.
func (s *Store) nextLongID(ctx context.Context, high int32) (int64, error) {
	if high > 0 {
		bucket := root + metadata.BucketPath(high)
		resp, err := s.txn(ctx, "ledger id", false,
			[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(bucket), ">", 0)},
			[]clientv3.Op{clientv3.OpPut(bucket, "", clientv3.WithPrevKV())}, nil)
		if err != nil {
			return 0, err
		}
		if !resp.Succeeded {
			return 0, errBucketFull // it was removed, so there are later ones
		}
		if low := resp.Responses[0].GetResponsePut().PrevKv.Version; low < metadata.MaxShortID {
			return int64(high)<<32 | low, nil
		}
	}
	if high == metadata.MaxShortID {
		return 0, fmt.Errorf("ledger id: %w: no ids are left", metadata.ErrUnavailable)
	}
	next := root + metadata.BucketPath(high+1)
	if _, err := s.txn(ctx, "ledger id", false, absent(next), []clientv3.Op{clientv3.OpPut(next, "")}, nil); err != nil {
		return 0, err
	}
	return 0, errBucketFull
}

func absent(key string) []clientv3.Cmp {
	return []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)}
}
