package bookkeeper

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/place"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/ledger/ledgertest"
)

// clock is what a tier takes for the time.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	c.mu.Unlock()
}

// state waits until tier sees a bookie in a state.
func (c *cluster) state(tier *Tier, id metadata.BookieID, want metadata.BookieState) {
	c.t.Helper()
	c.await("bookie becomes "+want.String(), func() bool { return tier.members.registry.Get(id).State == want })
}

func TestIdleLedgerLeavesAVanishedBookie(t *testing.T) {
	c := newCluster(t, 4)
	now := newClock()
	tier := c.open(func(cf *Config) { cf.Now = now.Now })
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	bookies, _ := w.ensemble()
	c.store.Unregister(bookies[1])
	c.state(tier, bookies[1], metadata.Vanished)
	tier.tend()
	if after, _ := w.ensemble(); !slices.Equal(after, bookies) {
		t.Fatal("a bookie was replaced as soon as its registration was gone")
	}
	now.add(tier.c.ReplaceAfter + time.Second)
	c.await("the bookie is replaced", func() bool {
		tier.tend()
		after, _ := w.ensemble()
		return !slices.Contains(after, bookies[1])
	})
	if s := c.stored(w.ID()); s.Last().First != 10 || len(s.Segments) != 2 {
		t.Fatalf("segments are %v, want the second to begin at 10", s.Segments)
	}
	c.acknowledged(w, 10, 10)
	c.sealed(w, 20)
}

func TestVanishedBookieThatServesIsKeptIfNobodyReplacesIt(t *testing.T) {
	c := newCluster(t, 3)
	now := newClock()
	tier := c.open(func(cf *Config) { cf.Now = now.Now })
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	c.store.Unregister(c.ids[0])
	c.state(tier, c.ids[0], metadata.Vanished)
	now.add(time.Hour)
	tier.tend()
	c.acknowledged(w, 10, 10)
	c.await("all copies are there", func() bool { return tier.held.Load() == 0 })
	if n := c.replicas(w.ID(), 19); n != 3 {
		t.Fatalf("the last entry has %d copies", n)
	}
	c.sealed(w, 20)
}

// TestBookieThatNobodyRegisteredIsRead: its lease had lapsed before this process came,
// and it serves.
func TestBookieThatNobodyRegisteredIsRead(t *testing.T) {
	c := newCluster(t, 2)
	one := func(cf *Config) { cf.Ensemble = 1 }
	w := c.create(c.open(one))
	c.acknowledged(w, 0, 10)
	c.sealed(w, 10)
	c.store.Unregister(c.stored(w.ID()).Segments[0].Bookies[0])
	r, err := c.open(one).Open(t.Context(), w.ID())
	c.ok(err)
	c.reads(r, 10)
	c.ok(r.Close())
}

func TestNarrowLedgers(t *testing.T) {
	c := newCluster(t, 3)
	now := newClock()
	tier := c.open(func(cf *Config) { cf.Now = now.Now })
	for _, id := range c.ids[1:] {
		c.store.Unregister(id)
		c.state(tier, id, metadata.Vanished)
	}
	if _, err := tier.Create(t.Context(), nil); !errors.Is(err, place.ErrNotEnoughBookies) {
		t.Fatalf("create on fewer bookies than the ack quorum: %v", err)
	}
	c.register(c.ids[1])
	c.state(tier, c.ids[1], metadata.Writable)
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	if s := c.stored(w.ID()); s.Ensemble != 2 || s.WriteQuorum != 2 || s.AckQuorum != 2 {
		t.Fatalf("quorums on two bookies are %d/%d/%d", s.Ensemble, s.WriteQuorum, s.AckQuorum)
	}
	now.add(time.Minute)
	if w.Degraded() {
		t.Fatal("a narrow ledger wants to be replaced where there can be none better")
	}
	c.register(c.ids[2])
	c.state(tier, c.ids[2], metadata.Writable)
	if !w.Degraded() {
		t.Fatal("a narrow ledger does not want to be replaced though all bookies are back")
	}
	c.sealed(w, 10)
}

