package check

import (
	"testing"
	"time"
)

func TestLongestGap(t *testing.T) {
	times := []int64{5, 10, 12, 30, 31, 60}
	for _, c := range []struct{ from, to, began, longest time.Duration }{
		{10, 40, 12, 18}, {11, 29, 12, 17}, {31, 100, 31, 29}, {0, 5, 0, 5}, {61, 70, 0, 0},
	} {
		if began, longest := LongestGap(times, c.from, c.to); began != c.began || longest != c.longest {
			t.Errorf("in [%d, %d]: a gap of %d at %d, want %d at %d", c.from, c.to, longest, began, c.longest, c.began)
		}
	}
}
