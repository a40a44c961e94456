package quorum

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// simulation is one run of a ledger's life in virtual time: a writer, recoveries
// that compete with it and with each other, a replication worker, bookies that
// crash and lose what they had not synced, a metadata store, and a network that
// delays, loses and reorders. A seed determines all of it.
type simulation struct {
	rules *rules
	rng   *rand.Rand
	now   int64
	seq   int64
	queue []event

	loss     float64 // of a message
	strays   int     // one message in so many arrives up to straying late
	straying int64
	late     bool // answers after the deadline are told too
	healed   bool // no faults any more
	patience int  // attempts at a Store

	storeAway int64 // the metadata store takes no writes before this time

	bookies    []*simBookie
	store      *simStore
	writer     *simWriter
	recoveries []*simRecovery // all that ever were

	payload []int64 // length of each entry written
	length  []int64 // of the ledger with each entry
	acked   int64   // last entry acknowledged to the writer's user
	guessed bool    // a recovery could not read the length

	violation string
	tracing   bool
	trace     []string
}

type event struct {
	at, seq int64
	do      func()
}

const (
	deadline     = 150 // of a request to a bookie
	storePause   = 80  // between attempts at a Store
	faultsEnd    = 900 // when everything heals
	maxEvents    = 60000
	noViolation  = ""
	maxStuckTime = 450
)

// simulate runs seed under the rules and returns what went wrong, and how.
func simulate(seed uint64, r *rules, tracing bool) (violation string, trace []string) {
	s := &simulation{rules: r, rng: rand.New(rand.NewPCG(seed, 0x5eed)), tracing: tracing, acked: metadata.NoEntry}
	defer func() {
		if p := recover(); p != nil {
			violation, trace = fmt.Sprintf("panic: %v\n%s", p, debug.Stack()), s.trace
		}
	}()
	s.build()
	s.run(faultsEnd)
	s.heal()
	return s.violation, s.trace
}

func (s *simulation) build() {
	shapes := [][3]int{{3, 3, 2}, {3, 3, 2}, {3, 3, 2}, {3, 2, 2}, {4, 3, 2}, {5, 3, 2}, {4, 2, 2}, {2, 2, 2}, {3, 3, 3}, {3, 3, 1}, {2, 2, 1}, {1, 1, 1}}
	shape := shapes[s.rng.IntN(len(shapes))]
	s.loss = []float64{0, 0.02, 0.05, 0.15}[s.rng.IntN(4)]
	s.strays = []int{3, 6, 20, 60}[s.rng.IntN(4)]
	s.straying = []int64{40, 130, 450}[s.rng.IntN(3)]
	s.late = s.chance(3)
	s.patience = 1 + s.rng.IntN(4)
	l := &metadata.Ledger{
		ID: 1, Ensemble: shape[0], WriteQuorum: shape[1], AckQuorum: shape[2], State: metadata.Open, LastEntry: metadata.NoEntry,
		Segments: []metadata.Segment{{First: 0}},
	}
	for i := range shape[0] + s.rng.IntN(4) {
		s.bookies = append(s.bookies, &simBookie{s: s, id: metadata.BookieID(fmt.Sprintf("b%d", i+1)), up: true, slow: map[string]int64{}})
	}
	for _, i := range s.rng.Perm(len(s.bookies))[:shape[0]] {
		l.Segments[0].Bookies = append(l.Segments[0].Bookies, s.bookies[i].id)
	}
	s.store = &simStore{s: s, ledger: l, version: 1}
	if s.tracing {
		s.log("ledger %d/%d/%d on %v of %d bookies, loss %.2f", shape[0], shape[1], shape[2], l.Segments[0].Bookies, len(s.bookies), s.loss)
	}

	// Half of the lives are short, so that a recovery meets the few entries under way.
	appends, pause, span, faults, recoveries := 1+s.rng.IntN(40), 1+s.rng.Int64N(30), int64(700), 9, s.rng.IntN(3)
	if s.chance(2) {
		appends, pause, span, faults, recoveries = 1+s.rng.IntN(4), 1+s.rng.Int64N(8), 40, 4, 1+s.rng.IntN(2)
		s.strays, s.straying = 2+s.rng.IntN(4), 40+s.rng.Int64N(60)
	}
	s.writer = newSimWriter(s, l)
	s.writer.appendOften(appends, pause)
	for range recoveries {
		s.after(s.rng.Int64N(span), func() { newSimRecovery(s, "R"+fmt.Sprint(s.rng.IntN(90)+10), 3) })
	}
	for range s.rng.IntN(3) {
		s.after(s.rng.Int64N(span), s.replicate)
	}
	for range s.rng.IntN(faults) {
		s.after(s.rng.Int64N(span), s.fault)
	}
}

