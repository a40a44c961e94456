package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/storage/meta"
)

// A node alone has all slots at once, also after a crash, when its own record and
// its slots are still there.
func TestAloneHasAll(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		for range 3 {
			synctest.Wait()
			if here := slotsOf(a); len(here) != coordinator.NumSlots {
				t.Fatalf("%d slots", len(here))
			}
			if !a.Housekeeper() {
				t.Error("nobody keeps house")
			}
			c.kill(a)
			a = c.start("a")
		}
	})
}

// A node that joins gets its share after a while of peace, and no other slot moves.
func TestJoin(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startAll("a")[0]
		before := c.owners()
		b := c.start("b")
		time.Sleep(1900 * time.Millisecond)
		if n := len(slotsOf(b)); n > 0 {
			t.Errorf("%d slots have moved at once", n)
		}
		joined := time.Now()
		eventually(t, "both have their share", func() bool { return c.balanced(a, b) && len(slotsOf(b)) > 400 })
		moved := 0
		for key, revision := range c.owners() {
			if before[key] != revision {
				moved++
			}
		}
		if moved != len(slotsOf(b)) {
			t.Errorf("%d slots have changed hands, %d are with the new node", moved, len(slotsOf(b)))
		}
		if took := time.Since(joined); took < time.Duration(moved)*time.Second/100-time.Second {
			t.Errorf("%d slots have moved in %v", moved, took)
		}
		if a.logs.early.Load() > 0 || a.logs.released.Load() != int64(moved) || a.logs.dropped.Load() != int64(moved) {
			t.Errorf("%d were released and %d dropped, %d too early", a.logs.released.Load(), a.logs.dropped.Load(), a.logs.early.Load())
		}
	})
}

// The slots of a node that was killed are served again within its lease and a
// second, by all who are left.
func TestKill(t *testing.T) {
	for _, ttl := range []time.Duration{3 * time.Second, 10 * time.Second} {
		t.Run(fmt.Sprint(ttl), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				short := func(c *coordinator.Config) { c.LeaseTTL = ttl }
				a, b, d := c.start("a", short), c.start("b", short), c.start("d", short)
				eventually(t, "balance", func() bool { return c.balanced(a, b, d) })
				had := slotsOf(b)
				c.kill(b)
				killed := time.Now()
				eventually(t, "the others have all", func() bool { return c.served(a, d) })
				if took := time.Since(killed); took > ttl+time.Second {
					t.Errorf("%d slots were served after %v", len(had), took)
				}
				if n := len(slotsOf(a)) + len(slotsOf(d)); n != coordinator.NumSlots {
					t.Errorf("%d slots are served", n)
				}
			})
		})
	}
}

// A node whose lease is revoked by hand, or whose record is deleted, knows it as soon as
// its watch says so, whatever a renewal that was sent before is answered; and it is a
// node again before anybody has taken its slots.
func TestRevokedByHand(t *testing.T) {
	// Sleeps are of the clock of the cluster's bubble: they wait for nothing, time passes.
	for name, end := range map[string]func(t *testing.T, c *cluster, kv meta.KV) error{
		"revoked": func(t *testing.T, c *cluster, kv meta.KV) error { return c.store.Revoke(t.Context(), kv.Lease) },
		"deleted": func(t *testing.T, c *cluster, kv meta.KV) error {
			_, _, err := c.store.Txn(t.Context(), nil, []meta.Op{meta.Delete(kv.Key)})
			return err
		},
	} {
		for _, slow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, slow=%v", name, slow), func(t *testing.T) {
				inCluster(t, func(t *testing.T, c *cluster) {
					all := c.startAll("a", "b")
					a, b := all[0], all[1]
					had := slotsOf(b)
					answer := b.link.hold(keepAliveAnswer)
					time.Sleep(4 * time.Second) // a renewal is carried out in that time
					register := b.link.hold("Get")
					kv, err := c.store.Get(t.Context(), fmt.Sprint("quire/test/node/", b.Self().ID))
					if err != nil {
						t.Fatal(err)
					}
					if !coordinator.LeaseValid(b.Coordinator) {
						t.Fatal("the lease is over before the test has begun")
					}
					if err := end(t, c, kv); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					if coordinator.LeaseValid(b.Coordinator) {
						t.Error("a node that has heard that it is not registered relies on its lease")
					}
					answer()
					synctest.Wait()
					if coordinator.LeaseValid(b.Coordinator) {
						t.Error("an answer from before makes it rely on its lease again")
					}
					c.check()
					if slow {
						time.Sleep(2 * time.Second)
						if c.check(); len(slotsOf(a)) != coordinator.NumSlots {
							t.Errorf("the other has %d slots", len(slotsOf(a)))
						}
					} else {
						time.Sleep(200 * time.Millisecond)
					}
					register()
					eventually(t, "it is registered again", func() bool { return coordinator.LeaseValid(b.Coordinator) })
					if got := slotsOf(b); !slow && !slices.Equal(got, had) {
						t.Errorf("it has %d slots, %d before", len(got), len(had))
					}
					c.settle(a, b)
				})
			})
		}
	}
}

