package groupcheck

import (
	"slices"
	"testing"
	"time"
)

const session = 6 * time.Second

var (
	p0, p1, p2, p3 = Partition{"t", 0}, Partition{"t", 1}, Partition{"t", 2}, Partition{"t", 3}
	all            = []Partition{p0, p1, p2, p3}
)

// seconds is a time of a story.
func seconds(s float64) int64 { return int64(s * 1e9) }

// A story builds a history of one group g, step by step in time.
type story struct{ History }

func newStory() *story {
	s := &story{History{Groups: map[string]Group{"g": {Partitions: all, Session: session}}, End: seconds(100)}}
	s.at(0, Event{Kind: Up})
	return s
}

func (s *story) at(t float64, e Event) {
	e.At = seconds(t)
	if e.Kind != Up && e.Kind != Down {
		e.Group = "g"
	}
	if e.Began == 0 {
		e.Began = e.At
	}
	s.Events = append(s.Events, e)
}

func (s *story) did(t float64, member string, kind Kind, partitions ...Partition) {
	s.at(t, Event{Kind: kind, Member: member, Partitions: partitions})
}

// told is a classic member's assignment, on the wire and to its application.
func (s *story) told(t float64, member string, generation int32, partitions ...Partition) {
	s.at(t, Event{Kind: Told, Member: member, ID: "id-" + member, Generation: generation, Partitions: partitions, Classic: true})
	s.did(t, member, Assigned, partitions...)
}

func (s *story) wire(t float64, member string, kind Kind, generation int32) {
	s.at(t, Event{Kind: kind, Member: member, ID: "id-" + member, Generation: generation, Classic: true})
}

func (s *story) commit(t float64, member string, p Partition, offset int64, acked bool) {
	s.Commits = append(s.Commits, Commit{"g", member, p, offset, seconds(t), seconds(t + 0.1), acked})
}

func (s *story) read(t float64, reader string, p Partition, offset int64) {
	s.Reads = append(s.Reads, Read{"g", reader, p, offset, seconds(t), seconds(t + 0.1)})
}

// honest is a group of the classic protocol that two members join, in which a
// third one comes, one leaves and one falls silent, over a restart of the server.
func honest() *story {
	s := newStory()
	s.did(1, "a", Joined)
	s.did(1, "b", Joined)
	s.wire(1.1, "a", Joins, 0)
	s.wire(1.1, "b", Joins, 0)
	s.told(2, "a", 1, p0, p1)
	s.told(2, "b", 1, p2, p3)
	s.commit(3, "a", p0, 10, true)
	s.wire(3.1, "a", Committed, 1)
	s.wire(3.1, "a", Heard, 1)
	s.read(3.5, "observer", p0, 10)
	s.commit(4, "a", p0, 12, false) // its answer was lost
	s.read(5, "observer", p0, 12)

	s.at(6, Event{Kind: Down})
	s.at(7, Event{Kind: Up})
	s.wire(7.5, "a", Heard, 1)
	s.wire(7.5, "b", Heard, 1)
	s.read(7.6, "observer", p0, 12)

	s.did(10, "c", Joined)
	s.wire(10.1, "c", Joins, 0)
	s.did(10.5, "a", Revoked, p0, p1)
	s.wire(10.5, "a", Joins, 1)
	s.did(10.6, "b", Revoked, p2, p3)
	s.wire(10.6, "b", Joins, 1)
	s.told(11, "a", 2, p0)
	s.told(11, "b", 2, p1)
	s.told(11, "c", 2, p2, p3)

	s.did(20, "b", Left)
	s.did(20.1, "b", Revoked, p1)
	s.wire(20.2, "b", Departed, 2)
	s.did(20.5, "a", Revoked, p0)
	s.wire(20.5, "a", Joins, 2)
	s.did(20.5, "c", Revoked, p2, p3)
	s.wire(20.5, "c", Joins, 2)
	s.told(21, "a", 3, p0, p1)
	s.told(21, "c", 3, p2, p3)

	s.wire(30, "c", Heard, 3)
	s.did(30.5, "c", Silenced)
	s.did(36.4, "a", Revoked, p0, p1)
	s.wire(36.4, "a", Joins, 3)
	s.told(36.5, "a", 4, all...)
	s.read(36.6, "a at its start", p0, 12)
	s.commit(40, "a", p0, 20, true)
	s.read(41, "last", p0, 20)
	return s
}

