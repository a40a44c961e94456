package coordinator

import "time"

// Clock reads two clocks of the machine: one that only goes on but may stand
// still while the machine sleeps, counted from a fixed moment before, and the wall
// clock, which goes on then but may be set.
type Clock func() (monotonic time.Duration, wall time.Time)

var clockStart = time.Now()

// systemClock is the Clock of this machine.
func systemClock() (time.Duration, time.Time) {
	now := time.Now()
	return now.Sub(clockStart), now.Round(0)
}

// moment is one reading of both clocks.
type moment struct {
	monotonic time.Duration
	wall      time.Time
}

func (c *Coordinator) now() moment {
	monotonic, wall := c.config.Clock()
	// Without its own monotonic reading two wall clock times are compared as such.
	return moment{monotonic, wall.Round(0)}
}

func (m moment) add(d time.Duration) moment { return moment{m.monotonic + d, m.wall.Add(d)} }

// reached says whether one of the clocks has come to m: whichever is earlier
// ends a lease.
func (m moment) reached(now moment) bool {
	return now.monotonic >= m.monotonic || !now.wall.Before(m.wall)
}
