package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// A cluster is everything below and beside the clients. What is done to one
// process at a time is one nemesis's business: claim says whose.
type cluster struct {
	network    *peer.Network // nil: all of it is on the loopback interface
	bk         *peer.BookKeeper
	supervisor *peer.Supervisor
	nodes      []*node
	haproxy    *peer.HAProxy
	addr       string // of HAProxy, for producers and consumers
	groupsAddr string // the same for members of groups: these are told to go on by groupsTap
	groupsTap  string
	full       bool // a bookie lies on a small file system

	nodeHosts, bookieHosts, etcdHosts []*peer.Host
	proxyHost                         *peer.Host

	slow slowDisk

	mu      sync.Mutex
	claimed map[string]bool
}

// A node is one server, which comes back on its folder and its addresses.
type node struct {
	name    string
	groups  string // listener for members of groups
	peer    string // listener for other servers
	host    *peer.Host
	options peer.Options
	server  *peer.Server
}

const (
	// startTimeout is for a JVM on a machine that has a lot else to do.
	startTimeout = 3 * time.Minute
	stopTimeout  = 45 * time.Second
	// unregistered is how long the supervisor bears a bookie that serves and has no
	// registration.
	unregistered = 8 * time.Second
	// smallDiskBytes is the file system of the bookie that full-bookie fills, beside
	// what the load may leave there.
	smallDiskBytes = 256 << 20
	// loadBytes bounds what one record costs a bookie, journal and entry log together.
	loadBytes = 3 << 10
)

