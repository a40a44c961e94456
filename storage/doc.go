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
// # Many nodes
//
// Stores of several nodes may share one Meta and one Tier. Who serves which log
// is decided elsewhere (StoreConfig.Serves); here that is a hint, and the rules above
// are what keeps the logs safe from nodes that believe the wrong thing. In order, a
// log goes from one node to the next by ReleaseSlot, which leaves nothing to recover:
// one read of the chain, one look at the last entry and one swap open it again.
//
// A ledger is made before it is linked, and a node may be stopped between the two
// for any time. So no age tells an orphan, and no clock is compared with another's:
//
//  1. The janitor takes a ledger that it found in no chain for OrphanAge of its own
//     clock. This keeps it from disturbing those that are at work, no more.
//  2. It reads the chain, and writes it back with another count of purges, if nobody
//     has written it since and the ledger is not in it. Then it deletes the ledger.
//  3. Whoever makes a ledger has read the count before, in the chain whose revision
//     its swap will name. A swap from before step 2 fails, since the revision is
//     another. The owner then takes the chain over as it is there; it links a ledger
//     only if the count is still the one from before the ledger was made.
//
// So either the link comes first, and the janitor's write fails, or that comes first,
// and the link fails, for ever. A log without a record has its first one written by the
// janitor; of a deleted topic no first record can be written (StoreConfig.TopicKey),
// and the janitor need not write either. The janitor may stop anywhere, and be two.
//
// DESIGN.md in this folder holds the format, the lock order and the crash cases.
package storage
