// Package bookietest is a bookie for tests: the real protocol on a real socket,
// storage in memory, and faults by script.
package bookietest
