package storage

import (
	"context"
	"fmt"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
)

// TimestampAndOffset answers a search by time. Offset -1: none.
type TimestampAndOffset struct {
	Offset      int64
	Timestamp   int64 // ms; -1 for the special timestamps but max
	LeaderEpoch int32 // -1: none
}

// Special timestamps of ListOffsets.
const (
	LatestTimestamp        int64 = -1
	EarliestTimestamp      int64 = -2
	MaxTimestamp           int64 = -3
	EarliestLocalTimestamp int64 = -4
	LatestTieredTimestamp  int64 = -5
	EarliestPendingUpload  int64 = -6
)

var noOffset = TimestampAndOffset{Offset: -1, Timestamp: -1, LeaderEpoch: -1}

// OffsetForTime answers ListOffsets, exact to the record. It may block.
func (l *Log) OffsetForTime(ctx context.Context, timestamp int64, i Isolation) (TimestampAndOffset, error) {
	l.mu.Lock()
	if l.closed != nil {
		defer l.mu.Unlock()
		return noOffset, l.closed
	}
	start, limit := l.start, l.hw
	if i == ReadCommitted {
		limit = max(start, l.lastStable())
	}
	switch timestamp {
	case LatestTimestamp:
		l.mu.Unlock()
		return TimestampAndOffset{Offset: limit, Timestamp: -1, LeaderEpoch: l.epoch}, nil
	case EarliestTimestamp, EarliestLocalTimestamp:
		epoch := l.epochAt(start)
		l.mu.Unlock()
		return TimestampAndOffset{Offset: start, Timestamp: -1, LeaderEpoch: epoch}, nil
	case LatestTieredTimestamp, EarliestPendingUpload:
		l.mu.Unlock()
		return noOffset, nil
	case MaxTimestamp:
		newest, hw := l.maxTimestamp(), l.hw
		l.mu.Unlock()
		found, err := l.offsetOfNewest(ctx, newest, start, hw)
		if err == nil && found.Offset >= limit {
			found = noOffset
		}
		return found, err
	}
	l.mu.Unlock()
	if timestamp < 0 {
		return noOffset, fmt.Errorf("log %s: %w: %d", logName(l.id), ErrUnknownTimestamp, timestamp)
	}
	return l.firstSince(ctx, timestamp, start, limit)
}

// offsetOfNewest returns the first record of the largest timestamp in [start, limit).
// newest is that of all ledgers, which may be one of a record below start.
func (l *Log) offsetOfNewest(ctx context.Context, newest, start, limit int64) (TimestampAndOffset, error) {
	if newest < 0 {
		return noOffset, nil
	}
	found, err := l.firstSince(ctx, newest, start, limit)
	if err != nil || found.Offset >= 0 || start == limit {
		return found, err
	}
	if newest, err = l.newestFrom(ctx, start, limit); err != nil || newest < 0 {
		return noOffset, err
	}
	return l.firstSince(ctx, newest, start, limit)
}

// newestFrom returns the largest timestamp in [start, limit): of the ledger that start
// lies in it reads the rest.
func (l *Log) newestFrom(ctx context.Context, start, limit int64) (int64, error) {
	l.mu.Lock()
	p, ok := l.place(start)
	newest := int64(noTimestamp)
	for _, k := range l.sealedLinks() {
		if k.base > start {
			newest = max(newest, k.maxTimestamp)
		}
	}
	for _, s := range append(l.sealing[:len(l.sealing):len(l.sealing)], l.seg) {
		if s != nil && s.base > start {
			newest = max(newest, s.maxTimestamp)
		}
	}
	l.mu.Unlock()
	if !ok {
		return newest, nil
	}
	defer l.store.handles.release(p.h)
	err := l.eachBatch(ctx, &p, start, func(h head, b batch.Batch) (more bool, err error) {
		switch {
		case h.offset >= limit:
			return false, nil
		case b.LastOffset() < start || b.MaxTimestamp() <= newest:
		case h.offset >= start || b.LogAppendTime():
			newest = b.MaxTimestamp()
		default:
			return true, eachStored(b, func(offset, timestamp int64) bool {
				if offset >= start {
					newest = max(newest, timestamp)
				}
				return true
			})
		}
		return true, nil
	})
	if err != nil {
		return noTimestamp, l.readError(p.h.id, start, err)
	}
	return newest, nil
}

