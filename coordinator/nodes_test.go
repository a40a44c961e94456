package coordinator_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/mem"
)

func contains(err error, text string) bool { return strings.Contains(err.Error(), text) }

func ids(c *coordinator.Coordinator) (ids []int32) {
	for _, n := range c.Nodes() {
		ids = append(ids, n.ID)
	}
	return ids
}

// The first node without an id gets 1, others the next, and a node that starts
// again under its name gets its own.
func TestNodeIDs(t *testing.T) {
	onBoth(t, func(t *testing.T, s meta.Store) {
		for _, want := range []struct {
			name string
			id   int32
		}{{"quire", 1}, {"b", 2}, {"quire", 1}, {"c", 3}, {"b", 2}} {
			c := open(t, s, named(want.name))
			if c.Self().ID != want.id {
				t.Errorf("node %s has id %d, want %d", want.name, c.Self().ID, want.id)
			}
			c.Close()
		}
		c := open(t, s, func(c *coordinator.Config) { c.Node.ID = 7 })
		if c.Self().ID != 7 || !reflect.DeepEqual(ids(c), []int32{7}) {
			t.Errorf("a node configured as 7 is %d among %v", c.Self().ID, ids(c))
		}
	})
}

// Every node lists the others as they come and go, itself always.
func TestNodesComeAndGo(t *testing.T) {
	onBoth(t, func(t *testing.T, s meta.Store) {
		a := open(t, s, named("a"))
		self := coordinator.Node{ID: -1, Rack: "r", Listeners: map[string]coordinator.Endpoint{"PLAINTEXT": {Host: "h", Port: 9092}}}
		b := open(t, s, named("b"), func(c *coordinator.Config) { c.Node = self })
		self.ID, self.Name, self.Weight, self.Incarnation, self.StartedMs = 2, "b", coordinator.DefaultWeight, b.Self().Incarnation, b.Self().StartedMs
		self.FeatureLevel, self.LeaseTTL = coordinator.NewestFeatureLevel, 10*time.Second
		if !reflect.DeepEqual(ids(b), []int32{1, 2}) {
			t.Fatalf("the second node begins with %v", ids(b))
		}
		eventually(t, "both are listed", func() bool { return reflect.DeepEqual(ids(a), []int32{1, 2}) })
		if got := a.Nodes()[1]; !reflect.DeepEqual(got, self) {
			t.Errorf("the second node is told as %+v, want %+v", got, self)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		eventually(t, "the second has left", func() bool { return reflect.DeepEqual(ids(a), []int32{1}) })
	})
}

// A node whose lease ended registers again, as the process that it was, and keeps its slots.
func TestNodeRegistersAgain(t *testing.T) {
	clock := new(mem.ManualClock)
	s := mem.New(clock)
	defer s.Close()
	a := openLoaded(t, s, named("a"), still)
	b := open(t, s, named("b"), still)
	before := make(map[string]meta.Revision)
	for _, key := range keysUnder(t, s, "quire/test/") {
		kv, err := s.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		before[key] = kv.Modified
	}
	clock.Advance(11 * time.Second)
	eventually(t, "both are back", func() bool {
		for _, n := range []string{"1", "2"} {
			kv, err := s.Get(t.Context(), "quire/test/node/"+n)
			if err != nil || kv.Modified == before[kv.Key] {
				return false
			}
		}
		return reflect.DeepEqual(ids(a), []int32{1, 2}) && reflect.DeepEqual(ids(b), []int32{1, 2})
	})
	for slot := range coordinator.NumSlots {
		key := fmt.Sprintf("quire/test/own/%04d", slot)
		if kv, err := s.Get(t.Context(), key); err != nil || kv.Modified != before[key] {
			t.Fatalf("slot %d has changed hands: %s (%v)", slot, kv.Value, err)
		}
	}
}

// After a crash a node does not wait for the end of its old lease, and that end
// does not take the node off the list.
func TestNodeAfterCrash(t *testing.T) {
	clock := new(mem.ManualClock)
	s := mem.New(clock)
	defer s.Close()
	lease, err := s.Grant(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Txn(t.Context(), nil, []meta.Op{
		meta.Put("quire/test/nodeid/quire", []byte("1")),
		meta.Put("quire/test/nextnodeid", []byte("2")),
		{Key: "quire/test/node/1", Value: []byte(`{"v":1,"inc":"before","name":"quire"}`), Lease: lease},
	}); err != nil {
		t.Fatal(err)
	}
	a := open(t, s)
	b := open(t, s, named("b"))
	if a.Self().ID != 1 || !reflect.DeepEqual(ids(b), []int32{1, 2}) {
		t.Fatalf("node %d, listed %v", a.Self().ID, ids(b))
	}
	if err := s.Revoke(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	kv, err := s.Get(t.Context(), "quire/test/node/1")
	if err != nil || kv.Lease == lease {
		t.Errorf("after the old lease's end: %+v, %v", kv, err)
	}
}

// A record that cannot be read is left out and hurts nobody.
func TestNodeUnreadable(t *testing.T) {
	s := newMem(t)
	c := open(t, s)
	for _, key := range []string{"9", "x", ""} {
		if _, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put("quire/test/node/"+key, []byte("?"))}); err != nil {
			t.Fatal(err)
		}
	}
	open(t, s, named("b"))
	eventually(t, "the good one is listed", func() bool { return reflect.DeepEqual(ids(c), []int32{1, 2}) })
}
