// Package quorum holds BookKeeper's replication protocol as pure state machines:
// the writer of a ledger and the recovery of one whose writer is gone. Events go
// in, sends and outcomes come out; there is no clock, no I/O and no goroutine.
package quorum
