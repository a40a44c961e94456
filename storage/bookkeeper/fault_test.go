package bookkeeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/bookkeeper/bookietest"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/mem"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/ledger/ledgertest"
)

// stored returns a ledger's metadata.
func (c *cluster) stored(id ledger.ID) *metadata.Ledger {
	c.t.Helper()
	l, _, err := c.store.Read(c.t.Context(), int64(id))
	c.ok(err)
	return l
}

// sealed closes w, which must end at count entries.
func (c *cluster) sealed(w ledger.Writer, count int) {
	c.t.Helper()
	s, err := w.Close(c.t.Context())
	c.ok(err)
	if s.LastEntry != int64(count)-1 {
		c.t.Fatalf("sealed at %d, want %d", s.LastEntry, count-1)
	}
}

// replicas returns which bookies of the cluster hold an entry.
func (c *cluster) replicas(id ledger.ID, entry int64) int {
	n := 0
	for _, b := range c.bookies {
		if b.Stored(int64(id), entry) != nil {
			n++
		}
	}
	return n
}

// marked waits until a ledger is marked as one that lacks the replicas of a bookie.
func (c *cluster) marked(id ledger.ID, missing metadata.BookieID) {
	c.t.Helper()
	c.await("the ledger is marked under-replicated", func() bool {
		marked := false
		c.ok(c.store.ListUnderReplicated(c.t.Context(), func(m metadata.Mark) bool {
			marked = m.Ledger == int64(id) && slices.Equal(m.Missing, []metadata.BookieID{missing})
			return true
		}))
		return marked
	})
}

func TestBookieDiesAndNobodyReplacesIt(t *testing.T) {
	c := newCluster(t, 3)
	now := newClock()
	tier := c.open(func(cf *Config) { cf.Now = now.Now })
	w := c.create(tier)
	c.acknowledged(w, 0, 50)
	dead := c.bookies[c.ids[0]]
	dead.Crash()
	c.acknowledged(w, 50, 50)
	c.await("the writer is degraded", func() bool { _, d := w.ensemble(); return d })
	c.reads(w.Reader(), 100)
	c.ok(dead.Restart())
	c.await("the bookie is used again", func() bool {
		now.add(time.Second) // its quarantine ends some time
		tier.tend()
		_, degraded := w.ensemble()
		return !degraded
	})
	c.acknowledged(w, 100, 50)
	c.sealed(w, 150)
	if s := c.stored(w.ID()); len(s.Segments) != 1 {
		t.Fatalf("ledger has %d segments, want one", len(s.Segments))
	}
	c.marked(w.ID(), c.ids[0])
}

func TestBookieDiesAndASpareReplacesIt(t *testing.T) {
	for _, q := range []quorums{{3, 3, 2}, {3, 2, 2}, {3, 3, 3}} {
		t.Run(fmt.Sprint(q), func(t *testing.T) {
			c := newCluster(t, 5)
			tier := c.open(func(cf *Config) { cf.Ensemble, cf.WriteQuorum, cf.AckQuorum = q.ensemble, q.write, q.ack })
			w := c.create(tier)
			c.acknowledged(w, 0, 50)
			for round := range q.write - 1 {
				bookies, _ := w.ensemble()
				dead := bookies[round]
				c.bookies[dead].Crash()
				c.acknowledged(w, 50+50*round, 50)
				c.await("the bookie is replaced", func() bool {
					now, _ := w.ensemble()
					return !slices.Contains(now, dead)
				})
			}
			count := 50 * q.write
			c.acknowledged(w, count, 10)
			count += 10
			c.sealed(w, count)
			if s := c.stored(w.ID()); len(s.Segments) < 2 {
				t.Fatalf("ledger has %d segments, want more", len(s.Segments))
			}
			// The dead are gone for good: what is left is enough.
			r, err := c.open(nil).Open(t.Context(), w.ID())
			c.ok(err)
			c.reads(r, count)
			c.ok(r.Close())
		})
	}
}

