package bookkeeper

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/place"
	"github.com/quirelog/quire/storage/bookkeeper/quorum"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// Config says how ledgers are kept. Zero values mean the default named in the comment.
type Config struct {
	Store      metadata.Store        // required; it stays the caller's to close
	InstanceID string                // of the cluster that Store must hold; any
	Logger     *zap.Logger           // none
	Registerer prometheus.Registerer // no metrics

	Ensemble    int             // bookies of a ledger: 3
	WriteQuorum int             // copies of an entry: 3, or Ensemble if that is less
	AckQuorum   int             // copies that acknowledge it: 2, or WriteQuorum if that is less
	Digest      metadata.Digest // how entries are protected: CRC32C
	Password    []byte          // of new ledgers; it is stored in clear and no secret: empty

	// Locate says where a bookie stands: by the host of its address. It must not block.
	Locate func(metadata.Bookie) place.Location
	// Location is where this process stands, for reading from near bookies.
	Location   place.Location
	Quarantine place.QuarantineConfig

	TLS             *tls.Config   // spoken to all bookies after START_TLS: none
	AddConnections  int           // per bookie: 2
	ReadConnections int           // per bookie: 2
	AddTimeout      time.Duration // after which a bookie failed an add: 3 s
	// StallAfter is how long a bookie that owes answers to adds may be silent before
	// ledgers whose entries wait for it alone leave it, or end if another ledger could
	// do without it: 1 s.
	StallAfter     time.Duration
	ReadTimeout    time.Duration // after which another copy is read: 2 s
	ConnectTimeout time.Duration // 1 s
	// MinSpeculative is the least time after which a copy is asked for a second
	// time, from another bookie; the 95th percentile of the bookie's reads if that
	// is longer: 50 ms.
	MinSpeculative time.Duration

	MaxFrameBytes    int   // nettyMaxFrameSizeBytes of the bookies: 5 MiB
	MaxLedgerEntries int   // entries of a ledger under way to an ack quorum; more wait: 1,000
	MaxLedgerBytes   int64 // the same in bytes: 32 MiB
	// MaxBytes bounds what all ledgers hold of entries from Append until every
	// bookie has answered; appends beyond get ErrNoSpace: 512 MiB.
	MaxBytes int64

	// ReplaceAfter is how long a bookie may be unregistered before open ledgers
	// leave it. AutoRecovery fences those that do not after 30 s: 5 s.
	ReplaceAfter time.Duration
	// MarkAfter is how long a bookie may be unregistered before the ledgers on it
	// are marked under-replicated: 2 min.
	MarkAfter time.Duration
	// Owns says by a ledger's custom metadata whether the janitor looks after it:
	// those whose application is quire.
	Owns func(custom map[string][]byte) bool
	// JanitorInterval is the time between two looks at who is gone, and at the
	// marks: 1 min; negative: never.
	JanitorInterval time.Duration
	// Housekeeper says whether this process is the one that looks through all ledgers
	// for lost replicas, where several have a tier on the cluster. It does not block
	// and is asked on a goroutine of the tier. nil: it is.
	Housekeeper func() bool
	// CloseTimeout is how long Close waits for appends under way: 5 s.
	CloseTimeout time.Duration
	// RollAfter is the age from which a ledger may ask to be replaced by a better one: 5 s.
	RollAfter time.Duration
	Now       func() time.Time // time.Now

	// connectGrace is bookie.Config.ConnectGrace; other than its default in tests only.
	connectGrace time.Duration
	// storeDelay is how long nothing is acknowledged for a metadata store that does not
	// answer to a change of the ensemble: 1 s; another time in tests only.
	storeDelay time.Duration
}

// entryRoomBytes is what a frame needs beside an entry's payload, rounded up.
const entryRoomBytes = 1 << 10

// maxFrameBytes keeps lengths within what the protocol has for them.
const maxFrameBytes = 1 << 30

