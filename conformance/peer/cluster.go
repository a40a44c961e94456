package peer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// clusterNodes is enough for an owner, the next one, and one that is neither.
const clusterNodes = 3

// frameBytes lets the bookie take batches as large as those that one server takes.
const frameBytes = 16 << 20

// A Cluster is several servers of Quire that clients see as one, behind HAProxy, over
// one etcd and one bookie. Not safe for concurrent use, except the constant methods.
type Cluster struct {
	Nodes   []*Server
	bk      *BookKeeper
	haproxy *HAProxy // nil: clients connect to the first server, which owns nothing
	addr    string
}

// NewCluster returns one that has not started. Of the options Dir, Overrides, Env and
// Bin count; all folders are in Dir.
func NewCluster(ctx context.Context, opts Options) (*Cluster, error) {
	haproxy, err := NewHAProxy(ctx, filepath.Join(opts.Dir, "haproxy"), nil)
	if err != nil {
		return nil, err
	}
	addr, err := haproxy.Listen()
	if err != nil {
		return nil, err
	}
	return newCluster(ctx, opts, addr, haproxy)
}

// NewForeign is NewCluster without HAProxy: all clients connect to one server, which
// owns nothing. Whatever has an owner is forwarded.
func NewForeign(ctx context.Context, opts Options) (*Cluster, error) {
	addr, err := FreeAddress("127.0.0.1")
	if err != nil {
		return nil, err
	}
	return newCluster(ctx, opts, addr, nil)
}

func newCluster(ctx context.Context, opts Options, addr string, haproxy *HAProxy) (*Cluster, error) {
	c := &Cluster{haproxy: haproxy, addr: addr}
	var err error
	if c.bk, err = NewBookKeeper(ctx, BookKeeperOptions{
		Dir: filepath.Join(opts.Dir, "bookkeeper"), Bookies: 1, Overrides: []string{fmt.Sprint("nettyMaxFrameSizeBytes=", frameBytes)},
	}); err != nil {
		return nil, err
	}
	front := Front{Name: "clients"}
	for i := range clusterNodes {
		name := fmt.Sprintf("quire-%d", i+1)
		others, err := FreeAddress("127.0.0.1")
		if err != nil {
			return nil, err
		}
		own := Options{
			Dir: filepath.Join(opts.Dir, name), Env: opts.Env, Bin: opts.Bin, Named: addr,
			Overrides: slices.Concat(OnBookies(c.bk, [3]int{1, 1, 1}), BehindOneAddress(name, others, "PLAINTEXT://"+addr),
				[]string{fmt.Sprint("bookkeeper.max.frame.bytes=", frameBytes)}, opts.Overrides),
		}
		if haproxy == nil && i == 0 {
			own.Addr = addr
		}
		s, err := NewQuire(ctx, own)
		if err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, s)
		front.Servers, front.Check = append(front.Servers, s.Addr()), append(front.Check, s.AdminAddr())
	}
	if haproxy != nil {
		haproxy.Serve(front)
	}
	return c, nil
}

// BehindOneAddress returns the overrides that make a server one of several behind one
// address of each listener, NAME://host:port. Others reach it at a listener for them.
func BehindOneAddress(name, others string, advertised ...string) []string {
	var modes []string
	for _, a := range advertised {
		listener, _, _ := strings.Cut(a, "://")
		modes = append(modes, listener+":proxy")
	}
	return []string{
		"node.name=" + name,
		"peer.listen=" + others,
		"advertised.listeners=" + strings.Join(advertised, ","),
		"listener.advertise=" + strings.Join(modes, ","),
	}
}

// Name is the product and how it is reached.
func (c *Cluster) Name() string {
	if c.haproxy == nil {
		return fmt.Sprintf("Quire, a node of %d that owns nothing", len(c.Nodes))
	}
	return fmt.Sprintf("Quire, %d nodes behind one address", len(c.Nodes))
}

// Addr is the one address, host:port.
func (c *Cluster) Addr() string { return c.addr }

// Start runs everything and returns when it answers.
func (c *Cluster) Start(ctx context.Context) error {
	if err := c.bk.Start(ctx); err != nil {
		return err
	}
	if err := c.each(func(n *Server) error { return n.Start(ctx) }); err != nil {
		return err
	}
	// What moves later moves for a reason.
	if err := c.Nodes[0].NodeVerb(ctx, "await", "--nodes", fmt.Sprint(len(c.Nodes))); err != nil {
		return err
	}
	if c.haproxy == nil {
		return c.Nodes[0].NodeVerb(ctx, "drain", "self")
	}
	return c.haproxy.Start(ctx)
}

func (c *Cluster) each(f func(*Server) error) error {
	errs := make([]error, len(c.Nodes))
	var running sync.WaitGroup
	for i, n := range c.Nodes {
		running.Go(func() {
			if err := f(n); err != nil {
				errs[i] = fmt.Errorf("node %d: %w", i+1, err)
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// Stop ends the servers one after the other, as those of a cluster that is taken away.
func (c *Cluster) Stop(ctx context.Context) error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.Stop(ctx))
	}
	return errors.Join(append(errs, c.killRest())...)
}

// Kill ends everything with SIGKILL.
func (c *Cluster) Kill() error { return errors.Join(c.each((*Server).Kill), c.killRest()) }

func (c *Cluster) killRest() error {
	if c.haproxy == nil {
		return c.bk.Kill()
	}
	return errors.Join(c.haproxy.Kill(), c.bk.Kill())
}

// Ended tells of servers that have ended by themselves.
func (c *Cluster) Ended() error { return c.each((*Server).Ended) }

// LogTail returns the last lines of each server's output.
func (c *Cluster) LogTail(lines int) string {
	var b strings.Builder
	for i, n := range c.Nodes {
		fmt.Fprintf(&b, "node %d:\n%s\n", i+1, n.LogTail(lines))
	}
	return b.String()
}
