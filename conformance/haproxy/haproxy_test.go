// Package haproxy runs the configurations of deploy/haproxy: the real HAProxy, and
// several nodes of Quire behind it with the other half of each.
package haproxy

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// told is what clients of each configuration are told of the nodes.
var told = map[string][]string{
	"one-address":      {"kafka.example.com:9092", "kafka.example.com:9092"}, // the second one is a spare
	"port-per-node":    {"kafka.example.com:9101", "kafka.example.com:9102", "kafka.example.com:9103"},
	"sni":              {"quire-1.kafka.example.com:9093", "quire-2.kafka.example.com:9093", "quire-3.kafka.example.com:9093"},
	"sni-terminated":   {"quire-1.kafka.example.com:9093", "quire-2.kafka.example.com:9093", "quire-3.kafka.example.com:9093"},
	"direct-bootstrap": {"10.0.0.11:9092", "10.0.0.12:9092", "10.0.0.13:9092"},
}

func TestConfigurations(t *testing.T) {
	root, err := peer.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "..", "deploy", "haproxy", "*.cfg"))
	if err != nil || len(files) != len(told) {
		t.Fatalf("the configurations are %v, %v", files, err)
	}
	bk := bookies(t, 1)
	// What TestRollingRestart does to all nodes, done to one.
	t.Run("restart", func(t *testing.T) {
		t.Parallel()
		r := &rolling{
			site:      newSite(t, "one-address", bk, variant{quorums: single.quorums, known: true}),
			producers: []string{"java-0.10.2.2-defaults", "franz-go-defaults"}, perSecond: 100,
		}
		r.run()
	})
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".cfg")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, name, bk, single)
			for i := range nodes {
				s.await(fmt.Sprintf("quire-%d", i+1), "UP")
			}
			s.took("the start")
			s.serves()
			s.took("to produce and consume")
			s.refusesSpoofers()
			s.took("spoofers")
			load := s.load()
			s.drains()
			s.took("a drain")
			s.reloads()
			s.took("a reload")
			s.stops(load)
			s.took("a stop")
			s.kills(load)
			s.took("two kills")
			load.end()
			s.took("to read it all")
		})
	}
}

// bookies are some, with an etcd. One is enough for most of what is tested here.
func bookies(t *testing.T, count int) *peer.BookKeeper {
	t.Helper()
	dir, err := peer.DataDir("", "haproxy")
	if err != nil {
		t.Fatal(err)
	}
	bk, err := peer.NewBookKeeper(t.Context(), peer.BookKeeperOptions{Dir: dir, Bookies: count})
	if err != nil {
		if errors.Is(err, peer.ErrMissingTool) && os.Getenv("CI") != "true" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bk.Kill(); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // several at once take their time
	defer cancel()
	if err := bk.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return bk
}

// serves produces and consumes through HAProxy, and looks at what clients are told
// and at who they are taken for.
func (s *site) serves() {
	s.t.Helper()
	client := s.client(kgo.ConsumerGroup("readers"), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(step(s.t), 6, 1, nil, "orders"); err != nil {
		s.t.Fatal(err)
	}
	meta, err := admin.BrokerMetadata(step(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	var brokers []string
	for _, b := range meta.Brokers {
		brokers = append(brokers, fmt.Sprintf("%s:%d", b.Host, b.Port))
		if _, port, ok := strings.Cut(told[s.name][0], ":910"); ok && port != "" && b.Port != 9100+b.NodeID {
			s.t.Errorf("node %d is at port %d", b.NodeID, b.Port)
		}
	}
	slices.Sort(brokers)
	if !slices.Equal(brokers, told[s.name]) {
		s.t.Fatalf("clients are told of %q, want %q", brokers, told[s.name])
	}
	const records = 120
	for i := range records {
		client.Produce(s.t.Context(), &kgo.Record{Topic: "orders", Key: fmt.Append(nil, i), Value: fmt.Append(nil, i)}, func(_ *kgo.Record, err error) {
			if err != nil {
				s.t.Errorf("record %d: %v", i, err)
			}
		})
	}
	if err := client.Flush(step(s.t)); err != nil {
		s.t.Fatal(err)
	}
	seen := map[string]int{}
	for ctx := step(s.t); len(seen) < records; {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			s.t.Fatalf("%d of %d records are read: %v", len(seen), records, fetches.Errors())
		}
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
	}
	groups, err := admin.DescribeGroups(step(s.t), "readers")
	if err != nil || len(groups["readers"].Members) != 1 {
		s.t.Fatalf("the group is %v, %v", groups["readers"], err)
	}
	if host := strings.TrimPrefix(groups["readers"].Members[0].ClientHost, "/"); host != clientIP {
		s.t.Errorf("the member is taken for one of %s, not of %s", host, clientIP)
	}
	// What checks and agents do is no business of clients'.
	client.Close()
}

// refusesSpoofers connects to a node past HAProxy, with and without a header.
func (s *site) refusesSpoofers() {
	s.t.Helper()
	port := "9092"
	switch s.name {
	case "sni":
		port = "9093"
	case "direct-bootstrap":
		port = "9094"
	}
	request, err := hex.DecodeString("0000000a0012000000000001ffff")
	if err != nil {
		s.t.Fatal(err)
	}
	at := net.JoinHostPort(nodeIP(0), s.ports[port])
	for _, c := range []struct{ from, header string }{
		{spooferIP, "PROXY TCP4 127.0.0.99 127.0.0.11 1234 9092\r\n"},
		{spooferIP, ""},
		{proxyIP, ""},
	} {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.from)}}
		conn, err := d.DialContext(step(s.t), "tcp", at)
		if err != nil {
			s.t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = conn.Write(append([]byte(c.header), request...))
		answer, err := io.ReadAll(conn)
		if len(answer) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			s.t.Errorf("from %s with %q: answered %x, %v", c.from, c.header, answer, err)
		}
		conn.Close()
	}
}