func TestAllBookiesDieInMidWrite(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(nil)
	w := c.create(tier)
	rec := ledgertest.NewRecorder()
	crashed := make(chan struct{})
	count := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for left := 100; left > 0; count++ {
			select {
			case <-crashed:
				left--
			default:
			}
			w.Append(&ledger.Append{Body: body(count), Done: rec})
			rec.Wait(count - 3000)
		}
	})
	rec.Wait(100)
	for _, b := range c.bookies {
		b.Crash()
	}
	close(crashed)
	wg.Wait()
	acked := 0
	for _, o := range rec.Wait(count) {
		if o.Err == nil {
			acked++
		} else if !errors.Is(o.Err, ledger.ErrFailed) {
			t.Fatalf("append failed with %v", o.Err)
		}
	}
	for _, b := range c.bookies {
		c.ok(b.Restart())
	}
	_, err := w.Close(t.Context())
	if !errors.Is(err, ledger.ErrFailed) {
		t.Fatalf("a failed writer closed with %v", err)
	}
	r, err := tier.Recover(t.Context(), w.ID())
	c.ok(err)
	last, _ := r.Last()
	if last < int64(acked)-1 {
		t.Fatalf("%d entries were acknowledged, the ledger ends at %d", acked, last)
	}
	// Its writer may have sealed it, without a bookie, and none is dialed again yet.
	c.await("the bookies are heard from again", func() bool {
		_, err := ledgertest.ReadAll(t.Context(), r, 0, last, 1<<20)
		return err == nil
	})
	c.reads(r, int(last)+1)
	c.ok(r.Close())
}

// TestSettledBeforeItIsRecovered: what failed is in the ledger or out of it for ever
// once Recover has returned, whatever bookies still get and answer.
func TestSettledBeforeItIsRecovered(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(func(cf *Config) { cf.AddTimeout = time.Second })
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	for _, id := range c.ids[1:] {
		c.bookies[id].HoldSync()
	}
	for _, o := range c.append(w, 10, 10) {
		if !errors.Is(o.Err, ledger.ErrFailed) {
			t.Fatalf("append without an ack quorum ended with %v", o.Err)
		}
	}
	for _, id := range c.ids[1:] {
		c.bookies[id].ReleaseSync()
	}
	c.recovered(tier, w.ID(), 10)
	c.recovered(c.open(nil), w.ID(), 10)
}

func TestSlowBookieDelaysNobody(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(nil)
	w := c.create(tier)
	slow := c.bookies[c.ids[1]]
	slow.Pause()
	c.acknowledged(w, 0, 200)
	if w.t.held.Load() == 0 {
		t.Fatal("payloads are not kept for the bookie that has not answered")
	}
	slow.Resume()
	c.await("the slow bookie has answered", func() bool { return tier.held.Load() == 0 })
	for e := range int64(200) {
		if n := c.replicas(w.ID(), e); n != 3 {
			t.Fatalf("entry %d has %d copies", e, n)
		}
	}
	c.sealed(w, 200)
}

func TestStalledBookieIsGivenUp(t *testing.T) {
	c := newCluster(t, 4)
	tier := c.open(func(cf *Config) { cf.AddTimeout = time.Second })
	w := c.create(tier)
	bookies, _ := w.ensemble()
	c.bookies[bookies[2]].Pause()
	c.acknowledged(w, 0, 10)
	c.await("the bookie is replaced", func() bool {
		now, _ := w.ensemble()
		return !slices.Contains(now, bookies[2]) && tier.held.Load() == 0
	})
	c.acknowledged(w, 10, 10)
	c.sealed(w, 20)
	c.bookies[bookies[2]].Resume()
}

// patient makes adds wait for as long as it takes, and hold nothing up for long.
func patient(cf *Config) { cf.AddTimeout, cf.StallAfter = time.Hour, 50*time.Millisecond }

// TestStalledBookieIsLeftByANarrowLedger: an ack quorum needs the bookie, and a spare
// takes its place long before an add to it fails.
func TestStalledBookieIsLeftByANarrowLedger(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(func(cf *Config) {
		patient(cf)
		cf.Ensemble = 2
	})
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	bookies, _ := w.ensemble()
	stalled := c.bookies[bookies[1]]
	stalled.Pause()
	c.acknowledged(w, 10, 10)
	if now, _ := w.ensemble(); slices.Contains(now, bookies[1]) {
		t.Fatalf("entries were acknowledged without a change of %v", now)
	}
	c.sealed(w, 20)
	stalled.Resume()
	r, err := tier.Open(t.Context(), w.ID())
	c.ok(err)
	c.reads(r, 20)
	c.ok(r.Close())
}

