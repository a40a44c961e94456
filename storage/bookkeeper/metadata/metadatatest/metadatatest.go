// Package metadatatest is the contract of a metadata.Store as a suite of tests,
// which every implementation passes.
package metadatatest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// Harness is an empty store and what bookies, workers and other clients do behind it.
type Harness struct {
	Store metadata.Store

	// Init writes the cluster's id, "" removes it.
	Init func(instanceID string)
	// PutCookie writes a bookie's cookie as it is.
	PutCookie func(id metadata.BookieID, data []byte)
	// PutLedger writes a ledger's metadata as it is.
	PutLedger func(id int64, data []byte)
	// Register registers a bookie as writable or read-only, not as the other.
	Register func(r metadata.Registration)
	// Unregister takes all registrations of a bookie away.
	Unregister func(id metadata.BookieID)
	// Unmark takes a ledger's mark away, as a replication worker does.
	Unmark func(id int64)
	// KeepsCookieBytes: cookies are kept as bytes, so one can be damaged.
	KeepsCookieBytes bool
}

// Run runs the suite. make is called for each test.
func Run(t *testing.T, make func(t *testing.T) Harness) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"Instance", testInstance},
		{"Cookies", testCookies},
		{"Life", testLife},
		{"CreateAllocates", testCreateAllocates},
		{"CreateAt", testCreateAt},
		{"CreateAgain", testCreateAgain},
		{"Invalid", testInvalid},
		{"UpdateRace", testUpdateRace},
		{"Delete", testDelete},
		{"ForeignBytes", testForeignBytes},
		{"List", testList},
		{"ListPages", testListPages},
		{"Bookies", testBookies},
		{"Marks", testMarks},
		{"EndedContext", testEndedContext},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, make(t)) })
	}
}

// newLedger is an open ledger without an id.
func newLedger() *metadata.Ledger {
	return &metadata.Ledger{
		ID: metadata.NoID, Ensemble: 3, WriteQuorum: 3, AckQuorum: 2, State: metadata.Open, LastEntry: metadata.NoEntry,
		Digest: metadata.CRC32C, Password: []byte{},
		Segments: []metadata.Segment{{First: 0, Bookies: []metadata.BookieID{"127.0.0.1:3181", "127.0.0.1:3182", "bookie-3"}}},
		Custom:   map[string][]byte{"application": []byte("quire"), "partition": {0, 1, 255}},
	}
}

func create(t *testing.T, h Harness, id int64) (*metadata.Ledger, metadata.Version) {
	t.Helper()
	l := newLedger()
	l.ID = id
	v, err := h.Store.Create(t.Context(), l)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return l, v
}

// wantErr checks that err is the sentinel and none of the others.
func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	for _, e := range []error{
		metadata.ErrNotFound, metadata.ErrExists, metadata.ErrConflict, metadata.ErrUnavailable, metadata.ErrUnknownOutcome,
		metadata.ErrNewerVersion, metadata.ErrOldVersion, metadata.ErrCorrupt, metadata.ErrInvalid,
		metadata.ErrNotInitialised, metadata.ErrWrongCluster, metadata.ErrClosed, context.Canceled,
	} {
		if errors.Is(err, e) != (e == want) {
			t.Errorf("%s: %v, want %v", what, err, want)
			return
		}
	}
}

func wantRead(t *testing.T, h Harness, want *metadata.Ledger, version metadata.Version) {
	t.Helper()
	got, v, err := h.Store.Read(t.Context(), want.ID)
	if err != nil || v != version || !reflect.DeepEqual(got, want) {
		t.Fatalf("Read = %+v at %d, %v\nwant %+v at %d", got, v, err, want, version)
	}
}

