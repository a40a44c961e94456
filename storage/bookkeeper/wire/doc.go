// Package wire is the protocol that bookies speak, as bytes: frames of version 2,
// stored entries and their digests. It does no I/O.
package wire
