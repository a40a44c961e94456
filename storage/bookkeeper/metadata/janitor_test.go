package metadata_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

var noon = time.Unix(1_800_000_000, 0)

func TestTimes(t *testing.T) {
	var times metadata.Times[int64]
	times.Note(noon, []int64{1, 2})
	times.Note(noon.Add(time.Second), []int64{2, 3})
	times.Note(noon.Add(2*time.Second), []int64{1, 2, 3})
	want := metadata.Times[int64]{1: noon.Add(2 * time.Second), 2: noon, 3: noon.Add(time.Second)}
	if !reflect.DeepEqual(times, want) {
		t.Errorf("%v, want %v", times, want)
	}
}

// Writers create, link and unlink ledgers while a janitor goes round in the order
// that Orphans asks for. It never deletes a linked one, nor one that its writer
// could still link; what is left behind goes once grace has passed.
func TestOrphans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const grace = 10 * time.Second
		type ledger struct {
			created time.Time
			linked  bool
		}
		exists := make(map[int64]*ledger)
		var seen metadata.Times[int64]
		now, nextID := noon, int64(0)
		live := func() int64 {
			var ids []int64
			for id := range exists {
				ids = append(ids, id)
			}
			if len(ids) == 0 {
				return -1
			}
			slices.Sort(ids)
			return rapid.SampledFrom(ids).Draw(t, "ledger")
		}
		writers := func() {
			for range rapid.IntRange(0, 4).Draw(t, "steps") {
				now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
				switch id := live(); rapid.IntRange(0, 3).Draw(t, "what") {
				case 0:
					nextID++
					exists[nextID] = &ledger{created: now}
				case 1, 2:
					// A writer links in time, or gives up.
					if id >= 0 && now.Sub(exists[id].created) < grace {
						exists[id].linked = true
					}
				case 3:
					if id >= 0 {
						exists[id].linked = false
					}
				}
			}
		}
		round := func() {
			var listed []int64
			for id := range exists {
				listed = append(listed, id)
			}
			seen.Note(now, listed)
			writers()
			linked := make(map[int64]bool)
			for id, l := range exists {
				if l.linked {
					linked[id] = true
				}
			}
			orphans := metadata.Orphans(linked, seen, now, grace)
			if !slices.IsSorted(orphans) {
				t.Fatalf("orphans %v", orphans)
			}
			for _, id := range orphans {
				if l := exists[id]; l.linked || now.Sub(l.created) <= grace {
					t.Fatalf("ledger %d, linked %v, %v old, is deleted", id, l.linked, now.Sub(l.created))
				}
				delete(exists, id)
			}
			for id, since := range seen {
				if l := exists[id]; l != nil && !l.linked && now.Sub(since) > grace {
					t.Fatalf("ledger %d is left, unlinked, seen for %v", id, now.Sub(since))
				}
			}
		}
		for range rapid.IntRange(1, 20).Draw(t, "rounds") {
			writers()
			round()
		}
	})
}

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
	gone := metadata.Times[metadata.BookieID]{
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
