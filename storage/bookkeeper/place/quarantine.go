package place

import (
	"time"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// QuarantineConfig says when a bookie gets no new ensembles, and for how long.
type QuarantineConfig struct {
	Errors int           // within Window put a bookie into quarantine; 0: 3
	Window time.Duration // 0: 10 s
	First  time.Duration // how long the first time; it doubles each time; 0: 30 s
	Max    time.Duration // 0: 30 min
}

// Quarantine remembers which bookies fail. It is not safe for concurrent use, and
// its times, which come from the caller, only go forward.
//
//	free --errors--> in quarantine --time--> on probation --chosen--> probed
//	  ^                   ^                       |                     |
//	  |                   +------ one error, for twice as long ---------+
//	  +------------------------------ one answer -----------------------+
//
// A bookie is avoided in quarantine and while it is probed: one new ensemble at a
// time tries it.
type Quarantine struct {
	config  QuarantineConfig
	bookies map[metadata.BookieID]*record
}

// record is of a bookie that is not free, or had errors within the window.
type record struct {
	errors []time.Time   // the latest ones, of a free bookie
	length time.Duration // of the last quarantine; 0: free
	until  time.Time     // its end
	probed time.Time     // when it was chosen after it; zero: it was not
}

// NewQuarantine makes an empty one.
func NewQuarantine(c QuarantineConfig) *Quarantine {
	if c.Errors <= 0 {
		c.Errors = 3
	}
	if c.Window <= 0 {
		c.Window = 10 * time.Second
	}
	if c.First <= 0 {
		c.First = 30 * time.Second
	}
	if c.Max <= 0 {
		c.Max = 30 * time.Minute
	}
	return &Quarantine{config: c, bookies: make(map[metadata.BookieID]*record)}
}

// Failed records an error of a bookie: a timeout, a broken connection, an EIO. It
// says whether that put the bookie into quarantine. Errors of a bookie that is in
// quarantine are old news: of requests that were on their way.
func (q *Quarantine) Failed(id metadata.BookieID, now time.Time) bool {
	r := q.bookies[id]
	if r == nil {
		r = new(record)
		q.bookies[id] = r
	}
	switch {
	case r.length == 0:
		r.errors = append(r.errors, now)
		for len(r.errors) > 0 && now.Sub(r.errors[0]) > q.config.Window {
			r.errors = r.errors[1:]
		}
		if len(r.errors) < q.config.Errors {
			return false
		}
		r.length = min(q.config.First, q.config.Max)
	case now.Before(r.until):
		return false
	default:
		r.length = min(2*r.length, q.config.Max)
	}
	r.errors, r.until, r.probed = nil, now.Add(r.length), time.Time{}
	return true
}

// Succeeded records an answer of a bookie. It frees one whose quarantine is over.
// In quarantine it says little: what is asked of the bookie then is not what
// brought it there.
func (q *Quarantine) Succeeded(id metadata.BookieID, now time.Time) {
	if r := q.bookies[id]; r != nil && r.length > 0 && !now.Before(r.until) {
		delete(q.bookies, id)
	}
}

// Avoid says whether the bookie should be avoided: it is in quarantine, or that
// is over and one ensemble is trying it already (see Chosen).
func (q *Quarantine) Avoid(id metadata.BookieID, now time.Time) bool {
	r := q.bookies[id]
	switch {
	case r == nil || r.length == 0:
		return false
	case now.Before(r.until):
		return true
	}
	// A probe of which nothing was heard, because its ledger stayed idle, does not
	// keep others from trying.
	return !r.probed.IsZero() && now.Sub(r.probed) < q.config.First
}

// Chosen records that a new ensemble has the bookie. If its quarantine is over,
// this is its probe.
func (q *Quarantine) Chosen(id metadata.BookieID, now time.Time) {
	if r := q.bookies[id]; r != nil && r.length > 0 && !now.Before(r.until) {
		r.probed = now
	}
}

// Forget drops what is known of bookies for which keep is false, those that were
// decommissioned, and errors that the window has left behind.
func (q *Quarantine) Forget(now time.Time, keep func(metadata.BookieID) bool) {
	for id, r := range q.bookies {
		stale := r.length == 0 && now.Sub(r.errors[len(r.errors)-1]) > q.config.Window
		if stale || !keep(id) {
			delete(q.bookies, id)
		}
	}
}