// A drained node gives everything away soon, keeps its place on the list, gets
// it back when it is told so, and its next process drains no more.
func TestDrain(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b", "d")
		a, b, d := all[0], all[1], all[2]
		b.logs.takes.Store(int64(20 * time.Millisecond))
		began := time.Now()
		if err := b.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("draining took %v", took)
		}
		eventually(t, "the others have all", func() bool { return c.served(a, b, d) && len(slotsOf(b)) == 0 })
		if n, ok := a.Node(b.Self().ID); !ok || !n.Draining || !b.Self().Draining {
			t.Errorf("the node is told as %+v, %v", n, ok)
		}
		time.Sleep(time.Minute)
		if n := len(slotsOf(b)); n > 0 {
			t.Errorf("a draining node has %d slots again", n)
		}
		if err := a.SetDraining(t.Context(), b.Self().ID, false); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has its share again", func() bool { return c.balanced(a, b, d) })
		if err := a.SetDraining(t.Context(), b.Self().ID, true); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is empty", func() bool { return c.served(a, d) })
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = c.start("b")
		if b.Self().Draining {
			t.Error("the next process drains")
		}
		eventually(t, "it has its share again", func() bool { return c.balanced(a, b, d) })
		if err := a.SetDraining(t.Context(), 77, true); !errors.Is(err, coordinator.ErrUnknownNode) {
			t.Errorf("draining nobody: %v", err)
		}
	})
}

// When nobody else takes slots, those who drain keep them.
func TestDrainAll(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startAll("a")[0]
		if err := a.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(slotsOf(a)); n != coordinator.NumSlots {
			t.Fatalf("%d slots are left", n)
		}
		b := c.start("b")
		eventually(t, "the other has all", func() bool { return len(slotsOf(b)) == coordinator.NumSlots })
		if err := b.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both share", func() bool { return c.served(a, b) })
	})
}

// What cannot be released in order moves nevertheless.
func TestDrainWithoutRelease(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b")
		all[0].logs.fails.Store(true)
		if err := all[0].Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the other has all", func() bool { return len(slotsOf(all[1])) == coordinator.NumSlots })
	})
}

// Draining while the metadata store is away fails in time, serves on, and goes on
// afterwards.
func TestDrainWithoutStore(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b")
		a := all[0]
		a.logs.takes.Store(int64(100 * time.Millisecond))
		drained := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		go func() { drained <- a.Drain(ctx) }()
		time.Sleep(150 * time.Millisecond)
		a.link.cut()
		if err := <-drained; !errors.Is(err, coordinator.ErrUnavailable) {
			t.Errorf("drain: %v", err)
		}
		time.Sleep(time.Second)
		if n := len(slotsOf(a)); n == 0 {
			t.Error("nothing is served")
		}
		a.link.heal()
		eventually(t, "the other has all", func() bool { return c.served(a, all[1]) && len(slotsOf(all[1])) == coordinator.NumSlots })
	})
}

