package forward

import (
	"testing"
	"time"
)

func TestTransit(t *testing.T) {
	const ahead = 1234 * time.Hour // the other clock
	begin := time.Now()
	after := func(d time.Duration) time.Time { return begin.Add(d) }
	var tr Transit
	for _, step := range []struct {
		what          string
		sent, arrives time.Duration
		want          time.Duration
	}{
		{"what greets was held for a while", 0, 3 * time.Second, 0},
		{"a quicker one", 4 * time.Second, 4*time.Second + time.Millisecond, 0},
		{"as quick", 5 * time.Second, 5*time.Second + time.Millisecond, 0},
		{"held", 6 * time.Second, 13*time.Second + time.Millisecond, 7*time.Second - 8*time.Second/clockDrift},
		{"behind it", 12 * time.Second, 13*time.Second + time.Millisecond, time.Second - 8*time.Second/clockDrift},
		{"on time again", 14 * time.Second, 14*time.Second + time.Millisecond, 0},
	} {
		if running, wall := tr.Arrived(ahead+step.sent, after(step.arrives)); running != step.want || wall != step.want {
			t.Errorf("%s: late by %v and %v, want %v", step.what, running, wall, step.want)
		}
	}
}

// TestTransitDrift: clocks of which one is slower do not make what comes in time late, however
// long the link lives or is idle.
func TestTransitDrift(t *testing.T) {
	begin := time.Now()
	for _, gap := range []time.Duration{time.Second, time.Hour, 24 * time.Hour} {
		for _, perMille := range []float64{-0.4, 0.4} {
			var tr Transit
			for at := time.Duration(0); at < 50*gap; at += gap {
				sent := at + time.Duration(float64(at)*perMille/1000)
				if late, _ := tr.Arrived(sent, begin.Add(at)); late > 0 {
					t.Fatalf("every %v, %v ‰: late by %v after %v", gap, perMille, late, at)
				}
			}
		}
	}
}

// TestTransitStopped: a machine that was stopped knows by the wall clock only.
func TestTransitStopped(t *testing.T) {
	var tr Transit
	now := time.Now()
	tr.Arrived(0, now)
	// A test cannot stop the monotonic clock. That the wall clock gains an hour on it is
	// the same as an hour less in what it has seen.
	tr.wall.least -= time.Hour
	if running, wall := tr.Arrived(time.Second, now.Add(time.Second)); running != 0 || wall < time.Hour-time.Second {
		t.Errorf("late by %v and %v", running, wall)
	}
}
