package storage

import (
	"fmt"
	"math"

	"github.com/quirelog/quire/protocol/batch"
)

// batchesKept is how many batches of a producer are remembered: as many as an
// idempotent producer has in flight (max.in.flight.requests.per.connection).
const batchesKept = 5

const noEpoch int16 = -1

// batchMeta is what is remembered of a stored batch.
type batchMeta struct {
	firstSequence int32
	lastSequence  int32
	offset        int64 // of the first record
	lastOffset    int64
	timestamp     int64 // the batch's max timestamp, ms
}

// producerState is what a log knows of an idempotent producer, appends on
// their way included (ProducerStateEntry).
type producerState struct {
	epoch            int16
	n                int8 // batches kept
	coordinatorEpoch int32
	txnFirst         int64 // first offset of the open transaction, -1: none
	lastTimestamp    int64 // of the last batch or marker, ms
	seen             int64 // wall clock of the last append, ms
	expected         expectation
	batches          [batchesKept]batchMeta
}

// expectation is the first batch that a producer sent and that was not stored,
// if nothing is known of the producer otherwise. Any sequence is taken from an
// unknown producer, so without it what the producer has sent behind that
// batch would get in its place, and the batch itself could never be stored.
type expectation struct {
	set      bool
	epoch    int16
	sequence int32
}

var unknownProducer = producerState{epoch: noEpoch, coordinatorEpoch: -1, txnFirst: -1, lastTimestamp: noTimestamp}

func (s *producerState) last() *batchMeta {
	if s.n == 0 {
		return nil
	}
	return &s.batches[s.n-1]
}

func (s *producerState) push(m batchMeta) {
	if s.n == batchesKept {
		copy(s.batches[:], s.batches[1:])
		s.n--
	}
	s.batches[s.n] = m
	s.n++
}

// setEpoch moves to a producer epoch; the batches of the old one are forgotten.
func (s *producerState) setEpoch(epoch int16) {
	if s.epoch != epoch {
		s.epoch = epoch
		s.n = 0
	}
}

// duplicate returns the remembered batch with exactly b's epoch and sequence
// numbers, nil if there is none.
func (s *producerState) duplicate(b batch.Batch) *batchMeta {
	if b.ProducerEpoch() != s.epoch {
		return nil
	}
	first, last := b.BaseSequence(), b.LastSequence()
	for i := range s.batches[:s.n] {
		if m := &s.batches[i]; m.firstSequence == first && m.lastSequence == last {
			return m
		}
	}
	return nil
}

// check says whether b may follow what is known (ProducerAppendInfo).
func (s *producerState) check(b batch.Batch) error {
	epoch, first := b.ProducerEpoch(), b.BaseSequence()
	switch {
	case epoch < s.epoch:
		return fmt.Errorf("%w: producer %d has epoch %d, the log knows %d", ErrProducerEpoch, b.ProducerID(), epoch, s.epoch)
	case s.epoch == noEpoch:
		// Nothing is known of the producer, perhaps because retention took
		// its batches: any sequence will do (KIP-360).
		if x := s.expected; x.set && x.epoch == epoch && x.sequence != first {
			return fmt.Errorf("%w: producer %d sends sequence %d where %d was refused before", ErrOutOfSequence, b.ProducerID(), first, x.sequence)
		}
	case epoch != s.epoch:
		if first != 0 {
			return fmt.Errorf("%w: producer %d begins epoch %d with sequence %d", ErrOutOfSequence, b.ProducerID(), epoch, first)
		}
	default:
		last := int32(-1)
		if m := s.last(); m != nil {
			last = m.lastSequence
		}
		if int64(first) != int64(last)+1 && !(first == 0 && last == math.MaxInt32) {
			return fmt.Errorf("%w: producer %d sends sequence %d after %d", ErrOutOfSequence, b.ProducerID(), first, last)
		}
	}
	if s.txnFirst >= 0 && !b.Transactional() {
		return fmt.Errorf("%w: producer %d has an open transaction and sends a batch outside of it", ErrTxnState, b.ProducerID())
	}
	return nil
}

