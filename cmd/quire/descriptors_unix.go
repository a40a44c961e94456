//go:build unix

package main

import (
	"math"
	"syscall"
)

// descriptorLimit is how many files the process may have open; Go has raised it as far
// as it may when the process began.
func descriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt32
	}
	return int(min(limit.Cur, math.MaxInt32))
}