// A traffic writes without a pause until it ends.
type traffic struct {
	s       *site
	client  *kgo.Client
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	acked  []string
	failed []error
}

func (s *site) load() *traffic {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.t.Context())
	l := &traffic{s: s, client: s.client(kgo.DefaultProduceTopic("orders")), stop: stop}
	l.running.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			value := fmt.Sprintf("load %d", i)
			l.client.Produce(context.WithoutCancel(ctx), &kgo.Record{Key: []byte(value), Value: []byte(value)}, func(_ *kgo.Record, err error) {
				l.mu.Lock()
				defer l.mu.Unlock()
				if err != nil {
					l.failed = append(l.failed, err)
				} else {
					l.acked = append(l.acked, value)
				}
			})
			<-tick.C
		}
	})
	l.more()
	return l
}

// more waits until what is sent from now on is acknowledged.
func (l *traffic) more() {
	l.s.t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acked)
	}
	ctx := step(l.s.t)
	for want := count() + 50; count() < want; {
		if ctx.Err() != nil {
			l.s.t.Fatalf("nothing is acknowledged any more after %d records", count())
		}
		time.Sleep(5 * time.Millisecond) // the count is polled: the load goes on all the time
	}
}

// end stops it and reads everything back: no send has failed, each is there once.
func (l *traffic) end() {
	s := l.s
	s.t.Helper()
	l.stop()
	l.running.Wait()
	if err := l.client.Flush(step(s.t)); err != nil {
		s.t.Fatal(err)
	}
	s.took("the last acknowledgements")
	if len(l.failed) > 0 {
		s.t.Errorf("%d sends failed, the first: %v", len(l.failed), l.failed[0])
	}
	reader := s.client(kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	seen := map[string]int{}
	for ctx := step(s.t); len(seen) < len(l.acked); {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			s.t.Fatalf("%d of %d records are read: %v", len(seen), len(l.acked), fetches.Errors())
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if bytes.HasPrefix(r.Value, []byte("load ")) {
				seen[string(r.Value)]++
			}
		})
	}
	for _, value := range l.acked {
		if seen[value] != 1 {
			s.t.Errorf("%q is there %d times", value, seen[value])
		}
	}
}

// drains has a node drained and taken back by the command. HAProxy learns of it by its
// agent check, or where it has none by /readyz.
func (s *site) drains() {
	s.t.Helper()
	bin, err := peer.QuireBinary(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	verb := func(verb string) {
		s.t.Helper()
		out, err := exec.CommandContext(step(s.t), bin, "node", verb, "quire-2", "--admin", s.admin(0)).CombinedOutput()
		if err != nil {
			s.t.Fatalf("quire node %s: %v\n%s", verb, err, out)
		}
	}
	verb("drain")
	if s.name == "direct-bootstrap" {
		s.await("quire-2", "DOWN") // by /readyz; nobody is cut off by that here
	} else {
		s.await("quire-2", "DRAIN")
		before := s.stats("quire-2")["stot"]
		for range 6 {
			client := s.client()
			if _, err := kadm.NewClient(client).BrokerMetadata(step(s.t)); err != nil {
				s.t.Fatal(err)
			}
			client.Close()
		}
		if after := s.stats("quire-2")["stot"]; s.name == "one-address" && after != before {
			s.t.Errorf("a draining node has %s sessions after %s", after, before)
		}
	}
	verb("undrain")
	s.await("quire-2", "UP")
}

// admin is the admin listener of a node.
func (s *site) admin(i int) string {
	if port := s.ports["9644"]; port != "" {
		return net.JoinHostPort(nodeIP(i), port)
	}
	return s.nodes[i].AdminAddr()
}

// reloads has another HAProxy take over; the one before ends with its last connection.
func (s *site) reloads() {
	s.t.Helper()
	before := s.proxy.Process()
	if err := s.proxy.Reload(step(s.t)); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-before.Exited():
		if s.name == "one-address" {
			s.t.Error("HAProxy has ended under its connections")
		}
	default:
	}
	for i := range nodes {
		s.await(fmt.Sprintf("quire-%d", i+1), "UP")
	}
}

// stops ends a node by SIGTERM and starts it again.
func (s *site) stops(load *traffic) {
	s.t.Helper()
	node := s.nodes[1]
	if err := node.Stop(step(s.t)); err != nil {
		s.t.Fatal(err)
	}
	load.more()
	if err := node.Start(step(s.t)); err != nil {
		s.t.Fatal(err)
	}
	s.await("quire-2", "UP")
	load.more()
}

// kills ends a node by SIGKILL and HAProxy after it.
func (s *site) kills(load *traffic) {
	s.t.Helper()
	node := s.nodes[2]
	if err := node.Process().Signal(syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	<-node.Process().Exited()
	s.await("quire-3", "DOWN")
	load.more()
	if err := node.Start(step(s.t)); err != nil {
		s.t.Fatal(err)
	}
	s.await("quire-3", "UP")
	if err := s.proxy.Kill(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.proxy.Start(step(s.t)); err != nil {
		s.t.Fatal(err)
	}
	load.more()
}
