package offsets

import "iter"

// Slot is the committed offsets of the groups of one slot that this node owns,
// made by Committer.Load. All methods may be called from any goroutine, also
// from an answer.
//
// Commit, PutRecord, DeleteGroup and Reload queue an item. If they return an
// error the item was not queued and done is never called: ErrNotOwner,
// ErrQueueFull, ErrTooLarge, ErrClosed. Else done is called exactly once, on the
// committer's goroutine, with nil or one of the errors of this package; it must
// not block. What an answer with nil says is in the table and in the metadata
// store. Items of one slot take effect in the order in which they were queued.
type Slot struct{}

// Commit queues changes of a group's offsets. They are not one unit: after an
// error some may be stored. updates belongs to the committer until done is
// called. ErrTooLarge also if the offsets of one chunk pass meta.MaxValueBytes.
func (s *Slot) Commit(group string, updates []Update, done func(error)) error { return nil }

// PutRecord queues the group's record, at most MaxRecordBytes. record is not
// changed by anyone from now on.
func (s *Slot) PutRecord(group string, record []byte, done func(error)) error { return nil }

// DeleteRecord queues the removal of the group's record. Its offsets stay.
func (s *Slot) DeleteRecord(group string, done func(error)) error { return nil }

// DeleteGroup queues the removal of the group's record and of all its offsets,
// in one transaction.
func (s *Slot) DeleteGroup(group string, done func(error)) error { return nil }

// Reload queues reading one group again from the metadata store, after what was
// queued before. done gets the record, nil if there is none; with an error it
// means nothing.
func (s *Slot) Reload(group string, done func(record []byte, err error)) error { return nil }

// Release ends the use of the slot: the owner has lost it or hands it over.
// What waits is answered with ErrNotOwner, unless its transaction is in flight.
// It does not wait. More than once is fine.
func (s *Slot) Release() {}

// Get returns the committed offset of a partition; false: there is none.
func (s *Slot) Get(group string, p Partition) (Offset, bool) { return Offset{}, false }

// Topic yields the committed offsets of one topic as of one moment, by partition.
func (s *Slot) Topic(group string, topic TopicID) iter.Seq2[int32, Offset] { return nil }

// Group yields all committed offsets of a group as of one moment, by topic id
// and partition.
func (s *Slot) Group(group string) iter.Seq[PartitionOffset] { return nil }

// HasOffsets says whether the group has any committed offset.
func (s *Slot) HasOffsets(group string) bool { return false }