// firstSince returns the first record in [start, limit) with a timestamp of at least
// timestamp.
func (l *Log) firstSince(ctx context.Context, timestamp, start, limit int64) (TimestampAndOffset, error) {
	for offset := start; offset < limit; {
		found, next, err := l.searchTime(ctx, timestamp, start, offset, limit)
		if err != nil || found.Offset >= 0 {
			return found, err
		}
		offset = next
	}
	return noOffset, nil
}

// epochAt returns the leader epoch in which offset was written. l.mu is held.
func (l *Log) epochAt(offset int64) int32 {
	for _, k := range l.sealedLinks() {
		if offset <= k.last {
			return k.epoch
		}
	}
	return l.epoch
}

// maxTimestamp returns the largest timestamp of what is durable. l.mu is held.
func (l *Log) maxTimestamp() int64 {
	newest := int64(noTimestamp)
	for _, k := range l.sealedLinks() {
		newest = max(newest, k.maxTimestamp)
	}
	for _, s := range l.sealing {
		newest = max(newest, s.maxTimestamp)
	}
	if l.seg != nil {
		newest = max(newest, l.seg.maxTimestamp)
	}
	return newest
}

// searchTime looks for the first record with a timestamp of at least t in the
// ledger that holds offset. If there is none it returns where the next ledger begins.
func (l *Log) searchTime(ctx context.Context, t, start, offset, limit int64) (TimestampAndOffset, int64, error) {
	l.mu.Lock()
	p, ok := l.place(offset)
	next := limit
	if ok {
		newest := p.link.maxTimestamp
		if p.link.id == 0 {
			s := l.segmentOf(offset)
			newest = s.maxTimestamp
			p.entry = s.index.entryOfTime(t)
		} else {
			p.entry = -1
		}
		if p.end >= 0 {
			next = p.end
		}
		if newest < t {
			ok = false
			l.store.handles.release(p.h)
		}
	}
	l.mu.Unlock()
	if !ok {
		return noOffset, next, nil
	}
	defer l.store.handles.release(p.h)
	found, err := l.searchLedger(ctx, &p, t, start, limit)
	if err != nil {
		return noOffset, next, l.readError(p.h.id, offset, err)
	}
	return found, next, nil
}

func (l *Log) searchLedger(ctx context.Context, p *place, t, start, limit int64) (TimestampAndOffset, error) {
	if p.entry < 0 {
		x, _, err := l.indexOf(ctx, p.h, &p.link)
		if err != nil {
			return noOffset, err
		}
		p.entry = x.entryOfTime(t)
	}
	found := noOffset
	err := l.eachBatch(ctx, p, start, func(h head, b batch.Batch) (more bool, err error) {
		if h.offset >= limit {
			return false, nil
		}
		if b.MaxTimestamp() >= t && b.LastOffset() >= start {
			found, err = searchBatch(b, t, start)
		}
		return found.Offset < 0, err
	})
	return found, err
}

