package bookies

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kadm"
)

// startZooKeeper runs a server of one member, that of the tools of Kafka 3.9, and returns
// its address.
func startZooKeeper(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	dir := t.TempDir()
	_, port, _ := net.SplitHostPort(addr)
	config := filepath.Join(dir, "zoo.cfg")
	lines := []string{"dataDir=" + filepath.Join(dir, "data"), "clientPort=" + port, "clientPortAddress=127.0.0.1", "admin.enableServer=false", "tickTime=1000"}
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd, err := peer.ToolCommand(t.Context(), peer.Tools3, []string{"-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}, "org.apache.zookeeper.server.ZooKeeperServerMain", config)
	if err != nil {
		missing(t, err)
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for ctx := step(t); ; {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			conn.Close()
			return addr
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("ZooKeeper: %v", err)
		}
	}
}

// Bookies that register in ZooKeeper serve Quire as those do that register in etcd:
// records outlive both, a lost bookie is replaced, and what is deleted goes.
func TestZooKeeper(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	zookeeper := startZooKeeper(t)
	uri := "zk+hierarchical://" + zookeeper + "/ledgers"
	cluster, err := peer.NewBookKeeper(t.Context(), peer.BookKeeperOptions{Dir: t.TempDir(), Bookies: 4, Overrides: []string{"metadataServiceUri=" + uri}})
	if err != nil {
		missing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Kill(); err != nil {
			t.Error(err)
		}
	})
	if out, err := cluster.Shell(step(t), "initnewcluster"); err != nil {
		t.Fatalf("initnewcluster: %v\n%s", err, out)
	}
	if err := cluster.Start(step(t)); err != nil {
		t.Fatal(err)
	}
	q := quireOn(t, cluster, threeThreeTwo, "bookkeeper.metadata.service.uri="+uri)
	topic := q.topic("in-zookeeper", 1<<18)
	q.produce(topic, 0, 1500, 100)
	if err := cluster.Bookies[0].Kill(); err != nil {
		t.Fatal(err)
	}
	q.produce(topic, 1500, 3000, 100)
	q.restart()
	q.check(topic, 0, 3000)
	list := func() int {
		t.Helper()
		out, err := cluster.Shell(step(t), "listledgers")
		if err != nil {
			t.Fatalf("listledgers: %v\n%s", err, out)
		}
		n := 0
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			for i, word := range f {
				if _, err := strconv.ParseInt(strings.TrimSuffix(word, ","), 10, 64); err == nil && i > 0 && strings.HasPrefix(f[i-1], "ledgerID") {
					n++
				}
			}
		}
		return n
	}
	if n := list(); n < 2 {
		t.Errorf("the bookies' shell lists %d ledgers, want several", n)
	}
	half := int64(1500)
	deleted, err := q.admin.DeleteRecords(step(t), kadm.Offsets{topic: {0: {Topic: topic, At: half}}})
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	q.check(topic, int(half), 3000)

	// The contract of the metadata store, on the same server.
	root, err := peer.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-tags=zookeeper", "-count=1", "-v", "-timeout=5m", "-run", "^TestRealServer$", "./storage/bookkeeper/metadata/zookeeper")
	cmd.Dir = filepath.Dir(root)
	cmd.Env = append(os.Environ(), "QUIRE_ZOOKEEPER="+zookeeper)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestRealServer ") {
		t.Errorf("the contract on ZooKeeper: %v\n%s", err, out)
	}
}
