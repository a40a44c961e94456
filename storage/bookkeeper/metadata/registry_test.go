package metadata

import (
	"context"
	"testing"
	"time"
)

// The registry says since when a bookie is in its state, and wakes those who wait
// only when something changed.
func TestRegistryTimes(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var set func([]Registration)
	ready := make(chan struct{})
	info := func(port int) ServiceInfo {
		return ServiceInfo{Endpoints: []Endpoint{{Host: "h", Port: port, Protocol: protocolRPC}}}
	}
	r := followAt(func() time.Time { return now }, []Registration{{ID: "a", Info: info(1)}}, func(ctx context.Context, s func([]Registration)) {
		set = s
		close(ready)
		<-ctx.Done()
	})
	defer r.Close()
	<-ready
	start := now
	step := func(wantChange bool, want Bookie, registered ...Registration) {
		t.Helper()
		now = now.Add(time.Second)
		changed := r.Changed()
		set(registered)
		select {
		case <-changed:
			if !wantChange {
				t.Error("a change is announced where there was none")
			}
		default:
			if wantChange {
				t.Error("a change is not announced")
			}
		}
		if got := r.Get("a"); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	writable := Bookie{ID: "a", Addr: "h:1", State: Writable, Since: start}
	step(false, writable, Registration{ID: "a", Info: info(1)})
	writable.Addr = "h:2"
	step(true, writable, Registration{ID: "a", Info: info(2)})
	vanished := Bookie{ID: "a", Addr: "h:2", State: Vanished, Since: start.Add(3 * time.Second)}
	step(true, vanished)
	step(false, vanished)
	step(true, vanished, Registration{ID: "b"})
	step(true, Bookie{ID: "a", Addr: "h:2", State: ReadOnly, Since: start.Add(6 * time.Second)}, // both keys, in either order
		Registration{ID: "a", ReadOnly: true, Info: info(2)}, Registration{ID: "a", Info: info(2)}, Registration{ID: "b"})
	step(false, Bookie{ID: "a", Addr: "h:2", State: ReadOnly, Since: start.Add(6 * time.Second)},
		Registration{ID: "a", Info: info(2)}, Registration{ID: "a", ReadOnly: true, Info: info(2)}, Registration{ID: "b"})
	step(true, Bookie{ID: "a", Addr: "h:2", State: Writable, Since: start.Add(8 * time.Second)}, Registration{ID: "a", Info: info(2)}, Registration{ID: "b"})
}
