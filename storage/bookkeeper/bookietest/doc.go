// Package bookietest is a bookie for tests: the real protocol on a real socket,
// storage in memory, and faults by script.
//
// It does what bookies 4.17 were seen to do, also where that is inconvenient:
//
//   - The first add or fencing read of a ledger leaves its master key; others get
//     EUA and change nothing. Digests and metadata are not looked at.
//   - A fencing read makes the ledger if need be and fences it, also where it then
//     answers ENOENTRY, which it does without waiting for the journal.
//   - RECOVERY_ADD passes a fence; a plain add does not, not even of an entry that
//     is stored. An entry that is added again replaces the old one.
//   - A read of −1 gives the highest entry, acknowledged, synced or not.
//   - Adds are answered after the journal was synced; a crash loses what was not,
//     entries and fences.
//   - Requests of high priority and fencing reads have a pool of their own and
//     overtake others.
//   - Frames that are too long, or of an unknown operation, reset the connection.
package bookietest
