package bookkeeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/quirelog/quire/storage/bookkeeper/bookie"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/mem"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/ledger/ledgertest"
)

// TestDigestsAndPasswords: ledgers of all kinds are read and recovered by whoever
// has the metadata, with whatever configuration.
func TestDigestsAndPasswords(t *testing.T) {
	for _, digest := range []metadata.Digest{metadata.CRC32, metadata.HMAC, metadata.CRC32C, metadata.Dummy} {
		for _, password := range []string{"", "secret"} {
			t.Run(fmt.Sprintf("%v %q", digest, password), func(t *testing.T) {
				c := newCluster(t, 3)
				tier := c.open(func(cf *Config) { cf.Digest, cf.Password = digest, []byte(password) })
				sealed, left := c.create(tier), c.create(tier)
				c.acknowledged(sealed, 0, 20)
				c.sealed(sealed, 20)
				c.acknowledged(left, 0, 20)
				other := c.open(nil)
				r, err := other.Open(t.Context(), sealed.ID())
				c.ok(err)
				c.reads(r, 20)
				c.ok(r.Close())
				c.recovered(other, left.ID(), 20)
			})
		}
	}
}

// TestOpenOfALedgerWrittenElsewhere sees what is acknowledged, and neither what is
// not nor what its writer cannot know to be.
func TestOpenOfALedgerWrittenElsewhere(t *testing.T) {
	c := newCluster(t, 3)
	tier, other := c.open(nil), c.open(nil)
	w := c.create(tier)
	check := func(want int) {
		t.Helper()
		r, err := other.Open(t.Context(), w.ID())
		c.ok(err)
		if last, sealed := r.Last(); last != int64(want)-1 || sealed {
			t.Fatalf("ledger ends at %d, sealed %v, want %d", last, sealed, want-1)
		}
		c.reads(r, want)
		c.ok(r.Close())
	}
	check(0)
	c.acknowledged(w, 0, 10)
	check(10)
	c.await("all copies are there", func() bool { return tier.held.Load() == 0 })
	for _, id := range c.ids[:2] {
		if !c.bookies[id].Lose(int64(w.ID()), 9) {
			t.Fatal("nothing to lose")
		}
	}
	check(9)
	c.acknowledged(w, 10, 1) // its header says that 9 is acknowledged
	if r, err := other.Open(t.Context(), w.ID()); err != nil {
		t.Fatal(err)
	} else if last, _ := r.Last(); last != 10 {
		t.Fatalf("ledger ends at %d, want 10", last)
	} else {
		c.ok(r.Close())
	}
	c.acknowledged(w, 11, 1)
	c.await("all copies are there", func() bool { return tier.held.Load() == 0 })
	if c.bookies[c.ids[0]].Fenced(int64(w.ID())) {
		t.Fatal("opening fenced the ledger")
	}
	c.bookies[c.ids[0]].SetLimbo(true)
	c.bookies[c.ids[1]].SetLimbo(true)
	c.bookies[c.ids[0]].Wipe()
	c.bookies[c.ids[1]].Wipe()
	if _, err := other.Open(t.Context(), w.ID()); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("opened where two of three bookies do not know: %v", err)
	}
}

// TestLedgersOfOthers: one that AutoRecovery has left IN_RECOVERY, one whose metadata
// are of a newer version, one that was damaged, one with another client's gaps.
func TestLedgersOfOthers(t *testing.T) {
	c := newCluster(t, 3)
	tier, other := c.open(nil), c.open(nil)
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	l, v, err := c.store.Read(t.Context(), int64(w.ID()))
	c.ok(err)
	l.State = metadata.InRecovery
	_, err = c.store.Update(t.Context(), l, v)
	c.ok(err)
	c.bookies[c.ids[0]].Crash() // nobody could replace it
	c.recovered(other, w.ID(), 10)

	c.store.Put(1000, []byte("BookieMetadataFormatVersion\t4\nof which nobody knows"))
	c.store.Put(1001, []byte("not metadata at all"))
	for id, want := range map[ledger.ID]error{1000: metadata.ErrNewerVersion, 1001: ledger.ErrCorrupt} {
		for what, f := range map[string]func() (ledger.Reader, error){
			"open":    func() (ledger.Reader, error) { return tier.Open(t.Context(), id) },
			"recover": func() (ledger.Reader, error) { return tier.Recover(t.Context(), id) },
		} {
			if _, err := f(); !errors.Is(err, want) {
				t.Errorf("%s of ledger %d: %v, want %v", what, id, err, want)
			}
		}
	}
	listed := 0
	c.ok(tier.List(t.Context(), func(i ledger.Info) bool { listed++; return true }))
	if listed != 3 {
		t.Fatalf("%d ledgers are listed, want 3", listed)
	}
}

// TestDeletedUnderAReader: by another process, and the bookies have dropped it.
func TestDeletedUnderAReader(t *testing.T) {
	c := newCluster(t, 3)
	tier, other := c.open(nil), c.open(nil)
	w := c.create(tier)
	c.acknowledged(w, 0, 10)
	c.await("all copies are there", func() bool { return tier.held.Load() == 0 })
	c.sealed(w, 10)
	r, err := tier.Open(t.Context(), w.ID())
	c.ok(err)
	c.ok(other.Delete(t.Context(), w.ID()))
	c.reads(r, 10)
	for _, b := range c.bookies {
		b.CollectGarbage(func(int64) bool { return false })
	}
	if _, err := r.Read(t.Context(), 0, 9, 100); !errors.Is(err, ledger.ErrNotFound) {
		t.Fatalf("read of a ledger that was deleted: %v", err)
	}
	c.ok(r.Close())
	if _, err := tier.Open(t.Context(), w.ID()); !errors.Is(err, ledger.ErrNotFound) {
		t.Fatalf("open of a ledger that was deleted: %v", err)
	}
}

