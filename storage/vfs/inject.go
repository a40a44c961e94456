package vfs

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
)

// Op names what is about to be done to a file or folder.
type Op string

// Operations that Inject sees. They concern the file that is named.
const (
	OpOpen     Op = "open"   // an existing file, or to make one
	OpCreate   Op = "create" // open with Create
	OpRead     Op = "read"
	OpWrite    Op = "write" // WriteAt, WriteVec, Truncate, Preallocate
	OpSync     Op = "sync"  // SyncData, SyncAll
	OpSyncDir  Op = "syncdir"
	OpRename   Op = "rename" // named by the new name
	OpRemove   Op = "remove"
	OpList     Op = "list"
	OpMkdir    Op = "mkdir"
	OpLock     Op = "lock"
	OpFreeSize Op = "free"
)

// Changes says whether the operation may change the disk.
func (op Op) Changes() bool {
	switch op {
	case OpOpen, OpRead, OpList, OpLock, OpFreeSize:
		return false
	}
	return true
}

// ErrSkip, returned to Inject, leaves the operation out and reports that it was
// done: a disk that lies, or a program that forgot it. For OpSync, OpSyncDir,
// OpRename and OpRemove.
var ErrSkip = errors.New("operation left out")

// ShortWrite, returned to Inject for an OpWrite, lets the first N bytes through,
// rounded down to whole blocks and never all.
type ShortWrite struct {
	N   int
	Err error
}

func (e *ShortWrite) Error() string { return fmt.Sprintf("short write of %d bytes: %v", e.N, e.Err) }

// Unwrap returns what the rest of the write failed with.
func (e *ShortWrite) Unwrap() error { return e.Err }

// Inject puts before ahead of every operation on fsys. An error that it returns
// is what the operation fails with, in place of being done. It may block, and
// may be called from several goroutines.
func Inject(fsys FS, before func(op Op, name string) error) FS {
	return &injectFS{fsys, before}
}

type injectFS struct {
	FS
	before func(Op, string) error
}

func (i *injectFS) Open(name string, mode Mode) (File, error) {
	op := OpOpen
	if mode&Create != 0 {
		op = OpCreate
	}
	if err := i.before(op, name); err != nil {
		return nil, err
	}
	f, err := i.FS.Open(name, mode)
	if err != nil {
		return nil, err
	}
	return &injectFile{f, i, name}, nil
}

func (i *injectFS) Remove(name string) error {
	if err := i.before(OpRemove, name); err != nil {
		return skipped(err)
	}
	return i.FS.Remove(name)
}

func (i *injectFS) Rename(oldName, newName string) error {
	if err := i.before(OpRename, newName); err != nil {
		return skipped(err)
	}
	return i.FS.Rename(oldName, newName)
}

func skipped(err error) error {
	if err == ErrSkip {
		return nil
	}
	return err
}

func (i *injectFS) MkdirAll(name string) error {
	if err := i.before(OpMkdir, name); err != nil {
		return err
	}
	return i.FS.MkdirAll(name)
}

func (i *injectFS) List(dir string) ([]string, error) {
	if err := i.before(OpList, dir); err != nil {
		return nil, err
	}
	return i.FS.List(dir)
}

func (i *injectFS) SyncDir(dir string) error {
	if err := i.before(OpSyncDir, dir); err != nil {
		return skipped(err)
	}
	return i.FS.SyncDir(dir)
}

func (i *injectFS) FreeBytes(dir string) (int64, error) {
	if err := i.before(OpFreeSize, dir); err != nil {
		return 0, err
	}
	return i.FS.FreeBytes(dir)
}

func (i *injectFS) Lock(name string) (io.Closer, error) {
	if err := i.before(OpLock, name); err != nil {
		return nil, err
	}
	return i.FS.Lock(name)
}

func (i *injectFS) Syncer(dir string) (Syncer, error) {
	s, err := i.FS.Syncer(dir)
	if err != nil {
		return nil, err
	}
	return &injectSyncer{s, i, dir}, nil
}

type injectSyncer struct {
	Syncer
	i   *injectFS
	dir string
}

func (s *injectSyncer) SyncAll() error {
	if err := s.i.before(OpSync, s.dir); err != nil {
		return skipped(err)
	}
	return s.Syncer.SyncAll()
}

type injectFile struct {
	File
	i    *injectFS
	name string
}

func (f *injectFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.i.before(OpRead, f.name); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *injectFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.i.before(OpWrite, f.name); err != nil {
		return f.short(p, off, err)
	}
	return f.File.WriteAt(p, off)
}

func (f *injectFile) short(p []byte, off int64, err error) (int, error) {
	s, ok := err.(*ShortWrite)
	if !ok {
		return 0, err
	}
	n := max(0, min(s.N, len(p)-1)) &^ (BlockBytes - 1) // direct files take blocks only
	_, _ = f.File.WriteAt(p[:n], off)
	return n, err
}

func (f *injectFile) WriteVec(bufs [][]byte, off int64) error {
	if err := f.i.before(OpWrite, f.name); err != nil {
		for _, b := range bufs {
			n, _ := f.short(b, off, err)
			if n < len(b) {
				break
			}
			off += int64(n)
		}
		return err
	}
	return f.File.WriteVec(bufs, off)
}

func (f *injectFile) SyncData() error {
	if err := f.i.before(OpSync, f.name); err != nil {
		return skipped(err)
	}
	return f.File.SyncData()
}

func (f *injectFile) Truncate(size int64) error {
	if err := f.i.before(OpWrite, f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *injectFile) Preallocate(off, n int64) error {
	if err := f.i.before(OpWrite, f.name); err != nil {
		return err
	}
	return f.File.Preallocate(off, n)
}

// Fault fails some operations.
type Fault struct {
	Op    Op     // empty: any that changes the disk
	Path  string // path.Match pattern of the last element, or a part of the name if it holds a slash; empty: any
	Skip  int    // operations that are let through first
	Times int    // operations that fail then; 0: all
	Err   error
}

// Faults is a list of faults whose Check goes to Inject. The first that
// matches counts.
type Faults struct {
	mu   sync.Mutex
	list []*Fault
	hits int
}

// Add appends a fault.
func (l *Faults) Add(f Fault) {
	l.mu.Lock()
	l.list = append(l.list, &f)
	l.mu.Unlock()
}

// Clear removes all faults.
func (l *Faults) Clear() {
	l.mu.Lock()
	l.list = nil
	l.mu.Unlock()
}

// Hits returns how many operations have failed.
func (l *Faults) Hits() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hits
}

// Check returns the error for an operation, nil if it shall be done.
func (l *Faults) Check(op Op, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.list {
		if f.Op != op && (f.Op != "" || !op.Changes()) || !f.matches(name) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times < 0 {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				f.Times = -1
			}
		}
		l.hits++
		return f.Err
	}
	return nil
}

func (f *Fault) matches(name string) bool {
	if f.Path == "" {
		return true
	}
	if strings.Contains(f.Path, "/") {
		return strings.Contains(name, f.Path)
	}
	ok, _ := path.Match(f.Path, path.Base(name))
	return ok
}
