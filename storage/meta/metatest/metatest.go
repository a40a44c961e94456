// Package metatest is the suite that every metadata store passes.
package metatest

import (
	"context"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/meta"
)

// Harness is a store and what a test may do to it that users may not.
type Harness struct {
	Store meta.Store
	// Compact forgets the history before a revision.
	Compact func(ctx context.Context, revision meta.Revision) error
	// Pass lets at least d go by for leases. Nil: time passes by itself.
	Pass func(d time.Duration)
}

// Run runs the suite, its tests in parallel. open makes an empty store that gives a request
// a minute or more; its test's cleanup closes it.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Harness)
	}{
		{"GetOfNothing", getOfNothing},
		{"PutAndGet", putAndGet},
		{"CompareAndSwap", compareAndSwap},
		{"TxnIsAllOrNothing", txnIsAllOrNothing},
		{"TxnWithoutEffectHasNoRevision", txnWithoutEffect},
		{"RecreatedKeyHasNewCreation", recreatedKey},
		{"PrefixDelete", prefixDelete},
		{"ValueIsCopied", valueIsCopied},
		{"CountersAreLinearizable", counters},
		{"ListInOrder", listInOrder},
		{"ListStops", listStops},
		{"ListOfLargeValues", listOfLargeValues},
		{"ListIsOneRevision", listIsOneRevision},
		{"ListOf100kKeys", listOf100k},
		{"WatchGroupsByRevision", watchGroups},
		{"WatchResumes", watchResumes},
		{"WatchFromTheBeginning", watchFromBeginning},
		{"WatchOfTheFuture", watchOfFuture},
		{"WatchOfCompacted", watchOfCompacted},
		{"WatchUnderLoadMissesNothing", watchUnderLoad},
		{"WatchEndsWithItsContext", watchEndsWithContext},
		{"WatchEndsWithTheStore", watchEndsWithStore},
		{"LeaseDeletesItsKeys", leaseDeletesKeys},
		{"LeaseIsKeptAlive", leaseIsKeptAlive},
		{"LeaseIsRevoked", leaseIsRevoked},
		{"LeaseLosesAKeyPutWithoutIt", leaseLosesKey},
		{"LeaseOfNobody", leaseOfNobody},
		{"Limits", limits},
		{"InvalidRequests", invalidRequests},
		{"EndedContext", endedContext},
		{"ClosedStore", closedStore},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, open(t))
		})
	}
}

// patience bounds every wait; it is far above what any store needs.
const patience = 2 * time.Minute

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func put(t *testing.T, s meta.Store, key, value string) meta.Revision {
	t.Helper()
	return commit(t, s, nil, meta.Put(key, []byte(value)))
}

// commit runs a transaction that must succeed.
func commit(t *testing.T, s meta.Store, conds []meta.Cond, ops ...meta.Op) meta.Revision {
	t.Helper()
	rev, ok, err := s.Txn(deadline(t), conds, ops)
	if err != nil || !ok {
		t.Fatalf("Txn(%v, %v) = %v, %v, want success", conds, ops, ok, err)
	}
	return rev
}

func get(t *testing.T, s meta.Store, key string) meta.KV {
	t.Helper()
	kv, err := s.Get(deadline(t), key)
	if err != nil {
		t.Fatalf("Get(%q): %v", key, err)
	}
	return kv
}

// list returns the keys and values under a prefix, and their revision.
func list(t *testing.T, s meta.Store, prefix string) ([]string, meta.Revision) {
	t.Helper()
	var kvs []string
	rev, err := s.List(deadline(t), prefix, func(kv meta.KV) bool {
		kvs = append(kvs, kv.Key+"="+string(kv.Value))
		return true
	})
	if err != nil {
		t.Fatalf("List(%q): %v", prefix, err)
	}
	return kvs, rev
}

// next returns the next element of a watch.
func next(t *testing.T, events <-chan meta.Events) meta.Events {
	t.Helper()
	select {
	case e, ok := <-events:
		if !ok {
			t.Fatal("the watch's channel is closed")
		}
		return e
	case <-time.After(patience):
		t.Fatal("the watch says nothing")
	}
	panic("unreachable")
}
