package embedded

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/ledger/ledgertest"
	"github.com/quirelog/quire/storage/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is a configuration in which everything happens often: groups are cut,
// chunks change, files roll and flush.
func small(fsys vfs.FS) Config {
	return Config{
		Dir: "store", FS: fsys,
		MaxGroupBytes: 8 << 10, ChunkBytes: 16 << 10, MaxBacklogBytes: 64 << 10,
		JournalFirstBytes: minFileBytes, JournalFileBytes: 2 * minFileBytes, MaxJournalBytes: 8 * minFileBytes,
		FlushBytes: 4 << 10, CheckpointBytes: 100 << 10, MinFreeBytes: 1, MaxOpenFiles: 4,
		indexEvery: 600, indexFrameEvery: 5000,
	}
}

func TestLedgerSuiteInMemory(t *testing.T) {
	for name, seed := range map[string]uint64{"synced": vfs.KeepSynced, "everything": vfs.KeepEverything, "torn": 7} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ledgertest.Run(t, func(t *testing.T) ledgertest.Factory {
				mem := vfs.NewMem()
				t.Cleanup(func() { verify(t, mem, "store") })
				open := func() (ledger.Tier, error) { return Open(small(mem)) }
				return ledgertest.Factory{
					Open: open,
					Crash: func(tier ledger.Tier) {
						clone := mem.CrashClone(seed)
						if err := tier.Close(); err != nil {
							t.Fatal(err)
						}
						mem = clone
					},
				}
			})
		})
	}
}

func TestLedgerSuiteOnDisk(t *testing.T) {
	for name, config := range map[string]func(dir string) Config{
		"default": func(dir string) Config { return Config{Dir: dir, MinFreeBytes: 1, CheckpointInterval: time.Hour} },
		"small": func(dir string) Config {
			c := small(vfs.OS)
			c.Dir, c.CheckpointInterval = dir, time.Hour
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ledgertest.Run(t, func(t *testing.T) ledgertest.Factory {
				dir := t.TempDir()
				t.Cleanup(func() { verify(t, vfs.OS, dir) })
				return ledgertest.Factory{
					Open: func() (ledger.Tier, error) { return Open(config(dir)) },
					Crash: func(tier ledger.Tier) {
						// A process that dies leaves what the kernel has: the files
						// as they are before the close makes its checkpoint. None
						// comes while they are copied.
						clone := t.TempDir()
						if err := os.CopyFS(clone, os.DirFS(dir)); err != nil {
							t.Fatal(err)
						}
						if err := tier.Close(); err != nil {
							t.Fatal(err)
						}
						dir = clone
					},
				}
			})
		})
	}
}

// verify checks a store that is closed.
func verify(t *testing.T, fsys vfs.FS, dir string) {
	t.Helper()
	rep, err := Verify(fsys, dir, nil)
	if err != nil {
		t.Error(err)
	}
	for _, err := range rep.Problems {
		t.Error(err)
	}
}