func testInstance(t *testing.T, h Harness) {
	h.Init("")
	_, err := h.Store.InstanceID(t.Context())
	wantErr(t, "InstanceID of nothing", err, metadata.ErrNotInitialised)
	_, err = metadata.CheckInstance(t.Context(), h.Store, "")
	wantErr(t, "CheckInstance of nothing", err, metadata.ErrNotInitialised)
	const ours = "9ab2ec33-13d2-46d9-ae45-3f0b1ee61f6e"
	h.Init(ours)
	for _, want := range []string{"", ours} {
		if id, err := metadata.CheckInstance(t.Context(), h.Store, want); err != nil || id != ours {
			t.Errorf("CheckInstance(%q) = %q, %v", want, id, err)
		}
	}
	_, err = metadata.CheckInstance(t.Context(), h.Store, "another")
	wantErr(t, "CheckInstance of another", err, metadata.ErrWrongCluster)
}

func testCookies(t *testing.T, h Harness) {
	cookie := func(instance string) []byte {
		return []byte("5\nbookieHost: \"127.0.0.1:31811\"\njournalDir: \"/d/j\"\nledgerDirs: \"1\\t/d/l\"\ninstanceId: \"" + instance + "\"\nindexDirs: \"1\\t/d/l\"\n")
	}
	h.PutCookie("127.0.0.1:31811", cookie("ours"))
	h.PutCookie("stranger", cookie("another"))
	if h.KeepsCookieBytes {
		h.PutCookie("damaged", []byte("5\nbookieHost: \"127"))
	}
	cookies, err := h.Store.Cookies(t.Context())
	if h.KeepsCookieBytes {
		wantErr(t, "Cookies with a damaged one", err, metadata.ErrCorrupt)
	} else if err != nil {
		t.Error(err)
	}
	want := map[metadata.BookieID]metadata.Cookie{
		"127.0.0.1:31811": {BookieHost: "127.0.0.1:31811", InstanceID: "ours"},
		"stranger":        {BookieHost: "127.0.0.1:31811", InstanceID: "another"},
	}
	if !maps.Equal(cookies, want) {
		t.Errorf("Cookies = %v, want %v", cookies, want)
	}
	if got := metadata.Strangers("ours", cookies); !slices.Equal(got, []metadata.BookieID{"stranger"}) {
		t.Errorf("Strangers = %v", got)
	}
}

// A ledger is created, gets a second segment, is recovered, closed and deleted,
// and every reader sees every step.
func testLife(t *testing.T, h Harness) {
	l, v := create(t, h, metadata.NoID)
	if l.ID <= 0 || l.CToken == 0 {
		t.Fatalf("Create left id %d and token %d", l.ID, l.CToken)
	}
	wantRead(t, h, l, v)
	for _, change := range []func(){
		func() {
			l.Segments = append(l.Segments, metadata.Segment{First: 42, Bookies: []metadata.BookieID{"a", "b", "c"}})
		},
		func() { l.State = metadata.InRecovery },
		func() { l.State, l.LastEntry, l.Length = metadata.Closed, 99, 12345 },
	} {
		old := v
		change()
		var err error
		if v, err = h.Store.Update(t.Context(), l, old); err != nil || v == old {
			t.Fatalf("Update from version %d = %d, %v", old, v, err)
		}
		wantRead(t, h, l, v)
		_, err = h.Store.Update(t.Context(), l, old)
		wantErr(t, "Update of the version before", err, metadata.ErrConflict)
		wantRead(t, h, l, v)
	}
	if err := h.Store.Delete(t.Context(), l.ID, v); err != nil {
		t.Fatal(err)
	}
	_, _, err := h.Store.Read(t.Context(), l.ID)
	wantErr(t, "Read after Delete", err, metadata.ErrNotFound)
	_, err = h.Store.Update(t.Context(), l, v)
	wantErr(t, "Update after Delete", err, metadata.ErrNotFound)
}

