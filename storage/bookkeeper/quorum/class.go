package quorum

// Class is what the answer of a bookie means to the protocol. A code has the same
// class whatever was asked; each machine knows what the class means there.
//
//	EOK 0                                          Ack (of a read: only if digest, ledger and entry id match)
//	ENOLEDGER 1, ENOENTRY 2                        Negative
//	EBADREQ 100, EIO 101, EBADVERSION 103          Failure
//	EUA 102, an illegal operation                  Unauthorized
//	EFENCED 104                                    Fenced
//	EREADONLY 105                                  ReadOnly
//	ETOOMANYREQUESTS 106                           Busy (the caller may first have repeated the request once)
//	EUNKNOWNLEDGERSTATE 107, any other code,
//	timeout, refused or broken connection,
//	digest or id mismatch                          Unknown
type Class uint8

const (
	// Ack: the entry is stored and synced, or the read found it.
	Ack Class = iota + 1
	// Negative: the bookie vouches that it has no such entry. To an add: a failure.
	Negative
	// Fenced: a recovery has begun. It stops a writer for good.
	Fenced
	// Unauthorized: the master key is another one. It stops a writer and a recovery.
	Unauthorized
	// ReadOnly: the bookie takes no adds. The bookie is replaced.
	ReadOnly
	// Busy: the bookie sheds load. The bookie is replaced.
	Busy
	// Failure: the bookie tried and could not. The bookie is replaced.
	Failure
	// Unknown: nobody can say whether the bookie did what was asked. It never
	// helps a recovery to finish. The bookie is replaced.
	Unknown
)

func (c Class) String() string {
	names := [...]string{"none", "ack", "negative", "fenced", "unauthorized", "read-only", "busy", "failure", "unknown"}
	if int(c) < len(names) {
		return names[c]
	}
	return "invalid"
}
