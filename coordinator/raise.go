package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/quirelog/quire/storage/meta"
)

// RaiseEpochs adds by to the epoch of every slot's owner under prefix and skips by
// blocks of producer ids. It is for metadata that were restored from a backup, which
// knows nothing of the epochs and ids that were given out after it. No Coordinator may
// be open on the prefix. It may be called again after it failed.
func RaiseEpochs(ctx context.Context, store meta.Store, prefix string, by int64) error {
	k := keys{prefix}
	var conds []meta.Cond
	var ops []meta.Op
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		_, ok, err := store.Txn(ctx, conds, ops)
		if err == nil && !ok {
			err = errors.New("somebody else changed them")
		}
		if err != nil {
			return unavailable("epochs of slots", err)
		}
		conds, ops = conds[:0], ops[:0]
		return nil
	}
	var failed error
	_, err := store.List(ctx, k.owners(), func(kv meta.KV) bool {
		var o ownerRecord
		if failed = json.Unmarshal(kv.Value, &o); failed != nil {
			failed = fmt.Errorf("metadata key %s: %w", kv.Key, failed)
			return false
		}
		o.Epoch += by
		conds = append(conds, meta.Cond{Key: kv.Key, Modified: kv.Modified})
		ops = append(ops, meta.Put(kv.Key, o.encode()))
		if len(ops) == slotsPerTxn {
			failed = flush()
		}
		return failed == nil
	})
	if err != nil {
		failed = errors.Join(failed, unavailable("owners of slots", err))
	}
	if failed == nil {
		failed = flush()
	}
	if failed != nil {
		return failed
	}
	return raiseProducerIDs(ctx, store, k.nextProducerID(), by)
}

func raiseProducerIDs(ctx context.Context, store meta.Store, key string, blocks int64) error {
	kv, err := store.Get(ctx, key)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return unavailable("producer ids", err)
	}
	var next int64
	if err == nil {
		if next, err = strconv.ParseInt(string(kv.Value), 10, 64); err != nil || next < 0 {
			return fmt.Errorf("metadata key %s: %q is not a producer id", key, kv.Value)
		}
	}
	if next > math.MaxInt64-blocks*producerIDBlock {
		return fmt.Errorf("metadata key %s: all producer ids are used up", key)
	}
	value := strconv.FormatInt(next+blocks*producerIDBlock, 10)
	_, ok, err := store.Txn(ctx, []meta.Cond{{Key: key, Modified: kv.Modified}}, []meta.Op{meta.Put(key, []byte(value))})
	if err == nil && !ok {
		err = errors.New("somebody else changed them")
	}
	if err != nil {
		return unavailable("producer ids", err)
	}
	return nil
}
