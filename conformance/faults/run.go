package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quirelog/quire/conformance/check"
	"github.com/quirelog/quire/conformance/load"
	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A plan is one run: what is loaded, and how often the server is ended how.
type plan struct {
	server       *peer.Server
	rounds       int
	terminate    bool // SIGTERM and a clean exit instead of SIGKILL
	minUp, maxUp time.Duration
	libraries    []string // one producer each; repeat a name for more
	topics       int
	partitions   int   // of each topic
	perSecond    int   // records of each producer
	segmentBytes int   // topic config of every other topic, 0 to leave it
	disk         *disk // if not nil, rounds break it instead of ending the server
	fullDisk     bool  // rounds fill it instead
	bookies      *bookies
	seed         uint64
	logf         func(format string, args ...any)
}

// A result is what a run has to show.
type result struct {
	Rounds        int // faults of a server that had served
	StartupRounds int // ends of a server that had not answered yet
	Sends, Acks   int
	Records       int // in the log at the end
	TailRecords   int
	Failures      int // sends that a library gave up
	FirstFailure  error
	Violations    []check.Violation
	Recovery      []time.Duration // from starting the process to the next acknowledgement, sorted
	Stalls        []stall         // what faults of bookies cost
}

const (
	// An idempotent producer may be waiting out its own backoffs, so the
	// first acknowledgement after a restart can take a while without anything
	// being wrong; longer than this, something is.
	liveTimeout      = 60 * time.Second
	terminateTimeout = 30 * time.Second
	// startupKillOneIn of the rounds also ends the server within
	// startupKillMax of its start, in the middle of its recovery.
	startupKillOneIn = 4
	startupKillMax   = 400 * time.Millisecond
)

// run loads the server while ending it again and again, then reads everything
// back twice, with another kill in between, and checks the history.
func (p *plan) run(ctx context.Context) (*result, error) {
	rng := rand.New(rand.NewPCG(p.seed, 1))
	if p.bookies != nil {
		if err := p.bookies.start(ctx, p.logf); err != nil {
			return nil, err
		}
		defer p.bookies.end()
	}
	if err := p.server.Start(ctx); err != nil {
		return nil, err
	}
	defer p.server.Kill()
	partitions, err := p.createTopics(ctx)
	if err != nil {
		return nil, err
	}

	loadCtx, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var acked atomic.Int64
	loads, wait, err := p.startLoads(loadCtx, partitions, &acked)
	if err != nil {
		return nil, err
	}
	tailCtx, stopTail := context.WithCancel(ctx)
	defer stopTail()
	var tail check.Read
	var tailErr error
	tailDone := make(chan struct{})
	go func() {
		defer close(tailDone)
		tail, tailErr = load.ReadTail(tailCtx, p.server.Addr(), partitions)
	}()

	res := &result{}
	loopErr := p.loop(ctx, rng, partitions, &acked, res)
	stopLoad()
	loadErr := wait()
	for _, l := range loads {
		l.Close()
	}
	if err := errors.Join(loopErr, loadErr); err != nil {
		return res, errors.Join(err, load.FirstFailure(loads))
	}

	h := load.History(loads)
	first, err := load.ReadAll(ctx, "first read", p.server.Addr(), partitions, liveTimeout)
	if err != nil {
		return res, err
	}
	stopTail()
	<-tailDone
	if tailErr != nil {
		return res, tailErr
	}
	if err := p.server.Kill(); err != nil {
		return res, err
	}
	if err := p.server.Start(ctx); err != nil {
		return res, err
	}
	second, err := load.ReadAll(ctx, "read after one more restart", p.server.Addr(), partitions, liveTimeout)
	if err != nil {
		return res, err
	}

	res.Violations = check.Check(h, first, second, tail)
	for _, q := range partitions {
		res.Sends += len(h.Sends[q])
		res.Acks += len(h.Acks[q])
		res.Records += len(first.Records[q])
		res.TailRecords += len(tail.Records[q])
	}
	for _, l := range loads {
		failures, _ := l.Failures()
		res.Failures += failures
	}
	res.FirstFailure = load.FirstFailure(loads)
	slices.Sort(res.Recovery)
	if p.bookies != nil {
		res.Stalls = p.bookies.stalls(h)
	}
	return res, nil
}

