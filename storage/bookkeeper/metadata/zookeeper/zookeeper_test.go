package zookeeper

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/goleak"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/metadatatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness is a store below root and another client beside it.
func harness(t *testing.T, s *Store, other conn) metadatatest.Harness {
	t.Helper()
	acl := zk.WorldACL(zk.PermAll)
	must := func(err error, but ...error) {
		t.Helper()
		if err != nil && !slices.ContainsFunc(but, func(b error) bool { return errors.Is(err, b) }) {
			t.Fatal(err)
		}
	}
	put := func(path string, data []byte) {
		t.Helper()
		path = s.root + path
		for i := 1; i < len(path); i++ {
			if path[i] == '/' {
				_, err := other.Create(path[:i], nil, 0, acl)
				must(err, zk.ErrNodeExists)
			}
		}
		must(other.Delete(path, -1), zk.ErrNoNode)
		_, err := other.Create(path, data, 0, acl)
		must(err)
	}
	remove := func(path string) { must(other.Delete(s.root+path, -1), zk.ErrNoNode) }
	// What initnewcluster leaves.
	put("LAYOUT", []byte("2\norg.apache.bookkeeper.meta.HierarchicalLedgerManagerFactory:1"))
	put("available/readonly", nil)
	bookie := func(id metadata.BookieID, readOnly bool) string {
		if readOnly {
			return "available/readonly/" + string(id)
		}
		return "available/" + string(id)
	}
	return metadatatest.Harness{
		Store: s,
		Init: func(id string) {
			if id == "" {
				remove("INSTANCEID")
			} else {
				put("INSTANCEID", []byte(id))
			}
		},
		PutCookie: func(id metadata.BookieID, data []byte) { put("cookies/"+string(id), data) },
		PutLedger: func(id int64, data []byte) { put(metadata.LedgerPath(id), data) },
		Register: func(r metadata.Registration) {
			put(bookie(r.ID, r.ReadOnly), metadata.AppendServiceInfo(nil, r.Info))
			remove(bookie(r.ID, !r.ReadOnly))
		},
		Unregister: func(id metadata.BookieID) {
			remove(bookie(id, false))
			remove(bookie(id, true))
		},
		Unmark:           func(id int64) { remove(metadata.MarkPath(id)) },
		KeepsCookieBytes: true,
	}
}

func start(t *testing.T, f *fake, timeout time.Duration) *Store {
	t.Helper()
	s := newStore(f, Config{RequestTimeout: timeout}, func() {})
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	metadatatest.Run(t, func(t *testing.T) metadatatest.Harness {
		f := newFake()
		return harness(t, start(t, f, 0), f)
	})
}

func ledger() *metadata.Ledger {
	return &metadata.Ledger{
		ID: metadata.NoID, Ensemble: 1, WriteQuorum: 1, AckQuorum: 1, State: metadata.Open, LastEntry: metadata.NoEntry,
		Digest: metadata.CRC32C, Segments: []metadata.Segment{{Bookies: []metadata.BookieID{"b"}}},
	}
}

func (f *fake) paths() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for p := range f.nodes {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// Ids are those that BookKeeper's generators would take from the same nodes, and
// nothing is left behind but ledgers and counters.
func TestIDs(t *testing.T) {
	f := newFake()
	s := start(t, f, 0)
	next := func() int64 {
		t.Helper()
		l := ledger()
		v, err := s.Create(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), l.ID, v); err != nil {
			t.Fatal(err)
		}
		return l.ID
	}
	count := func(path string, n int32) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.nodes[path].children = n
	}
	if a, b := next(), next(); a != 1 || b != 2 {
		t.Errorf("the first ids are %d and %d, want BookKeeper's but for 0: 1 and 2", a, b)
	}
	count("/ledgers/idgen", metadata.MaxShortID-1)
	if id := next(); id != metadata.MaxShortID-1 {
		t.Errorf("the last id of 31 bits is %d", id)
	}
	if id := next(); id != 1<<32 {
		t.Errorf("the first id of 63 bits is %#x", id)
	}
	count("/ledgers/idgen-long/HOB-0000000001", -1<<31)
	if id := next(); id != 2<<32 {
		t.Errorf("the first id of the next bucket is %#x", id)
	}
	want := []string{"/", "/ledgers", "/ledgers/idgen", "/ledgers/idgen-long", "/ledgers/idgen-long/HOB-0000000001", "/ledgers/idgen-long/HOB-0000000002"}
	if got := f.paths(); !slices.Equal(got, want) {
		t.Errorf("nodes %q, want %q", got, want)
	}
}

