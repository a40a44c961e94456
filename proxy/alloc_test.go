//go:build !race

package proxy

import (
	"io"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A request costs no allocation, from its bytes in to its answer out, answered
// on the loop or by another goroutine, with metrics.
func TestAllocations(t *testing.T) {
	for _, key := range []int16{0, 3} {
		for _, size := range []int{100, 5000, 16 << 10, 100 << 10} {
			onEachKind(t, func(t *testing.T, c Config) {
				if c.Portable {
					// A net.Conn starts a goroutine for each write.
					return
				}
				c.Registerer = prometheus.NewRegistry()
				j := newTestJournal()
				defer j.close()
				s := start(t, c, func(r *Request) {
					if r.CorrelationID == 1 {
						answerFromScratch(r)
					} else {
						j.queue(r)
					}
				})
				cl := dial(t, s)
				cl.SetDeadline(time.Time{})
				stream := append(frame(key, 3, 1, make([]byte, size)), frame(key, 3, 2, make([]byte, size))...)
				answers := make([]byte, 16)
				round := func() {
					if _, err := cl.Write(stream); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(cl, answers); err != nil {
						t.Fatal(err)
					}
				}
				for range 50 {
					round()
				}
				// A collection may empty the buffer pools once.
				if n := leastAllocs(300, round); n >= 1 {
					t.Errorf("key %d, %d bytes: %v allocations for 2 requests", key, size, n)
				}
			})
		}
	}
}

// leastAllocs is the least that several runs of f allocate, each time, in the whole process: what
// the process does beside them counts too, and is not there in all of them.
func leastAllocs(runs int, f func()) float64 {
	least := math.Inf(1)
	for attempt := 0; attempt < 10 && least > 0; attempt++ {
		least = min(least, testing.AllocsPerRun(runs, f))
	}
	return least
}

// A hop costs no allocation either: neither the node that forwards nor the owner.
func TestForwardedAllocations(t *testing.T) {
	owner := start(t, Config{
		Listeners: []Listener{{Name: "PEER", Address: "127.0.0.1:0", Peer: &PeerAuth{Self: identity(1), Secret: peerSecret}}},
	}, answerFromScratch)
	if owner.epoll == nil {
		return
	}
	s, err := New(Config{Listeners: []Listener{{Address: "127.0.0.1:0"}}, Handler: &relay{peers(t, owner)}})
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve()
	defer s.Close()
	for _, size := range []int{100, 5000, 16 << 10, 100 << 10} {
		cl := dial(t, s)
		cl.SetDeadline(time.Time{})
		request, answer := frame(0, 3, 1, make([]byte, size)), make([]byte, 8)
		round := func() {
			if _, err := cl.Write(request); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(cl, answer); err != nil {
				t.Fatal(err)
			}
		}
		for range 50 {
			round()
		}
		// A collection may empty the buffer pools once.
		if n := leastAllocs(300, round); n >= 1 {
			t.Errorf("%d bytes: %v allocations for a request", size, n)
		}
		cl.Close()
	}
}
