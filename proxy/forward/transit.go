package forward

import "time"

// clockDrift: of two clocks one may gain a second in so many on the other. What
// servers have without anybody setting them right is ten times better.
const clockDrift = 2000

// Transit says how long the frames of a link were under way. The clocks of two nodes
// have no common zero, so what counts is by how much a frame took longer than the
// quickest one so far. A network that is cut and heals, and a receiver that stood
// still, deliver what was sent long before. The zero value is that of a new link.
type Transit struct {
	zero          time.Time
	running, wall leastDelay
}

// Arrived takes note of a frame that was sent when the other side's clock showed sent,
// and has come now, which has a monotonic reading. It returns how long the frame was
// under way beyond the least: by the monotonic clock, never more than is true as long
// as no clock stands still; and by this node's wall clock, which goes on while a machine
// is stopped, but can be set.
func (t *Transit) Arrived(sent time.Duration, now time.Time) (running, wall time.Duration) {
	if t.zero.IsZero() {
		t.zero = now
	}
	at := now.Sub(t.zero)
	wallAt := now.Round(0).Sub(t.zero.Round(0))
	return t.running.beyond(at-sent, at), t.wall.beyond(wallAt-sent, wallAt)
}

// leastDelay is the least difference of two clocks that was seen, and when.
type leastDelay struct {
	known bool
	least time.Duration
	at    time.Duration
}

// beyond returns by how much d, seen at a time, is more than the least.
func (l *leastDelay) beyond(d, at time.Duration) time.Duration {
	if over := d - l.least - (at-l.at)/clockDrift; l.known && over > 0 {
		return over
	}
	*l = leastDelay{known: true, least: d, at: at}
	return 0
}
