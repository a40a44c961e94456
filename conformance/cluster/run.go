package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quirelog/quire/conformance/check"
	"github.com/quirelog/quire/conformance/load"
	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A plan is one run: what the cluster is, what loads it, and what is done to it.
type plan struct {
	dir                     string
	nodes, etcds, bookies   int
	bin                     string
	overrides, env          []string
	lease                   time.Duration
	chosen                  []nemesis
	inTurn                  bool
	parallel                int
	duration                time.Duration
	minGap, maxGap, holdMax time.Duration
	etcdAway                time.Duration
	seed                    uint64
	producers               []string
	topics, partitions      int
	perSecond               int
	segmentBytes            int
	groups                  int
	groupKinds              string
	session                 time.Duration
	churn                   bool
	logf                    func(format string, args ...any)
}

func (p *plan) chose(name string) bool {
	return slices.ContainsFunc(p.chosen, func(n nemesis) bool { return n.name == name })
}

// prepare fetches and builds what the run needs: it must be done where there is
// a way to registries.
func (p *plan) prepare(ctx context.Context) error {
	if p.bin == "" {
		if _, err := peer.QuireBinary(ctx); err != nil {
			return err
		}
	}
	if p.groups > 0 {
		if _, err := peer.BuildCommand("groupfaults"); err != nil {
			return err
		}
	}
	for _, name := range p.producers {
		if _, ok := load.Libraries[name]; !ok {
			return fmt.Errorf("unknown client library %q", name)
		}
		if err := load.Fetch(ctx, name); err != nil {
			return err
		}
	}
	work, err := peer.DataDir("", "cluster-prepare")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if _, err := peer.NewBookKeeper(ctx, peer.BookKeeperOptions{Dir: work, Bookies: 1}); err != nil {
		return err
	}
	_, err = peer.NewHAProxy(ctx, work, nil)
	return err
}

// A run is what a plan comes to.
type run struct {
	plan       *plan
	cluster    *cluster
	epoch      time.Time // zero of the history's clock
	acked      atomic.Int64
	partitions []check.Partition

	mu     sync.Mutex
	faults []fault
	ends   map[check.Partition][]check.End
}

func (r *run) add(f fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, f)
}

func (r *run) now() int64 { return int64(time.Since(r.epoch)) }

const (
	// An idempotent producer may be waiting out its own backoffs, so the first
	// acknowledgement after a fault can take a while without anything being wrong;
	// longer than this, something is.
	liveTimeout = 60 * time.Second
	observers   = 3 // that ask for the ends of logs, each by connections of its own
	readers     = 2 // that follow the logs
)

