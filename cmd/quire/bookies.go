package main

import (
	"cmp"
	"errors"
	"fmt"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/etcd"
)

// bookieEndpoints are the members of the etcd cluster that the bookies register in.
func bookieEndpoints(c *config) []string {
	return splitList(cmp.Or(c.str("bookkeeper.metadata.endpoints"), c.str("etcd.endpoints")))
}

// bookieMetadata reaches the metadata of the bookies' ledgers. The caller calls done
// after its last use.
func bookieMetadata(c *config, log *zap.Logger) (store *etcd.Store, done func() error, err error) {
	// Errors are returned as well, and told once.
	log = log.Named("etcd").WithOptions(zap.IncreaseLevel(zapcore.InvalidLevel))
	cluster, err := etcdCluster(c, bookieEndpoints(c), log)
	if err != nil {
		return nil, nil, err
	}
	client, err := cluster.Dial()
	if err != nil {
		return nil, nil, err
	}
	return etcd.New(etcd.Config{Client: client}), client.Close, nil
}

// explainBookies says what to do about a tier of bookies that does not open.
func explainBookies(c *config, err error) error {
	at := bookieEndpoints(c)
	switch {
	case errors.Is(err, metadata.ErrNotInitialised):
		return fmt.Errorf("etcd at %s knows of no BookKeeper cluster: make one with BookKeeper's shell (initnewcluster), or check bookkeeper.metadata.endpoints", at)
	case errors.Is(err, metadata.ErrUnavailable):
		return fmt.Errorf("etcd at %s, where bookies register: %w: check that it runs, and bookkeeper.metadata.endpoints, etcd.tls.* and etcd.username", at, err)
	}
	return fmt.Errorf("bookies of the cluster in etcd at %s: %w", at, err)
}

// checkTierSet checks what the keys of the tiers say together.
func checkTierSet(c *config) error {
	if c.str("storage.tier") == tierBookKeeper && len(bookieEndpoints(c)) == 0 {
		return fmt.Errorf("%s: storage.tier is %s and neither etcd.endpoints nor bookkeeper.metadata.endpoints say where the bookies register", c.get("storage.tier").Where, tierBookKeeper)
	}
	ensemble, write, ack := "bookkeeper.ensemble", "bookkeeper.write.quorum", "bookkeeper.ack.quorum"
	for _, pair := range [][2]string{{write, ensemble}, {ack, write}} {
		if less, more := c.number(pair[0]), c.number(pair[1]); less > more {
			where := cmp.Or(c.get(pair[0]).Where, c.get(pair[1]).Where)
			return fmt.Errorf("%s: %s is %d and %s is %d: a ledger cannot have more copies than bookies, nor more acknowledgements than copies", where, pair[0], less, pair[1], more)
		}
	}
	return nil
}
