package offsets

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/planted"
)

// batch is the transaction that is being put together or in flight. Its content
// does not change once it was sent: as long as it may still be executed it is
// repeated as it is, so that no two transactions with one place in the sequence
// differ.
type batch struct {
	keys    Keys
	skipFor int64 // ms, Config.SkipUnchangedFor

	// Limits of one transaction, at most those of package meta. A store that is
	// set up with lower ones makes them lower.
	limitOps, limitBytes int
	limitSpares          int

	number  uint64
	sent    bool // it may have been executed, or may be yet
	slots   []*Slot
	groups  []stagedGroup
	index   map[groupID]int32 // of groups
	targets []target
	writes  int // ops of targets that are not dropped
	bytes   int // of keys and values, conditions included
	// The transaction, once it is made, puts something, and deletes something.
	puts, deletes bool
	spares        []string // that it puts

	conds []meta.Cond
	ops   []meta.Op

	chunk chunk
	value []byte // the chunk's, while it is made
	key   []byte // a key, while it is made
}

type groupID struct {
	slot *Slot
	name string
}

// stagedGroup is a group whose guard is in the batch.
type stagedGroup struct {
	groupID
	recordKey string
	revision  meta.Revision // of the record when the batch was put together
	first     int32         // of its targets; -1: none
	deleted   bool          // by DeleteGroup
}

type targetKind uint8

const (
	chunkTarget targetKind = iota
	recordTarget
	offsetsTarget // all offsets of the group, to delete
)

// target is one key, or prefix, that the batch writes.
type target struct {
	key     string
	value   []byte // nil: delete
	topic   TopicID
	chunk   int32
	group   int32 // in groups
	next    int32 // of the same group; -1: none
	kind    targetKind
	dropped bool // superseded by the group's deletion
}

func (b *batch) init(c *Committer) {
	b.keys = c.c.Keys
	b.skipFor = c.c.SkipUnchangedFor.Milliseconds()
	b.limitOps, b.limitBytes, b.limitSpares = meta.MaxTxnOps, meta.MaxRequestBytes, maxSpares
	b.index = make(map[groupID]int32)
}

// begin empties the batch. sequenceKey is the key that every batch compares and puts.
func (b *batch) begin(sequenceKey string) {
	b.number++
	b.sent = false
	clear(b.index)
	clear(b.slots)
	clear(b.groups)
	clear(b.targets)
	b.slots, b.groups, b.targets = b.slots[:0], b.groups[:0], b.targets[:0]
	b.writes = 0
	b.bytes = 2*len(sequenceKey) + len(sequence{}.stamp)
}

// add puts what an item changes into the batch. False: it does not fit, or not
// all of it, and nothing may follow it. failed is why the item can never be executed.
func (b *batch) add(it *item) (ok bool, failed error) {
	it.staged = it.committed
	at, ok := b.group(it)
	// The deletion is of a prefix; nothing under it can be written in the same transaction.
	if !ok || b.groups[at].deleted {
		return false, nil
	}
	switch it.kind {
	case putRecordItem:
		if it.record == nil {
			return b.record(at, []byte{}), nil
		}
		return b.record(at, it.record), nil
	case deleteRecordItem:
		return b.record(at, nil), nil
	case deleteGroupItem:
		return b.deleteGroup(at), nil
	}
	return b.commit(at, it)
}

// group puts an item's guards into the batch.
func (b *batch) group(it *item) (at int32, ok bool) {
	id := groupID{it.slot, it.group}
	if at, ok = b.index[id]; ok {
		return at, true
	}
	conds := 2 + len(b.slots) + len(b.groups) + 1
	bytes := b.bytes
	newSlot := it.slot.batch != b.number
	if newSlot {
		conds++
		bytes += len(it.slot.owner.Key)
	}
	b.key = appendEscaped(b.keys.appendSlot(b.key[:0], "g/", it.slot.number), it.group)
	bytes += len(b.key)
	if conds > b.limitOps || len(b.groups) > 0 && bytes > b.limitBytes {
		return 0, false
	}
	b.bytes = bytes
	if newSlot {
		it.slot.batch = b.number
		b.slots = append(b.slots, it.slot)
	}
	g := stagedGroup{groupID: id, recordKey: string(b.key), first: -1}
	if t := it.slot.groups[it.group]; t != nil {
		g.revision = t.record
	}
	at = int32(len(b.groups))
	b.groups = append(b.groups, g)
	b.index[id] = at
	return at, true
}

