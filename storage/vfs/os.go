package vfs

import (
	"errors"
	"os"
	"path/filepath"
)

// OS is the file system of the machine.
var OS FS = osFS{}

type osFS struct{}

func (osFS) Open(name string, mode Mode) (File, error) {
	flag := os.O_RDONLY
	if mode&Write != 0 {
		flag = os.O_RDWR
	}
	if mode&Create != 0 {
		flag |= os.O_CREATE
	}
	if mode&Exclusive != 0 {
		flag |= os.O_EXCL
	}
	if mode&Direct != 0 {
		if directFlag == 0 {
			return nil, &os.PathError{Op: "open", Path: name, Err: ErrUnsupported}
		}
		flag |= directFlag
	}
	f, err := os.OpenFile(name, flag, 0o640)
	if err != nil {
		if mode&Direct != 0 && refusesDirect(err) {
			err = &os.PathError{Op: "open", Path: name, Err: ErrUnsupported}
		}
		return nil, err
	}
	return newOSFile(f), nil
}

func (osFS) Remove(name string) error { return os.Remove(name) }

func (osFS) Rename(oldName, newName string) error { return os.Rename(oldName, newName) }

func (fsys osFS) MkdirAll(name string) error {
	name = filepath.Clean(name)
	if st, err := os.Stat(name); err == nil {
		if !st.IsDir() {
			return &os.PathError{Op: "mkdir", Path: name, Err: errors.New("not a folder")}
		}
		return nil
	}
	parent := filepath.Dir(name)
	if parent != name {
		if err := fsys.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(name, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return fsys.SyncDir(parent)
}

func (osFS) List(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}
