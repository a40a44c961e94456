package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quirelog/quire/storage/vfs"
)

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	f, err := openFolder(vfs.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openFolder(vfs.OS, dir); err == nil || !strings.Contains(err.Error(), "is in use by another quire (process ") {
		t.Errorf("second open: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// A start that was cut short after the lock and before FORMAT.
	if err := os.Remove(filepath.Join(dir, formatFile)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if f, err = openFolder(vfs.OS, dir); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFolderRefused: each is one line that names the folder and a way out.
func TestFolderRefused(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(dir string) error
		want    string
	}{
		"newer":   {func(dir string) error { return os.WriteFile(filepath.Join(dir, formatFile), []byte("2\n"), 0o600) }, "is of format 2, written by a newer quire (this one reads up to 1): run the newer one"},
		"damaged": {func(dir string) error { return os.WriteFile(filepath.Join(dir, formatFile), nil, 0o600) }, "its FORMAT holds no version: restore it"},
		"foreign": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o600) }, "holds thesis.tex but no quire data"},
	} {
		dir := t.TempDir()
		if err := c.prepare(dir); err != nil {
			t.Fatal(err)
		}
		_, err := openFolder(vfs.OS, dir)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--data-dir") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		// Nothing was left behind that would make the next start see something else.
		if f, err := openFolder(vfs.OS, dir); err == nil {
			t.Errorf("%s: accepted when tried again", name)
			f.Close()
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		if _, err := openFolder(vfs.OS, dir); err == nil || !strings.Contains(err.Error(), "choose another with --data-dir") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
