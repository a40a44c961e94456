package bookie

import (
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// TestTable does the same to a table and to a map.
func TestTable(t *testing.T) {
	keys := rapid.Custom(func(t *rapid.T) key {
		return key{
			op:     rapid.SampledFrom([]wire.Op{wire.OpAdd, wire.OpRead}).Draw(t, "op"),
			ledger: rapid.Int64Range(0, 3).Draw(t, "ledger") << rapid.SampledFrom([]int{0, 32, 40}).Draw(t, "shift"),
			entry:  rapid.Int64Range(-1, 80).Draw(t, "entry"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		var got table
		want := map[key]*op{}
		for range rapid.IntRange(0, 150).Draw(t, "steps") {
			k := keys.Draw(t, "key")
			o := want[k]
			if got.get(k) != o {
				t.Fatalf("%v is %v, want %v", k, got.get(k), o)
			}
			if o == nil {
				o = &op{key: k}
				want[k] = o
				got.put(o)
			} else {
				delete(want, k)
				if got.remove(o); o.beside != nil {
					t.Fatal("what was removed holds on to another")
				}
			}
		}
		all := map[key]*op{}
		for o := range got.all {
			all[o.key] = o
		}
		if got.count != len(want) || !maps.Equal(all, want) {
			t.Fatalf("%d are counted, %d there, want %d", got.count, len(all), len(want))
		}
	})
}
