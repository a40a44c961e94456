//go:build !linux

package vfs

import (
	"io"
	"math"
	"os"
)

const directFlag = 0

func refusesDirect(error) bool { return false }

type osFile struct{ f *os.File }

func newOSFile(f *os.File) File { return &osFile{f} }

func (f *osFile) ReadAt(p []byte, off int64) (int, error)  { return f.f.ReadAt(p, off) }
func (f *osFile) WriteAt(p []byte, off int64) (int, error) { return f.f.WriteAt(p, off) }
func (f *osFile) WriteVec(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		if _, err := f.f.WriteAt(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}
func (f *osFile) SyncData() error                { return f.f.Sync() }
func (f *osFile) Truncate(size int64) error      { return f.f.Truncate(size) }
func (f *osFile) Close() error                   { return f.f.Close() }
func (f *osFile) Preallocate(off, n int64) error { return ErrUnsupported }
func (f *osFile) StartWriteback(off, n int64)    {}
func (f *osFile) Advise(off, n int64, a Advice)  {}
func (f *osFile) Size() (int64, error) {
	st, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (osFS) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	// Not every system can sync a folder; those order its entries themselves.
	_ = f.Sync()
	return f.Close()
}

func (osFS) Syncer(dir string) (Syncer, error) { return nil, ErrUnsupported }

func (osFS) FreeBytes(dir string) (int64, error) { return math.MaxInt64, nil }

// Lock opens the file without locking it: here the operator sees to it that one
// process uses a folder.
func (osFS) Lock(name string) (io.Closer, error) {
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
}
