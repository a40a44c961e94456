package offsets

import (
	"context"
	"time"

	"github.com/quirelog/quire/storage/meta"
)

// Config is what a Committer needs.
type Config struct {
	Store meta.Store
	Keys  Keys

	// Name distinguishes this committer from all others of the cluster that run
	// at the same time, and is the same after a restart: the node's id and the
	// number of the committer, "7-0". The sequence key is named by it.
	Name string

	// CommitTimeout bounds how long an item waits in all for its answer.
	// 0: 5 s, Kafka's offsets.commit.timeout.ms.
	CommitTimeout time.Duration

	// MaxQueuedItems and MaxQueuedBytes bound what waits, in flight included.
	// 0: 65,536 items, 64 MiB.
	MaxQueuedItems int
	MaxQueuedBytes int64

	// SkipUnchangedFor is how old a stored offset may be for a commit of the
	// same offset to leave it as it is. Such a commit is answered when the guards
	// were seen to hold, without a write. It bounds by how much an offset can
	// expire too early. 0: 1 minute; negative: never skip.
	SkipUnchangedFor time.Duration

	// Metrics are counted on; nil: on ones that nobody reads. Committers may share them.
	Metrics *Metrics
}

// Committer writes what the owner of slots commits, by one goroutine and one
// transaction at a time. Its methods may be called from any goroutine.
type Committer struct{}

// NewCommitter starts a committer. Close it.
func NewCommitter(c Config) *Committer { return &Committer{} }

// Load reads the groups and offsets of a slot that this node owns: owner is the
// key and revision of the owner record by which it claimed the slot. It reads
// after the claim, so it sees all that earlier owners have committed, and they
// commit nothing more.
//
// f is called for each group of the slot, on the caller's goroutine and in no
// order, with the group's record, or with nil for a group that has only
// offsets. An error of f ends the loading and is returned. After an error of
// any kind what f was told is void.
//
// A Slot that was loaded before for the same slot is released. Errors:
// ErrFormat with the key's name, ErrClosed, those of meta.Store, f's.
func (c *Committer) Load(ctx context.Context, slot int, owner meta.Cond, f func(group string, record []byte) error) (*Slot, error) {
	return nil, nil
}

// Close refuses new items with ErrClosed, lets those that wait finish until ctx
// ends, answers what is left with ErrClosed or ErrUnknownOutcome, and waits for
// the committer's goroutine. Nothing is answered after it returns. It must not
// be called from an answer.
func (c *Committer) Close(ctx context.Context) {}