// A slot goes where an override says, as long as that node takes slots.
func TestOverride(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b", "d")
		a, b := all[0], all[1]
		slot := slotsOf(a)[0]
		if err := a.Override(t.Context(), slot, b.Self().ID); err != nil {
			t.Fatal(err)
		}
		moved := time.Now()
		eventually(t, "the slot has moved", func() bool { return b.Route(slot).Here })
		if took := time.Since(moved); took > time.Second {
			t.Errorf("it took %v", took)
		}
		time.Sleep(time.Minute)
		if !b.Route(slot).Here {
			t.Error("the slot did not stay")
		}
		if got := all[2].Overrides(); len(got) != 1 || got[slot] != b.Self().ID {
			t.Errorf("overrides are %v", got)
		}
		if err := b.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the slot is elsewhere", func() bool { return !b.Route(slot).Here && c.served(all...) })
		if err := b.SetDraining(t.Context(), b.Self().ID, false); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the slot is back", func() bool { return b.Route(slot).Here })
		if err := all[2].Override(t.Context(), slot, -1); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the slot is where it was", func() bool { return a.Route(slot).Here })
		if err := a.Override(t.Context(), slot, 77); !errors.Is(err, coordinator.ErrUnknownNode) {
			t.Errorf("override to nobody: %v", err)
		}
		if err := a.Override(t.Context(), coordinator.NumSlots, 1); err == nil {
			t.Error("there is no such slot")
		}
	})
}

// A slot that somebody moves by hand does not wait for those that move for balance.
func TestOverrideWhileBalancing(t *testing.T) {
	// Sleeps are of the clock of the cluster's bubble: they wait for nothing, time passes.
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startAll("a")[0]
		b := c.start("b", func(c *coordinator.Config) { c.Node.Weight = 1 })
		const last = coordinator.NumSlots - 1
		c.start("d")
		time.Sleep(3 * time.Second)
		if err := a.Override(t.Context(), last, b.Self().ID); err != nil {
			t.Fatal(err)
		}
		asked := time.Now()
		eventually(t, "the slot has moved", func() bool { return b.Route(last).Here })
		if took := time.Since(asked); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if n := len(slotsOf(a)); n < 600 {
			t.Errorf("the others had moved before: %d are left", n)
		}
	})
}

// While the metadata store is away nobody claims anything, and when it is back,
// its leases gone, everybody goes on with what it had.
func TestStoreAway(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b", "d")
		before := c.owners()
		dropped := make(map[*member]int64)
		for _, m := range all {
			dropped[m] = m.logs.dropped.Load()
			m.link.cut()
		}
		time.Sleep(time.Minute)
		for _, m := range all {
			if n := len(slotsOf(m)); n < 200 {
				t.Errorf("%s serves %d slots without the metadata store", m.name, n)
			}
			if coordinator.LeaseValid(m.Coordinator) {
				t.Errorf("%s takes its lease for valid", m.name)
			}
			slot := slotsOf(m)[0]
			began := time.Now()
			if err := m.Prove(t.Context(), slot); !errors.Is(err, coordinator.ErrUnavailable) {
				t.Errorf("%s proves a slot without the metadata store: %v", m.name, err)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("%s takes %v to say that it cannot prove anything", m.name, took)
			}
		}
		if found := keysUnder(t, c.store, "quire/test/node/"); len(found) > 0 {
			t.Fatalf("leases have not ended: %v", found)
		}
		for _, m := range all {
			m.link.heal()
			time.Sleep(time.Second)
		}
		eventually(t, "all are valid again", func() bool {
			for _, m := range all {
				if !coordinator.LeaseValid(m.Coordinator) {
					return false
				}
			}
			return true
		})
		time.Sleep(time.Minute)
		after := c.owners()
		for key, revision := range before {
			if after[key] != revision {
				t.Errorf("%s has changed", key)
			}
		}
		for _, m := range all {
			if m.logs.dropped.Load() != dropped[m] {
				t.Errorf("%s has lost slots", m.name)
			}
			if err := m.Prove(t.Context(), slotsOf(m)[0]); err != nil {
				t.Errorf("%s proves: %v", m.name, err)
			}
		}
	})
}

