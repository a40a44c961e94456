package main

import (
	"context"
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
	endpoint, _ := startEtcd(t, nil, t.TempDir())
	b := &bookieCluster{endpoint: endpoint}
	var err error
	if b.client, err = clientv3.New(clientv3.Config{Endpoints: []string{b.endpoint}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.client.Close() })
	for range n {
		bookie, err := bookietest.Listen(bookietest.Config{})
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
	start(t, taken.args(dir, onBookies)...)
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"no etcd":      {append(serveArgs(t.TempDir()), "--override", onBookies), []string{onBookies[:12], "etcd.endpoints"}},
		"no cluster":   {empty.args(t.TempDir(), onBookies), []string{empty.endpoint, "initnewcluster"}},
		"few bookies":  {few.args(t.TempDir(), onBookies), []string{few.endpoint, "2", "3"}},
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
