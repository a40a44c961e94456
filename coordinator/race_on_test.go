//go:build race

package coordinator_test

// histories that TestSlotsProperty runs. With the race detector one costs as much as all
// other tests.
const histories = 1
