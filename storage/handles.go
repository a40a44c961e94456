package storage

import (
	"context"
	"sync"

	"github.com/quirelog/quire/storage/ledger"
)

// maxIdleHandles bounds the readers, and with them the indexes, that the Store
// keeps for ledgers which nobody reads at the moment.
const maxIdleHandles = 256

// handle is an open ledger: its reader and, once it is known, its index.
type handle struct {
	id ledger.ID

	load sync.Mutex // held over I/O while the fields below are filled

	mu      sync.Mutex
	reader  ledger.Reader
	index   *index // of a ledger that takes no more appends
	aborted []abortedTxn

	// Under the cache's mu.
	refs         int
	dead         bool // out of the cache: closed with the last reference
	older, newer *handle
}

// learn stores what is known of a ledger that takes no more appends.
func (h *handle) learn(x index, aborted []abortedTxn) {
	h.mu.Lock()
	h.index, h.aborted = &x, aborted
	h.mu.Unlock()
}

// known returns the index, nil if it has to be loaded.
func (h *handle) known() (*index, []abortedTxn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.index, h.aborted
}

// opened returns the reader, opening it if needed.
func (h *handle) opened(ctx context.Context, t ledger.Tier) (ledger.Reader, error) {
	h.mu.Lock()
	r := h.reader
	h.mu.Unlock()
	if r != nil {
		return r, nil
	}
	h.load.Lock()
	defer h.load.Unlock()
	h.mu.Lock()
	r = h.reader
	h.mu.Unlock()
	if r != nil {
		return r, nil
	}
	r, err := t.Open(ctx, h.id)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.reader = r
	h.mu.Unlock()
	return r, nil
}

func (h *handle) close() {
	h.mu.Lock()
	r := h.reader
	h.reader = nil
	h.mu.Unlock()
	if r != nil {
		_ = r.Close() // nothing was written through it
	}
}

// handles keeps ledgers open between reads. Its mu comes after a log's mu.
type handles struct {
	mu             sync.Mutex
	byID           map[ledger.ID]*handle
	oldest, newest *handle // without references, by last use
	idle           int
}

// get returns the handle of a ledger; release it.
func (c *handles) get(id ledger.ID) *handle {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.byID[id]
	if h == nil {
		h = &handle{id: id, refs: 1}
		c.byID[id] = h
		return h
	}
	if h.refs == 0 {
		c.unlink(h)
	}
	h.refs++
	return h
}

// adopt takes over a reader and returns its handle; release it.
func (c *handles) adopt(id ledger.ID, r ledger.Reader) *handle {
	h := c.get(id)
	h.mu.Lock()
	old := h.reader
	if old == nil {
		h.reader = r
	}
	h.mu.Unlock()
	if old != nil {
		_ = r.Close()
	}
	return h
}

func (c *handles) release(h *handle) {
	var gone *handle
	c.mu.Lock()
	h.refs--
	if h.refs == 0 {
		if h.dead {
			gone = h
		} else {
			h.older = c.newest
			if c.newest != nil {
				c.newest.newer = h
			} else {
				c.oldest = h
			}
			c.newest = h
			c.idle++
			if c.idle > maxIdleHandles {
				gone = c.oldest
				c.unlink(gone)
				delete(c.byID, gone.id)
			}
		}
	}
	c.mu.Unlock()
	if gone != nil {
		gone.close()
	}
}

// drop forgets a ledger that is deleted; readers at work finish first.
func (c *handles) drop(id ledger.ID) {
	c.mu.Lock()
	h := c.byID[id]
	if h != nil {
		delete(c.byID, id)
		h.dead = true
		if h.refs == 0 {
			c.unlink(h)
		} else {
			h = nil
		}
	}
	c.mu.Unlock()
	if h != nil {
		h.close()
	}
}

// closeAll closes every reader.
func (c *handles) closeAll() {
	c.mu.Lock()
	all := c.byID
	c.byID = make(map[ledger.ID]*handle)
	c.oldest, c.newest, c.idle = nil, nil, 0
	for _, h := range all {
		h.dead = true
		h.older, h.newer = nil, nil
	}
	c.mu.Unlock()
	for _, h := range all {
		h.close()
	}
}

func (c *handles) unlink(h *handle) {
	if h.older != nil {
		h.older.newer = h.newer
	} else {
		c.oldest = h.newer
	}
	if h.newer != nil {
		h.newer.older = h.older
	} else {
		c.newest = h.older
	}
	h.older, h.newer = nil, nil
	c.idle--
}
