package check

import (
	"slices"
	"time"
)

// LongestGap is the longest time between two of the sorted times, within [from, to],
// and when it began. A gap that goes on at to is counted up to there.
func LongestGap(times []int64, from, to time.Duration) (began, longest time.Duration) {
	i, _ := slices.BinarySearch(times, int64(from))
	last := from
	for ; i < len(times) && last <= to; i++ {
		if gap := min(time.Duration(times[i]), to) - last; gap > longest {
			began, longest = last, gap
		}
		last = time.Duration(times[i])
	}
	return began, longest
}
