package loop

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Timers fire when they are due and not before, in order, unless stopped;
// a Timer whose time has passed stops nothing else.
func TestTimersAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(5000, 0)
		ts := &timers{base: now}
		due := make(map[int]time.Time)
		var handles []Timer
		var last time.Time
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				d := time.Duration(rapid.IntRange(-5, 50).Draw(t, "d"))
				id := len(handles)
				at := now.Add(max(0, d))
				due[id] = at
				handles = append(handles, ts.add(now, d, func() {
					want, ok := due[id]
					if !ok {
						t.Fatalf("timer %d fired though it was stopped or had fired", id)
					}
					if want.After(now) || want.Before(last) {
						t.Fatalf("timer %d fired at %v after %v, due %v", id, now, last, want)
					}
					last = want
					delete(due, id)
				}))
			},
			"stop": func(t *rapid.T) {
				if len(handles) == 0 {
					return
				}
				id := rapid.IntRange(0, len(handles)-1).Draw(t, "id")
				handles[id].Stop()
				delete(due, id)
			},
			"run": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "pass")))
				last = time.Time{}
				ts.run(now)
				for id, at := range due {
					if !at.After(now) {
						t.Fatalf("timer %d was due at %v", id, at)
					}
				}
			},
			"": func(t *rapid.T) {
				want := time.Duration(-1)
				for _, at := range due {
					if d := max(0, at.Sub(now)); want < 0 || d < want {
						want = d
					}
				}
				if got := ts.next(now); got != want {
					t.Fatalf("next is %v, want %v", got, want)
				}
			},
		})
	})
}