// fault plants one fault.
func (s *simulation) fault() {
	b := s.bookies[s.rng.IntN(len(s.bookies))]
	length := 20 + s.rng.Int64N(400)
	switch s.rng.IntN(17) {
	case 0, 1, 2:
		b.crash()
		s.after(length, b.restart)
	case 3:
		b.stuck = s.now + length
		s.log("%s stops answering until %d", b.id, b.stuck)
		s.after(s.rng.Int64N(length), func() { s.stalled(b) })
	case 16:
		s.stalled(b)
	case 4:
		b.readOnly = true
		s.after(length, func() { b.readOnly = false })
		s.log("%s is read-only", b.id)
	case 5:
		for _, b := range s.bookies { // power cut
			b.crash()
			s.after(length, b.restart)
		}
	case 6:
		s.writer.pause(length)
	case 7:
		s.writer.event("vanished "+string(b.id), func() { s.writer.machine.BookieFailed(b.id) })
	case 8:
		if s.chance(2) {
			s.writer.dead = true
			s.log("the writer dies")
		} else {
			s.writer.event("close", s.writer.machine.Close)
		}
	case 9:
		s.storeAway = s.now + length
		s.log("the metadata store is away until %d", s.storeAway)
	case 10:
		if s.chance(3) {
			s.writer.event("abort", func() { s.writer.machine.Abort(errAborted) })
		}
	case 12, 13, 14, 15:
		role := []string{"writer", "recovery"}[s.rng.IntN(2)]
		b.slow[role] = s.now + length
		s.log("requests of the %s to %s are held until %d", role, b.id, s.now+length)
	case 11:
		newSimRecovery(s, "R"+fmt.Sprint(s.rng.IntN(90)+10), 3)
	}
}

// stalled tells everybody that a bookie is slow to answer, whether it is or not.
func (s *simulation) stalled(b *simBookie) {
	elsewhere, others := s.chance(2), s.chance(2)
	stalled := func(metadata.BookieID) bool { return others }
	s.writer.event("stalled "+string(b.id), func() { s.writer.machine.BookieStalled(b.id, stalled, elsewhere) })
	for _, r := range s.recoveries {
		r.event("stalled "+string(b.id), func() { r.machine.BookieStalled(b.id, stalled) })
	}
}

// heal ends all faults, brings the ledger to its end and looks at it.
func (s *simulation) heal() {
	s.healed = true
	s.log("all faults end")
	for _, b := range s.bookies {
		if !b.up {
			b.restart()
		}
		b.readOnly, b.limbo, b.stuck = false, false, 0
		clear(b.slow)
	}
	s.run(1 << 40)
	w := s.writer
	s.checkIdle()
	for _, b := range s.bookies {
		w.event("returned "+string(b.id), func() { w.machine.BookieReturned(b.id) })
	}
	w.event("retry", w.machine.Retry)
	s.run(1 << 40)
	s.checkIdle()
	if w.writing() && w.machine.Degraded() {
		s.violate("with all bookies well the writer is degraded")
	}
	w.event("close", w.machine.Close)
	s.run(1 << 40)
	if !w.dead && !w.sealed && !w.unsealed {
		s.violate("the writer neither sealed the ledger nor gave it up")
	}
	if s.store.ledger.State != metadata.Closed {
		newSimRecovery(s, "R-last", 0)
		s.run(1 << 40)
	}
	if s.store.ledger.State != metadata.Closed {
		s.violate("with all bookies well the ledger cannot be recovered")
		return
	}
	s.checkEnd()
}

// checkIdle: with all bookies well nothing stays under way.
func (s *simulation) checkIdle() {
	if !s.writer.writing() {
		return
	}
	m := s.writer.machine
	for i, b := range m.ensemble {
		if m.away&(1<<i) != 0 && !s.writer.degraded[b] {
			s.violate("the writer leaves out %s, which never failed", b)
		}
	}
	if m.Pending() > 0 || m.Unreleased() > 0 || m.Changing() {
		s.violate("with all bookies well the writer has %d pending and %d unreleased entries, changing %v", m.Pending(), m.Unreleased(), m.Changing())
	}
}

// checkEnd is what a reader sees of the closed ledger.
func (s *simulation) checkEnd() {
	l := s.store.ledger
	if s.acked > l.LastEntry {
		s.violate("entry %d was acknowledged, the ledger is closed at %d", s.acked, l.LastEntry)
	}
	if l.LastEntry >= int64(len(s.payload)) {
		s.violate("closed at %d, but only %d entries were written", l.LastEntry, len(s.payload))
		return
	}
	s.checkReplicas(0, l.LastEntry, "of the closed ledger")
}

