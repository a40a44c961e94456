package storage

import (
	"encoding/binary"
	"fmt"
)

// The body of a snapshot, in varints as encoding/binary has them:
//
//	version   u8 = 1
//	length    of the state section
//	state     count of producers, the longest silent first; each: id, epoch,
//	          coordinator epoch, first offset of the open transaction + 1, last timestamp,
//	          wall clock of the last append, count of batches; each: first and
//	          last sequence, offset, count of offsets, timestamp
//	ledger    bytes before this entry; the index: bytes between rows, bytes
//	          since the last row, largest timestamp, count of rows, rows as differences;
//	          aborted transactions whose marker lies here: count; each: producer,
//	          first offset, offset of the marker
//
// The state is that of the log, the rest that of the ledger so far: the last
// snapshot and the entries after it are all that opening a log has to read.
const snapshotVersion = 1

// A snapshot is one entry, and some tiers take only short ones. These are above
// what one producer and one aborted transaction may come to; half of an entry is for
// producers, a quarter for transactions, and the index has the rest.
const (
	maxProducerBytes = 2 * (6*10 + 5*5*10)
	maxAbortedBytes  = 4 * 30
)

// snapshotShare bounds what snapshots add to a ledger: the next one is due after
// so many times the bytes of the last one, whatever SnapshotEveryBytes says.
const snapshotShare = 8

// snapshot is a decoded snapshot.
type snapshot struct {
	producers *producerTable
	bytes     int64
	index     index
	aborted   []abortedTxn
}

// encodeState writes the state section; nil if there is no state.
func encodeState(t *producerTable) []byte {
	if t.len() == 0 {
		return nil
	}
	known := 0
	for p := t.oldest; p != nil; p = p.newer {
		if p.epoch != noEpoch {
			known++
		}
	}
	if known == 0 {
		return nil
	}
	b := make([]byte, 0, 16+known*64)
	b = binary.AppendUvarint(b, uint64(known))
	for p := t.oldest; p != nil; p = p.newer {
		if p.epoch == noEpoch {
			continue // nothing of it is stored
		}
		b = binary.AppendVarint(b, p.id)
		b = binary.AppendVarint(b, int64(p.epoch))
		b = binary.AppendVarint(b, int64(p.coordinatorEpoch))
		b = binary.AppendUvarint(b, uint64(p.txnFirst+1))
		b = binary.AppendVarint(b, p.lastTimestamp)
		b = binary.AppendVarint(b, p.seen)
		b = binary.AppendUvarint(b, uint64(p.n))
		for i := range p.batches[:p.n] {
			m := &p.batches[i]
			b = binary.AppendVarint(b, int64(m.firstSequence))
			b = binary.AppendVarint(b, int64(m.lastSequence))
			b = binary.AppendUvarint(b, uint64(m.offset))
			b = binary.AppendUvarint(b, uint64(m.lastOffset-m.offset))
			b = binary.AppendVarint(b, m.timestamp)
		}
	}
	return b
}

// encodeSnapshot joins a state section and what the ledger holds.
func encodeSnapshot(state []byte, bytes int64, x *index, aborted []abortedTxn) []byte {
	b := make([]byte, 0, 64+len(state)+len(x.rows)*12+len(aborted)*12)
	b = append(b, snapshotVersion)
	b = binary.AppendUvarint(b, uint64(len(state)))
	b = append(b, state...)
	b = binary.AppendUvarint(b, uint64(bytes))
	b = binary.AppendUvarint(b, uint64(x.every))
	b = binary.AppendUvarint(b, uint64(x.since))
	b = binary.AppendVarint(b, x.max)
	b = binary.AppendUvarint(b, uint64(len(x.rows)))
	var last indexRow
	for _, r := range x.rows {
		b = binary.AppendUvarint(b, uint64(r.entry-last.entry))
		b = binary.AppendUvarint(b, uint64(r.offset-last.offset))
		b = binary.AppendVarint(b, r.before-last.before)
		last = r
	}
	b = binary.AppendUvarint(b, uint64(len(aborted)))
	for _, t := range aborted {
		b = binary.AppendVarint(b, t.producer)
		b = binary.AppendUvarint(b, uint64(t.first))
		b = binary.AppendUvarint(b, uint64(t.last-t.first))
	}
	return b
}

// decodeSnapshot reads the body of a snapshot. The errors are ErrCorrupt.
func decodeSnapshot(body []byte) (*snapshot, error) {
	if len(body) == 0 || body[0] != snapshotVersion {
		return nil, fmt.Errorf("%w: a snapshot of unknown version", ErrCorrupt)
	}
	d := varints{b: body[1:]}
	state := varints{b: d.bytes(d.count(1))}
	s := &snapshot{producers: state.producers()}
	s.bytes = d.offset()
	s.index.every, s.index.since, s.index.max = d.offset(), d.offset(), d.signed()
	if n := d.count(3); n > 0 {
		s.index.rows = make([]indexRow, n)
		var last indexRow
		for i := range s.index.rows {
			last.entry += d.offset()
			last.offset += d.offset()
			last.before += d.signed()
			s.index.rows[i] = last
		}
	}
	if n := d.count(3); n > 0 {
		s.aborted = make([]abortedTxn, n)
		for i := range s.aborted {
			t := &s.aborted[i]
			t.producer = d.signed()
			t.first = d.offset()
			t.last = t.first + d.offset()
		}
	}
	if d.bad || state.bad || len(d.b) > 0 || len(state.b) > 0 || len(s.index.rows) > maxIndexRows || s.index.every <= 0 {
		return nil, fmt.Errorf("%w: a malformed snapshot of %d bytes", ErrCorrupt, len(body))
	}
	return s, nil
}

// producers reads the state section.
func (d *varints) producers() *producerTable {
	if len(d.b) == 0 {
		return nil
	}
	n := d.count(7)
	t := &producerTable{byID: make(map[int64]*producer, n)}
	for range n {
		p := &producer{id: d.signed()}
		p.epoch = int16(d.signed())
		p.coordinatorEpoch = int32(d.signed())
		p.txnFirst = d.offset() - 1
		p.lastTimestamp = d.signed()
		p.seen = d.signed()
		k := d.count(5)
		if k > batchesKept || d.bad || t.byID[p.id] != nil {
			d.bad = true
			return nil
		}
		p.n = int8(k)
		for i := range p.batches[:k] {
			m := &p.batches[i]
			m.firstSequence = int32(d.signed())
			m.lastSequence = int32(d.signed())
			m.offset = d.offset()
			m.lastOffset = m.offset + d.offset()
			m.timestamp = d.signed()
		}
		t.byID[p.id] = p
		t.pushNewest(p)
	}
	return t
}

// varints reads what binary.AppendUvarint and AppendVarint wrote. After bytes
// that cannot be read it returns zeros and bad is set.
type varints struct {
	b   []byte
	bad bool
}

func (d *varints) unsigned() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *varints) signed() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// offset reads a number that is not negative.
func (d *varints) offset() int64 {
	v := int64(d.unsigned())
	if v < 0 {
		d.bad = true
		return 0
	}
	return v
}

// count reads how many elements of at least min bytes follow, which bounds what
// the caller allocates.
func (d *varints) count(min int) int {
	v := d.unsigned()
	if v > uint64(len(d.b)/min) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(v)
}

func (d *varints) bytes(n int) []byte {
	if n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}
