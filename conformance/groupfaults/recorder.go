package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quirelog/quire/conformance/groupcheck"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"
)

// A recorder writes the history down. All methods may be called from any
// goroutine.
type recorder struct {
	start     time.Time
	monotonic int64 // the system's monotonic clock at start, nanoseconds

	mu       sync.Mutex
	groups   map[string]groupcheck.Group
	members  map[string]*groupcheck.Members
	commits  []groupcheck.Commit
	wire     []wireCommit
	attempts []groupcheck.Attempt
	reads    []groupcheck.Read
	events   []groupcheck.Event
	errs     map[string]int // what users would see, by library and text
	fatal    []string
	acked    int
	records  int

	// After each start of the server: which members of groups at rest have not
	// received a record since, and how long those took that have.
	up        int64
	waiting   map[string]bool
	recovered []recovery
}

// A recovery is how long a member of a group at rest received nothing after a start of
// the server.
type recovery struct {
	member string
	took   time.Duration
}

// wireCommit is one partition's part in a commit as the server has answered it.
type wireCommit struct {
	began, at     int64
	group, member string
	partition     int32
	offset        int64
	code          int16
}

func newRecorder(groups map[string]groupcheck.Group) *recorder {
	var clock unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &clock); err != nil {
		panic(err) // every Linux has it
	}
	r := &recorder{start: time.Now(), monotonic: clock.Nano(), groups: groups, members: map[string]*groupcheck.Members{}, errs: map[string]int{}}
	for name, g := range groups {
		r.members[name] = groupcheck.NewMembers(g)
	}
	return r
}

func (r *recorder) now() int64 { return int64(time.Since(r.start)) }

// atMonotonic is the time of the history at a time of the system's monotonic
// clock, which is what Java's System.nanoTime tells.
func (r *recorder) atMonotonic(nanos int64) int64 { return max(nanos-r.monotonic, 1) }

// event appends e at this moment, unless it has a time of its own: what another
// process tells has been for a moment.
func (r *recorder) event(e groupcheck.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.At == 0 {
		e.At = r.now()
	}
	r.events = append(r.events, e)
	switch m := r.members[e.Group]; {
	case m != nil:
		m.Apply(e)
		if e.Kind == groupcheck.Left || e.Kind == groupcheck.Silenced {
			delete(r.waiting, e.Member)
		}
	case e.Kind == groupcheck.Up:
		// Those of groups that are at rest go on as if nothing had happened;
		// the others have something else to wait for.
		r.up, r.waiting = e.At, map[string]bool{}
		for _, m := range r.members {
			if m.Settled() {
				for _, name := range m.Names() {
					r.waiting[name] = true
				}
			}
		}
	case e.Kind == groupcheck.Down:
		for name := range r.waiting { // at least that long
			r.recover(name, e.At)
		}
		r.waiting = nil
	}
}

// received says that a member was given records, and when.
func (r *recorder) received(member string, n int, at int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records += n
	if r.waiting[member] && at >= r.up {
		delete(r.waiting, member)
		r.recover(member, at)
	}
}

// recover takes note of how long a member has waited.
func (r *recorder) recover(member string, at int64) {
	r.recovered = append(r.recovered, recovery{member, time.Duration(at - r.up)})
}

// recovering is how many members have not received anything since the start.
func (r *recorder) recovering() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiting)
}

// commit writes down that a commit is about to be called, when it says, so that
// one which never returns is known. Tell answered by the numbers from first on, one for
// each partition, how it ended.
func (r *recorder) commit(commits []groupcheck.Commit) (first int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first = len(r.commits)
	for _, c := range commits {
		c.Done = math.MaxInt64
		r.commits = append(r.commits, c)
	}
	return first
}

func (r *recorder) answered(number int, acked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &r.commits[number]
	c.Done, c.Acked = r.now(), acked
	if acked {
		r.acked++
	}
}

// answeredOnWire writes down what the server has answered to a commit.
func (r *recorder) answeredOnWire(began int64, group, member string, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse) {
	offsets := map[int32]int64{} // a run has one topic
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			offsets[p.Partition] = p.Offset
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.now()
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			r.wire = append(r.wire, wireCommit{began, at, group, member, p.Partition, offsets[p.Partition], p.ErrorCode})
		}
	}
}

