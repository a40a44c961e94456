package metadata_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

var noon = time.Unix(1_800_000_000, 0)

func TestUnderReplicated(t *testing.T) {
	ids := func(s ...metadata.BookieID) []metadata.BookieID { return s }
	ledger := func(id int64, wq int, segments ...metadata.Segment) *metadata.Ledger {
		return &metadata.Ledger{ID: id, Ensemble: 2, WriteQuorum: wq, AckQuorum: 1, State: metadata.Open, LastEntry: metadata.NoEntry, Segments: segments}
	}
	closed := func(l *metadata.Ledger, last int64) *metadata.Ledger {
		l.State, l.LastEntry = metadata.Closed, last
		return l
	}
	ledgers := []*metadata.Ledger{
		ledger(1, 2, metadata.Segment{First: 0, Bookies: ids("up", "up2")}),
		ledger(2, 2, metadata.Segment{First: 0, Bookies: ids("up", "dead")}, metadata.Segment{First: 9, Bookies: ids("up", "up2")}),
		ledger(3, 2, metadata.Segment{First: 0, Bookies: ids("late", "up")}),
		ledger(4, 2, metadata.Segment{First: 0, Bookies: ids("unheard", "up")}),
		ledger(5, 1, metadata.Segment{First: 0, Bookies: ids("dead", "up")}),
		ledger(6, 2, metadata.Segment{First: 0, Bookies: ids("dead2", "dead")}, metadata.Segment{First: 1, Bookies: ids("dead", "late")}),
		closed(ledger(7, 2, metadata.Segment{First: 0, Bookies: ids("up", "up2")}, metadata.Segment{First: 9, Bookies: ids("up", "dead")}), 8),
		closed(ledger(8, 2, metadata.Segment{First: 0, Bookies: ids("up", "up2")}, metadata.Segment{First: 9, Bookies: ids("up", "dead")}), 9),
		closed(ledger(9, 2, metadata.Segment{First: 0, Bookies: ids("dead", "up2")}), metadata.NoEntry),
		// It answers, though it is not registered.
		ledger(10, 2, metadata.Segment{First: 0, Bookies: ids("lapsed", "up")}),
	}
	alive := map[metadata.BookieID]bool{"up": true, "up2": true, "lapsed": true}
	const delay = time.Minute
	gone := map[metadata.BookieID]time.Time{
		"dead": noon.Add(-delay - 1), "dead2": noon.Add(-time.Hour), "late": noon.Add(-delay), "lapsed": noon.Add(-time.Hour), "elsewhere": noon.Add(-time.Hour),
	}
	want := map[int64][]metadata.BookieID{2: ids("dead"), 6: ids("dead", "dead2"), 8: ids("dead"), 9: ids("dead")}
	if got := metadata.UnderReplicated(ledgers, alive, gone, noon, delay); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := metadata.UnderReplicated(ledgers, alive, nil, noon, delay); len(got) != 0 {
		t.Errorf("nobody is known to be gone, and %v is marked", got)
	}
}