// A lease that was revoked by hand costs nobody anything.
func TestLeaseRevoked(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b", "d")
		before := c.owners()
		kv, err := c.store.Get(t.Context(), "quire/test/node/2")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.store.Revoke(t.Context(), kv.Lease); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := c.store.Get(t.Context(), kv.Key); err != nil {
			t.Error(err)
		}
		after := c.owners()
		for key, revision := range before {
			if after[key] != revision {
				t.Errorf("%s has changed", key)
			}
		}
		if !coordinator.LeaseValid(all[1].Coordinator) {
			t.Error("the new lease is not valid")
		}
		// Likewise a record that was deleted under a lease that lasts.
		if _, _, err := c.store.Txn(t.Context(), nil, []meta.Op{meta.Delete(kv.Key)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := c.store.Get(t.Context(), kv.Key); err != nil {
			t.Error(err)
		}
	})
}

// A node that is cut off loses its slots to others when its lease ends. Before
// that it stops trusting its memory, and when it is back it knows who has them.
func TestCutOff(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b", "d")
		b := all[1]
		slot := slotsOf(b)[0]
		if err := b.Prove(t.Context(), slot); err != nil {
			t.Fatal(err)
		}
		b.link.cut()
		eventually(t, "others serve the slot", func() bool { return all[0].Route(slot).Here || all[2].Route(slot).Here })
		if !b.Route(slot).Here {
			t.Error("the node knows already")
		}
		if err := b.Prove(t.Context(), slot); !errors.Is(err, coordinator.ErrUnavailable) {
			t.Errorf("the node proves: %v", err)
		}
		// It reaches the metadata store again, but its watches are late.
		answered := make(chan error, 1)
		go func() { answered <- b.Prove(t.Context(), slot) }()
		synctest.Wait()
		b.link.heal()
		if err := <-answered; !errors.Is(err, coordinator.ErrNotOwner) {
			t.Errorf("back again the node proves: %v", err)
		}
		eventually(t, "the node has its share again", func() bool { return c.balanced(all...) })
	})
}

// partial is a connection to the metadata store that works for some keys only.
type partial struct {
	meta.Store
	unlisted atomic.Bool                   // nodes cannot be listed
	deaf     atomic.Pointer[chan struct{}] // not nil: what becomes of slots is not heard until it is closed
}

func (p *partial) List(ctx context.Context, prefix string, f func(meta.KV) bool) (meta.Revision, error) {
	if p.unlisted.Load() && strings.HasSuffix(prefix, "/node/") {
		return 0, meta.ErrUnavailable
	}
	return p.Store.List(ctx, prefix, f)
}

func (p *partial) Watch(ctx context.Context, prefix string, after meta.Revision) <-chan meta.Events {
	from := p.Store.Watch(ctx, prefix, after)
	if !strings.HasSuffix(prefix, "/own/") {
		return from
	}
	to := make(chan meta.Events)
	go func() {
		defer close(to)
		for e := range from {
			if deaf := p.deaf.Load(); deaf != nil {
				select {
				case <-*deaf:
				case <-ctx.Done():
					return
				}
			}
			select {
			case to <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return to
}

// A node that has registered again trusts its memory only when it has learned what it
// still owns, however well its new lease is renewed meanwhile.
func TestRegisteredAgainInPart(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		store := new(partial)
		// The other node gives nothing back before all is looked at.
		a := c.start("a", func(c *coordinator.Config) { c.BalanceDelay = 10 * time.Second })
		b := c.start("b", func(c *coordinator.Config) {
			store.Store = c.Meta
			c.Meta = store
		})
		eventually(t, "both have their share", func() bool { return c.balanced(a, b) })
		slot := slotsOf(b)[0]
		b.link.cut()
		eventually(t, "the other serves the slot", func() bool { return a.Route(slot).Here })
		deaf := make(chan struct{})
		store.deaf.Store(&deaf)
		store.unlisted.Store(true)
		b.link.heal()
		for range 50 {
			time.Sleep(100 * time.Millisecond)
			if _, ok := coordinator.Trusted(b.Coordinator, slot); ok {
				t.Fatal("it answers for a slot that another node has")
			}
		}
		if !b.Route(slot).Here {
			t.Fatal("it has heard of its loss")
		}
		store.unlisted.Store(false)
		eventually(t, "it has learned of its loss", func() bool { return !b.Route(slot).Here })
		close(deaf)
		eventually(t, "both have their share", func() bool { return c.balanced(a, b) })
	})
}

// slow is a store of which each listing takes longer than the time between two renewals.
type slow struct{ meta.Store }

func (s slow) List(ctx context.Context, prefix string, f func(meta.KV) bool) (meta.Revision, error) {
	time.Sleep(1200 * time.Millisecond)
	return s.Store.List(ctx, prefix, f)
}

// A node that takes longer to read all there is than its lease lasts renews it meanwhile.
func TestSlowOpening(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		began := time.Now()
		a := c.start("a", func(c *coordinator.Config) { c.LeaseTTL, c.Meta = 3*time.Second, slow{c.Meta} })
		if took := time.Since(began); took < 3*time.Second {
			t.Fatalf("opened in %s: the test needs more listings", took)
		}
		if !coordinator.LeaseValid(a.Coordinator) {
			t.Error("the lease is not valid")
		}
		eventually(t, "it serves all", func() bool { return c.served(a) })
	})
}