// newCluster lays all of it out; nothing runs yet.
func newCluster(ctx context.Context, p *plan) (*cluster, error) {
	c := &cluster{claimed: map[string]bool{}}
	c.nodeHosts, c.bookieHosts, c.etcdHosts = make([]*peer.Host, p.nodes), make([]*peer.Host, p.bookies), make([]*peer.Host, p.etcds)
	var err error
	own := "127.0.0.1" // this process, for the servers
	if peer.Isolated() {
		if c.network, err = peer.NewNetwork(); err != nil {
			return nil, err
		}
		own = c.network.IP()
		for _, group := range []struct {
			name  string
			hosts []*peer.Host
		}{{"quire", c.nodeHosts}, {"bookie", c.bookieHosts}, {"etcd", c.etcdHosts}} {
			for i := range group.hosts {
				if group.hosts[i], err = c.network.Add(fmt.Sprintf("%s-%d", group.name, i+1)); err != nil {
					return nil, err
				}
			}
		}
		if c.proxyHost, err = c.network.Add("haproxy"); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(p.dir, "bookkeeper")
	options := peer.BookKeeperOptions{
		Dir: dir, Bookies: p.bookies, AutoRecovery: p.bookies > 3, BookieHosts: c.bookieHosts, EtcdHosts: c.etcdHosts,
		Recovery: []string{"openLedgerRereplicationGracePeriod=10000"},
	}
	if p.chose("full-bookie") {
		c.full = true
		records := int64(p.perSecond*len(p.producers)) * int64((p.duration+liveTimeout)/time.Second)
		if err := peer.MountTmpfs(filepath.Join(dir, "bookie-1"), smallDiskBytes+records*loadBytes); err != nil {
			return nil, err
		}
	}
	if p.chose("slow-bookie") {
		options.Intercept = c.slow.interceptor
	}
	if c.bk, err = peer.NewBookKeeper(ctx, options); err != nil {
		return nil, err
	}
	if c.haproxy, err = peer.NewHAProxy(ctx, filepath.Join(p.dir, "haproxy"), c.proxyHost); err != nil {
		return nil, err
	}
	if c.addr, err = c.haproxy.Listen(); err != nil {
		return nil, err
	}
	if c.groupsAddr, err = c.haproxy.Listen(); err != nil {
		return nil, err
	}
	if c.groupsTap, err = peer.FreeAddress(own); err != nil {
		return nil, err
	}
	for i := range p.nodes {
		name := fmt.Sprintf("quire-%d", i+1)
		n, err := c.newNode(ctx, p, name, name, c.nodeHosts[i])
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	c.serve()
	return c, nil
}

// newNode lays out a server by a name, with a folder and free addresses on a host.
func (c *cluster) newNode(ctx context.Context, p *plan, name, folder string, host *peer.Host) (*node, error) {
	n := &node{name: name, host: host}
	var err error
	if n.groups, err = host.Listen(); err != nil {
		return nil, err
	}
	if n.peer, err = host.Listen(); err != nil {
		return nil, err
	}
	quorums := [3]int{min(3, p.bookies), min(3, p.bookies), min(2, p.bookies)}
	n.options = peer.Options{
		Dir: filepath.Join(p.dir, folder), Host: host, Env: p.env, Bin: p.bin, Named: c.addr, Listeners: []string{"GROUPS://" + n.groups},
		Overrides: slices.Concat(peer.OnBookies(c.bk, quorums), c.nodeOverrides(p, n), p.overrides),
	}
	n.server, err = peer.NewQuire(ctx, n.options)
	return n, err
}

// nodeOverrides are the configs that make a server one of several.
func (c *cluster) nodeOverrides(p *plan, n *node) []string {
	millis := func(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }
	return append(peer.BehindOneAddress(n.name, n.peer, "PLAINTEXT://"+c.addr, "GROUPS://"+c.groupsTap),
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,GROUPS:PLAINTEXT",
		"node.lease.ttl.ms="+millis(p.lease),
		"group.initial.rebalance.delay.ms=500",
		"group.min.session.timeout.ms=1000",
		"group.consumer.session.timeout.ms="+millis(p.session),
		"group.consumer.min.session.timeout.ms=1000",
		"group.consumer.heartbeat.interval.ms=500",
		"group.consumer.min.heartbeat.interval.ms=500",
		"auto.create.topics.enable=false",
	)
}

func (c *cluster) serve() {
	var servers, groups, checks []string
	for _, n := range c.nodes {
		servers = append(servers, n.server.Addr())
		groups = append(groups, n.groups)
		checks = append(checks, n.server.AdminAddr())
	}
	c.haproxy.Serve(peer.Front{Name: "clients", Servers: servers, Check: checks}, peer.Front{Name: "groups", Servers: groups, Check: checks})
}

// start runs everything and returns when it serves.
func (c *cluster) start(ctx context.Context, p *plan) error {
	if err := c.bk.Start(ctx); err != nil {
		return err
	}
	c.supervisor = c.bk.Supervise(unregistered, p.logf)
	if err := c.eachNode(func(n *node) error { return n.server.Start(ctx) }); err != nil {
		return err
	}
	return c.haproxy.Start(ctx)
}

// eachNode does something to all servers at once.
func (c *cluster) eachNode(f func(*node) error) error {
	errs := make([]error, len(c.nodes))
	var running sync.WaitGroup
	for i, n := range c.nodes {
		running.Go(func() {
			if err := f(n); err != nil {
				errs[i] = fmt.Errorf("%s: %w", n.name, err)
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// end kills everything.
func (c *cluster) end() error {
	if c.supervisor != nil {
		c.supervisor.Stop()
	}
	return errors.Join(c.haproxy.Kill(), c.eachNode(func(n *node) error { return n.server.Kill() }), c.bk.Kill())
}

// startNode runs a server that has ended and returns when it answers. One that ends
// again for want of etcd, which another nemesis may be at, is started again, as its
// supervisor does in production.
func (c *cluster) startNode(ctx context.Context, n *node) error {
	const again = 500 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := n.server.Start(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !strings.Contains(n.server.LogTail(1), "metadata store is not available") {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		wait(ctx, again)
	}
}

// startBookie runs a bookie that has ended and returns when it serves and is
// registered; that alone may be what its last process has left. The supervisor may
// start it once more meanwhile: on a busy machine it looks deaf.
func (c *cluster) startBookie(ctx context.Context, b *peer.JavaServer) error {
	if err := b.Exec(); err != nil {
		return err
	}
	return c.bk.WaitFor(ctx, b.ID+" is not registered", func(ctx context.Context) (bool, error) {
		if serves, err := b.Serves(); err != nil || !serves {
			return false, err
		}
		registered, _, err := c.bk.Registered(ctx, b)
		return registered, err
	})
}

// whole waits until every bookie is registered and every server answers.
func (c *cluster) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, n := range c.nodes {
		if err := n.server.WaitReady(ctx); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	return c.bk.WaitFor(ctx, "not every bookie is registered", func(ctx context.Context) (bool, error) {
		for i, b := range c.bk.Bookies {
			registered, readOnly, err := c.bk.Registered(ctx, b)
			if err != nil || !registered || readOnly && !(c.full && i == 0) {
				return false, err
			}
		}
		return true, nil
	})
}

// mend brings back all that a harm which failed may have left as it was: what is
// stopped, cut off, full, slow, or has ended.
func (c *cluster) mend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*startTimeout)
	defer cancel()
	var failed []error
	for _, h := range slices.Concat(c.nodeHosts, c.bookieHosts, c.etcdHosts, []*peer.Host{c.proxyHost}) {
		if h != nil {
			failed = append(failed, h.PassAll())
		}
	}
	c.slow.bookie.Store(0)
	if err := os.Remove(ballast(c.bk.Bookies[0])); err != nil && !errors.Is(err, os.ErrNotExist) {
		failed = append(failed, err)
	}
	for _, m := range c.bk.Etcd.Members {
		failed = append(failed, back(m.Process(), m.Exec))
	}
	for _, m := range c.bk.Etcd.Members {
		failed = append(failed, m.WaitReady(ctx))
	}
	for _, b := range c.bk.Bookies {
		failed = append(failed, back(b.Process(), func() error { return c.startBookie(ctx, b) }))
	}
	failed = append(failed, c.eachNode(func(n *node) error {
		return back(n.server.Process(), func() error { return c.startNode(ctx, n) })
	}), back(c.haproxy.Process(), func() error { return c.haproxy.Start(ctx) }))
	return errors.Join(append(failed, c.whole(ctx))...)
}

// back lets a process go on, or starts it if it has ended.
func back(p *peer.Process, start func() error) error {
	select {
	case <-p.Exited():
		return start()
	default:
	}
	if err := p.Signal(syscall.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// claim takes processes for one nemesis, all or none.
func (c *cluster) claim(names ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range names {
		if c.claimed[n] {
			return false
		}
	}
	for _, n := range names {
		c.claimed[n] = true
	}
	return true
}

func (c *cluster) release(names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range names {
		delete(c.claimed, n)
	}
}