// apply notes the data batch b, stored at its offset.
func (s *producerState) apply(b batch.Batch, now int64) (opensTxn bool) {
	s.setEpoch(b.ProducerEpoch())
	s.expected = expectation{}
	s.push(batchMeta{
		firstSequence: b.BaseSequence(), lastSequence: b.LastSequence(),
		offset: b.BaseOffset(), lastOffset: b.LastOffset(), timestamp: b.MaxTimestamp(),
	})
	s.lastTimestamp, s.seen = b.MaxTimestamp(), now
	if b.Transactional() && s.txnFirst < 0 {
		s.txnFirst = b.BaseOffset()
		return true
	}
	return false
}

// producer is a producerState in the table.
type producer struct {
	id           int64
	older, newer *producer // by last append
	producerState
}

// producerTable holds the producers of one log, the longest silent first.
type producerTable struct {
	byID           map[int64]*producer
	oldest, newest *producer
	forgot         bool // some were forgotten since the log was opened
}

func (t *producerTable) get(id int64) *producer {
	if t == nil {
		return nil
	}
	return t.byID[id]
}

func (t *producerTable) len() int {
	if t == nil {
		return 0
	}
	return len(t.byID)
}

// add puts in a producer of which nothing is known. If there are max already,
// the longest silent one without an open transaction is forgotten.
func (t *producerTable) add(id int64, max int) *producer {
	if len(t.byID) >= max {
		// Producers with open transactions are few or the log is stuck
		// anyway; looking at some bounds the work of one append.
		p := t.oldest
		for i := 0; p != nil && p.txnFirst >= 0 && i < 16; i++ {
			p = p.newer
		}
		if p != nil {
			t.remove(p)
			t.forgot = true
		}
	}
	p := &producer{id: id, producerState: unknownProducer}
	if t.byID == nil {
		t.byID = make(map[int64]*producer)
	}
	t.byID[id] = p
	t.pushNewest(p)
	return p
}

func (t *producerTable) pushNewest(p *producer) {
	p.older, p.newer = t.newest, nil
	if t.newest != nil {
		t.newest.newer = p
	} else {
		t.oldest = p
	}
	t.newest = p
}

func (t *producerTable) unlink(p *producer) {
	if p.older != nil {
		p.older.newer = p.newer
	} else {
		t.oldest = p.newer
	}
	if p.newer != nil {
		p.newer.older = p.older
	} else {
		t.newest = p.older
	}
	p.older, p.newer = nil, nil
}

// touch makes p the last to have appended.
func (t *producerTable) touch(p *producer) {
	if t.newest != p {
		t.unlink(p)
		t.pushNewest(p)
	}
}

// remove forgets p; nothing happens if it is forgotten already.
func (t *producerTable) remove(p *producer) {
	if t.byID[p.id] != p {
		return
	}
	delete(t.byID, p.id)
	t.unlink(p)
}

// expect notes that b, of a producer of which nothing is known, was not stored.
func (t *producerTable) expect(b batch.Batch, now int64, max int) {
	if t.byID[b.ProducerID()] != nil {
		return
	}
	p := t.add(b.ProducerID(), max)
	p.seen = now
	p.expected = expectation{set: true, epoch: b.ProducerEpoch(), sequence: b.BaseSequence()}
}

// expire forgets the producers that were last seen before the time, in ms,
// unless they have an open transaction.
func (t *producerTable) expire(before int64) {
	for p := t.oldest; p != nil && p.seen < before; {
		next := p.newer
		if p.txnFirst < 0 {
			t.remove(p)
			t.forgot = true
		}
		p = next
	}
}

// Producers lists the producers whose state the log keeps.
func (l *Log) Producers() []ActiveProducer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.producers == nil {
		return nil
	}
	out := make([]ActiveProducer, 0, l.producers.len())
	for p := l.producers.oldest; p != nil; p = p.newer {
		if p.epoch == noEpoch {
			continue
		}
		last := int32(-1)
		if m := p.last(); m != nil {
			last = m.lastSequence
		}
		out = append(out, ActiveProducer{
			ProducerID: p.id, ProducerEpoch: p.epoch, LastSequence: last, LastTimestamp: p.lastTimestamp,
			CoordinatorEpoch: p.coordinatorEpoch, TxnStartOffset: p.txnFirst,
		})
	}
	return out
}

// ActiveProducer is one row of DescribeProducers.
type ActiveProducer struct {
	ProducerID       int64
	ProducerEpoch    int16
	LastSequence     int32 // -1: none
	LastTimestamp    int64
	CoordinatorEpoch int32 // -1: none
	TxnStartOffset   int64 // -1: none
}
