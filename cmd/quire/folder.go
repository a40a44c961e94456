package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/quirelog/quire/storage/embedded"
	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
	"github.com/quirelog/quire/storage/vfs"
)

// folderFormat is the version of the data folder's layout:
//
//	LOCK      held by the process that serves the folder; its number for people
//	FORMAT    this number; written before anything below exists
//	ID        name of the folder; only if its metadata lies in an etcd cluster
//	SEEN      how far that cluster was (restore.go)
//	etcd/     metadata, else
//	ledgers/  records (storage/embedded/FORMAT.md)
const folderFormat = 1

const (
	lockFile   = "LOCK"
	formatFile = "FORMAT"
	etcdDir    = "etcd"
	ledgersDir = "ledgers"
)

// maxSmallFileBytes bounds what is read of LOCK, FORMAT, ID and SEEN.
const maxSmallFileBytes = 128

// folder is the data folder, locked against other processes until Close.
type folder struct {
	fs   vfs.FS
	dir  string // absolute
	lock io.Closer
}

// openFolder makes the data folder if need be and takes its lock. It refuses a
// folder that holds anything but quire's data, and one of a newer format.
func openFolder(fsys vfs.FS, dir string) (*folder, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, explainFolder(dir, err)
	}
	f := &folder{fs: fsys, dir: abs}
	if err := fsys.MkdirAll(abs); err != nil {
		return nil, explainFolder(abs, err)
	}
	names, err := fsys.List(abs)
	if err != nil {
		return nil, explainFolder(abs, err)
	}
	if err := f.checkForeign(names); err != nil {
		return nil, err
	}
	f.lock, err = fsys.Lock(f.path(lockFile))
	if errors.Is(err, vfs.ErrLocked) {
		owner := ""
		if pid, err := f.readSmall(lockFile); err == nil && pid != "" {
			owner = " (process " + pid + ")"
		}
		return nil, fmt.Errorf("data folder %s is in use by another quire%s: stop it or choose another with --data-dir", abs, owner)
	}
	if err != nil {
		return nil, explainFolder(abs, err)
	}
	if err := f.checkFormat(); err != nil {
		return nil, errors.Join(err, f.lock.Close())
	}
	// Not being able to leave the number is no reason not to serve.
	_ = f.writeSmall(lockFile, strconv.Itoa(os.Getpid()))
	return f, nil
}

// checkForeign refuses a folder that holds names and no FORMAT: it is somebody else's,
// and nothing is written there.
func (f *folder) checkForeign(names []string) error {
	// A start that was cut short leaves the first two; lost+found is in every
	// fresh ext4 file system.
	harmless := []string{lockFile, formatFile + ".new", "lost+found"}
	if slices.Contains(names, formatFile) {
		return nil
	}
	for _, name := range names {
		if !slices.Contains(harmless, name) {
			return fmt.Errorf("data folder %s holds %s but no quire data: choose an empty one with --data-dir", f.dir, name)
		}
	}
	return nil
}

// checkFormat reads FORMAT, or writes it into an empty folder.
func (f *folder) checkFormat() error {
	text, err := f.readSmall(formatFile)
	if err == nil {
		n, err := strconv.Atoi(text)
		switch {
		case err != nil || n < 1:
			return fmt.Errorf("data folder %s: its %s holds no version: restore it from a backup or choose another with --data-dir", f.dir, formatFile)
		case n > folderFormat:
			return fmt.Errorf("data folder %s is of format %d, written by a newer quire (this one reads up to %d): run the newer one or choose another folder with --data-dir", f.dir, n, folderFormat)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return explainFolder(f.dir, err)
	}
	// FORMAT is durable, whole, before anything depends on it.
	if err := f.replaceSmall(formatFile, strconv.Itoa(folderFormat)); err != nil {
		return explainFolder(f.dir, err)
	}
	return nil
}

// replaceSmall writes a small file so that a crash leaves the old text or the new one.
func (f *folder) replaceSmall(name, text string) error {
	err := f.writeSmall(name+".new", text)
	if err == nil {
		err = f.fs.Rename(f.path(name+".new"), f.path(name))
	}
	if err == nil {
		err = f.fs.SyncDir(f.dir)
	}
	return err
}

// readSmall returns the text of a small file without its line end.
func (f *folder) readSmall(name string) (string, error) {
	file, err := f.fs.Open(f.path(name), 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text := make([]byte, maxSmallFileBytes)
	n, err := file.ReadAt(text, 0)
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimSpace(string(text[:n])), nil
}

func (f *folder) writeSmall(name, text string) error {
	file, err := f.fs.Open(f.path(name), vfs.Write|vfs.Create)
	if err != nil {
		return err
	}
	if err = file.Truncate(0); err == nil {
		_, err = file.WriteAt([]byte(text+"\n"), 0)
	}
	if err == nil {
		err = file.SyncData()
	}
	return errors.Join(err, file.Close())
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

// Close gives the lock back.
func (f *folder) Close() error { return f.lock.Close() }

// explainFailure words why what lies in dir could not be written any more while
// it was served.
func explainFailure(dir string, err error) error {
	advice := "check the disk"
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		advice = "free some space"
	}
	return fmt.Errorf("data folder %s cannot be written any more: %w: %s and start again; what was acknowledged is safe", dir, err, advice)
}

// explainFolder words an error of the data folder, or of what lies in it, and
// says what to do about it.
func explainFolder(dir string, err error) error {
	const another = "choose another with --data-dir"
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("data folder %s: %w", dir, err)
	}
	advice := another
	switch {
	case errors.Is(err, fs.ErrPermission):
		advice = "give this user access or " + another
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		advice = "free some space or " + another
	case errors.Is(err, syscall.EROFS):
		advice = "mount it writable or " + another
	case errors.Is(err, meta.ErrNoSpace):
		return fmt.Errorf("data folder %s: its disk is too full for another fact about the cluster: free some space or %s", dir, another)
	case errors.Is(err, embedded.ErrNewerFormat):
		return fmt.Errorf("data folder %s was written by a newer quire: run that one or %s", dir, another)
	case errors.Is(err, embedded.ErrLocked), errors.Is(err, etcd.ErrLocked):
		return fmt.Errorf("data folder %s is in use by another process: stop it or %s", dir, another)
	}
	var system syscall.Errno
	if errors.As(err, &system) {
		return fmt.Errorf("data folder %s: %w: %s", dir, system, advice)
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("data folder %s: %w: %s", dir, path.Err, advice)
	}
	// What is below names the folder again.
	text := err.Error()
	for _, part := range []string{"ledger store in ", "metadata folder "} {
		text = strings.TrimPrefix(text, part+dir+": ")
	}
	return fmt.Errorf("data folder %s: %s: restore it from a backup or %s", dir, strings.ReplaceAll(text, dir+"/", ""), another)
}
