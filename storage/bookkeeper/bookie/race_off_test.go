//go:build !race

package bookie

// allocsPerAdd leaves room for what goroutines and pools need now and then.
const allocsPerAdd = 0.05