// A clock that is set, or a machine that slept, ends the trust in a lease until
// the next renewal; one set back does not make it longer.
func TestClocks(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		var slept, set atomic.Int64
		start := time.Now()
		a := c.start("a", func(c *coordinator.Config) {
			c.Clock = func() (time.Duration, time.Time) {
				return time.Since(start) + time.Minute + time.Duration(slept.Load()), time.Now().Add(time.Duration(set.Load()))
			}
		})
		synctest.Wait()
		valid := func() bool { synctest.Wait(); return coordinator.LeaseValid(a.Coordinator) }
		if !valid() {
			t.Fatal("the lease is not valid")
		}
		a.link.cut()
		for _, step := range []struct{ slept, set time.Duration }{{0, time.Hour}, {time.Hour, 0}, {9 * time.Second, -time.Hour}} {
			slept.Store(int64(step.slept))
			set.Store(int64(step.set))
			if valid() {
				t.Errorf("the lease is valid after %+v", step)
			}
			slept.Store(0)
			set.Store(0)
			if !valid() {
				t.Errorf("the lease is not valid when %+v was undone", step)
			}
		}
		set.Store(int64(time.Hour))
		a.link.heal()
		time.Sleep(5 * time.Second)
		if !valid() {
			t.Error("the lease is not valid after a renewal")
		}
		set.Store(0)
		time.Sleep(9 * time.Second)
		if !valid() {
			t.Error("the lease is not valid with a clock that was set back")
		}
	})
}