// TestStalledBookieEndsALedgerThatNeedsIt: nobody can take its place, and another
// ledger does without it.
func TestStalledBookieEndsALedgerThatNeedsIt(t *testing.T) {
	c := newCluster(t, 4)
	tier := c.open(func(cf *Config) {
		patient(cf)
		cf.Ensemble, cf.WriteQuorum, cf.AckQuorum = 4, 2, 2
	})
	w := c.create(tier)
	c.acknowledged(w, 0, 8)
	bookies, _ := w.ensemble()
	stalled := c.bookies[bookies[1]]
	stalled.Pause()
	acked := 8
	for _, o := range c.append(w, 8, 8) {
		switch {
		case o.Err == nil:
			acked++
		case !errors.Is(o.Err, ledger.ErrFailed):
			t.Fatalf("append without an ack quorum ended with %v", o.Err)
		}
	}
	if acked == 16 {
		t.Fatal("all entries were acknowledged by a bookie that stands still")
	}
	next := c.create(tier)
	c.acknowledged(next, 0, 10)
	c.sealed(next, 10)
	stalled.Resume()
	c.recovered(tier, w.ID(), acked)
}

// TestAllBookiesStall: no ledger is better than another, and all go on afterwards.
func TestAllBookiesStall(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(func(cf *Config) {
		patient(cf)
		cf.AckQuorum = 3
	})
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	for _, b := range c.bookies {
		b.Pause()
	}
	rec := ledgertest.NewRecorder()
	for i := 10; i < 20; i++ {
		w.Append(&ledger.Append{Body: body(i), Done: rec})
	}
	c.await("all are told of", func() bool { return tier.members.usable() == 0 })
	for _, b := range c.bookies {
		b.Resume()
	}
	for i, o := range rec.Wait(10) {
		if o.Err != nil || o.Entry != int64(10+i) {
			t.Fatalf("append %d became entry %d, error %v", 10+i, o.Entry, o.Err)
		}
	}
	c.sealed(w, 20)
	if s := c.stored(w.ID()); len(s.Segments) != 1 {
		t.Fatalf("ledger has %d segments, want one", len(s.Segments))
	}
}

// TestRecoveryLeavesAStalledBookie: it needs an ack quorum, and need not wait for
// this one.
func TestRecoveryLeavesAStalledBookie(t *testing.T) {
	c := newCluster(t, 3)
	narrow := func(cf *Config) {
		patient(cf)
		cf.Ensemble = 2
	}
	w := c.create(c.open(narrow))
	c.acknowledged(w, 0, 10)
	bookies, _ := w.ensemble()
	c.bookies[bookies[0]].Pause()
	c.recovered(c.open(narrow), w.ID(), 10)
	c.bookies[bookies[0]].Resume()
}

// TestRecoveryMarksWhatItCouldNotCopy: nobody else would notice, the bookie being there.
func TestRecoveryMarksWhatItCouldNotCopy(t *testing.T) {
	c := newCluster(t, 3)
	w := c.create(c.open(nil))
	c.acknowledged(w, 0, 10) // the last one is read and added again by a recovery
	adds := func(r wire.Request) bool { return r.Op == wire.OpAdd }
	goOn := make(chan struct{})
	for _, id := range c.ids[1:] {
		c.bookies[id].Inject(bookietest.Fault{Match: adds, Until: goOn})
	}
	c.bookies[c.ids[0]].Inject(bookietest.Fault{Match: adds, Code: wire.IOError})
	tier := c.open(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.recovered(tier, w.ID(), 10)
	}()
	c.await("the recovery goes on without the bookie", func() bool {
		lacking := make(chan int, 1)
		for _, r := range tier.openRecoveries() {
			r.post(func() { lacking <- len(r.lacking) }, func() { lacking <- 0 })
			return <-lacking == 1
		}
		return false
	})
	close(goOn)
	<-done
	c.marked(w.ID(), c.ids[0])
}

func TestReadOnlyBookieIsReplaced(t *testing.T) {
	c := newCluster(t, 4)
	tier := c.open(nil)
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	bookies, _ := w.ensemble()
	c.bookies[bookies[0]].SetReadOnly(true)
	c.acknowledged(w, 10, 10)
	c.await("the bookie is replaced", func() bool {
		now, _ := w.ensemble()
		return !slices.Contains(now, bookies[0])
	})
	c.sealed(w, 20)
	r, err := tier.Open(t.Context(), w.ID())
	c.ok(err)
	c.reads(r, 20)
	c.ok(r.Close())
}

