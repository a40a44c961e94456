package bookie

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/bookkeeper/bookietest"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// window keeps a number of adds under way.
type window struct{ free chan struct{} }

func (w *window) Added(_ metadata.BookieID, replies []AddReply) {
	for _, r := range replies {
		if r.Err != nil {
			panic(r.Err)
		}
		w.free <- struct{}{}
	}
}

func newWindow(n int) *window {
	w := &window{make(chan struct{}, n)}
	for range n {
		w.free <- struct{}{}
	}
	return w
}

func (w *window) add(c *Client, p *Packet) {
	<-w.free
	if err := c.Add(p, 0, w, 0); err != nil {
		panic(err)
	}
	p.Release()
}

func (w *window) wait() {
	for range cap(w.free) {
		<-w.free
	}
}

// BenchmarkAdd counts the CPU of both sides: the fake bookie reads each frame,
// answers and forgets it.
func BenchmarkAdd(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			fake := listen(b, bookietest.Config{Discard: true})
			c := connect(b, fake, Config{AddConnections: 1})
			ledger, body := codec(1), make([]byte, size)
			w := newWindow(256)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			start := cpu(b)
			b.ResetTimer()
			for i := range b.N {
				w.add(c, NewPacket(ledger, 0, int64(i), int64(i)-1, 1<<40, nil, body, nil))
			}
			w.wait()
			b.StopTimer()
			b.ReportMetric(float64(cpu(b)-start)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "adds/s")
		})
	}
}

// cpu is what the process used so far.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestAddAllocatesNothing(t *testing.T) {
	fake := listen(t, bookietest.Config{Discard: true})
	c := connect(t, fake, Config{})
	ledger, body := codec(1), make([]byte, 1<<10)
	w := newWindow(64)
	entry := int64(0)
	run := func(n int) {
		for range n {
			w.add(c, NewPacket(ledger, 0, entry, entry-1, 1<<40, nil, body, nil))
			entry++
		}
	}
	run(10_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 20_000
	run(n)
	runtime.ReadMemStats(&after)
	w.wait()
	if got := float64(after.Mallocs-before.Mallocs) / n; got > allocsPerAdd {
		t.Errorf("%.2f allocations per add", got)
	}
}