func TestDegradedLedgerWantsToBeReplaced(t *testing.T) {
	c := newCluster(t, 3)
	now := newClock()
	tier := c.open(func(cf *Config) { cf.Now = now.Now })
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	c.bookies[c.ids[2]].Crash()
	c.acknowledged(w, 10, 10)
	c.await("the writer is degraded", func() bool { _, d := w.ensemble(); return d })
	if w.Degraded() {
		t.Fatal("a ledger wants to be replaced right after it was made")
	}
	now.add(time.Minute)
	c.store.Unregister(c.ids[2])
	c.state(tier, c.ids[2], metadata.Vanished)
	if !w.Degraded() {
		t.Fatal("a degraded ledger does not want to be replaced")
	}
	better := c.create(tier)
	c.acknowledged(better, 0, 10)
	if better.Degraded() {
		t.Fatal("the ledger in its place is no better")
	}
	c.sealed(w, 20)
	c.sealed(better, 10)
}

func TestStrangersAreNotUsed(t *testing.T) {
	c := newCluster(t, 4)
	for i, id := range c.ids {
		instance := "cluster"
		if i == 2 {
			instance = "another"
		}
		c.store.SetCookie(id, metadata.Cookie{BookieHost: string(id), InstanceID: instance})
	}
	tier := c.open(nil)
	for range 10 {
		w := c.create(tier)
		if bookies, _ := w.ensemble(); slices.Contains(bookies, c.ids[2]) {
			t.Fatal("a bookie of another cluster is in an ensemble")
		}
		c.sealed(w, 0)
	}
	late := c.ids[0]
	c.store.Unregister(late)
	c.state(tier, late, metadata.Vanished)
	c.store.SetCookie(late, metadata.Cookie{BookieHost: string(late), InstanceID: "another"})
	c.register(late)
	c.await("it is known that the bookie joined another cluster", func() bool { return tier.members.usable() == 2 })
}

func TestOpenRefuses(t *testing.T) {
	c := newCluster(t, 3)
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no store", func(cf *Config) { cf.Store = nil }, "no metadata store"},
		{"ack quorum above write quorum", func(cf *Config) { cf.WriteQuorum, cf.AckQuorum = 2, 3 }, "ack quorum 3"},
		{"more bookies than there are", func(cf *Config) { cf.Ensemble = 4 }, "ensemble of 4 bookies is impossible, the cluster has 3"},
		{"another cluster", func(cf *Config) { cf.InstanceID = "another" }, "it holds cluster, not another"},
		{"negative", func(cf *Config) { cf.MaxBytes = -1 }, "MaxBytes is -1"},
		{"tiny frames", func(cf *Config) { cf.MaxFrameBytes = 100 }, "MaxFrameBytes is 100"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config := Config{Store: c.store}
			tc.change(&config)
			tier, err := Open(t.Context(), config)
			if err == nil {
				c.ok(tier.Close())
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error is %v, want %q in it", err, tc.want)
			}
		})
	}
	// A bookie that is down has a cookie, and counts.
	for _, id := range c.ids {
		c.store.SetCookie(id, metadata.Cookie{BookieHost: string(id), InstanceID: "cluster"})
	}
	c.store.Unregister(c.ids[0])
	w := c.create(c.open(nil))
	c.acknowledged(w, 0, 1)
	c.sealed(w, 1)
}

func TestQuorumsByProperties(t *testing.T) {
	c := newCluster(t, 4)
	tier := c.open(nil)
	for _, tc := range []struct {
		props ledger.Properties
		want  quorums // none: refused
	}{
		{nil, quorums{3, 3, 2}},
		{ledger.Properties{ledger.PropEnsemble: "4", ledger.PropWriteQuorum: "2", ledger.PropAckQuorum: "1"}, quorums{4, 2, 1}},
		{ledger.Properties{ledger.PropEnsemble: "1"}, quorums{1, 1, 1}},
		{ledger.Properties{ledger.PropAckQuorum: "3"}, quorums{3, 3, 3}},
		{ledger.Properties{ledger.PropAckQuorum: "4"}, quorums{}},
		{ledger.Properties{ledger.PropWriteQuorum: "many"}, quorums{}},
		{ledger.Properties{ledger.PropEnsemble: "1000"}, quorums{}},
	} {
		w, err := tier.Create(t.Context(), tc.props)
		if tc.want == (quorums{}) {
			if err == nil {
				t.Errorf("%v: a ledger was made", tc.props)
			}
			continue
		}
		c.ok(err)
		l := c.stored(w.ID())
		if got := (quorums{l.Ensemble, l.WriteQuorum, l.AckQuorum}); got != tc.want {
			t.Errorf("%v: quorums are %v, want %v", tc.props, got, tc.want)
		}
		c.sealed(w, 0)
	}
}