// What was to move while a node did not trust its lease moves as soon as it does again.
func TestMoveAskedForDuringLapse(t *testing.T) {
	// Sleeps are of the clock of the cluster's bubble: they wait for nothing, time passes.
	inCluster(t, func(t *testing.T, c *cluster) {
		var set atomic.Int64
		start := time.Now()
		a := c.start("a", func(c *coordinator.Config) {
			c.Clock = func() (time.Duration, time.Time) {
				return time.Since(start) + time.Minute, time.Now().Add(time.Duration(set.Load()))
			}
		})
		b := c.start("b")
		c.settle(a, b)
		answer := a.link.hold(keepAliveAnswer)
		set.Store(int64(time.Hour))
		if synctest.Wait(); coordinator.LeaseValid(a.Coordinator) {
			t.Fatal("the lease is valid an hour later")
		}
		slot := slotsOf(a)[0]
		if err := b.Override(t.Context(), slot, b.Self().ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if !a.Route(slot).Here {
			t.Fatal("a node that may not own the slot any more has handed it over")
		}
		answer()
		eventually(t, "the slot has moved", func() bool { return b.Route(slot).Here })
	})
}

// A live node keeps its id: another folder's process under its name waits for
// the end of a lease and then says what is wrong.
func TestSameName(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startAll("a")[0]
		began := time.Now()
		other := func(c *coordinator.Config) { c.Node.Folder = "other" }
		if _, err := c.try("a", other); !errors.Is(err, coordinator.ErrReplaced) || !contains(err, "node.name") || !contains(err, "a's folder") {
			t.Errorf("a second process: %v", err)
		}
		if took := time.Since(began); took < 10*time.Second || took > 16*time.Second { // expirySlack after the lease
			t.Errorf("it took %v to say so", took)
		}
		if len(slotsOf(a)) != coordinator.NumSlots || len(a.failed) > 0 {
			t.Error("the first has suffered")
		}
		// One that has crashed leaves its id to another folder after its lease.
		c.kill(a)
		began = time.Now()
		b := c.start("a", other)
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("it took %v to take the place of a crashed one", took)
		}
		eventually(t, "it has all slots", func() bool { return len(slotsOf(b)) == coordinator.NumSlots })
		// The same folder, though, is its next process: the lock of the folder says
		// that the one before is gone. This one lives on and has to be told.
		c.mu.Lock()
		b.dead = true
		c.mu.Unlock()
		began = time.Now()
		d := c.start("a", other)
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v to take the place of the process before", took)
		}
		select {
		case err := <-b.failed:
			if !errors.Is(err, coordinator.ErrReplaced) {
				t.Error(err)
			}
		case <-time.After(time.Second):
			t.Error("the process before does not know that it is over")
		}
		eventually(t, "it has all slots", func() bool { return len(slotsOf(d)) == coordinator.NumSlots })
		if n := len(slotsOf(b)); n > 0 {
			t.Errorf("the process before serves %d slots", n)
		}
	})
}

// A cut-off node whose id another process has taken meanwhile ends.
func TestReplacedWhileCutOff(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startAll("a")[0]
		a.link.cut()
		b := c.start("a", func(c *coordinator.Config) { c.Node.Folder = "other" })
		eventually(t, "the second has all slots", func() bool { return len(slotsOf(b)) == coordinator.NumSlots })
		a.link.heal()
		select {
		case err := <-a.failed:
			if !errors.Is(err, coordinator.ErrReplaced) {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("the first does not know that it is over")
		}
		if err := a.Prove(t.Context(), 0); !errors.Is(err, coordinator.ErrNotOwner) {
			t.Errorf("it proves: %v", err)
		}
	})
}

// Of two nodes that claim a slot at the same moment one has it.
func TestTwoClaimers(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		// Each believes itself alone: neither sees the other's record in time.
		var all []*member
		started := make(chan *member)
		for _, name := range []string{"a", "b", "d"} {
			go func() { started <- c.start(name) }()
		}
		for range 3 {
			all = append(all, <-started)
		}
		eventually(t, "all slots are served", func() bool { return c.balanced(all...) })
	})
}

// A record that nobody can read, or that was deleted, is claimed anew, and the
// epoch does not go back where it is known.
func TestOwnerRecordSpoilt(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b")
		for i, op := range []meta.Op{meta.Put("quire/test/own/0007", []byte("?")), meta.Delete("quire/test/own/0007")} {
			before := all[0].Route(7).Epoch
			if _, _, err := c.store.Txn(t.Context(), nil, []meta.Op{op}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			time.Sleep(2 * time.Second)
			if !c.served(all...) || all[0].Route(7).Epoch <= before {
				t.Errorf("%d: the slot is told as %+v, was in epoch %d", i, all[0].Route(7), before)
			}
		}
	})
}

// A node that had lost a slot and has it again, and learns of both from one listing,
// holds nothing of it from before: somebody else may have opened its logs.
func TestLossBetweenListings(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startAll("a")[0]
		hear := a.link.deafen()
		defer hear()
		kv, err := c.store.Get(t.Context(), "quire/test/own/0007")
		if err != nil {
			t.Fatal(err)
		}
		epoch, dropped := a.Route(7).Epoch, a.logs.dropped.Load()
		theirs := fmt.Sprintf(`{"v":1,"node":9,"inc":"theirs","epoch":%d}`, epoch+1)
		ours := strings.Replace(string(kv.Value), fmt.Sprintf(`"epoch":%d`, epoch), fmt.Sprintf(`"epoch":%d`, epoch+2), 1)
		for _, value := range []string{theirs, ours} {
			if _, _, err := c.store.Txn(t.Context(), nil, []meta.Op{meta.Put(kv.Key, []byte(value))}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(6 * time.Minute)
		if got := a.Route(7); !got.Here || got.Epoch != epoch+2 {
			t.Errorf("the slot is told as %+v, want epoch %d here", got, epoch+2)
		}
		if got := a.logs.dropped.Load(); got != dropped+1 {
			t.Errorf("%d slots were dropped, want 1", got-dropped)
		}
		if a.logs.early.Load() > 0 {
			t.Error("it was dropped while its route said that it is here")
		}
	})
}

