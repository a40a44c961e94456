package check

import (
	"math/rand/v2"
	"slices"
	"testing"
)

var p0 = Partition{"events", 0}

// honest returns a history of two producers and a complete read of a log that
// kept its word: some sends were never acknowledged, and of those some are in
// the log.
func honest(n int) (History, Read) {
	rng := rand.New(rand.NewPCG(7, 11))
	h := History{Sends: map[Partition][]Send{}, Acks: map[Partition][]Ack{}}
	r := Read{Name: "first read", Complete: true, Records: map[Partition][]Record{}}
	clock := int64(0)
	tick := func() int64 { clock++; return clock }
	for _, p := range []Partition{p0, {"events", 1}} {
		var sequence [2]uint64
		offset := int64(0)
		for range n {
			producer := rng.IntN(2)
			sequence[producer]++
			id := NewID(uint16(producer), sequence[producer]|uint64(p.Number)<<32)
			h.Sends[p] = append(h.Sends[p], Send{id, tick()})
			fate := rng.IntN(10)
			if fate == 0 { // never arrived
				continue
			}
			r.Records[p] = append(r.Records[p], Record{Offset: offset, ID: id})
			if fate > 1 { // else stored, and the answer was lost
				h.Acks[p] = append(h.Acks[p], Ack{id, offset, tick()})
			}
			offset++
		}
	}
	return h, r
}

func clone(r Read, name string) Read {
	c := Read{Name: name, Complete: r.Complete, Records: map[Partition][]Record{}}
	for p, records := range r.Records {
		c.Records[p] = slices.Clone(records)
	}
	return c
}

func TestHonestLogPasses(t *testing.T) {
	h, r := honest(1000)
	tail := clone(r, "tail")
	tail.Complete = false
	tail.Records[p0] = tail.Records[p0][100:200]
	if found := Check(h, r, clone(r, "second read"), tail); len(found) != 0 {
		t.Fatalf("%d violations in an honest history, first: %s", len(found), found[0])
	}
}

// A producer that is not idempotent may store a record again, and then out of
// order; whoever asks for an end while records are under way may be told of less
// than is acknowledged when the answer comes.
func TestWhatIsAllowed(t *testing.T) {
	h, r := honest(200)
	h.Plain = map[uint16]bool{0: true, 1: true}
	again := r.Records[p0][10]
	again.Offset = int64(len(r.Records[p0]))
	r.Records[p0] = append(r.Records[p0], again)
	h.Ends = map[Partition][]End{p0: {{0, 0, 1 << 40}, {again.Offset, 1 << 40, 1<<40 + 5}, {again.Offset + 1, 1<<40 + 1, 1<<40 + 2}, {again.Offset, 1<<40 + 1, 1<<40 + 9}}}
	h.Refusals = map[Partition][]Refusal{p0: {{NewID(1, 9_000_000), 5, "too large"}}}
	if found := Check(h, r); len(found) != 0 {
		t.Fatalf("%d violations, first: %s", len(found), found[0])
	}
}

// A success without an offset says that the record is there, and no more.
func TestUntoldOffset(t *testing.T) {
	h, r := honest(200)
	h.Acks[p0][20].Offset = Untold
	if found := Check(h, r); len(found) != 0 {
		t.Fatalf("%d violations, first: %s", len(found), found[0])
	}
	missing := NewID(0, 9_000_000)
	h.Sends[p0] = append(h.Sends[p0], Send{missing, 1})
	h.Acks[p0] = append(h.Acks[p0], Ack{missing, Untold, 2})
	if found := Check(h, r); len(found) != 1 || found[0].Kind != Lost || found[0].ID != missing {
		t.Fatalf("%v, want only that %s is lost", found, missing)
	}
}