// Ids are given once, to whoever asks at once, deleted ledgers' too.
func testCreateAllocates(t *testing.T, h Harness) {
	const clients, each = 8, 12
	var mu sync.Mutex
	seen := make(map[int64]bool)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				l := newLedger()
				v, err := h.Store.Create(t.Context(), l)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[l.ID] {
					t.Errorf("ledger %d was created twice", l.ID)
				}
				seen[l.ID] = true
				mu.Unlock()
				if err := h.Store.Delete(t.Context(), l.ID, v); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func testCreateAt(t *testing.T, h Harness) {
	for _, id := range []int64{1000, metadata.MaxShortID - 1, metadata.MaxShortID, 1 << 32, 1<<62 + 5, 1<<63 - 1} {
		l, v := create(t, h, id)
		if l.ID != id {
			t.Errorf("Create at %d made %d", id, l.ID)
		}
		wantRead(t, h, l, v)
		other := newLedger()
		other.ID = id
		_, err := h.Store.Create(t.Context(), other)
		wantErr(t, "Create where there is one", err, metadata.ErrExists)
		wantRead(t, h, l, v)
	}
	// The next id may be one of a ledger that somebody created at it.
	l, _ := create(t, h, metadata.NoID)
	for i := range int64(5) {
		if id := l.ID + 1 + i; i != 2 {
			create(t, h, id)
		}
	}
	next, _ := create(t, h, metadata.NoID)
	if next.ID <= l.ID {
		t.Errorf("id %d after %d", next.ID, l.ID)
	}
}

// A creator knows its own ledger again.
func testCreateAgain(t *testing.T, h Harness) {
	l, v := create(t, h, metadata.NoID)
	again := l.Clone()
	if got, err := h.Store.Create(t.Context(), again); err != nil || got != v || again.ID != l.ID {
		t.Errorf("Create again = %d, %v, id %d, want %d, id %d", got, err, again.ID, v, l.ID)
	}
	again.CToken++
	_, err := h.Store.Create(t.Context(), again)
	wantErr(t, "Create by another", err, metadata.ErrExists)
}

func testInvalid(t *testing.T, h Harness) {
	l, v := create(t, h, metadata.NoID)
	for name, spoil := range map[string]func(*metadata.Ledger){
		"ack quorum":  func(l *metadata.Ledger) { l.AckQuorum = 4 },
		"no segment":  func(l *metadata.Ledger) { l.Segments = nil },
		"bookie":      func(l *metadata.Ledger) { l.Segments[0].Bookies[1] = "readonly" },
		"bookie name": func(l *metadata.Ledger) { l.Segments[0].Bookies[1] = "a/b" },
		"negative id": func(l *metadata.Ledger) { l.ID = -2 },
	} {
		bad := l.Clone()
		spoil(bad)
		_, err := h.Store.Update(t.Context(), bad, v)
		wantErr(t, "Update: "+name, err, metadata.ErrInvalid)
		if bad.ID == l.ID {
			bad.ID = metadata.NoID
		}
		_, err = h.Store.Create(t.Context(), bad)
		wantErr(t, "Create: "+name, err, metadata.ErrInvalid)
	}
	wantRead(t, h, l, v)
}

// Of two changes of one version one happens.
func testUpdateRace(t *testing.T, h Harness) {
	l, v := create(t, h, metadata.NoID)
	for range 10 {
		const racers = 4
		versions := make([]metadata.Version, racers)
		var wg sync.WaitGroup
		for i := range racers {
			wg.Go(func() {
				mine := l.Clone()
				mine.Segments[0].Bookies[0] = metadata.BookieID(fmt.Sprintf("racer-%d", i))
				got, err := h.Store.Update(t.Context(), mine, v)
				if err != nil {
					wantErr(t, "the slower Update", err, metadata.ErrConflict)
					got = metadata.AnyVersion
				}
				versions[i] = got
			})
		}
		wg.Wait()
		winners := 0
		for i, got := range versions {
			if got != metadata.AnyVersion {
				winners++
				v = got
				l.Segments[0].Bookies[0] = metadata.BookieID(fmt.Sprintf("racer-%d", i))
			}
		}
		if winners != 1 {
			t.Fatalf("%d racers won: %v", winners, versions)
		}
		wantRead(t, h, l, v)
	}
}

func testDelete(t *testing.T, h Harness) {
	l, old := create(t, h, metadata.NoID)
	v, err := h.Store.Update(t.Context(), l, old)
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, "Delete of the version before", h.Store.Delete(t.Context(), l.ID, old), metadata.ErrConflict)
	wantRead(t, h, l, v)
	for range 2 {
		if err := h.Store.Delete(t.Context(), l.ID, metadata.AnyVersion); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	if err := h.Store.Delete(t.Context(), l.ID, v); err != nil {
		t.Errorf("Delete of nothing at a version: %v", err)
	}
	if err := h.Store.Delete(t.Context(), 1<<40, metadata.AnyVersion); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
}

// Metadata that this code cannot read is an error of its own kind, is listed, and
// does not hide the others; what it does not know in what it can read is kept.
func testForeignBytes(t *testing.T, h Harness) {
	good, _ := create(t, h, 5)
	bytes, err := metadata.AppendLedger(nil, good)
	if err != nil {
		t.Fatal(err)
	}
	const header = "BookieMetadataFormatVersion\t"
	want := map[int64]error{5: nil, 6: metadata.ErrNewerVersion, 7: metadata.ErrOldVersion, 8: metadata.ErrCorrupt, 9: metadata.ErrCorrupt}
	h.PutLedger(6, []byte(header+"4\nwhat may come"))
	h.PutLedger(7, []byte(header+"2\nquorumSize: 2\n"))
	h.PutLedger(8, bytes[:len(bytes)-1])
	h.PutLedger(9, nil)
	for id, class := range want {
		_, _, err := h.Store.Read(t.Context(), id)
		wantErr(t, fmt.Sprintf("Read of ledger %d", id), err, class)
	}
	got := make(map[int64]error)
	if err := h.Store.List(t.Context(), 0, func(l metadata.Listed) bool {
		got[l.ID] = l.Err
		if (l.Err == nil) != (l.Ledger != nil) {
			t.Errorf("ledger %d is listed with %v and %v", l.ID, l.Ledger, l.Err)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("listed %v", got)
	}
	for id, class := range want {
		wantErr(t, fmt.Sprintf("listing of ledger %d", id), got[id], class)
	}
}

func list(t *testing.T, h Harness, from int64, limit int) []int64 {
	t.Helper()
	var ids []int64
	err := h.Store.List(t.Context(), from, func(l metadata.Listed) bool {
		if l.Err != nil || l.Ledger.ID != l.ID {
			t.Errorf("ledger %d is listed as %+v, %v", l.ID, l.Ledger, l.Err)
		}
		ids = append(ids, l.ID)
		return len(ids) != limit
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// Ids of both widths are listed in their order, from anywhere, and nothing else
// that is in the store is.
func testList(t *testing.T, h Harness) {
	h.Init("cluster")
	h.Register(metadata.Registration{ID: "127.0.0.1:3181"})
	if got := list(t, h, 0, -1); len(got) != 0 {
		t.Errorf("an empty store lists %v", got)
	}
	ids := []int64{
		0, 1, 9999, 10000, 123456789, 99_9999_9999 % metadata.MaxShortID, 900_000_000, 1_000_000_000, 2_099_999_999, metadata.MaxShortID - 1,
		metadata.MaxShortID, 1 << 32, 1<<32 + 1, 9_999_999_999_999_999, 10_000_000_000_000_000, 99_999_999_999_999_999,
		100_000_000_000_000_000, 1<<62 + 5, 1<<63 - 1,
	}
	for _, i := range rand.Perm(len(ids)) {
		create(t, h, ids[i])
	}
	slices.Sort(ids)
	for i, from := range append([]int64{-5}, ids...) {
		want := ids[max(0, i-1):]
		if got := list(t, h, from, -1); !slices.Equal(got, want) {
			t.Errorf("from %d: %v, want %v", from, got, want)
		}
		if got := list(t, h, from, 2); !slices.Equal(got, want[:min(2, len(want))]) {
			t.Errorf("from %d, two of them: %v", from, got)
		}
	}
	if got := list(t, h, ids[3]+1, 1); !slices.Equal(got, ids[4:5]) {
		t.Errorf("from between two: %v, want %d", got, ids[4])
	}
}

// More ledgers than any page holds, while ledgers come and go.
func testListPages(t *testing.T, h Harness) {
	const n = 1300
	var wg sync.WaitGroup
	for w := range int64(8) {
		wg.Go(func() {
			for id := 1 + w; id <= n; id += 8 {
				l := newLedger()
				l.ID = id * 7
				if _, err := h.Store.Create(t.Context(), l); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	last, stable := int64(-1), 0
	err := h.Store.List(t.Context(), 0, func(l metadata.Listed) bool {
		if l.ID <= last {
			t.Errorf("ledger %d after %d", l.ID, last)
		}
		last = l.ID
		switch {
		case l.ID%7 == 0 && l.ID%2 == 0:
			stable++ // never deleted
		case l.ID%70 == 7:
			create(t, h, l.ID+1)                                                           // ahead of the listing
			if err := h.Store.Delete(t.Context(), l.ID, metadata.AnyVersion); err != nil { // behind it
				t.Error(err)
			}
		}
		return true
	})
	if err != nil || stable != n/2 {
		t.Errorf("%d of %d ledgers that were there throughout, %v", stable, n/2, err)
	}
}

// await waits until the registry satisfies ok.
func await(t *testing.T, r *metadata.Registry, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		changed := r.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: the registry still says %+v", what, r.All())
		}
	}
}

func testBookies(t *testing.T, h Harness) {
	info := func(port int, extensions ...string) metadata.ServiceInfo {
		return metadata.ServiceInfo{Endpoints: []metadata.Endpoint{
			{ID: "http", Host: "127.0.0.1", Port: 8000, Protocol: "http"},
			{ID: "bookie", Host: "127.0.0.1", Port: port, Protocol: "bookie-rpc", Extensions: extensions},
		}}
	}
	h.Register(metadata.Registration{ID: "b1", Info: info(3181)})
	h.Register(metadata.Registration{ID: "127.0.0.1:3182"}) // before there were endpoints
	r, err := h.Store.Bookies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	is := func(id metadata.BookieID, state metadata.BookieState, addr string, tls bool) func() bool {
		return func() bool {
			b := r.Get(id)
			return b.ID == id && b.State == state && b.Addr == addr && b.TLS == tls
		}
	}
	for id, addr := range map[metadata.BookieID]string{"b1": "127.0.0.1:3181", "127.0.0.1:3182": "127.0.0.1:3182"} {
		if !is(id, metadata.Writable, addr, false)() {
			t.Errorf("at first: %+v", r.Get(id))
		}
	}
	if b := r.Get("127.0.0.1:9"); b != (metadata.Bookie{ID: "127.0.0.1:9", Addr: "127.0.0.1:9"}) {
		t.Errorf("a bookie that was never there: %+v", b)
	}
	if b := r.Get("b9"); b != (metadata.Bookie{ID: "b9"}) {
		t.Errorf("a bookie that was never there: %+v", b)
	}

	h.Register(metadata.Registration{ID: "b3", Info: info(3183, "other", "tls")})
	await(t, r, "a new bookie", is("b3", metadata.Writable, "127.0.0.1:3183", true))

	h.Unregister("b1")
	await(t, r, "a bookie that vanished keeps its address", is("b1", metadata.Vanished, "127.0.0.1:3181", false))
	gone := r.Get("b1").Since
	h.Register(metadata.Registration{ID: "b3", ReadOnly: true, Info: info(3183)})
	await(t, r, "read-only", is("b3", metadata.ReadOnly, "127.0.0.1:3183", false))
	if since := r.Get("b1").Since; since != gone || since.IsZero() {
		t.Errorf("b1 vanished at %v, and now at %v", gone, since)
	}
	h.Register(metadata.Registration{ID: "b1", Info: info(4181)})
	await(t, r, "a bookie that comes back elsewhere", is("b1", metadata.Writable, "127.0.0.1:4181", false))
	h.Register(metadata.Registration{ID: "b3", Info: info(3183)})
	await(t, r, "writable again", is("b3", metadata.Writable, "127.0.0.1:3183", false))

	var ids []metadata.BookieID
	for _, b := range r.All() {
		ids = append(ids, b.ID)
	}
	if want := []metadata.BookieID{"127.0.0.1:3182", "b1", "b3"}; !slices.Equal(ids, want) {
		t.Errorf("All = %v, want %v", ids, want)
	}
	r.Close()
	if !is("b1", metadata.Writable, "127.0.0.1:4181", false)() {
		t.Errorf("after Close: %+v", r.Get("b1"))
	}
}

func marks(t *testing.T, h Harness) map[int64][]metadata.BookieID {
	t.Helper()
	all, last := make(map[int64][]metadata.BookieID), int64(-1)
	err := h.Store.ListUnderReplicated(t.Context(), func(m metadata.Mark) bool {
		if m.Ledger <= last || m.CreatedMS == 0 {
			t.Errorf("mark %+v after ledger %d", m, last)
		}
		last = m.Ledger
		all[m.Ledger] = m.Missing
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func testMarks(t *testing.T, h Harness) {
	if got := marks(t, h); len(got) != 0 {
		t.Errorf("marks in an empty store: %v", got)
	}
	want := map[int64][]metadata.BookieID{42: {"127.0.0.1:3181", "b2"}, 1<<62 + 5: {"b2"}, 70000: {"b3"}}
	for range 2 {
		for id, missing := range want {
			for _, b := range missing {
				if err := h.Store.MarkUnderReplicated(t.Context(), id, []metadata.BookieID{b}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := marks(t, h); !reflect.DeepEqual(got, want) {
			t.Errorf("marks %v, want %v", got, want)
		}
	}
	h.Unmark(42)
	delete(want, 42)
	if got := marks(t, h); !reflect.DeepEqual(got, want) {
		t.Errorf("marks %v after one was done, want %v", got, want)
	}
	n := 0
	if err := h.Store.ListUnderReplicated(t.Context(), func(metadata.Mark) bool { n++; return false }); err != nil || n != 1 {
		t.Errorf("a listing that ends at once: %d marks, %v", n, err)
	}
	// Whoever marks at once loses nobody's bookie.
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if err := h.Store.MarkUnderReplicated(t.Context(), 7, []metadata.BookieID{metadata.BookieID(fmt.Sprintf("b%d", i))}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := marks(t, h)[7]; len(got) != 4 {
		t.Errorf("four bookies were marked at once: %v", got)
	}
}

func testEndedContext(t *testing.T, h Harness) {
	l, v := create(t, h, metadata.NoID)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := h.Store
	for name, call := range map[string]func() error{
		"InstanceID": func() error { _, err := s.InstanceID(ctx); return err },
		"Cookies":    func() error { _, err := s.Cookies(ctx); return err },
		"Create":     func() error { _, err := s.Create(ctx, newLedger()); return err },
		"Read":       func() error { _, _, err := s.Read(ctx, l.ID); return err },
		"Update":     func() error { _, err := s.Update(ctx, l, v); return err },
		"Delete":     func() error { return s.Delete(ctx, l.ID, v) },
		"List":       func() error { return s.List(ctx, 0, func(metadata.Listed) bool { return true }) },
		"Bookies":    func() error { _, err := s.Bookies(ctx); return err },
		"Mark":       func() error { return s.MarkUnderReplicated(ctx, l.ID, []metadata.BookieID{"b"}) },
		"Marks":      func() error { return s.ListUnderReplicated(ctx, func(metadata.Mark) bool { return true }) },
	} {
		wantErr(t, name+" with a context that ended", call(), context.Canceled)
	}
	wantRead(t, h, l, v)
	if got := marks(t, h); len(got) != 0 {
		t.Errorf("marks %v", got)
	}
}
