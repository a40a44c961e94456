package wire

import (
	"errors"
	"strconv"
)

// Code is what a bookie answers (BookieProtocol). Every Code but OK is an error
// value too, so that errors.Is(err, wire.Fenced) works on what wraps it.
type Code int32

// The codes of version 2.
const (
	OK Code = 0
	// NoLedger: the bookie has nothing of the ledger. A valid negative answer.
	NoLedger Code = 1
	// NoEntry: the bookie knows the ledger and not the entry. A valid negative
	// answer; a fencing read of a ledger unknown until then gets it too.
	NoEntry Code = 2
	// BadRequest: the bookie could not read the request or failed unexpectedly.
	BadRequest Code = 100
	// IOError: storage failed.
	IOError Code = 101
	// Unauthorized: another master key, or a bookie that wants authentication.
	Unauthorized Code = 102
	// BadVersion: a frame of a version that the bookie does not know.
	BadVersion Code = 103
	// Fenced: somebody is recovering the ledger, or has.
	Fenced Code = 104
	// ReadOnly: the bookie takes no adds, for a full disk mostly.
	ReadOnly Code = 105
	// TooManyRequests: a queue of the bookie is full.
	TooManyRequests Code = 106
	// UnknownLedgerState: the bookie lost what it knew of the ledger and may not
	// say that an entry is absent (limbo, BP-46).
	UnknownLedgerState Code = 107
)

func (c Code) String() string {
	switch c {
	case OK:
		return "EOK"
	case NoLedger:
		return "ENOLEDGER"
	case NoEntry:
		return "ENOENTRY"
	case BadRequest:
		return "EBADREQ"
	case IOError:
		return "EIO"
	case Unauthorized:
		return "EUA"
	case BadVersion:
		return "EBADVERSION"
	case Fenced:
		return "EFENCED"
	case ReadOnly:
		return "EREADONLY"
	case TooManyRequests:
		return "ETOOMANYREQUESTS"
	case UnknownLedgerState:
		return "EUNKNOWNLEDGERSTATE"
	}
	return "code " + strconv.Itoa(int(c))
}

func (c Code) Error() string {
	switch c {
	case OK:
		return "no error (EOK)"
	case NoLedger:
		return "bookie has no such ledger (ENOLEDGER)"
	case NoEntry:
		return "bookie has no such entry (ENOENTRY)"
	case BadRequest:
		return "bookie calls the request bad (EBADREQ)"
	case IOError:
		return "storage of the bookie failed (EIO)"
	case Unauthorized:
		return "bookie refuses the ledger's password (EUA)"
	case BadVersion:
		return "bookie does not speak this version (EBADVERSION)"
	case Fenced:
		return "ledger is fenced (EFENCED)"
	case ReadOnly:
		return "bookie is read-only (EREADONLY)"
	case TooManyRequests:
		return "bookie sheds load (ETOOMANYREQUESTS)"
	case UnknownLedgerState:
		return "bookie does not know what it had of the ledger (EUNKNOWNLEDGERSTATE)"
	}
	return "bookie answers with the unknown code " + strconv.Itoa(int(c))
}

// CodeOf returns the code that a bookie answered, if err wraps one. A timeout, a
// broken connection or a corrupt entry has none.
func CodeOf(err error) (Code, bool) {
	if err == nil {
		return OK, true // before c, which is allocated
	}
	var c Code
	if errors.As(err, &c) {
		return c, true
	}
	return OK, false
}
