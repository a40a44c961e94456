package etcd_test

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/etcd"
)

// Counters that were restored from a backup would give out ids a second time. After
// SkipIDs they do not, also if what is restored is a backup from before an earlier SkipIDs.
func TestSkipIDs(t *testing.T) {
	m := startMember(t, t.TempDir())
	defer m.Close()
	client := m.connect(t)
	s := etcd.New(etcd.Config{Client: client})
	create := func() int64 {
		t.Helper()
		l := &metadata.Ledger{ID: metadata.NoID, State: metadata.Open, Ensemble: 1, WriteQuorum: 1, AckQuorum: 1, Digest: metadata.CRC32C,
			Segments: []metadata.Segment{{First: 0, Bookies: []metadata.BookieID{"a:1"}}}}
		if _, err := s.Create(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		return l.ID
	}
	given := map[int64]bool{}
	fresh := func(when string) {
		t.Helper()
		for range 3 {
			id := create()
			if given[id] {
				t.Errorf("id %d is given out again %s", id, when)
			}
			given[id] = true
		}
	}
	fresh("at first")
	now := time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC)
	for i := range 2 {
		// What a backup from before holds: no counters at all is the worst of it.
		if _, err := client.Delete(t.Context(), "/ledgers/", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		if err := s.SkipIDs(t.Context(), now.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
		fresh("after a restore")
	}
	// Without a restore in between, and with a clock that stands still, too.
	for range 2 {
		if err := s.SkipIDs(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		fresh("after another call")
	}
}
