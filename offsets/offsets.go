package offsets

import (
	"errors"
)

// TopicID is a topic's id (KIP-516). Offsets are kept by id and not by name, so
// that a topic made again under the same name does not inherit them.
type TopicID = [16]byte

// Offset is what a group has committed for one partition.
type Offset struct {
	Offset      int64  // of the next record to consume, as the client sent it
	CommitTime  int64  // ms since 1970
	ExpireTime  int64  // ms since 1970, by the client's own retention (OffsetCommit v2 to v4); NoExpireTime: by the server's
	LeaderEpoch int32  // of the last record consumed; -1: not known (KIP-320)
	Metadata    string // the client's note
}

// NoExpireTime is the ExpireTime of an offset that has no retention of its own.
const NoExpireTime = -1

// Partition names a partition of a topic.
type Partition struct {
	Topic     TopicID
	Partition int32 // from 0
}

// PartitionOffset is a partition with its committed offset.
type PartitionOffset struct {
	Partition
	Offset
}

// Action is what an Update does.
type Action uint8

const (
	// Set makes Offset the committed offset of the partition.
	Set Action = iota
	// Remove removes the partition's offset, if there is one.
	Remove
	// RemoveIfUnchanged removes the partition's offset if it equals Offset when
	// its turn in the queue comes. It is how offsets expire without taking a
	// commit with them that came meanwhile.
	RemoveIfUnchanged
)

// Update is one change of one partition's committed offset.
type Update struct {
	PartitionOffset
	Action Action
}

var (
	// ErrNotOwner: this node does not own the slot any more, or Release was
	// called. Nothing of the item is stored by this node after this answer.
	// Kafka's NOT_COORDINATOR.
	ErrNotOwner = errors.New("slot is not owned by this node")
	// ErrGroupChanged: the group's record in the metadata store is not the one
	// that this node wrote or loaded, although it owns the slot. Reload the
	// group. Retriable.
	ErrGroupChanged = errors.New("group was changed behind its coordinator")
	// ErrUnavailable: the metadata store did not execute the item within
	// CommitTimeout. It is not stored. Retriable.
	ErrUnavailable = errors.New("metadata store did not commit in time")
	// ErrUnknownOutcome: the metadata store did not answer within CommitTimeout.
	// The item may be stored now or later, or never. Retriable: to commit again
	// is right in each case.
	ErrUnknownOutcome = errors.New("outcome of the commit is not known")
	// ErrNoSpace: the metadata store's quota is used up. It is not stored. Retriable.
	ErrNoSpace = errors.New("metadata store has no space for the commit")
	// ErrTooLarge: a value would be larger than the metadata store takes, or the
	// item than a queue takes. Not retriable.
	ErrTooLarge = errors.New("commit is too large")
	// ErrQueueFull: more waits for the metadata store than MaxQueuedItems or
	// MaxQueuedBytes. Nothing of the item is stored. Retriable.
	ErrQueueFull = errors.New("too many commits wait for the metadata store")
	// ErrClosed: the committer was closed. Retriable, elsewhere.
	ErrClosed = errors.New("committer is closed")
	// ErrFormat: a key or value in the metadata store is not readable.
	ErrFormat = errors.New("stored offsets are not readable")
)
