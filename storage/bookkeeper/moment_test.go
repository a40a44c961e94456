package bookkeeper

import (
	"testing"
	"time"
)

// TestMoment: it is counted from the start of the process, which no clock that is set moves.
func TestMoment(t *testing.T) {
	at := func(sinceBegan time.Duration) time.Time { return began.Add(sinceBegan) }
	var m moment
	if m.within(time.Hour, at(0)) {
		t.Fatal("a moment that never was")
	}
	m.note(at(0))
	if !m.within(time.Second, at(999*time.Millisecond)) || m.within(time.Second, at(1001*time.Millisecond)) {
		t.Fatal("a moment is within a second for another time than that")
	}
	m.note(at(time.Minute))
	if !m.within(time.Second, at(time.Minute)) || m.within(time.Second, at(2*time.Minute)) {
		t.Fatal("a moment that was noted again")
	}
}
