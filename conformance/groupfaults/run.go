package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/quirelog/quire/conformance/groupcheck"
	"github.com/quirelog/quire/conformance/peer"
	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A plan is one run: which groups there are, and what is done to them, to the
// server and to its etcd.
type plan struct {
	dir         string // of the server and etcd; removed by the caller
	etcdMembers int    // 0: Quire's own, inside it
	overrides   []string
	bootstrap   string     // of servers that are somebody else's
	observed    []string   // such servers, to be asked for offsets directly
	listen      string     // where these tell the members to go
	logs        string     // folder for what librdkafka's members say of themselves; "": nowhere
	flavors     [][]flavor // of a group's members in turn; groups take them in turn

	groups, members int
	starting        int // groups whose members are started at a time; 0: all
	changing        int // groups whose members come and go
	partitions      int32
	perSecond       int // records to each partition
	timing          timing
	leaves, silent  int // weights of the ways in which members go

	settle         time.Duration // in which all groups come to rest
	duration       time.Duration // of the faults
	minGap, maxGap time.Duration // between two of them
	kills          int           // weights of the faults: kill -9 of the server,
	pauses         int           // SIGSTOP of an etcd member for up to pauseMax,
	etcdKills      int           // kill -9 of one

	seed uint64
	logf func(format string, args ...any)

	// Of tests; see tap.
	changeRequest  func(client string, req kmsg.Request) bool
	changeResponse func(client string, req kmsg.Request, resp kmsg.Response) bool

	server *peer.Server
	etcd   *peer.Etcd
	tap    *tap
	rec    *recorder
	jvms   map[string]*jvm // by library

	mu      sync.Mutex
	running map[string]*member
	closing map[string]*member // asked to end
	made    map[string]int     // members ever started, by group
}

// A result is what a run has to show.
type result struct {
	Server                   string
	Kills, Pauses, EtcdKills int
	Came, Left, Silenced     int // members, after the groups had come together
	Commits, Acked           int // partitions of commits
	Unsent                   int // of those acknowledged by their library and not by the server
	Reads                    int
	Records                  int
	Told                     int // assignments
	Violations               []groupcheck.Violation
	Fatal                    []string
	Mute                     []string // members whose libraries said nothing any more by themselves
	UserErrors               string
	Recovery                 []recovery                 // from the server's readiness to a member's next record, sorted
	ByLibrary                map[string][]time.Duration // the same, sorted
	Recovering               usage                      // from the kills until all have recovered, of groups that nothing else disturbs
}

const (
	topic         = "group-faults"
	startTimeout  = 60 * time.Second
	settleTimeout = 90 * time.Second // after faults: sessions that end, rebalances that time out
	pauseMax      = 4 * time.Second
	closeTimeout  = 60 * time.Second
	mutePatience  = 30 * time.Second // longer than any backoff of a library
)

func groupName(i int) string { return fmt.Sprintf("g%03d", i) }