// TestBookiesThatRefuseDoNotReplaceEachOther: with too few that take entries the
// ledger ends, and does not go round.
func TestBookiesThatRefuseDoNotReplaceEachOther(t *testing.T) {
	c := newCluster(t, 5)
	tier := c.open(nil)
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	bookies, _ := w.ensemble()
	for _, id := range c.ids {
		c.bookies[id].SetReadOnly(id != bookies[0])
	}
	for _, o := range c.append(w, 10, 10) {
		if !errors.Is(o.Err, ledger.ErrFailed) {
			t.Fatalf("append without an ack quorum ended with %v", o.Err)
		}
	}
	c.recovered(tier, w.ID(), 10)
}

func TestCorruptCopyIsReadElsewhere(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(nil)
	w := c.create(tier)
	c.acknowledged(w, 0, 20)
	c.await("all copies are there", func() bool { return tier.held.Load() == 0 })
	c.sealed(w, 20)
	for e := range int64(20) {
		if !c.bookies[c.ids[e%3]].Corrupt(int64(w.ID()), e) || !c.bookies[c.ids[(e+1)%3]].Corrupt(int64(w.ID()), e) {
			t.Fatal("nothing to corrupt")
		}
	}
	r := w.Reader()
	c.reads(r, 20)
	bad := 0
	c.ok(tier.Verify(t.Context(), w.ID(), 0, 100, func(entry int64, copies []Copy) bool {
		for _, k := range copies {
			if errors.Is(k.Err, wire.ErrCorrupt) {
				bad++
			} else if k.Err != nil || k.PayloadBytes != len(body(int(entry))) {
				t.Errorf("copy of entry %d on %s: %+v", entry, k.Bookie, k)
			}
		}
		return true
	}))
	if bad != 40 {
		t.Fatalf("verification finds %d bad copies, want 40", bad)
	}
	c.bookies[c.ids[(7+2)%3]].Corrupt(int64(w.ID()), 7)
	e, err := r.Read(t.Context(), 0, 19, 1<<20)
	c.ok(err)
	if len(e.Data) != 7 {
		t.Fatalf("read %d entries before the one that is corrupt everywhere, want 7", len(e.Data))
	}
	e.Release()
	if _, err := r.Read(t.Context(), 7, 19, 1<<20); !errors.Is(err, ledger.ErrCorrupt) {
		t.Fatalf("read of an entry that is corrupt everywhere: %v", err)
	}
	c.ok(r.Close())
}

func TestSilentCopyIsReadElsewhere(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(func(cf *Config) { cf.MinSpeculative = time.Millisecond })
	w := c.create(tier)
	c.acknowledged(w, 0, 20)
	c.sealed(w, 20)
	r := w.Reader()
	for _, id := range c.ids {
		c.bookies[id].Pause()
		c.reads(r, 20)
		c.bookies[id].Resume()
	}
	c.ok(r.Close())
}

func TestBookiesWithoutBatchRead(t *testing.T) {
	c := newCluster(t, 0)
	for range 3 {
		c.add(bookietest.Config{NoBatchRead: true})
	}
	tier := c.open(nil)
	w := c.create(tier)
	c.acknowledged(w, 0, 100)
	r := w.Reader()
	c.reads(r, 100)
	batches := func() int {
		n := 0
		for _, b := range c.bookies {
			n += b.Requests(func(r wire.Request) bool { return r.Op == wire.OpBatchRead })
		}
		return n
	}
	tried := batches()
	c.reads(r, 100)
	if n := batches(); n != tried || tried > 3 {
		t.Fatalf("%d batch reads at first and %d later, of bookies that know none", tried, n-tried)
	}
	c.ok(r.Close())
}

// TestLimbo: a bookie that does not know what it had is no witness of absence.
func TestLimbo(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(nil)
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	c.await("all copies are there", func() bool { return tier.held.Load() == 0 })
	c.bookies[c.ids[0]].SetLimbo(true)
	for _, id := range c.ids[:2] {
		c.bookies[id].Lose(int64(w.ID()), 9)
	}
	// One has entry 9, one may have it: it is recovered. Two have no entry 10.
	c.recovered(c.open(nil), w.ID(), 10)

	w = c.create(tier)
	c.acknowledged(w, 0, 10)
	c.await("all copies are there", func() bool { return tier.held.Load() == 0 })
	for _, id := range c.ids {
		c.bookies[id].SetLimbo(true)
		c.bookies[id].Lose(int64(w.ID()), 9)
	}
	if _, err := tier.Recover(t.Context(), w.ID()); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("recovery without a witness ended with %v", err)
	}
	if s := c.stored(w.ID()); s.State != metadata.InRecovery {
		t.Fatalf("ledger is %v, want it to wait for another recovery", s.State)
	}
	for _, id := range c.ids {
		c.bookies[id].SetLimbo(false)
	}
	c.recovered(tier, w.ID(), 9) // now they say that it is not there, which is on them
}