// checkReplicas: each entry has an ack quorum of synced replicas where the stored
// metadata say.
func (s *simulation) checkReplicas(first, last int64, what string) {
	l := s.store.ledger
	for e := first; e <= last; e++ {
		bookies := l.EnsembleAt(e).Bookies
		n := 0
		for i := range l.WriteQuorum {
			if s.bookie(bookies[Position(e, i, l.Ensemble)]).synced(e) {
				n++
			}
		}
		if n < l.AckQuorum {
			s.violate("entry %d %s has %d replicas on %v, fewer than the ack quorum of %d", e, what, n, bookies, l.AckQuorum)
			return
		}
	}
}

// replicate is AutoRecovery's worker: it copies a bookie's share of an older
// segment, or of a closed ledger, to another bookie and names that instead.
func (s *simulation) replicate() {
	l, version := s.store.ledger, s.store.version
	segments := len(l.Segments) - 1
	if l.State == metadata.Closed {
		segments++
	}
	if segments == 0 {
		if !s.healed {
			s.after(30+s.rng.Int64N(100), s.replicate)
		}
		return
	}
	n, index := s.rng.IntN(segments), s.rng.IntN(l.Ensemble)
	target := s.bookies[s.rng.IntN(len(s.bookies))]
	last := l.LastEntry
	if n+1 < len(l.Segments) {
		last = l.Segments[n+1].First - 1
	}
	for _, b := range l.Segments[n].Bookies {
		if b == target.id {
			return
		}
	}
	for e := l.Segments[n].First; e <= last; e++ {
		if !InWriteSet(e, index, l.Ensemble, l.WriteQuorum) {
			continue
		}
		var from *simBookie
		for i := range l.WriteQuorum {
			if b := s.bookie(l.Segments[n].Bookies[Position(e, i, l.Ensemble)]); b.synced(e) {
				from = b
			}
		}
		if from == nil {
			return
		}
		target.put(e, from.entries[e].lac, true)
	}
	next := l.Clone()
	old := next.Segments[n].Bookies[index]
	next.Segments[n].Bookies[index] = target.id
	s.after(s.delay(), func() {
		ok := s.store.write("worker", next, version)
		s.log("worker: %s instead of %s in segment %d, written %v", target.id, old, next.Segments[n].First, ok)
	})
}

// Replace is the cluster's placement: it does not know who is up.
func (s *simulation) Replace(ensemble []metadata.BookieID, _ int) (metadata.BookieID, bool) {
	for _, i := range s.rng.Perm(len(s.bookies)) {
		b := s.bookies[i]
		in := false
		for _, e := range ensemble {
			in = in || e == b.id
		}
		if !in && (b.up || s.chance(5)) && !s.chance(10) {
			return b.id, true
		}
	}
	return "", false
}

func (s *simulation) bookie(id metadata.BookieID) *simBookie {
	for _, b := range s.bookies {
		if b.id == id {
			return b
		}
	}
	panic("no bookie " + id)
}

func (s *simulation) chance(oneIn int) bool { return s.rng.IntN(oneIn) == 0 }

func (s *simulation) lost() bool { return !s.healed && s.rng.Float64() < s.loss }

func (s *simulation) delay() int64 {
	if !s.healed && s.chance(s.strays) {
		return s.rng.Int64N(s.straying)
	}
	return 1 + s.rng.Int64N(8)
}

func (s *simulation) violate(format string, args ...any) {
	if s.violation == noViolation {
		s.violation = fmt.Sprintf(format, args...)
		s.log("VIOLATION: %s", s.violation)
	}
}

func (s *simulation) log(format string, args ...any) {
	if s.tracing && len(s.trace) < 5000 {
		s.trace = append(s.trace, fmt.Sprintf("%5d  ", s.now)+fmt.Sprintf(format, args...))
	}
}

func (s *simulation) after(d int64, do func()) {
	s.seq++
	q := append(s.queue, event{s.now + d, s.seq, do})
	for i := len(q) - 1; i > 0; {
		up := (i - 1) / 2
		if !q[i].before(q[up]) {
			break
		}
		q[i], q[up] = q[up], q[i]
		i = up
	}
	s.queue = q
}

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

func (s *simulation) pop() event {
	q := s.queue
	e, n := q[0], len(q)-1
	q[0] = q[n]
	q[n] = event{}
	q = q[:n]
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && q[c+1].before(q[c]) {
			c++
		}
		if !q[c].before(q[i]) {
			break
		}
		q[i], q[c] = q[c], q[i]
		i = c
	}
	s.queue = q
	return e
}

// run lets time pass until end, or until nothing is left to happen.
func (s *simulation) run(end int64) {
	for len(s.queue) > 0 && s.queue[0].at <= end && s.violation == noViolation {
		if s.seq > maxEvents {
			s.violate("does not come to rest")
			return
		}
		e := s.pop()
		s.now = e.at
		e.do()
	}
}