func TestNoMoreThanMaxBytes(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(func(cf *Config) { cf.MaxBytes = 1000 })
	w := c.create(tier)
	for _, id := range c.ids {
		c.bookies[id].HoldSync()
	}
	rec := ledgertest.NewRecorder()
	for i := range 20 {
		w.Append(&ledger.Append{Body: append(body(i), make([]byte, 80)...), Done: rec})
	}
	for _, id := range c.ids {
		c.bookies[id].ReleaseSync()
	}
	taken := 0
	for i, o := range rec.Wait(20) {
		switch {
		case o.Err == nil && i == taken && o.Entry == int64(i):
			taken++
		case !errors.Is(o.Err, ledger.ErrNoSpace):
			t.Fatalf("append %d became entry %d, error %v", i, o.Entry, o.Err)
		}
	}
	if taken == 0 || taken > 10 {
		t.Fatalf("%d entries were taken, want a few", taken)
	}
	c.await("all copies are there", func() bool { return tier.held.Load() == 0 })
	for i, o := range c.append(w, taken, 5) {
		if o.Err != nil || o.Entry != int64(taken+i) {
			t.Fatalf("append after the shortage became entry %d, error %v", o.Entry, o.Err)
		}
	}
	c.sealed(w, taken+5)
}

// chained appends another entry when it hears of its own.
type chained struct {
	w    ledger.Writer
	next *ledger.Append
	rec  *ledgertest.Recorder
}

func (d chained) Appended(a *ledger.Append, err error) {
	d.w.Append(d.next)
	d.rec.Appended(a, err)
}

// TestNothingOvertakesARefusedAppend: until the caller has heard of it, what comes
// after it is refused too, though there is room again.
func TestNothingOvertakesARefusedAppend(t *testing.T) {
	c := newCluster(t, 1)
	tier := c.open(func(cf *Config) { cf.MaxBytes, cf.Ensemble = 100, 1 })
	w := c.create(tier)
	b := c.bookies[c.ids[0]]
	b.HoldSync()
	rec := ledgertest.NewRecorder()
	w.Append(&ledger.Append{Body: make([]byte, 100), Done: rec})
	w.Append(&ledger.Append{Body: body(1), Done: chained{w, &ledger.Append{Body: body(2), Done: rec}, rec}})
	b.ReleaseSync()
	got := rec.Wait(3)
	if got[0].Err != nil || !errors.Is(got[1].Err, ledger.ErrNoSpace) || !errors.Is(got[2].Err, ledger.ErrNoSpace) {
		t.Fatalf("outcomes are %v, %v, %v", got[0].Err, got[1].Err, got[2].Err)
	}
	c.sealed(w, 1)
}

func TestEntryThatIsTooLong(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(nil)
	w := c.create(tier)
	rec := ledgertest.NewRecorder()
	w.Append(&ledger.Append{Body: make([]byte, tier.MaxEntryBytes()), Done: rec})
	w.Append(&ledger.Append{Body: make([]byte, tier.MaxEntryBytes()+1), Done: rec})
	w.Append(&ledger.Append{Body: body(2), Done: rec})
	got := rec.Wait(3)
	if got[0].Err != nil && !errors.Is(got[0].Err, ledger.ErrFailed) || !errors.Is(got[1].Err, ledger.ErrFailed) || !errors.Is(got[2].Err, ledger.ErrFailed) {
		t.Fatalf("outcomes are %v, %v, %v", got[0].Err, got[1].Err, got[2].Err)
	}
	w = c.create(tier)
	w.Append(&ledger.Append{Body: make([]byte, tier.MaxEntryBytes()), Done: rec})
	if o := rec.Wait(4)[3]; o.Err != nil {
		t.Fatal(o.Err)
	}
	r := w.Reader()
	if _, err := ledgertest.ReadAll(t.Context(), r, 0, 0, 1); err != nil {
		t.Fatal(err)
	}
	c.ok(r.Close())
	c.sealed(w, 1)
}

