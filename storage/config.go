package storage

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
)

// LogID names one partition of one topic. Topic is the topic's id (KIP-516), so
// a topic created again under an old name has other logs.
type LogID struct {
	Topic     [16]byte
	Partition int32
}

// LogConfig holds the topic settings that a log obeys. It is immutable: a
// changed topic gets a new one through Log.SetConfig.
type LogConfig struct {
	MaxMessageBytes    int
	SegmentBytes       int64         // roll of the ledger; 0: no limit
	SegmentAge         time.Duration // segment.ms; 0: no limit
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
	VerifyCompressed   bool          // look into compressed batches, though nothing else asks for it
	IndexIntervalBytes int           // bytes between two rows of the index, at first: 4,096
	NoDownConversion   bool          // message.downconversion.enable=false; for those who convert what the log gives

	// How ledgers are replicated, where the tier replicates: bookies that share one,
	// copies of an entry, copies that acknowledge it. 0: as the tier is configured.
	Ensemble, WriteQuorum, AckQuorum int
}

// StoreConfig holds what all logs of a node share. Zero values mean the default
// named in the comment.
type StoreConfig struct {
	Tier   ledger.Tier // one, or Tiers
	Meta   meta.Store
	Prefix string // of all keys, "quire/{cluster}/"
	// ClusterID is that of the cluster whose metadata are in Meta under Prefix, random
	// and made with them. Clusters of the same name, each with a Meta of its own, may
	// keep their ledgers on the same Tier: it tells the janitor which are its own.
	ClusterID string

	TailCacheBytes     int64         // recent entries kept in memory, all logs: 128 MiB
	ColdReadBytes      int64         // being read from ledgers at one time, all logs: 64 MiB
	IdleCloseAfter     time.Duration // a ledger without appends for so long is sealed: 10 min
	SnapshotEveryBytes int64         // producer state and index into the log: 16 MiB
	RetentionInterval  time.Duration // 5 min, Kafka's log.retention.check.interval.ms
	ProducerExpiry     time.Duration // 24 h, producer.id.expiration.ms
	MaxProducersPerLog int           // remembered idempotent producers; the longest silent goes first: 100,000, or what a snapshot has room for
	OrphanAge          time.Duration // a ledger that was outside every chain for so long is deleted: 10 min
	RelistInterval     time.Duration // the records of logs are listed again, in case their watch has lost something: 5 min
	Now                func() time.Time

	// FirstEpoch is the leader epoch of a log that has no record: 0. It is more where
	// metadata were restored from a backup that does not know all logs; see RaiseEpochs.
	FirstEpoch int32

	// Serves says whether this node is to serve a log, where several nodes share Meta
	// and Tier. It does not block and is asked with locks of the Store held. nil:
	// this is the only node.
	Serves func(LogID) bool
	// Slot returns the slot of a log, always the same: logs go from one node to
	// another slot by slot. It does not block. nil: all are of slot 0.
	Slot func(LogID) int
	// Housekeeper says whether this node is the one that deletes orphans. It does not
	// block. nil: it is.
	Housekeeper func() bool

	// TopicKey returns a key of Meta that exists as long as the topic does, and is
	// written once: no log of a deleted topic gets a record by somebody who has not
	// heard of the deletion yet. nil: nobody deletes topics elsewhere.
	TopicKey func(topic [16]byte) string

	// TopicName returns the name of a topic, "" if it has none, for people who look at
	// ledgers. It does not block. nil: no names.
	TopicName func(topic [16]byte) string

	Registerer prometheus.Registerer // of the metrics; nil: none
	Logger     *zap.Logger           // nil: silence
}

func (c *StoreConfig) setDefaults() {
	if c.TailCacheBytes <= 0 {
		c.TailCacheBytes = 128 << 20
	}
	if c.ColdReadBytes <= 0 {
		c.ColdReadBytes = 64 << 20
	}
	if c.IdleCloseAfter <= 0 {
		c.IdleCloseAfter = 10 * time.Minute
	}
	if c.SnapshotEveryBytes <= 0 {
		c.SnapshotEveryBytes = 16 << 20
	}
	if c.RetentionInterval <= 0 {
		c.RetentionInterval = 5 * time.Minute
	}
	if c.ProducerExpiry <= 0 {
		c.ProducerExpiry = 24 * time.Hour
	}
	if c.MaxProducersPerLog <= 0 {
		c.MaxProducersPerLog = 100_000
	}
	if c.OrphanAge <= 0 {
		c.OrphanAge = 10 * time.Minute
	}
	if c.RelistInterval <= 0 {
		c.RelistInterval = 5 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
}
