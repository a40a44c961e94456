package embedded

import (
	"container/list"
	"errors"
	"sync"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/vfs"
)

// fileCache bounds how many ledger files are open.
type fileCache struct {
	t   *Tier
	max int

	mu sync.Mutex
	m  map[ledger.ID]*openFile
	// closedDirty: files were closed before they were synced, the next
	// checkpoint must sync the whole file system.
	closedDirty bool
	idle        list.List // of *openFile without users, least recently used first
}

type openFile struct {
	vfs.File
	id     ledger.ID
	cache  *fileCache
	users  int
	elem   *list.Element
	direct vfs.File // second handle for direct writes, or nil; the write-behind's
	dirty  bool     // written since its last sync; mu
	gone   bool     // close with the last user
}

// get opens the file of a ledger or returns the open one. The caller releases
// it. With create the file is made if it is missing; writers only.
func (c *fileCache) get(id ledger.ID, create bool) (*openFile, error) {
	c.mu.Lock()
	if f := c.m[id]; f != nil {
		f.use()
		c.mu.Unlock()
		return f, nil
	}
	c.mu.Unlock()
	mode := vfs.Write
	if create {
		mode |= vfs.Create
	}
	file, err := c.t.fs.Open(c.t.ledgerName(id), mode)
	if err != nil {
		return nil, notFound(id, err)
	}
	c.mu.Lock()
	if f := c.m[id]; f != nil {
		f.use()
		c.mu.Unlock()
		_ = file.Close()
		return f, nil
	}
	f := &openFile{File: file, id: id, cache: c, users: 1}
	if c.m == nil {
		c.m = make(map[ledger.ID]*openFile)
	}
	c.m[id] = f
	c.mu.Unlock()
	_ = c.evict(false) // closes clean files only
	return f, nil
}

func (f *openFile) shut() {
	_ = f.File.Close()
	if f.direct != nil {
		_ = f.direct.Close()
	}
}

func (f *openFile) use() {
	f.users++
	if f.elem != nil {
		f.cache.idle.Remove(f.elem)
		f.elem = nil
	}
}

func (f *openFile) release() {
	c := f.cache
	c.mu.Lock()
	f.users--
	shut := false
	if f.users == 0 {
		switch {
		case f.gone:
			shut = true
		case len(c.m) > c.max && !f.dirty:
			delete(c.m, f.id)
			shut = true
		default:
			f.elem = c.idle.PushBack(f)
		}
	}
	c.mu.Unlock()
	if shut {
		f.shut()
	}
}

// evict closes idle files beyond the bound, dirty ones only for the
// write-behind. The system may forget a write error of a file that nobody has
// open, so a dirty file is synced first, unless the checkpoint syncs the whole
// file system, which remembers.
func (c *fileCache) evict(syncDirty bool) error {
	var errs []error
	c.mu.Lock()
	for e := c.idle.Front(); e != nil && len(c.m) > c.max; {
		f := e.Value.(*openFile)
		next := e.Next()
		if !f.dirty || syncDirty {
			c.idle.Remove(e)
			f.elem = nil
			delete(c.m, f.id)
			sync := f.dirty && c.t.syncer == nil
			c.closedDirty = c.closedDirty || f.dirty
			c.mu.Unlock()
			if sync {
				errs = append(errs, f.SyncData())
			}
			f.shut()
			c.mu.Lock()
			next = c.idle.Front()
		}
		e = next
	}
	c.mu.Unlock()
	return errors.Join(errs...)
}

// drop closes the file of a ledger once nobody uses it.
func (c *fileCache) drop(id ledger.ID) {
	c.mu.Lock()
	f := c.m[id]
	shut := false
	if f != nil {
		delete(c.m, id)
		f.gone = true
		if f.elem != nil {
			c.idle.Remove(f.elem)
			f.elem = nil
			shut = true
		}
	}
	c.mu.Unlock()
	if shut {
		f.shut()
	}
}

// dirtyFile returns the open file of a ledger to be synced, marked clean, or
// nil if it needs no sync. The caller releases it.
func (c *fileCache) dirtyFile(id ledger.ID) *openFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.m[id]
	if f == nil || !f.dirty {
		return nil
	}
	f.dirty = false
	f.use()
	return f
}

func (c *fileCache) setDirty(f *openFile, dirty bool) {
	c.mu.Lock()
	f.dirty = dirty
	c.mu.Unlock()
}

func (c *fileCache) closeAll() {
	c.mu.Lock()
	m := c.m
	c.m = nil
	var shut []*openFile
	for _, f := range m {
		f.gone = true
		if f.users == 0 {
			shut = append(shut, f)
		}
	}
	c.idle.Init()
	c.mu.Unlock()
	for _, f := range shut {
		f.shut()
	}
}
