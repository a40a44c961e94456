package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// beLevel makes the process a program that knows another newest feature level.
const beLevel = "BE_QUIRE_OF_LEVEL"

func init() {
	prepareProcess = append(prepareProcess, func() {
		if v := os.Getenv(beLevel); v != "" {
			if _, err := fmt.Sscan(v, &newestFeatureLevel); err != nil {
				panic(err)
			}
		}
	})
}

// member are the arguments of a node that serves beside others. Its lease outlasts what a
// busy machine does to a process; who does not want to wait for its end revokes it.
func (b *bookieCluster) member(dir, name string, more ...string) []string {
	return b.args(dir, append([]string{onBookies, "node.name=" + name, "peer.listen=127.0.0.1:0", "node.lease.ttl.ms=15000", "node.balance.slots.per.second=1024"}, more...)...)
}

// revoke ends the lease of a node.
func (b *bookieCluster) revoke(t *testing.T, name string) {
	t.Helper()
	listed, err := b.client.Get(t.Context(), "quire/main/node/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range listed.Kvs {
		var n struct{ Name string }
		if err := json.Unmarshal(kv.Value, &n); err != nil {
			t.Fatal(err)
		}
		if n.Name == name {
			if _, err := b.client.Revoke(t.Context(), clientv3.LeaseID(kv.Lease)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("there is no node %s", name)
}

// asked runs a node or cluster verb against the admin listener of an instance.
func (s *instance) asked(args ...string) string {
	s.t.Helper()
	return verb(s.t, append(args, "--admin", s.admin)...)
}

func (s *instance) nodes() (r nodesReport) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.asked("node", "list", "--json")), &r); err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *instance) readiness() int {
	s.t.Helper()
	r, err := http.Get("http://" + s.admin + "/readyz")
	if err != nil {
		s.t.Fatal(err)
	}
	r.Body.Close()
	return r.StatusCode
}

