package metatest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/quirelog/quire/storage/meta"
)

func limits(t *testing.T, h Harness) {
	ops := func(n int) (ops []meta.Op) {
		for i := range n {
			ops = append(ops, meta.Put(fmt.Sprint("o", i), nil))
		}
		return ops
	}
	conds := func(n int) (conds []meta.Cond) {
		for i := range n {
			conds = append(conds, meta.Cond{Key: fmt.Sprint("c", i)})
		}
		return conds
	}
	values := func(sizes ...int) (ops []meta.Op) {
		for i, n := range sizes {
			ops = append(ops, meta.Put(fmt.Sprint("v", i), make([]byte, n)))
		}
		return ops
	}
	const whole = meta.MaxRequestBytes - 4 // less two keys of two bytes
	for _, c := range []struct {
		name  string
		conds []meta.Cond
		ops   []meta.Op
		ok    bool
	}{
		{"most ops and conditions", conds(meta.MaxTxnOps), ops(meta.MaxTxnOps), true},
		{"an op too many", nil, ops(meta.MaxTxnOps + 1), false},
		{"a condition too many", conds(meta.MaxTxnOps + 1), nil, false},
		{"largest value", nil, values(meta.MaxValueBytes), true},
		{"value too large", nil, values(meta.MaxValueBytes + 1), false},
		{"largest request", nil, values(meta.MaxValueBytes, whole-meta.MaxValueBytes), true},
		{"request too large", nil, values(meta.MaxValueBytes, whole-meta.MaxValueBytes+1), false},
	} {
		_, ok, err := h.Store.Txn(deadline(t), c.conds, c.ops)
		if c.ok && (err != nil || !ok) {
			t.Errorf("%s: %v, %v, want success", c.name, ok, err)
		}
		if !c.ok && !errors.Is(err, meta.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", c.name, err)
		}
	}
}

func invalidRequests(t *testing.T, h Harness) {
	ctx := deadline(t)
	for name, ops := range map[string][]meta.Op{
		"empty key":              {meta.Put("", nil)},
		"deletion of everything": {{Delete: true, Prefix: true}},
		"put of a prefix":        {{Key: "a", Prefix: true}},
		"two puts":               {meta.Put("a", nil), meta.Put("b", nil), meta.Put("a", nil)},
		"put and deletion":       {meta.Put("a", nil), meta.Delete("a")},
		"two deletions":          {meta.Delete("a"), meta.Delete("a")},
		"put under a prefix":     {meta.Put("a/b", nil), meta.Put("a", nil), {Key: "a/", Delete: true, Prefix: true}},
		"far under a prefix":     {{Key: "a/", Delete: true, Prefix: true}, meta.Put("a/b", nil), meta.Put("a/c", nil)},
		"prefix of a prefix":     {{Key: "a/", Delete: true, Prefix: true}, {Key: "a", Delete: true, Prefix: true}},
	} {
		if _, _, err := h.Store.Txn(ctx, nil, ops); !errors.Is(err, meta.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if _, _, err := h.Store.Txn(ctx, []meta.Cond{{}}, nil); !errors.Is(err, meta.ErrInvalid) {
		t.Errorf("condition without key: %v, want ErrInvalid", err)
	}
	if _, err := h.Store.Get(ctx, ""); !errors.Is(err, meta.ErrInvalid) {
		t.Errorf("Get without key: %v, want ErrInvalid", err)
	}
	for _, ttl := range []int64{0, -1} {
		if _, err := h.Store.Grant(ctx, ttl); !errors.Is(err, meta.ErrInvalid) {
			t.Errorf("Grant(%d): %v, want ErrInvalid", ttl, err)
		}
	}
	commit(t, h.Store, nil, meta.Op{Key: "a/", Delete: true, Prefix: true}, meta.Put("a", nil), meta.Put("a0", nil), meta.Put("b", nil))
}

func endedContext(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(context.Background())
	put(t, h.Store, "a", "")
	cancel()
	_, getErr := h.Store.Get(ctx, "a")
	_, listErr := h.Store.List(ctx, "a", func(meta.KV) bool { return true })
	_, _, txnErr := h.Store.Txn(ctx, nil, []meta.Op{meta.Put("b", nil)})
	_, grantErr := h.Store.Grant(ctx, 1)
	_, keepErr := h.Store.KeepAlive(ctx, 1)
	revokeErr := h.Store.Revoke(ctx, 1)
	for i, err := range []error{getErr, listErr, txnErr, grantErr, keepErr, revokeErr} {
		if !errors.Is(err, context.Canceled) || errors.Is(err, meta.ErrUnknownOutcome) {
			t.Errorf("call %d: %v, want the context's error alone", i, err)
		}
	}
	if kvs, _ := list(t, h.Store, ""); len(kvs) != 1 {
		t.Errorf("a request with an ended context changed something: %q", kvs)
	}
}

func closedStore(t *testing.T, h Harness) {
	if err := h.Store.Close(); err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t)
	_, getErr := h.Store.Get(ctx, "a")
	_, listErr := h.Store.List(ctx, "a", func(meta.KV) bool { return true })
	_, _, txnErr := h.Store.Txn(ctx, nil, nil)
	_, grantErr := h.Store.Grant(ctx, 1)
	_, keepErr := h.Store.KeepAlive(ctx, 1)
	revokeErr := h.Store.Revoke(ctx, 1)
	for i, err := range []error{getErr, listErr, txnErr, grantErr, keepErr, revokeErr} {
		if !errors.Is(err, meta.ErrClosed) {
			t.Errorf("call %d: %v, want ErrClosed", i, err)
		}
	}
	if err := h.Store.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
