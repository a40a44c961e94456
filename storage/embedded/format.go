package embedded

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/vfs"
)

// FORMAT holds one line, "quire ledger store N". It is written last when a
// store is made, so a folder without it holds nothing.
const (
	formatFile    = "FORMAT"
	formatPrefix  = "quire ledger store "
	formatVersion = 1
)

// checkFormat returns whether the store is still to be made.
func (t *Tier) checkFormat() (fresh bool, err error) {
	f, err := t.fs.Open(path.Join(t.c.Dir, formatFile), 0)
	if errors.Is(err, fs.ErrNotExist) {
		for _, dir := range [...]string{t.ledgerDir(), path.Join(t.c.Dir, "journal")} {
			names, err := t.fs.List(dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false, err
			}
			if len(names) > 0 {
				return false, fmt.Errorf("%s is missing, but %s holds files: %w", formatFile, dir, ledger.ErrCorrupt)
			}
		}
		return true, nil
	}
	if err != nil {
		return false, err
	}
	b := make([]byte, 64)
	n, err := f.ReadAt(b, 0)
	_ = f.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	version, ok := parseFormat(string(b[:n]))
	switch {
	case !ok:
		return false, fmt.Errorf("%s is not one of a quire ledger store: %w", formatFile, ledger.ErrCorrupt)
	case version > formatVersion:
		return false, fmt.Errorf("%w: format %d, this version knows %d; start the version that wrote it", ErrNewerFormat, version, formatVersion)
	}
	return false, nil
}

func parseFormat(s string) (int, bool) {
	s, ok := strings.CutPrefix(s, formatPrefix)
	s, ended := strings.CutSuffix(s, "\n")
	if !ok || !ended {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n > 0
}

// makeStore makes the folders of a new store.
func (t *Tier) makeStore() error {
	for _, dir := range [...]string{t.ledgerDir(), path.Join(t.c.Dir, "journal")} {
		if err := t.fs.MkdirAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// writeFormat completes a new store. The rename is the commit point: FORMAT is
// never there in part.
func (t *Tier) writeFormat() error {
	name := path.Join(t.c.Dir, formatFile)
	f, err := t.fs.Open(name+".new", vfs.Write|vfs.Create)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(formatPrefix+strconv.Itoa(formatVersion)+"\n"), 0)
	if err == nil {
		err = f.SyncData()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := t.fs.SyncDir(t.c.Dir); err != nil { // CHECKPOINT comes before FORMAT
		return err
	}
	if err := t.fs.Rename(name+".new", name); err != nil {
		return err
	}
	return t.fs.SyncDir(t.c.Dir)
}
