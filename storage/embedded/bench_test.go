package embedded

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/quirelog/quire/storage/ledger"
)

// window keeps a number of appends under way and makes a new one for each that is done.
type window struct {
	w    ledger.Writer
	left int
	wg   *sync.WaitGroup
	b    *testing.B
	mu   sync.Mutex
}

func (s *window) Appended(a *ledger.Append, err error) {
	if err != nil {
		s.b.Error(err)
		s.wg.Done()
		return
	}
	s.mu.Lock()
	more := s.left > 0
	if more {
		s.left--
	}
	s.mu.Unlock()
	if !more {
		s.wg.Done()
		return
	}
	s.w.Append(a)
}

func BenchmarkAppend(b *testing.B) {
	for _, bc := range []struct{ ledgers, depth, size int }{
		{1, 1, 1 << 10}, {1, 1, 16 << 10}, {1, 8, 16 << 10}, {1, 64, 16 << 10}, {8, 8, 16 << 10}, {8, 64, 1 << 10}, {64, 8, 1 << 10}, {1, 5, 1 << 20},
	} {
		b.Run(fmt.Sprintf("ledgers=%d/depth=%d/size=%d", bc.ledgers, bc.depth, bc.size), func(b *testing.B) {
			t, err := Open(Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer t.Close()
			body := make([]byte, bc.size)
			head := make([]byte, 16)
			var wg sync.WaitGroup
			var ws []*window
			for i := range bc.ledgers {
				w, err := t.Create(context.Background(), nil)
				if err != nil {
					b.Fatal(err)
				}
				ws = append(ws, &window{w: w, wg: &wg, b: b, left: (b.N + i) / bc.ledgers})
			}
			b.SetBytes(int64(bc.size))
			b.ReportAllocs()
			cpu := processCPU()
			b.ResetTimer()
			for _, s := range ws {
				n := min(bc.depth, s.left)
				s.mu.Lock()
				s.left -= n
				s.mu.Unlock()
				wg.Add(n)
				for range n {
					s.w.Append(&ledger.Append{Head: head, Body: body, Done: s})
				}
			}
			wg.Wait()
			b.StopTimer()
			spent := processCPU() - cpu
			b.ReportMetric(spent.Seconds()/(float64(b.N)*float64(bc.size)/1e9), "cpu-s/GB")
		})
	}
}
