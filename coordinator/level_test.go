package coordinator_test

import (
	"errors"
	"testing"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/storage/meta"
)

func atLevel(level int32) func(*coordinator.Config) {
	return func(c *coordinator.Config) { c.Node.FeatureLevel = level }
}

// The level of a new cluster is its first program's; it is raised when every node knows
// the next, never lowered, and ends a program that does not know it.
func TestFeatureLevel(t *testing.T) {
	onBoth(t, func(t *testing.T, s meta.Store) {
		failed := make(chan error, 1)
		a := open(t, s, named("a"), atLevel(2), func(c *coordinator.Config) { c.Failed = func(err error) { failed <- err } })
		b := open(t, s, named("b"), atLevel(4))
		if a.FeatureLevel() != 2 || b.FeatureLevel() != 2 {
			t.Fatalf("levels are %d and %d", a.FeatureLevel(), b.FeatureLevel())
		}
		eventually(t, "both are listed", func() bool { return len(b.Nodes()) == 2 })
		for _, to := range []int32{1, 3, 4} {
			if level, err := b.RaiseFeatureLevel(t.Context(), to); !errors.Is(err, coordinator.ErrFeatureLevel) {
				t.Errorf("raised to %d: %d, %v", to, level, err)
			}
		}
		if level, err := b.RaiseFeatureLevel(t.Context(), 0); err != nil || level != 2 {
			t.Errorf("raised as far as all know: %d, %v", level, err)
		}
		// Somebody who does not know a raises it all the same, as one that starts at
		// the wrong moment would find it: it ends.
		if _, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put("quire/test/level", []byte("4"))}); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; !errors.Is(err, coordinator.ErrFeatureLevel) {
			t.Errorf("a ends with %v", err)
		}
		eventually(t, "b follows", func() bool { return b.FeatureLevel() == 4 })
		if err := errors.Join(a.Close(), b.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := tryOpen(t, s, named("a"), atLevel(3)); !errors.Is(err, coordinator.ErrFeatureLevel) {
			t.Errorf("a program that knows 3 opens with %v", err)
		}
		open(t, s, named("a"), atLevel(5))
	})
}

// A cluster of a program that knew of no levels is at the first.
func TestFeatureLevelOfOldCluster(t *testing.T) {
	s := newMem(t)
	if _, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put("quire/test/v", []byte("1"))}); err != nil {
		t.Fatal(err)
	}
	c := open(t, s, atLevel(7))
	if got := c.FeatureLevel(); got != 1 {
		t.Errorf("level %d", got)
	}
	if level, err := c.RaiseFeatureLevel(t.Context(), 0); err != nil || level != 7 {
		t.Errorf("raised: %d, %v", level, err)
	}
}

// RaiseEpochs leaves every slot an epoch beyond what was, and no producer id is given
// out that was before.
func TestRaiseEpochs(t *testing.T) {
	onBoth(t, func(t *testing.T, s meta.Store) {
		c := open(t, s)
		claimed := func() bool {
			for slot := range coordinator.NumSlots {
				if !c.Route(slot).Here {
					return false
				}
			}
			return true
		}
		eventually(t, "all slots are claimed", claimed)
		before := map[int]int64{}
		for slot := range coordinator.NumSlots {
			before[slot] = c.Route(slot).Epoch
		}
		id, err := c.NextProducerID(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		const by = 1000
		if err := coordinator.RaiseEpochs(t.Context(), s, "quire/test/", by); err != nil {
			t.Fatal(err)
		}
		c = open(t, s)
		eventually(t, "all slots are claimed again", claimed)
		for slot := range coordinator.NumSlots {
			if got := c.Route(slot).Epoch; got != before[slot]+by+1 {
				t.Fatalf("slot %d has epoch %d after %d", slot, got, before[slot])
			}
		}
		if next, err := c.NextProducerID(t.Context()); err != nil || next < id+by {
			t.Errorf("producer id %d after %d, %v", next, id, err)
		}
	})
}

// RenameNode lets a node keep its id under another name, and takes none from another.
func TestRenameNode(t *testing.T) {
	s := newMem(t)
	first := open(t, s, named("old"))
	id := first.Self().ID
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	rename := func(from, to string) {
		t.Helper()
		if err := coordinator.RenameNode(t.Context(), s, "quire/test/", from, to); err != nil {
			t.Fatal(err)
		}
	}
	rename("old", "new")
	other := open(t, s, named("old"))
	if got := open(t, s, named("new")).Self().ID; got != id {
		t.Errorf("under its new name it is %d, and was %d", got, id)
	}
	rename("old", "new") // new has an id
	rename("none", "x")  // nobody has
	if other.Self().ID == id {
		t.Error("its id is given to another")
	}
	live, err := coordinator.LiveNodes(t.Context(), s, "quire/test/")
	if err != nil || len(live) != 2 || live[0].Name != "new" || live[1].Name != "old" || live[0].LeaseTTL == 0 {
		t.Errorf("live nodes are %+v, %v", live, err)
	}
}
