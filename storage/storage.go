package storage

import (
	"context"
	"errors"
	"time"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
)

// LogID names one partition of one topic. Topic is the topic's id (KIP-516), so
// a topic created again under an old name has other logs.
type LogID struct {
	Topic     [16]byte
	Partition int32
}

// Errors of logs, wrapped with the log they concern. proxy/api maps them to
// Kafka's codes in one file.
var (
	ErrOffsetOutOfRange = errors.New("offset out of range")
	ErrFencedEpoch      = errors.New("leader epoch is older than the log's")
	ErrUnknownEpoch     = errors.New("leader epoch is newer than the log's")
	ErrLostOwnership    = errors.New("log is owned elsewhere")                    // NOT_LEADER_OR_FOLLOWER
	ErrNoSpace          = errors.New("no space left")                             // retriable, KAFKA_STORAGE_ERROR
	ErrStorage          = errors.New("log storage failed")                        // KAFKA_STORAGE_ERROR
	ErrCorrupt          = errors.New("stored batch is corrupt")                   // CORRUPT_MESSAGE
	ErrOutOfSequence    = errors.New("producer sequence out of order")            // OUT_OF_ORDER_SEQUENCE_NUMBER
	ErrProducerEpoch    = errors.New("producer epoch is fenced")                  // INVALID_PRODUCER_EPOCH
	ErrTxnState         = errors.New("invalid transaction state")                 // INVALID_TXN_STATE
	ErrMessageTooLarge  = errors.New("batch exceeds max.message.bytes")           // MESSAGE_TOO_LARGE
	ErrListTooLarge     = errors.New("batch exceeds segment.bytes")               // RECORD_LIST_TOO_LARGE
	ErrPolicy           = errors.New("not allowed by the topic's cleanup.policy") // POLICY_VIOLATION
	ErrUnknownTimestamp = errors.New("unknown special timestamp")                 // UNSUPPORTED_VERSION
	ErrClosed           = errors.New("log is closed")                             // NOT_LEADER_OR_FOLLOWER
)

// LogConfig holds the topic settings that a log obeys. It is immutable: a
// changed topic gets a new one through Log.SetConfig.
type LogConfig struct {
	MaxMessageBytes    int
	SegmentBytes       int64         // roll of the ledger
	SegmentAge         time.Duration // segment.ms
	RetentionBytes     int64         // -1: no limit
	RetentionAge       time.Duration // -1: no limit
	LogAppendTime      bool          // message.timestamp.type
	TimestampBeforeMax time.Duration // <0: no limit
	TimestampAfterMax  time.Duration // <0: no limit
	Compression        batch.Codec   // wanted codec; ignored if KeepCompression
	KeepCompression    bool          // compression.type=producer
	CompressionLevel   int           // of Compression, as Kafka's compression.*.level
	Compact            bool          // cleanup.policy contains compact
	Delete             bool          // cleanup.policy contains delete
	IndexIntervalBytes int
}

// StoreConfig holds what all logs of a node share. Zero values mean the default
// named in the comment.
type StoreConfig struct {
	Tier   ledger.Tier
	Meta   meta.Store
	Prefix string // of all keys, "quire/{cluster}/"

	TailCacheBytes     int64         // recent entries kept in memory, all logs: 128 MiB
	IdleCloseAfter     time.Duration // a ledger without appends for so long is sealed: 10 min
	SnapshotEveryBytes int64         // producer state and index into the log: 16 MiB
	RetentionInterval  time.Duration // 5 min, Kafka's log.retention.check.interval.ms
	ProducerExpiry     time.Duration // 24 h, producer.id.expiration.ms
	MaxProducersPerLog int           // remembered idempotent producers; the longest silent goes first: 100,000
	Now                func() time.Time
}

// Append is one batch on its way into a log. The caller allocates and recycles
// it; from Log.Append until Notify the log owns it.
type Append struct {
	Batch  batch.Batch    // exactly one v2 batch; stamped in place
	Buf    *buffer.Buffer // owner of Batch; the log retains it for the tail cache
	Notify AppendNotifier

	// Results, valid from Notify on.
	Err            error
	BaseOffset     int64 // -1 on error
	LogAppendTime  int64 // ms; -1 unless the topic stamps time
	LogStartOffset int64 // -1 on error
	RecordErrors   []RecordError

	internal appendState
}

// RecordError says which record of a refused batch was at fault.
type RecordError struct {
	Index   int32
	Message string
}

// AppendNotifier hears that an Append is decided.
type AppendNotifier interface {
	// AppendDone is called exactly once, from within Log.Append (refused, or a
	// duplicate already durable) or from a goroutine of the ledger tier. It must not block.
	AppendDone(a *Append)
}

// Isolation is what a reader may see.
type Isolation int8

// ReadUncommitted sees up to the high watermark, ReadCommitted up to the last stable offset.
const (
	ReadUncommitted Isolation = 0
	ReadCommitted   Isolation = 1
)

