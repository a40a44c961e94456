package etcd_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
)

// restart ends a member and starts another at its socket.
func restart(t *testing.T, dir string, before func()) {
	t.Helper()
	before()
	m, err := startMember(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
}

// A cluster that was restarted goes on; one that was restored from a backup, or is
// another one at the same address, is noticed by the first answer, and no answer of
// it is taken for what it says.
func TestClusterWentBack(t *testing.T) {
	for name, swap := range map[string]func(t *testing.T, dir string){
		"restored": func(t *testing.T, dir string) {
			data := filepath.Join(dir, "data")
			if err := os.RemoveAll(data); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "backup"), data); err != nil {
				t.Fatal(err)
			}
			restart(t, dir, func() {})
		},
		"another": func(t *testing.T, dir string) {
			other := t.TempDir()
			restart(t, other, func() {})
			if err := os.Rename(filepath.Join(other, "client.sock"), filepath.Join(dir, "client.sock")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			m, err := startMember(dir)
			if err != nil {
				t.Fatal(err)
			}
			failed := make(chan error, 2)
			config := at(dir, time.Second)
			config.OnFailure = func(err error) { failed <- err }
			s := openCluster(t, config)
			put := func() meta.Revision {
				t.Helper()
				for {
					rev, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put("a", []byte("1"))})
					switch {
					case err == nil:
						return rev
					case errors.Is(err, etcd.ErrWentBack), !errors.Is(err, meta.ErrUnavailable) && !errors.Is(err, meta.ErrUnknownOutcome):
						t.Fatal(err)
					}
				}
			}
			put()
			m.Close()
			if err := os.CopyFS(filepath.Join(dir, "backup"), os.DirFS(filepath.Join(dir, "data"))); err != nil {
				t.Fatal(err)
			}
			m, err = startMember(dir)
			if err != nil {
				t.Fatal(err)
			}
			put()
			last := put()
			if got := s.Position(); got.Revision != last || got.Cluster == 0 {
				t.Errorf("position %+v after revision %d", got, last)
			}
			m.Close()

			swap(t, dir)
			for {
				kv, err := s.Get(t.Context(), "a")
				if errors.Is(err, etcd.ErrWentBack) {
					if !errors.Is(err, meta.ErrUnavailable) {
						t.Errorf("%v is not ErrUnavailable", err)
					}
					break
				}
				if !errors.Is(err, meta.ErrUnavailable) {
					t.Fatalf("Get of what went back: %+v, %v", kv, err)
				}
			}
			if err := <-failed; !errors.Is(err, etcd.ErrWentBack) {
				t.Errorf("told of %v", err)
			}
			if _, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put("a", []byte("2"))}); !errors.Is(err, meta.ErrUnavailable) {
				t.Errorf("Txn afterwards: %v, want ErrUnavailable", err)
			}
			select {
			case err := <-failed:
				t.Errorf("told twice: %v", err)
			default:
			}
		})
	}
}
