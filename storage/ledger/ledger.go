// Package ledger is the contract between a partition's log and the tier that
// keeps its bytes.
//
// A ledger is a write-once sequence of entries, numbered from 0 without gaps.
// One writer appends; an entry is acknowledged when, and only when, it and every
// entry before it survive the loss that the tier promises to survive (a power
// cut for the embedded tier, the loss of bookies for BookKeeper). Sealing fixes
// the last entry for ever. Recovering a ledger fences its writer first, so that
// nothing is acknowledged to a writer after its successor has read the end.
//
// Every tier passes the suite in ledgertest.
package ledger

import (
	"context"
	"errors"
)

// ID names a ledger for the life of the cluster. Ids are positive and never reused.
type ID int64

// NoEntry is the last entry of an empty ledger.
const NoEntry int64 = -1

// MaxHead is the longest Head that an Append may carry, in bytes.
const MaxHead = 32

// Errors that a tier returns, wrapped with the ledger they concern.
var (
	// ErrFenced: another holder recovered the ledger. The outcome of the
	// append is unknown: the recovery may have kept it.
	ErrFenced = errors.New("ledger is fenced")
	// ErrSealed: the ledger takes no more entries. The append was not stored.
	ErrSealed = errors.New("ledger is sealed")
	// ErrNotFound: no such ledger; it was deleted or never existed.
	ErrNotFound = errors.New("no such ledger")
	// ErrNoSpace: the tier refuses writes until space is free again. The
	// append was not stored, the ledger stays usable, reads go on.
	ErrNoSpace = errors.New("no space left for ledgers")
	// ErrFailed: the ledger met an I/O error (a failed fsync for one) and
	// takes no more entries. The outcome of the append is unknown.
	ErrFailed = errors.New("ledger failed")
	// ErrCorrupt: stored bytes do not match their checksum. Nothing after
	// them is returned in their place.
	ErrCorrupt = errors.New("ledger entry is corrupt")
	// ErrClosed: the tier or the handle was closed.
	ErrClosed = errors.New("ledger is closed")
)

// Buffer is the owner of an entry's bytes, *buffer.Buffer in practice.
type Buffer interface {
	Retain()
	Release()
}

// Append is one entry on its way into a ledger: the bytes of Head, then of Body.
//
// The caller allocates and recycles it. From Writer.Append until Appended is
// called the tier owns it and nobody else may touch it. The tier copies Head if
// it needs it longer, and retains Buf if it needs Body longer.
type Append struct {
	Head []byte // at most MaxHead bytes
	Body []byte // read-only from now on
	Buf  Buffer // owner of Body; nil if Body is garbage collected
	Done Completion

	// Next is the tier's, for queues without allocation.
	Next *Append
	// Entry is set by the tier before Done is called: the entry's id.
	Entry int64
}

// Completion hears the outcome of an Append.
type Completion interface {
	// Appended is called exactly once per Append, in the order of the
	// entries of a ledger, from a goroutine of the tier (never from within
	// Writer.Append) and must not block. A nil error means: durable. Once an
	// append of a ledger failed with anything but ErrNoSpace, all later ones fail.
	// After an ErrNoSpace the appends queued behind it fail alike, so that no
	// entry overtakes another; appends made after its Appended returned are
	// tried anew.
	Appended(a *Append, err error)
}

// Sealed describes a ledger that cannot change any more.
type Sealed struct {
	ID        ID
	LastEntry int64 // NoEntry if empty
	Bytes     int64 // sum of the lengths of all entries
}

// Properties that a tier which replicates goes by instead of its configuration, decimal:
// bookies that share the ledger, copies of each entry, copies that acknowledge
// it (BookKeeper's ensemble size, write quorum and ack quorum).
const (
	PropEnsemble    = "quire.ensemble"
	PropWriteQuorum = "quire.write.quorum"
	PropAckQuorum   = "quire.ack.quorum"
)

// Properties travel with a ledger for humans and for the janitor. Tiers store
// them and give them back in Info; they mean nothing to the tier.
type Properties map[string]string

