package mem

import (
	"slices"
	"strings"

	"github.com/quirelog/quire/storage/meta"
)

// index finds keys by name and lists them by prefix. New keys are sorted in
// only when somebody lists, so that loading n keys costs n log n and not n².
type index struct {
	kvs    map[string]meta.KV
	sorted []string // every key but those in added; may name deleted keys
	added  []string // keys put since the last sort; may name deleted keys or repeat
	gone   int      // deletions since the last sort
}

func (x *index) put(kv meta.KV) {
	if _, ok := x.kvs[kv.Key]; !ok {
		x.added = append(x.added, kv.Key)
	}
	x.kvs[kv.Key] = kv
}

func (x *index) delete(key string) {
	delete(x.kvs, key)
	x.gone++
}

// under returns all keys that begin with prefix, in order.
func (x *index) under(prefix string) []meta.KV {
	if len(x.added) > 0 || x.gone > len(x.kvs)/2 {
		x.sort()
	}
	at, _ := slices.BinarySearch(x.sorted, prefix)
	var kvs []meta.KV
	for ; at < len(x.sorted) && strings.HasPrefix(x.sorted[at], prefix); at++ {
		if kv, ok := x.kvs[x.sorted[at]]; ok {
			kvs = append(kvs, kv)
		}
	}
	return kvs
}

// sort merges added into sorted and drops the names of deleted keys. A key that
// was deleted and put again is in both, so equal neighbours are one.
func (x *index) sort() {
	slices.Sort(x.added)
	merged := make([]string, 0, len(x.kvs))
	keep := func(key string) {
		if _, ok := x.kvs[key]; ok && (len(merged) == 0 || merged[len(merged)-1] != key) {
			merged = append(merged, key)
		}
	}
	a := x.added
	for _, key := range x.sorted {
		for len(a) > 0 && a[0] < key {
			keep(a[0])
			a = a[1:]
		}
		keep(key)
	}
	for _, key := range a {
		keep(key)
	}
	x.sorted, x.added, x.gone = merged, nil, 0
}
