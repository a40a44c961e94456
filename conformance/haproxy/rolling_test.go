package haproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/check"
	"github.com/quirelog/quire/conformance/load"
	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kadm"
)

// full is set in the long run, which has the machine to itself.
var full = os.Getenv("QUIRE_CONFORMANCE_FULL") == "true"

// restartAt is where this program connects to when it is the command of
// deploy/rolling-restart, and has the node restarted that the script names.
const restartAt = "QUIRE_TEST_RESTART_AT"

func TestMain(m *testing.M) {
	at := os.Getenv(restartAt)
	if at == "" {
		os.Exit(m.Run())
	}
	c, err := net.Dial("tcp", at)
	if err == nil {
		_, err = fmt.Fprintln(c, os.Getenv("NODE_NAME"))
	}
	var answer []byte
	if err == nil {
		answer, err = io.ReadAll(c)
	}
	if err != nil || string(answer) != "done\n" {
		fmt.Fprintf(os.Stderr, "restart: %s, %v\n", answer, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A rolling is restarts of all nodes by deploy/rolling-restart under clients with the
// settings that they come with.
type rolling struct {
	*site
	rounds       int // of all nodes; 0: one is restarted, without the script
	producers    []string
	perSecond    int
	groups       bool
	balancerWait int // seconds

	epoch  time.Time
	mu     sync.Mutex
	phases []phase // in turn
}

// A phase is a part of a node's restart, until the next one begins.
type phase struct {
	name string
	from time.Duration
}

const (
	rollingTopic      = "orders"
	rollingPartitions = 6
	// warmUp is for how long clients run before anything is measured: until their
	// programs are compiled, and everything is open.
	warmUp = 5 * time.Second
	// maxWait is the bar for 999 of 1,000 sends.
	maxWait = time.Second
)

// Clients of all ages write and read while all nodes are restarted: no send fails, no
// group rebalances, everything is there.
func TestRollingRestart(t *testing.T) {
	if !full {
		return // TestConfigurations has a short one
	}
	const bookieCount = 3
	r := &rolling{
		site: newSite(t, "one-address", bookies(t, bookieCount), variant{quorums: [3]int{3, 3, 2}, patient: true, known: true}), rounds: 2,
		producers: []string{
			"java-4.3.1-defaults", "java-2.8.2-defaults", "java-0.10.2.2-defaults",
			"librdkafka-defaults", "librdkafka-idempotent-defaults", "franz-go-defaults",
		},
		perSecond: 100, groups: true, balancerWait: 5,
	}
	r.run()
}

func (r *rolling) run() {
	t := r.t
	for i := range nodes {
		r.await(fmt.Sprintf("quire-%d", i+1), "UP")
	}
	r.took("the start")
	admin := kadm.NewClient(r.client())
	if _, err := admin.CreateTopic(step(t), rollingPartitions, 1, nil, rollingTopic); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(r.dir, "clients")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	groups := r.members(dir)
	r.took("groups")
	r.epoch = time.Now()
	loads, end := r.loads(dir)
	r.took("producers")
	began := r.now()
	before := map[*load.Group]int{}
	for _, g := range groups {
		before[g] = g.Rebalances()
	}
	for range r.rounds {
		r.restart()
	}
	if r.rounds == 0 {
		if err := r.restartNode("quire-2"); err != nil {
			t.Fatal(err)
		}
	}
	r.moves("the end")
	end()
	r.report(loads, began)
	r.took("restarts")

	for _, l := range loads {
		if n, first := l.Failures(); n > 0 {
			t.Errorf("%s: %d sends failed, the first: %v", l.Name(), n, first)
		}
		waits := l.Waits(began, r.now())
		if slow := at(waits, 999); full && slow > maxWait {
			t.Errorf("%s: a send of 1,000 takes %s", l.Name(), slow)
		}
	}
	r.readBack(loads, groups)
	for _, g := range groups {
		if n := g.Rebalances() - before[g]; n != 0 {
			t.Errorf("%s: its members were told of %d rebalances", g.Name, n)
		}
		if err := g.Err(); err != nil {
			t.Error(err)
		}
	}
}

func (r *rolling) now() time.Duration { return time.Since(r.epoch) }

// until waits for what is seen by looking only.
func (r *rolling) until(what string, is func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	for !is() {
		if ctx.Err() != nil {
			r.t.Fatalf("not in a minute: %s", what)
		}
		time.Sleep(20 * time.Millisecond) // what others count is polled
	}
}

// members starts the groups and returns when each member has its share.
func (r *rolling) members(dir string) []*load.Group {
	r.t.Helper()
	if !r.groups {
		return nil
	}
	m, err := load.NewMembers(r.t.Context(), r.front, rollingTopic, dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(m.Close)
	for _, g := range m.Groups {
		r.until(g.Name+" has its members", func() bool { return g.Whole(rollingPartitions) })
	}
	return m.Groups
}

// loads starts the producers and returns when all of them are at work. end has them stop,
// and returns when every record is answered.
func (r *rolling) loads(dir string) (loads []*load.Load, end func()) {
	t := r.t
	t.Helper()
	var partitions []check.Partition
	for i := range int32(rollingPartitions) {
		partitions = append(partitions, check.Partition{Topic: rollingTopic, Number: i})
	}
	for i, name := range r.producers {
		l, err := load.New(t.Context(), name, load.Options{
			Number: uint16(i), Bootstrap: r.front, Dir: dir, Partitions: partitions, PerSecond: r.perSecond, Epoch: r.epoch,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		loads = append(loads, l)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- load.RunAll(ctx, loads, time.Minute) }()
	t.Cleanup(stop)
	for _, l := range loads {
		r.until(l.Name()+" writes everywhere", func() bool {
			return !slices.ContainsFunc(partitions, func(p check.Partition) bool { return l.LastAck(p) == 0 })
		})
	}
	if full {
		time.Sleep(warmUp) // a time to leave out of the figures
	}
	return loads, func() {
		t.Helper()
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// moves notes that another phase begins.
func (r *rolling) moves(to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phases = append(r.phases, phase{to, r.now()})
}

// restart runs the script over all nodes.
func (r *rolling) restart() {
	t := r.t
	t.Helper()
	root, err := peer.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	quire, err := peer.QuireBinary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", net.JoinHostPort(proxyIP, "0"))
	if err != nil {
		t.Fatal(err)
	}
	var restarting sync.WaitGroup
	restarting.Go(func() { r.restarts(l) })
	defer restarting.Wait()
	defer l.Close()
	args := []string{filepath.Join(root, "..", "deploy", "rolling-restart"), "'" + own + "'"}
	for i := range nodes {
		args = append(args, r.admin(i))
	}
	cmd := exec.CommandContext(t.Context(), "sh", args...)
	cmd.Env = append(os.Environ(), restartAt+"="+l.Addr().String(), "QUIRE="+quire, fmt.Sprint("BALANCER_WAIT=", r.balancerWait), "AWAIT_TIMEOUT=60s")
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(said); lines.Scan(); {
		line := lines.Text()
		t.Logf("%7.3f s  %s", r.now().Seconds(), line)
		if strings.HasSuffix(line, ": draining") {
			r.moves("drain")
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("rolling-restart: %v", err)
	}
}

// restarts restarts the nodes that are asked for at l, until it is closed.
func (r *rolling) restarts(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		line, _ := bufio.NewReader(c).ReadString('\n')
		answer := "done"
		if err := r.restartNode(strings.TrimSpace(line)); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Fprintln(c, answer)
		c.Close()
	}
}

func (r *rolling) restartNode(name string) error {
	var number int
	if _, err := fmt.Sscanf(name, "quire-%d", &number); err != nil || number < 1 || number > nodes {
		return fmt.Errorf("there is no node %q", name)
	}
	node := r.nodes[number-1]
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	r.moves("SIGTERM")
	if err := node.Stop(ctx); err != nil {
		return err
	}
	r.moves("start")
	if err := node.Start(ctx); err != nil {
		return err
	}
	r.moves("return")
	return nil
}

// at is a wait that so many of 1,000 are not longer than.
func at(waits []time.Duration, perMille int) time.Duration {
	if len(waits) == 0 {
		return 0
	}
	return waits[min(len(waits)-1, len(waits)*perMille/1000)]
}

// report logs what each client has seen, and the longest waits of the phases.
func (r *rolling) report(loads []*load.Load, began time.Duration) {
	names := []string{"drain", "SIGTERM", "start", "return"}
	end := r.now()
	var b strings.Builder
	fmt.Fprintf(&b, "%d restarts in %.0f s; milliseconds from send to acknowledgement\n%-32s %6s %6s %7s %7s %7s", max(1, r.rounds*nodes), (end - began).Seconds(),
		"", "sends", "failed", "median", "p99.9", "max")
	for _, name := range names {
		fmt.Fprintf(&b, " %8s", name)
	}
	millis := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	for _, l := range loads {
		waits := l.Waits(began, end)
		failed, _ := l.Failures()
		fmt.Fprintf(&b, "\n%-32s %6d %6d %7.1f %7.1f %7.1f", l.Name(), len(waits), failed, millis(at(waits, 500)), millis(at(waits, 999)), millis(at(waits, 1000)))
		for _, name := range names {
			longest := time.Duration(0)
			for i, p := range r.phases[:len(r.phases)-1] {
				if p.name == name {
					longest = max(longest, at(l.Waits(p.from, r.phases[i+1].from), 1000))
				}
			}
			fmt.Fprintf(&b, " %8.1f", millis(longest))
		}
	}
	r.t.Log(b.String())
}

// readBack holds what is in the topic, and what groups have read of it, against what was
// acknowledged.
func (r *rolling) readBack(loads []*load.Load, groups []*load.Group) {
	t := r.t
	t.Helper()
	var partitions []check.Partition
	for i := range int32(rollingPartitions) {
		partitions = append(partitions, check.Partition{Topic: rollingTopic, Number: i})
	}
	read, err := load.ReadAll(t.Context(), "reader", r.front, partitions, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	h := load.History(loads)
	for _, v := range check.Check(h, read) {
		if v.Kind == check.Reordered && h.Plain[v.ID.Producer()] {
			continue // it has more than one request under way, and sends what was cut off again
		}
		t.Error(v)
	}
	for _, g := range groups {
		for _, p := range partitions {
			end := int64(len(read.Records[p]))
			r.until(fmt.Sprintf("%s has read partition %d to %d", g.Name, p.Number, end), func() bool { return g.Next(p.Number) >= end })
		}
	}
}
