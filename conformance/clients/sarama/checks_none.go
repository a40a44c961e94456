//go:build sarama1_19

package main

// newerChecks are of calls that this version does not have yet.
var newerChecks []check
