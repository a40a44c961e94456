package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
)

// An etcd that was restored from a backup ends the node that runs, refuses it and others
// at the start, and serves again when the operator has decided: with epochs that
// clients believe, and without the deletion of what the backup does not know.
func TestRestoredEtcd(t *testing.T) {
	t.Parallel() // it waits for leases
	dir, backup := t.TempDir(), filepath.Join(t.TempDir(), "backup")
	// No other test listens there, so that its port is free whenever it starts again.
	endpoint, stop := startEtcdAt(t, nil, dir, "127.0.0.3:0")
	host := strings.TrimPrefix(endpoint, "http://")
	data := t.TempDir()
	args := func(dir string) []string {
		return append(serveArgs(dir), "--override", "etcd.endpoints="+endpoint, "--override", "node.lease.ttl.ms=15000")
	}
	s := start(t, args(data)...)
	s.tool("", "topic", "create", "quiet")
	s.tool("one\n", "produce", "greetings")
	s.stop()
	stop()
	if err := os.CopyFS(backup, os.DirFS(filepath.Join(dir, "data"))); err != nil {
		t.Fatal(err)
	}
	_, stop = startEtcdAt(t, nil, dir, host)
	s = start(t, args(data)...)
	s.tool("two\n", "produce", "greetings")
	s.tool("noise\n", "produce", "quiet")
	s.tool("gone\n", "produce", "forgotten")

	restore := func() {
		t.Helper()
		stop()
		if err := os.RemoveAll(filepath.Join(dir, "data")); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(dir, "data"), os.DirFS(backup)); err != nil {
			t.Fatal(err)
		}
		_, stop = startEtcdAt(t, nil, dir, host)
	}
	restore()
	if status := s.wait(); status != 1 || !strings.Contains(lastLine(s.stderr.String()), "was restored from a backup or is another one") {
		t.Fatalf("the running node ends with %d\n%s", status, s.stderr.String())
	}
	for range 2 { // by what its folder remembers, then by what it has left in etcd
		refuses(t, args(data), []string{endpoint, "restored from a backup", "bump-epochs"})
	}

	at := "--etcd=" + endpoint
	if out := verb(t, "cluster", "show", at); !strings.Contains(out, "noticed at") || !strings.Contains(out, data) {
		t.Errorf("cluster show prints\n%s", out)
	}
	if out := verb(t, "cluster", "bump-epochs", at); !strings.Contains(out, "noticed at") || !strings.Contains(out, "--execute") {
		t.Errorf("bump-epochs prints %q", out)
	}
	refuses(t, args(data), []string{"bump-epochs"})
	out, err := command(t, "cluster", "release-orphans", at).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "nobody has decided") {
		t.Errorf("release-orphans before the decision: %v, %s", err, out)
	}
	if out := verb(t, "cluster", "bump-epochs", "--execute", at); !strings.Contains(out, "epochs of 1 logs") {
		t.Errorf("bump-epochs prints %q", out)
	}

	s = start(t, args(data)...)
	if got := s.tool("", "consume", "greetings", "--end"); !strings.HasPrefix(got, "one\n") {
		t.Errorf("records %q after the restore", got)
	}
	s.tool("three\n", "produce", "greetings")
	s.tool("more\n", "produce", "quiet")
	topics, err := adminOf(t, s).ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"greetings", "quiet"} { // the second had no record in the backup
		for _, p := range topics[name].Partitions {
			if p.LeaderEpoch < epochStep {
				t.Errorf("%s has leader epoch %d", name, p.LeaderEpoch)
			}
		}
	}
	if topics.Has("forgotten") {
		t.Error("a topic of after the backup is there")
	}
	var shown clusterReport
	if err := json.Unmarshal([]byte(verb(t, "cluster", "show", "--json", at)), &shown); err != nil || !shown.KeepOrphans || shown.EpochsRaised == "" || shown.Restored != "" {
		t.Errorf("cluster show: %+v, %v", shown, err)
	}
	verb(t, "cluster", "release-orphans", at)
	if out := verb(t, "cluster", "show", at); !strings.Contains(out, "deleted") {
		t.Errorf("cluster show prints\n%s", out)
	}
	out, err = command(t, "cluster", "bump-epochs", "--execute", "--wait=1s", at).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "stop them first") {
		t.Errorf("epochs raised under a running node: %v, %s", err, out)
	}
	s.stop()

	// The same backup once more, after the decision: that one is missing now.
	restore()
	refuses(t, args(data), []string{"the decision of", "is missing"})
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// TestSeen holds what a folder remembers against what etcd says.
func TestSeen(t *testing.T) {
	at := func(cluster uint64, revision meta.Revision, accepted, mark int64) seen {
		return seen{etcd.Position{Cluster: cluster, Revision: revision}, accepted, mark}
	}
	for _, c := range []struct {
		before, now seen
		want        string
	}{
		{at(1, 5, 0, 2), at(1, 5, 0, 2), ""},
		{at(1, 5, 0, 2), at(1, 6, 0, 3), ""},
		{at(1, 5, 0, 2), at(1, 4, 0, 2), "revision 4, and was at 5"},
		{at(1, 5, 0, 2), at(2, 9, 0, 2), "cluster 2, and was cluster 1"},
		{at(1, 5, 0, 2), at(1, 1000, 0, 1), "mark 1 of this node, and had 2"},
		{at(1, 5, 0, 2), at(2, 1, 7, 0), ""},
		{at(1, 5, 7, 2), at(1, 9, 0, 2), "is missing"},
		{at(1, 5, 7, 2), at(1, 4, 7, 2), "revision 4"},
	} {
		if got := c.before.contradicts(c.now); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%v, then %v: %q, want %q", c.before, c.now, got, c.want)
		}
		if parsed, err := parseSeen(c.before.String()); err != nil || parsed != c.before {
			t.Errorf("%v is read as %v, %v", c.before, parsed, err)
		}
	}
	for _, text := range []string{"", "1 2 3", "x y z w", "1"} {
		if s, err := parseSeen(text); err == nil {
			t.Errorf("%q is read as %v", text, s)
		}
	}
}
