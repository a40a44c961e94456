package groupcheck

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Check returns every violation, ordered by group and time. A history without
// acknowledged commits, assignments or reads proves nothing; the caller has to
// see to that.
func Check(h History) []Violation {
	var found []Violation
	report := func(rule Rule, group string, at int64, format string, args ...any) {
		found = append(found, Violation{rule, group, at, fmt.Sprintf(format, args...)})
	}
	checkOffsets(h, report)
	byGroup := map[string][]Event{}
	var server []Event
	for _, e := range h.Events {
		switch {
		case e.Kind == Up || e.Kind == Down:
			server = append(server, e)
		default:
			byGroup[e.Group] = append(byGroup[e.Group], e)
		}
	}
	for name, g := range h.Groups {
		checkShares(name, g, byGroup[name], report)
		checkMembership(name, g, byGroup[name], server, h.End, report)
	}
	slices.SortStableFunc(found, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.At, b.At))
	})
	return found
}

type reporter func(rule Rule, group string, at int64, format string, args ...any)

// groupPartition names one committed offset.
type groupPartition struct {
	group     string
	partition Partition
}

// lateAttempt is for how long after the end of its connection an attempt may be executed
// that something on the way to the servers holds up: no server can tell it from one of a
// client that waits.
const lateAttempt = 5 * time.Second

// checkOffsets: whoever holds a partition starts at its committed offset and
// commits upwards, and all others are fenced. So a committed offset never falls:
// once acknowledged or read, whoever asks later is given it or more, and always
// something that somebody committed.
func checkOffsets(h History, report reporter) {
	commits := map[groupPartition][]Commit{}
	reads := map[groupPartition][]Read{}
	attempts := map[groupPartition][]Attempt{}
	for _, a := range h.Attempts {
		k := groupPartition{a.Group, a.Partition}
		attempts[k] = append(attempts[k], a)
	}
	for _, c := range h.Commits {
		k := groupPartition{c.Group, c.Partition}
		commits[k] = append(commits[k], c)
	}
	for _, r := range h.Reads {
		k := groupPartition{r.Group, r.Partition}
		reads[k] = append(reads[k], r)
	}
	for k, rs := range reads {
		// known are the moments at which an offset was known to be committed.
		type known struct {
			at     int64
			offset int64
			who    string
		}
		var facts []known
		called := map[int64]int64{} // offset to its first call
		for _, c := range commits[k] {
			if first, ok := called[c.Offset]; !ok || c.Called < first {
				called[c.Offset] = c.Called
			}
			if c.Acked {
				facts = append(facts, known{c.Done, c.Offset, "acknowledged to " + c.Member})
			}
		}
		for _, r := range rs {
			facts = append(facts, known{r.Answered, r.Offset, "read by " + r.Reader})
		}
		slices.SortFunc(facts, func(a, b known) int { return cmp.Compare(a.at, b.at) })
		slices.SortFunc(rs, func(a, b Read) int { return cmp.Compare(a.Asked, b.Asked) })
		highest, next := known{offset: None}, 0
		for _, r := range rs {
			for ; next < len(facts) && facts[next].at < r.Asked; next++ {
				if facts[next].offset > highest.offset {
					highest = facts[next]
				}
			}
			if r.Offset < highest.offset {
				rule := RolledBack
				if slices.ContainsFunc(attempts[k], func(a Attempt) bool {
					return a.Offset == r.Offset && a.Sent < r.Answered && highest.at < a.Ended+int64(lateAttempt)
				}) {
					rule = Undone
				}
				report(rule, k.group, r.Answered, "%s: %s is given %d, but %d was %s at %.3f s",
					k.partition, r.Reader, r.Offset, highest.offset, highest.who, float64(highest.at)/1e9)
			}
			if first, ok := called[r.Offset]; r.Offset != None && (!ok || first > r.Answered) {
				report(Invented, k.group, r.Answered, "%s: %s is given %d, which nobody had committed", k.partition, r.Reader, r.Offset)
			}
		}
	}
}

