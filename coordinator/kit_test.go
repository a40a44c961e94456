package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/mem"
)

// cluster is several coordinators on one metadata store, in the time of a
// synctest bubble. After each transaction it checks that no slot is answered for
// by two.
type cluster struct {
	t     *testing.T
	store *mem.Store
	began time.Time
	late  sync.WaitGroup // transactions that arrive after their callers have given up

	mu    sync.Mutex
	over  bool // nothing is checked any more
	live  map[string]*member
	ended []*member
	// epochs is who has served a slot in an epoch: an epoch has one owner.
	epochs map[[2]int64]*member
}

// member is one node, with its own connection to the metadata store.
type member struct {
	*coordinator.Coordinator
	name   string
	link   *link
	logs   *heldLogs
	failed chan error
	dead   bool // killed: what it believes hurts nobody
}

// inCluster runs a test in a bubble.
func inCluster(t *testing.T, test func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, store: mem.New(nil), live: make(map[string]*member), epochs: make(map[[2]int64]*member), began: time.Now()}
		defer c.store.Close()
		defer c.late.Wait()
		defer c.closeAll()
		test(t, c)
	})
}

func (c *cluster) closeAll() {
	c.mu.Lock()
	c.over = true
	all := c.ended
	for _, m := range c.live {
		all = append(all, m)
	}
	c.mu.Unlock()
	for _, m := range all {
		m.link.heal()
		m.Close()
	}
}

// try starts a node.
func (c *cluster) try(name string, configure ...func(*coordinator.Config)) (*member, error) {
	m := &member{name: name, logs: &heldLogs{}, failed: make(chan error, 1)}
	m.link = &link{Store: c.store, c: c}
	config := coordinator.Config{
		Meta: m.link, Prefix: "quire/test/", NodeName: name, Node: coordinator.Node{ID: -1, Folder: name + "'s folder"},
		Failed: func(err error) { m.failed <- err },
		// The system's is counted from a moment outside the bubble.
		Clock: func() (time.Duration, time.Time) { return time.Since(c.began) + time.Second, time.Now() },
	}
	for _, f := range configure {
		f(&config)
	}
	var err error
	if m.Coordinator, err = coordinator.Open(c.t.Context(), config); err != nil {
		return nil, err
	}
	m.logs.route = m.Route
	m.Hold(m.logs)
	c.mu.Lock()
	defer c.mu.Unlock()
	if before := c.live[name]; before != nil {
		c.ended = append(c.ended, before)
	}
	c.live[name] = m
	return m, nil
}

