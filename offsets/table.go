package offsets

import (
	"bytes"
	"cmp"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/quirelog/quire/storage/meta"
)

// Slot is the committed offsets of the groups of one slot that this node owns,
// made by Committer.Load. All methods may be called from any goroutine, also
// from an answer.
//
// Commit, PutRecord, DeleteRecord, DeleteGroup, Reload and Flush queue an item. If they
// return an error the item was not queued and done is never called: ErrNotOwner,
// ErrQueueFull, ErrTooLarge, ErrClosed. Else done is called exactly once, on the
// committer's goroutine, with nil or one of the errors of this package; it must
// not block. What an answer with nil says is in the table and in the metadata
// store. Items of one slot take effect in the order in which they were queued.
type Slot struct {
	committer *Committer
	number    int
	owner     meta.Cond
	gone      atomic.Bool // released or lost
	batch     uint64      // number of the last batch that it is in; the committer's

	unreadable []Unreadable // of Load

	// The committer's goroutine alone changes groups, under mu, and reads them
	// without.
	mu     sync.RWMutex
	groups map[string]*groupTable
}

// groupTable is one group as the metadata store has it.
type groupTable struct {
	record  meta.Revision // of the record; 0: there is none
	changed bool          // by somebody else, found by a guard; until it is reloaded
	chunks  []tableChunk  // by topic and number
}

// tableChunk is one key. Its value is replaced, never changed, so that it can be
// read without the lock.
type tableChunk struct {
	value  []byte
	topic  TopicID
	number int32
}

func (c *tableChunk) compare(topic *TopicID, number int32) int {
	if d := bytes.Compare(c.topic[:], topic[:]); d != 0 {
		return d
	}
	return cmp.Compare(c.number, number)
}

// Commit queues changes of a group's offsets. They are not one unit: after an
// error some may be stored. updates belongs to the committer until done is
// called. ErrTooLarge also if the offsets of one chunk pass meta.MaxValueBytes.
func (s *Slot) Commit(group string, updates []Update, done func(error)) error {
	return s.committer.queue(item{kind: commitItem, slot: s, group: group, updates: updates, done: done})
}

// PutRecord queues the group's record, at most meta.MaxValueBytes. record is not
// changed by anyone from now on.
func (s *Slot) PutRecord(group string, record []byte, done func(error)) error {
	return s.committer.queue(item{kind: putRecordItem, slot: s, group: group, record: record, done: done})
}

// DeleteRecord queues the removal of the group's record. Its offsets stay.
func (s *Slot) DeleteRecord(group string, done func(error)) error {
	return s.committer.queue(item{kind: deleteRecordItem, slot: s, group: group, done: done})
}

// DeleteGroup queues the removal of the group's record and of all its offsets,
// in one transaction.
func (s *Slot) DeleteGroup(group string, done func(error)) error {
	return s.committer.queue(item{kind: deleteGroupItem, slot: s, group: group, done: done})
}

// Reload queues reading one group again from the metadata store, after what was
// queued before. done gets the record, nil if there is none; with an error it
// means nothing. ErrFormat is an error of Reload too.
func (s *Slot) Reload(group string, done func(record []byte, err error)) error {
	return s.committer.queue(item{kind: reloadItem, slot: s, group: group, reloaded: done})
}

// Release ends the use of the slot: the owner has lost it or hands it over.
// What waits is answered with ErrNotOwner, unless its transaction is in flight.
// It does not wait. More than once is fine.
func (s *Slot) Release() {
	if s.gone.CompareAndSwap(false, true) {
		s.committer.slotReleased(s)
	}
}

// Get returns the committed offset of a partition; false: there is none.
func (s *Slot) Get(group string, p Partition) (Offset, bool) {
	number, at := chunkOf(p.Partition)
	s.mu.RLock()
	value := s.groups[group].value(&p.Topic, number)
	s.mu.RUnlock()
	if value == nil {
		return Offset{}, false
	}
	for c := openChunk(value); c.next() && c.at <= at; {
		if c.at == at {
			return c.decoded(), true
		}
	}
	return Offset{}, false
}

// Topic yields the committed offsets of one topic as of one moment, by partition.
func (s *Slot) Topic(group string, topic TopicID) iter.Seq2[int32, Offset] {
	return func(yield func(int32, Offset) bool) {
		for p := range eachOffset(s.snapshot(group, &topic)) {
			if !yield(p.Partition.Partition, p.Offset) {
				return
			}
		}
	}
}

// Group yields all committed offsets of a group as of one moment, by topic id
// and partition.
func (s *Slot) Group(group string) iter.Seq[PartitionOffset] {
	return func(yield func(PartitionOffset) bool) {
		eachOffset(s.snapshot(group, nil))(yield)
	}
}

// HasOffsets says whether the group has any committed offset.
func (s *Slot) HasOffsets(group string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	g := s.groups[group]
	return g != nil && len(g.chunks) > 0
}

// Groups returns the groups that have committed offsets as of one moment, in no order.
func (s *Slot) Groups() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := make([]string, 0, len(s.groups))
	for name, g := range s.groups {
		if len(g.chunks) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// snapshot copies the chunks of a group, those of one topic if topic is not nil.
func (s *Slot) snapshot(group string, topic *TopicID) []tableChunk {
	s.mu.RLock()
	defer s.mu.RUnlock()
	g := s.groups[group]
	if g == nil {
		return nil
	}
	if topic == nil {
		return slices.Clone(g.chunks)
	}
	from, _ := g.find(topic, 0)
	to, _ := g.find(topic, maxChunk+1)
	return slices.Clone(g.chunks[from:to])
}

func eachOffset(chunks []tableChunk) iter.Seq[PartitionOffset] {
	return func(yield func(PartitionOffset) bool) {
		for i := range chunks {
			k := &chunks[i]
			for c := openChunk(k.value); c.next(); {
				p := Partition{Topic: k.topic, Partition: partitionAt(k.number, c.at)}
				if !yield(PartitionOffset{Partition: p, Offset: c.decoded()}) {
					return
				}
			}
		}
	}
}

// find returns where a chunk is, or where it would be.
func (g *groupTable) find(topic *TopicID, number int32) (at int, ok bool) {
	lo, hi := 0, len(g.chunks)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if g.chunks[mid].compare(topic, number) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(g.chunks) && g.chunks[lo].compare(topic, number) == 0
}

// value returns a chunk's value, nil if there is none. g may be nil.
func (g *groupTable) value(topic *TopicID, number int32) []byte {
	if g == nil {
		return nil
	}
	if at, ok := g.find(topic, number); ok {
		return g.chunks[at].value
	}
	return nil
}

// put stores a chunk's value; nil removes it.
func (g *groupTable) put(topic *TopicID, number int32, value []byte) {
	at, ok := g.find(topic, number)
	switch {
	case ok && value != nil:
		g.chunks[at].value = value
	case ok:
		g.chunks = slices.Delete(g.chunks, at, at+1)
	case value != nil:
		g.chunks = slices.Insert(g.chunks, at, tableChunk{topic: *topic, number: number, value: value})
	}
}

// groupLocked returns a group's table, made if there is none. With s.mu held.
func (s *Slot) groupLocked(name string) *groupTable {
	g := s.groups[name]
	if g == nil {
		g = &groupTable{}
		// name may be part of a whole request.
		s.groups[strings.Clone(name)] = g
	}
	return g
}

// tidyLocked forgets a group of which nothing is left. With s.mu held.
func (s *Slot) tidyLocked(name string) {
	if g := s.groups[name]; g != nil && g.record == 0 && len(g.chunks) == 0 && !g.changed {
		delete(s.groups, name)
	}
}