func TestTierClosesOverSilentBookies(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(func(cf *Config) { cf.CloseTimeout = 10 * time.Millisecond })
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	for _, b := range c.bookies {
		b.Pause()
	}
	rec := ledgertest.NewRecorder()
	for i := range 10 {
		w.Append(&ledger.Append{Body: body(10 + i), Done: rec})
	}
	c.ok(tier.Close())
	for _, o := range rec.Wait(10) {
		if !errors.Is(o.Err, ledger.ErrClosed) {
			t.Fatalf("append under way ended with %v", o.Err)
		}
	}
	for _, b := range c.bookies {
		b.Resume()
	}
	r, err := c.open(nil).Recover(t.Context(), w.ID())
	c.ok(err)
	last, _ := r.Last()
	if last < 9 {
		t.Fatalf("ledger ends at %d, 9 was acknowledged", last)
	}
	c.reads(r, int(last)+1)
	c.ok(r.Close())
}

func TestJanitorMarksWhatLacksReplicas(t *testing.T) {
	c := newCluster(t, 4)
	now := newClock()
	housekeeper := false
	tier := c.open(func(cf *Config) {
		cf.Now = now.Now
		cf.Housekeeper = func() bool { return housekeeper }
		cf.Owns = func(custom map[string][]byte) bool { return custom["foreign"] == nil }
	})
	closed, open := c.create(tier), c.create(tier)
	foreign, err := tier.Create(t.Context(), ledger.Properties{"foreign": "yes", ledger.PropEnsemble: "4"})
	c.ok(err)
	c.acknowledged(foreign, 0, 10)
	c.sealed(foreign, 10)
	c.acknowledged(closed, 0, 10)
	c.acknowledged(open, 0, 10)
	c.sealed(closed, 10)
	lost := c.stored(closed.ID()).Segments[0].Bookies[0]
	c.bookies[lost].Crash()
	c.store.Unregister(lost)
	c.state(tier, lost, metadata.Vanished)
	marks := func() (list []metadata.Mark) {
		c.ok(tier.mark(t.Context()))
		c.ok(c.store.ListUnderReplicated(t.Context(), func(m metadata.Mark) bool { list = append(list, m); return true }))
		return list
	}
	if got := marks(); len(got) != 0 {
		t.Fatalf("marks of a bookie that is away for a moment: %v", got)
	}
	now.add(tier.c.MarkAfter + time.Minute)
	c.await("it is seen that the bookie does not answer", func() bool { return !tier.members.answers(lost) })
	if got := marks(); len(got) != 0 {
		t.Fatalf("one that is not the housekeeper marks: %v", got)
	}
	housekeeper = true
	got := marks()
	if len(got) != 1 || got[0].Ledger != int64(closed.ID()) || !slices.Equal(got[0].Missing, []metadata.BookieID{lost}) {
		t.Fatalf("marks are %v, want ledger %d for %s", got, closed.ID(), lost)
	}
	if n := c.value(tier.metrics.underReplicated); n != 1 {
		t.Fatalf("the gauge says %v", n)
	}
	// A second one, for a moment, changes nothing; and who is none counts all the same.
	before := got[0]
	if got := marks(); len(got) != 1 || !slices.Equal(got[0].Missing, before.Missing) {
		t.Fatalf("marked again: %v", got)
	}
	other := c.open(nil)
	other.c.Housekeeper = func() bool { return false }
	c.ok(other.mark(t.Context()))
	if n := c.value(other.metrics.underReplicated); n != 1 {
		t.Fatalf("the gauge of another process says %v", n)
	}
}