// A connection that breaks after a create was sent leaves a ledger that its
// creator recognizes; one that stays broken leaves an unknown outcome.
func TestCreateLost(t *testing.T) {
	f := newFake()
	s := start(t, f, 0)
	lose := 0
	f.after = func(op, path string) error {
		if op == "create" && strings.HasPrefix(path[strings.LastIndexByte(path, '/')+1:], "L") && lose > 0 {
			lose--
			return zk.ErrConnectionClosed
		}
		return nil
	}
	lose = 1
	l := ledger()
	if _, err := s.Create(t.Context(), l); err != nil {
		t.Errorf("Create whose first answer is lost: %v", err)
	}
	lose = 100
	l = ledger()
	l.ID = 77
	if _, err := s.Create(t.Context(), l); !errors.Is(err, metadata.ErrUnknownOutcome) || errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("Create without answers: %v, want ErrUnknownOutcome", err)
	}
	lose = 0
	if v, err := s.Create(t.Context(), l); err != nil || v != 0 {
		t.Errorf("Create again: %d, %v", v, err)
	}
	f.after = func(op, path string) error {
		if op == "set" || op == "delete" {
			return zk.ErrConnectionClosed
		}
		return nil
	}
	if _, err := s.Update(t.Context(), l, 0); !errors.Is(err, metadata.ErrUnknownOutcome) {
		t.Errorf("Update without an answer: %v, want ErrUnknownOutcome", err)
	}
	if err := s.Delete(t.Context(), l.ID, metadata.AnyVersion); !errors.Is(err, metadata.ErrUnknownOutcome) {
		t.Errorf("Delete without an answer: %v, want ErrUnknownOutcome", err)
	}
}

