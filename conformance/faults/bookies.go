package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quirelog/quire/conformance/check"
	"github.com/quirelog/quire/conformance/load"
	"github.com/quirelog/quire/conformance/peer"
)

// bookies are the real bookies, and their etcd, below the server of a run.
type bookies struct {
	cluster    *peer.BookKeeper
	supervisor *peer.Supervisor
	quorums    [3]int // ensemble size, write quorum, ack quorum
	faults     []bookieFault

	acked *atomic.Int64
	epoch time.Time // zero of the loads' clock
	hurt  []stall
}

// A stall is what a fault cost: the longest time for which some partition had no
// acknowledgement, within stallWindow of the fault's begin and before the next fault.
type stall struct {
	what    string
	at      time.Duration // on the loads' clock
	longest time.Duration
	after   time.Duration // from the fault's begin to the stall's
}

const stallWindow = 10 * time.Second

// A bookieFault leaves the cluster as it found it, after some time.
type bookieFault struct {
	name string
	// goesOn says that records are acknowledged while the fault lasts.
	goesOn bool
	do     func(context.Context, *bookies, int) error
	undo   func(context.Context, *bookies, int) error
	lasts  time.Duration
}

const (
	leaseTTL = 5 * time.Second // zkTimeout of the suite's bookies
	// graceMillis is openLedgerRereplicationGracePeriod: AutoRecovery fences an
	// open ledger that long after a bookie of it is gone.
	graceMillis = 3000
	// unregistered is how long the supervisor bears a bookie that serves and has
	// no registration.
	unregistered = 8 * time.Second
)

// bookieFaults are taken in turn. The number that do and undo get rotates over
// the bookies.
var bookieFaults = []bookieFault{
	{name: "a bookie killed", goesOn: true, lasts: 2 * time.Second, do: killBookie, undo: startBookie},
	{name: "all bookies killed at once", do: killBookies, undo: startBookies},
	{name: "a bookie stopped for less than its lease", goesOn: true, lasts: leaseTTL / 2, do: pauseBookie, undo: resumeBookie},
	{name: "etcd stopped", goesOn: true, lasts: 4 * time.Second, do: pauseEtcd, undo: resumeEtcd},
	{name: "a bookie killed, away for longer than AutoRecovery waits", goesOn: true, lasts: leaseTTL + graceMillis*time.Millisecond + 4*time.Second, do: killBookie, undo: startBookie},
	{name: "a bookie stopped for longer than its lease", goesOn: true, lasts: leaseTTL + 3*time.Second, do: pauseBookie, undo: resumeBookie},
	{name: "etcd killed and started again, then a bookie killed", goesOn: true, lasts: leaseTTL + 4*time.Second, do: killAfterEtcd, undo: startBookie},
	{name: "two bookies killed", lasts: 3 * time.Second, do: killTwo, undo: startTwo},
}

func newBookies(ctx context.Context, dir string, count int, quorums, only string) (*bookies, error) {
	b := &bookies{}
	if _, err := fmt.Sscanf(quorums, "%d/%d/%d", &b.quorums[0], &b.quorums[1], &b.quorums[2]); err != nil {
		return nil, fmt.Errorf("quorums %q: want ensemble size/write quorum/ack quorum: %w", quorums, err)
	}
	pattern, err := regexp.Compile(only)
	if err != nil {
		return nil, err
	}
	for _, f := range bookieFaults {
		if pattern.MatchString(f.name) {
			b.faults = append(b.faults, f)
		}
	}
	if len(b.faults) == 0 {
		return nil, fmt.Errorf("no fault of bookies matches %q", only)
	}
	b.cluster, err = peer.NewBookKeeper(ctx, peer.BookKeeperOptions{
		Dir: dir, Bookies: count, AutoRecovery: true,
		Recovery: []string{fmt.Sprintf("openLedgerRereplicationGracePeriod=%d", graceMillis)},
	})
	return b, err
}

// overrides make a server keep its ledgers there.
func (b *bookies) overrides() []string { return peer.OnBookies(b.cluster, b.quorums) }

func (b *bookies) start(ctx context.Context, logf func(string, ...any)) error {
	if err := b.cluster.Start(ctx); err != nil {
		return errors.Join(err, b.cluster.Kill())
	}
	b.supervisor = b.cluster.Supervise(unregistered, logf)
	return nil
}

func (b *bookies) end() error {
	b.supervisor.Stop()
	return b.cluster.Kill()
}