// find returns the target of a group that it has for a record or chunk; -1: none.
func (b *batch) find(group int32, kind targetKind, topic *TopicID, chunk int32) int32 {
	for at := b.groups[group].first; at >= 0; at = b.targets[at].next {
		t := &b.targets[at]
		if t.kind == kind && !t.dropped && (kind != chunkTarget || t.chunk == chunk && t.topic == *topic) {
			return at
		}
	}
	return -1
}

// fits says whether so many ops and bytes more are within the limits. A batch
// without any takes what comes; the store says if it is too large.
func (b *batch) fits(writes, bytes int) bool {
	return b.writes == 0 || 1+b.writes+writes <= b.limitOps && b.bytes+bytes <= b.limitBytes
}

func (b *batch) push(t target) {
	g := &b.groups[t.group]
	t.next = g.first
	g.first = int32(len(b.targets))
	b.targets = append(b.targets, t)
	b.writes++
	b.bytes += len(t.key) + len(t.value)
}

// replace gives a target another value.
func (b *batch) replace(at int32, value []byte) {
	t := &b.targets[at]
	b.bytes += len(value) - len(t.value)
	t.value = value
}

// record stages the group's record; nil deletes it.
func (b *batch) record(group int32, value []byte) bool {
	g := &b.groups[group]
	if at := b.find(group, recordTarget, nil, 0); at >= 0 {
		if !b.fits(0, len(value)-len(b.targets[at].value)) {
			return false
		}
		b.replace(at, value)
		return true
	}
	if value == nil && g.revision == 0 {
		return true
	}
	if !b.fits(1, len(g.recordKey)+len(value)) {
		return false
	}
	b.push(target{kind: recordTarget, group: group, key: g.recordKey, value: value})
	return true
}

// deleteGroup stages the end of a group. It supersedes what the batch writes for
// the group, whose items are answered by it.
func (b *batch) deleteGroup(group int32) bool {
	g := &b.groups[group]
	key := b.keys.GroupOffsets(g.slot.number, g.name)
	if !b.fits(2, len(key)+len(g.recordKey)) {
		return false
	}
	for at := g.first; at >= 0; at = b.targets[at].next {
		t := &b.targets[at]
		t.dropped = true
		b.writes--
		b.bytes -= len(t.key) + len(t.value)
	}
	b.push(target{kind: offsetsTarget, group: group, key: key})
	b.push(target{kind: recordTarget, group: group, key: g.recordKey})
	b.groups[group].deleted = true
	return true
}

// commit stages the updates of an item, chunk by chunk. Each is carried out on
// what the batch has for the chunk, else on what the table has: nothing else is
// on its way.
func (b *batch) commit(group int32, it *item) (ok bool, failed error) {
	for it.staged < len(it.updates) {
		first := &it.updates[it.staged]
		number, _ := chunkOf(first.Partition.Partition)
		at := b.find(group, chunkTarget, &first.Topic, number)
		var before []byte
		if at >= 0 {
			before = b.targets[at].value
		} else {
			before = it.slot.groups[it.group].value(&first.Topic, number)
		}
		value, changed, n := b.merge(before, it.updates[it.staged:], first.Topic, number)
		if len(value) > meta.MaxValueBytes {
			return true, fmt.Errorf("%w: the offsets of group %q for partitions %d to %d of a topic take %d bytes, at most %d: commit less metadata",
				ErrTooLarge, it.group, partitionAt(number, 0), partitionAt(number, PartitionsPerChunk-1), len(value), meta.MaxValueBytes)
		}
		if changed && !b.chunkValue(group, at, &first.Topic, number, value) {
			return false, nil
		}
		it.staged += n
	}
	return true, nil
}

// merge carries out the first n updates, those of one chunk, on its value. The
// new value, nil if no offset is left, is valid until the next call.
func (b *batch) merge(before []byte, updates []Update, topic TopicID, number int32) (value []byte, changed bool, n int) {
	b.chunk.open(before)
	for n < len(updates) {
		u := &updates[n]
		chunk, at := chunkOf(u.Partition.Partition)
		if chunk != number || u.Topic != topic {
			break
		}
		changed = b.chunk.update(at, u, b.skipFor) || changed
		n++
	}
	if !changed {
		return nil, false, n
	}
	b.value = b.chunk.append(b.value[:0])
	if len(b.value) == 0 {
		return nil, true, n
	}
	return b.value, true, n
}

