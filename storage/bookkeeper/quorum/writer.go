package quorum

import "github.com/quirelog/quire/storage/bookkeeper/metadata"

// Writer is the one writer of an open ledger. See the package comment for who
// may call it.
type Writer struct{}

// NewWriter returns the writer of ledger, which it has just created: OPEN, one
// segment, stored at version. It returns ErrMetadata if ledger is not that.
func NewWriter(ledger *metadata.Ledger, version metadata.Version, placement Placement) (*Writer, error) {
	panic("quorum: the contract alone")
}

// Effects appends to dst what is to be done since the last call, in order.
func (w *Writer) Effects(dst []Effect) []Effect { panic("quorum: the contract alone") }

// Append takes the next entry, whose payload has payloadBytes, and returns its
// id, the ledger's length with it and the last entry acknowledged so far: what the
// caller encodes into the entry, once, for all bookies and all repetitions.
// It returns ErrClosed after Close or a failure, ErrFull, and changes nothing then.
func (w *Writer) Append(payloadBytes int) (entry, length, lac int64, err error) {
	panic("quorum: the contract alone")
}

// AddReply is the answer of bookie at index to a Send of entry.
func (w *Writer) AddReply(entry int64, index int, bookie metadata.BookieID, class Class) {
	panic("quorum: the contract alone")
}

// BookieFailed tells that bookie should be replaced though no add to it has failed:
// its registration is gone for some seconds (AutoRecovery fences ledgers on it
// after 30), or it is to be drained.
func (w *Writer) BookieFailed(bookie metadata.BookieID) { panic("quorum: the contract alone") }

// BookieReturned tells that bookie, which was Degraded, takes adds again.
func (w *Writer) BookieReturned(bookie metadata.BookieID) { panic("quorum: the contract alone") }

// Retry tells that there may be bookies to replace Degraded ones with.
func (w *Writer) Retry() { panic("quorum: the contract alone") }

// Stored answers a Store: it was written and has version now.
func (w *Writer) Stored(version metadata.Version) { panic("quorum: the contract alone") }

// Conflict answers a Store: it was not written, because the store holds stored
// at version. stored is nil if the ledger is gone.
func (w *Writer) Conflict(stored *metadata.Ledger, version metadata.Version) {
	panic("quorum: the contract alone")
}

// StoreFailed answers a Store: the caller gave up on it, and it may or may not
// be written. The writer fails.
func (w *Writer) StoreFailed(err error) { panic("quorum: the contract alone") }

// Close takes no more appends, waits for those under way and closes the ledger:
// Sealed, or Failed and then Sealed or Unsealed.
func (w *Writer) Close() { panic("quorum: the contract alone") }

// Abort fails the writer because of err, an add that took too long for example.
// To fail one entry alone is impossible: the next ones would have a gap before them.
func (w *Writer) Abort(err error) { panic("quorum: the contract alone") }

// Settle tries again to close the ledger after Unsealed.
func (w *Writer) Settle() { panic("quorum: the contract alone") }

// LAC returns the last entry acknowledged, NoEntry if none.
func (w *Writer) LAC() int64 { panic("quorum: the contract alone") }

// Length returns the bytes of the payloads up to LAC.
func (w *Writer) Length() int64 { panic("quorum: the contract alone") }

// Pending returns how many entries are appended and not acknowledged.
func (w *Writer) Pending() int { panic("quorum: the contract alone") }

// Unreleased returns how many entries are appended and not released.
func (w *Writer) Unreleased() int { panic("quorum: the contract alone") }

// Degraded returns whether a position of the ensemble has no working bookie.
func (w *Writer) Degraded() bool { panic("quorum: the contract alone") }

// Changing returns whether a change of the ensemble is being stored, during
// which nothing is acknowledged.
func (w *Writer) Changing() bool { panic("quorum: the contract alone") }

// Metadata returns the ledger's metadata as last known to be stored; read-only.
func (w *Writer) Metadata() (*metadata.Ledger, metadata.Version) { panic("quorum: the contract alone") }
