package offsets

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// A chunk's value is
//
//	version   1 byte, chunkVersion
//	entries   at least one, by partition
//
// and an entry is
//
//	uvarint   (partitions left out since the entry before) << 2 | flags
//	varint    offset
//	varint    leader epoch
//	varint    commit time less that of the entry before; the first has it in full
//	varint    expire time less commit time, if flag hasExpireTime
//	uvarint   length of the metadata, then its bytes, if flag hasMetadata
//
// with the varints of encoding/binary. Partitions committed together have the
// same commit time, so an entry takes about 8 bytes. A chunk without entries is
// a key that does not exist.
const (
	chunkVersion = 1

	hasExpireTime = 1 << 0
	hasMetadata   = 1 << 1
	flagBits      = 2
)

// entry is one offset of a chunk. metadata may share memory with the chunk.
type entry struct {
	offset, commitTime, expireTime int64
	leaderEpoch                    int32
	metadata                       []byte
}

func (e *entry) decoded() Offset {
	return Offset{Offset: e.offset, CommitTime: e.commitTime, ExpireTime: e.expireTime, LeaderEpoch: e.leaderEpoch, Metadata: string(e.metadata)}
}

// equals says whether an offset is the same in all but the commit time.
func (e *entry) equals(o *Offset) bool {
	return e.offset == o.Offset && e.expireTime == o.ExpireTime && e.leaderEpoch == o.LeaderEpoch && string(e.metadata) == o.Metadata
}

// cursor reads the entries of a chunk one after the other.
type cursor struct {
	rest []byte
	at   int // of the last entry, 0 to PartitionsPerChunk-1
	entry
	bad string // why next ended early
}

// openChunk begins to read a chunk.
func openChunk(value []byte) cursor {
	c := cursor{at: -1}
	switch {
	case len(value) == 0:
		c.bad = "empty value"
	case value[0] != chunkVersion:
		c.bad = fmt.Sprintf("format version %d, this program knows %d", value[0], chunkVersion)
	case len(value) == 1:
		c.bad = "no entries"
	default:
		c.rest = value[1:]
	}
	return c
}

// next moves to the next entry, false at the end or if bad says why not.
func (c *cursor) next() bool {
	if len(c.rest) == 0 {
		return false
	}
	head := c.uvarint()
	gap := head >> flagBits
	if c.bad == "" && gap >= uint64(PartitionsPerChunk-1-c.at) {
		c.bad = "a partition beyond the chunk"
	}
	c.at += 1 + int(gap)
	c.offset = c.varint()
	epoch := c.varint()
	if c.bad == "" && (epoch < math.MinInt32 || epoch > math.MaxInt32) {
		c.bad = "a leader epoch of more than 32 bits"
	}
	c.leaderEpoch = int32(epoch)
	c.commitTime += c.varint()
	c.expireTime = NoExpireTime
	if head&hasExpireTime != 0 {
		c.expireTime = c.commitTime + c.varint()
	}
	c.metadata = nil
	if head&hasMetadata != 0 {
		c.metadata = c.bytes()
	}
	if c.bad != "" {
		c.rest = nil
		return false
	}
	return true
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.rest)
	c.skip(n)
	return v
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.rest)
	c.skip(n)
	return v
}

func (c *cursor) skip(n int) {
	if n <= 0 {
		c.fail("an entry is cut off")
		return
	}
	c.rest = c.rest[n:]
}

func (c *cursor) bytes() []byte {
	n := c.uvarint()
	if n > uint64(len(c.rest)) {
		c.fail("metadata is cut off")
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) fail(why string) {
	if c.bad == "" {
		c.bad = why
	}
	c.rest = nil
}

// checkChunk says whether every entry of a stored value is readable.
func checkChunk(value []byte) error {
	c := openChunk(value)
	for c.next() {
	}
	if c.bad != "" {
		return fmt.Errorf("%w: %s", ErrFormat, c.bad)
	}
	return nil
}

// chunk is an opened chunk, to change it. It is used again and again.
type chunk struct {
	present [PartitionsPerChunk / 64]uint64
	entries [PartitionsPerChunk]entry
	strings []byte // metadata of what was set
}

// open reads a value that checkChunk accepts; nil is the chunk without entries.
func (k *chunk) open(value []byte) {
	k.present = [len(k.present)]uint64{}
	k.strings = k.strings[:0]
	if value == nil {
		return
	}
	c := openChunk(value)
	for c.next() {
		k.entries[c.at] = c.entry
		k.mark(c.at)
	}
}

func (k *chunk) has(at int) bool { return k.present[at/64]&(1<<(at%64)) != 0 }
func (k *chunk) mark(at int)     { k.present[at/64] |= 1 << (at % 64) }
func (k *chunk) remove(at int)   { k.present[at/64] &^= 1 << (at % 64) }

func (k *chunk) set(at int, o *Offset) {
	k.strings = append(k.strings, o.Metadata...)
	// An earlier metadata stays where it is when strings moves.
	k.entries[at] = entry{
		offset: o.Offset, commitTime: o.CommitTime, expireTime: o.ExpireTime, leaderEpoch: o.LeaderEpoch,
		metadata: k.strings[len(k.strings)-len(o.Metadata):],
	}
	k.mark(at)
}

// update carries out one update and says whether it changed anything. A Set of
// what is there already, committed less than skipFor ms before, does not.
func (k *chunk) update(at int, u *Update, skipFor int64) bool {
	e := &k.entries[at]
	switch {
	case u.Action == Set:
		if k.has(at) && e.equals(&u.Offset) {
			if age := u.CommitTime - e.commitTime; age >= 0 && age < skipFor {
				return false
			}
		}
		k.set(at, &u.Offset)
	case !k.has(at):
		return false
	case u.Action == RemoveIfUnchanged && !(e.equals(&u.Offset) && e.commitTime == u.CommitTime):
		return false
	default:
		k.remove(at)
	}
	return true
}

// append appends the chunk's value to dst; nothing if it has no entries.
func (k *chunk) append(dst []byte) []byte {
	last, time := -1, int64(0)
	for word, present := range k.present {
		for ; present != 0; present &= present - 1 {
			at := word*64 + bits.TrailingZeros64(present)
			if last < 0 {
				dst = append(dst, chunkVersion)
			}
			e := &k.entries[at]
			head := uint64(at-last-1) << flagBits
			if e.expireTime != NoExpireTime {
				head |= hasExpireTime
			}
			if len(e.metadata) > 0 {
				head |= hasMetadata
			}
			dst = binary.AppendUvarint(dst, head)
			dst = binary.AppendVarint(dst, e.offset)
			dst = binary.AppendVarint(dst, int64(e.leaderEpoch))
			dst = binary.AppendVarint(dst, e.commitTime-time)
			if head&hasExpireTime != 0 {
				dst = binary.AppendVarint(dst, e.expireTime-e.commitTime)
			}
			if head&hasMetadata != 0 {
				dst = append(binary.AppendUvarint(dst, uint64(len(e.metadata))), e.metadata...)
			}
			last, time = at, e.commitTime
		}
	}
	return dst
}
