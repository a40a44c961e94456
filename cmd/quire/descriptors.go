package main

import "go.uber.org/zap"

// shares is how the files that the process may have open are divided. Connections that
// took all would leave nothing to open files with, and neither the ledgers nor etcd
// could be written: clients that open connections without end would end the server.
type shares struct {
	connections int // of clients and other nodes
	ledgers     int // ledger files; each may be open twice
}

// othersShare is enough for what has no bound of its own: the journal, etcd, bookies,
// links to other nodes, the admin listener.
const othersShare = 512

// of divides limit descriptors. connections and ledgers are what the configuration
// allows; what is less than its share stays as it is.
func (s shares) of(limit int) shares {
	s.ledgers = min(s.ledgers, max(limit/8, 16))
	s.connections = min(s.connections, max(limit-2*s.ledgers-min(limit/4, othersShare), 1))
	return s
}

// descriptors returns how many connections and ledger files there may be, and says so
// where that is less than somebody has set.
func (n *node) descriptors() shares {
	c := n.config
	set := shares{connections: int(c.number("max.connections")), ledgers: int(c.number("ledger.max.open.files"))}
	limit := descriptorLimit()
	have := set.of(limit)
	if c.isSet("max.connections") && have.connections < set.connections || c.isSet("ledger.max.open.files") && have.ledgers < set.ledgers {
		n.log.Warn("the limit of open files (ulimit -n) allows less than is configured", zap.Int("limit", limit),
			zap.Int("max.connections", have.connections), zap.Int("ledger.max.open.files", have.ledgers))
	}
	return have
}