func (p *plan) createTopics(ctx context.Context) ([]check.Partition, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(p.server.Addr()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	var partitions []check.Partition
	if p.fullDisk {
		if created, err := admin.CreateTopic(ctx, 1, 1, nil, probeTopic); err != nil || created.Err != nil {
			return nil, fmt.Errorf("create topic %s: %w", probeTopic, errors.Join(err, created.Err))
		}
	}
	for i := range p.topics {
		topic := fmt.Sprintf("faults-%d", i)
		configs := map[string]*string{}
		if p.segmentBytes > 0 && i%2 == 1 {
			configs["segment.bytes"] = kadm.StringPtr(fmt.Sprint(p.segmentBytes))
		}
		created, err := admin.CreateTopic(ctx, int32(p.partitions), 1, configs, topic)
		if err == nil {
			err = created.Err
		}
		if err != nil {
			return nil, fmt.Errorf("create topic %s: %w", topic, err)
		}
		for n := range p.partitions {
			partitions = append(partitions, check.Partition{Topic: topic, Number: int32(n)})
		}
	}
	return partitions, nil
}

func (p *plan) startLoads(ctx context.Context, partitions []check.Partition, acked *atomic.Int64) (loads []*load.Load, wait func() error, err error) {
	epoch := time.Now()
	if p.bookies != nil {
		p.bookies.acked, p.bookies.epoch = acked, epoch
	}
	for i, library := range p.libraries {
		l, err := load.New(ctx, library, load.Options{
			Number: uint16(i), Bootstrap: p.server.Addr(), Dir: p.server.DataDir(), Partitions: partitions, PerSecond: p.perSecond, Epoch: epoch, Acked: acked,
		})
		if err != nil {
			return nil, nil, err
		}
		loads = append(loads, l)
	}
	done := make(chan error, 1)
	go func() { done <- load.RunAll(ctx, loads, liveTimeout) }()
	return loads, func() error { return <-done }, nil
}

// loop does harm to the server until every round is done; it leaves the server
// running.
func (p *plan) loop(ctx context.Context, rng *rand.Rand, partitions []check.Partition, acked *atomic.Int64, res *result) error {
	started := time.Now()
	for round := range p.rounds {
		before := acked.Load()
		if err := waitFor(ctx, func() bool { return acked.Load() > before }); err != nil {
			return fmt.Errorf("round %d: nothing acknowledged since the server started: %w\n%s", round, err, p.server.Process().LogTail(20))
		}
		if round > 0 {
			res.Recovery = append(res.Recovery, time.Since(started))
		}
		up := p.minUp + time.Duration(rng.Int64N(int64(p.maxUp-p.minUp)+1))
		select {
		case <-time.After(up):
		case <-p.server.Process().Exited():
			return fmt.Errorf("round %d: the server ended by itself\n%s", round, p.server.Process().LogTail(30))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		begun := time.Now()
		restart, what, err := p.harm(ctx, round, partitions)
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		res.Rounds++
		if !restart {
			started = begun
			p.logf("round %d/%d: up %s, %s, %d acknowledged", round+1, p.rounds, up.Round(time.Millisecond), what, acked.Load())
			continue
		}
		if p.kills() && rng.IntN(startupKillOneIn) == 0 {
			if err := p.server.Exec(ctx); err != nil {
				return err
			}
			select {
			case <-time.After(time.Duration(rng.Int64N(int64(startupKillMax)))):
			case <-p.server.Process().Exited():
				return fmt.Errorf("round %d: the server ended while starting\n%s", round, p.server.Process().LogTail(30))
			}
			if err := p.server.Kill(); err != nil {
				return err
			}
			res.StartupRounds++
		}
		started = time.Now()
		if err := p.server.Start(ctx); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		p.logf("round %d/%d: up %s, %s, %d acknowledged", round+1, p.rounds, up.Round(time.Millisecond), what, acked.Load())
	}
	before := acked.Load()
	if err := waitFor(ctx, func() bool { return acked.Load() > before }); err != nil {
		return fmt.Errorf("nothing acknowledged after the last start: %w\n%s", err, p.server.Process().LogTail(20))
	}
	res.Recovery = append(res.Recovery, time.Since(started))
	return nil
}

// harm is what a round does to the server, and says in words what that was. With
// restart the server has ended and is to be started.
func (p *plan) harm(ctx context.Context, round int, partitions []check.Partition) (restart bool, what string, err error) {
	switch {
	case p.disk != nil:
		b := &breakages[round%len(breakages)]
		restart, err = p.breakDisk(ctx, b)
		return restart, b.name, err
	case p.fullDisk:
		what, err = p.fillDisk(ctx, round, partitions)
		return false, what, err
	case p.bookies != nil:
		return p.bookies.harm(ctx, round, p.server)
	case p.terminate:
		ctx, cancel := context.WithTimeout(ctx, terminateTimeout)
		defer cancel()
		return true, "stopped", p.server.Stop(ctx)
	default:
		return true, "killed", p.server.Kill()
	}
}

// kills says whether rounds are kills.
func (p *plan) kills() bool { return !p.terminate && p.disk == nil && !p.fullDisk && p.bookies == nil }

// waitFor polls cond until it holds, for liveTimeout at most.
func waitFor(ctx context.Context, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