// run makes groups, does harm for the plan's duration, lets them come to rest,
// reads every committed offset before and after one more kill and once more when
// everybody has left, and checks the history.
func (p *plan) run(ctx context.Context) (*result, error) {
	rng := rand.New(rand.NewPCG(p.seed, 2))
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	defer p.close()
	res := &result{Server: p.serverName()}
	if err := p.createTopic(ctx); err != nil {
		return nil, err
	}
	background, stopBackground := context.WithCancel(ctx)
	var backgroundDone sync.WaitGroup
	defer func() { stopBackground(); backgroundDone.Wait() }()
	produce, err := p.producer()
	if err != nil {
		return nil, err
	}
	backgroundDone.Go(func() { produce(background) })
	backgroundDone.Go(func() { p.observe(background) })
	for _, addr := range p.observed {
		backgroundDone.Go(func() { p.observeServer(background, addr) })
	}

	for i := range p.groups {
		for range p.members {
			if err := p.join(groupName(i)); err != nil {
				return nil, err
			}
		}
		if p.starting > 0 && (i+1)%p.starting == 0 && !p.awaitSettled(ctx, res) {
			return p.finish(res), nil
		}
	}
	if !p.awaitSettled(ctx, res) {
		return p.finish(res), nil
	}
	p.logf("%d groups of %d members have come together after %s", p.groups, p.members, time.Since(p.rec.start).Round(time.Millisecond))

	changes, stopChanges := context.WithCancel(ctx)
	var changesDone sync.WaitGroup
	var changeErr error
	changesDone.Go(func() { changeErr = p.change(changes, rand.New(rand.NewPCG(p.seed, 3)), res) })
	harmErr := p.harm(ctx, rng, res)
	stopChanges()
	changesDone.Wait()
	if err := errors.Join(harmErr, changeErr); err != nil {
		return nil, err
	}
	if !p.awaitSettled(ctx, res) {
		return p.finish(res), nil
	}
	if err := p.readAll(ctx, "a reader at rest"); err != nil {
		return nil, err
	}
	if err := p.restartAndRecover(ctx, res); err != nil {
		return nil, err
	}
	res.Kills++
	if err := p.readAll(ctx, "a reader after one more kill"); err != nil {
		return nil, err
	}
	if !p.awaitSettled(ctx, res) {
		return p.finish(res), nil
	}
	p.mu.Lock()
	rest := p.running
	p.running = map[string]*member{}
	p.mu.Unlock()
	for _, m := range rest {
		m.leave()
		p.ending(m)
	}
	if late := p.awaitClosed(); len(late) > 0 {
		return nil, fmt.Errorf("the libraries of %v did not close within %s", late, closeTimeout)
	}
	if err := p.readAll(ctx, "a reader after all have left"); err != nil {
		return nil, err
	}
	return p.finish(res), nil
}

func (p *plan) serverName() string {
	if p.server == nil {
		return "the servers at " + p.bootstrap
	}
	return p.server.Name()
}

// ending takes note of a member that was asked to end.
func (p *plan) ending(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing[m.name] = m
}

// awaitClosed waits for the members that were asked to end and can, and returns
// those that do not.
func (p *plan) awaitClosed() (late []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := time.After(closeTimeout)
	for name, m := range p.closing {
		if m.isSilent() {
			select {
			case <-m.audible:
			default:
				continue // not before it may speak
			}
		}
		select {
		case <-m.ended:
		case <-limit:
			late = append(late, fmt.Sprintf("%s (%s, silent %v)", name, m.flavor, m.isSilent()))
			closed := make(chan time.Time)
			close(closed)
			limit = closed // no more waiting
		}
	}
	slices.Sort(late)
	return late
}

func (p *plan) finish(res *result) *result {
	h, wire, unsent := p.rec.history()
	res.Violations = groupcheck.Check(h)
	if len(res.Violations) > 0 {
		file := filepath.Join(p.dir, "history.txt")
		if f, err := os.Create(file); err == nil {
			err = errors.Join(write(f, h, wire, res.Violations), f.Close())
			p.logf("the history of the groups with findings is in %s (%v)", file, err)
		}
	}
	res.Fatal = p.rec.fatal
	res.UserErrors = p.rec.userErrors()
	res.Commits, res.Acked, res.Unsent, res.Reads, res.Records = len(h.Commits), p.rec.acked-unsent, unsent, len(h.Reads), p.rec.records
	for _, e := range h.Events {
		if e.Kind == groupcheck.Told {
			res.Told++
		}
	}
	res.Recovery = slices.Clone(p.rec.recovered)
	slices.SortFunc(res.Recovery, func(a, b recovery) int { return cmp.Compare(a.took, b.took) })
	res.ByLibrary = map[string][]time.Duration{}
	for _, r := range res.Recovery {
		library := p.libraryOf(r.member)
		res.ByLibrary[library] = append(res.ByLibrary[library], r.took)
	}
	return res
}