// unkept takes back what a library has called committed before the server had: that is
// its own word, which a server cannot keep. librdkafka has given it for a commit that it
// never sent. It returns how many there were.
func unkept(commits []groupcheck.Commit, wire []wireCommit) (n int) {
	type promise struct {
		group, member string
		partition     int32
		offset        int64
	}
	first := map[promise]int64{}
	for _, w := range wire {
		p := promise{w.group, w.member, w.partition, w.offset}
		if at, ok := first[p]; w.code == 0 && (!ok || w.at < at) {
			first[p] = w.at
		}
	}
	for i := range commits {
		c := &commits[i]
		if at, ok := first[promise{c.Group, c.Member, c.Partition.Number, c.Offset}]; c.Acked && (!ok || at > c.Done) {
			c.Acked = false
			n++
		}
	}
	return n
}

func (r *recorder) read(reads ...groupcheck.Read) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.now()
	for _, read := range reads {
		read.Answered = at
		r.reads = append(r.reads, read)
	}
}

// address matches what differs between two errors of one kind.
var address = regexp.MustCompile(`[0-9.]+:[0-9]+`)

// seen counts an error that a library showed its user.
func (r *recorder) seen(library, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs[library+": "+address.ReplaceAllString(text, "…")]++
}

// failed writes down what no user could go on after.
func (r *recorder) failed(member string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fatal = append(r.fatal, fmt.Sprintf("%s: %v", member, err))
}

func (r *recorder) settled(group string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members[group].Shared()
}

// unsettled are the groups with members that have not come to rest.
func (r *recorder) unsettled() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name, m := range r.members {
		if len(m.Names()) > 0 && !m.Shared() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (r *recorder) live(group string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members[group].Names()
}

// history ends the recording. unsent is how many commits only a library has acknowledged.
func (r *recorder) history() (h groupcheck.History, wire []wireCommit, unsent int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := slices.Clone(r.events)
	slices.SortStableFunc(events, func(a, b groupcheck.Event) int { return cmp.Compare(a.At, b.At) })
	h = groupcheck.History{
		Groups: maps.Clone(r.groups), Commits: slices.Clone(r.commits), Reads: slices.Clone(r.reads),
		Events: events, Attempts: slices.Clone(r.attempts), End: r.now(),
	}
	return h, r.wire, unkept(h.Commits, r.wire)
}

// attempted writes down a commit that was not answered over its connection. The members
// of a group read one topic.
func (r *recorder) attempted(member, group string, number int32, offset, sent, ended int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if all := r.groups[group].Partitions; len(all) > 0 {
		p := groupcheck.Partition{Topic: all[0].Topic, Number: number}
		r.attempts = append(r.attempts, groupcheck.Attempt{Group: group, Member: member, Partition: p, Offset: offset, Sent: sent, Ended: ended})
	}
}

// userErrors is a table of what users saw, the most frequent first.
func (r *recorder) userErrors() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(r.errs), func(a, b string) int {
		if d := r.errs[b] - r.errs[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "  %6d  %s\n", r.errs[name], name)
	}
	return b.String()
}

// write writes the events of the groups that were found to be wrong, for people, and
// what their members have committed: when a library was asked to and had an answer, and
// when the server was and gave it.
func write(w io.Writer, h groupcheck.History, wire []wireCommit, found []groupcheck.Violation) error {
	wrong := map[string]bool{}
	for _, v := range found {
		wrong[v.Group] = true
	}
	b := bufio.NewWriter(w)
	for _, e := range h.Events {
		if e.Group == "" || wrong[e.Group] {
			fmt.Fprintf(b, "%10.4f %10.4f %-5s %-9s %-11s", float64(e.Began)/1e9, float64(e.At)/1e9, e.Group, e.Member, e.Kind)
			if e.ID != "" || e.Generation != 0 {
				fmt.Fprintf(b, " %s@%d", e.ID, e.Generation)
			}
			for _, p := range e.Partitions {
				fmt.Fprintf(b, " %d", p.Number)
			}
			fmt.Fprintln(b)
		}
	}
	for _, c := range h.Commits {
		if wrong[c.Group] {
			fmt.Fprintf(b, "%10.4f %10.4f %-5s %-9s commit      %s offset %d acknowledged %t\n", float64(c.Called)/1e9, float64(c.Done)/1e9, c.Group, c.Member, c.Partition, c.Offset, c.Acked)
		}
	}
	for _, c := range wire {
		if wrong[c.group] {
			fmt.Fprintf(b, "%10.4f %10.4f %-5s %-9s on the wire %d offset %d code %d\n", float64(c.began)/1e9, float64(c.at)/1e9, c.group, c.member, c.partition, c.offset, c.code)
		}
	}
	for _, a := range h.Attempts {
		if wrong[a.Group] {
			fmt.Fprintf(b, "%10.4f %10.4f %-5s %-9s unanswered  %s offset %d\n", float64(a.Sent)/1e9, float64(a.Ended)/1e9, a.Group, a.Member, a.Partition, a.Offset)
		}
	}
	return b.Flush()
}
