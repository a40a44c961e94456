package storage

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/quirelog/quire/protocol/batch"
)

// openTxn is a transaction whose end no reader may see yet.
type openTxn struct {
	producer int64
	first    int64 // offset of its first record
	marker   int64 // offset of the marker that ends it and is not durable yet, -1 if there is none
}

// abortedTxn is an aborted transaction; the ledger with its marker keeps it.
type abortedTxn struct {
	producer int64
	first    int64 // offset of its first record
	last     int64 // offset of its marker
}

// marker is what a control batch says (EndTransactionMarker).
type marker struct {
	commit           bool
	coordinatorEpoch int32
}

// decodeMarker reads a control batch. ok is false for a control record that
// ends no transaction, which readers ignore.
func decodeMarker(b batch.Batch) (m marker, ok bool, err error) {
	it := b.IterateStored(b.Records())
	var r batch.Record
	if !it.Next(&r) {
		if err := it.Err(); err != nil {
			return m, false, err
		}
		return m, false, nil // emptied by compaction
	}
	if len(r.Key) < 4 {
		return m, false, fmt.Errorf("%w: a control record with a key of %d bytes", batch.ErrInvalid, len(r.Key))
	}
	kind := binary.BigEndian.Uint16(r.Key[2:])
	if kind > 1 {
		return m, false, nil
	}
	if len(r.Value) < 6 {
		return m, false, fmt.Errorf("%w: a transaction marker of %d bytes", batch.ErrInvalid, len(r.Value))
	}
	return marker{commit: kind == 1, coordinatorEpoch: int32(binary.BigEndian.Uint32(r.Value[2:]))}, true, nil
}

// checkMarker says whether a marker of the producer epoch may be written.
func (s *producerState) checkMarker(producer int64, epoch int16, m marker) error {
	if epoch < s.epoch {
		return fmt.Errorf("%w: marker for epoch %d of producer %d, the log knows %d", ErrProducerEpoch, epoch, producer, s.epoch)
	}
	if m.coordinatorEpoch < s.coordinatorEpoch {
		return fmt.Errorf("%w: marker of coordinator epoch %d, the log knows %d", ErrCoordinatorFenced, m.coordinatorEpoch, s.coordinatorEpoch)
	}
	return nil
}

// applyMarker notes a stored marker and returns the first offset of the
// transaction that it ends, -1 if the producer had none.
func (s *producerState) applyMarker(epoch int16, m marker, timestamp, now int64) (first int64) {
	first = s.txnFirst
	s.setEpoch(epoch)
	s.txnFirst = -1
	s.coordinatorEpoch = m.coordinatorEpoch
	s.lastTimestamp, s.seen = timestamp, now
	return first
}

// lastStable returns the last stable offset. l.mu is held.
func (l *Log) lastStable() int64 {
	if len(l.txns) > 0 {
		return min(l.hw, l.txns[0].first)
	}
	return l.hw
}

// decideTxn notes that the marker at offset ends the transaction that began at first.
func (l *Log) decideTxn(first, offset int64) {
	for i := range l.txns {
		if l.txns[i].first == first {
			l.txns[i].marker = offset
			return
		}
	}
}

// endTxn forgets the transaction whose marker at offset is durable.
func (l *Log) endTxn(offset int64) {
	l.txns = slices.DeleteFunc(l.txns, func(t openTxn) bool { return t.marker == offset })
}