// TestReplicationWorkerEditsTheLedger: older segments change under a writer that
// changes the last one, and under one that closes.
func TestReplicationWorkerEditsTheLedger(t *testing.T) {
	c := newCluster(t, 5)
	tier := c.open(nil)
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	count := 10
	change := func() {
		bookies, _ := w.ensemble()
		c.bookies[bookies[0]].SetReadOnly(true)
		c.acknowledged(w, count, 10)
		count += 10
		c.await("the bookie is replaced", func() bool {
			now, _ := w.ensemble()
			return !slices.Contains(now, bookies[0])
		})
		c.bookies[bookies[0]].SetReadOnly(false)
	}
	edit := func() metadata.Segment {
		l, v, err := c.store.Read(t.Context(), int64(w.ID()))
		c.ok(err)
		for _, id := range c.ids {
			if !slices.Contains(l.Segments[0].Bookies, id) {
				l.Segments[0].Bookies[0] = id
				break
			}
		}
		_, err = c.store.Update(t.Context(), l, v)
		c.ok(err)
		return l.Segments[0]
	}
	change()
	want := edit()
	change()
	if got := c.stored(w.ID()).Segments; !slices.Equal(got[0].Bookies, want.Bookies) || len(got) < 2 {
		t.Fatalf("segments are %v, the worker's %v is lost", got, want)
	}
	want = edit()
	c.sealed(w, 30)
	if got := c.stored(w.ID()).Segments; !slices.Equal(got[0].Bookies, want.Bookies) || len(got) < 2 {
		t.Fatalf("segments are %v, the worker's %v is lost", got, want)
	}
}

// TestReaderFollowsTheLedger: bookies have left a ledger that a reader has open.
func TestReaderFollowsTheLedger(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(func(cf *Config) { cf.Ensemble = 1 })
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	c.sealed(w, 10)
	r, err := tier.Open(t.Context(), w.ID())
	c.ok(err)
	l, v, err := c.store.Read(t.Context(), int64(w.ID()))
	c.ok(err)
	old := c.bookies[l.Segments[0].Bookies[0]]
	for _, id := range c.ids {
		if id != l.Segments[0].Bookies[0] {
			l.Segments[0].Bookies[0] = id
			break
		}
	}
	other := c.open(func(cf *Config) { cf.Ensemble = 1 })
	for e := range int64(10) {
		c.copyEntry(other, l, e)
	}
	_, err = c.store.Update(t.Context(), l, v)
	c.ok(err)
	old.Wipe()
	c.reads(r, 10)
	c.ok(r.Close())
	_, err = r.Read(t.Context(), 0, 0, 1)
	if !errors.Is(err, ledger.ErrClosed) {
		t.Fatal(err)
	}
}

func TestMetadataStoreIsAwayDuringAnEnsembleChange(t *testing.T) {
	c := newCluster(t, 4)
	tier := c.open(nil)
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	away := make(chan struct{})
	tried := make(chan struct{}, 100)
	c.store.SetFaults(mem.Faults{Before: failing(away, tried, mem.Update, metadata.ErrUnavailable)})
	bookies, _ := w.ensemble()
	c.bookies[bookies[0]].Crash()
	// Until its failure is noticed the others acknowledge what comes.
	rec := ledgertest.NewRecorder()
	for i := 10; i < 20; i++ {
		w.Append(&ledger.Append{Body: body(i), Done: rec})
	}
	<-tried
	for i := 20; i < 40; i++ {
		w.Append(&ledger.Append{Body: body(i), Done: rec})
	}
	<-tried
	<-tried
	if n := len(rec.Outcomes()); n > 10 {
		t.Fatalf("%d entries were acknowledged before it was late", n-10)
	}
	close(away)
	for i, o := range rec.Wait(30) {
		if o.Err != nil || o.Entry != int64(10+i) {
			t.Fatalf("append %d became entry %d, error %v", i, o.Entry, o.Err)
		}
	}
	c.sealed(w, 40)
}

