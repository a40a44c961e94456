package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/quirelog/quire/storage/meta"
)

// RaiseEpochs adds by to the leader epoch of every log under prefix, and returns how
// many there are. It is for metadata that were restored from a backup: clients have
// seen epochs which the backup does not know, and ignore what is told in older ones.
// No Store may be open on the prefix. It may be called again after it failed: some
// epochs are raised twice then, which does no harm.
func RaiseEpochs(ctx context.Context, store meta.Store, prefix string, by int32) (int, error) {
	var conds []meta.Cond
	var ops []meta.Op
	raised, pending := 0, 0
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		_, ok, err := store.Txn(ctx, conds, ops)
		if err == nil && !ok {
			err = fmt.Errorf("%w: a log was opened meanwhile", errConflict)
		}
		if err != nil {
			return fmt.Errorf("raise leader epochs: %w", err)
		}
		raised += len(ops)
		conds, ops, pending = conds[:0], ops[:0], 0
		return nil
	}
	var failed error
	_, err := store.List(ctx, prefix+"log/", func(kv meta.KV) bool {
		var epoch int32
		if epoch, failed = decodeEpoch(kv.Value); failed != nil {
			failed = fmt.Errorf("chain at %s: %w", kv.Key, failed)
			return false
		}
		if epoch > math.MaxInt32-by {
			failed = fmt.Errorf("chain at %s: %w: leader epochs are used up", kv.Key, ErrStorage)
			return false
		}
		if len(ops) == meta.MaxTxnOps || pending+len(kv.Value) > meta.MaxRequestBytes/2 {
			if failed = flush(); failed != nil {
				return false
			}
		}
		value := bytes.Clone(kv.Value)
		binary.BigEndian.PutUint32(value[1:], uint32(epoch+by))
		conds = append(conds, meta.Cond{Key: kv.Key, Modified: kv.Modified})
		ops = append(ops, meta.Put(kv.Key, value))
		pending += len(kv.Key) + len(value)
		return true
	})
	switch {
	case failed != nil:
		return raised, failed
	case err != nil:
		return raised, fmt.Errorf("list the logs: %w", err)
	}
	return raised, flush()
}
