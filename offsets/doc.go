// Package offsets keeps what consumer groups have committed, in the metadata
// store: the keys and their encoding, commits that are coalesced and guarded by
// the owner's fence, and their expiry.
//
//	many requests ──► queue ──► batch ──► one transaction in flight ──► tables ──► answers
//	                    ▲                                     │
//	                    └── everything that comes meanwhile ──┘
//
// A Slot is what this node owns of it: the committed offsets of the groups of
// one slot, in memory. A Committer serves many slots. It puts what is queued for
// all of them into one transaction, in the order of the queue; the last write of
// a key wins within it. Group records go through the same queue, so the order of
// a new generation and of the commits around it is the order of the calls.
//
// Three rules always hold:
//
//  1. A transaction compares the owner record of each slot in it, and the
//     revision of the record of each group in it. Who has lost a slot writes
//     nothing, whatever it believes.
//  2. The transactions of a committer form a chain: each compares the
//     committer's sequence, and each that writes moves it on. A transaction that
//     was cut short and repeated takes effect at most once, and never after a
//     later one.
//  3. Shown and acknowledged means committed. A table changes, and an item is
//     answered without an error, only when a transaction is known to have been
//     executed that contains the item or a later write of the same key. What is
//     not known is read again.
package offsets