// What was never sent was not done.
func TestNoServer(t *testing.T) {
	f := newFake()
	s := start(t, f, 0)
	l := ledger()
	v, err := s.Create(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	f.before = func(string, string) error { return zk.ErrNoServer }
	at := ledger()
	at.ID = 5
	_, readErr := s.InstanceID(t.Context())
	_, createErr := s.Create(t.Context(), at)
	_, updateErr := s.Update(t.Context(), l, v)
	for what, err := range map[string]error{"InstanceID": readErr, "Create": createErr, "Update": updateErr, "Delete": s.Delete(t.Context(), l.ID, v)} {
		if !errors.Is(err, metadata.ErrUnavailable) || errors.Is(err, metadata.ErrUnknownOutcome) {
			t.Errorf("%s: %v, want ErrUnavailable", what, err)
		}
	}
}

// A server that does not answer costs a request its time limit, or its context,
// and not the store's end: Close gets by without it.
func TestSilentServer(t *testing.T) {
	f := newFake()
	l := ledger()
	if _, err := start(t, f, 0).Create(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	s := start(t, f, 20*time.Millisecond)
	silent := make(chan struct{})
	f.before = func(string, string) error { <-silent; return zk.ErrConnectionClosed }
	if _, _, err := s.Read(t.Context(), l.ID); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("Read: %v, want ErrUnavailable", err)
	}
	if _, err := s.Update(t.Context(), l, 0); !errors.Is(err, metadata.ErrUnknownOutcome) {
		t.Errorf("Update: %v, want ErrUnknownOutcome", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if err := s.Delete(ctx, l.ID, 0); !errors.Is(err, metadata.ErrUnknownOutcome) {
		t.Errorf("Delete: %v, want ErrUnknownOutcome", err)
	}
	// The client cannot take back what it sent, so the number of such requests is bounded.
	for range maxCalls {
		if err := s.Delete(ctx, l.ID, 0); err == nil {
			t.Fatal("Delete with a context that ended")
		}
	}
	close(silent)
	s.Close()
	if _, _, err := s.Read(t.Context(), l.ID); !errors.Is(err, metadata.ErrClosed) {
		t.Errorf("Read after Close: %v, want ErrClosed", err)
	}
}

// Reads that decide something are as of now, not as of what a follower knows.
func TestReadsSync(t *testing.T) {
	f := newFake()
	s := start(t, f, 0)
	for name, read := range map[string]func(){
		"Read":                func() { s.Read(t.Context(), 1) },
		"InstanceID":          func() { s.InstanceID(t.Context()) },
		"List":                func() { s.List(t.Context(), 0, func(metadata.Listed) bool { return true }) },
		"ListUnderReplicated": func() { s.ListUnderReplicated(t.Context(), func(metadata.Mark) bool { return true }) },
	} {
		before := f.synced
		if read(); f.synced == before {
			t.Errorf("%s does not sync", name)
		}
	}
}

func TestLayouts(t *testing.T) {
	f := newFake()
	s := start(t, f, 0)
	h := harness(t, s, f)
	h.Init("cluster")
	for layout, want := range map[string]bool{
		"2\norg.apache.bookkeeper.meta.HierarchicalLedgerManagerFactory:1":      true,
		"2\norg.apache.pulsar.metadata.bookkeeper.PulsarLedgerManagerFactory:1": true,
		"2\norg.apache.bookkeeper.meta.LongHierarchicalLedgerManagerFactory:1":  false,
		"2\norg.apache.bookkeeper.meta.FlatLedgerManagerFactory:1":              false,
		"2\norg.apache.bookkeeper.meta.HierarchicalLedgerManagerFactory:2":      false,
		"1\nhierarchical:1": false,
		"":                  false,
	} {
		if _, err := f.Set("/ledgers/LAYOUT", []byte(layout), -1); err != nil {
			t.Fatal(err)
		}
		if _, err := s.InstanceID(t.Context()); (err == nil) != want || !want && !errors.Is(err, ErrLayout) {
			t.Errorf("%q: %v, want supported %v", layout, err, want)
		}
	}
}

// The registry outlives sessions and failed readings, does not need its folders,
// and keeps no watch more than it has folders.
func TestRegistryRecovers(t *testing.T) {
	f := newFake()
	s := start(t, f, 0)
	r, err := s.Bookies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h := harness(t, s, f)
	until := func(id metadata.BookieID, state metadata.BookieState) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for {
			changed := r.Changed()
			if r.Get(id).State == state {
				return
			}
			select {
			case <-changed:
			case <-deadline:
				t.Fatalf("%s is not %v: %+v", id, state, r.All())
			}
		}
	}
	h.Register(metadata.Registration{ID: "a"})
	until("a", metadata.Writable)
	f.expire()
	h.Register(metadata.Registration{ID: "b", ReadOnly: true})
	until("b", metadata.ReadOnly)
	f.mu.Lock()
	fails := 3
	f.before = func(op, path string) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if fails > 0 && strings.HasSuffix(path, "/c") && op == "get" {
			fails--
			return zk.ErrConnectionClosed
		}
		return nil
	}
	f.mu.Unlock()
	h.Register(metadata.Registration{ID: "c"})
	until("c", metadata.Writable)
	f.mu.Lock()
	for path, watches := range f.watches {
		if len(watches) > 1 {
			t.Errorf("%d watches of %s", len(watches), path)
		}
	}
	f.mu.Unlock()
	h.Unregister("a")
	until("a", metadata.Vanished)
}

// A connection that never comes about, or to something that is no ZooKeeper, is
// ErrUnavailable, and closes.
func TestOpenNobody(t *testing.T) {
	if _, err := Open(Config{}); err == nil {
		t.Error("opened without servers")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s, err := Open(Config{Servers: []string{addr}, RequestTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.InstanceID(t.Context()); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("InstanceID: %v, want ErrUnavailable", err)
	}
}
