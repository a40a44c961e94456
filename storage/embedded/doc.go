// Package embedded is the ledger tier of one machine: a bookie in this process.
//
//	Append ─► queue of the ledger ─► journal: group, write, sync ─► Appended
//	                                     │ same memory
//	                                     ▼
//	                     backlog ─► write-behind ─► ledger files ─► checkpoint ─► journal file is free again
//
// One goroutine owns the journal. It lays out what is queued as a group in a
// chunk of aligned memory, writes the group with one call, syncs, and only then
// lets readers see the entries and appenders know. Frames in the journal are the
// bytes of the ledger files, so the write-behind writes pieces of the same
// chunk, and a replay after a crash puts them where they were meant to be.
//
// Creating, sealing and deleting a ledger are records of the same journal, in
// the order of the ledger's appends: one sync for all of them, and a ledger
// costs a file only once its bytes move there.
//
// FORMAT.md describes every byte on disk and the rules of recovery.
package embedded
