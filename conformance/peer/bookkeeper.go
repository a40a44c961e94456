package peer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// BookKeeperOptions say how large a cluster is and how its bookies differ from
// the suite's defaults.
type BookKeeperOptions struct {
	Dir          string   // everything of this cluster; created when absent
	Bookies      int      // bookies that Start starts
	Spare        int      // more that have a port and a folder, for later
	AutoRecovery bool     // with the Auditor and a ReplicationWorker
	EtcdMembers  int      // 1 if 0
	Overrides    []string // of every bookie's configuration, key=value
	Recovery     []string // of AutoRecovery's
	JVM          []string // options instead of those that keep every server small

	// Where they run, one host for each; nil is this machine. AutoRecovery runs here.
	BookieHosts, EtcdHosts []*Host
	// Intercept decides over the writes and syncs of files of a bookie, by its place
	// in Bookies; nil leaves them alone.
	Intercept func(bookie int) Interceptor
}

// A BookKeeper is a cluster of Apache BookKeeper 4.17.3 on loopback ports, with
// its metadata in an etcd of its own in the layout of Pulsar's drivers.
type BookKeeper struct {
	Etcd         *Etcd
	Bookies      []*JavaServer // the spares last
	AutoRecovery *JavaServer   // nil without
	opts         BookKeeperOptions
	classPath    string
	logging      string
}

// bookieLogging prints INFO: BookieShell answers through its logger.
const bookieLogging = `<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders><Console name="out"><PatternLayout pattern="[%d] %p %m (%c)%n"/></Console></Appenders>
  <Loggers><Root level="INFO"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
`

