package main

import "testing"

func TestCollector(t *testing.T) {
	c := collector{percent: collectPercent}
	cycles := uint64(0)
	look := func(collections, liveBytes uint64, want int) {
		t.Helper()
		cycles += collections
		c.percent = c.next(cycles, liveBytes)
		if c.percent != want {
			t.Fatalf("after %d collections that left %d MB: %d %%, want %d", collections, liveBytes>>20, c.percent, want)
		}
	}
	const mb = 1 << 20
	for range 3 {
		look(10, 20*mb, 50) // a burst
	}
	look(1, 20*mb, 50)
	for range 3 {
		look(10, 20*mb, 50)
	}
	look(10, 20*mb, 100)
	look(10, 20*mb, 200)
	look(10, 20*mb, 320) // which is 64 MB
	look(10, 32*mb, 200)
	look(2, 32*mb, 200)
	look(0, 32*mb, 100)
	look(0, 32*mb, 50)
	look(0, 32*mb, 50)
	for range 10 {
		look(10, 400*mb, 50) // more would be much memory
	}
	look(10, 0, 100)
}