// harm lets one fault come and go, and sees that what should go on does.
func (b *bookies) harm(ctx context.Context, round int, server *peer.Server) (restart bool, what string, err error) {
	f := b.faults[round%len(b.faults)]
	number := round % len(b.cluster.Bookies)
	b.hurt = append(b.hurt, stall{what: f.name, at: time.Since(b.epoch)})
	if err := f.do(ctx, b, number); err != nil {
		return false, f.name, fmt.Errorf("%s: %w", f.name, err)
	}
	if f.goesOn {
		before := b.acked.Load()
		if err := waitFor(ctx, func() bool { return b.acked.Load() > before+goingOnRecords }); err != nil {
			return false, f.name, fmt.Errorf("%s: nothing is acknowledged any more: %w\n%s", f.name, err, server.Process().LogTail(30))
		}
	}
	select {
	case <-time.After(f.lasts):
	case <-server.Process().Exited():
		return false, f.name, fmt.Errorf("%s: the server ended\n%s", f.name, server.Process().LogTail(30))
	case <-ctx.Done():
		return false, f.name, context.Cause(ctx)
	}
	if err := f.undo(ctx, b, number); err != nil {
		return false, f.name, fmt.Errorf("%s, then healed: %w", f.name, err)
	}
	if err := b.whole(ctx); err != nil {
		return false, f.name, fmt.Errorf("%s, then healed: %w", f.name, err)
	}
	return false, f.name, nil
}

// goingOnRecords is what must be acknowledged during a fault: more than producers
// had in flight to partitions that the fault does not concern.
const goingOnRecords = 4 * load.MaxOutstanding / 10

// whole waits until every bookie is registered.
func (b *bookies) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	return b.cluster.WaitFor(ctx, "not every bookie is registered", func(ctx context.Context) (bool, error) {
		for _, bookie := range b.cluster.Bookies {
			registered, readOnly, err := b.cluster.Registered(ctx, bookie)
			if err != nil || !registered || readOnly {
				return false, err
			}
		}
		return true, nil
	})
}

func killBookie(_ context.Context, b *bookies, n int) error { return b.cluster.Bookies[n].Kill() }
func startBookie(ctx context.Context, b *bookies, n int) error {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	return b.cluster.Bookies[n].Start(ctx)
}
func pauseBookie(_ context.Context, b *bookies, n int) error { return b.cluster.Bookies[n].Pause() }

// resumeBookie lets the bookie go on. One that lost its lease meanwhile serves
// without being registered until the supervisor starts it again.
func resumeBookie(_ context.Context, b *bookies, n int) error { return b.cluster.Bookies[n].Resume() }

func killTwo(ctx context.Context, b *bookies, n int) error {
	return errors.Join(killBookie(ctx, b, n), killBookie(ctx, b, (n+1)%len(b.cluster.Bookies)))
}

func startTwo(ctx context.Context, b *bookies, n int) error {
	return errors.Join(startBookie(ctx, b, n), startBookie(ctx, b, (n+1)%len(b.cluster.Bookies)))
}

func killBookies(_ context.Context, b *bookies, _ int) error {
	return b.each(func(s *peer.JavaServer) error { return s.Kill() })
}

func startBookies(ctx context.Context, b *bookies, _ int) error {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	return b.each(func(s *peer.JavaServer) error { return s.Start(ctx) })
}

func (b *bookies) each(f func(*peer.JavaServer) error) error {
	errs := make([]error, len(b.cluster.Bookies))
	var running sync.WaitGroup
	for i, s := range b.cluster.Bookies {
		running.Go(func() { errs[i] = f(s) })
	}
	running.Wait()
	return errors.Join(errs...)
}

func pauseEtcd(_ context.Context, b *bookies, _ int) error {
	for _, m := range b.cluster.Etcd.Members {
		if err := m.Pause(); err != nil {
			return err
		}
	}
	return nil
}

func resumeEtcd(_ context.Context, b *bookies, _ int) error {
	for _, m := range b.cluster.Etcd.Members {
		if err := m.Resume(); err != nil {
			return err
		}
	}
	return nil
}

func killAfterEtcd(ctx context.Context, b *bookies, n int) error {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	b.cluster.Etcd.Kill()
	if err := b.cluster.Etcd.Start(ctx); err != nil {
		return err
	}
	return killBookie(ctx, b, n)
}

// stalls says what each fault cost. The run must have ended.
func (b *bookies) stalls(h check.History) []stall {
	for _, acks := range h.Acks {
		times := make([]int64, len(acks))
		for i, a := range acks {
			times[i] = a.At
		}
		slices.Sort(times)
		for i := range b.hurt {
			s := &b.hurt[i]
			end := s.at + stallWindow
			if i+1 < len(b.hurt) {
				end = min(end, b.hurt[i+1].at)
			}
			if after, longest := check.LongestGap(times, s.at, end); longest > s.longest {
				s.longest, s.after = longest, after-s.at
			}
		}
	}
	slices.SortStableFunc(b.hurt, func(x, y stall) int { return cmp.Compare(x.what, y.what) })
	return b.hurt
}
