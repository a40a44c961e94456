// Package storage keeps each partition of a topic as one log of record batches.
//
// A log is a chain of ledgers. All but the last are sealed and never change;
// the last takes appends from the log's one owner.
//
//	offset 0         4102        9870
//	       [ledger 7 ][ledger 9  ][ledger 12 ...
//	        sealed     sealed      takes appends, epoch 5
//
// The chain is a small fact and lives in storage/meta. The batches are bytes
// and live in a ledger.Tier. The two cannot change together, so order matters:
// a ledger enters the chain before its first append, and its bytes are deleted
// only after it has left. A crash in between leaves an empty ledger, which the
// next OpenLog drops, or an orphan, which the janitor of the Store deletes.
//
// Four rules always hold:
//
//  1. One owner. Opening a log fences its older owner, then reads the end, then
//     swaps the chain with the next leader epoch, and serves nothing before that.
//  2. Offsets are dense. A batch gets its offset in the order of Append, and a
//     failed append fails everything queued behind it.
//  3. Served means durable. Readers see offsets below the high watermark, which
//     moves only when the tier has acknowledged, in order, across ledgers too.
//  4. The log explains itself. Producer state, open transactions and the index
//     come from the entries alone, so what is remembered is what is stored.
//
// DESIGN.md in this folder holds the format, the lock order and the crash cases.
package storage