// modern is a group of the consumer protocol: b gets what a gives up.
func modern() *story {
	s := newStory()
	give := func(t float64, member string, epoch int32, partitions ...Partition) {
		s.at(t, Event{Kind: Told, Member: member, ID: "id-" + member, Generation: epoch, Partitions: partitions})
	}
	s.did(1, "a", Joined)
	give(2, "a", 1, all...)
	s.did(2, "a", Assigned, all...)
	s.did(5, "b", Joined)
	give(5.2, "b", 2)
	give(5.5, "a", 1, p0, p1)
	s.did(5.6, "a", Revoked, p2, p3)
	s.at(5.7, Event{Kind: Owns, Member: "a", ID: "id-a", Generation: 1, Partitions: []Partition{p0, p1}})
	give(6, "b", 2, p2, p3)
	s.did(6, "b", Assigned, p2, p3)
	s.at(9, Event{Kind: Heard, Member: "a", ID: "id-a", Generation: 2})
	return s
}

func TestHonestHistoriesPass(t *testing.T) {
	for name, s := range map[string]*story{"classic": honest(), "consumer": modern()} {
		if found := Check(s.History); len(found) != 0 {
			t.Errorf("%s: %d violations, first: %s", name, len(found), found[0])
		}
	}
}

// insert puts an event where its time belongs.
func (s *story) insert(t float64, e Event) {
	e.Group = "g"
	e.At = seconds(t)
	if e.Began == 0 {
		e.Began = e.At
	}
	i := 0
	for i < len(s.Events) && s.Events[i].At <= e.At {
		i++
	}
	s.Events = slices.Insert(s.Events, i, e)
}

// drop removes the events of a member between two times.
func (s *story) drop(from, to float64, members ...string) {
	s.Events = slices.DeleteFunc(s.Events, func(e Event) bool {
		return e.At >= seconds(from) && e.At < seconds(to) && slices.Contains(members, e.Member)
	})
}

// Each case plants one fault in an honest history and names what must be found,
// and nothing else may be.
func TestPlantedFaults(t *testing.T) {
	classic := func(member string, kind Kind, generation int32, partitions ...Partition) Event {
		return Event{Kind: kind, Member: member, ID: "id-" + member, Generation: generation, Partitions: partitions, Classic: true}
	}
	for _, c := range []struct {
		name  string
		rule  Rule
		make  func() *story
		plant func(s *story)
	}{
		{"an acknowledged commit is gone", RolledBack, honest, func(s *story) { s.Reads[len(s.Reads)-1].Offset = 12 }},
		{"nothing is committed after a restart", RolledBack, honest, func(s *story) { s.Reads[2].Offset = None }},
		{"a member starts from the beginning", RolledBack, honest, func(s *story) { s.Reads[3].Offset = None }},
		{"a commit without an answer is read and then gone", RolledBack, honest, func(s *story) { s.Reads[2].Offset = 10 }},
		{"an attempt that was given up is executed after the next commit", Undone, honest, func(s *story) {
			s.Attempts = []Attempt{{"g", "a", p0, 12, seconds(37), seconds(39)}}
			s.Reads[len(s.Reads)-1].Offset = 12
		}},
		{"an attempt was given up long before", RolledBack, honest, func(s *story) {
			s.Attempts = []Attempt{{"g", "a", p0, 12, seconds(4), seconds(5)}}
			s.Reads[len(s.Reads)-1].Offset = 12
		}},
		{"an offset that nobody committed", Invented, honest, func(s *story) { s.Reads[0].Offset = 11 }},
		{"an offset that was committed later", Invented, honest, func(s *story) {
			s.Reads = []Read{{"g", "observer", p0, 20, seconds(1), seconds(1.1)}}
		}},
		{"two members share a partition in one generation", Shared, honest, func(s *story) {
			s.insert(11.01, classic("b", Told, 2, p1, p2))
		}},
		{"a partition is given away while its member holds it", Shared, modern, func(s *story) {
			s.Events = slices.DeleteFunc(s.Events, func(e Event) bool { return e.Kind == Owns })
			s.insert(5.9, Event{Kind: Heard, Member: "a", ID: "id-a", Generation: 1})
		}},
		{"a commit of the generation before", Stale, honest, func(s *story) { s.insert(11.5, classic("b", Committed, 1)) }},
		{"a restart makes a member join again", Uncaused, honest, func(s *story) { s.insert(7.2, classic("a", Joins, 1)) }},
		{"partitions are revoked out of the blue", Uncaused, honest, func(s *story) {
			s.insert(8, Event{Kind: Revoked, Member: "a", Partitions: []Partition{p0}})
			s.insert(8.1, Event{Kind: Assigned, Member: "a", Partitions: []Partition{p0}})
		}},
		{"partitions are lost over a restart", Uncaused, honest, func(s *story) {
			s.insert(7.2, Event{Kind: Lost, Member: "b", Partitions: []Partition{p2, p3}})
			s.insert(7.3, Event{Kind: Assigned, Member: "b", Partitions: []Partition{p2, p3}})
		}},
		{"a member that answers is forgotten", ThrownOut, honest, func(s *story) { s.insert(7.6, classic("a", Expelled, 1)) }},
		{"a session ends early", TooEarly, honest, func(s *story) {
			for i := range s.Events {
				if e := &s.Events[i]; e.At > seconds(36) {
					e.At -= seconds(3)
					e.Began -= seconds(3)
				}
			}
		}},
		{"a session ends late", TooLate, honest, func(s *story) {
			for i := range s.Events {
				if e := &s.Events[i]; e.At > seconds(36) {
					e.At += seconds(20)
					e.Began += seconds(20)
				}
			}
			s.Reads = nil
		}},
		{"a session never ends", TooLate, honest, func(s *story) { s.drop(36, 100, "a") }},
		{"a group is left in a rebalance", Stuck, honest, func(s *story) {
			s.drop(21, 22, "a")
			s.drop(30, 100, "a", "c")
		}},
		{"a member never gets its share", Stuck, modern, func(s *story) { s.drop(6, 6.5, "b") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.make()
			c.plant(s)
			found := Check(s.History)
			if !slices.ContainsFunc(found, func(v Violation) bool { return v.Rule == c.rule }) {
				t.Errorf("no %q found among %v", c.rule, found)
			}
			for _, v := range found {
				if v.Rule != c.rule && !(c.rule == TooLate && v.Rule == Stuck) {
					t.Errorf("also found: %s", v)
				}
			}
		})
	}
}

