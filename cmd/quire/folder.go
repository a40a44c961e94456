package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// folderFormat is the version of the data folder's layout:
//
//	LOCK      held by the process that serves the folder
//	FORMAT    this number; written before anything below exists
//	etcd/     metadata
//	ledgers/  records (storage/embedded/FORMAT.md)
const folderFormat = 1

const (
	lockFile   = "LOCK"
	formatFile = "FORMAT"
	etcdDir    = "etcd"
	ledgersDir = "ledgers"
)

// folder is the data folder, locked against other processes until Close.
type folder struct {
	dir  string
	lock *fileutil.LockedFile
}

// openFolder makes the data folder if need be and takes its lock. It refuses a
// folder that holds anything but quire's data, and one of a newer format.
func openFolder(dir string) (*folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("data folder %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		if errors.Is(err, syscall.ENOTDIR) {
			return nil, fmt.Errorf("data folder %s: it or a folder above it is a file; choose another with --data-dir", dir)
		}
		return nil, explainFolder(dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, explainFolder(dir, err)
	}
	lock, err := fileutil.TryLockFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o640)
	if errors.Is(err, fileutil.ErrLocked) {
		owner := ""
		if pid, err := os.ReadFile(filepath.Join(dir, lockFile)); err == nil && len(pid) > 0 && len(pid) < 32 {
			owner = " (process " + strings.TrimSpace(string(pid)) + ")"
		}
		return nil, fmt.Errorf("data folder %s is in use by another quire%s: stop it or choose another with --data-dir", dir, owner)
	}
	if err != nil {
		return nil, explainFolder(dir, err)
	}
	f := &folder{dir: dir, lock: lock}
	if err := f.checkFormat(entries); err != nil {
		lock.Close()
		return nil, err
	}
	// The number is for people who meet the lock; the lock itself is the kernel's.
	if err := lock.Truncate(0); err == nil {
		_, _ = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

// checkFormat reads FORMAT, or writes it into an empty folder. entries are what
// the folder held before it was locked.
func (f *folder) checkFormat(entries []fs.DirEntry) error {
	path := filepath.Join(f.dir, formatFile)
	text, err := os.ReadFile(path)
	if err == nil {
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		switch {
		case err != nil || n < 1:
			return fmt.Errorf("data folder %s: %s does not hold a version: restore it from a backup or choose another folder with --data-dir", f.dir, formatFile)
		case n > folderFormat:
			return fmt.Errorf("data folder %s is of format %d, written by a newer quire; this one reads up to %d: run the newer quire or choose another folder with --data-dir", f.dir, n, folderFormat)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return explainFolder(f.dir, err)
	}
	for _, e := range entries {
		// lost+found is in every fresh ext4 file system.
		if name := e.Name(); name != lockFile && name != "lost+found" && name != formatFile+".new" {
			return fmt.Errorf("data folder %s holds %s but no quire data: choose an empty folder with --data-dir", f.dir, name)
		}
	}
	if err := f.writeFormat(path); err != nil {
		return explainFolder(f.dir, err)
	}
	return nil
}

// writeFormat makes FORMAT durable, and with it the entry of the folder itself,
// before the first record can be acknowledged.
func (f *folder) writeFormat(path string) error {
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = file.WriteString(strconv.Itoa(folderFormat) + "\n")
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	for _, dir := range []string{f.dir, filepath.Dir(f.dir)} {
		if err == nil {
			err = syncDir(dir)
		}
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		// A parent that may be entered but not listed cannot be synced by us.
		if errors.Is(err, fs.ErrPermission) {
			return nil
		}
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

// Close gives the lock back.
func (f *folder) Close() error { return f.lock.Close() }

// explainFolder words an error of the data folder and says what to do about it.
func explainFolder(dir string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, fs.ErrPermission):
		advice = ": give this user access or choose another with --data-dir"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		advice = ": free some space or choose another disk with --data-dir"
	case errors.Is(err, syscall.EROFS):
		advice = ": mount it writable or choose another with --data-dir"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		advice = ": choose a folder with --data-dir"
	}
	return fmt.Errorf("data folder %s: %w%s", dir, unwrapPath(err), advice)
}