// Info describes a ledger in a listing.
type Info struct {
	ID         ID
	Sealed     bool
	LastEntry  int64 // of a sealed ledger; else what is known
	Bytes      int64
	Properties Properties
}

// Tier keeps ledgers. All methods may be called from any goroutine.
type Tier interface {
	// Create makes an empty ledger whose one writer is the caller.
	Create(ctx context.Context, props Properties) (Writer, error)

	// Open opens a ledger for reading and leaves its writer alone: of an
	// unsealed ledger it reads what this process knows to be acknowledged.
	Open(ctx context.Context, id ID) (Reader, error)

	// Recover fences the ledger, finds its last entry, seals it there and
	// opens it. It keeps every acknowledged entry; of unacknowledged ones it
	// keeps any prefix. Recovering a sealed ledger only opens it.
	Recover(ctx context.Context, id ID) (Reader, error)

	// Delete removes a ledger; nil if it is already gone. Readers that are
	// open meanwhile get ErrNotFound or data, never anything else.
	Delete(ctx context.Context, id ID) error

	// List calls f for each ledger until f returns false.
	List(ctx context.Context, f func(Info) bool) error

	// MaxEntryBytes is the longest entry, Head and Body together, that the tier
	// takes. It never changes. A longer one fails its ledger.
	MaxEntryBytes() int

	// Close seals nothing: it stops taking appends, waits for those under
	// way and releases everything. Writers and readers return ErrClosed after it.
	Close() error
}

// Reserver is a Tier that counts its ids by itself, and forgets how far it was when its
// files are lost or replaced by older ones.
type Reserver interface {
	// Reserve keeps the tier from giving out ids up to last. It does not block; any
	// goroutine may call it.
	Reserve(last ID)
}

// Writer appends to one ledger. Append and Close may be called from any
// goroutine; the order of Append calls is the order of entries.
type Writer interface {
	ID() ID

	// Append queues a and returns at once. It does not block on I/O. Errors,
	// ErrSealed and ErrClosed included, arrive through a.Done.
	Append(a *Append)

	// Close waits for the appends under way and seals the ledger. Appends
	// made after Close fail with ErrSealed. Closing twice returns the same. A
	// writer that was fenced or failed cannot seal and gets that error, but must
	// be closed too: the tier keeps the state of a ledger in memory for its writer.
	Close(ctx context.Context) (Sealed, error)

	// Reader gives a reader of this ledger that sees entries as soon as they
	// are acknowledged.
	Reader() Reader
}

// Degradable is a Writer that knows when the next ledger would be kept more safely
// than its own, because bookies failed that nobody could replace, for example.
type Degradable interface {
	// Degraded says so. It does not block; any goroutine may call it.
	Degraded() bool
}

// Reader reads one ledger. Its methods may be called from any goroutine.
type Reader interface {
	ID() ID

	// Last returns the last acknowledged entry known here and whether the
	// ledger is sealed, in which case it is final.
	Last() (entry int64, sealed bool)

	// Read reads whole consecutive entries from first on: at least one, then
	// as many as end at or before last while their lengths sum to at most
	// maxBytes. It may block on I/O. The result must be released.
	//
	// first beyond Last gives an empty result and no error, unless the ledger was
	// sealed by another process since, with more entries: those are read. A checksum
	// mismatch gives ErrCorrupt if it concerns first; entries before the bad
	// one are returned without an error.
	Read(ctx context.Context, first, last int64, maxBytes int) (Entries, error)

	// Close releases the handle; the ledger is not touched.
	Close() error
}

// Entries are consecutive entries in one piece of memory.
type Entries struct {
	First int64    // id of Data[0]
	Data  [][]byte // Head and Body of each, joined; read-only
	Buf   Buffer   // owner of Data; nil if garbage collected
}

// Release gives the memory back; Data must not be used after it, except by
// those who retained Buf.
func (e *Entries) Release() {
	if e.Buf != nil {
		e.Buf.Release()
		e.Buf = nil
	}
	e.Data = nil
}