// TestNodes is the life of a cluster of three: they share what there is, one is
// drained and takes part again, one ends in order and one is killed, and the program
// is changed under them. What cannot serve beside them is refused.
func TestNodes(t *testing.T) {
	t.Parallel() // it waits for leases
	b := startBookies(t, 3)
	b.register(t)
	dirs := map[string]string{}
	begin := func(name string, level string, more ...string) *instance {
		t.Helper()
		if dirs[name] == "" {
			dirs[name] = t.TempDir()
		}
		cmd := command(t, b.member(dirs[name], name, more...)...)
		cmd.Env = append(cmd.Env, beLevel+"="+level)
		return startCommand(t, cmd)
	}
	red, green, blue := begin("red", "2"), begin("green", "2"), begin("blue", "2")
	await := func(s *instance, nodes int) nodesReport {
		t.Helper()
		s.asked("node", "await", "--nodes", fmt.Sprint(nodes), "--timeout", "2m")
		return s.nodes()
	}
	for _, n := range await(red, 3).Nodes {
		if n.State != stateServing || n.Slots < 200 || n.StartedMs == 0 || n.Peer == "" || n.FeatureLevel != 2 {
			t.Errorf("of three nodes one is %+v", n)
		}
	}
	red.tool("", "topic", "create", "orders", "-p", "12")
	red.tool("one\ntwo\nthree\n", "produce", "orders")

	// What is refused beside them, each by one line. Some wait for a lease first.
	copied := t.TempDir()
	for _, name := range []string{formatFile, idFile} { // the others change while it serves
		text, err := os.ReadFile(filepath.Join(dirs["red"], name))
		if err == nil {
			err = os.WriteFile(filepath.Join(copied, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	withRecords := t.TempDir()
	start(t, serveArgs(withRecords)...).stop()
	if err := os.RemoveAll(filepath.Join(withRecords, etcdDir)); err != nil {
		t.Fatal(err)
	}
	other := startBookies(t, 0)
	for k, v := range map[string]string{"/ledgers": "", "/ledgers/INSTANCEID": "another"} {
		if _, err := other.client.Put(t.Context(), k, v); err != nil {
			t.Fatal(err)
		}
	}
	newer := t.TempDir()
	if err := os.WriteFile(filepath.Join(newer, "secret"), []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("refused", func(t *testing.T) {
		type node struct {
			args  []string
			level string
			want  []string
		}
		begin := func(t *testing.T, n node) *refusal {
			t.Helper()
			cmd := command(t, n.args...)
			cmd.Env = append(cmd.Env, beLevel+"="+n.level)
			return beginRefusal(t, cmd)
		}
		waiting, refused := map[string]node{
			"same name":        {b.member(t.TempDir(), "red"), "2", []string{"red", dirs["red"], "node.name"}},
			"copied folder":    {b.member(copied, "red"), "2", []string{"red", dirs["red"], "node.name"}},
			"no peer listener": {b.args(t.TempDir(), onBookies), "2", []string{"(red)", "this node has no peer.listen"}},
		}, map[string]*refusal{}
		for name, n := range waiting {
			refused[name] = begin(t, n)
		}
		for name, n := range map[string]node{
			"records":        {b.member(withRecords, "grey"), "2", []string{withRecords, "holds records", "all lie on bookies", "--data-dir"}},
			"embedded":       {b.args(t.TempDir()), "2", []string{"lie on bookies", "set storage.tier to bookkeeper"}},
			"other bookies":  {b.member(t.TempDir(), "grey", "bookkeeper.metadata.endpoints="+other.endpoint), "2", []string{other.endpoint, "bookkeeper.metadata.endpoints"}},
			"older program":  {b.member(t.TempDir(), "grey"), "1", []string{"feature level 2", "levels 1 to 1", "newer"}},
			"short secret":   {b.member(t.TempDir(), "grey", "peer.secret.file="+filepath.Join(newer, "secret")), "2", []string{"peer.secret.file", "5 bytes"}},
			"no secret":      {b.member(t.TempDir(), "grey", "peer.secret.file="+filepath.Join(newer, "none")), "2", []string{"peer.secret.file", "cannot be read"}},
			"foreign folder": {b.args(dirs["red"], "cluster.name=other"), "2", []string{dirs["red"], "in use by another quire"}},
		} {
			t.Run(name, func(t *testing.T) { begin(t, n).says(t, n.want) })
		}
		for name, n := range waiting {
			t.Run(name, func(t *testing.T) { refused[name].says(t, n.want) })
		}
	})
	if got := await(red, 3); len(got.Nodes) != 3 {
		t.Errorf("after the refusals there are %+v", got.Nodes)
	}

	// A producer that is never told of an error runs from here on until all is over.
	load := startLoad(t, "load", red, green, blue)

	// Drained by hand from another node, and back.
	if out := red.asked("node", "drain", "green"); !strings.Contains(out, "(green) is drained") {
		t.Errorf("node drain prints %q", out)
	}
	if n, _ := nodeIn(red.nodes(), "green"); n.State != stateDrained || n.Slots != 0 {
		t.Errorf("after a drain it is %+v", n)
	}
	if status := green.readiness(); status != http.StatusServiceUnavailable {
		t.Errorf("a drained node's readiness is %d", status)
	}
	load.lap("drained")
	green.tool("four\n", "produce", "orders")
	if out := blue.asked("node", "undrain", "green"); !strings.Contains(out, "(green) takes slots again") {
		t.Errorf("node undrain prints %q", out)
	}
	await(green, 3)

	load.lap("undrained")

	// A slot by hand, and by the weights again.
	at := await(red, 3)
	id, _ := nodeIn(at, "blue")
	if out := red.asked("node", "move-slot", "--topic", "orders:3", "--to", "blue"); !strings.Contains(out, fmt.Sprintf("to node %d", id.ID)) {
		t.Errorf("move-slot prints %q", out)
	}
	await(red, 3)
	if out := red.asked("node", "move-slot", "--topic", "orders:3"); !strings.Contains(out, fmt.Sprintf("from node %d", id.ID)) {
		t.Errorf("move-slot prints %q", out)
	}

	out, err := command(t, "node", "move-slot", "--topic", "orders", "--admin", red.admin).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "topic orders has 12 partitions: name one, as orders:0") {
		t.Errorf("move-slot of no partition: %v, %s", err, out)
	}

	load.lap("moved by hand")
	// One ends in order: the others have all of it, and hear of both in any order.
	green.stop()
	for len(red.nodes().Nodes) > 2 {
		time.Sleep(100 * time.Millisecond) // until that is heard; the test's own deadline bounds it
	}
	if r := await(red, 2); r.Unowned != 0 || len(r.Nodes) != 2 {
		t.Errorf("after one ended %d slots have no node, nodes are %+v", r.Unowned, r.Nodes)
	}
	load.lap("ended in order")
	// One is killed: the others have its slots when its lease has ended.
	blue.signal(syscall.SIGKILL)
	blue.wait()
	b.revoke(t, "blue")
	for len(red.nodes().Nodes) > 1 {
		time.Sleep(100 * time.Millisecond) // until that is heard; the test's own deadline bounds it
	}
	if n := await(red, 1).Nodes; len(n) != 1 || n[0].Slots != 1024 {
		t.Errorf("alone it is %+v", n)
	}
	load.lap("killed")
	if got := red.tool("", "consume", "orders", "--end"); strings.Count(got, "\n") != 4 {
		t.Errorf("records %q after all that", got)
	}
	out, err = command(t, "node", "drain", "red", "--admin", red.admin).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no other node could take the slots") {
		t.Errorf("the only node was drained: %v, %s", err, out)
	}

	// A newer program joins, all nodes are of it, and only then the level can be raised.
	green = begin("green", "3")
	out, err = command(t, "node", "upgrade-level", "--to", "3", "--admin", green.admin).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "(red, version") || !strings.Contains(string(out), "knows levels up to 2") {
		t.Errorf("a level that one node does not know: %v, %s", err, out)
	}
	red.stop()
	red = begin("red", "3")
	if out := red.asked("node", "upgrade-level"); out != "the cluster is at feature level 3\n" {
		t.Errorf("upgrade-level prints %q", out)
	}
	cmd := command(t, b.member(dirs["blue"], "blue")...)
	cmd.Env = append(cmd.Env, beLevel+"=2")
	refusesCommand(t, cmd, []string{"feature level 3", "levels 1 to 2"})

	load.lap("programs changed")
	// The script for restarts does its part on the real thing.
	restart := filepath.Join(t.TempDir(), "restart")
	script := "#!/bin/sh\necho \"$NODE_ID $NODE_NAME $NODE_HOST $ADMIN\" >> '" + restart + ".log'\nquire=$QUIRE\n\"$quire\" node undrain self --admin \"$ADMIN\"\n"
	if err := os.WriteFile(restart, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	roll := exec.Command("sh", filepath.Join(root, "deploy", "rolling-restart"), restart, red.admin, green.admin)
	roll.Env = append(os.Environ(), beQuire+"=1", "QUIRE="+self, "AWAIT_TIMEOUT=2m", "BALANCER_WAIT=0")
	if out, err := roll.CombinedOutput(); err != nil || !strings.Contains(string(out), "done, 2 nodes") {
		t.Errorf("rolling-restart: %v\n%s", err, out)
	}
	logged, _ := os.ReadFile(restart + ".log")
	if !regexp.MustCompile(`(?s)^\d+ red 127.0.0.1 127.0.0.1:\d+\n\d+ green 127.0.0.1 127.0.0.1:\d+\n$`).Match(logged) {
		t.Errorf("its command saw %q", logged)
	}
	load.check(green)
	red.stop()
	green.stop()
}

// load produces numbers, one after the other to all partitions of a topic, as a client
// with franz-go's defaults does.
type load struct {
	t      *testing.T
	topic  string
	client *kgo.Client
	stop   chan struct{}
	done   chan struct{}
	sent   int

	mu    sync.Mutex
	worst time.Duration // until one was acknowledged, since the last lap
}

func startLoad(t *testing.T, topic string, seeds ...*instance) *load {
	t.Helper()
	l := &load{t: t, topic: topic, stop: make(chan struct{}), done: make(chan struct{})}
	seeds[0].tool("", "topic", "create", topic, "-p", "16")
	var addresses []string
	for _, s := range seeds {
		addresses = append(addresses, s.address)
	}
	var err error
	if l.client, err = kgo.NewClient(kgo.SeedBrokers(addresses...), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.RoundRobinPartitioner())); err != nil {
		t.Fatal(err)
	}
	go l.run()
	return l
}

func (l *load) run() {
	defer close(l.done)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.stop:
			if err := l.client.Flush(context.Background()); err != nil {
				l.t.Errorf("flush: %v", err)
			}
			return
		}
		began := time.Now()
		l.client.Produce(context.Background(), kgo.StringRecord(strconv.Itoa(l.sent)), func(r *kgo.Record, err error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.worst = max(l.worst, time.Since(began))
			if err != nil {
				l.t.Errorf("record %s: %v", r.Value, err)
			}
		})
		l.sent++
	}
}

