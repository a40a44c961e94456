// Package quorum holds BookKeeper's replication protocol as pure state machines:
// the Writer of a ledger and the Recovery of one whose writer is gone. Events go
// in as method calls, effects come out in order; there is no clock, no I/O and no
// goroutine, so that a simulator can drive them through any order of faults.
//
//	        Append, AddReply, BookieFailed, Stored, Conflict, Close …
//	shell ------------------------------------------------------------> machine
//	      <------------------------------------------------------------
//	        Send, Acknowledge, Release, Store, Degraded, Failed, Sealed …
//
// After each event the caller takes the effects and carries them out in order.
// The machines never see an entry's bytes, only ids and lengths. They are not
// safe for use from several goroutines: the caller holds one lock, or is one
// goroutine, per ledger, and issues its callbacks after unlocking.
//
// A writer whose bookie fails when no other can take its place goes on without it,
// as long as each entry has an ack quorum, and says Degraded. (BookKeeper's client
// fails the ledger then, so that on three bookies with ensembles of three one
// death ends every ledger.) Its entries are as safe as the ack quorum promises,
// but AutoRecovery will fence the ledger after a while: the caller rolls to another
// and has the missing replicas made once this one is closed. A recovery does the
// same, since the ledger of a dead writer must not stay open for want of a spare.
//
// A writer whose change of the ensemble the metadata store does not answer to knows
// neither whether the old ensemble is stored nor the new one. It acknowledges what has an
// ack quorum in both, after a while (StoreDelayed), and says Lacking. (BookKeeper's
// client waits.)
//
// What a machine keeps per entry lives from Append until Release. How many
// entries that may be is the caller's limit (entries and bytes in flight); the
// machines have none of their own but MaxEntries.
//
// The safety of the protocol rests on few rules, which rules.go lists one by one;
// the tests break each of them and see the simulator find the loss. They are
// those of the TLA+ models of Vanlightly (BookKeeperProtocol.tla) and of
// BookKeeper 4.17's LedgerHandle, PendingAddOp, ReadOnlyLedgerHandle and
// LedgerRecoveryOp.
package quorum
