package metatest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/quirelog/quire/storage/meta"
)

func getOfNothing(t *testing.T, h Harness) {
	if _, err := h.Store.Get(deadline(t), "a"); !errors.Is(err, meta.ErrNotFound) {
		t.Fatalf("Get of a missing key: %v, want ErrNotFound", err)
	}
}

func putAndGet(t *testing.T, h Harness) {
	first := put(t, h.Store, "a", "1")
	if first <= 1 {
		t.Fatalf("first change is at revision %d, want more than 1", first)
	}
	second := put(t, h.Store, "a", "2")
	if second != first+1 {
		t.Fatalf("revisions %d and %d, want neighbours", first, second)
	}
	want := meta.KV{Key: "a", Value: []byte("2"), Created: first, Modified: second}
	if got := get(t, h.Store, "a"); !reflect.DeepEqual(got, want) {
		t.Fatalf("Get = %+v, want %+v", got, want)
	}
	put(t, h.Store, "empty", "")
	if got := get(t, h.Store, "empty"); len(got.Value) != 0 {
		t.Fatalf("empty value reads %q", got.Value)
	}
}

func compareAndSwap(t *testing.T, h Harness) {
	ctx := deadline(t)
	created := commit(t, h.Store, []meta.Cond{{Key: "a"}}, meta.Put("a", []byte("1")))
	rev, ok, err := h.Store.Txn(ctx, []meta.Cond{{Key: "a"}}, []meta.Op{meta.Put("a", []byte("2"))})
	if err != nil || ok {
		t.Fatalf("creating a key that exists: %v, %v", ok, err)
	}
	if rev != created {
		t.Fatalf("a refused Txn tells revision %d, want the present one, %d", rev, created)
	}
	swapped := commit(t, h.Store, []meta.Cond{{Key: "a", Modified: created}}, meta.Put("a", []byte("3")))
	if _, ok, err := h.Store.Txn(ctx, []meta.Cond{{Key: "a", Modified: created}}, []meta.Op{meta.Put("a", []byte("4"))}); ok || err != nil {
		t.Fatalf("swap of an old revision: %v, %v", ok, err)
	}
	if got := get(t, h.Store, "a"); string(got.Value) != "3" || got.Modified != swapped {
		t.Fatalf("Get = %+v", got)
	}
	commit(t, h.Store, []meta.Cond{{Key: "a", Modified: swapped}}, meta.Delete("a"))
	commit(t, h.Store, []meta.Cond{{Key: "a"}})
}

func txnIsAllOrNothing(t *testing.T, h Harness) {
	a := put(t, h.Store, "a", "1")
	rev := commit(t, h.Store, []meta.Cond{{Key: "a", Modified: a}, {Key: "b"}},
		meta.Put("a", []byte("2")), meta.Put("b", []byte("2")), meta.Put("c", nil))
	for _, key := range []string{"a", "b", "c"} {
		if got := get(t, h.Store, key).Modified; got != rev {
			t.Errorf("%s was modified at %d, want %d as all of the Txn", key, got, rev)
		}
	}
	if _, ok, err := h.Store.Txn(deadline(t), []meta.Cond{{Key: "a", Modified: rev}, {Key: "b"}},
		[]meta.Op{meta.Put("a", nil), meta.Put("d", nil)}); ok || err != nil {
		t.Fatalf("Txn with one false condition of two: %v, %v", ok, err)
	}
	if kvs, _ := list(t, h.Store, ""); !slices.Equal(kvs, []string{"a=2", "b=2", "c="}) {
		t.Fatalf("a refused Txn changed something: %v", kvs)
	}
}

func txnWithoutEffect(t *testing.T, h Harness) {
	a := put(t, h.Store, "a", "1")
	if rev := commit(t, h.Store, nil, meta.Delete("b"), meta.Op{Key: "c", Delete: true, Prefix: true}); rev != a {
		t.Fatalf("deleting nothing made revision %d, want the present one, %d", rev, a)
	}
	if rev := commit(t, h.Store, nil); rev != a {
		t.Fatalf("an empty Txn made revision %d, want the present one, %d", rev, a)
	}
	if rev := put(t, h.Store, "a", "1"); rev != a+1 {
		t.Fatalf("putting the same value is at revision %d, want %d", rev, a+1)
	}
}

func recreatedKey(t *testing.T, h Harness) {
	put(t, h.Store, "a", "1")
	commit(t, h.Store, nil, meta.Delete("a"))
	again := put(t, h.Store, "a", "2")
	if kv := get(t, h.Store, "a"); kv.Created != again || kv.Modified != again {
		t.Fatalf("Get = %+v, want created and modified at %d", kv, again)
	}
}

func prefixDelete(t *testing.T, h Harness) {
	for _, key := range []string{"a", "a/", "a/1", "a/2", "a0", "b", "a/\xff", "a/\xff\xff"} {
		put(t, h.Store, key, "")
	}
	commit(t, h.Store, nil, meta.Op{Key: "a/", Delete: true, Prefix: true}, meta.Put("c", nil))
	if kvs, _ := list(t, h.Store, ""); !slices.Equal(kvs, []string{"a=", "a0=", "b=", "c="}) {
		t.Fatalf("left are %q", kvs)
	}
	put(t, h.Store, "\xff\xff", "")
	commit(t, h.Store, nil, meta.Op{Key: "\xff", Delete: true, Prefix: true})
	if kvs, _ := list(t, h.Store, "\xff"); len(kvs) != 0 {
		t.Fatalf("left are %q", kvs)
	}
}

func valueIsCopied(t *testing.T, h Harness) {
	value := []byte("before")
	commit(t, h.Store, nil, meta.Put("a", value))
	copy(value, "AFTER!")
	if got := get(t, h.Store, "a"); string(got.Value) != "before" {
		t.Fatalf("the store kept the caller's slice: %q", got.Value)
	}
}

// counters: with compare-and-swap every increment counts exactly once, and the
// revisions that the winners got are all different and grow with the value.
func counters(t *testing.T, h Harness) {
	const writers, each, keys = 8, 40, 3
	ctx := deadline(t)
	var mu sync.Mutex
	won := make(map[string]map[int]meta.Revision)
	for k := range keys {
		won[strconv.Itoa(k)] = make(map[int]meta.Revision)
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				key := strconv.Itoa((w + i) % keys)
				value, rev, err := increment(ctx, h.Store, key)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other, taken := won[key][value]; taken {
					t.Errorf("%s = %d was won at revisions %d and %d", key, value, other, rev)
				}
				won[key][value] = rev
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	sum := 0
	for key, values := range won {
		n, _ := strconv.Atoi(string(get(t, h.Store, key).Value))
		sum += n
		for v := 2; v <= n; v++ {
			if values[v-1] >= values[v] {
				t.Errorf("%s = %d at revision %d, %d at %d: not in order", key, v-1, values[v-1], v, values[v])
			}
		}
	}
	if sum != writers*each {
		t.Errorf("counters sum to %d after %d increments", sum, writers*each)
	}
}

func increment(ctx context.Context, s meta.Store, key string) (int, meta.Revision, error) {
	for {
		kv, err := s.Get(ctx, key)
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return 0, 0, err
		}
		n, _ := strconv.Atoi(string(kv.Value))
		rev, ok, err := s.Txn(ctx, []meta.Cond{{Key: key, Modified: kv.Modified}}, []meta.Op{meta.Put(key, []byte(strconv.Itoa(n+1)))})
		if err != nil {
			return 0, 0, fmt.Errorf("increment of %s: %w", key, err)
		}
		if ok {
			return n + 1, rev, nil
		}
	}
}
