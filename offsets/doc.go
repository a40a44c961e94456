// Package offsets keeps what consumer groups have committed: the keys and
// encoding in the metadata store, commits that are coalesced and guarded by the
// owner's fence, and their expiry.
package offsets
