package clients

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/quirelog/quire/conformance/peer"
)

// lastingKinds are the members that live through what becomes of nodes: of each
// library and protocol one. The short run has the first of them: of each library one.
var lastingKinds = []string{
	"franz-go/classic/cooperative-sticky", "librdkafka/classic/range", "sarama/classic/range", "java-4.3.1/consumer/uniform",
	"java-3.9.1/classic/cooperative-sticky", "franz-go/consumer/uniform", "librdkafka/consumer/uniform", "java-4.3.1/classic/range",
}

const shortKinds = 5

// Groups on several nodes behind one address, each of which (in the short run one) is
// drained, and then killed, while they read. A record is read once, what is committed is found, and no member
// hears of a rebalance: in Kafka a coordinator that fails over starts none either. Java's
// of 4.0 on would, if they were told of one node only: a cut connection would then have them
// forget their topics (KIP-899).
func TestGroupsThroughDrainsAndKills(t *testing.T) {
	const partitions, more = 6, 20
	c := useCluster(t, "node.lease.ttl.ms=3000")
	type lasting struct {
		stream  *stream
		group   string
		members []*member
		changes []int
	}
	var groups []*lasting
	kinds := lastingKinds
	if !full {
		kinds = kinds[:shortKinds]
	}
	for _, name := range kinds {
		k := kindNamed(t, name)
		g := &lasting{stream: newStream(t, partitions), group: topicName(t)}
		for range 2 {
			g.members = append(g.members, k.start(t, memberOptions{group: g.group, topic: g.stream.topic, assignor: k.assignor}))
		}
		groups = append(groups, g)
	}
	for i, g := range groups {
		awaitShared(t, partitions, g.members...)
		g.stream.grow(t, more)
		g.stream.awaitRead(t, g.group, 0, g.members...)
		for _, m := range g.members {
			g.changes = append(g.changes, m.changes())
		}
		t.Logf("%s reads", lastingKinds[i])
	}
	read := func(after string) {
		t.Helper()
		for _, g := range groups {
			g.stream.grow(t, more)
		}
		for i, g := range groups {
			g.stream.awaitRead(t, g.group, 0, g.members...)
			for j, m := range g.members {
				if n := m.changes(); n != g.changes[j] {
					t.Errorf("%s, %s: %d changes of the assignment, %d before", lastingKinds[i], after, n, g.changes[j])
					g.changes[j] = n
				}
			}
		}
		t.Logf("all is read after %s", after)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	whole := []string{"await", "--nodes", fmt.Sprint(len(c.Nodes))}
	nodes := c.Nodes
	if !full {
		nodes = nodes[:1]
	}
	for i, n := range nodes {
		must(n.NodeVerb(step(t), "drain", "self"))
		read(fmt.Sprintf("a drain of node %d", i+1))
		must(n.NodeVerb(step(t), "undrain", "self"))
		must(n.NodeVerb(step(t), whole...))
		must(n.Kill())
		read(fmt.Sprintf("a kill of node %d", i+1))
		must(n.Start(step(t)))
		must(n.NodeVerb(step(t), whole...))
		read(fmt.Sprintf("the return of node %d", i+1))
	}
	for _, g := range groups {
		mustLeave(t, g.members...)
	}
}

// useCluster starts several nodes behind one address, in the place of broker for the
// rest of the test.
func useCluster(t *testing.T, overrides ...string) *peer.Cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "quire-cluster-")
	if err != nil {
		t.Fatal(err)
	}
	c, err := peer.NewCluster(t.Context(), peer.Options{Dir: dir, Overrides: slices.Concat(groupOverrides, overrides)})
	need(t, err)
	before := broker
	t.Cleanup(func() {
		broker = before
		if t.Failed() {
			t.Logf("end of the logs:\n%s", c.LogTail(20))
		}
		if err := errors.Join(c.Kill(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	if err := c.Start(step(t)); err != nil {
		t.Fatal(err)
	}
	broker = c
	return c
}
