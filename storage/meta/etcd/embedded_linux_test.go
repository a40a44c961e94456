package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
)

// openFiles returns this process's file descriptors and what they are.
func openFiles() (map[int]string, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	files := make(map[int]string)
	for _, e := range entries {
		var fd int
		fmt.Sscan(e.Name(), &fd)
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil {
			files[fd] = target
		}
	}
	return files, nil
}

// The embedded server listens nowhere: it opens no socket at all.
func TestEmbeddedHasNoSockets(t *testing.T) {
	sockets := func() (n int) {
		files, err := openFiles()
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range files {
			if strings.HasPrefix(target, "socket:") {
				n++
			}
		}
		return n
	}
	before := sockets()
	openEmbedded(t, t.TempDir())
	if after := sockets(); after != before {
		t.Fatalf("%d sockets are open, %d were before", after, before)
	}
}

// failChild opens a store, makes its log fail, and says whether the store behaves.
func failChild(dir string) error {
	failed := make(chan error, 1)
	ctx := context.Background()
	s, err := etcd.OpenEmbedded(ctx, etcd.EmbeddedConfig{Dir: dir, OnFailure: func(err error) { failed <- err }})
	if err != nil {
		return err
	}
	put := func(key string) error {
		_, _, err := s.Txn(ctx, nil, []meta.Op{meta.Put(key, nil)})
		return err
	}
	if err := put("before"); err != nil {
		return err
	}
	watch := s.Watch(ctx, "x", 0)
	// Writes to /dev/full end in ENOSPC.
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	files, err := openFiles()
	if err != nil {
		return err
	}
	for fd, target := range files {
		if strings.HasPrefix(target, dir) && strings.HasSuffix(target, ".wal") {
			if err := unix.Dup3(int(full.Fd()), fd, unix.O_CLOEXEC); err != nil {
				return err
			}
		}
	}
	if err := put("during"); !errors.Is(err, meta.ErrUnknownOutcome) || errors.Is(err, meta.ErrUnavailable) {
		return fmt.Errorf("Txn while the log fails: %v, want ErrUnknownOutcome", err)
	}
	if err := <-failed; !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("OnFailure(%v), want ENOSPC", err)
	}
	if err := put("after"); !errors.Is(err, meta.ErrUnavailable) || !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("Txn after the log failed: %v, want ErrUnavailable for ENOSPC", err)
	}
	if e := <-watch; !errors.Is(e.Err, meta.ErrClosed) {
		return fmt.Errorf("watch says %+v, want ErrClosed", e)
	}
	if err := s.Close(); err != nil {
		return err
	}
	fmt.Println("failed as it should")
	return nil
}

// When its log cannot be written the store fails, says so and acknowledges
// nothing; what was acknowledged is there for the next process.
func TestEmbeddedLogFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "meta")
	c, line := startChild(t, "fail", dir)
	if line != "failed as it should" {
		t.Fatal(line)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	s := openEmbedded(t, dir)
	if _, err := s.Get(t.Context(), "before"); err != nil {
		t.Errorf("what was acknowledged: %v", err)
	}
	for _, key := range []string{"during", "after"} {
		if _, err := s.Get(t.Context(), key); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", key, err)
		}
	}
}

func init() { children["fail"] = failChild }
