// Package vfs is the seam between the ledger store and a file system.
//
// The store reaches files only through FS and File, so that its crash and
// fault rules can be proved: OS is the real file system, Mem keeps files in
// memory and yields clones as a power cut would leave them, and Faults puts
// errors between the store and either.
//
// Durability follows POSIX read strictly. Bytes survive a crash once
// File.SyncData returned after they were written; the name of a created,
// renamed or removed file survives once FS.SyncDir of its folder returned.
// Everything else may be there, be missing, or be there in part.
package vfs

import (
	"errors"
	"io"
)

// BlockBytes is the alignment that Direct files ask of offsets, lengths and memory.
const BlockBytes = 4096

// Errors of this package. Others come from the system and match io/fs and syscall values.
var (
	// ErrLocked: another process holds the lock file.
	ErrLocked = errors.New("file is locked by another process")
	// ErrUnsupported: the file system lacks an optional ability.
	ErrUnsupported = errors.New("not supported by this file system")
)

// Mode says how Open opens a file.
type Mode uint8

// Modes are or-ed together.
const (
	Write     Mode = 1 << iota // read and write; without it read only
	Create                     // make the file if it is missing
	Exclusive                  // with Create: fail with fs.ErrExist if it exists
	Direct                     // bypass the page cache; ErrUnsupported if it cannot be
)

// FS is a file system. Its methods may be called from any goroutine. Names are
// paths with forward slashes. A missing file gives an error that matches fs.ErrNotExist.
type FS interface {
	Open(name string, mode Mode) (File, error)
	// Remove unlinks a file. Open handles go on working.
	Remove(name string) error
	// Rename replaces newName by oldName in one step.
	Rename(oldName, newName string) error
	// MkdirAll makes a folder and its parents; the new entries are durable when it returns.
	MkdirAll(name string) error
	// List returns the names of the files and folders in a folder, in no order.
	List(dir string) ([]string, error)
	// SyncDir makes the entries of a folder durable.
	SyncDir(dir string) error
	// Syncer returns what syncs the whole file system that holds dir at once;
	// ErrUnsupported if it cannot be done.
	Syncer(dir string) (Syncer, error)
	// FreeBytes returns how much an unprivileged process may still write.
	FreeBytes(dir string) (int64, error)
	// Lock takes an exclusive lock that ends with the process, and creates the
	// file if needed. ErrLocked if another holder has it.
	Lock(name string) (io.Closer, error)
}

// Syncer makes everything on a file system durable. It knows of the write
// errors since it was made, so it is made before the writes.
type Syncer interface {
	SyncAll() error
	Close() error
}

// File is an open file. ReadAt, WriteAt, WriteVec and SyncData may be called
// from several goroutines; Close only when nothing else runs.
type File interface {
	// ReadAt fills p or returns how much it filled with io.EOF or another error.
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt writes all of p or returns an error; then any part of p may be written.
	WriteAt(p []byte, off int64) (int, error)
	// WriteVec writes the joined bufs at off, all or an error, and does not
	// keep bufs. It may change the slices in bufs.
	WriteVec(bufs [][]byte, off int64) error
	// SyncData makes the bytes written so far and the size durable. After an
	// error it is unknown which of them are, for good.
	SyncData() error
	Truncate(size int64) error
	Size() (int64, error)
	Close() error

	// Preallocate reserves space for [off, off+n) and grows the file to it;
	// ErrUnsupported if it cannot.
	Preallocate(off, n int64) error
	// StartWriteback asks for [off, off+n) to be written out soon, so that a
	// later SyncData is short. It promises nothing.
	StartWriteback(off, n int64)
	// Advise tells how [off, off+n) will be used. It promises nothing.
	Advise(off, n int64, a Advice)
}

// Advice is a hint about coming reads.
type Advice uint8

// Hints of File.Advise.
const (
	WillNeed Advice = iota // read ahead
	DontNeed               // drop from the page cache
)