// checkShares: of one generation of a classic group every partition is one
// member's. In a group of the consumer protocol a partition goes to another
// member only when the one before has given it up, left, or been silent for its
// session timeout. And nobody commits in a generation after a later one began.
func checkShares(name string, g Group, events []Event, report reporter) {
	type place struct {
		generation int32
		partition  Partition
	}
	given := map[place]string{}       // classic: to which member id
	holders := map[Partition]string{} // consumer: to which member id
	heard := map[string]int64{}       // by member id
	var newest Event                  // classic: of the highest generation told
	for _, e := range events {
		switch e.Kind {
		case Told:
			if !e.Classic {
				for _, p := range e.Partitions {
					if other, ok := holders[p]; ok && other != e.ID && e.At < heard[other]+int64(g.Session) {
						report(Shared, name, e.At, "%s is given to %s (%s) in epoch %d while %s holds it", p, e.Member, e.ID, e.Generation, other)
					}
					holders[p] = e.ID
				}
				heard[e.ID] = e.Began
				continue
			}
			for _, p := range e.Partitions {
				at := place{e.Generation, p}
				if other, ok := given[at]; ok && other != e.ID {
					report(Shared, name, e.At, "%s is given to %s (%s) and to %s in generation %d", p, e.Member, e.ID, other, e.Generation)
				}
				given[at] = e.ID
			}
			if e.Generation > newest.Generation {
				newest = e
			}
		case Owns:
			for p, id := range holders {
				if id == e.ID && !slices.Contains(e.Partitions, p) {
					delete(holders, p)
				}
			}
		case Departed, Expelled:
			for p, id := range holders {
				if id == e.ID {
					delete(holders, p)
				}
			}
		case Heard:
			heard[e.ID] = e.Began
		case Committed:
			if e.Classic && e.Generation >= 0 && e.Generation < newest.Generation && newest.At < e.Began {
				report(Stale, name, e.At, "%s (%s) commits in generation %d after generation %d had begun", e.Member, e.ID, e.Generation, newest.Generation)
			}
		}
	}
}

// lateness is how long after its time an end of a session may be seen: members
// learn of it by their next heartbeat, and a metadata store that stands still
// for seconds delays what is written.
const lateness = 6 * time.Second

// checkMembership follows who is in a group. The group is settled when its live
// members hold all partitions among themselves; from then on nobody is disturbed
// until the run starts, closes or silences a member.
func checkMembership(name string, g Group, events, server []Event, end int64, report reporter) {
	m := NewMembers(g)
	lastHeard := map[string]int64{} // by the run's name
	established := map[string]bool{}
	var silence *Event // the last action, if it was that on a settled group
	for i := range events {
		e := &events[i]
		live := m.Live(e.Member)
		disturbs := false
		switch e.Kind {
		case Assigned, Revoked, Lost:
			disturbs = live && len(e.Partitions) > 0
		case Joins:
			disturbs = live
		case Told:
			established[e.ID] = true
			lastHeard[e.Member] = e.Began
		case Heard:
			lastHeard[e.Member] = e.Began
		case Expelled:
			if last, ok := lastHeard[e.Member]; ok && live && established[e.ID] && e.At < last+int64(g.Session) {
				report(ThrownOut, name, e.At, "%s (%s) is not known any more, %.3f s after its last sign of life", e.Member, e.ID, float64(e.At-last)/1e9)
			}
			delete(established, e.ID)
		}
		// A member that is not answered for its session timeout takes itself for thrown
		// out. That there was nobody to answer is not for this check to find.
		last, heard := lastHeard[e.Member]
		gaveUp := heard && e.At >= last+int64(g.Session)
		if disturbs && m.Settled() && !gaveUp {
			report(Uncaused, name, e.At, "%s: %s %v, and nobody came or went since the group settled at %.3f s", e.Member, e.Kind, e.Partitions, float64(m.since)/1e9)
		}
		if disturbs && silence != nil {
			if due := lastHeard[silence.Member] + int64(g.Session); e.At < due {
				report(TooEarly, name, e.At, "%s fell silent and was removed %.3f s before its time", silence.Member, float64(due-e.At)/1e9)
			}
			if limit, ok := deadline(silence.At, g.Session, server, end); ok && e.At > limit {
				report(TooLate, name, e.At, "%s fell silent at %.3f s and was removed %.3f s too late", silence.Member, float64(silence.At)/1e9, float64(e.At-limit)/1e9)
			}
			silence = nil
		}
		switch e.Kind {
		case Joined, Left:
			silence = nil
		case Silenced:
			silence = nil
			if m.Settled() {
				silence = e
			}
		}
		m.Apply(*e)
	}
	if silence != nil {
		if limit, ok := deadline(silence.At, g.Session, server, end); ok && end > limit {
			report(TooLate, name, end, "%s fell silent at %.3f s and was never removed", silence.Member, float64(silence.At)/1e9)
		}
	}
	if len(m.live) > 0 && !m.Shared() {
		report(Stuck, name, end, "%s", m.describe())
	}
}

// deadline is when a member that fell silent must be gone: a session timeout and
// lateness after the silence, of which every start of the server begins anew.
// False if the server never was up for so long.
func deadline(silent int64, session time.Duration, server []Event, end int64) (int64, bool) {
	need := int64(session + lateness)
	from, up := int64(0), true
	for _, e := range server {
		switch e.Kind {
		case Up:
			from, up = e.At, true
		case Down:
			if up && e.At >= max(from, silent)+need {
				return max(from, silent) + need, true
			}
			up = false
		}
	}
	if up && end >= max(from, silent)+need {
		return max(from, silent) + need, true
	}
	return 0, false
}
