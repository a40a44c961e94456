package bookkeeper

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/bookkeeper/bookie"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/place"
	"github.com/quirelog/quire/storage/bookkeeper/quorum"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// members are the bookies of the cluster as this process knows them: who is
// registered, how each did lately, and the connections to it.
type members struct {
	t        *Tier
	registry *metadata.Registry

	mu         sync.Mutex
	all        map[metadata.BookieID]*member
	quarantine *place.Quarantine
	random     *rand.Rand
	instance   string
	strangers  map[metadata.BookieID]bool // have a cookie of another cluster
	closed     bool
}

// member is one bookie and how to reach it.
type member struct {
	id      metadata.BookieID
	client  *bookie.Client
	metrics memberMetrics
	reads   delays

	suspect   atomic.Bool // the quarantine knows it; changed under members.mu
	failedAt  moment
	stalledAt moment       // of the machine's clock
	batches   atomic.Int32 // batchUnknown, batchWorks, batchBreaks
}

// moment is a time that some goroutines note and others look at. It is compared by the
// monotonic clock, since the other one may be set.
type moment struct {
	since atomic.Int64 // ns after began, 0: never
}

var began = time.Now()

func (m *moment) note(now time.Time) { m.since.Store(int64(now.Sub(began)) | 1) }

// within says whether the moment was noted, and less than d before now.
func (m *moment) within(d time.Duration, now time.Time) bool {
	since := m.since.Load()
	return since != 0 && int64(now.Sub(began))-since < int64(d)
}

// What is known of BATCH_READ at a bookie. One that is older than 4.17.0 answers
// by closing the connection, as one does that dies.
const (
	batchUnknown int32 = iota
	batchWorks
	batchBreaks
)

// recent is how long a failure keeps a bookie from being chosen as a replacement.
const recent = 2 * time.Second

func newMembers(t *Tier, instance string, registry *metadata.Registry) *members {
	return &members{
		t: t, registry: registry, instance: instance,
		all: make(map[metadata.BookieID]*member), quarantine: place.NewQuarantine(t.c.Quarantine),
		random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}
}

// get returns a bookie; its client connects when it is first asked.
func (m *members) get(id metadata.BookieID) *member {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.all[id]
	if b == nil {
		c := &m.t.c
		b = &member{id: id, metrics: m.t.metrics.member(id)}
		b.client = bookie.New(id, bookie.Config{
			Resolve: m.resolve, TLS: c.TLS, AddConnections: c.AddConnections, ReadConnections: c.ReadConnections,
			AddTimeout: c.AddTimeout, ReadTimeout: c.ReadTimeout, ConnectTimeout: c.ConnectTimeout, ConnectGrace: c.connectGrace,
			StallAfter: c.StallAfter, Stalled: func(metadata.BookieID) { m.stalled(b) },
			// The tier's own budget refuses earlier.
			MaxFrameBytes: c.MaxFrameBytes, MaxBytesInFlight: 2 * c.MaxBytes,
			Observe: func(_ metadata.BookieID, op wire.Op, elapsed time.Duration, err error) {
				m.observe(b, op, elapsed, err)
			},
		})
		if m.closed {
			b.client.Close()
		}
		m.all[id] = b
	}
	return b
}

// resolve returns the address that a bookie registered with last. One whose lease
// lapsed before this process came may serve on; most are named by their address.
func (m *members) resolve(id metadata.BookieID) (string, error) {
	if addr := m.registry.Get(id).Addr; addr != "" {
		return addr, nil
	}
	if host, port, err := net.SplitHostPort(string(id)); err == nil && host != "" && port != "" {
		return string(id), nil
	}
	return "", fmt.Errorf("bookie %s: its address is not known, it is not registered", id)
}

// close ends all connections and waits for their goroutines.
func (m *members) close() {
	m.mu.Lock()
	m.closed = true
	all := make([]*member, 0, len(m.all))
	for _, b := range m.all {
		all = append(all, b)
	}
	m.mu.Unlock()
	for _, b := range all {
		b.client.Close()
	}
	m.registry.Close()
}

// observe hears of every request that ended, from goroutines of the clients.
func (m *members) observe(b *member, op wire.Op, elapsed time.Duration, err error) {
	b.metrics.observe(op, elapsed, err)
	if err == nil && op == wire.OpAdd && !b.suspect.Load() {
		return // most of all; to ask for the time would cost as much as the rest
	}
	now := m.t.c.Now()
	if err == nil && op == wire.OpRead {
		b.reads.note(elapsed, now)
	}
	if spoils(op, err) {
		b.failedAt.note(now)
	}
	switch {
	case blames(err):
		m.mu.Lock()
		b.suspect.Store(true)
		quarantined := m.quarantine.Failed(b.id, now)
		m.mu.Unlock()
		if quarantined {
			m.t.log.Warn("bookie gets no new ledgers for a while, it failed too often", zap.String("bookie", string(b.id)), zap.Error(err))
		}
	case err == nil && b.suspect.Load():
		// In quarantine a success frees nobody: it stays suspect, for the first one after.
		m.mu.Lock()
		m.quarantine.Succeeded(b.id, now)
		b.suspect.Store(m.quarantine.Avoid(b.id, now))
		m.mu.Unlock()
	}
}

