package storage

import (
	"fmt"
	"time"

	"github.com/quirelog/quire/protocol/batch"
)

// OneBatch returns the batch that the records of one partition in a Produce
// request (v3 and later) must be: one alone, of magic 2. The beginning of
// another behind it, cut off, is left out (ProduceRequest.validateRecords). The errors are
// batch.ErrInvalid and, for a size below the minimum, batch.ErrCorrupt.
func OneBatch(records []byte) (batch.Batch, error) {
	b, rest, err := batch.Next(records)
	if err != nil {
		return nil, err
	}
	if second, _, err := batch.NextMessage(rest); err != nil {
		return nil, fmt.Errorf("after the one batch of a partition: %w", err)
	} else if second != nil {
		return nil, fmt.Errorf("%w: %d bytes after the one batch of a partition", batch.ErrInvalid, len(rest))
	}
	return b, nil
}

// UpConvertOptions says how a message set of an old producer becomes batches that
// this log takes as they are: every rule of the topic that validate holds v2 batches
// to is checked on the messages as well, where Kafka checks it.
func (l *Log) UpConvertOptions() batch.UpConvertOptions {
	c := l.config.Load()
	low, high := timestampBounds(c, l.store.c.Now().UnixMilli())
	return batch.UpConvertOptions{
		MaxBatchBytes:    c.MaxMessageBytes,
		MaxInflatedBytes: maxInflatedBytes,
		LogAppendTime:    c.LogAppendTime,
		MinTimestamp:     low,
		MaxTimestamp:     high,
		RequireKeys:      c.Compact,
		Recode:           !c.KeepCompression,
		Codec:            c.Compression,
		Level:            c.CompressionLevel,
	}
}

// NeedsWorker says that appending b costs more than an event loop may spend:
// it must be decompressed or recompressed.
func (l *Log) NeedsWorker(b batch.Batch) bool {
	if len(b) < batch.HeaderBytes {
		return false
	}
	c := l.config.Load()
	return needsRecords(b, c, l.store.c.Now().UnixMilli()) && b.Codec() != batch.None || needsCodec(b, c)
}

// needsCodec says whether the topic wants another compression than b has.
func needsCodec(b batch.Batch, c *LogConfig) bool {
	return !c.KeepCompression && b.Codec() != c.Compression && !b.Control()
}

// needsRecords says whether the records of b have to be looked at even if they
// are compressed: for their keys, because the header hints at a bad timestamp, or
// because the topic trusts no producer that they are what it says.
func needsRecords(b batch.Batch, c *LogConfig, now int64) bool {
	if c.Compact || c.VerifyCompressed {
		return true
	}
	if c.LogAppendTime {
		return false
	}
	low, high := timestampBounds(c, now)
	first, last := b.BaseTimestamp(), b.MaxTimestamp()
	return last > high || first < low && first != batch.NoTimestamp
}

// timestampBounds returns what message.timestamp.before.max.ms and after.max.ms allow.
func timestampBounds(c *LogConfig, now int64) (low, high int64) {
	low, high = -1<<63, 1<<63-1
	if c.TimestampBeforeMax >= 0 {
		low = now - int64(c.TimestampBeforeMax/time.Millisecond)
	}
	if c.TimestampAfterMax >= 0 {
		high = now + int64(c.TimestampAfterMax/time.Millisecond)
	}
	return low, high
}

