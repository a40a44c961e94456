// Package bookkeeper is the ledger tier on Apache BookKeeper: unmodified bookies
// keep the entries, replicated and fenced, and etcd (or ZooKeeper) their ledgers'
// metadata, in the layout that the bookies read.
//
// The protocol is in package quorum, which decides and does nothing; this package
// does and decides nothing: it owns connections, clocks, goroutines and payloads.
//
//	Writer.Append ─> writer (one lock) ─> quorum.Writer ─> effects ─┬─> bookie.Client.Add
//	   Appended  <─ in order, no lock   <─ AddReply, Stored … <─────┴─> metadata.Store.Update
//
// Appended is called on the goroutine that brought the answer (of a connection, or
// of a change of metadata), or, if the append never got that far, on the tier's
// own; one at a time per ledger.
//
// Locks, in the order in which they may be taken: writer.mu, ledgerState.mu,
// members.mu. Tier.mu is taken with none of them held. No callback out of the
// package and no I/O happens under any; handing a request to a bookie.Client does.
package bookkeeper