// Each case plants one fault in an honest history and names what must be
// found; other kinds may be found along with it.
func TestPlantedFaults(t *testing.T) {
	acked := func(h History) int { return len(h.Acks[p0]) / 2 } // the ack whose record suffers
	index := func(h History, r Read) int {
		id := h.Acks[p0][acked(h)].ID
		return slices.IndexFunc(r.Records[p0], func(rec Record) bool { return rec.ID == id })
	}
	renumber := func(records []Record) {
		for i := range records {
			records[i].Offset = int64(i)
		}
	}
	cases := []struct {
		name  string
		kind  Kind
		plant func(h *History, first, second *Read)
	}{
		{"acknowledged record missing, others moved up", Lost, func(h *History, first, second *Read) {
			for _, r := range []*Read{first, second} {
				i := index(*h, *r)
				r.Records[p0] = slices.Delete(r.Records[p0], i, i+1)
				renumber(r.Records[p0])
			}
		}},
		{"acknowledged tail cut off", Lost, func(h *History, first, second *Read) {
			for _, r := range []*Read{first, second} {
				r.Records[p0] = r.Records[p0][:index(*h, *r)]
			}
		}},
		{"acknowledged partition empty", Lost, func(_ *History, first, second *Read) {
			delete(first.Records, p0)
			delete(second.Records, p0)
		}},
		{"later offsets shifted by one", Misplaced, func(h *History, first, second *Read) {
			for _, r := range []*Read{first, second} {
				records := r.Records[p0]
				for i := index(*h, *r); i < len(records); i++ {
					records[i].Offset++
				}
			}
		}},
		{"record stored twice", Duplicated, func(h *History, first, second *Read) {
			for _, r := range []*Read{first, second} {
				r.Records[p0] = append(r.Records[p0], Record{Offset: int64(len(r.Records[p0])), ID: r.Records[p0][index(*h, *r)].ID})
			}
		}},
		{"one record acknowledged at two offsets", Duplicated, func(h *History, _, _ *Read) {
			a := h.Acks[p0][acked(*h)]
			h.Acks[p0] = append(h.Acks[p0], Ack{a.ID, a.Offset + 1_000_000, a.At})
		}},
		{"two records acknowledged at one offset", Diverged, func(h *History, _, _ *Read) {
			i := acked(*h)
			h.Acks[p0][i].Offset = h.Acks[p0][i+1].Offset
		}},
		{"two records of a producer swapped", Reordered, func(h *History, first, second *Read) {
			records := first.Records[p0]
			i := index(*h, *first)
			j := i + 1
			for records[j].ID.Producer() != records[i].ID.Producer() {
				j++
			}
			for _, r := range []*Read{first, second} {
				r.Records[p0][i].ID, r.Records[p0][j].ID = r.Records[p0][j].ID, r.Records[p0][i].ID
			}
		}},
		{"a record of a producer that sends once is stored twice", Duplicated, func(h *History, first, second *Read) {
			h.Once = map[uint16]bool{0: true, 1: true}
			for _, r := range []*Read{first, second} {
				r.Records[p0] = append(r.Records[p0], Record{Offset: int64(len(r.Records[p0])), ID: r.Records[p0][index(*h, *r)].ID})
			}
		}},
		{"records of two producers against real time", Reordered, func(h *History, first, second *Read) {
			acks := h.Acks[p0]
			i := acked(*h)
			for acks[i+1].ID.Producer() == acks[i].ID.Producer() || acks[i+1].Offset != acks[i].Offset+1 {
				i++
			}
			a, b := &acks[i], &acks[i+1]
			a.Offset, b.Offset = b.Offset, a.Offset
			for _, r := range []*Read{first, second} {
				r.Records[p0][b.Offset].ID, r.Records[p0][a.Offset].ID = b.ID, a.ID
			}
		}},
		{"second read sees another record", Diverged, func(_ *History, _, second *Read) {
			records := second.Records[p0]
			records[3].ID = records[4].ID
		}},
		{"a tail reader saw a record that is gone", Diverged, func(h *History, first, second *Read) {
			second.Complete = false
			unknown := NewID(0, 5_000_000)
			h.Sends[p0] = append(h.Sends[p0], Send{unknown, 1 << 40})
			n := int64(len(first.Records[p0]))
			second.Records[p0] = append(second.Records[p0], Record{Offset: n, ID: unknown})
			other := NewID(1, 5_000_001)
			h.Sends[p0] = append(h.Sends[p0], Send{other, 1 << 40})
			first.Records[p0] = append(first.Records[p0], Record{Offset: n, ID: other})
		}},
		{"offset left out", Gap, func(h *History, first, second *Read) {
			for _, r := range []*Read{first, second} {
				// The last record: every other keeps its offset.
				n := len(r.Records[p0])
				r.Records[p0][n-1].Offset++
			}
			h.Acks[p0] = slices.DeleteFunc(h.Acks[p0], func(a Ack) bool { return a.ID == first.Records[p0][len(first.Records[p0])-1].ID })
		}},
		{"log does not start at offset 0", Gap, func(h *History, first, second *Read) {
			for _, r := range []*Read{first, second} {
				r.Records[p0] = r.Records[p0][1:]
			}
		}},
		{"record from another partition", Invented, func(_ *History, first, second *Read) {
			for _, r := range []*Read{first, second} {
				r.Records[p0] = append(r.Records[p0], Record{Offset: int64(len(r.Records[p0])), ID: r.Records[Partition{"events", 1}][0].ID})
			}
		}},
		{"a tail reader saw what no complete read has", Vanished, func(h *History, first, second *Read) {
			second.Complete = false
			n := len(first.Records[p0])
			h.Acks[p0] = slices.DeleteFunc(h.Acks[p0], func(a Ack) bool { return a.ID == first.Records[p0][n-1].ID })
			first.Records[p0] = first.Records[p0][:n-1]
		}},
		{"a refused record is read", Unwritten, func(h *History, first, _ *Read) {
			i := slices.IndexFunc(first.Records[p0], func(rec Record) bool {
				return !slices.ContainsFunc(h.Acks[p0], func(a Ack) bool { return a.ID == rec.ID })
			})
			h.Refusals = map[Partition][]Refusal{p0: {{first.Records[p0][i].ID, 1 << 40, "too large"}}}
		}},
		{"a record of an older leader behind one of a newer", EpochBack, func(_ *History, first, _ *Read) {
			first.Records[p0][7].Epoch = 3
		}},
		{"a plain producer's record is stored again, but not where it was acknowledged", Misplaced, func(h *History, first, second *Read) {
			h.Plain = map[uint16]bool{0: true, 1: true}
			id := h.Acks[p0][acked(*h)].ID
			for _, r := range []*Read{first, second} {
				i := index(*h, *r)
				r.Records[p0][i].ID = NewID(0, 7_000_000)
				for range 2 {
					r.Records[p0] = append(r.Records[p0], Record{Offset: int64(len(r.Records[p0])), ID: id})
				}
			}
			h.Sends[p0] = append(h.Sends[p0], Send{NewID(0, 7_000_000), 1})
		}},
		{"an end from before an acknowledgement", StaleEnd, func(h *History, _, _ *Read) {
			a := h.Acks[p0][acked(*h)]
			h.Ends = map[Partition][]End{p0: {{a.Offset, a.At + 1, a.At + 2}}}
		}},
		{"an end from before another answer", StaleEnd, func(h *History, first, _ *Read) {
			n := int64(len(first.Records[p0]))
			h.Ends = map[Partition][]End{p0: {{n, 1 << 40, 1<<40 + 1}, {n - 1, 1<<40 + 2, 1<<40 + 3}}}
		}},
		{"an end of 0 as if the log were empty", ZeroEnd, func(h *History, _, _ *Read) {
			h.Ends = map[Partition][]End{p0: {{0, 1 << 40, 1<<40 + 1}}}
		}},
		{"an end that the log never reached", BeyondEnd, func(h *History, first, _ *Read) {
			h.Ends = map[Partition][]End{p0: {{int64(len(first.Records[p0])) + 1, 1 << 40, 1<<40 + 1}}}
		}},
		{"nothing comes any more before the end", Unreadable, func(h *History, first, second *Read) {
			for _, r := range []*Read{first, second} {
				r.Records[p0] = r.Records[p0][:50]
				r.Stuck = map[Partition]string{p0: "nothing came from offset 50 on"}
			}
		}},
		{"acknowledgement of a record never sent", Invented, func(h *History, _, _ *Read) {
			h.Acks[p0] = append(h.Acks[p0], Ack{NewID(9, 9), 1 << 30, 1 << 40})
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h, first := honest(200)
			second := clone(first, "second read")
			c.plant(&h, &first, &second)
			found := Check(h, first, second)
			if !slices.ContainsFunc(found, func(v Violation) bool { return v.Kind == c.kind && v.Partition == p0 }) {
				t.Errorf("no %q violation found among %d: %v", c.kind, len(found), found)
			}
		})
	}
}

// Of a partition that could not be read to its end nobody knows what is lost of it;
// of the others all is known.
func TestStuckIsNotLost(t *testing.T) {
	h, first := honest(200)
	h.Ends = map[Partition][]End{p0: {{int64(len(first.Records[p0])), 1 << 40, 1<<40 + 1}}}
	first.Records[p0] = first.Records[p0][:50]
	first.Stuck = map[Partition]string{p0: "nothing came from offset 50 on"}
	tail := clone(first, "tail")
	tail.Complete = false
	other := Partition{"events", 1}
	first.Records[other] = first.Records[other][:len(first.Records[other])-20]
	for _, v := range Check(h, first, tail) {
		if v.Partition == p0 && v.Kind != Unreadable || v.Partition == other && v.Kind != Lost && v.Kind != Vanished {
			t.Errorf("found %s", v)
		}
	}
}

func TestIDKeepsBothParts(t *testing.T) {
	id := NewID(65535, MaxSequence)
	if id.Producer() != 65535 || id.Sequence() != MaxSequence {
		t.Fatalf("got %s", id)
	}
	if NewID(1, MaxSequence) >= NewID(2, 0) {
		t.Fatal("a producer's largest id reaches into the next producer's")
	}
}