// open starts etcd, the server, and the tap before it.
func (p *plan) open(ctx context.Context) error {
	groups := map[string]groupcheck.Group{}
	var partitions []groupcheck.Partition
	for n := range p.partitions {
		partitions = append(partitions, groupcheck.Partition{Topic: topic, Number: n})
	}
	for i := range p.groups {
		groups[groupName(i)] = groupcheck.Group{Partitions: partitions, Session: p.timing.session}
	}
	p.running, p.closing, p.made = map[string]*member{}, map[string]*member{}, map[string]int{}
	p.rec = newRecorder(groups)
	var err error
	if p.tap, err = newTap(cmp.Or(p.listen, "127.0.0.1:0"), p.bootstrap, p.rec); err != nil {
		return err
	}
	p.tap.changeRequest, p.tap.changeResponse = p.changeRequest, p.changeResponse
	if p.bootstrap != "" {
		p.tap.serve()
		return errors.Join(p.awaitServer(ctx), p.startJVMs(ctx))
	}
	millis := func(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }
	overrides := append(slices.Clone(p.overrides),
		"advertised.listeners=PLAINTEXT://"+p.tap.addr(),
		"group.initial.rebalance.delay.ms=500",
		"group.min.session.timeout.ms=1000",
		"group.consumer.session.timeout.ms="+millis(p.timing.session),
		"group.consumer.heartbeat.interval.ms="+millis(p.timing.heartbeat))
	if isKafka() {
		overrides = append(overrides,
			"group.consumer.min.session.timeout.ms="+millis(p.timing.session),
			"group.consumer.min.heartbeat.interval.ms="+millis(p.timing.heartbeat),
			"offsets.topic.num.partitions=4")
	} else if p.etcdMembers > 0 {
		if p.etcd, err = peer.NewEtcd(filepath.Join(p.dir, "etcd"), p.etcdMembers); err != nil {
			return err
		}
		if err := p.etcd.Start(ctx); err != nil {
			return err
		}
		overrides = append(overrides, "etcd.endpoints="+p.etcd.Endpoints())
	}
	p.server, err = peer.NewServer(ctx, peer.Options{Dir: filepath.Join(p.dir, "server"), Overrides: overrides})
	if err != nil {
		return err
	}
	p.tap.upstream = p.server.Addr()
	p.tap.serve()
	return errors.Join(p.startServer(ctx), p.startJVMs(ctx))
}

// startJVMs starts the processes of the generations of Java that take part.
func (p *plan) startJVMs(ctx context.Context) error {
	p.jvms = map[string]*jvm{}
	for _, f := range slices.Concat(p.flavors...) {
		if _, java := javaClients[f.Library]; !java || p.jvms[f.Library] != nil {
			continue
		}
		j, err := startJVM(ctx, f.Library, p.dir, p.tap.addr(), p.timing, p.rec)
		if err != nil {
			return err
		}
		p.jvms[f.Library] = j
	}
	return nil
}

func isKafka() bool { return os.Getenv("QUIRE_CONFORMANCE_TARGET") == "kafka" }

// close ends everything that still runs.
func (p *plan) close() {
	p.mu.Lock()
	for _, m := range p.running {
		m.silence() // what becomes of it now is no part of the history
		p.closing[m.name] = m
	}
	for name, m := range p.closing {
		if m.isSilent() {
			p.tap.letThrough(name)
			close(m.audible)
		}
	}
	p.mu.Unlock()
	if late := p.awaitClosed(); len(late) > 0 {
		p.logf("the libraries of %v have not closed within %s", late, closeTimeout)
	}
	for _, j := range p.jvms {
		j.close()
	}
	p.tap.close()
	if p.server != nil {
		p.server.Kill()
	}
	if p.etcd != nil {
		p.etcd.Kill()
	}
}

// startServer returns when the server answers on its own port. It tells clients
// the tap's.
func (p *plan) startServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := p.server.Exec(ctx); err != nil {
		return err
	}
	if err := p.awaitServer(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, p.server.Process().LogTail(20))
	}
	return nil
}

