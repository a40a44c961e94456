package metatest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/quirelog/quire/storage/meta"
)

func listInOrder(t *testing.T, h Harness) {
	for _, key := range []string{"b", "a/2", "a/10", "a", "a/1", "a0", "a/\xff", "\x00", "\xff"} {
		put(t, h.Store, key, key)
	}
	rev := commit(t, h.Store, nil, meta.Delete("a/2"))
	kvs, at := list(t, h.Store, "a/")
	if want := []string{"a/1=a/1", "a/10=a/10", "a/\xff=a/\xff"}; !slices.Equal(kvs, want) {
		t.Errorf("List(a/) = %q, want %q", kvs, want)
	}
	if at != rev {
		t.Errorf("List is as of revision %d, want %d", at, rev)
	}
	kvs, _ = list(t, h.Store, "")
	all := []string{"\x00", "a", "a/1", "a/10", "a/\xff", "a0", "b", "\xff"}
	for i, key := range all {
		all[i] = key + "=" + key
	}
	if !slices.Equal(kvs, all) {
		t.Errorf("List of everything = %q, want %q", kvs, all)
	}
	if kvs, at := list(t, h.Store, "nothing"); len(kvs) != 0 || at != rev {
		t.Errorf("List(nothing) = %q as of %d", kvs, at)
	}
}

func listStops(t *testing.T, h Harness) {
	for i := range 5 {
		put(t, h.Store, fmt.Sprint(i), "")
	}
	n := 0
	if _, err := h.Store.List(deadline(t), "", func(meta.KV) bool { n++; return n < 3 }); err != nil {
		t.Fatal(err)
	}
	if n != 3 {
		t.Fatalf("f was called %d times, want 3", n)
	}
}

// listOfLargeValues: pages are bounded by bytes, so large values make many pages.
func listOfLargeValues(t *testing.T, h Harness) {
	const keys = 100
	value := strings.Repeat("v", 128<<10)
	for i := range keys {
		put(t, h.Store, fmt.Sprintf("%03d", i), value)
	}
	n := 0
	if _, err := h.Store.List(deadline(t), "", func(kv meta.KV) bool {
		if kv.Key != fmt.Sprintf("%03d", n) || len(kv.Value) != len(value) {
			t.Errorf("key %d is %q with %d bytes", n, kv.Key, len(kv.Value))
		}
		n++
		return true
	}); err != nil || n != keys {
		t.Fatalf("%d keys, %v", n, err)
	}
}

// listIsOneRevision: a writer moves a token from key to key in one Txn each; a
// listing of one revision sees exactly one token, however many pages it takes.
func listIsOneRevision(t *testing.T, h Harness) {
	const keys = 500
	fill(t, h.Store, "k/", keys)
	token := func(i int) string { return fmt.Sprintf("k/%06d/token", i) }
	put(t, h.Store, token(0), "")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			at, to := i*137%keys, (i+1)*137%keys
			if _, _, err := h.Store.Txn(deadline(t), nil, []meta.Op{meta.Delete(token(at)), meta.Put(token(to), nil)}); err != nil {
				t.Errorf("moving the token: %v", err)
				return
			}
		}
	}()
	var last meta.Revision
	for range 50 {
		kvs, rev := list(t, h.Store, "k/")
		tokens := 0
		for _, kv := range kvs {
			if strings.HasSuffix(kv, "/token=") {
				tokens++
			}
		}
		if tokens != 1 || len(kvs) != keys+1 {
			t.Errorf("a listing saw %d tokens and %d keys, want 1 and %d", tokens, len(kvs), keys+1)
		}
		if rev < last {
			t.Errorf("revision %d after %d", rev, last)
		}
		last = rev
	}
	close(stop)
	<-stopped
}

func listOf100k(t *testing.T, h Harness) {
	fill(t, h.Store, "k/", manyKeys)
	put(t, h.Store, "l/", "")
	n, last := 0, ""
	if _, err := h.Store.List(deadline(t), "k/", func(kv meta.KV) bool {
		if kv.Key <= last {
			t.Errorf("%q after %q", kv.Key, last)
		}
		n, last = n+1, kv.Key
		return true
	}); err != nil || n != manyKeys {
		t.Fatalf("%d keys, %v", n, err)
	}
}

// fill puts n keys of 100 bytes, many per transaction, several in flight.
func fill(t *testing.T, s meta.Store, prefix string, n int) {
	t.Helper()
	value := []byte(strings.Repeat("v", 100))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for from := 0; from < n; from += meta.MaxTxnOps {
		var ops []meta.Op
		for i := from; i < min(n, from+meta.MaxTxnOps); i++ {
			ops = append(ops, meta.Put(fmt.Sprintf("%s%06d", prefix, i), value))
		}
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer func() { <-slots; wg.Done() }()
			if _, ok, err := s.Txn(deadline(t), nil, ops); !ok || err != nil {
				t.Errorf("fill: %v, %v", ok, err)
			}
		}()
	}
	wg.Wait()
}
