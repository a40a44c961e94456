package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
	"github.com/quirelog/quire/storage/meta/metatest"
)

func openEmbedded(t *testing.T, dir string) *etcd.Store {
	t.Helper()
	s, err := etcd.OpenEmbedded(t.Context(), etcd.EmbeddedConfig{Dir: dir, RequestTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t *testing.T, s *etcd.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestEmbedded(t *testing.T) {
	metatest.Run(t, func(t *testing.T) metatest.Harness {
		s := openEmbedded(t, t.TempDir())
		return metatest.Harness{Store: s, Compact: s.Compact}
	})
}

// A store opened again holds what it held, and goes on with its revisions.
func TestEmbeddedReopens(t *testing.T) {
	dir := t.TempDir()
	var last meta.KV
	for i := range 3 {
		s := openEmbedded(t, dir)
		kv, err := s.Get(t.Context(), "a")
		if i > 0 && (err != nil || kv.Modified != last.Modified || string(kv.Value) != string(last.Value)) {
			t.Fatalf("after reopening Get = %+v, %v, want %+v", kv, err, last)
		}
		value := []byte(fmt.Sprint(i))
		rev, ok, err := s.Txn(t.Context(), []meta.Cond{{Key: "a", Modified: last.Modified}}, []meta.Op{meta.Put("a", value)})
		if err != nil || !ok || rev <= last.Modified {
			t.Fatalf("Txn = %d, %v, %v after revision %d", rev, ok, err, last.Modified)
		}
		last = meta.KV{Modified: rev, Value: value}
		closeStore(t, s)
	}
}

// A folder that is in use is refused at once, and is free again after Close.
func TestEmbeddedFolderInUse(t *testing.T) {
	dir := t.TempDir()
	s := openEmbedded(t, dir)
	_, err := etcd.OpenEmbedded(t.Context(), etcd.EmbeddedConfig{Dir: dir})
	if !errors.Is(err, etcd.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("second open of a folder: %v, want ErrLocked with the folder's name", err)
	}
	closeStore(t, s)
	openEmbedded(t, dir)
}

// Two stores in one process have nothing in common.
func TestEmbeddedTwice(t *testing.T) {
	a, b := openEmbedded(t, t.TempDir()), openEmbedded(t, t.TempDir())
	if _, _, err := a.Txn(t.Context(), nil, []meta.Op{meta.Put("a", nil)}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), "a"); !errors.Is(err, meta.ErrNotFound) {
		t.Fatalf("the other store: %v, want ErrNotFound", err)
	}
}

// Neither starting, serving nor stopping says anything worth a warning.
func TestEmbeddedIsQuiet(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	s, err := etcd.OpenEmbedded(t.Context(), etcd.EmbeddedConfig{Dir: filepath.Join(t.TempDir(), "meta"), Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put("a", nil)}); err != nil {
		t.Error(err)
	}
	closeStore(t, s)
	for _, e := range logs.All() {
		if _, slow := e.ContextMap()["expected-duration"]; slow {
			continue // the disk is slow, which is worth a warning
		}
		t.Errorf("logged: %s %s %v", e.Level, e.Message, e.ContextMap())
	}
}

// openChild opens a store and says what came of it.
func openChild(dir string) error {
	s, err := etcd.OpenEmbedded(context.Background(), etcd.EmbeddedConfig{Dir: dir})
	if err != nil {
		return err
	}
	fmt.Println("opened")
	untilEnd()
	return s.Close()
}

// Files that cannot be used are an error that names the folder, not a crash.
func TestEmbeddedUnusableFiles(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"folder is a file": func(dir string) error {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			return os.WriteFile(dir, nil, 0o600)
		},
		"database is garbage": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "member", "snap", "db"), []byte(strings.Repeat("garbage ", 8192)), 0o600)
		},
		"bit flipped in the log": func(dir string) error {
			files, err := filepath.Glob(filepath.Join(dir, "member", "wal", "0000000000000000-*.wal"))
			if err != nil || len(files) != 1 {
				return fmt.Errorf("write-ahead log in %s: %v, %v", dir, files, err)
			}
			f, err := os.OpenFile(files[0], os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			var b [1]byte
			if _, err := f.ReadAt(b[:], 100); err != nil {
				return err
			}
			b[0] ^= 1
			_, err = f.WriteAt(b[:], 100)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "meta")
			s := openEmbedded(t, dir)
			if _, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put("a", []byte(strings.Repeat("v", 1000)))}); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			c, line := startChild(t, "open", dir)
			if line == "opened" || strings.Contains(line, "panic") || !strings.Contains(line, dir) {
				t.Errorf("opening says %q, want an error that names %s", line, dir)
			}
			if err := c.cmd.Wait(); c.cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("the process ended with %v", err)
			}
		})
	}
}

// What was acknowledged is there after the process was killed, and the folder is free.
func TestEmbeddedKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "meta")
	c, line := startChild(t, "open", dir)
	if line != "opened" {
		t.Fatal(line)
	}
	if _, err := etcd.OpenEmbedded(t.Context(), etcd.EmbeddedConfig{Dir: dir}); !errors.Is(err, etcd.ErrLocked) {
		t.Fatalf("open of a folder that another process has: %v, want ErrLocked", err)
	}
	c.kill()
	openEmbedded(t, dir)
}
