package quorum

import (
	"errors"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// Errors in the effects of a machine, wrapped with the ledger they concern.
var (
	// ErrFenced: a recovery of the ledger has begun. Whether it keeps the
	// entries that were not acknowledged is known once the ledger is closed.
	ErrFenced = errors.New("ledger is fenced by a recovery")
	// ErrClosed: the machine takes no more appends.
	ErrClosed = errors.New("ledger is closed")
	// ErrUnauthorized: a bookie knows the ledger by another master key.
	ErrUnauthorized = errors.New("bookie refuses the ledger's password")
	// ErrNotEnoughBookies: some entry can no longer reach its ack quorum and
	// there is no bookie to replace one with.
	ErrNotEnoughBookies = errors.New("not enough bookies for the ack quorum")
	// ErrNotCovered: too many bookies of the last segment did not answer the
	// fencing reads; the writer could still be acknowledged. Try again later.
	ErrNotCovered = errors.New("too few bookies answered the fencing reads")
	// ErrUndecided: no bookie has the entry and too few vouch for its absence.
	// Try again later.
	ErrUndecided = errors.New("cannot tell whether the entry was acknowledged")
	// ErrMetadata: the stored metadata are not what this protocol writes, for
	// example a last segment that is not the writer's.
	ErrMetadata = errors.New("ledger metadata were changed by somebody else")
	// ErrDeleted: the ledger's metadata are gone, and with them the ledger.
	ErrDeleted = errors.New("ledger was deleted")
	// ErrDiverged: the ledger was closed without an entry that this writer has
	// acknowledged, or with more than it wrote. It cannot happen while bookies
	// keep what they synced.
	ErrDiverged = errors.New("ledger was closed elsewhere at another end than its writer knows")
	// ErrFull: the ledger has MaxEntries entries.
	ErrFull = errors.New("ledger has as many entries as it can take")
)

// Kind says what an Effect asks for.
type Kind uint8

const (
	// Send: add Entry to Bookie, which is at Index of the ensemble, with Flags.
	// The answer, a timeout included, comes back as AddReply.
	Send Kind = iota + 1
	// ReadLast: read the last entry (−1) of Bookie with Flags and the master
	// key. The answer comes back as LastReply.
	ReadLast
	// Read: read Entry from Bookie with Flags and the master key. The answer
	// comes back as ReadReply.
	Read
	// Acknowledge: the entries First…Entry are acknowledged, in this order. Only
	// a Writer says it, and each entry once.
	Acknowledge
	// Release: every bookie that Entry was sent to has answered or was replaced,
	// and its bytes may be given back. (It is not sent again after Acknowledge
	// already: who gives bytes back by the Send need not wait for Release.)
	// Entries are not released in order. After Failed and after Sealed nothing is sent any more
	// and nothing is released one by one: all bytes may be given back, of a
	// Writer once the outcome of its entries is settled.
	Release
	// Store: write Ledger if the stored version is still Version. The answer
	// comes back as Stored, Conflict or StoreFailed; until then no other Store
	// follows. A write whose outcome is unknown is repeated as it is until the
	// store answers one way or the other (a read does not tell: the first attempt may
	// still be on its way). Ledger belongs to the machine: read-only.
	Store
	// Degraded: Bookie at Index failed and there is nobody to replace it.
	// Entries from now on have fewer replicas, but no fewer than the ack quorum.
	// The caller rolls to another ledger before AutoRecovery fences this one, and
	// marks it under-replicated once it is closed; that of a Recovery does the latter.
	Degraded
	// Lacking: Bookie at Index, which takes entries from now on, does not get all that
	// are acknowledged already. Only a Writer says it. The caller marks the ledger
	// under-replicated once it is closed.
	Lacking
	// Failed: the machine stopped for good because of Err. A Writer goes on to
	// settle the ledger: Sealed or Unsealed follows, and until then the entries
	// that it has not acknowledged are neither in the ledger nor out of it. A
	// Recovery is over; the ledger stays as it is for the next one.
	Failed
	// Sealed: the ledger is CLOSED as Ledger at Version says. Entries up to its
	// LastEntry are in it for ever, others never; of entries after Failed the ones
	// up to LastEntry count as acknowledged. Err is nil or ErrDiverged. Last effect.
	Sealed
	// Unsealed: the failed or closing writer could not close the ledger because
	// of Err: somebody must run a Recovery, or, while another does or if the
	// metadata store did not answer, call Settle again. Ledger is what is known to
	// be stored, if anything.
	Unsealed
)

func (k Kind) String() string {
	names := [...]string{"none", "Send", "ReadLast", "Read", "Acknowledge", "Release", "Store", "Degraded", "Lacking", "Failed", "Sealed", "Unsealed"}
	if int(k) < len(names) {
		return names[k]
	}
	return "invalid"
}

// Flags go with a request; the caller translates them into the wire's.
type Flags uint8

const (
	// Fence: the read fences the ledger on the bookie (DO_FENCING).
	Fence Flags = 1 << iota
	// RecoveryAdd: the add passes a fence (RECOVERY_ADD).
	RecoveryAdd
	// HighPriority: the request passes those of clients, and an add is taken by a
	// read-only bookie too (HIGH_PRIORITY).
	HighPriority
)

// Effect is one thing that a machine wants done. Which fields are set is said
// with each Kind.
type Effect struct {
	Kind    Kind
	Flags   Flags
	Index   int32 // in the ensemble of Entry
	Entry   int64
	First   int64
	Bookie  metadata.BookieID
	Ledger  *metadata.Ledger
	Version metadata.Version
	Err     error
}

// Placement chooses bookies to replace failed ones with. The machines call it
// in the middle of an event: it must answer from what it knows, without blocking,
// and must not call the machine.
type Placement interface {
	// Replace returns a writable bookie for position index of ensemble that is
	// not in ensemble, or false if there is none. It is for Replace to keep away
	// from bookies that failed a moment ago.
	Replace(ensemble []metadata.BookieID, index int) (metadata.BookieID, bool)
}
