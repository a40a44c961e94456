// Package bookie holds the connections to one bookie.
//
// A Client has few connections, each for some of the requests, so that none waits
// behind others that have nothing to do with it:
//
//	adds              by ledger over Config.AddConnections
//	reads             by ledger over Config.ReadConnections
//	high priority     one: fencing, and the reads and adds of a recovery
//
// Each connection is opened when it is first needed and kept. One goroutine
// writes what is queued, many requests with one writev: while the bookie syncs some
// adds, the next ones gather. An add to a bookie that owes no answer to any, and whose
// writer has nothing to do, is written by the goroutine that makes it, which never
// waits. A second goroutine reads the answers and calls the handlers. An add's bytes are not
// copied: a Packet is shared by the adds of all replicas and holds its payload until
// every one of them is written and answered, or given up.
//
// The protocol has no request ids. A connection has therefore at most one request
// of an operation, ledger and entry under way; a second waits behind it, also
// behind one that nobody waits for any more, since a late answer to the first
// would pass for one to the second. A bookie that owes an answer for twice the
// timeout (the request's or the client's, whichever is longer) loses its
// connection, which ends both.
package bookie