// run loads the cluster while it is harmed, then heals all of it, reads everything
// back twice, with a kill of all servers in between, and checks the history.
func (p *plan) run(ctx context.Context) (res *result, err error) {
	c, err := newCluster(ctx, p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	r := &run{plan: p, cluster: c, epoch: time.Now(), ends: map[check.Partition][]check.End{}}
	if err := c.start(ctx, p); err != nil {
		return nil, err
	}
	p.logf("up after %s: %d servers, %d bookies, %d of etcd, HAProxy at %s", time.Since(r.epoch).Round(100*time.Millisecond), p.nodes, p.bookies, p.etcds, c.addr)
	if err := r.createTopics(ctx); err != nil {
		return nil, err
	}
	r.epoch = time.Now()

	var loads []*load.Load
	for i, name := range p.producers {
		l, err := load.New(ctx, name, load.Options{
			Number: uint16(i), Bootstrap: c.addr, Dir: filepath.Join(p.dir, "clients"), Partitions: r.partitions,
			PerSecond: p.perSecond, Epoch: r.epoch, Acked: &r.acked,
		})
		if err != nil {
			for _, l := range loads {
				l.Close()
			}
			return nil, err
		}
		loads = append(loads, l)
	}
	closeLoads := sync.OnceFunc(func() {
		for _, l := range loads {
			l.Close()
		}
	})
	loading, stopLoads := context.WithCancel(ctx)
	loaded, idle := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(idle)
		loaded <- load.RunAll(loading, loads, liveTimeout)
	}()
	defer func() { stopLoads(); <-idle; closeLoads() }()

	watching, stopWatching := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	defer func() { stopWatching(); watchers.Wait() }()
	tails := make([]check.Read, readers)
	tailErrs := make([]error, readers)
	for i := range readers {
		watchers.Go(func() {
			tails[i], tailErrs[i] = load.ReadTail(watching, c.addr, r.partitions)
			tails[i].Name = fmt.Sprintf("tail reader %d", i+1)
		})
	}
	for i := range observers {
		watchers.Go(func() { r.observeEnds(watching, i) })
	}
	for _, n := range c.nodes {
		for _, q := range r.partitions {
			watchers.Go(func() { r.askNode(watching, n, q) })
		}
	}
	churned := &churn{run: r}
	churning, stopChurn := context.WithCancel(ctx)
	defer stopChurn()
	var churner sync.WaitGroup
	if p.churn {
		churner.Go(func() { churned.loop(churning) })
	}
	groups, err := r.startGroups(ctx)
	if err != nil {
		return nil, err
	}
	defer groups.kill()
	calls, err := r.startCalls(ctx)
	if err != nil {
		return nil, err
	}
	defer calls.end()

	if err := r.alive(ctx, loads, "before any fault"); err != nil {
		return nil, err
	}
	calls.begin()
	res = &result{Plan: p.describe(), Seed: p.seed}
	if err := r.harm(ctx); err != nil {
		// What is known of the clients counts all the same, so go on to the proof.
		res.Cut = err.Error()
		p.logf("CUT SHORT: %v", err)
		err = c.mend(ctx)
	} else {
		err = c.whole(ctx)
	}
	res.Harmed = time.Duration(r.now())
	res.found(err)
	res.found(r.alive(ctx, loads, "after all faults were healed"))
	stopChurn()
	churner.Wait()
	res.found(groups.finish(res))
	calls.finish(ctx, res)
	ended := r.now()
	stopLoads()
	res.found(<-loaded)
	closeLoads() // nothing is answered any more
	h := load.History(loads)
	res.measure(h, r.faults, time.Duration(ended))
	for _, l := range loads {
		failures, first := l.Failures()
		if failures > 0 {
			res.GivenUp = append(res.GivenUp, fmt.Sprintf("%s gave up %d records, first: %v", l.Name(), failures, first))
		}
	}
	if err := context.Cause(ctx); err != nil {
		stopWatching()
		watchers.Wait()
		h.Ends = r.ends
		res.add(check.Check(h, tails...))
		return res, err
	}
	first, err := load.ReadAll(ctx, "first read", c.addr, r.partitions, liveTimeout)
	res.found(err)
	stopWatching()
	watchers.Wait()
	for _, err := range tailErrs {
		if err != nil {
			res.found(fmt.Errorf("tail reader: %w", err))
		}
	}
	res.found(errors.Join(c.eachNode(func(n *node) error { return n.server.Kill() }), c.eachNode(func(n *node) error { return c.startNode(ctx, n) })))
	second, err := load.ReadAll(ctx, "read after a kill of all servers", c.addr, r.partitions, liveTimeout)
	res.found(err)
	h.Ends = r.ends
	res.add(check.Check(h, append(tails, first, second)...))
	res.Anomalies = append(res.Anomalies, churned.found...)
	res.Churned = churned.rounds
	for _, q := range r.partitions {
		res.Records += len(second.Records[q])
		res.Ends += len(h.Ends[q])
		for _, t := range tails {
			res.TailRecords += len(t.Records[q])
		}
	}
	return res, errors.Join(context.Cause(ctx), writeHistory(filepath.Join(p.dir, "history.jsonl"), h, r.faults))
}

func (p *plan) describe() string {
	network := "each in a network of its own"
	if !peer.Isolated() {
		network = "all on the loopback interface: NO PARTITIONS"
	}
	return fmt.Sprintf("%d servers, %d bookies, %d of etcd, one HAProxy, %s; producers %v of %d records/s each to %d partitions; %s", p.nodes, p.bookies, p.etcds, network, p.producers, p.perSecond, p.topics*p.partitions, peer.MachineFacts(p.dir))
}

func (r *run) createTopics(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(r.cluster.addr), kgo.AlwaysRetryEOF())
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for i := range r.plan.topics {
		topic := fmt.Sprintf("cluster-%d", i)
		configs := map[string]*string{}
		if r.plan.segmentBytes > 0 && i%2 == 1 {
			configs["segment.bytes"] = kadm.StringPtr(fmt.Sprint(r.plan.segmentBytes))
		}
		created, err := admin.CreateTopic(ctx, int32(r.plan.partitions), 1, configs, topic)
		if err = errors.Join(err, created.Err); err != nil {
			return fmt.Errorf("create topic %s: %w", topic, err)
		}
		for n := range r.plan.partitions {
			r.partitions = append(r.partitions, check.Partition{Topic: topic, Number: int32(n)})
		}
	}
	return nil
}

// alive waits until every partition takes records again.
func (r *run) alive(ctx context.Context, loads []*load.Load, when string) error {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	from := r.now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := slices.DeleteFunc(slices.Clone(r.partitions), func(p check.Partition) bool {
			return slices.ContainsFunc(loads, func(l *load.Load) bool { return l.LastAck(p) > from })
		})
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s nothing is acknowledged any more to %v: %w", when, missing, context.Cause(ctx))
		}
	}
}
