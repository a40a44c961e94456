// Package metadata is what Apache BookKeeper's bookies and clients agree on
// outside the bookies: the metadata of ledgers, who the bookies are, and which
// ledgers lack replicas.
package metadata

import "slices"

// BookieID names a bookie for the life of its data (BP-41): host:port unless its
// operator chose another. A name is no address: see Bookie.
type BookieID string

// Valid says whether bookies accept the id as one (BookieId).
func (id BookieID) Valid() bool {
	if id == "" || id == "readonly" {
		return false
	}
	for i := range len(id) {
		// BookKeeper's expression has the range from ':' to '_' in it.
		if c := id[i]; !(c >= '0' && c <= '_' || c >= 'a' && c <= 'z' || c == '-' || c == '.') {
			return false
		}
	}
	return true
}

// State is where a ledger is in its life. It only ever moves forward, except
// that a recovery may be begun again.
type State int8

// The states, numbered as in LedgerMetadataFormat.
const (
	Open       State = 1
	InRecovery State = 2
	Closed     State = 3
)

func (s State) String() string {
	switch s {
	case Open:
		return "OPEN"
	case InRecovery:
		return "IN_RECOVERY"
	case Closed:
		return "CLOSED"
	}
	return "unknown"
}

// Digest is how the entries of a ledger are protected.
type Digest int8

// The digests, numbered as in LedgerMetadataFormat.
const (
	CRC32  Digest = 1
	HMAC   Digest = 2
	CRC32C Digest = 3
	Dummy  Digest = 4
)

func (d Digest) String() string {
	switch d {
	case CRC32:
		return "CRC32"
	case HMAC:
		return "HMAC"
	case CRC32C:
		return "CRC32C"
	case Dummy:
		return "DUMMY"
	}
	return "unknown"
}

// NoEntry is the last entry of a ledger without entries, and of one that is not closed.
const NoEntry int64 = -1

// Version is the revision of a ledger's metadata in its store, which every
// change is compared with.
type Version int64

// Segment is an ensemble and the first entry that it takes. Entry e goes to
// Bookies[(e+i) mod len(Bookies)] for i in 0…WriteQuorum-1, of the last segment
// whose First is at most e.
type Segment struct {
	First   int64
	Bookies []BookieID

	unknown []byte // fields of a newer BookKeeper
}

// Ledger is the metadata of one ledger (LedgerMetadataFormat, version 3).
type Ledger struct {
	ID          int64
	Ensemble    int // bookies in each segment
	WriteQuorum int // replicas of each entry
	AckQuorum   int // replicas that make an entry acknowledged
	State       State
	LastEntry   int64 // of a closed ledger, else NoEntry
	Length      int64 // bytes of the payloads of a closed ledger
	Digest      Digest
	Password    []byte    // not a secret: it is stored in clear
	Segments    []Segment // by First, the first of which is 0
	Custom      map[string][]byte
	CToken      int64 // chosen by the creator, to know its own write again
	CreatedMS   int64 // 0: not recorded

	unknown []byte // fields of a newer BookKeeper, written back as they are
}

// EnsembleAt returns the segment that entry belongs to.
func (l *Ledger) EnsembleAt(entry int64) Segment {
	i := len(l.Segments) - 1
	for i > 0 && l.Segments[i].First > entry {
		i--
	}
	return l.Segments[i]
}

// Last returns the last segment.
func (l *Ledger) Last() Segment { return l.Segments[len(l.Segments)-1] }

// Clone returns a copy that shares nothing that changes.
func (l *Ledger) Clone() *Ledger {
	c := *l
	c.Segments = slices.Clone(l.Segments)
	for i := range c.Segments {
		c.Segments[i].Bookies = slices.Clone(c.Segments[i].Bookies)
	}
	return &c
}
