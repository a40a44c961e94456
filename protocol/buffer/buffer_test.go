package buffer

import (
	"strings"
	"sync"
	"testing"
)

func TestClassesCoverEverySize(t *testing.T) {
	last := int32(0)
	for n := 0; n <= MaxPooledBytes+1; n++ {
		class, size := classOf(n)
		if size < n {
			t.Fatalf("classOf(%d) = class %d of %d bytes", n, class, size)
		}
		if n > MaxPooledBytes {
			if class != unpooled || size != n {
				t.Fatalf("classOf(%d) = class %d of %d bytes, want an exact unpooled one", n, class, size)
			}
			continue
		}
		if n > 1<<minShift && 3*n <= 2*size-3 {
			t.Fatalf("classOf(%d) wastes %d bytes", n, size-n)
		}
		if class != last {
			if class != last+1 {
				t.Fatalf("classOf(%d) = %d after class %d", n, class, last)
			}
			last = class
		}
	}
	if last != classes-1 {
		t.Fatalf("last class is %d, want %d", last, classes-1)
	}
}

func TestGetLength(t *testing.T) {
	for _, n := range []int{0, 1, 1024, 1025, 1 << 20, 1<<20 + 200, 5 << 20, MaxPooledBytes, MaxPooledBytes + 1, 20 << 20} {
		b := Get(n)
		if len(b.B) != n {
			t.Fatalf("Get(%d): len %d", n, len(b.B))
		}
		b.Release()
	}
}

func TestInUseBytes(t *testing.T) {
	start := InUseBytes()
	a, b := Get(1000), Get(2<<20)
	if got, want := InUseBytes()-start, int64(1024+2<<20); got != want {
		t.Fatalf("in use %d bytes, want %d", got, want)
	}
	a.Retain()
	a.Release()
	a.B = a.B[:10] // reslicing by the holder must not upset the count
	a.Release()
	b.Release()
	if got := InUseBytes() - start; got != 0 {
		t.Fatalf("in use %d bytes after the last release", got)
	}
}

func mustPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if r, _ := recover().(string); !strings.Contains(r, want) {
			t.Fatalf("panicked with %q, want %q", r, want)
		}
	}()
	f()
}

func TestMisuseIsCaught(t *testing.T) {
	// Unpooled sizes: these buffers are broken on purpose and must not be met again.
	b := Get(MaxPooledBytes + 1)
	b.Release()
	mustPanic(t, "released too often", b.Release)
	b = Get(MaxPooledBytes + 1)
	b.Release()
	mustPanic(t, "retained after its last release", b.Retain)
}

func TestHoldersOnManyGoroutines(t *testing.T) {
	start := InUseBytes()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				b := Get(i * 10)
				for j := range b.B {
					b.B[j] = byte(i)
				}
				b.Retain()
				wg.Go(func() {
					for _, c := range b.B {
						if c != byte(i) {
							t.Errorf("buffer changed under its holder")
							break
						}
					}
					b.Release()
				})
				b.Release()
			}
		})
	}
	wg.Wait()
	if got := InUseBytes() - start; got != 0 {
		t.Fatalf("in use %d bytes after the last release", got)
	}
}
