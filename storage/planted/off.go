//go:build !planted

package planted

// Is says whether a bug acts: none does in this program.
func Is(Bug) bool { return false }
