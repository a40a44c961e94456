package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quirelog/quire/storage/bookkeeper/bookietest"
)

// bookieCluster is an etcd with a BookKeeper cluster in it, of bookies in this process.
type bookieCluster struct {
	endpoint string
	client   *clientv3.Client
	bookies  []*bookietest.Bookie
}

func startBookies(t *testing.T, n int) *bookieCluster {
	t.Helper()
	return startBookiesWith(t, n, bookietest.Config{})
}

func startBookiesWith(t *testing.T, n int, config bookietest.Config) *bookieCluster {
	t.Helper()
	endpoint, _ := startEtcd(t, nil, t.TempDir())
	b := &bookieCluster{endpoint: endpoint}
	var err error
	if b.client, err = clientv3.New(clientv3.Config{Endpoints: []string{b.endpoint}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.client.Close() })
	for range n {
		bookie, err := bookietest.Listen(config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(bookie.Close)
		b.bookies = append(b.bookies, bookie)
	}
	return b
}

// register makes the cluster known, as BookKeeper's shell and its bookies do.
func (b *bookieCluster) register(t *testing.T) {
	t.Helper()
	keys := map[string]string{"/ledgers": "", "/ledgers/INSTANCEID": "5a0f9a5e-2b0e-4a57-9a3c-6d0d6a4f0b11"}
	for _, bookie := range b.bookies {
		keys["/ledgers/available/"+bookie.Address()] = ""
	}
	for k, v := range keys {
		if _, err := b.client.Put(context.Background(), k, v); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *bookieCluster) args(dir string, more ...string) []string {
	args := serveArgs(dir)
	for _, o := range append([]string{"etcd.endpoints=" + b.endpoint}, more...) {
		args = append(args, "--override", o)
	}
	return args
}

const onBookies = "storage.tier=bookkeeper"

// verb runs a command that talks to no Kafka server, and returns what it prints.
func verb(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(t, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("quire %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestBookKeeperTier: records on bookies outlive the process and its folder; those
// written before in the folder are read there, and moved.
func TestBookKeeperTier(t *testing.T) {
	t.Parallel() // it waits for the lease of a killed process
	b := startBookies(t, 3)
	b.register(t)

	// Nothing but bookies, and then another folder in the place of a dead machine's.
	first := t.TempDir()
	s := start(t, b.args(first, onBookies)...)
	s.tool("one\ntwo\n", "produce", "greetings")
	commitOffset(t, s, "g", "greetings", 1)
	s.signal(os.Kill)
	s.wait()
	if _, err := os.Stat(filepath.Join(first, ledgersDir)); err == nil {
		t.Error("there are ledgers in the data folder")
	}
	b.bookies[0].Stop()
	s = start(t, b.args(t.TempDir(), onBookies)...)
	if got := s.tool("", "consume", "greetings", "--end"); got != "one\ntwo\n" {
		t.Errorf("records %q after a take-over", got)
	}
	if got := committedOffset(t, s, "g", "greetings"); got != 1 {
		t.Errorf("offset %d is committed after a take-over, want 1", got)
	}
	s.tool("three\n", "produce", "greetings")
	if err := b.bookies[0].Restart(); err != nil {
		t.Fatal(err)
	}
	etcd := "--etcd=" + b.endpoint
	if got := verb(t, "ledger", "list", etcd); !strings.Contains(got, "CLOSED") || !strings.Contains(got, "3/3/2") || !strings.Contains(got, "greetings/0") {
		t.Errorf("ledger list prints\n%s", got)
	}
	if got := verb(t, "ledger", "read", "1", etcd); !strings.Contains(got, "offsets 0 to 1: 2 records") {
		t.Errorf("ledger read prints\n%s", got)
	}
	if got := verb(t, "ledger", "show", "1", etcd); !strings.Contains(got, `"quire"`) || !strings.Contains(got, "CRC32C") {
		t.Errorf("ledger show prints\n%s", got)
	}
	s.stop()
}

// TestMigrateToBookies: a topic begins in the data folder, goes on on bookies, and then all
// of it lies there.
func TestMigrateToBookies(t *testing.T) {
	t.Parallel()
	b := startBookies(t, 3)
	b.register(t)
	dir := t.TempDir()
	s := start(t, b.args(dir)...)
	s.tool("one\n", "produce", "greetings")
	s.stop()
	s = start(t, b.args(dir, onBookies)...)
	s.tool("two\n", "produce", "greetings")
	read := func(when string) {
		t.Helper()
		if got := s.tool("", "consume", "greetings", "--end"); got != "one\ntwo\n" {
			t.Errorf("records %q %s", got, when)
		}
	}
	read("over two tiers")
	if got := verb(t, "topic", "migrate", "greetings", "--admin", s.admin); got != "greetings partition 0: 1 ledgers moved\n" {
		t.Errorf("topic migrate prints %q", got)
	}
	read("after the move")
	refuses(t, b.args(t.TempDir(), onBookies), []string{dir, "serves alone until", "quire topic migrate"})
	out, err := command(t, "topic", "migrate", "absent", "--admin", s.admin).CombinedOutput()
	if err == nil || !strings.Contains(string(out), `no topic "absent"`) {
		t.Errorf("a topic that is not there: %v, %q", err, out)
	}
	s.stop()
	if err := os.RemoveAll(filepath.Join(dir, ledgersDir)); err != nil {
		t.Fatal(err)
	}
	s = start(t, b.args(dir, onBookies)...)
	read("without the old files")
	s.stop()
}

// TestBookiesRefused: what keeps a start from its bookies is said in one line.
func TestBookiesRefused(t *testing.T) {
	empty, few, taken := startBookies(t, 0), startBookies(t, 2), startBookies(t, 3)
	few.register(t)
	taken.register(t)
	dir := t.TempDir()
	stranger, none := newAuthority(t), filepath.Join(t.TempDir(), "none")
	start(t, taken.args(dir, onBookies)...)
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"no etcd":     {append(serveArgs(t.TempDir()), "--override", onBookies), []string{onBookies[:12], "etcd.endpoints"}},
		"no cluster":  {empty.args(t.TempDir(), onBookies), []string{empty.endpoint, "initnewcluster"}},
		"few bookies": {few.args(t.TempDir(), onBookies), []string{few.endpoint, "2", "3"}},
		"no ZooKeeper": {taken.args(t.TempDir(), onBookies, "cluster.name=other", "bookkeeper.metadata.service.uri=zk+hierarchical://127.0.0.1:1/ledgers"),
			[]string{"ZooKeeper at 127.0.0.1:1/ledgers", "check that it runs", "bookkeeper.metadata.service.uri"}},
		"no authority": {taken.args(t.TempDir(), onBookies, "cluster.name=other", "bookkeeper.tls.enable=true", "bookkeeper.tls.ca.file="+none),
			[]string{"bookkeeper.tls.ca.file", none, "cannot be read"}},
		"not an authority": {taken.args(t.TempDir(), onBookies, "cluster.name=other", "bookkeeper.tls.enable=true", "bookkeeper.tls.ca.file="+stranger.path("ca.key")),
			[]string{stranger.path("ca.key"), "no PEM certificate"}},
		"no certificate": {taken.args(t.TempDir(), onBookies, "cluster.name=other", "bookkeeper.tls.enable=true", "bookkeeper.tls.cert.file="+none, "bookkeeper.tls.key.file="+none),
			[]string{"bookkeeper.tls.cert.file", none}},
		"bad quorums":  {taken.args(t.TempDir(), onBookies, "bookkeeper.ack.quorum=4"), []string{"bookkeeper.ack.quorum is 4", "bookkeeper.write.quorum is 3"}},
		"another node": {taken.args(t.TempDir(), onBookies), []string{taken.endpoint, dir, "stop it first", "peer.listen"}},
		"with records": {taken.args(t.TempDir()), []string{taken.endpoint, "lie on bookies", "set storage.tier to bookkeeper"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // some wait until they give up
			refuses(t, c.args, c.want)
		})
	}
}

// TestBookiesOverTLS: bookies that have TLS and demand a certificate in it keep records,
// and the verbs that look past a server reach them too.
func TestBookiesOverTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue("bookie", nil)
	a.issue("node", nil)
	cert, err := tls.LoadX509KeyPair(a.path("bookie.crt"), a.path("bookie.key"))
	if err != nil {
		t.Fatal(err)
	}
	known := x509.NewCertPool()
	known.AddCert(a.cert)
	b := startBookiesWith(t, 3, bookietest.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: known, ClientAuth: tls.RequireAndVerifyClientCert}})
	b.register(t)
	secure := []string{"bookkeeper.tls.enable=true", "bookkeeper.tls.ca.file=" + a.path("ca.crt"),
		"bookkeeper.tls.cert.file=" + a.path("node.crt"), "bookkeeper.tls.key.file=" + a.path("node.key")}
	s := start(t, b.args(t.TempDir(), append(secure, onBookies)...)...)
	s.tool("one\ntwo\n", "produce", "greetings")
	s.stop()
	s = start(t, b.args(t.TempDir(), append(secure, onBookies)...)...)
	if got := s.tool("", "consume", "greetings", "--end"); got != "one\ntwo\n" {
		t.Errorf("records %q", got)
	}
	s.stop()
	verbs := []string{"ledger", "read", "1", "--etcd=" + b.endpoint}
	for _, o := range secure {
		verbs = append(verbs, "--override", o)
	}
	if got := verb(t, verbs...); !strings.Contains(got, "offsets 0 to 1: 2 records") {
		t.Errorf("ledger read prints\n%s", got)
	}
}

func TestBookieKeysRefused(t *testing.T) {
	const uri, enable, etcd = "bookkeeper.metadata.service.uri=", "bookkeeper.tls.enable=true", "etcd.endpoints=http://a:1"
	for _, c := range []struct {
		set  []string
		want string
	}{
		{[]string{onBookies}, "bookkeeper.metadata.service.uri"},
		{[]string{uri + "127.0.0.1:2181"}, "must begin with zk+hierarchical://"},
		{[]string{uri + "distributedlog://127.0.0.1:2181/ledgers"}, "not distributedlog://"},
		{[]string{uri + "zk+longhierarchical://127.0.0.1:2181/ledgers"}, "layout longhierarchical"},
		{[]string{uri + "zk+hierarchical://127.0.0.1:2181"}, "/ledgers"},
		{[]string{uri + "zk+hierarchical://127.0.0.1:2181/"}, "/ledgers"},
		{[]string{uri + "zk+hierarchical:///ledgers"}, "host:port"},
		{[]string{uri + "zk://127.0.0.1/ledgers"}, "is not host:port"},
		{[]string{uri + "zk://a:1;b:x/ledgers"}, "the port must be a number"},
		{[]string{uri + "zk://a:1/ledgers?x=y"}, "/ledgers"},
		{[]string{uri + "metadata-store:etcd:a:2379"}, "http://host:port"},
		{[]string{uri + "metadata-store:etcd:"}, "http://host:port"},
		{[]string{uri + "metadata-store:zk:a:2181"}, "must begin with"},
		{[]string{uri + "zk://a:1/ledgers", "bookkeeper.metadata.endpoints=http://a:1"}, "and so is"},
		{[]string{"bookkeeper.tls.ca.file=f"}, "bookkeeper.tls.enable is not true"},
		{[]string{"bookkeeper.tls.server.name=f"}, "bookkeeper.tls.enable is not true"},
		{[]string{enable, "bookkeeper.tls.cert.file=f"}, "bookkeeper.tls.key.file is not"},
		{[]string{enable, "bookkeeper.tls.key.file=f"}, "bookkeeper.tls.cert.file is not"},
		{[]string{"bookkeeper.tls.enable=yes"}, "bookkeeper.tls.enable"},
		{[]string{onBookies, uri + "zk+hierarchical://a:1;b:2,c:3/chroot/ledgers", etcd}, ""},
		{[]string{onBookies, uri + "zk+null://[::1]:1/ledgers"}, ""},
		{[]string{onBookies, uri + "metadata-store:etcd:http://a:1;http://b:1?batchingEnabled=true"}, ""},
		{[]string{onBookies, etcd, enable, "bookkeeper.tls.server.name=bookies"}, ""},
	} {
		var overrides []override
		for _, kv := range c.set {
			k, v, _ := strings.Cut(kv, "=")
			overrides = append(overrides, override{k, v, "--override"})
		}
		_, err := loadConfig("", nil, overrides)
		if c.want == "" {
			if err != nil {
				t.Errorf("%q: %v", c.set, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want one line with %q", c.set, err, c.want)
		}
	}
}

// TestBookiesAt: what the keys say about where bookies register.
func TestBookiesAt(t *testing.T) {
	for uri, want := range map[string]string{
		"zk+hierarchical://a:1;b:2/chroot/ledgers":          "ZooKeeper at a:1,b:2/chroot/ledgers",
		"zk://a:1,b:2/ledgers":                              "ZooKeeper at a:1,b:2/ledgers",
		"metadata-store:etcd:http://a:1;http://b:1":         "etcd at [http://a:1 http://b:1]",
		"metadata-store:etcd:https://a:1?configFilePath=/f": "etcd at [https://a:1]",
		"": "etcd at [http://c:1]",
	} {
		c, err := loadConfig("", nil, []override{{"etcd.endpoints", "http://c:1", "--override"}, {"bookkeeper.metadata.service.uri", uri, "--override"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := bookiesAt(c).String(); got != want {
			t.Errorf("%q: %s, want %s", uri, got, want)
		}
	}
}