// TestJanitorMarksWhatWasLostBefore: the bookie was gone before this process began, and
// has a cookie all the same.
func TestJanitorMarksWhatWasLostBefore(t *testing.T) {
	c := newCluster(t, 3)
	for _, id := range c.ids {
		c.store.SetCookie(id, metadata.Cookie{BookieHost: string(id), InstanceID: "cluster"})
	}
	w := c.create(c.open(nil))
	c.acknowledged(w, 0, 10)
	c.sealed(w, 10)
	c.bookies[c.ids[0]].Crash()
	c.store.Unregister(c.ids[0])
	now := newClock()
	tier := c.open(func(cf *Config) {
		cf.Now = now.Now
		cf.Owns = func(map[string][]byte) bool { return true }
	})
	marks := func() (n int) {
		c.ok(tier.mark(t.Context()))
		c.ok(c.store.ListUnderReplicated(t.Context(), func(metadata.Mark) bool { n++; return true }))
		return n
	}
	now.add(tier.c.MarkAfter - time.Second)
	if n := marks(); n != 0 {
		t.Fatalf("%d marks of a bookie that may be about to register", n)
	}
	now.add(2 * time.Second)
	marks()
	c.marked(w.ID(), c.ids[0])
}

// TestLedgerThatLostReplicasWantsToBeReplaced: entries from before its ensemble changed
// have fewer copies until it is closed.
func TestLedgerThatLostReplicasWantsToBeReplaced(t *testing.T) {
	c := newCluster(t, 4)
	now := newClock()
	tier := c.open(func(cf *Config) { cf.Now = now.Now })
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	bookies, _ := w.ensemble()
	lost := bookies[0]
	c.bookies[lost].Crash()
	c.acknowledged(w, 10, 10)
	c.await("the bookie is replaced", func() bool {
		in, degraded := w.ensemble()
		return !slices.Contains(in, lost) && !degraded
	})
	c.store.Unregister(lost)
	c.state(tier, lost, metadata.Vanished)
	now.add(tier.c.MarkAfter - time.Second)
	if w.Degraded() {
		t.Fatal("a ledger wants to be replaced for a bookie that may come back")
	}
	now.add(2 * time.Second)
	if !w.Degraded() {
		t.Fatal("a ledger that misses replicas does not want to be replaced")
	}
	next := c.create(tier)
	c.acknowledged(next, 0, 10)
	now.add(time.Minute)
	if next.Degraded() {
		t.Fatal("the ledger in its place is no better")
	}
	c.sealed(w, 20)
	c.sealed(next, 10)
}

// value returns what a gauge or counter says.
func (c *cluster) value(m prometheus.Collector) float64 {
	c.t.Helper()
	reg := prometheus.NewRegistry()
	c.ok(reg.Register(m))
	families, err := reg.Gather()
	c.ok(err)
	got := families[0].GetMetric()[0]
	return got.GetGauge().GetValue() + got.GetCounter().GetValue()
}

func TestMetrics(t *testing.T) {
	c := newCluster(t, 4)
	reg := prometheus.NewRegistry()
	tier := c.open(func(cf *Config) { cf.Registerer = reg })
	if _, err := Open(t.Context(), Config{Store: c.store, Registerer: reg}); err == nil {
		t.Fatal("a second tier registered its metrics beside the first's")
	}
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	bookies, _ := w.ensemble()
	c.bookies[bookies[0]].SetReadOnly(true)
	c.acknowledged(w, 10, 10)
	c.await("the bookie is replaced", func() bool { return c.value(tier.metrics.ensembleChanges) == 1 })
	c.reads(w.Reader(), 20)
	c.await("all copies are there", func() bool { return tier.held.Load() == 0 })
	text := func() string {
		families, err := reg.Gather()
		c.ok(err)
		var b strings.Builder
		for _, f := range families {
			b.WriteString(f.String())
		}
		return b.String()
	}()
	for _, want := range []string{
		"quire_bookie_add_seconds", "quire_bookie_read_seconds", "quire_bookie_outstanding", "quire_bookie_errors_total", `"readonly"`,
		"quire_ledger_ensemble_changes_total", "quire_ledgers_under_replicated", string(bookies[0]),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not among the metrics", want)
		}
	}
	c.sealed(w, 20)
	c.ok(tier.Close())
	families, err := reg.Gather()
	c.ok(err)
	if len(families) != 0 {
		t.Fatalf("%d metrics are left after Close", len(families))
	}
}
