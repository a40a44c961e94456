package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/quirelog/quire/storage/meta/etcd"
)

// openMetadata opens the etcd that keeps the metadata: the cluster of
// etcd.endpoints, or the one inside this process.
func (n *node) openMetadata(ctx context.Context) error {
	// etcd logs what it returns as an error as well, in several lines. Nothing
	// of that is for those who read why a start failed.
	level := zap.NewAtomicLevelAt(zapcore.InvalidLevel)
	log := n.log.Named("etcd").WithOptions(zap.IncreaseLevel(level))
	open := n.openEmbeddedMetadata
	if n.config.str("etcd.endpoints") != "" {
		open = n.openClusterMetadata
	}
	if err := open(ctx, log); err != nil {
		return err
	}
	level.SetLevel(zap.WarnLevel)
	return nil
}

func (n *node) openEmbeddedMetadata(ctx context.Context, log *zap.Logger) error {
	n.name = cmp.Or(n.config.str("node.name"), onlyNode)
	used, err := n.folder.has(ledgersDir)
	if err != nil {
		return err
	}
	own, err := n.folder.has(etcdDir)
	if err != nil {
		return err
	}
	if used && !own {
		named, err := n.folder.has(idFile)
		if err != nil {
			return err
		}
		if !named {
			return fmt.Errorf("data folder %s has records and no folder %s with their metadata: put it back, from a backup if need be, or choose another data folder with --data-dir", n.folder.dir, etcdDir)
		}
		return fmt.Errorf("data folder %s holds records whose metadata is in an etcd cluster: set etcd.endpoints or choose another folder with --data-dir", n.folder.dir)
	}
	dir := n.folder.path(etcdDir)
	n.meta, err = etcd.OpenEmbedded(ctx, etcd.EmbeddedConfig{
		Dir:       dir,
		Logger:    log,
		OnFailure: func(err error) { n.fail(explainFailure(dir, err)) },
	})
	if err != nil {
		return explainFolder(dir, err)
	}
	n.closeMetadata()
	return nil
}

func (n *node) openClusterMetadata(ctx context.Context, log *zap.Logger) error {
	own, err := n.folder.has(etcdDir)
	if err != nil {
		return err
	}
	if own {
		return fmt.Errorf("data folder %s has its metadata inside: remove etcd.endpoints or choose another folder with --data-dir", n.folder.dir)
	}
	c, err := etcdCluster(n.config, splitList(n.config.str("etcd.endpoints")), log)
	if err != nil {
		return err
	}
	c.OnFailure = func(err error) { n.fail(wentBack(c.Endpoints, err.Error())) }
	n.meta, err = etcd.Open(ctx, c)
	if err != nil {
		return fmt.Errorf("%w: check that it runs, and etcd.endpoints, etcd.tls.* and etcd.username", err)
	}
	n.closeMetadata()
	if err := n.bindFolder(ctx); err != nil {
		return err
	}
	if err := n.openRestoreWatch(ctx); err != nil {
		return err
	}
	return n.awaitCompany(ctx)
}

// etcdCluster is how to reach the members of an etcd cluster at endpoints.
func etcdCluster(c *config, endpoints []string, log *zap.Logger) (etcd.ClusterConfig, error) {
	cluster := etcd.ClusterConfig{
		Endpoints: endpoints, Username: c.str("etcd.username"), Password: c.str("etcd.password"), Logger: log,
	}
	var err error
	if strings.HasPrefix(endpoints[0], "https://") {
		cluster.TLS, err = clientTLS(c, "etcd.tls.")
	}
	return cluster, err
}

func (n *node) closeMetadata() {
	n.onClose("metadata store", func(context.Context) error { return n.meta.Close() })
}

// clientTLS is how to talk to servers that have certificates, as the keys say whose
// names begin with prefix.
func clientTLS(c *config, prefix string) (*tls.Config, error) {
	ca, cert, key := prefix+"ca.file", prefix+"cert.file", prefix+"key.file"
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.str(prefix + "server.name")}
	if file := c.str(ca); file != "" {
		pool, err := readCertificates(ca, file)
		if err != nil {
			return nil, err
		}
		t.RootCAs = pool
	}
	if c.str(cert) != "" {
		load, err := loadCertificate(c, cert, key)
		if err != nil {
			return nil, err
		}
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return t, nil
}

// checkEtcdEndpoints checks etcd.endpoints.
func checkEtcdEndpoints(v string) error {
	scheme := ""
	for _, endpoint := range splitList(v) {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.TrimSuffix(u.Path, "/") != "" || u.RawQuery != "" {
			return fmt.Errorf("must be http://host:port or https://host:port each, not %q", endpoint)
		}
		if host, port, err := net.SplitHostPort(u.Host); err != nil || host == "" || port == "" {
			return fmt.Errorf("must be http://host:port or https://host:port each, not %q", endpoint)
		}
		if scheme != "" && scheme != u.Scheme {
			return errors.New("must be all http or all https")
		}
		scheme = u.Scheme
	}
	return nil
}

// checkEtcdSet checks what the keys of etcd say together.
func checkEtcdSet(c *config) error {
	endpoints := c.str("etcd.endpoints")
	for i := range catalog {
		k := &catalog[i]
		if !strings.HasPrefix(k.Name, "etcd.") || k.Name == "etcd.endpoints" || c.str(k.Name) == "" {
			continue
		}
		where := c.get(k.Name).Where
		if endpoints == "" {
			return fmt.Errorf("%s: %s is set and etcd.endpoints is not", where, k.Name)
		}
		if strings.HasPrefix(k.Name, "etcd.tls.") && !strings.HasPrefix(endpoints, "https://") {
			return fmt.Errorf("%s: %s is set and etcd.endpoints are not https", where, k.Name)
		}
	}
	return cmp.Or(checkPair(c, "etcd.tls.cert.file", "etcd.tls.key.file"), checkPair(c, "etcd.username", "etcd.password"))
}

// checkPair checks that both keys are set or neither.
func checkPair(c *config, a, b string) error {
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		if c.str(pair[0]) != "" && c.str(pair[1]) == "" {
			return fmt.Errorf("%s: %s is set and %s is not", c.get(pair[0]).Where, pair[0], pair[1])
		}
	}
	return nil
}

// has says whether a part of the data folder was begun.
func (f *folder) has(name string) (bool, error) {
	names, err := f.fs.List(f.dir)
	if err != nil {
		return false, explainFolder(f.dir, err)
	}
	return slices.Contains(names, name), nil
}
