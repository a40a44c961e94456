//go:build !race && !poison

package buffer

import "testing"

func TestNoAllocations(t *testing.T) {
	for _, n := range []int{100, 16 << 10, 1 << 20} {
		if got := testing.AllocsPerRun(1000, func() { Get(n).Release() }); got != 0 {
			t.Errorf("Get(%d) and Release: %v allocations", n, got)
		}
	}
}

func BenchmarkGetRelease(b *testing.B) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			Get(16 << 10).Release()
		}
	})
}