// Who waits for a change of routes is woken by it.
func TestRoutesChanged(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startAll("a")[0]
		synctest.Wait()
		changed := a.RoutesChanged()
		select {
		case <-changed:
			t.Fatal("something has changed")
		case <-time.After(time.Hour):
		}
		b := c.start("b")
		for !b.Route(0).Here && !b.Route(1).Here && !b.Route(2).Here && !b.Route(3).Here {
			changed = b.RoutesChanged()
			select {
			case <-changed:
			case <-time.After(time.Minute):
				t.Fatal("no change is told")
			}
		}
	})
}

// A handover that may still happen is not forgotten: the node that could not hand
// its slots over serves them, and asks before it answers, until it has them for certain.
func TestHandoverArrivesLate(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b")
		a, b := all[0], all[1]
		a.link.setFate(func() fate { return fate{lost: true, delay: 25 * time.Second} })
		if err := b.SetDraining(t.Context(), a.Self().ID, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := b.SetDraining(t.Context(), a.Self().ID, false); err != nil {
			t.Fatal(err)
		}
		eventually(t, "all slots are served", func() bool { return c.served(all...) })
		var doubtful []int
		for _, slot := range slotsOf(a) {
			if _, ok := coordinator.Trusted(a.Coordinator, slot); !ok {
				doubtful = append(doubtful, slot)
				if err := a.Prove(t.Context(), slot); err != nil {
					t.Errorf("slot %d: %v", slot, err)
				}
			}
		}
		if len(doubtful) == 0 {
			t.Fatal("nothing was handed over in vain")
		}
		hear := a.link.deafen()
		slot := -1
		eventually(t, "a late transaction has moved slots", func() bool {
			for _, slot = range doubtful {
				if b.Route(slot).Here {
					return true
				}
			}
			return false
		})
		if !a.Route(slot).Here {
			t.Fatal("the old owner has heard of it")
		}
		c.check()
		if err := a.Prove(t.Context(), slot); !errors.Is(err, coordinator.ErrNotOwner) {
			t.Errorf("the old owner proves: %v", err)
		}
		hear()
		a.link.setFate(nil)
		time.Sleep(2 * time.Minute)
		if !c.served(all...) {
			t.Error("not every slot is served")
		}
		for _, slot := range slotsOf(a) {
			if _, ok := coordinator.Trusted(a.Coordinator, slot); !ok {
				t.Errorf("slot %d is in doubt for ever", slot)
			}
		}
	})
}

// A claim that arrives when its node is not registered any more changes nothing.
func TestClaimArrivesLate(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b")
		a, b := all[0], all[1]
		b.link.setFate(func() fate { return fate{lost: true, delay: time.Minute} })
		c.kill(a)
		time.Sleep(15 * time.Second)
		if n := len(c.ended); n != 1 {
			t.Fatalf("%d have ended", n)
		}
		before := c.owners()
		c.kill(b)
		time.Sleep(3 * time.Minute)
		for key, revision := range c.owners() {
			if before[key] != revision {
				t.Errorf("%s has changed", key)
			}
		}
	})
}

// After it has drained and does so no more a node claims as any other.
func TestClaimAfterDraining(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		all := c.startAll("a", "b")
		if err := all[0].Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := all[0].SetDraining(t.Context(), all[0].Self().ID, false); err != nil {
			t.Fatal(err)
		}
		c.kill(all[1])
		eventually(t, "it has all slots", func() bool { return len(slotsOf(all[0])) == coordinator.NumSlots })
	})
}
