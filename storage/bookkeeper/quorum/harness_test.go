package quorum

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// spares is a placement that hands out bookies in order.
type spares struct{ ids []metadata.BookieID }

func (s *spares) Replace([]metadata.BookieID, int) (metadata.BookieID, bool) {
	if len(s.ids) == 0 {
		return "", false
	}
	id := s.ids[0]
	s.ids = s.ids[1:]
	return id, true
}

// among returns whether a bookie is one of names.
func among(names string) func(metadata.BookieID) bool {
	return func(id metadata.BookieID) bool { return slices.Contains(ids(names), id) }
}

func ids(names string) []metadata.BookieID {
	var list []metadata.BookieID
	for _, n := range strings.Fields(names) {
		list = append(list, metadata.BookieID(n))
	}
	return list
}

// open returns the metadata of an open ledger. segments are "first bookie …".
func open(writeQuorum, ackQuorum int, segments ...string) *metadata.Ledger {
	l := &metadata.Ledger{ID: 7, WriteQuorum: writeQuorum, AckQuorum: ackQuorum, State: metadata.Open, LastEntry: metadata.NoEntry}
	for _, text := range segments {
		var first int64
		first0, bookies, _ := strings.Cut(text, " ")
		if _, err := fmt.Sscan(first0, &first); err != nil {
			panic(err)
		}
		l.Segments = append(l.Segments, metadata.Segment{First: first, Bookies: ids(bookies)})
	}
	l.Ensemble = len(l.Segments[0].Bookies)
	return l
}

func closed(l *metadata.Ledger, last, length int64) *metadata.Ledger {
	c := l.Clone()
	c.State, c.LastEntry, c.Length = metadata.Closed, last, length
	return c
}

func inRecovery(l *metadata.Ledger) *metadata.Ledger {
	c := l.Clone()
	c.State = metadata.InRecovery
	return c
}

func showLedger(l *metadata.Ledger) string {
	if l == nil {
		return "nothing"
	}
	text := l.State.String()
	if l.State == metadata.Closed {
		text += fmt.Sprintf(" at %d length %d", l.LastEntry, l.Length)
	}
	for _, s := range l.Segments {
		text += fmt.Sprintf(" %d%v", s.First, s.Bookies)
	}
	return text
}

// show prints effects, one line each; requests of the same kind for the same entry
// share a line.
func show(effects []Effect) string {
	var lines []string
	last := ""
	for _, e := range effects {
		line := ""
		switch e.Kind {
		case Send, Read, ReadLast:
			head := fmt.Sprintf("%v %d", e.Kind, e.Entry)
			if e.Kind == ReadLast {
				head = e.Kind.String()
			}
			for i, name := range []string{"fence", "recovery", "priority"} {
				if e.Flags&(1<<i) != 0 {
					head += " " + name
				}
			}
			if head == last {
				lines[len(lines)-1] += " " + string(e.Bookie)
				continue
			}
			last = head
			lines = append(lines, head+": "+string(e.Bookie))
			continue
		case Acknowledge:
			line = fmt.Sprintf("Acknowledge %d…%d", e.First, e.Entry)
		case Release:
			line = fmt.Sprintf("Release %d", e.Entry)
		case Store:
			line = fmt.Sprintf("Store over %d: %s", e.Version, showLedger(e.Ledger))
		case Degraded, Lacking:
			line = fmt.Sprintf("%v %d %s", e.Kind, e.Index, e.Bookie)
		case Failed:
			line = "Failed: " + e.Err.Error()
		case Sealed, Unsealed:
			line = fmt.Sprintf("%v: %s", e.Kind, showLedger(e.Ledger))
			if e.Err != nil {
				line += ": " + e.Err.Error()
			}
		}
		last = ""
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// machine is what both machines have.
type machine interface{ Effects([]Effect) []Effect }

// expect compares the effects of what happened since the last expect.
func expect(t *testing.T, m machine, want ...string) {
	t.Helper()
	if got := show(m.Effects(nil)); got != strings.Join(want, "\n") {
		t.Fatalf("effects:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

// answers gives the answers "entry bookie [class]" to a machine's adds; without a
// class it is an Ack.
type adder interface {
	AddReply(entry int64, index int, bookie metadata.BookieID, class Class)
}

func reply(t *testing.T, m adder, ensemble string, answers ...string) {
	t.Helper()
	for _, a := range answers {
		entry, bookie, class := parseAnswer(t, a)
		index := -1
		for i, b := range ids(ensemble) {
			if b == bookie {
				index = i
			}
		}
		m.AddReply(entry, index, bookie, class)
	}
}

func parseAnswer(t *testing.T, text string) (entry int64, bookie metadata.BookieID, class Class) {
	t.Helper()
	words := strings.Fields(text)
	if _, err := fmt.Sscan(words[0], &entry); err != nil {
		t.Fatal(err)
	}
	class = Ack
	if len(words) > 2 {
		for c := Ack; c <= Unknown; c++ {
			if c.String() == words[2] {
				class = c
			}
		}
		if class == Ack {
			t.Fatalf("no class %q", words[2])
		}
	}
	return entry, metadata.BookieID(words[1]), class
}
