package embedded

import (
	"sync"
	"sync/atomic"
)

// chunk is memory that groups are laid out in. The journal writes it to disk
// as it is, the write-behind writes pieces of it to ledger files, readers copy
// from it until then.
type chunk struct {
	b    []byte
	used int          // the journal's
	refs atomic.Int32 // the journal while it fills it, each run not yet in its file, each reader
	pool *chunkPool
}

func (c *chunk) retain() { c.refs.Add(1) }

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		c.pool.put(c)
	}
}

// chunkPool bounds the backlog: get waits while maxBytes are in use.
type chunkPool struct {
	chunkBytes int
	maxBytes   int64
	pressed    func() // called when more than half is in use

	mu    sync.Mutex
	cond  sync.Cond
	inUse int64
	waits bool // get waits
	free  []*chunk
	stop  bool
}

// idleChunks is how many unused chunks an idle store keeps mapped.
const idleChunks = 1

func newChunkPool(chunkBytes int, maxBytes int64, pressed func()) *chunkPool {
	p := &chunkPool{chunkBytes: chunkBytes, maxBytes: maxBytes, pressed: pressed}
	p.cond.L = &p.mu
	return p
}

// get returns a chunk of at least n bytes with one reference; nil once
// giveUp(true) was called while there was none.
func (p *chunkPool) get(n int) (*chunk, error) {
	n = max(alignUp(n), p.chunkBytes)
	p.mu.Lock()
	for p.inUse > 0 && p.inUse+int64(n) > p.maxBytes {
		if p.stop {
			p.mu.Unlock()
			return nil, errBacklogStuck
		}
		p.waits = true
		p.mu.Unlock()
		p.pressed()
		p.mu.Lock()
		if p.inUse > 0 && p.inUse+int64(n) > p.maxBytes && !p.stop {
			p.cond.Wait()
		}
	}
	p.waits = false
	p.inUse += int64(n)
	press := p.inUse > p.maxBytes/2
	var c *chunk
	if n == p.chunkBytes && len(p.free) > 0 {
		c = p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
	}
	p.mu.Unlock()
	if press {
		p.pressed()
	}
	if c == nil {
		b, err := allocAligned(n)
		if err != nil {
			p.mu.Lock()
			p.inUse -= int64(n)
			p.mu.Unlock()
			return nil, err
		}
		c = &chunk{b: b, pool: p}
	}
	c.used = 0
	c.refs.Store(1)
	return c, nil
}

func (p *chunkPool) put(c *chunk) {
	p.mu.Lock()
	p.inUse -= int64(len(c.b))
	keep := len(c.b) == p.chunkBytes
	if keep {
		p.free = append(p.free, c)
	}
	p.cond.Signal()
	p.mu.Unlock()
	if !keep {
		freeAligned(c.b)
	}
}

// giveUp makes get fail instead of wait while stuck is true.
func (p *chunkPool) giveUp(stuck bool) {
	p.mu.Lock()
	p.stop = stuck
	p.cond.Broadcast()
	p.mu.Unlock()
}

// pressing says that more than half of the memory is in use, or that what is
// left is not enough for a long entry.
func (p *chunkPool) pressing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waits || p.inUse > p.maxBytes/2
}

func (p *chunkPool) backlogBytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inUse
}

// trim gives unused chunks beyond keep back to the system.
func (p *chunkPool) trim(keep int) {
	p.mu.Lock()
	n := min(keep, len(p.free))
	free := p.free[n:]
	p.free = p.free[:n:n]
	p.mu.Unlock()
	for _, c := range free {
		freeAligned(c.b)
	}
}