func (c *Config) validate() error {
	if c.Store == nil {
		return errors.New("bookkeeper: no metadata store given")
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Ensemble = cmp.Or(c.Ensemble, 3)
	c.WriteQuorum = cmp.Or(c.WriteQuorum, min(3, c.Ensemble))
	c.AckQuorum = cmp.Or(c.AckQuorum, min(2, c.WriteQuorum))
	if err := (quorums{c.Ensemble, c.WriteQuorum, c.AckQuorum}).check(); err != nil {
		return fmt.Errorf("bookkeeper: %w", err)
	}
	c.Digest = cmp.Or(c.Digest, metadata.CRC32C)
	if c.Locate == nil {
		c.Locate = locateByHost
	}
	if c.Owns == nil {
		c.Owns = func(custom map[string][]byte) bool { return string(custom["application"]) == "quire" }
	}
	if c.Housekeeper == nil {
		c.Housekeeper = func() bool { return true }
	}
	c.AddTimeout = cmp.Or(c.AddTimeout, 3*time.Second)
	c.StallAfter = cmp.Or(c.StallAfter, time.Second)
	c.storeDelay = cmp.Or(c.storeDelay, time.Second)
	c.ReadTimeout = cmp.Or(c.ReadTimeout, 2*time.Second)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, time.Second)
	c.MinSpeculative = cmp.Or(c.MinSpeculative, 50*time.Millisecond)
	c.MaxFrameBytes = cmp.Or(c.MaxFrameBytes, wire.DefaultMaxFrameBytes)
	c.MaxLedgerEntries = cmp.Or(c.MaxLedgerEntries, 1000)
	c.MaxLedgerBytes = cmp.Or(c.MaxLedgerBytes, 32<<20)
	c.MaxBytes = cmp.Or(c.MaxBytes, 512<<20)
	c.ReplaceAfter = cmp.Or(c.ReplaceAfter, 5*time.Second)
	c.MarkAfter = cmp.Or(c.MarkAfter, 2*time.Minute)
	c.JanitorInterval = cmp.Or(c.JanitorInterval, time.Minute)
	c.CloseTimeout = cmp.Or(c.CloseTimeout, 5*time.Second)
	c.RollAfter = cmp.Or(c.RollAfter, 5*time.Second)
	if c.MaxFrameBytes < 2*entryRoomBytes || c.MaxFrameBytes > maxFrameBytes {
		return fmt.Errorf("bookkeeper: MaxFrameBytes is %d, must be %d to %d", c.MaxFrameBytes, 2*entryRoomBytes, maxFrameBytes)
	}
	for name, v := range map[string]int64{
		"AddConnections": int64(c.AddConnections), "ReadConnections": int64(c.ReadConnections),
		"AddTimeout": int64(c.AddTimeout), "StallAfter": int64(c.StallAfter), "ReadTimeout": int64(c.ReadTimeout), "ConnectTimeout": int64(c.ConnectTimeout),
		"MinSpeculative": int64(c.MinSpeculative), "MaxLedgerEntries": int64(c.MaxLedgerEntries),
		"MaxLedgerBytes": c.MaxLedgerBytes, "MaxBytes": c.MaxBytes, "ReplaceAfter": int64(c.ReplaceAfter),
		"MarkAfter": int64(c.MarkAfter), "CloseTimeout": int64(c.CloseTimeout), "RollAfter": int64(c.RollAfter),
	} {
		if v < 0 {
			return fmt.Errorf("bookkeeper: %s is %d, must not be negative", name, v)
		}
	}
	return nil
}

// quorums of a ledger.
type quorums struct {
	ensemble, write, ack int
}

// check says why no ledger can have the quorums.
func (q quorums) check() error {
	if q.ack < 1 || q.write < q.ack || q.ensemble < q.write || q.ensemble > quorum.MaxEnsemble {
		return fmt.Errorf("ensemble %d, write quorum %d, ack quorum %d: want %d ≥ ensemble ≥ write quorum ≥ ack quorum ≥ 1",
			q.ensemble, q.write, q.ack, quorum.MaxEnsemble)
	}
	return nil
}
