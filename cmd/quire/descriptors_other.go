//go:build !unix

package main

import "math"

// descriptorLimit is not known on this system.
func descriptorLimit() int { return math.MaxInt32 }
