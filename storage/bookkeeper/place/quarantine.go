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

// Quarantine remembers which bookies fail. It is not safe for concurrent use.
// Its times come from the caller and only go forward.
type Quarantine struct {
	config  QuarantineConfig
	bookies map[metadata.BookieID]*record
}

type record struct{}

// NewQuarantine makes an empty one.
func NewQuarantine(c QuarantineConfig) *Quarantine { return &Quarantine{config: c} }

// Failed records an error of a bookie: a timeout, a broken connection, an EIO.
// It says whether the bookie is in quarantine now because of it.
func (q *Quarantine) Failed(id metadata.BookieID, now time.Time) bool { return false }

// Succeeded records an answer. During the probe it ends the doubling.
func (q *Quarantine) Succeeded(id metadata.BookieID, now time.Time) {}

// Avoid says whether the bookie should be avoided: it is in quarantine, or its
// quarantine is over and one ensemble is trying it already (see Chosen).
func (q *Quarantine) Avoid(id metadata.BookieID, now time.Time) bool { return false }

// Chosen records that a new ensemble has the bookie. If its quarantine is over,
// this is its probe: one error sends it back for twice as long.
func (q *Quarantine) Chosen(id metadata.BookieID, now time.Time) {}
