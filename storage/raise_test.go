package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/mem"
)

// RaiseEpochs changes nothing of a record but its epoch, of every log, and refuses an
// epoch beyond the last rather than begin anew below zero.
func TestRaiseEpochs(t *testing.T) {
	m := mem.New(nil)
	defer m.Close()
	put := func(key string, value []byte) {
		t.Helper()
		if _, _, err := m.Txn(t.Context(), nil, []meta.Op{meta.Put(key, value)}); err != nil {
			t.Fatal(err)
		}
	}
	const logs = 3*meta.MaxTxnOps/2 + 1 // more than fit into one transaction
	chains := map[string]*chain{}
	for i := range logs {
		c := &chain{epoch: int32(i), start: int64(i), owner: 5, swap: 6, links: []link{{id: 9, epoch: int32(i)}}}
		key := fmt.Sprintf("p/log/%03d", i)
		chains[key] = c
		put(key, c.encode())
	}
	put("q/log/other", (&chain{epoch: 1}).encode())
	n, err := RaiseEpochs(t.Context(), m, "p/", 1000)
	if err != nil || n != logs {
		t.Fatalf("%d logs, %v; want %d", n, err, logs)
	}
	_, err = m.List(t.Context(), "p/log/", func(kv meta.KV) bool {
		c := chains[kv.Key]
		c.epoch += 1000
		if !bytes.Equal(kv.Value, c.encode()) {
			t.Errorf("%s: %x, want %x", kv.Key, kv.Value, c.encode())
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if kv, err := m.Get(t.Context(), "q/log/other"); err != nil || !bytes.Equal(kv.Value, (&chain{epoch: 1}).encode()) {
		t.Errorf("a log of another cluster: %x, %v", kv.Value, err)
	}

	put("p/log/999", (&chain{epoch: math.MaxInt32 - 999}).encode())
	if _, err := RaiseEpochs(t.Context(), m, "p/", 1000); !errors.Is(err, ErrStorage) {
		t.Errorf("an epoch that cannot be raised: %v, want ErrStorage", err)
	}
}