// awaitServer returns when the server answers.
func (p *plan) awaitServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var ended <-chan struct{}
	if p.server != nil {
		ended = p.server.Process().Exited()
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for p.ask(ctx) != nil {
		select {
		case <-ended:
			return errors.New("the server ended while starting")
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
	p.rec.event(groupcheck.Event{Kind: groupcheck.Up})
	return nil
}

func (p *plan) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := wire.Dial(ctx, p.tap.upstream)
	if err != nil {
		return err
	}
	defer conn.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	resp, err := conn.Call(ctx, req, 4)
	if err == nil && len(resp.(*kmsg.MetadataResponse).Brokers) == 0 {
		err = errors.New("metadata names no broker")
	}
	return err
}

// restart ends the server and starts it again. Somebody else's is left alone.
func (p *plan) restart(ctx context.Context) error {
	if p.bootstrap != "" {
		return nil
	}
	p.rec.event(groupcheck.Event{Kind: groupcheck.Down})
	if err := p.server.Kill(); err != nil {
		return err
	}
	return p.startServer(ctx)
}

func (p *plan) client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(p.tap.addr()), kgo.ClientID("run"), kgo.AlwaysRetryEOF(),
		kgo.RetryBackoffFn(func(int) time.Duration { return redialMax / 2 }), kgo.MetadataMinAge(redialMax),
	}, opts...)...)
}

func (p *plan) createTopic(ctx context.Context) error {
	client, err := p.client()
	if err != nil {
		return err
	}
	defer client.Close()
	created, err := kadm.NewClient(client).CreateTopic(ctx, p.partitions, 1, nil, topic)
	if err = errors.Join(err, created.Err); err != nil {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return nil
}

// producer returns what sends a record to every partition at a steady rate.
func (p *plan) producer() (func(context.Context), error) {
	client, err := p.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(-1))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		defer client.Close()
		tick := time.NewTicker(time.Second / time.Duration(p.perSecond))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			for n := range p.partitions {
				client.TryProduce(ctx, &kgo.Record{Topic: topic, Partition: n, Value: []byte("x")}, nil)
			}
		}
	}, nil
}

// flavorOf is that of the member of a number of a group.
func (p *plan) flavorOf(group, n int) flavor {
	kinds := p.flavors[group%len(p.flavors)]
	return kinds[n%len(kinds)]
}

// libraryOf is the library of a member.
func (p *plan) libraryOf(member string) string {
	var group, n int
	if _, err := fmt.Sscanf(member, "g%d-%d", &group, &n); err != nil {
		return "nothing"
	}
	return p.flavorOf(group, n).Library
}

// join starts one more member of a group.
func (p *plan) join(group string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var number int
	fmt.Sscanf(group, "g%d", &number)
	n := p.made[group]
	p.made[group]++
	m := &member{
		name: fmt.Sprintf("%s-%d", group, n), group: group, topic: topic, bootstrap: p.tap.addr(),
		flavor: p.flavorOf(number, n), timing: p.timing, rec: p.rec, logs: p.logs,
	}
	m.jvm = p.jvms[m.flavor.Library]
	p.tap.follow(m)
	if err := m.start(); err != nil {
		return err
	}
	p.running[m.name] = m
	return nil
}

// remove takes a member out of its group, in order or by silencing it.
func (p *plan) remove(name string, silently bool) {
	p.mu.Lock()
	m := p.running[name]
	delete(p.running, name)
	p.mu.Unlock()
	if silently {
		p.tap.cutOff(name)
		m.silence()
	} else {
		m.leave()
	}
	p.ending(m)
}

// change lets members of some groups come, leave and fall silent, each group one
// step at a time: the next only after it came to rest.
func (p *plan) change(ctx context.Context, rng *rand.Rand, res *result) error {
	const (
		step = 100 * time.Millisecond
		rest = 3 * time.Second // the longest that a settled group is left alone
	)
	due := make([]time.Time, p.changing)
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		for i := range p.changing {
			group := groupName(i)
			switch {
			case !p.rec.settled(group):
				due[i] = time.Time{}
				continue
			case due[i].IsZero():
				due[i] = time.Now().Add(time.Duration(rng.Int64N(int64(rest))))
				continue
			case time.Now().Before(due[i]):
				continue
			}
			due[i] = time.Time{}
			live := p.rec.live(group)
			switch victim := live[rng.IntN(len(live))]; {
			case len(live) <= max(1, p.members-1):
				if err := p.join(group); err != nil {
					return err
				}
				res.Came++
			case rng.IntN(p.leaves+p.silent) < p.leaves:
				p.remove(victim, false)
				res.Left++
			default:
				p.remove(victim, true)
				res.Silenced++
			}
		}
	}
}

