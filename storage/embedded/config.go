package embedded

import (
	"fmt"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/vfs"
)

// Config says where the store lies and how much it may use. Zero values mean
// the default named in the comment.
type Config struct {
	Dir        string                // data folder; made if missing; required
	FS         vfs.FS                // vfs.OS
	Logger     *zap.Logger           // none
	Registerer prometheus.Registerer // no metrics

	// OnFailure is called once, on a goroutine of the store, when it takes no more
	// writes because files cannot be written or synced. What is acknowledged can
	// still be read, and is there when the store is opened again. A full disk is no
	// failure. It must not call Close. May be nil.
	OnFailure func(error)

	MaxGroupBytes      int           // largest group written and synced at once, unless one entry is longer: 2 MiB
	ChunkBytes         int           // unit of the backlog's memory, at least MaxGroupBytes: 4 MiB
	MaxBacklogBytes    int64         // acknowledged bytes not yet in ledger files; then the journal waits: 64 MiB
	MaxQueueBytes      int64         // bytes queued for the journal; appends beyond get ErrNoSpace: 512 MiB
	JournalFileBytes   int64         // size of journal files once the store has warmed up: 64 MiB
	JournalFirstBytes  int64         // size of the first journal file, so that start is quick: 8 MiB
	MaxJournalBytes    int64         // journal not yet covered by a checkpoint; then the journal waits: 512 MiB
	FlushBytes         int64         // backlog of one ledger that is written to its file at once: 512 KiB
	CheckpointBytes    int64         // journal bytes after which a checkpoint is made: 64 MiB
	CheckpointInterval time.Duration // time after which dirty data gets a checkpoint: 1 s
	MinFreeBytes       int64         // free space kept for sealing, checkpoints and the operator: 256 MiB
	MaxOpenFiles       int           // ledger files open at once: 512

	// indexEvery is the distance in bytes of the positions kept in memory,
	// indexFrameEvery the distance after which they go into the ledger file.
	// Smaller in tests only; files of any distance can be read.
	indexEvery      int64
	indexFrameEvery int64
}

// Memory and disk are touched in whole blocks by O_DIRECT, see FORMAT.md.
const minFileBytes = 64 << 10

func (c *Config) validate() error {
	if c.Dir == "" {
		return fmt.Errorf("ledger store: no data folder given")
	}
	c.Dir = path.Clean(c.Dir)
	if c.FS == nil {
		c.FS = vfs.OS
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	setDefault(&c.MaxGroupBytes, 2<<20)
	setDefault(&c.ChunkBytes, 4<<20)
	setDefault(&c.MaxBacklogBytes, 64<<20)
	setDefault(&c.MaxQueueBytes, 512<<20)
	setDefault(&c.JournalFileBytes, 64<<20)
	setDefault(&c.JournalFirstBytes, min(8<<20, c.JournalFileBytes))
	setDefault(&c.MaxJournalBytes, 512<<20)
	setDefault(&c.FlushBytes, 512<<10)
	setDefault(&c.CheckpointBytes, 64<<20)
	setDefault(&c.CheckpointInterval, time.Second)
	setDefault(&c.MinFreeBytes, 256<<20)
	setDefault(&c.MaxOpenFiles, 512)
	setDefault(&c.indexEvery, indexEvery)
	setDefault(&c.indexFrameEvery, indexFrameEvery)
	c.MaxGroupBytes = alignUp(c.MaxGroupBytes)
	c.ChunkBytes = max(alignUp(c.ChunkBytes), c.MaxGroupBytes)
	c.JournalFileBytes = max(int64(alignUp(int(c.JournalFileBytes))), minFileBytes)
	c.JournalFirstBytes = min(max(int64(alignUp(int(c.JournalFirstBytes))), minFileBytes), c.JournalFileBytes)
	// One file fills while the one before it waits for its checkpoint.
	c.MaxJournalBytes = max(c.MaxJournalBytes, 2*c.JournalFileBytes)
	c.MaxBacklogBytes = max(c.MaxBacklogBytes, 2*int64(c.ChunkBytes))
	for name, v := range map[string]int64{
		"MaxGroupBytes": int64(c.MaxGroupBytes), "MaxQueueBytes": c.MaxQueueBytes, "FlushBytes": c.FlushBytes,
		"CheckpointBytes": c.CheckpointBytes, "CheckpointInterval": int64(c.CheckpointInterval),
		"MinFreeBytes": c.MinFreeBytes, "MaxOpenFiles": int64(c.MaxOpenFiles),
	} {
		if v < 0 {
			return fmt.Errorf("ledger store: %s is %d, must not be negative", name, v)
		}
	}
	return nil
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func alignUp(n int) int { return (n + vfs.BlockBytes - 1) &^ (vfs.BlockBytes - 1) }
