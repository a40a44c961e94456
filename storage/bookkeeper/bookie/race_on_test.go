//go:build race

package bookie

// allocsPerAdd: under the race detector pools forget at random.
const allocsPerAdd = 3
