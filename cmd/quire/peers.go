package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/proxy/forward"
	"github.com/quirelog/quire/storage/meta"
)

// peerListener names the listener of peer.listen. Those of listeners are in upper case.
const peerListener = "peer.listen"

// hasPeers says whether this node can be one of several.
func hasPeers(c *config) bool { return c.str("peer.listen") != "" }

// checkPeerAdvertised checks peer.advertised.
func checkPeerAdvertised(v string) error {
	if err := checkHostPort(v); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(v)
	if ip := net.ParseIP(host); err != nil || host == "" || port == "0" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("%q is no address that other nodes can reach", v)
	}
	return nil
}

// checkPeerSet checks what the keys of peers say together.
func checkPeerSet(c *config) error {
	for _, name := range []string{"peer.advertised", "peer.secret.file", "peer.tls.ca.file", "peer.tls.cert.file", "peer.tls.key.file"} {
		if c.str(name) != "" && !hasPeers(c) {
			return fmt.Errorf("%s: %s is set and peer.listen is not", c.get(name).Where, name)
		}
	}
	tlsKeys := []string{"peer.tls.ca.file", "peer.tls.cert.file", "peer.tls.key.file"}
	for _, name := range tlsKeys {
		for _, other := range tlsKeys {
			if c.str(name) != "" && c.str(other) == "" {
				return fmt.Errorf("%s: %s is set and %s is not: both sides of a connection between nodes show a certificate", c.get(name).Where, name, other)
			}
		}
	}
	if !hasPeers(c) {
		return nil
	}
	where := c.get("peer.listen").Where
	if c.str("storage.tier") != tierBookKeeper {
		return fmt.Errorf("%s: peer.listen is set and storage.tier is %s: records in the data folder are served by one node alone", where, c.str("storage.tier"))
	}
	if c.str("etcd.endpoints") == "" {
		return fmt.Errorf("%s: peer.listen is set and etcd.endpoints is not: nodes that serve together share an etcd cluster", where)
	}
	return nil
}

// peerEndpoint is what other nodes are told of the peer listener, bound at a.
func peerEndpoint(c *config, a net.Addr) (coordinator.Endpoint, error) {
	text := c.str("peer.advertised")
	host, port, err := net.SplitHostPort(text)
	if text == "" {
		if host, _, err = net.SplitHostPort(c.str("peer.listen")); err == nil {
			host, err = reachableHost(host)
		}
		if bound, ok := a.(*net.TCPAddr); ok {
			port = strconv.Itoa(bound.Port)
		}
	}
	if err != nil {
		return coordinator.Endpoint{}, fmt.Errorf("peer.advertised: %w", err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return coordinator.Endpoint{}, fmt.Errorf("peer.advertised: %w", err)
	}
	return coordinator.Endpoint{Host: host, Port: int32(number)}, nil
}

const (
	minSecretBytes = 16
	maxSecretBytes = 4096
)

// peerSecret is what nodes prove to each other that they know: of peer.secret.file, or
// else of etcd, where the first node leaves a random one. Whoever can read the
// cluster's metadata can change them too, so it is no less secret there. Where nodes show
// certificates and no file is named there is none.
func (n *node) peerSecret(ctx context.Context) ([]byte, error) {
	if n.config.str("peer.secret.file") == "" && n.config.str("peer.tls.ca.file") != "" {
		return nil, nil
	}
	if file := n.config.str("peer.secret.file"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("peer.secret.file %s cannot be read: %w", file, unwrapPath(err))
		}
		text = bytes.TrimRight(text, "\r\n")
		if len(text) < minSecretBytes || len(text) > maxSecretBytes {
			return nil, fmt.Errorf("peer.secret.file %s holds %d bytes: a secret has %d to %d", file, len(text), minSecretBytes, maxSecretBytes)
		}
		return text, nil
	}
	key := n.prefix + "peersecret"
	for {
		kv, err := n.meta.Get(ctx, key)
		if err == nil {
			if len(kv.Value) < minSecretBytes {
				return nil, fmt.Errorf("metadata key %s: %d bytes are no secret: delete the key, and start all nodes again", key, len(kv.Value))
			}
			return kv.Value, nil
		}
		if !errors.Is(err, meta.ErrNotFound) {
			return nil, fmt.Errorf("secret of the nodes: %w", err)
		}
		var random [32]byte
		rand.Read(random[:]) // never fails
		secret := hex.AppendEncode(nil, random[:])
		_, _, err = n.meta.Txn(ctx, []meta.Cond{{Key: key}}, []meta.Op{meta.Put(key, secret)})
		if err != nil && (!errors.Is(err, meta.ErrUnknownOutcome) || errors.Is(err, meta.ErrNoSpace) || ctx.Err() != nil) {
			return nil, fmt.Errorf("secret of the nodes: %w", err)
		}
	}
}