// stalled hears that a bookie is silent though it owes answers. What has to have them
// goes on without it. When all bookies are silent none is better than another.
func (m *members) stalled(b *member) {
	now := m.t.c.Now()
	if !b.failedAt.within(recent, now) {
		m.t.log.Warn("bookie does not answer adds", zap.String("bookie", string(b.id)), zap.Duration("since", m.t.c.StallAfter))
	}
	b.failedAt.note(now)
	b.stalledAt.note(time.Now())
	usable := m.usable()
	for _, w := range m.t.openWriters() {
		w.event(func(machine *quorum.Writer) { machine.BookieStalled(b.id, m.isStalled, usable >= w.want.ack) })
	}
	for _, r := range m.t.openRecoveries() {
		r.post(func() { r.machine.BookieStalled(b.id, m.isStalled) }, func() {})
	}
}

// isStalled returns whether stalled was last told of a bookie a moment ago: it is told
// several times in each StallAfter.
func (m *members) isStalled(id metadata.BookieID) bool {
	m.mu.Lock()
	b := m.all[id]
	m.mu.Unlock()
	return b != nil && b.stalledAt.within(m.t.c.StallAfter/2, time.Now())
}

// candidates returns who could take entries. m.mu is held. Those that failed a
// moment ago are avoided, or left out.
func (m *members) candidates(leaveOut bool) []place.Candidate {
	now := m.t.c.Now()
	var list []place.Candidate
	for _, b := range m.registry.All() {
		if b.State != metadata.Writable || m.strangers[b.ID] {
			continue
		}
		avoid := m.quarantine.Avoid(b.ID, now)
		if known := m.all[b.ID]; known != nil && known.failedAt.within(recent, now) {
			if leaveOut {
				continue
			}
			avoid = true
		}
		list = append(list, place.Candidate{ID: b.ID, Location: m.t.c.Locate(b), Avoid: avoid})
	}
	return list
}

// usable returns how many bookies a new ledger could use now.
func (m *members) usable() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return countUsable(m.candidates(false))
}

func countUsable(list []place.Candidate) int {
	n := 0
	for _, c := range list {
		if !c.Avoid {
			n++
		}
	}
	return n
}

// choose picks the ensemble of a new ledger. If there are fewer usable bookies
// than it asks for, but an ack quorum of them, the ledger becomes narrower: with
// three bookies of which one is away, writing goes on on two.
func (m *members) choose(want quorums) ([]metadata.BookieID, quorums, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.candidates(false)
	got := want
	switch n := countUsable(list); {
	case n >= want.ensemble:
	case n >= want.ack:
		list = slices.DeleteFunc(list, func(c place.Candidate) bool { return c.Avoid })
		got.ensemble = n
	case len(list) >= want.ack:
		got.ensemble = min(want.ensemble, len(list))
	}
	got.write = min(got.write, got.ensemble)
	ids, err := place.Choose(m.random, place.Quorums{Ensemble: got.ensemble, WriteQuorum: got.write}, list)
	if err != nil {
		return nil, want, fmt.Errorf("%w for an ensemble of %d and an ack quorum of %d: %d take entries", err, want.ensemble, want.ack, len(list))
	}
	now := m.t.c.Now()
	for _, id := range ids {
		m.quarantine.Chosen(id, now)
	}
	return ids, got, nil
}

// placement implements quorum.Placement for a ledger.
type placement struct {
	m           *members
	writeQuorum int
}

func (p placement) Replace(ensemble []metadata.BookieID, index int) (metadata.BookieID, bool) {
	m := p.m
	m.mu.Lock()
	defer m.mu.Unlock()
	where := func(id metadata.BookieID) place.Location { return m.t.c.Locate(m.registry.Get(id)) }
	q := place.Quorums{Ensemble: len(ensemble), WriteQuorum: p.writeQuorum}
	next, _, err := place.Replace(m.random, q, ensemble, []int{index}, m.candidates(true), where)
	if err != nil {
		return "", false
	}
	m.quarantine.Chosen(next[index], m.t.c.Now())
	return next[index], true
}

