// Package bookkeeper is the ledger tier on Apache BookKeeper: unmodified bookies
// keep the entries, replicated and fenced, and etcd (or ZooKeeper) their ledgers'
// metadata, in the layout that the bookies read.
package bookkeeper