// What looks like a fault and is none.
func TestExcused(t *testing.T) {
	for name, plant := range map[string]func(s *story){
		"a session ends late because the server was started again": func(s *story) {
			for i := range s.Events {
				if e := &s.Events[i]; e.At > seconds(36) {
					e.At += seconds(20)
					e.Began += seconds(20)
				}
			}
			s.Reads = nil
			for _, t := range []float64{31, 38, 46} {
				s.insert(t, Event{Kind: Down})
				s.insert(t+1, Event{Kind: Up})
			}
		},
		"a silent member is told that it is not known": func(s *story) {
			s.insert(37, Event{Kind: Expelled, Member: "c", ID: "id-c", Generation: 3, Classic: true})
		},
		"a read that overlaps a commit gives either": func(s *story) {
			s.Reads = append(s.Reads, Read{"g", "observer", p0, 12, seconds(40.05), seconds(40.2)})
		},
		"a rebalance that a server has forgotten goes on when a member asks again": func(s *story) {
			s.drop(11, 11.5, "a", "b", "c")
			for _, e := range []Event{
				{Kind: Told, Generation: 2, Member: "a", ID: "id-a", Partitions: []Partition{p0}, Classic: true},
				{Kind: Assigned, Member: "a", Partitions: []Partition{p0}},
				{Kind: Told, Generation: 2, Member: "b", ID: "id-b", Partitions: []Partition{p1}, Classic: true},
				{Kind: Assigned, Member: "b", Partitions: []Partition{p1}},
				{Kind: Told, Generation: 2, Member: "c", ID: "id-c", Partitions: []Partition{p2, p3}, Classic: true},
			} {
				s.insert(11, e)
			}
			s.insert(11.1, Event{Kind: Joins, Member: "b", ID: "id-b", Generation: 2, Classic: true})
			s.insert(11.2, Event{Kind: Assigned, Member: "c", Partitions: []Partition{p2, p3}})
			s.insert(12, Event{Kind: Joins, Member: "b", ID: "id-b", Generation: 2, Classic: true})
			s.insert(12, Event{Kind: Joins, Member: "a", ID: "id-a", Generation: 2, Classic: true})
		},
		"a member that nobody answered for its session timeout gives up what it had": func(s *story) {
			s.insert(17.5, Event{Kind: Lost, Member: "a", Partitions: []Partition{p0}})
			s.insert(17.6, Event{Kind: Assigned, Member: "a", Partitions: []Partition{p0}})
		},
		"a member that went on with an empty share": func(s *story) { s.insert(25, Event{Kind: Assigned, Member: "a"}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := honest()
			plant(s)
			if found := Check(s.History); len(found) != 0 {
				t.Errorf("found %v", found)
			}
		})
	}
}

func TestMembersSettle(t *testing.T) {
	m := NewMembers(Group{Partitions: all})
	step := func(want bool, member string, kind Kind, partitions ...Partition) {
		t.Helper()
		m.Apply(Event{Member: member, Kind: kind, Partitions: partitions})
		if m.Settled() != want {
			t.Fatalf("after %s %s %v: settled %v, want %v", member, kind, partitions, m.Settled(), want)
		}
	}
	step(false, "a", Joined)
	step(false, "a", Assigned, p0, p1)
	step(true, "a", Assigned, p2, p3)
	step(false, "b", Joined)
	step(false, "a", Revoked, p3)
	step(false, "b", Assigned, p3) // 3 and 1: uneven, so it goes on
	step(false, "a", Revoked, p2)
	step(true, "b", Assigned, p2)
	step(true, "b", Assigned)
	step(false, "b", Silenced)
	step(false, "b", Revoked, p2, p3)
	step(true, "a", Assigned, p2, p3)
}
