package vfs

import (
	"errors"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

const directFlag = unix.O_DIRECT

// refusesDirect tells an open that failed only because of O_DIRECT: tmpfs and
// some network and user-space file systems answer EINVAL.
func refusesDirect(err error) bool { return errors.Is(err, unix.EINVAL) }

// maxVec is IOV_MAX, the most slices one pwritev takes.
const maxVec = 1024

type osFile struct {
	f  *os.File
	fd int
}

func newOSFile(f *os.File) File { return &osFile{f: f, fd: int(f.Fd())} }

func (f *osFile) ReadAt(p []byte, off int64) (int, error)  { return f.f.ReadAt(p, off) }
func (f *osFile) WriteAt(p []byte, off int64) (int, error) { return f.f.WriteAt(p, off) }
func (f *osFile) Truncate(size int64) error                { return f.f.Truncate(size) }
func (f *osFile) Close() error                             { return f.f.Close() }

func (f *osFile) WriteVec(bufs [][]byte, off int64) error {
	defer runtime.KeepAlive(f.f)
	for len(bufs) > 0 {
		head := bufs
		if len(head) > maxVec {
			head = head[:maxVec]
		}
		n, err := unix.Pwritev(f.fd, head, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "pwritev", Path: f.f.Name(), Err: err}
		}
		if n == 0 {
			return &os.PathError{Op: "pwritev", Path: f.f.Name(), Err: io.ErrShortWrite}
		}
		off += int64(n)
		for n > 0 && n >= len(bufs[0]) {
			n -= len(bufs[0])
			bufs = bufs[1:]
		}
		if n > 0 {
			bufs[0] = bufs[0][n:]
		}
		for len(bufs) > 0 && len(bufs[0]) == 0 {
			bufs = bufs[1:]
		}
	}
	return nil
}

func (f *osFile) SyncData() error {
	defer runtime.KeepAlive(f.f)
	for {
		// EINTR comes before the sync began, never as its outcome.
		err := unix.Fdatasync(f.fd)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &os.PathError{Op: "fdatasync", Path: f.f.Name(), Err: err}
		}
	}
}

func (f *osFile) Size() (int64, error) {
	st, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f *osFile) Preallocate(off, n int64) error {
	defer runtime.KeepAlive(f.f)
	for {
		err := unix.Fallocate(f.fd, 0, off, n)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOSYS:
			return &os.PathError{Op: "fallocate", Path: f.f.Name(), Err: ErrUnsupported}
		default:
			return &os.PathError{Op: "fallocate", Path: f.f.Name(), Err: err}
		}
	}
}

func (f *osFile) StartWriteback(off, n int64) {
	_ = unix.SyncFileRange(f.fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	runtime.KeepAlive(f.f)
}

func (f *osFile) Advise(off, n int64, a Advice) {
	advice := unix.FADV_WILLNEED
	if a == DontNeed {
		advice = unix.FADV_DONTNEED
	}
	_ = unix.Fadvise(f.fd, off, n, advice)
	runtime.KeepAlive(f.f)
}

func (osFS) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}

// syncfs reports the write-back errors since its descriptor was opened (Linux 5.8).
type osSyncer struct{ f *os.File }

func (osFS) Syncer(dir string) (Syncer, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return osSyncer{f}, nil
}

func (s osSyncer) SyncAll() error {
	defer runtime.KeepAlive(s.f)
	if err := unix.Syncfs(int(s.f.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: s.f.Name(), Err: err}
	}
	return nil
}

func (s osSyncer) Close() error { return s.f.Close() }

func (osFS) FreeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if err == nil {
			return int64(st.Bavail) * st.Bsize, nil
		}
		if err != unix.EINTR {
			return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
	}
}

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if err == unix.EWOULDBLOCK {
			err = ErrLocked
		}
		return nil, &os.PathError{Op: "lock", Path: name, Err: err}
	}
	return f, nil
}
