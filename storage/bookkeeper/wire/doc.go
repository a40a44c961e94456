// Package wire is the protocol that bookies speak, as bytes: frames of version 2,
// stored entries and their digests. It does no I/O.
//
// A frame is its length in 4 bytes (which do not count) and a payload. All
// integers are big-endian and signed. A bookie decides for each connection by its
// first frame whether it speaks version 2 or 3 (protobuf); only START_TLS, always
// of version 3, may come before frames of version 2 (BookieProtoEncoding).
//
//	ADD     length4 | header4 | master key20 | ledger8 entry8 lac8 length8 digest payload
//	READ    length4 | header4 | ledger8 entry8 [| master key20 if it fences]
//	BATCH   length4 | header4 | ledger8 first8 request8 entries4 bytes8 [| master key20 if it fences]
//	answer  length4 | header4 | code4 | ledger8 entry8 | body
//
// Answers of ADD and READ carry no request id: they are told apart by operation,
// ledger and entry, so a connection has at most one of each under way.
package wire