// Read asks for batches. In and out in one struct, so that a fetch over many
// partitions reuses its memory.
type Read struct {
	Offset    int64
	MaxBytes  int
	MinOne    bool // one whole batch even if it is larger than MaxBytes
	Isolation Isolation

	// Results.
	Records        [][]byte        // whole batches; the first holds Offset; read-only
	Bufs           []ledger.Buffer // owners of Records: Release them after sending
	Bytes          int             // sum of Records
	Aborted        []AbortedTxn    // of ReadCommitted, by first offset
	HighWatermark  int64
	LastStable     int64
	LogStartOffset int64
	Err            error
}

// AbortedTxn is an aborted transaction whose records lie in what was read.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset int64
}

// Waiter is woken when a log moves. Embed or allocate one per fetch and log.
type Waiter struct {
	// Wake is called at most once per Log.Wait, from any goroutine, possibly
	// with locks held: it must not block nor call into the log.
	Wake func()

	next, prev *Waiter
	log        *Log
}

// TimestampAndOffset answers a search by time. Offset -1: none.
type TimestampAndOffset struct {
	Offset      int64
	Timestamp   int64 // ms; -1 for the special timestamps but max
	LeaderEpoch int32
}

// ActiveProducer is one row of DescribeProducers.
type ActiveProducer struct {
	ProducerID       int64
	ProducerEpoch    int16
	LastSequence     int32
	LastTimestamp    int64
	CoordinatorEpoch int32
	TxnStartOffset   int64 // -1: none
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

// Store keeps the logs of one node. Its methods may be called from any goroutine.
type Store struct{}

// Log is one partition's log. Its methods may be called from any goroutine;
// those that may block on I/O or metadata say so and take a context.
type Log struct{}

type appendState struct{}

// Open opens the store. It reads which logs exist, not the logs.
func Open(ctx context.Context, c StoreConfig) (*Store, error) { panic("unwritten") }

// Log returns an open log, nil if it is not open. It never blocks.
func (s *Store) Log(id LogID) *Log { panic("unwritten") }

// OpenLog opens a log, which fences its earlier owner, or returns the open one.
// A log that was never written needs no ledger until its first append. It may block.
func (s *Store) OpenLog(ctx context.Context, id LogID, c *LogConfig) (*Log, error) {
	panic("unwritten")
}

// Epoch returns the leader epoch to announce for a log: of an open log its
// epoch, else the one that opening it will give. It never goes back and never blocks.
func (s *Store) Epoch(id LogID) int32 { panic("unwritten") }

// DeleteLogs forgets the logs of a deleted topic and deletes their ledgers. It may block.
func (s *Store) DeleteLogs(ctx context.Context, topic [16]byte, partitions int32) error {
	panic("unwritten")
}

// Close seals the ledgers of all logs and closes them, as far as ctx allows.
func (s *Store) Close(ctx context.Context) error { panic("unwritten") }

// Append checks the batch, gives it offsets and queues it; the order of calls
// is the order of offsets. It does not block on I/O, and on CPU only as
// NeedsWorker says. The outcome arrives through a.Notify.
func (l *Log) Append(a *Append) { panic("unwritten") }

// NeedsWorker says that appending b costs more than an event loop may spend:
// it must be decompressed or recompressed.
func (l *Log) NeedsWorker(b batch.Batch) bool { panic("unwritten") }

// ReadTail reads from memory only and never blocks. It returns false, and no
// records, if I/O is needed: call Read from a worker then. Errors, watermarks and
// empty results at the end of the log are answered here.
func (l *Log) ReadTail(r *Read) bool { panic("unwritten") }

// Read reads from wherever the batches lie. It may block.
func (l *Log) Read(ctx context.Context, r *Read) { panic("unwritten") }

// Available returns how many bytes a reader at offset could get now, without reading.
func (l *Log) Available(offset int64, i Isolation) int64 { panic("unwritten") }

// Wait registers w to be woken when the log's high watermark or last stable
// offset passes what they are now, its start moves, or it closes. Register, then look.
func (l *Log) Wait(w *Waiter) { panic("unwritten") }

// Unwait takes w back; after it returns Wake is not called any more.
func (l *Log) Unwait(w *Waiter) { panic("unwritten") }

// Offsets returns the bounds of the log.
func (l *Log) Offsets() (start, stable, highWatermark int64) { panic("unwritten") }

// Epoch returns the leader epoch in force.
func (l *Log) Epoch() int32 { panic("unwritten") }

// EpochEnd answers OffsetForLeaderEpoch: the largest epoch <= epoch that the
// log knows and its end offset; -1, -1 if there is none or epoch is too new.
func (l *Log) EpochEnd(epoch int32) (int32, int64) { panic("unwritten") }

// OffsetForTime answers ListOffsets, exact to the record. It may block.
func (l *Log) OffsetForTime(ctx context.Context, timestamp int64, i Isolation) (TimestampAndOffset, error) {
	panic("unwritten")
}

// DeleteRecords moves the start of the log up to offset (-1: the high
// watermark) and returns the new start. It may block.
func (l *Log) DeleteRecords(ctx context.Context, offset int64) (start int64, err error) {
	panic("unwritten")
}

// Producers lists the producers whose state the log keeps.
func (l *Log) Producers() []ActiveProducer { panic("unwritten") }

// Size returns the bytes of all entries of the log.
func (l *Log) Size() int64 { panic("unwritten") }

// SetConfig makes c apply from the next append on.
func (l *Log) SetConfig(c *LogConfig) { panic("unwritten") }
