//go:build !race

package coordinator_test

// histories that TestSlotsProperty runs.
const histories = 2
