package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/storage/meta"
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
	used, err := n.folder.has(ledgersDir)
	if err != nil {
		return err
	}
	own, err := n.folder.has(etcdDir)
	if err != nil {
		return err
	}
	if used && !own {
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
	n.meta, err = etcd.Open(ctx, c)
	if err != nil {
		return fmt.Errorf("%w: check that it runs, and etcd.endpoints, etcd.tls.* and etcd.username", err)
	}
	n.closeMetadata()
	return n.bindFolder(ctx)
}

// etcdCluster is how to reach the members of an etcd cluster at endpoints.
func etcdCluster(c *config, endpoints []string, log *zap.Logger) (etcd.ClusterConfig, error) {
	cluster := etcd.ClusterConfig{
		Endpoints: endpoints, Username: c.str("etcd.username"), Password: c.str("etcd.password"), Logger: log,
	}
	var err error
	if strings.HasPrefix(endpoints[0], "https://") {
		cluster.TLS, err = etcdTLS(c)
	}
	return cluster, err
}

func (n *node) closeMetadata() {
	n.onClose("metadata store", func(context.Context) error { return n.meta.Close() })
}

// etcdTLS is how to talk to members of an etcd cluster that have certificates.
func etcdTLS(c *config) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.str("etcd.tls.server.name")}
	if file := c.str("etcd.tls.ca.file"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("etcd.tls.ca.file %s cannot be read: %w", file, unwrapPath(err))
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd.tls.ca.file %s holds no PEM certificate", file)
		}
	}
	if cert, key := c.str("etcd.tls.cert.file"), c.str("etcd.tls.key.file"); cert != "" {
		load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				return nil, fmt.Errorf("etcd.tls.cert.file %s and etcd.tls.key.file %s: %w", cert, key, unwrapPath(err))
			}
			return &pair, nil
		}
		if _, err := load(nil); err != nil {
			return nil, err
		}
		t.GetClientCertificate = load
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
	for _, pair := range [][2]string{{"etcd.tls.cert.file", "etcd.tls.key.file"}, {"etcd.username", "etcd.password"}} {
		for i, name := range pair {
			if other := pair[1-i]; c.str(name) != "" && c.str(other) == "" {
				return fmt.Errorf("%s: %s is set and %s is not", c.get(name).Where, name, other)
			}
		}
	}
	return nil
}

// idFile names a data folder whose metadata lies elsewhere: the cluster's key
// folder names it too. Metadata that meets the wrong records would take them
// for rubbish, and records without theirs cannot be read.
const idFile = "ID"

// bindFolder holds the data folder and the metadata in a cluster together. The
// first start writes the name into both, the folder's first. A folder without
// records, of a node whose ledgers lie on bookies, takes the place of another one once
// nobody serves with that any more.
func (n *node) bindFolder(ctx context.Context) error {
	const key = metaPrefix + "folder"
	id, err := n.folder.readSmall(idFile)
	if errors.Is(err, fs.ErrNotExist) {
		var random [16]byte
		rand.Read(random[:]) // never fails
		id = base64.RawURLEncoding.EncodeToString(random[:])
		if err = n.folder.writeSmall(idFile+".new", id); err == nil {
			err = n.folder.fs.Rename(n.folder.path(idFile+".new"), n.folder.path(idFile))
		}
		if err == nil {
			err = n.folder.fs.SyncDir(n.folder.dir)
		}
	}
	if err != nil {
		return explainFolder(n.folder.dir, err)
	}
	used, err := n.folder.has(ledgersDir)
	if err != nil {
		return err
	}
	name := n.folderName(id, used)
	for {
		kv, err := n.meta.Get(ctx, key)
		if err == nil {
			bound, where, _ := strings.Cut(string(kv.Value), " ")
			where, free := strings.CutSuffix(where, withoutRecords)
			switch {
			case bound == id && string(kv.Value) == name:
				return nil
			case bound == id:
			case free && strings.HasSuffix(name, withoutRecords):
				if err := n.waitAlone(ctx, where); err != nil {
					return err
				}
			default:
				return fmt.Errorf("etcd at %s keeps the metadata of the records in another data folder, %s: use that one with --data-dir, or other etcd.endpoints", n.config.str("etcd.endpoints"), where)
			}
			if err := n.writeFolder(ctx, meta.Cond{Key: key, Modified: kv.Modified}, name); err != nil {
				return err
			}
			continue
		}
		if !errors.Is(err, meta.ErrNotFound) {
			return fmt.Errorf("etcd at %s: %w", n.config.str("etcd.endpoints"), err)
		}
		if used {
			return fmt.Errorf("data folder %s holds records and etcd at %s knows nothing of them: restore etcd from a backup, or choose another folder with --data-dir", n.folder.dir, n.config.str("etcd.endpoints"))
		}
		if err := n.writeFolder(ctx, meta.Cond{Key: key}, name); err != nil {
			return err
		}
	}
}

// withoutRecords ends the name of a folder of a node whose ledgers all lie on bookies.
const withoutRecords = ", without records"

// folderName is the value of the cluster's key folder: id is for us, the rest for people.
func (n *node) folderName(id string, used bool) string {
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	name := id + " " + n.folder.dir + " of " + host
	if !used && n.config.str("storage.tier") == tierBookKeeper {
		name += withoutRecords
	}
	return name
}

// writeFolder writes the cluster's key folder if it is still as cond says. It returns nil
// too if it is not, or nobody knows: the caller reads it.
func (n *node) writeFolder(ctx context.Context, cond meta.Cond, name string) error {
	_, _, err := n.meta.Txn(ctx, []meta.Cond{cond}, []meta.Op{meta.Put(cond.Key, []byte(name))})
	if err != nil && (!errors.Is(err, meta.ErrUnknownOutcome) || ctx.Err() != nil || errors.Is(err, meta.ErrNoSpace)) {
		return fmt.Errorf("etcd at %s: %w", n.config.str("etcd.endpoints"), err)
	}
	return nil
}

// takeOverPatience is a little more than a node's lease.
const takeOverPatience = 12 * time.Second

// waitAlone waits until no other node is registered: one that was killed is for the
// time of its lease. One that is only cut off gets nothing acknowledged any more
// when its ledgers are opened here.
func (n *node) waitAlone(ctx context.Context, where string) error {
	endpoints := n.config.str("etcd.endpoints")
	for deadline := time.Now().Add(takeOverPatience); ; {
		live, err := coordinator.AnyNode(ctx, n.meta, metaPrefix)
		if err != nil {
			return fmt.Errorf("etcd at %s: %w", endpoints, err)
		}
		if !live {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("another quire serves with etcd at %s, its data folder %s: stop it first", endpoints, where)
		}
		n.log.Info("waiting for another quire to stop", zap.String("folder", where))
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// has says whether a part of the data folder was begun.
func (f *folder) has(name string) (bool, error) {
	names, err := f.fs.List(f.dir)
	if err != nil {
		return false, explainFolder(f.dir, err)
	}
	return slices.Contains(names, name), nil
}