// lap tells how long the slowest record took to be acknowledged since the last lap.
func (l *load) lap(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t.Logf("%s: the slowest record was acknowledged after %s", what, l.worst)
	l.worst = 0
}

// check ends the load and reads everything back.
func (l *load) check(from *instance) {
	l.t.Helper()
	close(l.stop)
	<-l.done
	l.client.Close()
	seen := map[string]int{}
	for line := range strings.Lines(from.tool("", "consume", l.topic, "--end")) {
		seen[strings.TrimSpace(line)]++
	}
	for i := range l.sent {
		if n := seen[strconv.Itoa(i)]; n != 1 {
			l.t.Errorf("record %d is there %d times", i, n)
		}
	}
	if len(seen) != l.sent {
		l.t.Errorf("%d records are there, %d were sent", len(seen), l.sent)
	}
	l.lap(fmt.Sprintf("the last of %d records", l.sent))
}

func nodeIn(r nodesReport, name string) (nodeReport, bool) { return r.find(name) }

// TestPeerKeysRefused: keys that make no sense together.
func TestPeerKeysRefused(t *testing.T) {
	many := []string{"storage.tier=bookkeeper", "etcd.endpoints=http://a:1", "peer.listen=:9190"}
	for _, c := range []struct {
		set  []string
		want string
	}{
		{many, ""},
		{many[:1], "etcd.endpoints"},
		{[]string{"peer.listen=:9190"}, "storage.tier is embedded"},
		{[]string{"peer.listen=:9190", "storage.tier=bookkeeper", "bookkeeper.metadata.endpoints=http://a:1"}, "etcd.endpoints is not"},
		{[]string{"peer.secret.file=x"}, "peer.listen is not"},
		{append(many[:3:3], "peer.advertised=0.0.0.0:1"), "no address that other nodes can reach"},
		{append(many[:3:3], "peer.advertised=h:0"), "no address that other nodes can reach"},
		{append(many[:3:3], "peer.tls.ca.file=x"), "peer.tls.cert.file is not"},
		{append(many[:3:3], "node.name=a/b"), "letters, digits"},
		{append(many[:3:3], "cluster.name=-x"), "letters, digits"},
		{append(many[:3:3], "node.lease.ttl.ms=2999"), "between 3000 and 60000"},
		{append(many[:3:3], "node.weight=0"), "between 1 and"},
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
			t.Errorf("%q: %v, want an error with %q", c.set, err, c.want)
		}
	}
}
