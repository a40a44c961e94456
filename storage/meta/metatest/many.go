//go:build !race

package metatest

// manyKeys are listed at once.
const manyKeys = 100_000
