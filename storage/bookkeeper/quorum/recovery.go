package quorum

import "github.com/quirelog/quire/storage/bookkeeper/metadata"

// Recovery closes a ledger whose writer is gone, or is to be stopped: it fences
// the writer, finds the last entry, brings what may have been acknowledged to
// the ack quorum and closes the ledger there. Any number of recoveries may run on a
// ledger at once; all end with the same ledger.
//
// It needs no spare bookie, as long as ack quorums can be had in the last segment.
type Recovery struct{}

// Last is what a bookie answers to the read of its last entry.
type Last struct {
	Entry  int64 // the entry's id
	LAC    int64 // last entry acknowledged when Entry was written
	Length int64 // bytes of the payloads up to and with Entry
}

// NewRecovery returns the recovery of ledger, stored at version. readAhead is how
// many entries are read at once (and how many payloads beside those not yet
// released the caller must hold), at least 1. It returns ErrMetadata if ledger
// breaks the rules of its shape. Nothing happens before Start.
func NewRecovery(ledger *metadata.Ledger, version metadata.Version, placement Placement, readAhead int) (*Recovery, error) {
	panic("quorum: the contract alone")
}

// Effects appends to dst what is to be done since the last call, in order. The
// last is Sealed or Failed.
func (r *Recovery) Effects(dst []Effect) []Effect { panic("quorum: the contract alone") }

// Start begins.
func (r *Recovery) Start() { panic("quorum: the contract alone") }

// LastReply is the answer of bookie at index to a ReadLast; last counts if class
// is Ack.
func (r *Recovery) LastReply(index int, bookie metadata.BookieID, class Class, last Last) {
	panic("quorum: the contract alone")
}

// ReadReply is the answer of bookie at index to a Read of entry. length is the
// entry's length field and counts if class is Ack. If keep is true the caller
// keeps the entry until its Release or the end: a Send repeats it as it was read,
// its LAC and length included.
func (r *Recovery) ReadReply(entry int64, index int, bookie metadata.BookieID, class Class, length int64) (keep bool) {
	panic("quorum: the contract alone")
}

// AddReply is the answer of bookie at index to a Send of entry.
func (r *Recovery) AddReply(entry int64, index int, bookie metadata.BookieID, class Class) {
	panic("quorum: the contract alone")
}

// Stored answers a Store: it was written and has version now.
func (r *Recovery) Stored(version metadata.Version) { panic("quorum: the contract alone") }

// Conflict answers a Store: it was not written, because the store holds stored
// at version. stored is nil if the ledger is gone.
func (r *Recovery) Conflict(stored *metadata.Ledger, version metadata.Version) {
	panic("quorum: the contract alone")
}

// StoreFailed answers a Store: the caller gave up on it. The recovery fails.
func (r *Recovery) StoreFailed(err error) { panic("quorum: the contract alone") }

// Done returns whether the recovery is over, by Sealed or by Failed.
func (r *Recovery) Done() bool { panic("quorum: the contract alone") }
