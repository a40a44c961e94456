package bookkeeper

import (
	"errors"
	"fmt"

	"github.com/quirelog/quire/storage/bookkeeper/bookie"
	"github.com/quirelog/quire/storage/bookkeeper/quorum"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
	"github.com/quirelog/quire/storage/ledger"
)

// ErrUnavailable: too few bookies answer, or the metadata store does not. What
// was asked for may be there; try again later.
var ErrUnavailable = errors.New("too few bookies answer")

// classOf says what the outcome of a request means to the protocol. What is not
// an answer of the bookie is unknown.
func classOf(err error) quorum.Class {
	code, ok := wire.CodeOf(err)
	if !ok {
		return quorum.Unknown
	}
	switch code {
	case wire.OK:
		return quorum.Ack
	case wire.NoLedger, wire.NoEntry:
		return quorum.Negative
	case wire.BadRequest, wire.IOError, wire.BadVersion:
		return quorum.Failure
	case wire.Unauthorized:
		return quorum.Unauthorized
	case wire.Fenced:
		return quorum.Fenced
	case wire.ReadOnly:
		return quorum.ReadOnly
	case wire.TooManyRequests:
		return quorum.Busy
	}
	return quorum.Unknown
}

// blames says whether the outcome of a request speaks against the bookie: it did
// not answer, or could not do what any bookie can.
func blames(err error) bool {
	switch {
	case err == nil, errors.Is(err, bookie.ErrCanceled), errors.Is(err, bookie.ErrClosed), errors.Is(err, bookie.ErrOverloaded),
		errors.Is(err, wire.ErrCorrupt):
		return false
	}
	code, ok := wire.CodeOf(err)
	return !ok || code == wire.IOError || code == wire.TooManyRequests
}

// spoils says whether a bookie should not be the replacement of another one for a
// moment: it has just failed, or refused an add, as one does that has become
// read-only. Else two such bookies would replace each other without end.
func spoils(op wire.Op, err error) bool {
	if op == wire.OpAdd {
		if code, ok := wire.CodeOf(err); ok {
			return code != wire.OK && code != wire.Fenced && code != wire.Unauthorized
		}
	}
	return blames(err)
}

// wireFlags translates the flags of the machines.
func wireFlags(f quorum.Flags) wire.Flags {
	var w wire.Flags
	if f&quorum.Fence != 0 {
		w |= wire.DoFencing
	}
	if f&quorum.RecoveryAdd != 0 {
		w |= wire.RecoveryAdd
	}
	if f&quorum.HighPriority != 0 {
		w |= wire.HighPriority
	}
	return w
}

// writerError says in the contract's words why a writer stopped.
func writerError(err error) error {
	kind := ledger.ErrFailed
	switch {
	case errors.Is(err, quorum.ErrFenced):
		kind = ledger.ErrFenced
	case errors.Is(err, quorum.ErrDeleted):
		kind = ledger.ErrNotFound
	}
	return fmt.Errorf("%w: %w", kind, err)
}
