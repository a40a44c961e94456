// Package buffer is the pool of reference-counted byte buffers that carry
// Kafka's bytes from a socket to a ledger and back without copies.
//
// A Buffer comes from a pool of size classes and goes back to it when its last
// holder releases it. Who stores a slice of a Buffer past the call that handed
// it over retains the Buffer first; who retains releases exactly once.
//
// The classes are 2^k and 1.5·2^k bytes from 1 KiB to MaxPooledBytes, so at
// most a third of a pooled buffer lies idle (half of the smallest). A larger
// buffer is allocated for its one use and left to the garbage collector.
//
// Built with the tag poison, or with the race detector, a released buffer is
// overwritten and never handed out under the same *Buffer again: a late reader
// finds 0xDB, a late Retain or Release panics, and a late writer makes a later
// Get panic.
package buffer

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

// MaxPooledBytes is the largest size class. What a node answers to a Fetch request for
// eight partitions, each with Kafka's default max.partition.fetch.bytes (1 MiB), fits in it.
const MaxPooledBytes = 3 << 22

const (
	minShift = 10 // the smallest class is 1 KiB
	classes  = 28 // 1, 1.5, 2, 3, 4, 6 … 8192, 12288 KiB
	unpooled = -1
)

// Buffer is a byte slice with a reference count. The zero value is not usable;
// Get makes one with a count of 1. Bytes may be written only while there is
// exactly one holder, or by the agreement of all holders.
type Buffer struct {
	// B has the length that was asked for; its capacity is the size class.
	// A holder may reslice it only if it is the one holder.
	B []byte

	whole []byte // the class's full length
	refs  atomic.Int32
	class int32 // index into pools, or unpooled
}

var (
	// A pool keeps *Buffer and not its bytes, so that neither Get nor
	// Release makes a slice header on the heap.
	pools [classes]sync.Pool
	inUse atomic.Int64
)

// Get returns a buffer with len(B) == n and one reference. The content of B is
// not zeroed. Any goroutine may call it.
func Get(n int) *Buffer {
	class, size := classOf(n)
	var b *Buffer
	if class != unpooled {
		b, _ = pools[class].Get().(*Buffer)
	}
	if b == nil {
		b = &Buffer{whole: make([]byte, size), class: class}
	} else if poison {
		checkPoison(b.whole)
	}
	b.B = b.whole[:n]
	b.refs.Store(1)
	inUse.Add(int64(len(b.whole)))
	return b
}

// InUseBytes returns the capacity, in bytes, of all buffers that have a holder.
// Any goroutine may call it.
func InUseBytes() int64 { return inUse.Load() }

// Retain adds a reference. Only a holder may call it; a buffer that was
// released by all panics.
func (b *Buffer) Retain() {
	if n := b.refs.Add(1); n <= 1 {
		panic(fmt.Sprintf("buffer: retained after its last release (%d references)", n-1))
	}
}

// Release drops a reference; the last one puts the buffer back into the pool.
// Releasing more often than retaining panics.
func (b *Buffer) Release() {
	n := b.refs.Add(-1)
	if n > 0 {
		return
	}
	if n < 0 {
		panic(fmt.Sprintf("buffer: released too often (%d references)", n))
	}
	inUse.Add(-int64(len(b.whole)))
	b.B = nil
	if poison {
		fillPoison(b.whole)
		if b.class != unpooled {
			// The old Buffer stays dead, so that whoever still has it is caught.
			pools[b.class].Put(&Buffer{whole: b.whole, class: b.class})
		}
		return
	}
	if b.class != unpooled {
		pools[b.class].Put(b)
	}
}

// classOf returns the smallest class that holds n bytes, and its size.
func classOf(n int) (class int32, size int) {
	if n <= 1<<minShift {
		return 0, 1 << minShift
	}
	if n > MaxPooledBytes {
		return unpooled, n
	}
	// 2^k is the smallest power of two that holds n; 1.5·2^(k-1) lies below it.
	k := bits.Len(uint(n - 1))
	if half := 3 << (k - 2); n <= half {
		return int32(2*(k-minShift) - 1), half
	}
	return int32(2 * (k - minShift)), 1 << k
}