// eachBatch calls f for the batches of a ledger from entry p.entry on, or where that is
// -1 from one at or before the offset, until f returns false.
func (l *Log) eachBatch(ctx context.Context, p *place, offset int64, f func(h head, b batch.Batch) (more bool, err error)) error {
	lr, err := p.h.opened(ctx, l.store.c.Tier)
	if err != nil {
		return err
	}
	if p.last < 0 {
		p.last, _ = lr.Last()
	}
	if p.entry < 0 {
		if p.entry, err = l.seek(ctx, lr, p, offset); err != nil {
			return err
		}
	}
	held, err := l.store.cold.acquire(ctx, maxChunkBytes)
	if err != nil {
		return err
	}
	defer l.store.cold.release(held)
	for entry := p.entry; entry <= p.last; {
		es, err := lr.Read(ctx, entry, p.last, maxChunkBytes)
		if err != nil {
			return err
		}
		if len(es.Data) == 0 {
			return nil
		}
		more, err := eachOf(&es, f)
		entry += int64(len(es.Data))
		es.Release()
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// eachOf calls f for the batches of es until f returns false.
func eachOf(es *ledger.Entries, f func(h head, b batch.Batch) (more bool, err error)) (more bool, err error) {
	for _, data := range es.Data {
		h, body, err := decodeEntry(data)
		if err != nil {
			return false, err
		}
		if h.kind != kindData {
			continue
		}
		b, err := decodeData(h, body)
		if err != nil {
			return false, err
		}
		if more, err := f(h, b); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// searchBatch returns the first record of b at or after the offset start with a
// timestamp of at least t.
func searchBatch(b batch.Batch, t, start int64) (TimestampAndOffset, error) {
	if b.LogAppendTime() {
		return TimestampAndOffset{Offset: max(b.BaseOffset(), start), Timestamp: b.MaxTimestamp(), LeaderEpoch: b.LeaderEpoch()}, nil
	}
	found := noOffset
	err := eachStored(b, func(offset, timestamp int64) bool {
		if offset < start || timestamp < t {
			return true
		}
		found = TimestampAndOffset{Offset: offset, Timestamp: timestamp, LeaderEpoch: b.LeaderEpoch()}
		return false
	})
	return found, err
}

// eachStored calls f for the records of a batch with times of their own until it
// returns false.
func eachStored(b batch.Batch, f func(offset, timestamp int64) bool) error {
	records := b.Records()
	if b.Codec() != batch.None {
		var err error
		if records, err = batch.Decompress(nil, b.Codec(), records, maxInflatedBytes); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	it := b.IterateStored(records)
	var r batch.Record
	for it.Next(&r) {
		if !f(b.BaseOffset()+int64(r.OffsetDelta), b.BaseTimestamp()+r.TimestampDelta) {
			return nil
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// OffsetsBefore answers ListOffsets v0 as Kafka's legacyFetchOffsetsBefore does,
// with ledgers for segments: the offsets at which they begin and the high
// watermark, the newest first, most at most. Of a timestamp in ms it leaves out those that
// were written to later; LatestTimestamp leaves out none, EarliestTimestamp all but the
// log start offset.
func (l *Log) OffsetsBefore(timestamp int64, most int) ([]int64, error) {
	if timestamp < EarliestTimestamp {
		return nil, fmt.Errorf("log %s: %w: %d", logName(l.id), ErrUnknownTimestamp, timestamp)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed != nil {
		return nil, l.closed
	}
	if timestamp == EarliestTimestamp {
		return []int64{l.start}[:min(max(most, 0), 1)], nil
	}
	var found []int64
	add := func(offset, written int64) {
		if len(found) < most && (len(found) > 0 || timestamp == LatestTimestamp || written <= timestamp) {
			found = append(found, offset)
		}
	}
	add(l.hw, l.store.c.Now().UnixMilli())
	begins := func(base, written int64) {
		if base < l.hw {
			add(max(base, l.start), written)
		}
	}
	if l.seg != nil {
		begins(l.seg.base, l.touched)
	}
	for i := len(l.sealing) - 1; i >= 0; i-- {
		begins(l.sealing[i].base, l.sealing[i].written)
	}
	links := l.sealedLinks()
	for i := len(links) - 1; i >= 0 && links[i].last >= l.start; i-- {
		begins(links[i].base, links[i].written)
	}
	return found, nil
}
