//go:build planted

package planted

import (
	"fmt"
	"os"
	"slices"
)

var acting = Bug(os.Getenv(Environment))

func init() {
	if acting != "" && !slices.Contains(All, acting) {
		fmt.Fprintf(os.Stderr, "quire: %s=%s: no such bug is planted\n", Environment, acting)
		os.Exit(1)
	}
}

// Is says whether a bug acts.
func Is(b Bug) bool { return b == acting }