func (c *cluster) start(name string, configure ...func(*coordinator.Config)) *member {
	c.t.Helper()
	m, err := c.try(name, configure...)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// startAll starts nodes and waits until each has its share.
func (c *cluster) startAll(names ...string) (all []*member) {
	c.t.Helper()
	for _, name := range names {
		all = append(all, c.start(name))
	}
	c.settle(all...)
	return all
}

// settle waits until all slots are served and none moves any more.
func (c *cluster) settle(by ...*member) {
	c.t.Helper()
	eventually(c.t, "all slots are served", func() bool { return c.served(by...) })
	for before := c.owners(); ; {
		time.Sleep(4 * time.Second)
		after := c.owners()
		if maps.Equal(before, after) {
			break
		}
		before = after
	}
	if !c.balanced(by...) {
		c.t.Fatal("not everybody has its share")
	}
}

// kill ends a node without a word to anybody.
func (c *cluster) kill(m *member) {
	m.link.cut()
	c.mu.Lock()
	m.dead = true
	if c.live[m.name] == m {
		delete(c.live, m.name)
		c.ended = append(c.ended, m)
	}
	c.mu.Unlock()
	m.Close()
}

// slotsOf is what a node serves.
func slotsOf(m *member) (here []int) {
	for slot := range coordinator.NumSlots {
		if m.Route(slot).Here {
			here = append(here, slot)
		}
	}
	return here
}

// served says whether every slot is served by one of the nodes, and all know it.
func (c *cluster) served(by ...*member) bool {
	for slot := range coordinator.NumSlots {
		owner := int32(-1)
		for _, m := range by {
			if m.Route(slot).Here {
				owner = m.Self().ID
			}
		}
		for _, m := range by {
			if m.Route(slot).Node != owner || owner < 0 {
				return false
			}
		}
	}
	return true
}

// balanced says also that each has about its share.
func (c *cluster) balanced(by ...*member) bool {
	if !c.served(by...) {
		return false
	}
	for _, m := range by {
		if share := coordinator.NumSlots / len(by); len(slotsOf(m)) < share*3/4 || len(slotsOf(m)) > share*5/4 {
			return false
		}
	}
	return true
}

// check looks for a slot that two nodes answer for from memory.
func (c *cluster) check() {
	c.mu.Lock()
	var all []*member
	for _, of := range [][]*member{c.ended, values(c.live)} {
		for _, m := range of {
			if !m.dead && !c.over {
				all = append(all, m)
			}
		}
	}
	c.mu.Unlock()
	for slot := range coordinator.NumSlots {
		var first *member
		var epoch int64
		for _, m := range all {
			e, ok := coordinator.Trusted(m.Coordinator, slot)
			if !ok {
				continue
			}
			if before := c.ownerOf(slot, e, m); before != m {
				c.t.Errorf("slot %d belongs in epoch %d to %s and to %s", slot, e, before.name, m.name)
			}
			if first == nil {
				first, epoch = m, e
				continue
			}
			// The slot may have moved since the first was asked.
			if e2, still := coordinator.Trusted(first.Coordinator, slot); still && e2 == epoch {
				c.t.Errorf("slot %d is answered for by %s in epoch %d and by %s in epoch %d", slot, first.name, epoch, m.name, e)
			}
			first, epoch = m, e
		}
	}
}

// ownerOf is the first node that was seen to serve a slot in an epoch.
func (c *cluster) ownerOf(slot int, epoch int64, m *member) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := [2]int64{int64(slot), epoch}
	if c.epochs[key] == nil {
		c.epochs[key] = m
	}
	return c.epochs[key]
}

func values[K comparable, V any](m map[K]V) (all []V) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// owners reads all owner records.
func (c *cluster) owners() map[string]meta.Revision {
	found := make(map[string]meta.Revision)
	if _, err := c.store.List(c.t.Context(), "quire/test/own/", func(kv meta.KV) bool { found[kv.Key] = kv.Modified; return true }); err != nil {
		c.t.Fatal(err)
	}
	return found
}

// heldLogs is a SlotHolder that takes its time.
type heldLogs struct {
	takes    atomic.Int64 // of a release
	fails    atomic.Bool
	route    func(int) coordinator.Route
	released atomic.Int64
	dropped  atomic.Int64
	early    atomic.Int64 // releases or drops of a slot that the route says is here
}

func (h *heldLogs) ReleaseSlot(ctx context.Context, slot int) error {
	if h.route(slot).Here {
		h.early.Add(1)
	}
	h.released.Add(1)
	if h.fails.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	takes := time.Duration(h.takes.Load())
	if takes == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(takes)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

func (h *heldLogs) DropSlot(slot int) {
	if h.route(slot).Here {
		h.early.Add(1)
	}
	h.dropped.Add(1)
}

// link is a node's connection to the metadata store. While it is cut requests
// wait, as they do in a network that drops packets.
type link struct {
	meta.Store
	c *cluster

	mu     sync.Mutex
	healed chan struct{} // nil: it is not cut
	deaf   chan struct{} // nil: watches bring what happens
	// fate, if set, decides what becomes of a transaction.
	fate func() fate
	held map[string]chan struct{} // by operation
}

// keepAliveAnswer is the answer to a renewal, for hold.
const keepAliveAnswer = "answer to KeepAlive"

// hold makes an operation wait until release is called.
func (l *link) hold(op string) (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := make(chan struct{})
	if l.held == nil {
		l.held = make(map[string]chan struct{})
	}
	l.held[op] = ch
	return func() {
		l.mu.Lock()
		delete(l.held, op)
		l.mu.Unlock()
		close(ch)
	}
}

func (l *link) pass(ctx context.Context, op string) error {
	l.mu.Lock()
	ch := l.held[op]
	l.mu.Unlock()
	if ch == nil {
		return nil
	}
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ctx.Err(), meta.ErrUnavailable)
	}
}