// TestRecoveryOfLongEntries: more of them than a recovery holds at a time.
func TestRecoveryOfLongEntries(t *testing.T) {
	c := newCluster(t, 3)
	tier := c.open(nil)
	w := c.create(tier)
	rec := ledgertest.NewRecorder()
	long := make([]byte, 4<<20)
	for range 10 {
		w.Append(&ledger.Append{Body: long, Done: rec})
	}
	for _, o := range rec.Wait(10) {
		c.ok(o.Err)
	}
	r, err := c.open(nil).Recover(t.Context(), w.ID())
	c.ok(err)
	if last, _ := r.Last(); last != 9 {
		t.Fatalf("ledger ends at %d, want 9", last)
	}
	all, err := ledgertest.ReadAll(t.Context(), r, 0, 9, 1<<20)
	c.ok(err)
	for i := range all {
		if !bytes.Equal(all[i], long) {
			t.Fatalf("entry %d has other bytes", i)
		}
	}
	c.ok(r.Close())
}

// TestLongRecovery: a writer of another kind never said how far it was acknowledged.
func TestLongRecovery(t *testing.T) {
	const count = 2000
	c := newCluster(t, 3)
	tier := c.open(nil)
	meta := c.silentLedger(tier, count)
	r, err := tier.Recover(t.Context(), ledger.ID(meta.ID))
	c.ok(err)
	all, err := ledgertest.ReadAll(t.Context(), r, 0, count-1, 1<<20)
	c.ok(err)
	for i := range all {
		if !bytes.Equal(all[i], body(i)) {
			t.Fatalf("entry %d is %q", i, all[i])
		}
	}
	if last, _ := r.Last(); last != count-1 || len(all) != count {
		t.Fatalf("ledger ends at %d, %d entries are read, want %d", last, len(all), count)
	}
	c.ok(r.Close())
}

// silentLedger makes an open ledger whose entries all say that none is acknowledged.
func (c *cluster) silentLedger(tier *Tier, count int) *metadata.Ledger {
	c.t.Helper()
	meta := &metadata.Ledger{
		ID: metadata.NoID, Ensemble: 3, WriteQuorum: 3, AckQuorum: 2, State: metadata.Open, LastEntry: metadata.NoEntry,
		Digest: metadata.CRC32C, Segments: []metadata.Segment{{Bookies: c.ids}},
	}
	_, err := c.store.Create(c.t.Context(), meta)
	c.ok(err)
	codec, err := wire.NewCodec(meta.ID, meta.Digest, meta.Password)
	c.ok(err)
	done := make(added, 3*count)
	length := int64(0)
	for i := range count {
		length += int64(len(body(i)))
		p := bookie.NewPacket(codec, 0, int64(i), metadata.NoEntry, length, nil, body(i), nil)
		for _, id := range c.ids {
			c.ok(tier.members.get(id).client.Add(p, 0, done, 0))
		}
		p.Release()
	}
	for range 3 * count {
		c.ok(<-done)
	}
	return meta
}

// BenchmarkRecovery recovers an open ledger of 100,000 entries whose writer never said
// how far it was acknowledged: the worst there is.
func BenchmarkRecovery(b *testing.B) {
	const count = 100_000
	for b.Loop() {
		b.StopTimer()
		c := newCluster(b, 3)
		tier := c.open(nil)
		meta := c.silentLedger(tier, count)
		b.StartTimer()
		r, err := tier.Recover(b.Context(), ledger.ID(meta.ID))
		c.ok(err)
		b.StopTimer()
		if last, _ := r.Last(); last != count-1 {
			b.Fatalf("ends at %d", last)
		}
		c.ok(r.Close())
		b.StartTimer()
	}
}

// TestReaderOfALedgerSealedElsewhere: a reader that is kept has, when it is asked for
// them, the entries with which another process has sealed the ledger.
func TestReaderOfALedgerSealedElsewhere(t *testing.T) {
	c := newCluster(t, 3)
	tier, other := c.open(nil), c.open(nil)
	w := c.create(tier)
	c.acknowledged(w, 0, 5)
	r, err := other.Open(t.Context(), w.ID())
	c.ok(err)
	c.acknowledged(w, 5, 5)
	empty := func() {
		t.Helper()
		known, sealed := r.Last()
		es, err := r.Read(t.Context(), known+1, 100, 1<<20)
		c.ok(err)
		if len(es.Data) != 0 || sealed {
			t.Fatalf("%d entries beyond %d, sealed %v", len(es.Data), known, sealed)
		}
	}
	empty() // nobody has sealed it
	c.sealed(w, 10)
	if known, sealed := r.Last(); known >= 9 || sealed {
		t.Fatalf("it has heard by itself: entry %d, sealed %v", known, sealed)
	}
	c.store.SetFaults(mem.Faults{Before: func(_ context.Context, op mem.Op, _ int64) error {
		if op == mem.Read {
			return metadata.ErrUnavailable
		}
		return nil
	}})
	// An end that may be another by now is not told for one.
	if _, err := r.Read(t.Context(), 9, 9, 1<<20); err == nil {
		t.Error("an answer without a look")
	}
	c.store.SetFaults(mem.Faults{})
	c.reads(r, 10)
	if known, sealed := r.Last(); known != 9 || !sealed {
		t.Fatalf("the ledger ends at %d, sealed %v", known, sealed)
	}
	c.ok(r.Close())
}
