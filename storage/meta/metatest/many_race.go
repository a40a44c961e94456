//go:build race

package metatest

// manyKeys are listed at once. With the race detector each costs ten times as much.
const manyKeys = 20_000
