package storage

import (
	"sync"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
)

// tailEntry is a recent batch, kept by reference.
type tailEntry struct {
	base, end int64 // offsets
	position  int64 // bytes appended to the log before it, since it was opened
	b         batch.Batch
	buf       *buffer.Buffer
}

// tailRing holds the recent batches of one log, without gaps up to the next
// offset. It is under the log's mu.
type tailRing struct {
	ring  []tailEntry // a power of two
	first int         // index of the oldest
	n     int
	seq   uint64 // number of the oldest, counted from the first ever
}

func (t *tailRing) at(i int) *tailEntry { return &t.ring[(t.first+i)&(len(t.ring)-1)] }

func (t *tailRing) push(e tailEntry) (seq uint64) {
	if t.n == len(t.ring) {
		grown := make([]tailEntry, max(8, 2*len(t.ring)))
		for i := range t.n {
			grown[i] = *t.at(i)
		}
		t.ring, t.first = grown, 0
	}
	t.n++
	*t.at(t.n - 1) = e
	return t.seq + uint64(t.n) - 1
}

func (t *tailRing) popOldest() {
	e := t.at(0)
	if e.buf != nil {
		e.buf.Release()
	}
	*e = tailEntry{}
	t.first = (t.first + 1) & (len(t.ring) - 1)
	t.n--
	t.seq++
}

// cut takes away the batches from offset on, which were not stored. Their
// numbers are used again: tokens of the cache that name them may evict what follows
// a little early.
func (t *tailRing) cut(offset int64) {
	for t.n > 0 && t.at(t.n-1).end > offset {
		e := t.at(t.n - 1)
		if e.buf != nil {
			e.buf.Release()
		}
		*e = tailEntry{}
		t.n--
	}
}

func (t *tailRing) clear() {
	for t.n > 0 {
		t.popOldest()
	}
	t.ring, t.first = nil, 0
}

// find returns the index of the batch that holds offset, or -1.
func (t *tailRing) find(offset int64) int {
	if t.n == 0 || offset < t.at(0).base || offset >= t.at(t.n-1).end {
		return -1
	}
	low, high := 0, t.n-1 // the answer lies in [low, high]
	for low < high {
		mid := int(uint(low+high+1) >> 1)
		if t.at(mid).base <= offset {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low
}

// keep puts a batch into the tail cache. l.mu is held.
func (l *Log) keep(base, end int64, b batch.Batch, buf *buffer.Buffer) {
	if buf != nil {
		buf.Retain()
	}
	seq := l.tail.push(tailEntry{base: base, end: end, position: l.position, b: b, buf: buf})
	l.position += int64(len(b))
	l.store.tail.note(l, seq, len(b), buf)
}

// drop takes the batches up to number seq out of the cache.
func (l *Log) drop(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.tail.n > 0 && l.tail.seq <= seq {
		l.tail.popOldest()
	}
	if l.tail.n == 0 && len(l.tail.ring) > 64 {
		l.tail.ring, l.tail.first = nil, 0
	}
}

// tailToken stands for one batch in the cache of the Store.
type tailToken struct {
	log    *Log
	seq    uint64
	charge int64
	buf    *buffer.Buffer // to compare only
}

// tailOverhead is what an entry costs beside its buffer.
const tailOverhead = 128

// tailCache bounds the bytes that all logs keep in memory. It holds tokens in
// the order in which batches came and gives up the oldest. What counts is the
// size class of a buffer: a small batch pins the whole frame that it came in.
type tailCache struct {
	budget int64

	mu    sync.Mutex
	ring  []tailToken // a power of two
	first int
	n     int
	bytes int64
}

func (c *tailCache) at(i int) *tailToken { return &c.ring[(c.first+i)&(len(c.ring)-1)] }

// note counts a batch in. A log's mu is held.
func (c *tailCache) note(l *Log, seq uint64, n int, buf *buffer.Buffer) {
	charge := int64(n)
	if buf != nil {
		charge = int64(cap(buf.B))
	}
	c.mu.Lock()
	if c.n > 0 && buf != nil {
		// Batches of one frame follow each other: the last one carries the
		// charge, since the frame stays until it goes.
		if last := c.at(c.n - 1); last.buf == buf {
			c.bytes -= last.charge - tailOverhead
			last.charge = tailOverhead
		}
	}
	if c.n == len(c.ring) {
		grown := make([]tailToken, max(64, 2*len(c.ring)))
		for i := range c.n {
			grown[i] = *c.at(i)
		}
		c.ring, c.first = grown, 0
	}
	c.n++
	*c.at(c.n - 1) = tailToken{log: l, seq: seq, charge: charge + tailOverhead, buf: buf}
	c.bytes += charge + tailOverhead
	c.mu.Unlock()
}

// evict gives up the oldest batches until the budget holds. No lock is held.
func (c *tailCache) evict() {
	for {
		c.mu.Lock()
		if c.bytes <= c.budget {
			c.mu.Unlock()
			return
		}
		t := *c.at(0)
		*c.at(0) = tailToken{}
		c.first = (c.first + 1) & (len(c.ring) - 1)
		c.n--
		c.bytes -= t.charge
		c.mu.Unlock()
		t.log.drop(t.seq)
	}
}

// size returns the bytes that count against the budget.
func (c *tailCache) size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}
