package quorum

import (
	"testing"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// FuzzEvents gives both machines events in any order, whether they make sense or
// not: bookies, the network and the metadata store are not to be trusted. The
// machines neither panic nor ask for more than follows from the events.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00"), uint8(0))
	f.Add([]byte{0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 0, 7, 2, 0, 3, 9, 4, 1, 5, 0}, uint8(1))
	f.Add([]byte{8, 0, 0, 0, 9, 0, 0, 0, 9, 1, 0, 0, 10, 0, 0, 0, 10, 1, 1, 0, 1, 0, 0, 0, 4, 0, 0, 0}, uint8(2))
	f.Fuzz(func(t *testing.T, events []byte, shape uint8) {
		l := []*metadata.Ledger{
			open(3, 2, "0 b1 b2 b3"), open(2, 2, "0 b1 b2 b3 b4"), open(1, 1, "0 b1"), open(2, 1, "0 b1 b2"),
		}[shape%4]
		names := ids("b1 b2 b3 b4 b5 b6")
		recoverable := l.Clone()
		if shape&4 != 0 {
			recoverable.State = metadata.InRecovery
			recoverable.Segments = append(recoverable.Segments, metadata.Segment{First: 3, Bookies: l.Segments[0].Bookies})
		}
		w, err := NewWriter(l, 1, &spares{ids("b5 b6 b1")})
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewRecovery(recoverable, 1, &spares{ids("b5 b6 b1")}, int(shape>>4))
		if err != nil {
			t.Fatal(err)
		}
		variants := []*metadata.Ledger{
			nil, l, recoverable, inRecovery(l), closed(l, 2, 5), closed(l, -1, 0), {}, open(3, 2, "0 b9 b2 b3", "4 b1 b5 b3"),
		}
		entries, effects := 0, 0
		for i := 0; i+3 < len(events) && i < 4000; i += 4 {
			kind, a, b, c := events[i], int(events[i+1]), events[i+2], events[i+3]
			entry, index, bookie := int64(a)-2, int(b%8)-1, names[int(b/8)%len(names)]
			class := Class(c % 11)
			switch kind % 19 {
			case 0:
				if _, _, _, err := w.Append(int(c)); err == nil {
					entries++
				}
			case 1:
				w.AddReply(entry, index, bookie, class)
				r.AddReply(entry, index, bookie, class)
			case 2:
				w.BookieFailed(bookie)
			case 3:
				w.BookieReturned(bookie)
			case 4:
				w.Stored(metadata.Version(a))
				r.Stored(metadata.Version(a))
			case 5:
				w.Conflict(variants[int(b)%len(variants)], metadata.Version(a))
			case 6:
				r.Conflict(variants[int(b)%len(variants)], metadata.Version(a))
			case 7:
				w.StoreFailed(errStoreAway)
			case 8:
				r.Start()
			case 9, 10:
				r.LastReply(index, bookie, class, Last{Entry: entry, LAC: int64(b) - 5, Length: int64(c) - 3})
			case 11, 12, 13:
				r.ReadReply(entry, index, bookie, class, int64(c)-3)
			case 14:
				w.Retry()
			case 18:
				w.StoreDelayed()
			case 15:
				if c == 0 {
					w.Close()
				}
			case 17:
				stalled := func(id metadata.BookieID) bool { return id != names[c%3] }
				w.BookieStalled(bookie, stalled, c%2 == 0)
				r.BookieStalled(bookie, stalled)
			case 16:
				if c == 0 {
					w.Abort(errAborted)
				}
				w.Settle()
			}
			if w.LAC() >= int64(entries) || w.Pending() < 0 || w.Unreleased() < w.Pending() {
				t.Fatalf("LAC %d, %d pending, %d unreleased of %d entries", w.LAC(), w.Pending(), w.Unreleased(), entries)
			}
			effects += len(w.Effects(nil)) + len(r.Effects(nil))
		}
		// Each event may send all that is pending, once for each position it changes.
		if most := (len(events) + 16) * (entries + 64) * 8; effects > most {
			t.Fatalf("%d effects of %d bytes of events", effects, len(events))
		}
	})
}