// peerTLS is how nodes talk to each other and accept each other, nil without TLS.
func peerTLS(c *config) (client, server *tls.Config, err error) {
	file := c.str("peer.tls.ca.file")
	if file == "" {
		return nil, nil, nil
	}
	roots, err := readCertificates("peer.tls.ca.file", file)
	if err != nil {
		return nil, nil, err
	}
	load, err := loadCertificate(c, "peer.tls.cert.file", "peer.tls.key.file")
	if err != nil {
		return nil, nil, err
	}
	client = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }}
	server = &tls.Config{MinVersion: tls.VersionTLS13, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() }}
	return client, server, nil
}

// peerLinks is how this node and the others reach each other.
type peerLinks struct {
	client *tls.Config // nil: without TLS
	self   forward.Identity
	secret []byte // nil: certificates prove enough
}

// listenPeers adds the listener for other nodes, if there is to be one. What they have to
// prove is known once the metadata store is open, which is before Serve.
func (n *node) listenPeers(listeners []proxy.Listener) ([]proxy.Listener, error) {
	if !hasPeers(n.config) {
		return listeners, nil
	}
	client, server, err := peerTLS(n.config)
	if err != nil {
		return nil, err
	}
	n.links = &peerLinks{client: client}
	return append(listeners, proxy.Listener{
		Name: peerListener, Address: n.config.str("peer.listen"), TLS: server,
		Peer: &proxy.PeerAuth{Late: func() (forward.Identity, []byte) { return n.links.self, n.links.secret }},
	}), nil
}

// openPeers makes ready what forwards requests to other nodes. It returns nil without an
// error where there are none.
func (n *node) openPeers(registry prometheus.Registerer) (forward.Sender, error) {
	if n.links == nil {
		return nil, nil
	}
	self := n.coordinator.Self()
	n.links.self = forward.Identity{Cluster: n.coordinator.ClusterID(), Node: self.ID, Incarnation: self.Incarnation}
	peers, err := forward.New(forward.Config{
		Self: n.links.self, Secret: n.links.secret, TLS: n.links.client,
		Nodes: func(id int32) (address, incarnation string, ok bool) {
			of, ok := n.coordinator.Node(id)
			if !ok || of.Peer.Host == "" {
				return "", "", false
			}
			return of.Peer.String(), of.Incarnation, true
		},
		MaxMessageBytes: int(n.config.number("socket.request.max.bytes")),
		Log:             n.log.Named("peers"),
		Registerer:      registry,
	})
	if err != nil {
		return nil, err
	}
	n.onClose("links to other nodes", peers.Close)
	return peers, nil
}

// readCertificates reads the authorities of a PEM file that key names.
func readCertificates(key, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s %s cannot be read: %w", key, file, unwrapPath(err))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s %s holds no PEM certificate", key, file)
	}
	return pool, nil
}

// loadCertificate returns what reads the certificate and key of two files anew each time,
// which it has done once without an error.
func loadCertificate(c *config, certKey, keyKey string) (func() (*tls.Certificate, error), error) {
	cert, key := c.str(certKey), c.str(keyKey)
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s %s and %s %s: %w", certKey, cert, keyKey, key, unwrapPath(err))
		}
		return &pair, nil
	}
	_, err := load()
	return load, err
}
