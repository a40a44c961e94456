package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
	"github.com/quirelog/quire/storage/meta/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait; it is far above what anything here needs.
const patience = time.Minute

// onBoth runs a test on the store in memory and on embedded etcd.
func onBoth(t *testing.T, test func(t *testing.T, s meta.Store)) {
	t.Run("mem", func(t *testing.T) { test(t, newMem(t)) })
	t.Run("etcd", func(t *testing.T) {
		s, err := etcd.OpenEmbedded(t.Context(), etcd.EmbeddedConfig{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		test(t, s)
	})
}

func newMem(t *testing.T) *mem.Store {
	s := mem.New(nil)
	t.Cleanup(func() { s.Close() })
	return s
}

// open opens a coordinator on a store, as changed by configure.
func open(t *testing.T, s meta.Store, configure ...func(*coordinator.Config)) *coordinator.Coordinator {
	t.Helper()
	c, err := tryOpen(t, s, configure...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryOpen(t *testing.T, s meta.Store, configure ...func(*coordinator.Config)) (*coordinator.Coordinator, error) {
	config := coordinator.Config{Meta: s, Prefix: "quire/test/", Node: coordinator.Node{ID: -1}}
	for _, f := range configure {
		f(&config)
	}
	c, err := coordinator.Open(t.Context(), config)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func named(name string) func(*coordinator.Config) {
	return func(c *coordinator.Config) { c.NodeName = name }
}

// still keeps what is balanced by the system's clock where it is: nodes that join get nothing.
func still(c *coordinator.Config) { c.BalanceDelay = time.Hour }

// create makes topics that must not fail.
func create(t *testing.T, c *coordinator.Coordinator, topics ...coordinator.NewTopic) []*coordinator.Topic {
	t.Helper()
	made, errs := c.CreateTopics(t.Context(), topics, false)
	for i, err := range errs {
		if err != nil {
			t.Fatalf("topic %q: %v", topics[i].Name, err)
		}
	}
	return made
}

func createOne(t *testing.T, c *coordinator.Coordinator, name string) *coordinator.Topic {
	t.Helper()
	return create(t, c, coordinator.NewTopic{Name: name, Partitions: 1, ReplicationFactor: 1})[0]
}

// eventually waits until a condition that a watch brings about holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// faulty is a store some of whose transactions go wrong.
type faulty struct {
	meta.Store
	mu sync.Mutex
	// txn, if set, runs instead of every transaction; do is the real one.
	txn func(ctx context.Context, conds []meta.Cond, ops []meta.Op, do txn) (meta.Revision, bool, error)
}

type txn func(context.Context, []meta.Cond, []meta.Op) (meta.Revision, bool, error)

func (f *faulty) Txn(ctx context.Context, conds []meta.Cond, ops []meta.Op) (meta.Revision, bool, error) {
	f.mu.Lock()
	replaced := f.txn
	f.mu.Unlock()
	// The claims of slots go on in the background of all tests; none is about them.
	claim := len(ops) > 0 && strings.HasPrefix(ops[0].Key, "quire/test/own/")
	if replaced == nil || claim {
		return f.Store.Txn(ctx, conds, ops)
	}
	return replaced(ctx, conds, ops, f.Store.Txn)
}

func (f *faulty) set(txn func(ctx context.Context, conds []meta.Cond, ops []meta.Op, do txn) (meta.Revision, bool, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.txn = txn
}

// unknown makes the next n transactions end in ErrUnknownOutcome, executed or not.
func (f *faulty) unknown(n int, executed bool) {
	f.set(func(ctx context.Context, conds []meta.Cond, ops []meta.Op, do txn) (meta.Revision, bool, error) {
		f.mu.Lock()
		n--
		fail := n >= 0
		f.mu.Unlock()
		if fail && !executed {
			return 0, false, meta.ErrUnknownOutcome
		}
		rev, ok, err := do(ctx, conds, ops)
		if fail && err == nil {
			return 0, false, meta.ErrUnknownOutcome
		}
		return rev, ok, err
	})
}

// The id is 22 characters, made once, and the same for every node and start.
func TestClusterID(t *testing.T) {
	s := newMem(t)
	ids := make(chan string, 4)
	var wg sync.WaitGroup
	for i := range cap(ids) {
		wg.Go(func() {
			c, err := coordinator.Open(t.Context(), coordinator.Config{Meta: s, Prefix: "quire/test/", Node: coordinator.Node{ID: int32(i)}})
			if err != nil {
				t.Error(err)
				return
			}
			ids <- c.ClusterID()
			c.Close()
		})
	}
	wg.Wait()
	close(ids)
	first := open(t, s).ClusterID()
	if len(first) != 22 || first[0] == '-' {
		t.Errorf("cluster id %q, want 22 characters that do not begin with -", first)
	}
	for id := range ids {
		if id != first {
			t.Errorf("cluster ids %q and %q", first, id)
		}
	}
	other := open(t, s, func(c *coordinator.Config) { c.Prefix = "quire/other/" })
	if other.ClusterID() == first {
		t.Errorf("two clusters have the id %q", first)
	}
}

// Facts that this program cannot read are an error that says which key and what to do.
func TestUnreadableFacts(t *testing.T) {
	for name, c := range map[string]struct{ key, value, want string }{
		"newer format":       {"v", "2", "use a newer one"},
		"format is text":     {"v", "x", "not a version"},
		"cluster id":         {"cluster", "short", "not 22 characters"},
		"topic is garbage":   {"t/a", "{", "quire/test/t/a"},
		"newer topic":        {"t/a", `{"v":2,"n":"a","id":"AAAAAAAAAAAAAAAAAAAAAA","p":1,"rf":1}`, "use a newer one"},
		"topic without id":   {"t/a", `{"v":1,"n":"a","p":1,"rf":1}`, "not a topic id"},
		"no partitions":      {"t/a", `{"v":1,"n":"a","id":"AAAAAAAAAAAAAAAAAAAAAA","rf":1}`, "0 partitions"},
		"node id is garbage": {"nodeid/quire", "one", "not a node id"},
	} {
		s := newMem(t)
		if _, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put("quire/test/"+c.key, []byte(c.value))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tryOpen(t, s); err == nil || !contains(err, c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
}

// Opening without a metadata store that answers fails with ErrUnavailable.
func TestOpenUnavailable(t *testing.T) {
	s := newMem(t)
	s.Close()
	if _, err := tryOpen(t, s); !errors.Is(err, coordinator.ErrUnavailable) || !errors.Is(err, meta.ErrClosed) {
		t.Errorf("Open on a closed store: %v, want ErrUnavailable", err)
	}
}

// A first transaction of every kind whose outcome is not known does not hurt.
func TestOpenUnknownOutcome(t *testing.T) {
	for _, executed := range []bool{false, true} {
		for n := 1; n <= 4; n++ {
			f := &faulty{Store: newMem(t)}
			f.unknown(n, executed)
			c, err := tryOpen(t, f)
			if err != nil {
				t.Errorf("%d unknown outcomes, executed %v: %v", n, executed, err)
				continue
			}
			if c.Self().ID != 1 {
				t.Errorf("%d unknown outcomes, executed %v: node id %d, want 1", n, executed, c.Self().ID)
			}
		}
	}
}

// Producer ids are never given out twice: not by one node, not by two, not after
// a restart, not when a transaction's outcome is not known.
func TestProducerIDs(t *testing.T) {
	onBoth(t, func(t *testing.T, s meta.Store) {
		f := &faulty{Store: s}
		var mu sync.Mutex
		given := make(map[int64]string)
		for round := range 3 {
			var wg sync.WaitGroup
			for _, node := range []string{"a", "b"} {
				c := open(t, f, named(node))
				f.unknown(2, round == 1)
				for range 4 {
					wg.Go(func() {
						for range 600 {
							id, err := c.NextProducerID(t.Context())
							if err != nil {
								t.Error(err)
								return
							}
							mu.Lock()
							by := fmt.Sprint(node, round)
							if before, taken := given[id]; taken || id < 0 {
								t.Errorf("producer id %d was given out by %s and %s", id, before, by)
							}
							given[id] = by
							mu.Unlock()
						}
					})
				}
			}
			wg.Wait()
		}
		if len(given) != 3*2*4*600 {
			t.Errorf("%d ids", len(given))
		}
	})
}

// Within a block an id needs no metadata; the next block waits for it as long as
// its caller does.
func TestProducerIDsWithoutMetadata(t *testing.T) {
	f := &faulty{Store: newMem(t)}
	c := open(t, f)
	if _, err := c.NextProducerID(t.Context()); err != nil {
		t.Fatal(err)
	}
	stuck := make(chan struct{})
	f.set(func(ctx context.Context, _ []meta.Cond, _ []meta.Op, _ txn) (meta.Revision, bool, error) {
		close(stuck)
		<-ctx.Done()
		return 0, false, errors.Join(ctx.Err(), meta.ErrUnknownOutcome)
	})
	for i := range 999 {
		if _, err := c.NextProducerID(t.Context()); err != nil {
			t.Fatalf("id %d of the block: %v", i+2, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := c.NextProducerID(ctx)
		first <- err
	}()
	<-stuck
	// Somebody waits for the block already; this caller gives up by itself.
	short, cancelShort := context.WithCancel(t.Context())
	cancelShort()
	if _, err := c.NextProducerID(short); !errors.Is(err, coordinator.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with an ended context: %v, want ErrUnavailable", err)
	}
	cancel()
	if err := <-first; !errors.Is(err, coordinator.ErrUnavailable) {
		t.Errorf("block without metadata: %v, want ErrUnavailable", err)
	}
	f.set(nil)
	if _, err := c.NextProducerID(t.Context()); err != nil {
		t.Errorf("with metadata again: %v", err)
	}
}
