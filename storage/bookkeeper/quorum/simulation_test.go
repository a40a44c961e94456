package quorum

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// A run of CI has QUIRE_SEEDS=100000; a plain go test has fewer. A failure prints
// the seed's life; QUIRE_SEED=n prints that of any seed.

// seeds returns how many seeds to run: QUIRE_SEEDS, or as many as a plain go test
// has time for.
func seeds(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("QUIRE_SEEDS")
	if text == "" {
		return 4000
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("QUIRE_SEEDS: %v", err)
	}
	return n
}

// firstViolation runs seeds 0…n−1 on all processors until one is violated and
// returns the lowest that was seen, or n.
func firstViolation(r *rules, n uint64) uint64 {
	var next, found atomic.Uint64
	found.Store(n)
	var running sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		running.Go(func() {
			for {
				seed := next.Add(1) - 1
				if seed >= found.Load() {
					return
				}
				if violation, _ := simulate(seed, r, false); violation == noViolation {
					continue
				}
				for {
					best := found.Load()
					if seed >= best || found.CompareAndSwap(best, seed) {
						break
					}
				}
			}
		})
	}
	running.Wait()
	return found.Load()
}

// TestSimulation runs the protocol through as many lives as QUIRE_SEEDS says;
// QUIRE_SEED runs one and prints it.
func TestSimulation(t *testing.T) {
	if text := os.Getenv("QUIRE_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("QUIRE_SEED: %v", err)
		}
		violation, trace := simulate(seed, &protocol, true)
		t.Log(describe(seed, violation, trace))
		if violation != noViolation {
			t.Fail()
		}
		return
	}
	n := seeds(t)
	if seed := firstViolation(&protocol, n); seed < n {
		violation, trace := simulate(seed, &protocol, true)
		t.Fatal(describe(seed, violation, trace))
	}
}
