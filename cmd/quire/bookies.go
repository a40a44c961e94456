package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/etcd"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/zookeeper"
)

// bookieURI says where the bookies register: in etcd or in ZooKeeper.
type bookieURI struct {
	etcd []string // endpoints; none if there are servers of ZooKeeper
	// zookeeper are the servers, host:port each, and root the node below which
	// everything lies.
	zookeeper []string
	root      string
}

func (u bookieURI) set() bool { return len(u.etcd)+len(u.zookeeper) > 0 }

// String is for messages.
func (u bookieURI) String() string {
	if u.zookeeper != nil {
		return fmt.Sprintf("ZooKeeper at %s%s", strings.Join(u.zookeeper, ","), u.root)
	}
	return fmt.Sprintf("etcd at %s", u.etcd)
}

// etcdURI begins the URIs of Pulsar's driver for etcd.
const etcdURI = "metadata-store:etcd:"

// parseBookieURI reads a bookie's metadataServiceUri. The drivers separate servers by
// semicolons; commas are taken too, as zkServers has them.
func parseBookieURI(v string) (bookieURI, error) {
	if endpoints, ok := strings.CutPrefix(v, etcdURI); ok {
		endpoints, _, _ = strings.Cut(endpoints, "?") // of the driver: how it batches and reads its TLS files
		endpoints = strings.ReplaceAll(endpoints, ";", ",")
		if len(splitList(endpoints)) == 0 {
			return bookieURI{}, fmt.Errorf("must be %shttp://host:port, not %q", etcdURI, v)
		}
		if err := checkEtcdEndpoints(endpoints); err != nil {
			return bookieURI{}, fmt.Errorf("after %s: %w", etcdURI, err)
		}
		return bookieURI{etcd: splitList(endpoints)}, nil
	}
	scheme, rest, ok := strings.Cut(v, "://")
	if !ok {
		return bookieURI{}, fmt.Errorf("must begin with zk+hierarchical:// or %s, not be %q", etcdURI, v)
	}
	driver, layout, _ := strings.Cut(scheme, "+")
	switch {
	case driver != "zk":
		return bookieURI{}, fmt.Errorf("must begin with zk+hierarchical:// or %s, not %s://", etcdURI, scheme)
	case layout != "" && layout != "null" && layout != "hierarchical":
		return bookieURI{}, fmt.Errorf("has the layout %s: ledgers are found in hierarchical alone", layout)
	}
	hosts, path, _ := strings.Cut(rest, "/")
	u := bookieURI{zookeeper: splitList(strings.ReplaceAll(hosts, ";", ",")), root: "/" + path}
	for _, server := range u.zookeeper {
		if err := checkHostPort(server); err != nil {
			return bookieURI{}, fmt.Errorf("server %q: %w", server, err)
		}
	}
	if len(u.zookeeper) == 0 || path == "" || strings.HasSuffix(path, "/") || strings.Contains(path, "//") || strings.ContainsAny(path, "?#") {
		return bookieURI{}, fmt.Errorf("must be zk+hierarchical://host:port;host:port/ledgers, not %q", v)
	}
	return u, nil
}

func checkBookieURI(v string) error {
	_, err := parseBookieURI(v)
	return err
}

// bookiesAt is where the bookies register by the configuration, which was checked.
func bookiesAt(c *config) bookieURI {
	if uri := c.str("bookkeeper.metadata.service.uri"); uri != "" {
		u, _ := parseBookieURI(uri)
		return u
	}
	return bookieURI{etcd: splitList(cmp.Or(c.str("bookkeeper.metadata.endpoints"), c.str("etcd.endpoints")))}
}

// bookieMetadata reaches the metadata of the bookies' ledgers. The caller calls done
// after its last use.
func bookieMetadata(c *config, log *zap.Logger) (store metadata.Store, done func() error, err error) {
	at := bookiesAt(c)
	if at.zookeeper != nil {
		s, err := zookeeper.Open(zookeeper.Config{Servers: at.zookeeper, Root: at.root, Logf: log.Named("zookeeper").Sugar().Debugf})
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	}
	// Errors are returned as well, and told once.
	log = log.Named("etcd").WithOptions(zap.IncreaseLevel(zapcore.InvalidLevel))
	cluster, err := etcdCluster(c, at.etcd, log)
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
	at := bookiesAt(c)
	key := "bookkeeper.metadata.endpoints"
	if c.str("bookkeeper.metadata.service.uri") != "" {
		key = "bookkeeper.metadata.service.uri"
	}
	switch {
	case errors.Is(err, metadata.ErrNotInitialised):
		return fmt.Errorf("%s knows of no BookKeeper cluster: make one with BookKeeper's shell (initnewcluster), or check %s", at, key)
	case errors.Is(err, metadata.ErrUnavailable) && at.zookeeper != nil:
		return fmt.Errorf("%s, where bookies register: %w: check that it runs, and %s", at, err, key)
	case errors.Is(err, metadata.ErrUnavailable):
		return fmt.Errorf("%s, where bookies register: %w: check that it runs, and %s, etcd.tls.* and etcd.username", at, err, key)
	}
	return fmt.Errorf("bookies of the cluster in %s: %w", at, err)
}

// bookieTLS is how to talk to the bookies; nil: without TLS.
func bookieTLS(c *config) (*tls.Config, error) {
	if !c.boolean("bookkeeper.tls.enable") {
		return nil, nil
	}
	return clientTLS(c, "bookkeeper.tls.")
}

// checkTierSet checks what the keys of the tiers say together.
func checkTierSet(c *config) error {
	const uri, endpoints = "bookkeeper.metadata.service.uri", "bookkeeper.metadata.endpoints"
	if c.str(uri) != "" && c.str(endpoints) != "" {
		return fmt.Errorf("%s: %s is set and so is %s: one of them says where the bookies register", c.get(uri).Where, uri, endpoints)
	}
	if c.str("storage.tier") == tierBookKeeper && !bookiesAt(c).set() {
		return fmt.Errorf("%s: storage.tier is %s and none of etcd.endpoints, %s and %s says where the bookies register", c.get("storage.tier").Where, tierBookKeeper, endpoints, uri)
	}
	const enable = "bookkeeper.tls.enable"
	for i := range catalog {
		name := catalog[i].Name
		if strings.HasPrefix(name, "bookkeeper.tls.") && name != enable && c.str(name) != "" && !c.boolean(enable) {
			return fmt.Errorf("%s: %s is set and %s is not true", c.get(name).Where, name, enable)
		}
	}
	if err := checkPair(c, "bookkeeper.tls.cert.file", "bookkeeper.tls.key.file"); err != nil {
		return err
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