// validate checks a's batch in Kafka's order (UnifiedLog.analyzeAndValidateRecords,
// LogValidator) and returns what is to be stored: the batch itself, perhaps with
// another timestamp, or the same records compressed as the topic wants them.
func (l *Log) validate(a *Append, c *LogConfig, now int64) (batch.Batch, error) {
	b := a.Batch
	if len(b) < batch.HeaderBytes {
		return nil, fmt.Errorf("log %s: %w: %d bytes are below the minimum", logName(l.id), batch.ErrCorrupt, len(b))
	}
	if b.BaseOffset() != 0 {
		return nil, fmt.Errorf("log %s: %w: a producer's batch has base offset %d, not 0", logName(l.id), batch.ErrInvalid, b.BaseOffset())
	}
	if err := l.checkSize(b, c); err != nil {
		return nil, err
	}
	if err := b.Verify(); err != nil {
		return nil, fmt.Errorf("log %s: %w", logName(l.id), err)
	}
	switch {
	case b.Control() != a.Marker:
		return nil, fmt.Errorf("log %s: %w: control batches come from the transaction coordinator alone", logName(l.id), batch.ErrInvalid)
	case b.ProducerID() >= 0 && b.BaseSequence() < 0 && !a.Marker:
		return nil, fmt.Errorf("log %s: %w: producer %d sends sequence %d", logName(l.id), batch.ErrInvalid, b.ProducerID(), b.BaseSequence())
	case b.Transactional() && b.ProducerID() < 0:
		return nil, fmt.Errorf("log %s: %w: a transactional batch without a producer id", logName(l.id), batch.ErrInvalid)
	case !b.Codec().Valid():
		return nil, fmt.Errorf("log %s: %w: %d", logName(l.id), batch.ErrUnknownCodec, b.Codec())
	case b.LogAppendTime():
		for i := range min(b.Count(), maxRecordErrors) {
			a.fault(i, "A producer must not set the timestamp type LogAppendTime.")
		}
		return nil, fmt.Errorf("log %s: %w: a producer must not set the type LogAppendTime", logName(l.id), batch.ErrTimestamp)
	}
	if a.Marker {
		return b, nil
	}

	recode := needsCodec(b, c)
	made, err := b, error(nil)
	switch {
	case b.Codec() == batch.None:
		made, err = l.rewrite(a, b, b.Records(), c, now)
	case recode || needsRecords(b, c, now):
		err = l.store.inflate.records(b, func(records []byte) error {
			made, err = l.rewrite(a, b, records, c, now)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", logName(l.id), err)
	}
	b = made
	if recode {
		if err := l.checkSize(b, c); err != nil {
			return nil, err
		}
	}
	if c.LogAppendTime {
		b.SetLogAppendTime(now)
		a.internal.appended = now
	}
	return b, nil
}

// rewrite checks b's records, which are not compressed, and returns the batch with what
// they say of its timestamps, in the codec that the topic wants.
func (l *Log) rewrite(a *Append, b batch.Batch, records []byte, c *LogConfig, now int64) (batch.Batch, error) {
	newest, err := checkRecords(a, b, records, c, now)
	if err != nil {
		return nil, err
	}
	if !c.LogAppendTime && newest != b.MaxTimestamp() {
		b.SetMaxTimestamp(newest)
	}
	if !needsCodec(b, c) {
		return b, nil
	}
	return batch.Recompress(make([]byte, 0, len(b)), b, c.Compression, c.CompressionLevel, records)
}

func (l *Log) checkSize(b batch.Batch, c *LogConfig) error {
	if c.MaxMessageBytes > 0 && len(b) > c.MaxMessageBytes {
		return fmt.Errorf("log %s: %w: %d bytes of at most %d", logName(l.id), ErrMessageTooLarge, len(b), c.MaxMessageBytes)
	}
	if most := l.store.maxBatchBytes; len(b) > most {
		return fmt.Errorf("log %s: %w: %d bytes, and the ledgers take %d", logName(l.id), ErrMessageTooLarge, len(b), most)
	}
	if c.SegmentBytes > 0 && int64(len(b)) > c.SegmentBytes {
		return fmt.Errorf("log %s: %w: %d bytes of at most %d", logName(l.id), ErrListTooLarge, len(b), c.SegmentBytes)
	}
	return nil
}

// maxRecordErrors bounds how many records of a refused batch are named.
const maxRecordErrors = 100

// checkRecords walks the records, which are not compressed, and returns their largest
// timestamp. A record at fault refuses the whole batch; a.RecordErrors names those at fault.
func checkRecords(a *Append, b batch.Batch, records []byte, c *LogConfig, now int64) (newest int64, err error) {
	if newest, ok := quickCheck(b, records, c, now); ok {
		return newest, nil
	}
	low, high := timestampBounds(c, now)
	base := b.BaseTimestamp()
	newest = batch.NoTimestamp
	it := b.Iterate(records)
	var r batch.Record
	var fault error
	for it.Next(&r) {
		t := base + r.TimestampDelta
		newest = max(newest, t)
		switch {
		case c.Compact && r.Key == nil:
			if fault == nil {
				fault = fmt.Errorf("%w: a compacted topic needs keys", batch.ErrInvalid)
			}
			a.fault(it.Index()-1, "Compacted topic cannot accept message without key in topic partition.")
		case (t < low || t > high) && t != batch.NoTimestamp && !c.LogAppendTime:
			if fault == nil {
				fault = fmt.Errorf("%w: %d lies outside [%d, %d]", batch.ErrTimestamp, t, low, high)
			}
			a.fault(it.Index()-1, fmt.Sprintf("Timestamp %d is out of range: it should be within [%d, %d].", t, low, high))
		}
	}
	if err := it.Err(); err != nil {
		a.RecordErrors = a.RecordErrors[:0]
		return 0, err
	}
	return newest, fault
}

func (a *Append) fault(index int32, message string) {
	if len(a.RecordErrors) < maxRecordErrors {
		a.RecordErrors = append(a.RecordErrors, RecordError{Index: index, Message: message})
	}
}