// chunkValue stages a copy of a chunk's value; nil deletes it. at is its target, -1: none yet.
func (b *batch) chunkValue(group, at int32, topic *TopicID, number int32, value []byte) bool {
	if at >= 0 {
		if !b.fits(0, len(value)-len(b.targets[at].value)) {
			return false
		}
		b.replace(at, slices.Clone(value))
		return true
	}
	b.key = appendEscaped(b.keys.appendSlot(b.key[:0], "o/", b.groups[group].slot.number), b.groups[group].name)
	b.key = appendChunk(append(b.key, '/'), topic, number)
	if !b.fits(1, len(b.key)+len(value)) {
		return false
	}
	b.push(target{kind: chunkTarget, group: group, key: string(b.key), topic: *topic, chunk: number, value: slices.Clone(value)})
	return true
}

// finish makes the transaction. A batch that writes nothing only compares.
func (b *batch) finish(s *sequence) {
	b.conds = append(b.conds[:0], meta.Cond{Key: s.key, Modified: s.revision})
	if len(s.spares) > 0 {
		b.conds = append(b.conds, meta.Cond{Key: s.spares[0].key, Modified: s.spares[0].revision})
	}
	if !planted.Is(planted.UnguardedCommits) {
		for _, slot := range b.slots {
			b.conds = append(b.conds, slot.owner)
		}
		for i := range b.groups {
			b.conds = append(b.conds, meta.Cond{Key: b.groups[i].recordKey, Modified: b.groups[i].revision})
		}
	}
	clear(b.ops)
	b.ops, b.spares = b.ops[:0], nil
	b.puts, b.deletes = false, false
	for i := range b.targets {
		if t := &b.targets[i]; !t.dropped {
			b.puts = b.puts || t.value != nil
			b.deletes = b.deletes || t.value == nil
		}
	}
	b.puts = b.puts || b.deletes && len(s.spares) == 0
	switch {
	case b.puts:
		binary.BigEndian.PutUint64(s.stamp[16:], b.number)
		b.ops = append(b.ops, meta.Put(s.key, slices.Clone(s.stamp[:])))
	case b.deletes:
		b.ops = append(b.ops, meta.Delete(s.spares[0].key))
	}
	for i := range b.targets {
		t := &b.targets[i]
		switch {
		case t.dropped:
		case t.value != nil:
			b.ops = append(b.ops, meta.Put(t.key, t.value))
		default:
			b.ops = append(b.ops, meta.Op{Key: t.key, Delete: true, Prefix: t.kind == offsetsTarget})
		}
	}
	if b.puts && len(s.spares) < maxSpares/2 {
		for len(s.spares)+len(b.spares) < maxSpares && len(b.ops) < b.limitOps && len(b.spares) < b.limitSpares {
			s.made++
			key := fmt.Sprintf("%s/%x-%d", s.key, s.stamp[:8], s.made)
			b.spares = append(b.spares, key)
			b.ops = append(b.ops, meta.Put(key, nil))
		}
	}
}

// apply brings the tables to what the transaction, executed at revision, left
// in the store.
func (b *batch) apply(revision meta.Revision) {
	for i := range b.targets {
		t := &b.targets[i]
		if t.dropped {
			continue
		}
		id := &b.groups[t.group].groupID
		s := id.slot
		s.mu.Lock()
		g := s.groupLocked(id.name)
		switch {
		case t.kind == chunkTarget:
			g.put(&t.topic, t.chunk, t.value)
		case t.kind == offsetsTarget:
			g.chunks = nil
		case t.value != nil:
			g.record = revision
		default:
			g.record = 0
		}
		s.tidyLocked(id.name)
		s.mu.Unlock()
	}
}

// shrink lowers the limits after the store found the batch too large; false if
// it is a single write already.
func (b *batch) shrink() bool {
	switch {
	case len(b.spares) > 0:
		b.limitSpares = len(b.spares) / 2
		return true
	case b.writes <= 1 && len(b.groups) <= 1:
		return false
	}
	// One write of one group needs four conditions, the deletion of a group three operations.
	b.limitOps = max(4, max(len(b.conds), len(b.ops))/2)
	b.limitBytes = b.bytes / 2
	return true
}