// TestMetadataStoreIsAwayForLongDuringAnEnsembleChange: the bookies that stay are an ack
// quorum, and writing goes on. The one that came in late has its replicas made.
func TestMetadataStoreIsAwayForLongDuringAnEnsembleChange(t *testing.T) {
	c := newCluster(t, 4)
	tier := c.open(func(cf *Config) { cf.storeDelay = 10 * time.Millisecond })
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	away := make(chan struct{})
	tried := make(chan struct{}, 1000)
	c.store.SetFaults(mem.Faults{Before: failing(away, tried, mem.Update, metadata.ErrUnavailable)})
	bookies, _ := w.ensemble()
	c.bookies[bookies[0]].Crash()
	c.acknowledged(w, 10, 10)
	<-tried
	c.acknowledged(w, 20, 20)
	if now, _ := w.ensemble(); !slices.Equal(now, bookies) {
		t.Fatalf("the ensemble became %v though that was not stored", now)
	}
	close(away)
	c.await("the bookie is replaced", func() bool {
		now, _ := w.ensemble()
		return !slices.Contains(now, bookies[0])
	})
	c.acknowledged(w, 40, 10)
	c.sealed(w, 50)
	r, err := c.open(nil).Open(t.Context(), w.ID())
	c.ok(err)
	c.reads(r, 50)
	c.ok(r.Close())
	segments := c.stored(w.ID()).Segments
	c.marked(w.ID(), segments[len(segments)-1].Bookies[0])
}

func TestMetadataStoreIsAwayDuringClose(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(nil)
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	// The answers to changes that were made are lost for a while.
	away := make(chan struct{})
	tried := make(chan struct{}, 100)
	c.store.SetFaults(mem.Faults{After: failing(away, tried, mem.Update, metadata.ErrUnknownOutcome)})
	done := make(chan error, 1)
	go func() {
		_, err := w.Close(t.Context())
		done <- err
	}()
	<-tried
	<-tried
	close(away)
	c.ok(<-done)
	c.sealed(w, 10)
}

// TestCloseThatIsGivenUp: a writer whose Close ran out of time is forgotten all the
// same once its ledger's end is decided.
func TestCloseThatIsGivenUp(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(nil)
	w := c.create(tier)
	c.acknowledged(w, 0, 3)
	away := make(chan struct{})
	tried := make(chan struct{}, 100)
	c.store.SetFaults(mem.Faults{After: failing(away, tried, mem.Update, metadata.ErrUnknownOutcome)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("close: %v", err)
	}
	<-tried
	if n := len(tier.openWriters()); n != 1 {
		t.Fatalf("%d writers are open", n)
	}
	close(away)
	c.await("the writer's end", func() bool { return len(tier.openWriters()) == 0 })
	if s, err := w.Close(t.Context()); err != nil || s.LastEntry != 2 {
		t.Fatalf("closed again: %+v, %v", s, err)
	}
}

func TestTwoRecoveriesRaceALiveWriter(t *testing.T) {
	c := newCluster(t, 4)
	tier := c.open(nil)
	others := []*Tier{c.open(nil), c.open(nil)}
	for round := range 30 {
		w := c.create(tier)
		rec := ledgertest.NewRecorder()
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				w.Append(&ledger.Append{Body: body(i), Done: rec})
				rec.Wait(i - 20)
			}
		})
		rec.Wait(5 * round)
		bookies, _ := w.ensemble()
		troubled := c.bookies[bookies[0]]
		troubled.SetReadOnly(round%3 == 0)
		ends := make([]int64, len(others))
		var racers sync.WaitGroup
		for i, other := range others {
			racers.Go(func() {
				r, err := other.Recover(t.Context(), w.ID())
				if err != nil {
					t.Errorf("recovery: %v", err)
					return
				}
				ends[i], _ = r.Last()
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		racers.Wait()
		troubled.SetReadOnly(false)
		close(stop)
		wg.Wait()
		if t.Failed() {
			return
		}
		if ends[0] != ends[1] {
			t.Fatalf("two recoveries end at %d and %d", ends[0], ends[1])
		}
		_, _ = w.Close(t.Context())
		for i, o := range rec.Outcomes() {
			if o.Err == nil && o.Entry > ends[0] {
				t.Fatalf("entry %d was acknowledged, the ledger ends at %d", i, ends[0])
			}
		}
		c.recovered(tier, w.ID(), int(ends[0])+1)
	}
}