// NewBookKeeper returns a cluster that has not started. It fetches and builds
// what is missing.
func NewBookKeeper(ctx context.Context, opts BookKeeperOptions) (*BookKeeper, error) {
	classPath, err := Bookies.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	// A transaction of the drivers holds up to 1,000 operations.
	etcdHosts := opts.EtcdHosts
	if etcdHosts == nil {
		etcdHosts = make([]*Host, max(1, opts.EtcdMembers))
	}
	etcd, err := NewEtcdOn(opts.Dir, etcdHosts, "--max-txn-ops=1024")
	if err != nil {
		return nil, err
	}
	c := &BookKeeper{Etcd: etcd, opts: opts, classPath: classPath, logging: filepath.Join(opts.Dir, "log4j2.xml")}
	if err := os.MkdirAll(opts.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.logging, []byte(bookieLogging), 0o644); err != nil {
		return nil, err
	}
	bookies := opts.Bookies + opts.Spare
	ports, err := freePorts(bookies + 1)
	if err != nil {
		return nil, err
	}
	for i := range bookies {
		b, err := c.newBookie(i+1, ports[i], hostOf(opts.BookieHosts, i))
		if err != nil {
			return nil, err
		}
		c.Bookies = append(c.Bookies, b)
	}
	if opts.AutoRecovery {
		if c.AutoRecovery, err = c.newAutoRecovery(ports[bookies]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func hostOf(hosts []*Host, i int) *Host {
	if hosts == nil {
		return nil
	}
	return hosts[i]
}

// Dir is the folder of all of it.
func (c *BookKeeper) Dir() string { return c.opts.Dir }

// Start runs etcd, initializes the cluster, and runs all bookies but the spares,
// and AutoRecovery. It returns when they serve.
func (c *BookKeeper) Start(ctx context.Context) error {
	if err := c.Etcd.Start(ctx); err != nil {
		return err
	}
	if err := c.initialize(ctx); err != nil {
		return err
	}
	servers := c.Bookies[:c.opts.Bookies:c.opts.Bookies]
	if c.AutoRecovery != nil {
		servers = append(servers, c.AutoRecovery)
	}
	errs := make([]error, len(servers))
	var starting sync.WaitGroup
	for i, s := range servers {
		starting.Go(func() { errs[i] = s.Start(ctx) })
	}
	starting.Wait()
	return errors.Join(errs...)
}

const (
	ledgersKey    = "/ledgers"
	instanceIDKey = "/ledgers/INSTANCEID"
	availableKey  = "/ledgers/available/"
	readOnlyKey   = availableKey + "readonly/"
	cookiesKey    = "/ledgers/cookies/"
	markedKey     = "/ledgers/underreplication/ledgers/"
)

// initialize writes the two keys that make an empty etcd a cluster, as
// BookieShell's initnewcluster does.
func (c *BookKeeper) initialize(ctx context.Context) error {
	if done, err := c.Etcd.Has(ctx, instanceIDKey); err != nil || done {
		return err
	}
	id := make([]byte, 16)
	rand.Read(id)
	uuid := fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	return errors.Join(c.Etcd.Put(ctx, ledgersKey, ""), c.Etcd.Put(ctx, instanceIDKey, uuid))
}

// Kill ends everything with SIGKILL.
func (c *BookKeeper) Kill() error {
	var failed []error
	if c.AutoRecovery != nil {
		failed = append(failed, c.AutoRecovery.Kill())
	}
	for _, b := range c.Bookies {
		failed = append(failed, b.Kill())
	}
	c.Etcd.Kill()
	return errors.Join(failed...)
}

// Registered says whether a bookie has announced itself, and whether as one that
// takes no writes.
func (c *BookKeeper) Registered(ctx context.Context, b *JavaServer) (registered, readOnly bool, err error) {
	if registered, err = c.Etcd.Has(ctx, availableKey+b.ID); err != nil || registered {
		return registered, false, err
	}
	readOnly, err = c.Etcd.Has(ctx, readOnlyKey+b.ID)
	return readOnly, readOnly, err
}

// Marked returns the ids of the ledgers that are marked as under-replicated, with
// the text of their marks.
func (c *BookKeeper) Marked(ctx context.Context) (map[int64]string, error) {
	keys, err := c.Etcd.Prefix(ctx, markedKey)
	if err != nil {
		return nil, err
	}
	marked := map[int64]string{}
	for _, kv := range keys {
		var id int64
		_, name, ok := strings.Cut(string(kv.Key), "/urL")
		if !ok {
			continue // a parent
		}
		if _, err := fmt.Sscanf(name, "%d", &id); err != nil {
			return nil, fmt.Errorf("under-replication mark %s: %w", kv.Key, err)
		}
		marked[id] = string(kv.Value)
	}
	return marked, nil
}

// Ledgers returns the keys of all ledgers by id, with their metadata as stored.
func (c *BookKeeper) Ledgers(ctx context.Context) (map[int64][]byte, error) {
	keys, err := c.Etcd.Prefix(ctx, ledgersKey+"/")
	if err != nil {
		return nil, err
	}
	ledgers := map[int64][]byte{}
	for _, kv := range keys {
		if id, ok := ledgerID(string(kv.Key)); ok {
			ledgers[id] = kv.Value
		}
	}
	return ledgers, nil
}

// DropLedger deletes a ledger's metadata, as an operator would: the bookies drop
// its entries when they collect garbage.
func (c *BookKeeper) DropLedger(ctx context.Context, id int64) error {
	keys, err := c.Etcd.Prefix(ctx, ledgersKey+"/")
	if err != nil {
		return err
	}
	for _, kv := range keys {
		if got, ok := ledgerID(string(kv.Key)); ok && got == id {
			return c.Etcd.Delete(ctx, string(kv.Key))
		}
	}
	return fmt.Errorf("ledger %d has no metadata", id)
}

// ledgerID reads the id out of /ledgers/00/0000/L0001 or, from 2^31-1 on,
// /ledgers/000/0000/0021/4748/L3647.
func ledgerID(key string) (id int64, ok bool) {
	dirs, last, ok := strings.Cut(strings.TrimPrefix(key, ledgersKey+"/"), "/L")
	digits := strings.ReplaceAll(dirs, "/", "") + last
	if !ok || len(digits) != 10 && len(digits) != 19 {
		return 0, false
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		id = id*10 + int64(d-'0')
	}
	return id, true
}

// Shell runs a command of BookieShell and returns what it printed. Each takes
// some seconds.
func (c *BookKeeper) Shell(ctx context.Context, args ...string) (string, error) {
	jvm := append(append([]string{}, bookieJVM...), "-Xmx128M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.configurationFile="+c.logging)
	conf := filepath.Join(c.Bookies[0].dir, "server.conf")
	return RunTool(ctx, Bookies, jvm, "", shellMain, append([]string{"-conf", conf}, args...)...)
}

// WaitFor asks cond again and again until it holds. what says for errors what is
// waited for.
func (c *BookKeeper) WaitFor(ctx context.Context, what string, cond func(context.Context) (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		ok, err := cond(ctx)
		if ok && err == nil {
			return nil
		}
		last = err
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; last: %v", what, context.Cause(ctx), last)
		}
	}
}