// fate of a transaction: its answer is lost, and it arrives after a delay.
type fate struct {
	lost  bool
	delay time.Duration
}

// requestTimeout is how long a client of etcd waits at most.
const requestTimeout = 5 * time.Second

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.healed == nil {
		l.healed = make(chan struct{})
	}
}

func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.healed != nil {
		close(l.healed)
		l.healed = nil
	}
}

// deafen holds back what watches bring, until hear is called.
func (l *link) deafen() (hear func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := make(chan struct{})
	l.deaf = ch
	return func() {
		l.mu.Lock()
		l.deaf = nil
		l.mu.Unlock()
		close(ch)
	}
}

func (l *link) hears(ctx context.Context) {
	l.mu.Lock()
	deaf := l.deaf
	l.mu.Unlock()
	if deaf != nil {
		select {
		case <-deaf:
		case <-ctx.Done():
		}
	}
}

func (l *link) setFate(f func() fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fate = f
}

func (l *link) wait(ctx context.Context) error {
	l.mu.Lock()
	healed := l.healed
	l.mu.Unlock()
	if healed == nil {
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	select {
	case <-healed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ctx.Err(), meta.ErrUnavailable)
	}
}

func (l *link) Get(ctx context.Context, key string) (meta.KV, error) {
	if err := l.wait(ctx); err != nil {
		return meta.KV{}, err
	}
	if err := l.pass(ctx, "Get"); err != nil {
		return meta.KV{}, err
	}
	return l.Store.Get(ctx, key)
}

func (l *link) List(ctx context.Context, prefix string, f func(meta.KV) bool) (meta.Revision, error) {
	if err := l.wait(ctx); err != nil {
		return 0, err
	}
	return l.Store.List(ctx, prefix, f)
}

func (l *link) Txn(ctx context.Context, conds []meta.Cond, ops []meta.Op) (meta.Revision, bool, error) {
	if err := l.wait(ctx); err != nil {
		return 0, false, errors.Join(err, meta.ErrUnknownOutcome)
	}
	l.mu.Lock()
	decide := l.fate
	l.mu.Unlock()
	if decide != nil {
		if f := decide(); f.lost {
			// The caller uses its slices again once it has been answered.
			conds, ops := slices.Clone(conds), slices.Clone(ops)
			l.c.late.Go(func() {
				time.Sleep(f.delay)
				l.Store.Txn(context.Background(), conds, ops)
				l.c.check()
			})
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
			return 0, false, meta.ErrUnknownOutcome
		}
	}
	revision, ok, err := l.Store.Txn(ctx, conds, ops)
	l.c.check()
	return revision, ok, err
}

func (l *link) Grant(ctx context.Context, ttl int64) (meta.LeaseID, error) {
	if err := l.wait(ctx); err != nil {
		return 0, err
	}
	return l.Store.Grant(ctx, ttl)
}

func (l *link) KeepAlive(ctx context.Context, id meta.LeaseID) (int64, error) {
	if err := l.wait(ctx); err != nil {
		return 0, err
	}
	ttl, err := l.Store.KeepAlive(ctx, id)
	if err := l.pass(ctx, keepAliveAnswer); err != nil {
		return 0, err
	}
	return ttl, err
}

func (l *link) Revoke(ctx context.Context, id meta.LeaseID) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	return l.Store.Revoke(ctx, id)
}

func (l *link) Watch(ctx context.Context, prefix string, after meta.Revision) <-chan meta.Events {
	from := l.Store.Watch(ctx, prefix, after)
	to := make(chan meta.Events, 16)
	go func() {
		defer close(to)
		for e := range from {
			for l.wait(ctx) != nil {
				if ctx.Err() != nil {
					return
				}
			}
			l.hears(ctx)
			select {
			case to <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return to
}

func (l *link) Close() error { return nil }

// randomly makes a share of the transactions lose their answers.
func randomly(r *rand.Rand, share float64, delay time.Duration) func() fate {
	var mu sync.Mutex
	return func() fate {
		mu.Lock()
		defer mu.Unlock()
		if r.Float64() >= share {
			return fate{}
		}
		return fate{lost: true, delay: time.Duration(r.Int64N(int64(delay)))}
	}
}

func timeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
