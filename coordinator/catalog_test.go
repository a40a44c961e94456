package coordinator

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/quirelog/quire/storage/meta"
)

// However the watch and this node's own changes interleave, a key never goes
// back, and in the end the catalog is what the last change of each key made it.
func TestCatalogOrder(t *testing.T) {
	keys := []string{"a", "b", "c"}
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		// One history; for each change, whether this node made it and so hears of it twice.
		var history []topicChange
		present := make(map[string]bool)
		for i := range 40 {
			change := topicChange{key: keys[random.IntN(len(keys))], revision: meta.Revision(i + 2)}
			if !present[change.key] || random.IntN(2) == 0 {
				change.topic = &Topic{Name: change.key, ID: [16]byte{byte(i)}, Revision: change.revision}
			}
			present[change.key] = change.topic != nil
			history = append(history, change)
		}
		var c catalog
		c.init(nil)
		own := slices.Clone(history)
		random.Shuffle(len(own), func(i, j int) { own[i], own[j] = own[j], own[i] })
		own = own[:random.IntN(len(own))]
		seen := make(map[string]meta.Revision)
		watch := history
		for len(watch)+len(own) > 0 {
			switch {
			case len(own) > 0 && (len(watch) == 0 || random.IntN(2) == 0):
				c.changedHere(own[0])
				if got, rev := c.withKey(own[0].key), own[0].revision; got != nil && got.Revision < rev {
					t.Fatalf("seed %d: %s is as of %d after this node's change at %d", seed, own[0].key, got.Revision, rev)
				}
				own = own[1:]
			case random.IntN(8) == 0:
				// The watch begins anew with a listing.
				n := random.IntN(len(watch)) + 1
				at := watch[n-1].revision
				listed := make(map[string]*Topic)
				for _, change := range history[:int(at)-1] {
					delete(listed, change.key)
					if change.topic != nil {
						listed[change.key] = change.topic
					}
				}
				c.replace(listed, at)
				watch = watch[n:]
			default:
				c.follow(watch[:1], watch[0].revision)
				watch = watch[1:]
			}
			for _, key := range keys {
				if got := c.withKey(key); got != nil {
					if got.Revision < seen[key] {
						t.Fatalf("seed %d: %s went back from %d to %d", seed, key, seen[key], got.Revision)
					}
					seen[key] = got.Revision
				}
			}
		}
		last := make(map[string]*Topic)
		for _, change := range history {
			last[change.key] = change.topic
		}
		ids := 0
		for _, key := range keys {
			if got := c.withKey(key); got != last[key] {
				t.Fatalf("seed %d: %s is %+v in the end, want %+v", seed, key, got, last[key])
			}
			if want := last[key]; want != nil {
				ids++
				if c.withID(want.ID) != want {
					t.Fatalf("seed %d: %s is not found by its id", seed, key)
				}
			}
		}
		if len(c.byID) != ids || len(c.deleted) != 0 {
			t.Fatalf("seed %d: %d ids for %d topics, %d deletions remembered", seed, len(c.byID), ids, len(c.deleted))
		}
	}
}

// A lookup allocates nothing, with or without dots in the name.
func TestLookupAllocations(t *testing.T) {
	var c catalog
	c.init(nil)
	for _, name := range []string{"plain-name", "name.with.dots_and-more"} {
		c.changedHere(topicChange{key: topicKey(name), topic: &Topic{Name: name}, revision: 1})
		if n := testing.AllocsPerRun(100, func() {
			if c.byName(name) == nil {
				t.Fatal("not found")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Configs that no topic has any more are forgotten; those in use are found again.
func TestInternForgets(t *testing.T) {
	c, err := newConfigs(nil)
	if err != nil {
		t.Fatal(err)
	}
	intern := func(i int) parsedConfig {
		p, err := c.intern(1, map[string]string{"retention.ms": strconv.Itoa(i)})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	kept := intern(-1)
	for i := range 20 * firstSweep {
		intern(i)
		if i%firstSweep == 0 {
			runtime.GC()
		}
	}
	if len(c.interned) > 4*firstSweep {
		t.Errorf("%d configs are remembered, one is in use", len(c.interned))
	}
	if again := intern(-1); again.log != kept.log {
		t.Error("a config in use was parsed again")
	}
	runtime.KeepAlive(kept)
}

// Stored overrides that are not valid any more leave the topic served by the
// defaults, and are told back.
func TestInvalidStoredConfig(t *testing.T) {
	c, err := newConfigs(nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.intern(1, map[string]string{"retention.ms": "x", "gone": "1", "segment.bytes": "99"})
	if err == nil {
		t.Error("nothing is wrong")
	}
	want := *c.base
	want.SegmentBytes = 99
	if *p.log != want || len(p.overrides) != 3 {
		t.Errorf("parsed as %+v with %v", *p.log, p.overrides)
	}
}

func TestTopicRecord(t *testing.T) {
	r := topicRecord{Version: 1, Name: "a.b", ID: encodeID([16]byte{1}), Partitions: 3, ReplicationFactor: 2, CreatedMs: 5}
	kv := meta.KV{Key: "t/a_b", Value: r.encode()}
	if len(kv.Value) > 300 {
		t.Errorf("%d bytes: %s", len(kv.Value), kv.Value)
	}
	got, err := decodeTopicRecord(kv)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(r) {
		t.Errorf("%+v, %v", got, err)
	}
}

// Any bytes give a record or an error.
func FuzzTopicRecord(f *testing.F) {
	f.Add([]byte(`{"v":1,"n":"a","id":"AAAAAAAAAAAAAAAAAAAAAA","p":1,"rf":1,"c":{"retention.ms":"1"},"t":1}`))
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := decodeTopicRecord(meta.KV{Key: "k", Value: value})
		if err != nil {
			return
		}
		if again, err := decodeTopicRecord(meta.KV{Key: "k", Value: r.encode()}); err != nil || again.ID != r.ID || again.Name != r.Name {
			t.Errorf("%+v becomes %+v, %v", r, again, err)
		}
	})
}