// harm does the plan's faults, one after another, for its duration.
func (p *plan) harm(ctx context.Context, rng *rand.Rand, res *result) error {
	if p.bootstrap != "" {
		// Whoever started this does the harm, and says when it is over.
		ended := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, os.Stdin)
			ended <- err
		}()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	end := time.Now().Add(p.duration)
	pauses, etcdKills := p.pauses, p.etcdKills
	if p.etcd == nil {
		pauses, etcdKills = 0, 0
	}
	all := p.kills + pauses + etcdKills
	for {
		gap := p.minGap + time.Duration(rng.Int64N(int64(p.maxGap-p.minGap)+1))
		if time.Now().Add(gap).After(end) || all == 0 {
			gap = time.Until(end)
		}
		select {
		case <-time.After(gap):
		case <-p.server.Process().Exited():
			return fmt.Errorf("the server ended by itself\n%s", p.server.Process().LogTail(30))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !time.Now().Before(end) {
			return nil
		}
		at := time.Since(p.rec.start).Round(time.Millisecond)
		waiting := p.rec.recovering()
		switch n := rng.IntN(all); {
		case n < p.kills:
			restart := p.restart
			if p.changing == 0 {
				restart = func(ctx context.Context) error { return p.restartAndRecover(ctx, res) }
			}
			if err := restart(ctx); err != nil {
				return err
			}
			res.Kills++
			p.logf("%s: server killed and back, %d members had waited for records", at, waiting)
		case n < p.kills+pauses:
			m := p.etcd.Members[rng.IntN(len(p.etcd.Members))]
			d := time.Duration(rng.Int64N(int64(pauseMax)))
			if err := m.Pause(); err != nil {
				return err
			}
			wait(ctx, d)
			if err := m.Resume(); err != nil {
				return err
			}
			res.Pauses++
			p.logf("%s: %s stood still for %s", at, m.Name(), d.Round(time.Millisecond))
		default:
			m := p.etcd.Members[rng.IntN(len(p.etcd.Members))]
			if err := m.Process().Kill(); err != nil {
				return err
			}
			wait(ctx, time.Duration(rng.Int64N(int64(pauseMax))))
			if err := m.Exec(); err != nil {
				return err
			}
			if err := m.WaitReady(ctx); err != nil {
				return err
			}
			res.EtcdKills++
			p.logf("%s: %s killed and back", at, m.Name())
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// awaitSettled returns when every group has come to rest; false if one does not.
func (p *plan) awaitSettled(ctx context.Context, res *result) bool {
	ctx, cancel := context.WithTimeout(ctx, p.settle)
	defer cancel()
	for ctx.Err() == nil {
		if len(p.rec.unsettled()) == 0 {
			return true
		}
		p.removeMute(res)
		wait(ctx, 10*time.Millisecond)
	}
	return false
}

// removeMute takes those members for silent whose libraries have come to a standstill
// by themselves: their groups must come to rest without them.
func (p *plan) removeMute(res *result) {
	for _, group := range p.rec.unsettled() {
		for _, name := range p.rec.live(group) {
			p.mu.Lock()
			_, running := p.running[name]
			p.mu.Unlock()
			last, mute := p.tap.mute(name, p.rec.now()-int64(max(p.timing.session, mutePatience)))
			if !running || !mute || last.at == 0 {
				continue
			}
			res.Mute = append(res.Mute, fmt.Sprintf("%s of %s, since its %s at %.3f s", name, p.libraryOf(name), last.key.Name(), float64(last.at)/1e9))
			p.logf("mute without a fault of anybody: %s", res.Mute[len(res.Mute)-1])
			p.remove(name, true)
		}
	}
}

// restartAndRecover is restart, and waits until every member of the groups that were at
// rest receives records again. It takes note of who used the processors meanwhile.
func (p *plan) restartAndRecover(ctx context.Context, res *result) error {
	before := p.clientUsage()
	if err := p.restart(ctx); err != nil {
		return err
	}
	p.awaitRecovery(ctx)
	used := p.clientUsage().minus(before)
	if p.server != nil {
		u, err := p.server.Process().Usage() // all since it was started
		if err != nil {
			return fmt.Errorf("usage of the server: %w", err)
		}
		used.server = u.CPU
	}
	res.Recovering = res.Recovering.plus(used)
	return nil
}

// awaitRecovery returns when every member receives records again, or gives up:
// the result says how long they took.
func (p *plan) awaitRecovery(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, p.settle)
	defer cancel()
	for ctx.Err() == nil && p.rec.recovering() > 0 {
		wait(ctx, 10*time.Millisecond)
	}
}

// observe reads the offsets of one group after another, whatever happens.
func (p *plan) observe(ctx context.Context) {
	client, err := p.client()
	if err != nil {
		p.rec.failed("observer", err)
		return
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for i := 0; ctx.Err() == nil; i++ {
		if err := p.readGroup(ctx, admin, "the observer", groupName(i%p.groups)); err != nil && ctx.Err() == nil {
			p.rec.seen("observer", err.Error())
		}
		wait(ctx, 50*time.Millisecond)
	}
}

// observeServer asks one server for the offsets of one group after another,
// whatever happens. One that does not know yet that it was followed as their
// coordinator must not answer with what it remembers.
func (p *plan) observeServer(ctx context.Context, addr string) {
	const every = 30 * time.Millisecond
	for turn := 0; ctx.Err() == nil; {
		turn = p.observeConn(ctx, addr, turn, every)
		wait(ctx, every)
	}
}

// observeConn is observeServer on one connection, until that ends. The next one goes on
// with the turn that it returns: one group that cannot be asked keeps none from being asked.
func (p *plan) observeConn(ctx context.Context, addr string, turn int, every time.Duration) (next int) {
	const patience, version = 5 * time.Second, 5
	dialing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := wire.Dial(dialing, addr)
	if err != nil {
		return turn
	}
	defer conn.Close()
	for ; ctx.Err() == nil; turn++ {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Group = groupName(turn % p.groups)
		asking, cancel := context.WithTimeout(ctx, patience)
		asked := p.rec.now()
		answer, err := conn.Call(asking, req, version)
		cancel()
		if err != nil {
			return turn + 1
		}
		resp := answer.(*kmsg.OffsetFetchResponse)
		found := map[int32]int64{}
		sound := resp.ErrorCode == 0
		for _, t := range resp.Topics {
			for _, q := range t.Partitions {
				found[q.Partition] = q.Offset
				sound = sound && q.ErrorCode == 0
			}
		}
		var reads []groupcheck.Read
		for n := range p.partitions {
			at, ok := found[n]
			if !ok {
				at = groupcheck.None
			}
			reads = append(reads, groupcheck.Read{Group: req.Group, Reader: "an observer of " + addr, Partition: groupcheck.Partition{Topic: topic, Number: n}, Offset: at, Asked: asked})
		}
		if sound {
			p.rec.read(reads...)
		}
		wait(ctx, every)
	}
	return turn
}

// readAll reads the offsets of every group.
func (p *plan) readAll(ctx context.Context, reader string) error {
	client, err := p.client()
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for i := range p.groups {
		if err := p.readGroup(ctx, admin, reader, groupName(i)); err != nil {
			return fmt.Errorf("%s: offsets of group %s: %w", reader, groupName(i), err)
		}
	}
	return nil
}

func (p *plan) readGroup(ctx context.Context, admin *kadm.Client, reader, group string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	asked := p.rec.now()
	offsets, err := admin.FetchOffsets(ctx, group)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return err
	}
	var reads []groupcheck.Read
	for n := range p.partitions {
		at := int64(groupcheck.None)
		if o, ok := offsets.Lookup(topic, n); ok {
			at = o.At
		}
		reads = append(reads, groupcheck.Read{Group: group, Reader: reader, Partition: groupcheck.Partition{Topic: topic, Number: n}, Offset: at, Asked: asked})
	}
	p.rec.read(reads...)
	return nil
}
