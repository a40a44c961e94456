//go:build race

package storage

// raceEnabled: the race detector allocates on its own.
const raceEnabled = true