// takesAdds says whether a bookie that failed can be tried again.
func (m *members) takesAdds(id metadata.BookieID) bool {
	now := m.t.c.Now()
	if m.registry.Get(id).State != metadata.Writable {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.all[id]
	return !m.quarantine.Avoid(id, now) && (b == nil || !b.failedAt.within(recent, now))
}

// readCookies finds out which bookies there are, up or not, and which are of
// another cluster. Until it succeeds it leaves things as they were and returns nil.
func (m *members) readCookies(ctx context.Context) map[metadata.BookieID]metadata.Cookie {
	cookies, err := m.t.c.Store.Cookies(ctx)
	if err != nil {
		m.t.log.Warn("cookies of bookies cannot be read", zap.Error(err))
		if cookies == nil {
			return nil
		}
	}
	strangers := make(map[metadata.BookieID]bool)
	for _, id := range metadata.Strangers(m.instance, cookies) {
		strangers[id] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range strangers {
		if !m.strangers[id] {
			m.t.log.Warn("bookie is not used, its cookie is of another cluster", zap.String("bookie", string(id)))
		}
	}
	m.strangers = strangers
	return cookies
}

// checkSize says whether the configured quorums are possible in this cluster.
// Bookies that are down count: they come back, and meanwhile ledgers are narrower.
func (m *members) checkSize(cookies map[metadata.BookieID]metadata.Cookie) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := make(map[metadata.BookieID]bool)
	up := 0
	for id := range cookies {
		known[id] = !m.strangers[id]
	}
	for _, b := range m.registry.All() {
		known[b.ID] = !m.strangers[b.ID]
		if b.State == metadata.Writable && known[b.ID] {
			up++
		}
	}
	maps.DeleteFunc(known, func(_ metadata.BookieID, ours bool) bool { return !ours })
	c := &m.t.c
	switch {
	case len(known) < c.Ensemble:
		return fmt.Errorf("bookkeeper: an ensemble of %d bookies is impossible, the cluster has %d (%d up): %w", c.Ensemble, len(known), up, place.ErrNotEnoughBookies)
	case up < c.Ensemble:
		m.t.log.Warn("fewer bookies than the ensemble take entries, ledgers will have fewer copies", zap.Int("up", up), zap.Int("ensemble", c.Ensemble))
	case len(known) == c.Ensemble && c.Ensemble > 1:
		m.t.log.Warn("the ensemble takes all bookies of the cluster, none can replace one that fails", zap.Int("bookies", len(known)))
	}
	return nil
}

// Ranks of copies to read; the sum counts.
const (
	rankVanished = 32
	rankFailed   = 16
	rankSlow     = 8
	rankRegion   = 2
	rankRack     = 1
)

// order returns the bookies that have an entry in the order in which to read from
// them: those that are gone, failed, or are much slower than others last, near ones
// before far ones. Else each ledger has its own order, so that bookies share the
// work, and read ahead for it.
func (m *members) order(ledger int64, ensemble []metadata.BookieID, positions []int) []*member {
	now := m.t.c.Now()
	type ranked struct {
		b     *member
		delay time.Duration
		rank  int
	}
	list := make([]ranked, 0, len(positions))
	fastest := time.Duration(math.MaxInt64)
	for i := range positions {
		id := ensemble[positions[(int(ledger%int64(len(positions)))+i)%len(positions)]]
		r := ranked{b: m.get(id)}
		r.delay = r.b.reads.percentile(now)
		fastest = min(fastest, r.delay)
		known := m.registry.Get(id)
		if known.State == metadata.Vanished {
			r.rank += rankVanished
		}
		if r.b.failedAt.within(10*time.Second, now) || !r.b.client.Reachable() {
			r.rank += rankFailed
		}
		if here := m.t.c.Location; here != (place.Location{}) {
			switch there := m.t.c.Locate(known); {
			case there.Region != here.Region:
				r.rank += rankRegion
			case there.Rack != here.Rack:
				r.rank += rankRack
			}
		}
		list = append(list, r)
	}
	for i := range list {
		if d := list[i].delay; d > slowDelay && d > 4*fastest {
			list[i].rank += rankSlow
		}
	}
	slices.SortStableFunc(list, func(a, b ranked) int { return a.rank - b.rank })
	order := make([]*member, len(list))
	for i := range list {
		order[i] = list[i].b
	}
	return order
}

// locateByHost tells bookies of one host apart from others.
func locateByHost(b metadata.Bookie) place.Location {
	host, _, err := net.SplitHostPort(b.Addr)
	if err != nil {
		host = string(b.ID)
	}
	return place.Location{Host: host}
}

// delays remembers how long the last reads took.
type delays struct {
	mu   sync.Mutex
	ring [64]time.Duration
	n    int
	p95  atomic.Int64 // ns; 0: too few yet
	at   moment       // of the last read
}

const (
	// delaysEvery is after how many reads the percentile is computed anew.
	delaysEvery = 16
	// delaysAge is how long it says anything about a bookie that is not read from.
	delaysAge = 30 * time.Second
	// slowDelay is what is never slow.
	slowDelay = 20 * time.Millisecond
)

func (d *delays) note(elapsed time.Duration, now time.Time) {
	d.at.note(now)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ring[d.n%len(d.ring)] = elapsed
	d.n++
	if d.n%delaysEvery != 0 {
		return
	}
	sorted := d.ring
	used := sorted[:min(d.n, len(sorted))]
	slices.Sort(used)
	d.p95.Store(int64(used[len(used)*95/100]))
}

// percentile returns what 95 of 100 reads did not exceed, 0 if nobody knows.
func (d *delays) percentile(now time.Time) time.Duration {
	if !d.at.within(delaysAge, now) {
		return 0
	}
	return time.Duration(d.p95.Load())
}

// patience is how long to wait for a bookie before another one is asked too.
func (b *member) patience(floor time.Duration, now time.Time) time.Duration {
	return max(floor, b.reads.percentile(now))
}
